//! Exchanges with a backend over HTTP/2: connections shared by many, opened one at a time per endpoint.

use std::{
    cell::Cell,
    future::poll_fn,
    net::SocketAddr,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use pierhead_http1::{BodyLength, Method, RequestHead};
use pierhead_http2::{Config, Role};
use tokio::{
    task::spawn_local,
    time::{Instant, timeout},
};

use super::{Backend, ConnectError, Connected, Lease};
use crate::http::{
    Fault,
    http2::{self, Driver, Ended, Gone, Inner, Link, Serve, StreamEnd},
};

/// Requests given to a new connection until its SETTINGS say how many streams it takes; they wait for those.
const ASSUMED_STREAMS: usize = 100;

/// What a stream, and a connection, may send us unread.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Fields of one answer.
const FIELDS_BYTES: u32 = 64 * 1024;

/// A connection that carries many exchanges. Dropped when nobody can use it again, it ends.
pub(crate) struct Shared {
    link: Rc<Link>,
    active: Cell<usize>,
    idle_since: Cell<Instant>,
}

impl Shared {
    fn has_room(&self) -> bool {
        // Who grants none may grant some soon: whoever comes waits, rather than opening ever more connections.
        let most = self.link.granted().filter(|most| *most > 0);
        !self.link.is_closing() && self.active.get() < most.unwrap_or(ASSUMED_STREAMS)
    }

    pub(super) fn is_stale(&self, now: Instant, limit: Duration) -> bool {
        self.link.is_closing() || (self.active.get() == 0 && now - self.idle_since.get() >= limit)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.link.abandon();
    }
}

/// Why no exchange could begin. The request was not sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Stream(#[from] Gone),
    #[error("the connection that another request was opening failed")]
    Lost,
    #[error("the request target cannot be said in HTTP/2")]
    Target,
}

/// A request on its way over a shared connection.
pub(crate) struct Http2Exchange {
    pub(super) stream: StreamEnd,
    /// A connection was opened for it.
    opened: bool,
    /// After the stream, whose end makes room.
    _active: Active,
}

impl Http2Exchange {
    /// Finds or opens a connection and says the head of a request.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub(crate) async fn begin(
        lease: &Lease,
        backend: &Backend,
        head: &RequestHead,
        body: BodyLength,
        limit: Duration,
    ) -> Result<Self, OpenError> {
        let request = http2::sayable(head).ok_or(OpenError::Target)?;
        let https = backend.tls().is_some();
        let ended = body == BodyLength::Empty;
        let bodyless = head.method == Method::Head;
        let mut tries = 0;
        loop {
            let (shared, opened) = checkout(lease, backend, limit).await?;
            let active = Active::new(shared);
            let link = &active.0.link;
            loop {
                let stream = StreamEnd::open(link, bodyless, ended, |out| {
                    http2::write_request(&request, body, https, out);
                });
                if let Some(stream) = stream {
                    return Ok(Self {
                        stream,
                        opened,
                        _active: active,
                    });
                }
                // Its SETTINGS have not come, or granted fewer streams than were hoped for.
                match timeout(limit, poll_fn(|cx| link.poll_open(cx))).await {
                    Ok(Ok(())) => {}
                    // A server that says nothing at all.
                    Err(_) if link.granted().is_none() => {
                        link.abandon();
                        return Err(ConnectError::Timeout.into());
                    }
                    // It says goodbye, all stream numbers are used up, or all streams are long ones: others do the rest.
                    Ok(Err(_)) | Err(_) if tries < 2 => break,
                    Ok(Err(gone)) => return Err(gone.into()),
                    Err(_) => return Err(ConnectError::Timeout.into()),
                }
            }
            tries += 1;
        }
    }

    pub(crate) fn has_opened(&self) -> bool {
        self.opened
    }
}

/// Whether the server says that it did not begin to work on the request (RFC 9113 §8.7).
pub(crate) fn is_refused(fault: &Fault) -> bool {
    matches!(fault, Fault::Http2(Gone::Refused))
}

/// Counts one on a connection, until it is dropped.
struct Active(Rc<Shared>);

