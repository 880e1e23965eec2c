use std::{
    cell::Cell,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use pierhead_model::{BackendId, L4Route, Limits};
use tokio::io::{AsyncRead, AsyncWrite};

use super::relay;
use crate::{
    conn::Conn,
    observe::{Exchange, Reason},
    runtime::ListenerRuntime,
    worker::Worker,
};

/// Bytes carried so far, and when the last ones were.
#[derive(Debug)]
pub(crate) struct Bytes {
    from_client: Cell<u64>,
    to_client: Cell<u64>,
    moved: Cell<tokio::time::Instant>,
}

impl Bytes {
    fn new() -> Self {
        Self {
            from_client: Cell::new(0),
            to_client: Cell::new(0),
            moved: Cell::new(tokio::time::Instant::now()),
        }
    }

    pub(crate) fn add_in(&self, count: usize) {
        self.from_client.set(self.from_client.get() + count as u64);
        self.moved.set(tokio::time::Instant::now());
    }

    pub(crate) fn add_out(&self, count: usize) {
        self.to_client.set(self.to_client.get() + count as u64);
        self.moved.set(tokio::time::Instant::now());
    }

    /// Ends when nothing has moved for `limit`.
    pub(crate) async fn idle(&self, limit: Duration) {
        loop {
            let until = self.moved.get() + limit;
            if tokio::time::Instant::now() >= until {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

/// Counts a stream when it begins and records it when it ends, however it ends.
pub(crate) struct StreamGuard {
    conn: Conn,
    protocol: &'static str,
    listener: Arc<ListenerRuntime>,
    pub(crate) sni: Option<Box<str>>,
    pub(crate) route: Option<Arc<L4Route>>,
    pub(crate) backend: Option<BackendId>,
    pub(crate) endpoint: Option<SocketAddr>,
    pub(crate) attempts: u32,
    pub(crate) bytes: Bytes,
    /// What it is when nobody says otherwise: the worker stopped.
    reason: Reason,
}

impl StreamGuard {
    pub(crate) fn new(protocol: &'static str, conn: Conn, listener: Arc<ListenerRuntime>) -> Self {
        listener.cells.of(conn.worker.number).opened.add(1);
        Self {
            conn,
            protocol,
            listener,
            sni: None,
            route: None,
            backend: None,
            endpoint: None,
            attempts: 0,
            bytes: Bytes::new(),
            reason: Reason::Draining,
        }
    }

    pub(crate) fn worker(&self) -> &Rc<Worker> {
        &self.conn.worker
    }

    pub(crate) fn limits(&self) -> &Limits {
        self.listener.limits()
    }

    pub(crate) fn end(&mut self, reason: Reason) {
        self.reason = reason;
    }

    /// Carries bytes both ways between two streams that cannot be spliced.
    pub(crate) async fn copy<A, B>(&mut self, client: A, upstream: B)
    where
        A: AsyncRead + AsyncWrite + Unpin,
        B: AsyncRead + AsyncWrite + Unpin,
    {
        let idle = self.listener.limits().stream_idle_timeout;
        self.reason = relay::both_ways(client, upstream, &self.bytes, idle).await;
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        let (bytes_in, bytes_out) = (self.bytes.from_client.get(), self.bytes.to_client.get());
        let cells = self.listener.cells.of(self.conn.worker.number);
        cells.closed.add(1);
        cells.bytes_in.add(bytes_in);
        cells.bytes_out.add(bytes_out);
        cells.end(self.reason);
        self.conn.worker.log.write(|| Exchange {
            protocol: self.protocol,
            peer: self.conn.peer,
            local: self.conn.local,
            listener: Some(&self.listener.model.id),
            sni: self.sni.as_deref(),
            route: self.route.as_ref().map(|route| &route.origin),
            backend: self.backend.as_ref(),
            endpoint: self.endpoint,
            request: None,
            reason: self.reason,
            duration: Instant::now().saturating_duration_since(self.conn.accepted),
            bytes_in,
            bytes_out,
            attempts: self.attempts,
        });
    }
}
