//! Exchanges with a backend over HTTP/2: connections shared by many, opened one at a time per endpoint.

use std::{
    cell::Cell,
    future::poll_fn,
    net::SocketAddr,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Reason,
    client::{self, ResponseFuture, SendRequest},
};
use pierhead_http1::{BodyLength, Headers, RequestHead, ResponseHead};
use tokio::{
    task::spawn_local,
    time::{Instant, timeout},
};

use super::{Backend, ConnectError, Lease, http1::Came};
use crate::http::{Ahead, Fault, Front, Gathered, Gathering, Sink, Source, StreamReader, StreamWriter, gather, http2};

/// Requests given to a new connection until its SETTINGS say how many streams it takes; they wait for those.
const ASSUMED_STREAMS: usize = 100;

/// What a stream, and a connection, may send us unread.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Unsent data held per stream.
const SEND_BUFFER: usize = 64 * 1024;

/// A connection that carries many exchanges.
pub(crate) struct Shared {
    send: SendRequest<Bytes>,
    active: Cell<usize>,
    closed: Rc<Cell<bool>>,
    idle_since: Cell<Instant>,
}

impl Shared {
    fn has_room(&self) -> bool {
        let most = match self.send.current_max_send_streams() {
            0 => ASSUMED_STREAMS,
            known => known,
        };
        !self.closed.get() && self.active.get() < most
    }

    pub(super) fn is_stale(&self, now: Instant, limit: Duration) -> bool {
        self.closed.get() || (self.active.get() == 0 && now - self.idle_since.get() >= limit)
    }
}

/// Why no exchange could begin. The request was not sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Stream(#[from] h2::Error),
    #[error("the connection that another request was opening failed")]
    Lost,
    #[error("the request target cannot be said in HTTP/2")]
    Target,
}

/// A request on its way over a shared connection.
pub(crate) struct Http2Exchange {
    _active: Active,
    /// A connection was opened for it.
    opened: bool,
    response: ResponseFuture,
    interim_done: bool,
    reader: Option<StreamReader>,
    writer: StreamWriter,
}

