//! A connection: what comes in becomes events, what is said becomes output.

mod receive;
mod send;
mod window;

use std::ops::Range;

use crate::{
    Code, Decoder, Encoder, Error, Fields,
    budget::Budget,
    frame::{self, DEFAULT_FRAME, DEFAULT_WINDOW, LAST_STREAM, setting},
    stream::Streams,
};

pub use send::HeadWriter;

/// Which end we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Client,
    Server,
}

/// What we grant the peer.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    pub role: Role,
    /// What a stream may send us unread, in bytes; at most 2^31-1.
    pub stream_window: u32,
    /// The same for all streams together; 65,535 at least.
    pub connection_window: u32,
    /// Streams that a client may have open.
    pub max_streams: u32,
    /// Bytes of the fields of one message, as SETTINGS_MAX_HEADER_LIST_SIZE counts them.
    pub max_fields_bytes: u32,
    /// Extended CONNECT (RFC 8441), for a server.
    pub connect_protocol: bool,
}

/// What came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A client opened a stream: [`Connection::fields`] is the request. When that [`Fields::is_over`], it was not checked, and
    /// is to be refused (431).
    Request { stream: u32, end: bool },
    /// The head of a response; an interim one (1xx) is followed by another.
    Response { stream: u32, status: u16, end: bool },
    /// The end of a message, with [`Connection::fields`].
    Trailers { stream: u32 },
    /// Part of a body, as a range of the input. Held until [`Connection::consumed`].
    Data {
        stream: u32,
        bytes: Range<usize>,
        end: bool,
    },
    /// A stream is over before its end: the peer gave it up (`by_peer`), or broke a rule and was told.
    Gone { stream: u32, code: Code, by_peer: bool },
    /// More can be sent: on one stream, or `None`, on any.
    Window { stream: Option<u32> },
    /// The peer's SETTINGS were taken.
    Settings,
    /// The answer to [`Connection::ping`].
    Pong,
    /// The peer takes no streams above `last`: see [`Connection::close_above`].
    GoAway { last: u32, code: Code },
}

/// What [`Connection::read`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Bytes of the input that are dealt with. Those of [`Event::Data`] are among them.
    pub consumed: usize,
    /// `None`: more input is needed.
    pub event: Option<Event>,
}

/// What the peer grants us.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Remote {
    pub(crate) window: u32,
    pub(crate) frame: u32,
    pub(crate) streams: u32,
    pub(crate) connect_protocol: bool,
}

/// A DATA frame that has begun.
#[derive(Debug, Clone, Copy)]
struct Incoming {
    stream: u32,
    left: u32,
    padding: u32,
    end: bool,
}

/// A header block that goes on.
#[derive(Debug, Clone, Copy)]
struct Block {
    stream: u32,
    end: bool,
}

/// The last frame in the output, while it is DATA that can still be added to.
#[derive(Debug, Clone, Copy)]
struct Last {
    stream: u32,
    at: usize,
    length: usize,
}

/// How many streams that we gave up are remembered: what the peer sent before it knew is no fault.
const REMEMBERED: usize = 64;

/// Streams given up or broken by the peer: two hundred, and fifty a second. See CVE-2023-44487 and CVE-2025-8671.
const RESETS: Budget = Budget::new(200, 50);

/// Frames that carry nothing.
const IDLE_FRAMES: Budget = Budget::new(2000, 500);

/// Output beyond which no data is added.
const OUTPUT: usize = 60 * 1024;

/// Output beyond which nothing should be read: a peer that does not take the answers to what it asks.
const CHOKED: usize = 256 * 1024;

/// Output that was sent and still lies before what was not.
const SENT_KEPT: usize = 32 * 1024;

/// Payloads of our pings.
const ALIVE: [u8; 8] = *b"alive?..";
const LEAVING: [u8; 8] = *b"leaving.";

/// How far a graceful end has come (RFC 9113 §6.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Farewell {
    No,
    /// The peer was warned; what is on its way to us is still taken.
    Said,
    /// No stream above this one.
    Final(u32),
}

/// One end of a connection. `T` is what the caller keeps of each stream.
///
/// Memory: the streams that were granted, two tables of fields, the output, of which data is at most 60 kB, and a header block
/// of at most twice `max_fields_bytes` that comes in parts.
#[derive(Debug)]
pub struct Connection<T> {
    config: Config,
    remote: Remote,
    streams: Streams<T>,
    decoder: Decoder,
    encoder: Encoder,
    fields: Fields,
    out: Vec<u8>,
    out_sent: usize,
    last: Option<Last>,
    send_window: i64,
    recv_window: i64,
    credit: u32,
    preface: bool,
    settled: bool,
    settings_sent: u32,
    incoming: Option<Incoming>,
    skip: u32,
    block: Option<Block>,
    block_text: Vec<u8>,
    /// Number of the last stream that a client opened.
    highest: u32,
    /// Streams that we gave up.
    given_up: [u32; REMEMBERED],
    given_up_count: usize,
    resets: Budget,
    idle_frames: Budget,
    farewell: Farewell,
    /// The peer takes no streams above this one.
    peer_last: Option<u32>,
    broken: bool,
}

