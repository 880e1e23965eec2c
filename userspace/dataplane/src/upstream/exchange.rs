//! One exchange with a backend, whatever codec carries it.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use pierhead_http1::{BodyLength, Headers, RequestHead, ResponseHead};
use pierhead_model::BackendProtocol;
use tokio::{net::TcpStream, time::Instant};

use super::{
    Backend, Connected, Http1Exchange, Http2Exchange, Lease,
    http1::Came,
    http2::{self, OpenError},
};
use crate::http::{Fault, Front, Sink, Source, Wire};

/// A request on its way.
pub(crate) enum Upstream {
    Http1(Box<Http1Exchange>),
    Http2(Box<Http2Exchange>),
}

impl Upstream {
    /// Takes a connection, a pooled one unless `fresh`, and queues the head. `upgrade` asks for the protocol in the block's
    /// Upgrade field; only HTTP/1 can.
    ///
    /// # Errors
    /// See [`OpenError`]; nothing was sent.
    pub(crate) async fn begin(
        lease: &Lease,
        backend: &Backend,
        head: &RequestHead,
        body: BodyLength,
        upgrade: bool,
        fresh: bool,
        limit: Duration,
    ) -> Result<Self, OpenError> {
        if backend.protocol() == BackendProtocol::Http2 {
            // Opening is rare and its state large.
            let exchange = Box::pin(Http2Exchange::begin(lease, backend, head, body, limit)).await?;
            return Ok(Self::Http2(Box::new(exchange)));
        }
        let pooled = if fresh { None } else { lease.checkout() };
        let mut exchange = match pooled {
            Some(exchange) => exchange,
            None => {
                let opened = Box::pin(lease.connect(backend, limit)).await?;
                Box::new(Http1Exchange::new(lease.wire(opened)))
            }
        };
        exchange.begin(head, body, upgrade);
        Ok(Self::Http1(exchange))
    }

    pub(crate) fn poll_head(&mut self, cx: &mut Context<'_>, head: &mut ResponseHead) -> Poll<Result<Came, Fault>> {
        match self {
            Self::Http1(exchange) => exchange.poll_head(cx, head),
            Self::Http2(exchange) => exchange.stream.poll_head(cx, head),
        }
    }

    /// Whether a connection was opened for this exchange.
    pub(crate) fn has_opened(&self) -> bool {
        match self {
            Self::Http1(exchange) => !exchange.is_reused(),
            Self::Http2(exchange) => exchange.has_opened(),
        }
    }

    /// The request was queued to its end.
    pub(crate) fn is_sent(&self) -> bool {
        match self {
            Self::Http1(exchange) => exchange.is_sent(),
            Self::Http2(exchange) => exchange.stream.is_done(),
        }
    }

    /// Whether `fault` says that the backend did not begin to work on the request.
    pub(crate) fn is_not_begun(&self, fault: &Fault) -> bool {
        match self {
            Self::Http1(exchange) => exchange.is_unsent(),
            Self::Http2(_) => http2::is_refused(fault),
        }
    }

    /// Whether the connection, not the backend, is probably to blame: it had waited in the pool and nothing came back, or
    /// the stream was refused.
    pub(crate) fn is_stale(&self, fault: &Fault) -> bool {
        match self {
            Self::Http1(exchange) => exchange.is_reused() && exchange.is_unanswered(),
            Self::Http2(_) => http2::is_refused(fault),
        }
    }

    /// Whether it may turn out that the other side has gone without a word while the connection waited in the pool. HTTP/2 has
    /// pings for that.
    pub(crate) fn may_be_unheard(&self) -> bool {
        match self {
            Self::Http1(exchange) => exchange.is_reused(),
            Self::Http2(_) => false,
        }
    }

    /// Whether it has: see [`Fault::Unheard`].
    pub(crate) fn is_unheard(&self) -> bool {
        match self {
            Self::Http1(exchange) => exchange.is_unheard(),
            Self::Http2(_) => false,
        }
    }

    /// Ends the exchange; what can be used again is. It is now about `now`.
    pub(crate) fn end(self, lease: &Lease, now: Instant) {
        match self {
            Self::Http1(exchange) => exchange.end(lease, now),
            // Given up where it is not complete.
            Self::Http2(exchange) => drop(exchange),
        }
    }

    /// The connection, once it has become a tunnel; `None` for a protocol that has none.
    pub(crate) fn into_wire(self) -> Option<Wire<Connected>> {
        match self {
            Self::Http1(exchange) => Some(exchange.into_wire()),
            Self::Http2(_) => None,
        }
    }
}

impl Source for Upstream {
    fn poll_front(&mut self, cx: &mut Context<'_>) -> Poll<Result<Front, Fault>> {
        match self {
            Self::Http1(exchange) => exchange.poll_front(cx),
            Self::Http2(exchange) => exchange.stream.poll_front(cx),
        }
    }

    fn data(&self) -> &[u8] {
        match self {
            Self::Http1(exchange) => exchange.data(),
            Self::Http2(exchange) => exchange.stream.data(),
        }
    }

    fn consume(&mut self, count: usize) {
        match self {
            Self::Http1(exchange) => exchange.consume(count),
            Self::Http2(exchange) => exchange.stream.consume(count),
        }
    }

    fn trailers(&self) -> Option<&Headers> {
        match self {
            Self::Http1(exchange) => exchange.trailers(),
            Self::Http2(exchange) => exchange.stream.trailers(),
        }
    }

    fn socket(&self) -> Option<(&TcpStream, u64)> {
        match self {
            Self::Http1(exchange) => Source::socket(&**exchange),
            Self::Http2(_) => None,
        }
    }

    fn bypassed(&mut self, count: u64) {
        match self {
            Self::Http1(exchange) => Source::bypassed(&mut **exchange, count),
            Self::Http2(_) => {}
        }
    }
}

impl Sink for Upstream {
    fn poll_take(&mut self, cx: &mut Context<'_>, from: &mut impl Source) -> Poll<Result<(), Fault>> {
        match self {
            Self::Http1(exchange) => exchange.poll_take(cx, from),
            Self::Http2(exchange) => exchange.stream.poll_take(cx, from),
        }
    }

    fn finish(&mut self, trailers: Option<&Headers>) -> Result<(), Fault> {
        match self {
            Self::Http1(exchange) => exchange.finish(trailers),
            Self::Http2(exchange) => exchange.stream.finish(trailers),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        match self {
            Self::Http1(exchange) => exchange.poll_flush(cx),
            Self::Http2(exchange) => exchange.stream.poll_flush(cx),
        }
    }
}
