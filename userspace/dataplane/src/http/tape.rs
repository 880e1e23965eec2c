//! What was sent of a request's body, kept as long as it may be sent again, or to a mirror.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use pierhead_http1::Headers;

use super::{
    body::{Fault, Front, Source},
    client::Client,
};

/// The largest body that is kept.
const MAX: usize = 64 * 1024;

/// A recording of a body.
#[derive(Debug, Default)]
pub(crate) struct Tape {
    bytes: Vec<u8>,
    /// Where the current attempt reads.
    at: usize,
    wanted: bool,
    /// Something is missing from the recording.
    torn: bool,
    complete: bool,
    /// All that was taken from the client.
    pub(crate) received: u64,
    /// Most that may be taken.
    limit: Option<u64>,
    /// Most that is kept.
    room: usize,
}

impl Tape {
    /// `wanted`: keep what passes.
    pub(crate) fn new(wanted: bool, limit: Option<u64>) -> Self {
        Self {
            wanted,
            limit,
            room: MAX,
            ..Self::default()
        }
    }

    /// Keeps the whole body, up to `room` bytes, before anything is sent.
    pub(crate) fn collecting(room: usize, limit: Option<u64>) -> Self {
        Self {
            room,
            ..Self::new(true, limit)
        }
    }

    /// There is no body: nobody reads to its end, and the recording is whole.
    pub(crate) fn without_body() -> Self {
        Self {
            complete: true,
            ..Self::default()
        }
    }

    /// Whether more than can be kept has come.
    pub(crate) fn is_torn(&self) -> bool {
        self.torn
    }

    /// The whole body, in a tape that was collecting.
    pub(crate) fn collected(&self) -> Option<&[u8]> {
        (self.complete && self.wanted && !self.torn).then_some(&self.bytes[..])
    }

    /// Whether the body can be sent from its beginning: all that was taken from the client is here.
    pub(crate) fn is_replayable(&self) -> bool {
        self.received == 0 || (self.wanted && !self.torn)
    }

    /// Goes to the beginning, for another attempt.
    pub(crate) fn rewind(&mut self) {
        self.at = 0;
    }

    /// The whole body, when it passed and was kept.
    pub(crate) fn whole(&self) -> Option<Bytes> {
        (self.complete && !self.torn && (self.wanted || self.received == 0))
            .then(|| Bytes::copy_from_slice(&self.bytes))
    }

    fn record(&mut self, data: &[u8]) {
        self.received += data.len() as u64;
        if !self.wanted || self.torn {
            return;
        }
        if self.bytes.len() + data.len() > self.room {
            self.torn = true;
            self.bytes = Vec::new();
        } else {
            self.bytes.extend_from_slice(data);
            self.at = self.bytes.len();
        }
    }
}

/// The request's body as an attempt sends it: first what is on tape, then what the client still sends.
pub(crate) struct Upload<'a, C> {
    pub(crate) client: &'a mut C,
    pub(crate) tape: &'a mut Tape,
}

impl<C: Client> Upload<'_, C> {
    fn is_replaying(&self) -> bool {
        self.tape.at < self.tape.bytes.len()
    }
}

impl<C: Client> Source for Upload<'_, C> {
    fn poll_front(&mut self, cx: &mut Context<'_>) -> Poll<Result<Front, Fault>> {
        if self.is_replaying() {
            return Poll::Ready(Ok(Front::Data));
        }
        let front = ready!(self.client.poll_front(cx))?;
        match front {
            Front::Data => {
                let total = self.tape.received.saturating_add(self.client.data().len() as u64);
                if self.tape.limit.is_some_and(|limit| total > limit) {
                    return Poll::Ready(Err(Fault::TooLarge));
                }
            }
            Front::End => self.tape.complete = true,
        }
        Poll::Ready(Ok(front))
    }

    fn data(&self) -> &[u8] {
        if self.is_replaying() {
            &self.tape.bytes[self.tape.at..]
        } else {
            self.client.data()
        }
    }

    fn consume(&mut self, count: usize) {
        if self.is_replaying() {
            self.tape.at += count;
        } else {
            self.tape.record(&self.client.data()[..count]);
            self.client.consume(count);
        }
    }

    fn trailers(&self) -> Option<&Headers> {
        self.client.trailers()
    }
}
