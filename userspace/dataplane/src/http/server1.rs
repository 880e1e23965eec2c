//! HTTP/1 connections of clients: one request after the other.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::{Poll, ready},
    time::Duration,
};

use pierhead_http1::{
    BodyLength, Headers, Method, Preface, RequestParser, ResponseHead, Status, Version, encode,
    encode::{Asked, Connection, Framing},
    preface,
};
use tokio::{net::TcpStream, time::Instant};

use super::{
    body::{BodyReader, BodyWriter, Fault, Front, Sink, Source},
    client::Client,
    context::Context,
    io::{Stream, Wire},
    local::Scratch,
    pipeline,
    timer::Timer,
};

/// What becomes of a connection that was begun as HTTP/1.
pub(crate) enum Next<S> {
    Closed,
    /// It started with the HTTP/2 preface; nothing was consumed.
    Http2(Wire<S>),
}

/// Unread body that is taken off the wire so that the connection can live on, or so that closing it does not reset an
/// answer that is still on its way.
const DRAIN_BYTES: u64 = 64 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(1);

enum Wake {
    Input,
    Gone,
    Late,
    Drain,
}

/// Serves a connection to its end.
pub(crate) async fn serve<S: Stream>(mut wire: Wire<S>, cx: &Context, may_be_http2: bool) -> Next<S> {
    let mut timer = Timer::default();
    let limits = cx.head_limits();
    let drain = &cx.conn.worker.drain;
    let mut draining = pin!(drain.started());
    // Asked once: it is always this connection's task that is woken.
    let mut awaits_drain = false;
    let mut may_be_http2 = may_be_http2;
    // The first byte may take as long as a head.
    let mut idle_until = Instant::now() + cx.limits.header_timeout;
    loop {
        // Between requests: no buffer, no heads, only a deadline.
        if wire.input().is_empty() {
            wire.rest();
            timer.set(Some(idle_until));
            let wake = poll_fn(|cx| {
                match wire.poll_fill(cx) {
                    Poll::Ready(Ok(count)) if count > 0 => return Poll::Ready(Wake::Input),
                    Poll::Ready(_) => return Poll::Ready(Wake::Gone),
                    Poll::Pending => {}
                }
                let starts_now = !awaits_drain && draining.as_mut().poll(cx).is_ready();
                if starts_now || drain.is_started() {
                    return Poll::Ready(Wake::Drain);
                }
                awaits_drain = true;
                timer.poll(cx).map(|()| Wake::Late)
            });
            match wake.await {
                Wake::Input => {}
                Wake::Gone | Wake::Late | Wake::Drain => break,
            }
        }
        if may_be_http2 {
            timer.set(Some(Instant::now() + cx.limits.header_timeout));
            match sniff(&mut wire, &mut timer).await {
                Preface::Yes => return Next::Http2(wire),
                Preface::No => may_be_http2 = false,
                Preface::Partial => break,
            }
        }
        let mut scratch = cx.local().scratch();
        let alive = exchange(&mut wire, cx, &limits, &mut timer, &mut scratch).await;
        cx.local().give_scratch(scratch);
        if !alive {
            break;
        }
        idle_until = cx.local().lately() + cx.limits.idle_timeout;
    }
    let _ = poll_fn(|cx| wire.poll_shutdown(cx)).await;
    Next::Closed
}

/// Reads until it is clear whether the connection starts with the HTTP/2 preface; `Partial` when it ends before.
async fn sniff<S: Stream>(wire: &mut Wire<S>, timer: &mut Timer) -> Preface {
    loop {
        match preface(wire.input()) {
            Preface::Partial => {}
            known => return known,
        }
        if !matches!(fill(wire, timer).await, Fill::More) {
            return Preface::Partial;
        }
    }
}

enum Fill {
    More,
    End,
    Late,
}

async fn fill<S: Stream>(wire: &mut Wire<S>, timer: &mut Timer) -> Fill {
    poll_fn(|cx| {
        match wire.poll_fill(cx) {
            Poll::Ready(Ok(count)) if count > 0 => return Poll::Ready(Fill::More),
            Poll::Ready(_) => return Poll::Ready(Fill::End),
            Poll::Pending => {}
        }
        timer.poll(cx).map(|()| Fill::Late)
    })
    .await
}

