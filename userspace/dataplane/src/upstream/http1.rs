//! One exchange with a backend over HTTP/1.

use std::task::{Context, Poll, ready};

use pierhead_http1::{
    BodyLength, Headers, Limits, Method, RequestHead, ResponseHead, ResponseParser, encode, encode::Connection,
    encode::Framing,
};

use tokio::{net::TcpStream, time::Instant};

use super::{Connected, Lease, heard::is_unheard};
use crate::http::{BodyReader, BodyWriter, Fault, Front, Sink, Source, Wire};

/// What a backend may send as a head.
pub(crate) const LIMITS: Limits = Limits {
    start_line: 8 << 10,
    fields_bytes: 48 << 10,
    fields: 256,
};

/// A connection with the request that is on its way over it. It goes back to the pool only by [`Http1Exchange::end`], as it is,
/// and only when nothing about it is in doubt.
pub(crate) struct Http1Exchange {
    wire: Wire<Connected>,
    parser: ResponseParser,
    method: Method,
    writer: BodyWriter,
    /// `None` before the head has come.
    reader: Option<BodyReader>,
    /// The request was queued to its end.
    sent: bool,
    keep: bool,
    reused: bool,
    received_before: u64,
    written_before: u64,
}

/// What comes first in a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    /// 1xx but not 101: more follows.
    Interim,
    /// The final head, with how its body ends.
    Final(BodyLength),
}

impl Http1Exchange {
    /// A connection that was opened now. It has no request before [`Http1Exchange::begin`].
    pub(crate) fn new(wire: Wire<Connected>) -> Self {
        Self {
            wire,
            parser: ResponseParser::new(),
            method: Method::Get,
            writer: BodyWriter::new(Framing::Nothing),
            reader: None,
            sent: false,
            keep: false,
            reused: false,
            received_before: 0,
            written_before: 0,
        }
    }

    /// Queues the head of a request.
    pub(crate) fn begin(&mut self, head: &RequestHead, body: BodyLength, upgrade: bool) {
        (self.received_before, self.written_before) = (self.wire.received, self.wire.written);
        let connection = if upgrade {
            Connection::Upgrade
        } else {
            Connection::Default
        };
        let framing = encode::request(head, body, connection, self.wire.output());
        self.method = head.method;
        self.writer = BodyWriter::new(framing);
        self.sent = matches!(framing, Framing::Nothing | Framing::Length(0));
    }

    /// Whether it may carry a request although it has waited: see [`Wire::is_quiet`].
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.wire.is_quiet()
    }

    /// Whether the connection had carried a request before.
    pub(crate) fn is_reused(&self) -> bool {
        self.reused
    }

    /// Whether no byte of this request has left.
    pub(crate) fn is_unsent(&self) -> bool {
        self.wire.written == self.written_before
    }

    /// Whether no byte of a response has come.
    pub(crate) fn is_unanswered(&self) -> bool {
        self.wire.received == self.received_before
    }

    /// Whether the backend of a connection that waited in the pool does not even acknowledge the request.
    pub(crate) fn is_unheard(&self) -> bool {
        self.is_unanswered() && is_unheard(self.wire.io().tcp())
    }

    pub(crate) fn is_sent(&self) -> bool {
        self.sent
    }

    /// Reads a head.
    pub(crate) fn poll_head(&mut self, cx: &mut Context<'_>, head: &mut ResponseHead) -> Poll<Result<Came, Fault>> {
        loop {
            if !self.wire.input().is_empty()
                && let Some(start) = self.parser.parse(self.wire.input(), head, self.method, &LIMITS)?
            {
                self.wire.consume(start.consumed);
                if head.status.is_interim() {
                    return Poll::Ready(Ok(Came::Interim));
                }
                self.keep = start.keep_alive;
                self.reader = Some(BodyReader::new(start.body, &LIMITS));
                return Poll::Ready(Ok(Came::Final(start.body)));
            }
            if ready!(self.wire.poll_fill(cx))? == 0 {
                return Poll::Ready(Err(Fault::Cut));
            }
        }
    }

    /// Ends the exchange. The connection is kept when request and response are complete, nothing came after the
    /// response, and the backend keeps it; else it is closed. It is now about `now`.
    pub(crate) fn end(mut self: Box<Self>, lease: &Lease, now: Instant) {
        let complete = self.reader.take().is_some_and(|reader| reader.is_done());
        if complete && self.keep && self.sent && self.wire.pending() == 0 && self.wire.input().is_empty() {
            self.parser = ResponseParser::new();
            self.keep = false;
            self.reused = true;
            self.wire.rest();
            lease.checkin(self, now);
        }
    }

    /// The connection, once it has become a tunnel.
    pub(crate) fn into_wire(self) -> Wire<Connected> {
        self.wire
    }
}

impl Source for Http1Exchange {
    fn poll_front(&mut self, cx: &mut Context<'_>) -> Poll<Result<Front, Fault>> {
        match &mut self.reader {
            Some(reader) => reader.poll_front(cx, &mut self.wire),
            None => Poll::Pending,
        }
    }

    fn data(&self) -> &[u8] {
        self.reader.as_ref().map_or(&[], |reader| reader.data(&self.wire))
    }

    fn consume(&mut self, count: usize) {
        if let Some(reader) = &mut self.reader {
            reader.consume(count);
            // What comes next may bypass the input once it is empty.
            reader.settle(&mut self.wire);
        }
    }

    fn trailers(&self) -> Option<&Headers> {
        self.reader.as_ref()?.trailers()
    }

    fn socket(&self) -> Option<(&TcpStream, u64)> {
        let left = self.reader.as_ref()?.bypassable()?;
        Some((self.wire.socket()?, left))
    }

    fn bypassed(&mut self, count: u64) {
        self.wire.received += count;
        if let Some(reader) = &mut self.reader {
            reader.bypassed(count);
        }
    }
}

impl Sink for Http1Exchange {
    fn poll_take(&mut self, cx: &mut Context<'_>, from: &mut impl Source) -> Poll<Result<(), Fault>> {
        self.writer.poll_take(cx, &mut self.wire, from)
    }

    fn finish(&mut self, trailers: Option<&Headers>) -> Result<(), Fault> {
        self.writer.finish(&mut self.wire, trailers)?;
        self.sent = true;
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.wire.poll_flush(cx).map_err(Fault::from)
    }
}
