//! Streams carried as they are: TCP listeners, TLS passed through, and what is inside TLS that ends here.

mod guard;
mod relay;
mod splice;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

pub(crate) use guard::StreamGuard;
pub(crate) use splice::{Moving, Pipes, Stuck};

use crate::{
    conn::{Conn, reset, reset_on_close},
    observe::Reason,
    runtime::{L4Target, ListenerRuntime},
    upstream::{self, ConnectError, Connected},
};

/// Endpoints tried for one connection: a dead one costs its client a connect timeout.
const MAX_ATTEMPTS: usize = 3;

/// How long a TLS goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// A connection of a TCP listener. The backend is connected to at once: it may be the one that speaks first.
pub(crate) async fn serve(client: TcpStream, conn: Conn, listener: Arc<ListenerRuntime>, target: Option<L4Target>) {
    let mut guard = StreamGuard::new("tcp", conn, listener);
    carry(client, &mut guard, target.as_ref(), &[]).await;
}

/// Carries a cleartext or passed-through stream. `ahead` is what was read from the client already.
pub(crate) async fn carry(client: TcpStream, guard: &mut StreamGuard, target: Option<&L4Target>, ahead: &[u8]) {
    let mut upstream = match connect(guard, target).await {
        Ok(connected) => connected,
        Err(reason) => {
            guard.end(reason);
            reset(client);
            return;
        }
    };
    let sent = match &mut upstream {
        Connected::Tcp(stream) => stream.write_all(ahead).await,
        Connected::Tls(stream) => stream.write_all(ahead).await,
    };
    if sent.is_err() {
        guard.end(Reason::BackendReset);
        reset(client);
        return;
    }
    guard.bytes.add_in(ahead.len());
    match upstream {
        Connected::Tcp(upstream) => {
            let idle = guard.limits().stream_idle_timeout;
            let end = splice::both_ways(&client, &upstream, &guard.worker().pipes, &guard.bytes, idle).await;
            if end != Reason::Done {
                // The other side must not mistake a broken stream for a finished one.
                reset_on_close(&client);
                reset_on_close(&upstream);
            }
            guard.end(end);
        }
        Connected::Tls(upstream) => guard.copy(client, upstream).await,
    }
}

/// Carries what is inside a TLS connection that ended here.
pub(crate) async fn carry_decrypted<S>(mut client: S, guard: &mut StreamGuard, target: Option<&L4Target>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match connect(guard, target).await {
        Ok(Connected::Tcp(upstream)) => guard.copy(client, upstream).await,
        Ok(Connected::Tls(upstream)) => guard.copy(client, upstream).await,
        Err(reason) => {
            guard.end(reason);
            // TLS was promised: close_notify, so that the client knows nothing was cut off.
            let _ = timeout(GOODBYE, client.shutdown()).await;
        }
    }
}

/// Picks a backend by weight and connects to one of its endpoints; to the next one when that fails.
async fn connect(guard: &mut StreamGuard, target: Option<&L4Target>) -> Result<Connected, Reason> {
    let Some(target) = target else {
        return Err(Reason::Refused);
    };
    guard.route = Some(Arc::clone(&target.route));
    let picked = target.backends.pick().ok_or(Reason::NoBackend)?;
    guard.backend = Some(picked.id.clone());
    let backend = picked.backend.ok_or(Reason::BackendInvalid)?;
    if backend.usable().is_err() {
        return Err(Reason::BackendInvalid);
    }
    let cells = backend.cells.of(guard.worker().number);
    let started = Instant::now();
    let limit = guard.limits().connect_timeout;
    let mut tried: Vec<SocketAddr> = Vec::new();
    let mut failure = Reason::NoEndpoint;
    while tried.len() < MAX_ATTEMPTS {
        let Some(endpoint) = backend.pick(&tried) else { break };
        tried.push(endpoint);
        guard.attempts += 1;
        cells.attempts.add(1);
        cells.connects.add(1);
        failure = match upstream::connect(endpoint, backend.tls().map(AsRef::as_ref), limit).await {
            Ok(connected) => {
                cells.latency.record(started.elapsed());
                guard.endpoint = Some(endpoint);
                return Ok(connected);
            }
            Err(ConnectError::Timeout) => Reason::ConnectTimeout,
            Err(ConnectError::Tcp(_)) => Reason::ConnectFailed,
            Err(_) => Reason::BackendTls,
        };
        cells.fail(failure);
    }
    if tried.is_empty() {
        cells.fail(failure);
    }
    Err(failure)
}

#[cfg(test)]
mod tests {
    /// The size of what `serve` makes, without making it.
    fn size<A, B, C, D, F>(_serve: impl FnOnce(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    fn size2<A, B, F>(_serve: impl FnOnce(A, B) -> F) -> usize {
        size_of::<F>()
    }

    /// Every open connection holds one: what is rare or large is boxed.
    #[test]
    fn a_connection_is_small() {
        let (tcp, tls) = (size(super::serve), size2(crate::tls::serve));
        assert!(tcp <= 3 * 1024, "{tcp} bytes for TCP");
        assert!(tls <= 3 * 1024, "{tls} bytes for TLS");
    }
}