impl Active {
    fn new(shared: Rc<Shared>) -> Self {
        shared.active.set(shared.active.get() + 1);
        Self(shared)
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        let active = self.0.active.get() - 1;
        self.0.active.set(active);
        if active == 0 {
            self.0.idle_since.set(Instant::now());
        }
    }
}

/// A connection with room for one more stream, and whether it was opened for it.
async fn checkout(lease: &Lease, backend: &Backend, limit: Duration) -> Result<(Rc<Shared>, bool), OpenError> {
    let slot = lease.slot();
    let failures = slot.failures.get();
    loop {
        {
            let mut all = slot.shared.borrow_mut();
            all.retain(|shared| !shared.link.is_closing());
            if let Some(shared) = all.iter().find(|shared| shared.has_room()) {
                return Ok((Rc::clone(shared), false));
            }
        }
        if !slot.opening.get() {
            break;
        }
        // Whoever waited for a connection that failed does not try again: all would, one after the other.
        let opened = timeout(limit, slot.opened.notified()).await;
        opened.map_err(|_| ConnectError::Timeout)?;
        if slot.failures.get() != failures {
            return Err(OpenError::Lost);
        }
    }
    slot.opening.set(true);
    let opening = Opening(lease);
    let opened = open(lease, backend, limit).await;
    if opened.is_err() {
        slot.failures.set(slot.failures.get() + 1);
    }
    let shared = Rc::new(opened?);
    slot.shared.borrow_mut().push(Rc::clone(&shared));
    drop(opening);
    lease.keep_clean();
    Ok((shared, true))
}

/// Tells those who wait when opening has ended, however it ended.
struct Opening<'l>(&'l Lease);

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.slot().opening.set(false);
        self.0.slot().opened.notify_waiters();
    }
}

async fn open(lease: &Lease, backend: &Backend, limit: Duration) -> Result<Shared, ConnectError> {
    let stream = lease.connect(backend, limit).await?;
    let config = Config {
        role: Role::Client,
        stream_window: STREAM_WINDOW,
        connection_window: CONNECTION_WINDOW,
        max_streams: 0,
        max_fields_bytes: FIELDS_BYTES,
        connect_protocol: false,
    };
    let link = Link::new(&config, lease.buffers());
    let driver = Driver::new(lease.wire(stream), Rc::clone(&link));
    spawn_local(drive(driver, lease.address()));
    Ok(Shared {
        link,
        active: Cell::new(0),
        idle_since: Cell::new(Instant::now()),
    })
}

/// A server opens no streams.
struct NoRequests;

impl Serve for NoRequests {
    fn request(&mut self, _: &mut Inner, _: u32, _: bool) {}

    fn work(&mut self, _: &mut Context<'_>) {}
}

/// How often a connection is asked whether it is still alive, and how long it may take to say so.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_LIMIT: Duration = Duration::from_secs(10);

/// Moves the bytes of a connection until it ends.
async fn drive(mut driver: Driver<Connected>, address: SocketAddr) {
    let mut timer = crate::http::Timer::default();
    timer.set(Some(Instant::now() + PING_EVERY));
    let mut waiting = false;
    let ended = poll_fn(|cx| {
        loop {
            if let Poll::Ready(ended) = driver.poll(cx, &mut NoRequests) {
                return Poll::Ready(Some(ended));
            }
            if driver.take_pong() && waiting {
                waiting = false;
                timer.set(Some(Instant::now() + PING_EVERY));
            }
            ready!(timer.poll(cx));
            if waiting || driver.is_broken() {
                return Poll::Ready(None);
            }
            waiting = true;
            driver.pass(PING_EVERY.as_secs() as u32);
            driver.ping();
            timer.set(Some(Instant::now() + PING_LIMIT));
        }
    })
    .await;
    match ended {
        Some(Ended::Closed) => {}
        Some(why) => tracing::debug!(%address, %why, "connection to a backend ended"),
        None => tracing::debug!(%address, "connection to a backend does not answer pings"),
    }
    driver.lose();
    let _ = timeout(PING_LIMIT, poll_fn(|cx| driver.poll_shutdown(cx))).await;
}
