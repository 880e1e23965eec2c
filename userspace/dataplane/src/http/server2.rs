//! HTTP/2 connections of clients: each stream is an exchange of its own.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::{self, Poll},
    time::Duration,
};

use bytes::Bytes;
use h2::{Ping, Reason, RecvStream, server::SendResponse};
use pierhead_http1::{BodyLength, Headers, ResponseHead, Status};
use tokio::{
    task::spawn_local,
    time::{Instant, timeout},
};

use super::{
    body::{Fault, Front, Sink, Source},
    client::Client,
    context::Context,
    gather::gather,
    http2::{self, StreamReader, StreamWriter},
    io::Stream,
    pipeline,
    timer::Timer,
};

/// What a stream, and a connection, may send us unread.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Unsent data held per stream.
const SEND_BUFFER: usize = 64 * 1024;

/// How often a client with open streams is asked whether it is still there, and how long it may take to say so.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_LIMIT: Duration = Duration::from_secs(15);

/// How long a client may take to leave after it was told to, once it has no streams.
const FAREWELL: Duration = Duration::from_secs(5);

/// Serves a connection to its end.
pub(crate) async fn serve<S: Stream>(io: S, cx: Rc<Context>) {
    let limits = &cx.limits;
    let (io, gathered) = gather(io, Rc::clone(&cx.local().buffers));
    let handshake = h2::server::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(limits.header_bytes.clamp(4 * 1024, 64 * 1024))
        .enable_connect_protocol()
        .handshake::<_, Bytes>(io);
    let Ok(Ok(mut connection)) = timeout(limits.header_timeout, handshake).await else {
        return;
    };
    gathered.begin();
    let open = Rc::new(Cell::new(0));
    let drain = &cx.conn.worker.drain;
    let mut drained = pin!(drain.leaving());
    let mut pings = connection.ping_pong();
    let mut pinged = false;
    let mut timer = Timer::default();
    let mut leaving = false;
    let mut idle = true;
    timer.set(Some(Instant::now() + limits.idle_timeout));
    poll_fn(|task| {
        loop {
            match pin!(connection.accept()).poll(task) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    open.set(open.get() + 1);
                    spawn_local(exchange(Rc::clone(&cx), request, respond, Open(Rc::clone(&open))));
                    continue;
                }
                // The connection is over, in order or not.
                Poll::Ready(None | Some(Err(_))) => return Poll::Ready(()),
                Poll::Pending => {}
            }
            if let Poll::Ready(Err(_)) = gathered.poll_send(task) {
                return Poll::Ready(());
            }
            if !leaving && (drain.is_leaving() || drained.as_mut().poll(task).is_ready()) {
                leaving = true;
                connection.graceful_shutdown();
                timer.set(Some(Instant::now() + FAREWELL));
                continue;
            }
            if let Some(pings) = &mut pings
                && pinged
                && pings.poll_pong(task).is_ready()
            {
                pinged = false;
                timer.set(Some(Instant::now() + PING_EVERY));
            }
            // Whenever the last stream ends or the first begins, another silence counts.
            if idle != (open.get() == 0) {
                idle = !idle;
                let wait = match (leaving, idle) {
                    (true, _) => FAREWELL,
                    (false, true) => limits.idle_timeout,
                    (false, false) => PING_EVERY,
                };
                timer.set(Some(Instant::now() + wait));
            }
            if timer.poll(task).is_pending() {
                return Poll::Pending;
            }
            if idle || pinged {
                if leaving || pinged {
                    return Poll::Ready(());
                }
                leaving = true;
                connection.graceful_shutdown();
                timer.set(Some(Instant::now() + FAREWELL));
                continue;
            }
            pinged = pings
                .as_mut()
                .is_some_and(|pings| pings.send_ping(Ping::opaque()).is_ok());
            timer.set(Some(Instant::now() + if pinged { PING_LIMIT } else { PING_EVERY }));
        }
    })
    .await;
}

