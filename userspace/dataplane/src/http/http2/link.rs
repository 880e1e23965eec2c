//! What the driver of a connection and the exchanges on it share.

use std::{
    cell::{RefCell, RefMut},
    rc::Rc,
    task::{Context, Poll, Waker},
};

use pierhead_http1::{BodyLength, Headers, ResponseHead};
use pierhead_http2::{Code, Config, Connection, Event};
use smallvec::SmallVec;

use super::message;
use crate::http::{body::Fault, buffer::Buffers};

/// Why nothing more comes or goes on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Gone {
    #[error("the peer gave the stream up: {0}")]
    Reset(Code),
    #[error("the peer did not begin to work on the stream")]
    Refused,
    #[error("the peer broke the rules of HTTP/2: {0}")]
    Broken(Code),
    #[error("the HTTP/2 connection was lost")]
    Lost,
}

/// Heads of one response that wait to be read: interim ones, and the final one.
const HEADS: usize = 8;

/// Memory of heads that a connection keeps.
const HEADS_KEPT: usize = 8;
const HEAD_KEPT: usize = 4 * 1024;

/// The head of a response, with how its body ends.
pub(super) struct Arrived {
    pub(super) head: ResponseHead,
    pub(super) length: Result<BodyLength, Fault>,
}

/// What has come on a stream and was not taken.
#[derive(Default)]
pub(crate) struct Entry {
    pub(super) data: Vec<u8>,
    pub(super) ended: bool,
    pub(super) heads: SmallVec<[Box<Arrived>; 1]>,
    pub(super) trailers: Option<Box<Headers>>,
    pub(super) gone: Option<Gone>,
    waker: Option<Waker>,
}

impl Entry {
    /// Remembers who waits. An exchange is one task, so there is one.
    pub(super) fn wait(&mut self, cx: &Context<'_>) {
        match &mut self.waker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            waker => *waker = Some(cx.waker().clone()),
        }
    }

    fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    fn end_with(&mut self, gone: Gone) {
        self.gone.get_or_insert(gone);
        self.wake();
    }
}

/// A connection, without its socket.
pub(crate) struct Link {
    inner: RefCell<Inner>,
}

pub(crate) struct Inner {
    pub(crate) conn: Connection<Entry>,
    buffers: Rc<Buffers>,
    driver: Option<Waker>,
    /// The driver is at work, and sends at the end of it.
    driving: bool,
    /// Streams that wait until more can be sent; the longest wait is first.
    blocked: Vec<u32>,
    /// Those who wait until a stream can be opened.
    openers: Vec<Waker>,
    #[expect(
        clippy::vec_box,
        reason = "boxes are handed out and taken back; moving the heads would cost"
    )]
    free: Vec<Box<Arrived>>,
    /// Nobody will open a stream again.
    abandoned: bool,
    lost: bool,
}

impl Link {
    pub(crate) fn new(config: &Config, buffers: Rc<Buffers>) -> Rc<Self> {
        Rc::new(Self {
            inner: RefCell::new(Inner {
                conn: Connection::new(config),
                buffers,
                driver: None,
                driving: false,
                blocked: Vec::new(),
                openers: Vec::new(),
                free: Vec::new(),
                abandoned: false,
                lost: false,
            }),
        })
    }

    pub(super) fn inner(&self) -> RefMut<'_, Inner> {
        self.inner.borrow_mut()
    }

    /// The connection, to speak on it; wakes its driver.
    pub(super) fn speak<R>(&self, say: impl FnOnce(&mut Connection<Entry>) -> R) -> R {
        let mut inner = self.inner();
        let said = say(inner.speaking());
        inner.wake_driver();
        said
    }

    /// Whether no stream can be opened any more.
    pub(crate) fn is_closing(&self) -> bool {
        let inner = self.inner.borrow();
        inner.lost || inner.abandoned || inner.conn.is_closing()
    }

    /// Streams that the peer grants; `None` until it has said so.
    pub(crate) fn granted(&self) -> Option<usize> {
        let inner = self.inner.borrow();
        let known = inner.conn.is_settled();
        known.then(|| inner.conn.granted_streams() as usize)
    }

    /// Ready when a stream can be opened.
    pub(crate) fn poll_open(&self, cx: &Context<'_>) -> Poll<Result<(), Gone>> {
        let mut inner = self.inner();
        if inner.lost || inner.abandoned || inner.conn.is_closing() {
            return Poll::Ready(Err(Gone::Lost));
        }
        if inner.conn.can_open() {
            return Poll::Ready(Ok(()));
        }
        inner.openers.push(cx.waker().clone());
        Poll::Pending
    }

    /// Says that no stream will be opened: the connection ends.
    pub(crate) fn abandon(&self) {
        let mut inner = self.inner();
        inner.abandoned = true;
        inner.wake_driver();
    }
}

impl Inner {
    /// The connection, with memory for what is said.
    pub(super) fn speaking(&mut self) -> &mut Connection<Entry> {
        let buffers = &self.buffers;
        self.conn.give_buffer(|| buffers.output());
        &mut self.conn
    }

    pub(super) fn wake_driver(&self) {
        if !self.driving
            && let Some(driver) = &self.driver
        {
            driver.wake_by_ref();
        }
    }