/// Reads one request and has it answered. Whether another may follow.
async fn exchange<S: Stream>(
    wire: &mut Wire<S>,
    cx: &Context,
    limits: &pierhead_http1::Limits,
    timer: &mut Timer,
    scratch: &mut Scratch,
) -> bool {
    let mut parser = RequestParser::new();
    let mut timed = false;
    let refusal = loop {
        match parser.parse(wire.input(), &mut scratch.request, limits) {
            Ok(Some(start)) => {
                wire.consume(start.consumed);
                let mut client = Http1Client {
                    asked: Asked {
                        method: scratch.request.method,
                        version: scratch.request.version,
                    },
                    reader: BodyReader::new(start.body, limits),
                    writer: BodyWriter::new(Framing::Nothing),
                    keep: start.keep_alive && !cx.conn.worker.drain.is_leaving(),
                    may_continue: start.expect_continue,
                    started: false,
                    broken: false,
                    wire,
                };
                pipeline::run(cx, scratch, start.body, &mut client, timer).await;
                return client.settle(timer).await;
            }
            Ok(None) => {}
            Err(error) => {
                if error.is_smuggling_suspicion() {
                    tracing::debug!(peer = %cx.conn.peer, %error, "refused a request that others may read differently");
                }
                break Status::from(error);
            }
        }
        if !timed {
            // Most heads come whole, and need no deadline.
            timer.set(Some(Instant::now() + cx.limits.header_timeout));
            timed = true;
        }
        match fill(wire, timer).await {
            Fill::More => {}
            Fill::Late if !RequestParser::is_idle(wire.input()) => break Status::new(408).unwrap_or(Status::OK),
            Fill::End | Fill::Late => return false,
        }
    };
    let mut client = Http1Client {
        asked: Asked {
            method: Method::Get,
            version: Version::Http11,
        },
        // Whatever follows cannot be understood.
        reader: BodyReader::new(BodyLength::UntilClose, limits),
        writer: BodyWriter::new(Framing::Nothing),
        keep: false,
        may_continue: false,
        started: false,
        broken: false,
        wire,
    };
    scratch.target.clear();
    scratch.host.clear();
    pipeline::refuse(cx, scratch, refusal, &mut client, timer).await;
    client.settle(timer).await
}

/// The client of one request.
struct Http1Client<'w, S> {
    wire: &'w mut Wire<S>,
    asked: Asked,
    reader: BodyReader,
    writer: BodyWriter,
    /// Another request may follow.
    keep: bool,
    /// The client waits for `100 Continue` before it sends the body.
    may_continue: bool,
    started: bool,
    broken: bool,
}

impl<S: Stream> Http1Client<'_, S> {
    /// After the answer: takes what is left of the body off the wire, within bounds. Whether another request may follow.
    async fn settle(mut self, timer: &mut Timer) -> bool {
        if self.broken {
            // What has been said may go, if it can go at once; the missing rest tells the client.
            poll_fn(|cx| {
                let _ = self.wire.poll_flush(cx);
                Poll::Ready(())
            })
            .await;
            return false;
        }
        self.reader.settle(self.wire);
        if self.keep && self.reader.is_done() {
            return true;
        }
        if !self.keep {
            // The answer must arrive before a reset could (RFC 9112 §9.6).
            let flushed = poll_fn(|cx| {
                ready!(self.wire.poll_flush(cx))?;
                self.wire.poll_shutdown(cx)
            });
            if flushed.await.is_err() {
                return false;
            }
            self.reader = BodyReader::new(BodyLength::UntilClose, &pierhead_http1::Limits::default());
        }
        timer.set(Some(Instant::now() + DRAIN_TIME));
        let mut left = DRAIN_BYTES;
        let ended = poll_fn(|cx| {
            loop {
                match self.reader.poll_front(cx, self.wire) {
                    Poll::Ready(Ok(Front::Data)) => {
                        let count = self.reader.data(self.wire).len();
                        self.reader.consume(count);
                        left = left.saturating_sub(count as u64);
                        if left == 0 {
                            return Poll::Ready(false);
                        }
                    }
                    Poll::Ready(Ok(Front::End)) => return Poll::Ready(true),
                    Poll::Ready(Err(_)) => return Poll::Ready(false),
                    Poll::Pending => return timer.poll(cx).map(|()| false),
                }
            }
        });
        ended.await && self.keep
    }

    fn connection(&self) -> Connection {
        match (self.keep, self.asked.version) {
            (false, _) => Connection::Close,
            (true, Version::Http10) => Connection::KeepAlive,
            (true, _) => Connection::Default,
        }
    }
}

