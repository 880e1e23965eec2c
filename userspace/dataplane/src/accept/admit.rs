use std::{net::SocketAddr, rc::Rc, sync::Arc};

use pierhead_model::Transport;
use tokio::{
    net::TcpStream,
    task::spawn_local,
    time::{Instant, timeout_at},
};

use super::proxy;
use crate::{
    conn::{Conn, canonical, reset},
    http,
    observe::Reason,
    runtime::{ListenerRuntime, Protocol},
    tcp, tls,
    worker::Worker,
};

/// Finds the bind of a new connection, counts it in, and starts its task. What may not come in is reset: nothing was
/// promised yet, and a reset leaves nothing behind here.
pub(super) fn admit(worker: &Rc<Worker>, mut stream: TcpStream, peer: SocketAddr) {
    // Of a steered connection this is where the client wanted to go.
    let Ok(local) = stream.local_addr() else {
        worker.cells().accept_errors.add(1);
        return;
    };
    let (local, peer) = (canonical(local), canonical(peer));
    let runtime = worker.runtime();
    let Some(bind) = runtime.binds.find(Transport::Tcp, local.ip(), local.port()) else {
        worker.cells().strays.add(1);
        reset(stream);
        return;
    };
    let Some(first) = bind.first() else {
        worker.cells().strays.add(1);
        reset(stream);
        return;
    };
    let Some(slot) = first.gauge.enter(first.limits().connections) else {
        first.cells.of(worker.number).refuse(Reason::LimitReached);
        reset(stream);
        return;
    };
    if stream.set_nodelay(true).is_err() {
        // Only a connection that is gone already refuses this.
        return;
    }
    let conn = Conn::new(worker, &runtime, (peer, local), bind, slot);
    if bind.is_proxy(peer.ip()) {
        let first = Arc::clone(first);
        // Rare among many connections, and over when the header has come.
        spawn_local(Box::pin(async move {
            if let Some(conn) = announced(&mut stream, conn, &first).await {
                serve(stream, conn, &first);
            } else {
                reset(stream);
            }
        }));
        return;
    }
    serve(stream, conn, first);
}

/// Starts the task of a connection.
fn serve(stream: TcpStream, conn: Conn, first: &Arc<ListenerRuntime>) {
    match &first.protocol {
        Protocol::Http(_) => {
            spawn_local(http::serve(stream, conn));
        }
        Protocol::Https { .. } | Protocol::TlsPassthrough(_) | Protocol::TlsTerminate { .. } => {
            spawn_local(tls::serve(stream, conn));
        }
        Protocol::Tcp(target) => {
            let (listener, target) = (Arc::clone(first), target.clone());
            spawn_local(tcp::serve(stream, conn, listener, target));
        }
        Protocol::Udp(_) => reset(stream),
    }
}

/// Learns from a trusted peer who the client is. `None`: it did not say, so it is refused.
async fn announced(stream: &mut TcpStream, mut conn: Conn, first: &ListenerRuntime) -> Option<Conn> {
    let deadline = Instant::from_std(conn.accepted) + first.limits().handshake_timeout;
    let reason = match timeout_at(deadline, proxy::read(stream)).await {
        Ok(Ok(client)) => {
            conn.peer = client.map_or(conn.peer, canonical);
            return Some(conn);
        }
        Ok(Err(error)) => {
            tracing::debug!(peer = %conn.peer, %error, "no usable header of the PROXY protocol");
            Reason::HandshakeFailed
        }
        Err(_) => Reason::HandshakeTimeout,
    };
    first.cells.of(conn.worker.number).refuse(reason);
    None
}