    /// The driver begins to work.
    pub(super) fn begin_driving(&mut self, cx: &Context<'_>) {
        self.driving = true;
        match &mut self.driver {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            waker => *waker = Some(cx.waker().clone()),
        }
    }

    /// The driver has sent what there was: whoever says more has to wake it.
    pub(super) fn end_driving(&mut self) {
        self.driving = false;
        self.unblock();
    }

    pub(super) const fn is_abandoned(&self) -> bool {
        self.abandoned
    }

    pub(super) fn give_back_output(&mut self) {
        if let Some(output) = self.conn.take_buffer() {
            self.buffers.give_output(output);
        }
    }

    /// Waits until more can be sent on a stream.
    pub(super) fn block(&mut self, id: u32, cx: &Context<'_>) {
        if let Some(entry) = self.conn.stream(id) {
            entry.wait(cx);
            if !self.blocked.contains(&id) {
                self.blocked.push(id);
            }
        }
    }

    /// Wakes the streams on which more can be sent.
    pub(super) fn unblock(&mut self) {
        if self.blocked.is_empty() {
            return;
        }
        let Self { conn, blocked, .. } = self;
        blocked.retain(|id| {
            if conn.capacity(*id, usize::MAX) == 0 && conn.is_sendable(*id) {
                return true;
            }
            if let Some(entry) = conn.stream(*id) {
                entry.wake();
            }
            false
        });
    }

    fn wake_openers(&mut self) {
        for waker in self.openers.drain(..) {
            waker.wake();
        }
    }

    pub(super) fn recycle(&mut self, mut arrived: Box<Arrived>) {
        if self.free.len() < HEADS_KEPT && arrived.head.headers.capacity_bytes() <= HEAD_KEPT {
            arrived.head.clear();
            self.free.push(arrived);
        }
    }

    /// Forgets a stream; gives it up with `code` if it is open.
    pub(super) fn forget(&mut self, id: u32, code: Code) {
        if let Some(entry) = self.speaking().forget(id, code) {
            self.buffers.give_output(entry.data);
            for arrived in entry.heads {
                self.recycle(arrived);
            }
        }
        self.wake_openers();
        self.wake_driver();
    }

    /// Takes back memory of data that was read.
    pub(super) fn give_back(&self, data: Vec<u8>) {
        self.buffers.give_output(data);
    }

    /// Keeps data that came until the exchange takes it.
    fn receive(&mut self, id: u32, bytes: &[u8], end: bool) {
        let buffers = &self.buffers;
        if let Some(entry) = self.conn.stream(id) {
            if entry.data.capacity() == 0 && !bytes.is_empty() {
                entry.data = buffers.output();
            }
            entry.data.extend_from_slice(bytes);
            entry.ended |= end;
            entry.wake();
        }
    }

    fn trailers(&mut self, id: u32) {
        let trailers = message::read_trailers(self.conn.fields());
        if let Some(entry) = self.conn.stream(id) {
            entry.trailers = Some(Box::new(trailers));
            entry.ended = true;
            entry.wake();
        }
    }

    fn response(&mut self, id: u32, status: u16, end: bool) {
        let mut arrived = self.free.pop().unwrap_or_else(|| {
            Box::new(Arrived {
                head: ResponseHead::new(),
                length: Ok(BodyLength::Empty),
            })
        });
        arrived.length = message::read_response(status, self.conn.fields(), end, &mut arrived.head);
        let Some(entry) = self.conn.stream(id) else {
            return;
        };
        if entry.heads.len() < HEADS {
            entry.heads.push(arrived);
            entry.ended |= end;
            entry.wake();
            return;
        }
        let code = Code::ENHANCE_YOUR_CALM;
        entry.end_with(Gone::Broken(code));
        self.speaking().reset(id, code);
    }

    /// Gives an event to the stream it is for. Requests are for whoever serves: they come back.
    pub(super) fn dispatch(&mut self, event: Event, input: &[u8]) -> Option<(u32, bool)> {
        match event {
            Event::Request { stream, end } => return Some((stream, end)),
            Event::Response { stream, status, end } => self.response(stream, status, end),
            Event::Trailers { stream } => self.trailers(stream),
            Event::Data { stream, bytes, end } => self.receive(stream, &input[bytes], end),
            Event::Gone { stream, code, by_peer } => {
                if let Some(entry) = self.conn.stream(stream) {
                    entry.end_with(match by_peer {
                        true if code == Code::REFUSED_STREAM => Gone::Refused,
                        true => Gone::Reset(code),
                        false => Gone::Broken(code),
                    });
                }
                self.wake_openers();
            }
            Event::Window { .. } => self.unblock(),
            Event::Settings => {
                self.unblock();
                self.wake_openers();
            }
            Event::Pong => {}
            Event::GoAway { last, .. } => {
                // RFC 9113 §8.7: nothing was done for those.
                self.conn.close_above(last, |_, entry| entry.end_with(Gone::Refused));
                self.wake_openers();
            }
        }
        None
    }

    /// The socket is gone, and all streams with it.
    pub(super) fn lose(&mut self) {
        self.lost = true;
        self.conn.close_all(|_, entry| entry.end_with(Gone::Lost));
        self.blocked.clear();
        self.wake_openers();
        self.driver = None;
    }
}
