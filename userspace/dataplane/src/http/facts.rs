//! What is known of an exchange at its end: one record feeds metrics and the access log.

use std::{net::SocketAddr, time::Duration};

use pierhead_http1::{Known, Version};
use pierhead_model::{BackendId, Origin};
use tokio::time::Instant;

use super::{context::Context, local::Scratch};
use crate::{
    observe::{Exchange, Reason, RequestFacts},
    runtime::ListenerRuntime,
};

pub(crate) struct Facts<'r> {
    pub(crate) began: Instant,
    pub(crate) listener: Option<&'r ListenerRuntime>,
    pub(crate) route: Option<&'r Origin>,
    pub(crate) backend: Option<&'r BackendId>,
    pub(crate) endpoint: Option<SocketAddr>,
    pub(crate) attempts: u32,
    /// From the choice of an endpoint to the head of its answer.
    pub(crate) upstream: Option<Duration>,
    /// 0: no answer was begun.
    pub(crate) status: u16,
    pub(crate) reason: Reason,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

impl Facts<'_> {
    pub(crate) fn new(began: Instant) -> Self {
        Self {
            began,
            listener: None,
            route: None,
            backend: None,
            endpoint: None,
            attempts: 0,
            upstream: None,
            status: 0,
            reason: Reason::Done,
            bytes_in: 0,
            bytes_out: 0,
        }
    }

    pub(crate) fn record(&self, cx: &Context, scratch: &Scratch) {
        let conn = &cx.conn;
        let listener = self.listener.or_else(|| cx.listener());
        let duration = cx.local().now() - self.began;
        if let Some(listener) = listener {
            let cells = listener.cells.of(conn.worker.number);
            if let Some(class) = cells.requests.get(usize::from(self.status / 100)) {
                class.add(1);
            }
            if self.reason != Reason::Done
                && let Some(ended) = cells.ended.get(self.reason.index())
            {
                ended.add(1);
            }
            cells.latency.record(duration);
            cells.bytes_in.add(self.bytes_in);
            cells.bytes_out.add(self.bytes_out);
        }
        let head = &scratch.request;
        conn.worker.log.write(|| Exchange {
            protocol: match head.version {
                Version::Http10 => "HTTP/1.0",
                Version::Http11 => "HTTP/1.1",
                Version::Http2 => "HTTP/2",
            },
            peer: conn.peer,
            local: conn.local,
            listener: listener.map(|listener| &listener.model.id),
            sni: conn.tls.as_ref().and_then(|tls| tls.sni.as_deref()),
            route: self.route,
            backend: self.backend,
            endpoint: self.endpoint,
            request: Some(RequestFacts {
                method: head.method.as_bytes(),
                host: scratch.host.as_bytes(),
                target: &scratch.target,
                status: self.status,
                user_agent: head.headers.first(Known::UserAgent),
                request_id: head.headers.first(Known::XRequestId),
                upstream: self.upstream,
            }),
            reason: self.reason,
            duration,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            attempts: self.attempts,
        });
    }
}