/// Counts a stream.
struct Open(Rc<Cell<usize>>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

async fn exchange(cx: Rc<Context>, request: http::Request<RecvStream>, respond: SendResponse<Bytes>, _open: Open) {
    let (parts, recv) = request.into_parts();
    let ended = recv.is_end_stream();
    let mut scratch = cx.local().scratch();
    let mut client = Http2Client {
        reader: StreamReader::new(recv),
        respond,
        writer: None,
        protocol: parts
            .extensions
            .get::<h2::ext::Protocol>()
            .map(|protocol| protocol.as_str().as_bytes().into()),
        head_only: parts.method == http::Method::HEAD,
    };
    let mut timer = Timer::default();
    let max_fields = cx.limits.header_count as usize;
    match http2::read_request(&parts, ended, max_fields, &mut scratch.request) {
        Ok(body) => {
            drop(parts);
            pipeline::run(&cx, &mut scratch, body, &mut client, &mut timer).await;
        }
        Err(status) => {
            scratch.target.clear();
            scratch.host.clear();
            pipeline::refuse(&cx, &mut scratch, status, &mut client, &mut timer).await;
        }
    }
    cx.local().give_scratch(scratch);
}

/// The client of one stream.
struct Http2Client {
    reader: StreamReader,
    respond: SendResponse<Bytes>,
    /// `Some` once the answer has begun.
    writer: Option<StreamWriter>,
    protocol: Option<Box<[u8]>>,
    /// The method is HEAD.
    head_only: bool,
}

impl Http2Client {
    fn send(&mut self, response: http::Response<()>, ended: bool) -> Result<(), Fault> {
        let stream = self.respond.send_response(response, ended)?;
        self.writer = Some(if ended {
            StreamWriter::ended()
        } else {
            StreamWriter::new(stream)
        });
        Ok(())
    }
}

impl Source for Http2Client {
    fn poll_front(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<Front, Fault>> {
        self.reader.poll_front(cx)
    }

    fn data(&self) -> &[u8] {
        self.reader.data()
    }

    fn consume(&mut self, count: usize) {
        self.reader.consume(count);
    }

    fn take(&mut self, count: usize) -> Bytes {
        self.reader.take(count)
    }

    fn trailers(&self) -> Option<&Headers> {
        self.reader.trailers()
    }
}

impl Sink for Http2Client {
    fn poll_take(&mut self, cx: &mut task::Context<'_>, from: &mut impl Source) -> Poll<Result<(), Fault>> {
        match &mut self.writer {
            Some(writer) => writer.poll_take(cx, from),
            None => Poll::Ready(Err(Fault::Cut)),
        }
    }

    fn finish(&mut self, trailers: Option<&Headers>) -> Result<(), Fault> {
        match &mut self.writer {
            Some(writer) => writer.finish(trailers),
            None => Err(Fault::Cut),
        }
    }

    fn poll_flush(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), Fault>> {
        // The connection's task writes.
        Poll::Ready(Ok(()))
    }
}

impl Client for Http2Client {
    fn poll_gone(&mut self, cx: &mut task::Context<'_>) -> Poll<()> {
        match &mut self.writer {
            Some(writer) => writer.poll_reset(cx),
            None => self.respond.poll_reset(cx).map(drop),
        }
    }

    fn interim(&mut self, status: Status, headers: &Headers) {
        if self.writer.is_none() {
            let mut head = ResponseHead::with_status(status);
            head.headers.append_all(headers);
            // A hint that cannot be given is no fault.
            let _ = self
                .respond
                .send_informational(http2::write_response(&head, BodyLength::Empty, false));
        }
    }

    fn start(&mut self, head: &ResponseHead, body: BodyLength) -> Result<(), Fault> {
        let bodyless = self.head_only || matches!(head.status.code(), 204 | 304);
        let ended = bodyless || matches!(body, BodyLength::Empty | BodyLength::Exact(0));
        self.send(http2::write_response(head, body, bodyless), ended)
    }

    fn switch(&mut self, head: &ResponseHead) -> Result<(), Fault> {
        self.send(http2::write_response(head, BodyLength::Chunked, false), false)
    }

    fn is_started(&self) -> bool {
        self.writer.is_some()
    }

    fn protocol(&self) -> Option<&[u8]> {
        self.protocol.as_deref()
    }

    fn close_after(&mut self) {}

    fn abort(&mut self) {
        match &mut self.writer {
            Some(writer) => writer.reset(Reason::INTERNAL_ERROR),
            None => self.respond.send_reset(Reason::INTERNAL_ERROR),
        }
    }
}
