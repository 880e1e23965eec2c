//! HTTP/2 connections of clients: each stream is an exchange of its own.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::{self, Poll},
    time::Duration,
};

use pierhead_http1::{BodyLength, Headers, Method, ResponseHead, Status};
use pierhead_http2::{Code, Config, Pseudo, Role};
use tokio::time::Instant;

use super::{
    body::{Fault, Front, Sink, Source},
    client::Client,
    context::Context,
    http2::{self, Crew, Driver, Ended, Inner, Link, Serve, StreamEnd},
    io::{Stream, Wire},
    local::Scratch,
    pipeline,
    timer::Timer,
};

/// What a stream, and a connection, may send us unread.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// How often a client with open streams is asked whether it is still there, and how long it may take to say so.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_LIMIT: Duration = Duration::from_secs(15);

/// How long a client may take to leave after it was told to, once it has no streams.
const FAREWELL: Duration = Duration::from_secs(5);

/// What a connection waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The client's SETTINGS.
    Greeting,
    /// A stream.
    Idle,
    /// The end of a stream.
    Busy,
    /// The answer to a ping.
    Pinged,
    /// The end: it broke a rule.
    Broken,
}

/// Serves a connection to its end.
pub(crate) async fn serve<S: Stream>(wire: Wire<S>, cx: Rc<Context>) {
    let limits = &cx.limits;
    let config = Config {
        role: Role::Server,
        stream_window: STREAM_WINDOW,
        connection_window: CONNECTION_WINDOW,
        max_streams: limits.streams,
        max_fields_bytes: limits.header_bytes.clamp(4 * 1024, 64 * 1024),
        connect_protocol: true,
    };
    let link = Link::new(&config, Rc::clone(&cx.local().buffers));
    let mut driver = Driver::new(wire, Rc::clone(&link));
    let mut streams = Streams {
        cx: &cx,
        link: &link,
        start: |cx, scratch, body, client| exchange(cx, scratch, body, client),
        crew: Crew::new(),
    };
    let drain = &cx.conn.worker.drain;
    let mut drained = pin!(drain.leaving());
    let mut timer = Timer::default();
    let mut leaving = false;
    let mut phase = Phase::Greeting;
    let mut since = Instant::now();
    timer.set(Some(since + limits.header_timeout));
    let ended = poll_fn(|task| {
        loop {
            let ended = driver.poll(task, &mut streams);
            if ended.is_ready() {
                return ended.map(Some);
            }
            if driver.is_broken() {
                // It is being told, if it reads.
                if phase != Phase::Broken {
                    phase = Phase::Broken;
                    timer.set(Some(Instant::now() + FAREWELL));
                }
                return timer.poll(task).map(|()| None);
            }
            if !leaving && (drain.is_leaving() || drained.as_mut().poll(task).is_ready()) {
                leaving = true;
                driver.leave();
                timer.set(Some(Instant::now() + FAREWELL));
                continue;
            }
            let ponged = driver.take_pong() && phase == Phase::Pinged;
            let next = match (driver.is_settled(), streams.crew.len()) {
                (false, _) => Phase::Greeting,
                (true, 0) => Phase::Idle,
                (true, _) if phase == Phase::Pinged && !ponged => Phase::Pinged,
                (true, _) => Phase::Busy,
            };
            // Whenever the last stream ends or the first begins, another silence counts.
            if next != phase || ponged {
                phase = next;
                let wait = match (phase, leaving) {
                    (Phase::Greeting, _) => limits.header_timeout,
                    (Phase::Idle, true) => FAREWELL,
                    (Phase::Idle, false) => limits.idle_timeout,
                    (Phase::Busy | Phase::Pinged | Phase::Broken, _) => PING_EVERY,
                };
                // An exchange that has just ended has looked at the clock.
                let now = match phase {
                    Phase::Idle => cx.local().lately().max(since),
                    _ => cx.local().now(),
                };
                // Whole seconds: phases may change many times in one.
                let passed = (now - since).as_secs();
                driver.pass(passed as u32);
                since += Duration::from_secs(passed);
                timer.set(Some(now + wait));
            }
            if timer.poll(task).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            driver.pass((now - since).as_secs() as u32);
            since = now;
            match phase {
                Phase::Busy => {
                    phase = Phase::Pinged;
                    driver.ping();
                    timer.set(Some(now + PING_LIMIT));
                }
                Phase::Idle if !leaving => {
                    leaving = true;
                    driver.leave();
                    timer.set(Some(now + FAREWELL));
                }
                Phase::Greeting | Phase::Idle | Phase::Pinged | Phase::Broken => return Poll::Ready(None),
            }
        }
    })
    .await;
    if let Some(Ended::Broken(error)) = &ended {
        tracing::debug!(peer = %cx.conn.peer, %error, "a client broke the rules of HTTP/2");
    }
    close(driver, streams.crew, timer).await;
}

