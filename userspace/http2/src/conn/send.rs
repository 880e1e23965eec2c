//! What is said on streams.

use super::{Connection, Last, OUTPUT, Role};
use crate::{
    Code, Policy,
    frame::{self, HEAD, Head, LAST_STREAM, flag, kind, patch_length},
    stream::Stream,
};

/// Largest frame of data we make: a stream must not hold the others up.
const LARGEST: usize = 16 * 1024;

/// Room in the output below which data waits, unless it fits.
const CRUMB: usize = 2 * 1024;

/// Writes the fields of one message. Dropped without [`HeadWriter::finish`], it says nothing, but what was encoded is lost to the
/// tables: always finish.
#[derive(Debug)]
#[must_use]
pub struct HeadWriter<'c, T> {
    connection: &'c mut Connection<T>,
    stream: u32,
    at: usize,
}

impl<T: Default> HeadWriter<'_, T> {
    /// Adds a field; `name` is in lower case, pseudo-header fields come first.
    pub fn field(&mut self, name: &[u8], value: &[u8], policy: Policy) {
        let connection = &mut *self.connection;
        connection.encoder.field(name, value, policy, &mut connection.out);
    }

    /// Ends the fields; `end` ends our side of the stream too.
    pub fn finish(self, end: bool) {
        let Self { connection, stream, at } = self;
        let out = &mut connection.out;
        let most = connection.remote.frame as usize;
        let length = out.len() - at - HEAD;
        let end_flag = if end { flag::END_STREAM } else { 0 };
        if length <= most {
            patch_length(out, at, length);
            out[at + 4] = end_flag | flag::END_HEADERS;
        } else {
            let block = out.split_off(at + HEAD);
            out.truncate(at);
            let mut parts = block.chunks(most).enumerate().peekable();
            while let Some((number, part)) = parts.next() {
                let last = if parts.peek().is_none() { flag::END_HEADERS } else { 0 };
                let (kind, flags) = match number {
                    0 => (kind::HEADERS, end_flag | last),
                    _ => (kind::CONTINUATION, last),
                };
                let head = Head {
                    length: part.len() as u32,
                    kind,
                    flags,
                    stream,
                };
                head.write(out);
                out.extend_from_slice(part);
            }
        }
        if end {
            connection.closed(stream);
        }
    }
}

impl<T: Default> Connection<T> {
    /// Whether a client may open a stream now.
    pub const fn can_open(&self) -> bool {
        !self.broken
            && self.settled
            && self.peer_last.is_none()
            && self.streams.open() < self.remote.streams as usize
            && self.highest < LAST_STREAM - 1
    }

    /// Whether no stream can ever be opened any more.
    pub const fn is_closing(&self) -> bool {
        self.broken || self.peer_last.is_some() || self.highest >= LAST_STREAM - 1
    }

    /// Opens a stream; its request is to be written next. `bodyless` says that the answer will have no body (HEAD). `None`
    /// unless [`Connection::can_open`].
    pub fn open(&mut self, own: T, bodyless: bool) -> Option<u32> {
        if !self.can_open() || self.config.role != Role::Client {
            return None;
        }
        let id = if self.highest == 0 { 1 } else { self.highest + 2 };
        self.highest = id;
        self.streams.push(Stream {
            id,
            received: false,
            sent: false,
            headed: false,
            bodyless,
            send_window: i64::from(self.remote.window),
            recv_window: i64::from(self.config.stream_window),
            held: 0,
            credit: 0,
            left: None,
            own,
        });
        Some(id)
    }

    /// Whether we may still say something on a stream.
    pub fn is_sendable(&self, id: u32) -> bool {
        !self.broken && self.streams.get(id).is_some_and(|stream| !stream.sent)
    }

    /// Whether both sides of a stream are at their end.
    pub fn is_over(&self, id: u32) -> bool {
        self.streams.get(id).is_none_or(|stream| !stream.is_open())
    }

    /// Begins a head, or trailers. `None` when nothing may be said on this stream any more.
    pub fn head(&mut self, id: u32) -> Option<HeadWriter<'_, T>> {
        if !self.is_sendable(id) {
            return None;
        }
        self.last = None;
        let at = self.out.len();
        let head = Head {
            length: 0,
            kind: kind::HEADERS,
            flags: 0,
            stream: id,
        };
        head.write(&mut self.out);
        self.encoder.begin(&mut self.out);
        Some(HeadWriter {
            connection: self,
            stream: id,
            at,
        })
    }

    /// How much of `wanted` bytes could be sent on a stream now.
    pub fn capacity(&self, id: u32, wanted: usize) -> usize {
        let Some(stream) = self.streams.get(id).filter(|stream| !stream.sent && !self.broken) else {
            return 0;
        };
        let windows = usize::try_from(stream.send_window.min(self.send_window)).unwrap_or(0);
        let room = OUTPUT.saturating_sub(self.out.len() - self.out_sent);
        let count = wanted.min(windows).min(room);
        if count < wanted && count == room && room < CRUMB {
            return 0;
        }
        count
    }

    /// Sends as much of `data` as windows and output allow; how much that was.
    pub fn data(&mut self, id: u32, data: &[u8]) -> usize {
        let count = self.capacity(id, data.len());
        if count == 0 {
            return 0;
        }
        if let Some(stream) = self.streams.get_mut(id) {
            stream.send_window -= count as i64;
        }
        self.send_window -= count as i64;
        let most = (self.remote.frame as usize).min(LARGEST);
        let mut rest = &data[..count];
        // Behind what was said before, where that is the same stream's and has not left.
        if let Some(last) = &mut self.last
            && last.stream == id
            && last.length + rest.len() <= most
        {
            last.length += rest.len();
            patch_length(&mut self.out, last.at, last.length);
            self.out.extend_from_slice(rest);
            rest = &[];
        }
        while !rest.is_empty() {
            let (part, after) = rest.split_at(rest.len().min(most));
            self.last = Some(Last {
                stream: id,
                at: self.out.len(),
                length: part.len(),
            });
            let head = Head {
                length: part.len() as u32,
                kind: kind::DATA,
                flags: 0,
                stream: id,
            };
            head.write(&mut self.out);
            self.out.extend_from_slice(part);
            rest = after;
        }
        // The peer will want to say that it has consumed this.
        self.idle_frames.earn(2 + count as u32 / 512);
        count
    }

    /// Ends our side of a stream. Whether it was open.
    pub fn end(&mut self, id: u32) -> bool {
        if !self.is_sendable(id) {
            return false;
        }
        match self.last.take() {
            Some(last) if last.stream == id => self.out[last.at + 4] |= flag::END_STREAM,
            _ => {
                let head = Head {
                    length: 0,
                    kind: kind::DATA,
                    flags: flag::END_STREAM,
                    stream: id,
                };
                head.write(&mut self.out);
            }
        }
        self.closed(id);
        true
    }

    /// Our side of a stream has ended in order. What was answered was not for nothing.
    fn closed(&mut self, id: u32) {
        self.streams.close(id, false, true);
        if self.config.role == Role::Server {
            self.resets.earn(1);
        }
    }

    /// Gives a stream up, if it is open.
    pub fn reset(&mut self, id: u32, code: Code) {
        if self.broken || self.is_over(id) {
            return;
        }
        self.say_reset(id, code);
        self.streams.close(id, true, true);
    }

    pub(super) fn say_reset(&mut self, id: u32, code: Code) {
        self.last = None;
        frame::reset(id, code, &mut self.out);
        self.remember(id);
    }
}