impl<T: Default> Connection<T> {
    /// A new connection, with the preface in the output.
    pub fn new(config: &Config) -> Self {
        let mut connection = Self {
            config: *config,
            remote: Remote {
                window: DEFAULT_WINDOW,
                frame: DEFAULT_FRAME,
                streams: u32::MAX,
                connect_protocol: false,
            },
            streams: Streams::new(),
            decoder: Decoder::default(),
            encoder: Encoder::new(),
            fields: Fields::new(),
            out: Vec::new(),
            out_sent: 0,
            last: None,
            send_window: i64::from(DEFAULT_WINDOW),
            recv_window: i64::from(config.connection_window.max(DEFAULT_WINDOW)),
            credit: 0,
            preface: config.role == Role::Client,
            settled: false,
            settings_sent: 1,
            incoming: None,
            skip: 0,
            block: None,
            block_text: Vec::new(),
            highest: 0,
            given_up: [0; REMEMBERED],
            given_up_count: 0,
            resets: RESETS,
            idle_frames: IDLE_FRAMES,
            farewell: Farewell::No,
            peer_last: None,
            broken: false,
        };
        connection.greet();
        connection
    }

    fn greet(&mut self) {
        let Config {
            stream_window,
            connection_window,
            max_streams,
            max_fields_bytes,
            ..
        } = self.config;
        let list = (setting::MAX_HEADER_LIST_SIZE, max_fields_bytes);
        let window = (setting::INITIAL_WINDOW_SIZE, stream_window);
        match self.config.role {
            Role::Client => {
                self.out.extend_from_slice(frame::PREFACE);
                frame::settings(&[(setting::ENABLE_PUSH, 0), window, list], &mut self.out);
            }
            Role::Server => {
                let streams = (setting::MAX_CONCURRENT_STREAMS, max_streams);
                let connect = (setting::ENABLE_CONNECT_PROTOCOL, 1);
                let all = [streams, window, list, connect];
                let count = if self.config.connect_protocol { 4 } else { 3 };
                frame::settings(&all[..count], &mut self.out);
            }
        }
        if let Some(more) = connection_window.checked_sub(DEFAULT_WINDOW).filter(|more| *more > 0) {
            frame::window_update(0, more, &mut self.out);
        }
    }

    /// The fields of the last head or trailers; until the next [`Connection::read`].
    pub const fn fields(&self) -> &Fields {
        &self.fields
    }

    /// What the caller keeps of a stream.
    pub fn stream(&mut self, id: u32) -> Option<&mut T> {
        self.streams.get_mut(id).map(|stream| &mut stream.own)
    }

    /// Calls `each` for all streams that were not forgotten.
    pub fn for_each(&mut self, mut each: impl FnMut(u32, &mut T)) {
        for stream in self.streams.iter_mut() {
            each(stream.id, &mut stream.own);
        }
    }

    /// Streams on which something may still come or go.
    pub const fn open_streams(&self) -> usize {
        self.streams.open()
    }

    /// Whether the peer's SETTINGS have come.
    pub const fn is_settled(&self) -> bool {
        self.settled
    }

    /// Streams that the peer lets us have open, once [`Connection::is_settled`].
    pub const fn granted_streams(&self) -> u32 {
        self.remote.streams
    }

    /// Whether the server grants extended CONNECT (RFC 8441).
    pub const fn grants_connect(&self) -> bool {
        self.remote.connect_protocol
    }

    /// Whether the peer has said GOAWAY.
    pub const fn is_peer_leaving(&self) -> bool {
        self.peer_last.is_some()
    }

    /// Whether the connection was ended by us in order, and no stream is open: it can be closed.
    pub const fn is_finished(&self) -> bool {
        matches!(self.farewell, Farewell::Final(_)) && self.streams.open() == 0
    }

    /// Whether so much waits to be sent that nothing should be read.
    pub const fn is_choked(&self) -> bool {
        self.out.len() - self.out_sent > CHOKED
    }

    /// Tells that time has passed: budgets against floods grow with it.
    pub const fn pass(&mut self, seconds: u32) {
        self.resets.pass(seconds);
        self.idle_frames.pass(seconds);
    }

    /// Closes the streams above `last`, which the peer did not begin to work on, and calls `each` for them.
    pub fn close_above(&mut self, last: u32, mut each: impl FnMut(u32, &mut T)) {
        let mut above = Vec::new();
        for stream in self.streams.iter_mut().filter(|stream| stream.id > last) {
            if stream.is_open() {
                above.push(stream.id);
                each(stream.id, &mut stream.own);
            }
        }
        for id in above {
            self.streams.close(id, true, true);
        }
    }

    /// Takes all streams out: the connection is lost.
    pub fn close_all(&mut self, mut each: impl FnMut(u32, &mut T)) {
        let mut all = Vec::new();
        for stream in self.streams.iter_mut() {
            all.push(stream.id);
            each(stream.id, &mut stream.own);
        }
        for id in all {
            self.streams.close(id, true, true);
        }
        self.broken = true;
    }