/// Closes the socket, and lets the exchanges see that their client is gone: each has an end of its own, and a record.
async fn close<S: Stream, W: Future<Output = ()>>(driver: Driver<S>, mut crew: Crew<W>, mut timer: Timer) {
    driver.lose();
    timer.set(Some(Instant::now() + FAREWELL));
    let mut driver = Some(driver);
    poll_fn(|task| {
        if let Some(open) = &mut driver
            && (open.poll_shutdown(task).is_ready() || timer.poll(task).is_ready())
        {
            driver = None;
        }
        crew.poll(task);
        if driver.is_none() && crew.len() == 0 {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

/// The streams that a client has opened.
struct Streams<'c, F, W> {
    cx: &'c Rc<Context>,
    link: &'c Rc<Link>,
    start: F,
    crew: Crew<W>,
}

impl<F, W> Serve for Streams<'_, F, W>
where
    F: Fn(Rc<Context>, Box<Scratch>, Result<BodyLength, Status>, Http2Client) -> W,
    W: Future<Output = ()>,
{
    fn request(&mut self, inner: &mut Inner, stream: u32, end: bool) {
        let mut scratch = self.cx.local().scratch();
        let fields = inner.conn.fields();
        let max_fields = self.cx.limits.header_count as usize;
        let body = http2::read_request(fields, end, max_fields, &mut scratch.request);
        let client = Http2Client {
            protocol: fields.pseudo(Pseudo::Protocol).map(Into::into),
            stream: StreamEnd::of_client(Rc::clone(self.link), stream, end),
            started: false,
            head_only: scratch.request.method == Method::Head,
        };
        self.crew.add((self.start)(Rc::clone(self.cx), scratch, body, client));
    }

    fn work(&mut self, cx: &mut task::Context<'_>) {
        self.crew.poll(cx);
    }
}

async fn exchange(
    cx: Rc<Context>,
    mut scratch: Box<Scratch>,
    body: Result<BodyLength, Status>,
    mut client: Http2Client,
) {
    let mut timer = Timer::default();
    match body {
        Ok(body) => pipeline::run(&cx, &mut scratch, body, &mut client, &mut timer).await,
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
    stream: StreamEnd,
    /// The answer has begun.
    started: bool,
    protocol: Option<Box<[u8]>>,
    /// The method is HEAD.
    head_only: bool,
}

impl Http2Client {
    fn say(&mut self, head: &ResponseHead, body: BodyLength, bodyless: bool, ended: bool) -> Result<(), Fault> {
        self.started = true;
        self.stream
            .say(ended, |out| http2::write_response(head, body, bodyless, out))
    }
}

impl Source for Http2Client {
    fn poll_front(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<Front, Fault>> {
        self.stream.poll_front(cx)
    }

    fn data(&self) -> &[u8] {
        self.stream.data()
    }

    fn consume(&mut self, count: usize) {
        self.stream.consume(count);
    }

    fn trailers(&self) -> Option<&Headers> {
        self.stream.trailers()
    }
}

impl Sink for Http2Client {
    fn poll_take(&mut self, cx: &mut task::Context<'_>, from: &mut impl Source) -> Poll<Result<(), Fault>> {
        self.stream.poll_take(cx, from)
    }

    fn finish(&mut self, trailers: Option<&Headers>) -> Result<(), Fault> {
        self.stream.finish(trailers)
    }

    fn poll_flush(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Fault>> {
        self.stream.poll_flush(cx)
    }
}

impl Client for Http2Client {
    fn poll_gone(&mut self, cx: &mut task::Context<'_>) -> Poll<()> {
        self.stream.poll_gone(cx)
    }

    fn interim(&mut self, status: Status, headers: &Headers) {
        if !self.started {
            let mut head = ResponseHead::with_status(status);
            head.headers.append_all(headers);
            // A hint that cannot be given is no fault.
            let _ = self.stream.say(false, |out| {
                http2::write_response(&head, BodyLength::Chunked, false, out)
            });
        }
    }

    fn start(&mut self, head: &ResponseHead, body: BodyLength) -> Result<(), Fault> {
        let bodyless = self.head_only || matches!(head.status.code(), 204 | 304);
        let ended = bodyless || matches!(body, BodyLength::Empty | BodyLength::Exact(0));
        self.say(head, body, bodyless, ended)
    }

    fn switch(&mut self, head: &ResponseHead) -> Result<(), Fault> {
        self.say(head, BodyLength::Chunked, false, false)
    }

    fn is_started(&self) -> bool {
        self.started
    }

    fn protocol(&self) -> Option<&[u8]> {
        self.protocol.as_deref()
    }

    fn close_after(&mut self) {}

    fn abort(&mut self) {
        self.stream.reset(Code::INTERNAL_ERROR);
    }
}