impl Http2Exchange {
    /// Finds or opens a connection and sends the head of a request.
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
        let ended = body == BodyLength::Empty;
        let mut tries = 0;
        loop {
            let request = http2::write_request(head, body, backend.tls().is_some()).ok_or(OpenError::Target)?;
            let (shared, opened) = checkout(lease, backend, limit).await?;
            let mut send = shared.send.clone();
            shared.active.set(shared.active.get() + 1);
            let active = Active(shared);
            let sent = match poll_fn(|cx| send.poll_ready(cx)).await {
                Ok(()) => send.send_request(request, ended),
                Err(error) => Err(error),
            };
            match sent {
                Ok((response, stream)) => {
                    return Ok(Self {
                        _active: active,
                        opened,
                        response,
                        interim_done: false,
                        reader: None,
                        writer: if ended {
                            StreamWriter::ended()
                        } else {
                            StreamWriter::new(stream)
                        },
                    });
                }
                // The server says goodbye, or all stream numbers are used up: others do the rest of the work.
                Err(_) if tries < 2 => {
                    active.0.closed.set(true);
                    tries += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    pub(crate) fn has_opened(&self) -> bool {
        self.opened
    }

    pub(crate) fn is_sent(&self) -> bool {
        self.writer.is_done()
    }

    /// Reads a head.
    pub(crate) fn poll_head(&mut self, cx: &mut Context<'_>, head: &mut ResponseHead) -> Poll<Result<Came, Fault>> {
        if !self.interim_done {
            match self.response.poll_informational(cx) {
                Poll::Ready(Some(interim)) => {
                    let interim = interim?;
                    http2::read_response(interim.status(), interim.headers(), false, head)?;
                    return Poll::Ready(Ok(Came::Interim));
                }
                Poll::Ready(None) => self.interim_done = true,
                Poll::Pending => {}
            }
        }
        let response = ready!(std::pin::Pin::new(&mut self.response).poll(cx))?;
        let (parts, recv) = response.into_parts();
        let ended = recv.is_end_stream();
        self.reader = Some(StreamReader::new(recv));
        let length = http2::read_response(parts.status, &parts.headers, ended, head)?;
        Poll::Ready(Ok(Came::Final(length)))
    }

    /// Gives up what is not complete.
    pub(crate) fn end(&mut self) {
        self.writer.reset(Reason::CANCEL);
    }
}

/// Whether the server says that it did not begin to work on the request (RFC 9113 §8.7).
pub(crate) fn is_refused(fault: &Fault) -> bool {
    let Fault::Http2(error) = fault else {
        return false;
    };
    error.is_remote()
        && ((error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM))
            || (error.is_go_away() && error.reason() == Some(Reason::NO_ERROR)))
}

/// Takes one off the count of a connection.
struct Active(Rc<Shared>);

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
            all.retain(|shared| !shared.closed.get());
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
    let (stream, gathered) = gather(Ahead::new(stream, lease.buffers()), lease.buffers());
    let handshake = client::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(64 * 1024)
        .initial_max_send_streams(0)
        .enable_push(false)
        .handshake::<_, Bytes>(stream);
    let (send, connection) = timeout(limit, handshake)
        .await
        .map_err(|_| ConnectError::Timeout)?
        .map_err(ConnectError::Http2)?;
    let closed = Rc::new(Cell::new(false));
    let address = lease.address();
    gathered.begin();
    spawn_local(drive(connection, gathered, Rc::clone(&closed), address));
    Ok(Shared {
        send,
        active: Cell::new(0),
        closed,
        idle_since: Cell::new(Instant::now()),
    })
}

/// How often a connection is asked whether it is still alive, and how long it may take to say so.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_LIMIT: Duration = Duration::from_secs(10);

/// Moves the bytes of a connection until it ends.
async fn drive(
    mut connection: client::Connection<Gathering<Ahead<super::Connected>>, Bytes>,
    gathered: Gathered<Ahead<super::Connected>>,
    closed: Rc<Cell<bool>>,
    address: SocketAddr,
) {
    let mut pings = connection.ping_pong();
    let mut timer = crate::http::Timer::default();
    timer.set(Some(Instant::now() + PING_EVERY));
    let mut waiting = false;
    let ended = poll_fn(|cx| {
        loop {
            if let Poll::Ready(ended) = std::pin::Pin::new(&mut connection).poll(cx) {
                return Poll::Ready(ended.map_err(Some));
            }
            // A failure is seen by the connection at its next read or write.
            let _ = gathered.poll_send(cx);
            let Some(pings) = &mut pings else {
                return Poll::Pending;
            };
            if waiting && pings.poll_pong(cx).is_ready() {
                waiting = false;
                timer.set(Some(Instant::now() + PING_EVERY));
            }
            ready!(timer.poll(cx));
            if waiting {
                return Poll::Ready(Err(None));
            }
            waiting = pings.send_ping(h2::Ping::opaque()).is_ok();
            timer.set(Some(Instant::now() + if waiting { PING_LIMIT } else { PING_EVERY }));
        }
    })
    .await;
    closed.set(true);
    match ended {
        Ok(()) => {}
        Err(Some(why)) => tracing::debug!(%address, %why, "connection to a backend ended"),
        Err(None) => tracing::debug!(%address, "connection to a backend does not answer pings"),
    }
}

impl Source for Http2Exchange {
    fn poll_front(&mut self, cx: &mut Context<'_>) -> Poll<Result<Front, Fault>> {
        match &mut self.reader {
            Some(reader) => reader.poll_front(cx),
            None => Poll::Pending,
        }
    }

    fn data(&self) -> &[u8] {
        self.reader.as_ref().map_or(&[], Source::data)
    }

    fn consume(&mut self, count: usize) {
        if let Some(reader) = &mut self.reader {
            reader.consume(count);
        }
    }

    fn take(&mut self, count: usize) -> Bytes {
        self.reader
            .as_mut()
            .map_or_else(Bytes::new, |reader| reader.take(count))
    }

    fn trailers(&self) -> Option<&Headers> {
        self.reader.as_ref()?.trailers()
    }
}

impl Sink for Http2Exchange {
    fn poll_take(&mut self, cx: &mut Context<'_>, from: &mut impl Source) -> Poll<Result<(), Fault>> {
        self.writer.poll_take(cx, from)
    }

    fn finish(&mut self, trailers: Option<&Headers>) -> Result<(), Fault> {
        self.writer.finish(trailers)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.writer.poll_flush(cx)
    }
}