    /// Forgets a stream; one that is still open is given up with `code`. What the caller kept comes back.
    pub fn forget(&mut self, id: u32, code: Code) -> Option<T> {
        self.reset(id, code);
        let stream = self.streams.remove(id)?;
        self.credit_connection(stream.held);
        Some(stream.own)
    }

    /// Remembers that we gave a stream up.
    fn remember(&mut self, id: u32) {
        self.given_up[self.given_up_count % REMEMBERED] = id;
        self.given_up_count += 1;
    }

    /// Whether the peer may have sent frames before it knew that this stream is over. When more streams were given up than are
    /// remembered, all others have the benefit of the doubt.
    fn was_given_up(&self, id: u32) -> bool {
        self.given_up_count > REMEMBERED || self.given_up.contains(&id)
    }

    /// Tells the peer that the connection is lost.
    fn break_off(&mut self, error: Error) {
        if !self.broken {
            self.broken = true;
            self.last = None;
            let last = match (self.farewell, self.config.role) {
                (Farewell::Final(last), _) => last,
                (_, Role::Server) => self.highest,
                // A server opens no streams.
                (_, Role::Client) => 0,
            };
            frame::goaway(last, error.code(), &mut self.out);
        }
    }

    /// Warns a client that no streams are taken soon, and then, when the warning has arrived, that none are (RFC 9113 §6.8).
    pub fn leave(&mut self) {
        if self.farewell == Farewell::No {
            self.farewell = Farewell::Said;
            self.last = None;
            frame::goaway(LAST_STREAM, Code::NO_ERROR, &mut self.out);
            frame::ping(false, &LEAVING, &mut self.out);
        }
    }

    fn leave_now(&mut self) {
        if self.farewell == Farewell::Said {
            self.farewell = Farewell::Final(self.highest);
            self.last = None;
            frame::goaway(self.highest, Code::NO_ERROR, &mut self.out);
        }
    }

    /// Asks whether the peer is there; see [`Event::Pong`].
    pub fn ping(&mut self) {
        self.last = None;
        frame::ping(false, &ALIVE, &mut self.out);
    }

    /// What is to be sent.
    pub fn output(&self) -> &[u8] {
        &self.out[self.out_sent..]
    }

    /// Says how much of the output was sent.
    pub fn sent(&mut self, count: usize) {
        self.out_sent += count;
        if self.last.is_some_and(|last| last.at < self.out_sent) {
            self.last = None;
        }
        if self.out_sent >= self.out.len() {
            self.out.clear();
            self.out_sent = 0;
            self.last = None;
        } else if self.out_sent >= SENT_KEPT {
            // A peer that reads slowly may never have read everything.
            self.out.drain(..self.out_sent);
            if let Some(last) = &mut self.last {
                last.at -= self.out_sent;
            }
            self.out_sent = 0;
        }
    }

    /// Takes the memory of the output, when there is none in it.
    pub fn take_buffer(&mut self) -> Option<Vec<u8>> {
        (self.out.is_empty() && self.out.capacity() > 0).then(|| std::mem::take(&mut self.out))
    }

    /// Gives memory for the output, if it has none.
    pub fn give_buffer(&mut self, buffer: impl FnOnce() -> Vec<u8>) {
        if self.out.capacity() == 0 {
            self.out = buffer();
            self.out.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_stays_small_although_a_slow_peer_never_has_read_all_of_it() {
        let mut connection = Connection::<()>::new(&Config {
            role: Role::Client,
            stream_window: 65_535,
            connection_window: 65_535,
            max_streams: 0,
            max_fields_bytes: 4096,
            connect_protocol: false,
        });
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        connection.read(&settings).expect("SETTINGS");
        let id = connection.open((), false).expect("a stream");
        let update = [0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
        let of_stream = [0, 0, 4, 8, 0, 0, 0, 0, 1, 0, 0, 0xff, 0xff];
        let (mut said, mut sent, mut frames) = (Vec::new(), Vec::new(), 0u64);
        for turn in 0..5_000u32 {
            let data = turn.to_be_bytes().repeat(200);
            let count = connection.data(id, &data);
            said.extend_from_slice(&data[..count]);
            let part = connection.output().len().min(801);
            if connection.output().len() > 2_000 {
                sent.extend_from_slice(&connection.output()[..part]);
                connection.sent(part);
            }
            if turn % 50 == 0 {
                connection.read(&update).expect("an update");
                connection.read(&of_stream).expect("an update");
            }
            assert!(
                connection.out.len() <= SENT_KEPT + OUTPUT + 2_000,
                "{}",
                connection.out.len()
            );
        }
        sent.extend_from_slice(connection.output());
        // What arrived is what was said, frame by frame, behind the preface, SETTINGS and their acknowledgement.
        let mut rest = &sent[frame::PREFACE.len()..];
        let mut data = Vec::new();
        while let Some(head) = frame::Head::read(rest) {
            let (payload, after) = rest[frame::HEAD..].split_at(head.length as usize);
            if head.kind == frame::kind::DATA {
                data.extend_from_slice(payload);
                frames += 1;
            }
            rest = after;
        }
        assert_eq!(data, said);
        assert!(frames > 100 && said.len() > 3_000_000, "{frames} {}", said.len());
    }
}