impl<S: Stream> Source for Http1Client<'_, S> {
    fn poll_front(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Result<Front, Fault>> {
        if self.may_continue {
            self.may_continue = false;
            // Not when the body comes anyway, and not after the answer has begun.
            if self.wire.input().is_empty() && !self.started {
                self.wire.output().extend_from_slice(encode::CONTINUE);
                if let Poll::Ready(Err(error)) = self.wire.poll_flush(cx) {
                    return Poll::Ready(Err(error.into()));
                }
            }
        }
        self.reader.poll_front(cx, self.wire)
    }

    fn data(&self) -> &[u8] {
        self.reader.data(self.wire)
    }

    fn consume(&mut self, count: usize) {
        self.reader.consume(count);
    }

    fn trailers(&self) -> Option<&Headers> {
        self.reader.trailers()
    }
}

impl<S: Stream> Sink for Http1Client<'_, S> {
    fn poll_take(&mut self, cx: &mut std::task::Context<'_>, from: &mut impl Source) -> Poll<Result<(), Fault>> {
        self.writer.poll_take(cx, self.wire, from)
    }

    fn finish(&mut self, trailers: Option<&Headers>) -> Result<(), Fault> {
        self.writer.finish(self.wire, trailers)
    }

    fn poll_flush(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Result<(), Fault>> {
        self.wire.poll_flush(cx).map_err(Fault::from)
    }

    fn poll_close(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Result<(), Fault>> {
        self.wire.poll_shutdown(cx).map_err(Fault::from)
    }

    fn socket(&self, count: u64) -> Option<&TcpStream> {
        if self.writer.is_bypassable(count) {
            self.wire.socket_for_writing()
        } else {
            None
        }
    }

    fn bypassed(&mut self, count: u64) {
        self.wire.written += count;
        self.writer.bypassed(count);
    }
}

impl<S: Stream> Client for Http1Client<'_, S> {
    fn poll_gone(&mut self, cx: &mut std::task::Context<'_>) -> Poll<()> {
        if !self.reader.is_done() {
            return Poll::Pending;
        }
        self.reader.settle(self.wire);
        // What comes is the next request, which waits; one look is enough.
        if !self.wire.input().is_empty() {
            return Poll::Pending;
        }
        match ready!(self.wire.poll_fill(cx)) {
            Ok(count) if count > 0 => Poll::Pending,
            _ => Poll::Ready(()),
        }
    }

    fn interim(&mut self, status: Status, headers: &Headers) {
        // RFC 9110 §15.2: never to an HTTP/1.0 client.
        if self.asked.version == Version::Http11 && !self.started {
            encode::interim(status, headers, self.wire.output());
        }
    }

    fn start(&mut self, head: &ResponseHead, body: BodyLength) -> Result<(), Fault> {
        self.started = true;
        // A body that was never asked for will perhaps not come, and one that is long is not worth reading.
        let unread = !self.reader.is_done() && self.reader.left().is_some_and(|left| left > DRAIN_BYTES);
        if self.may_continue || unread {
            self.keep = false;
        }
        let framing = encode::response(head, self.asked, body, self.connection(), self.wire.output());
        if framing == Framing::UntilClose {
            self.keep = false;
        }
        self.writer = BodyWriter::new(framing);
        Ok(())
    }

    fn switch(&mut self, head: &ResponseHead) -> Result<(), Fault> {
        self.started = true;
        self.keep = false;
        let _nothing = encode::response(
            head,
            self.asked,
            BodyLength::Empty,
            Connection::Upgrade,
            self.wire.output(),
        );
        self.reader.settle(self.wire);
        self.reader = BodyReader::new(BodyLength::UntilClose, &pierhead_http1::Limits::default());
        self.writer = BodyWriter::new(Framing::UntilClose);
        Ok(())
    }

    fn is_started(&self) -> bool {
        self.started
    }

    fn protocol(&self) -> Option<&[u8]> {
        None
    }

    fn close_after(&mut self) {
        self.keep = false;
    }

    fn abort(&mut self) {
        self.broken = true;
        self.keep = false;
    }
}
