//! What the peer says.

use super::{ALIVE, Block, Connection, Event, Farewell, Incoming, LEAVING, Role, Step};
use crate::{
    Code, Error,
    frame::{
        self, DEFAULT_FRAME, HEAD, Head, LARGEST_FRAME, LARGEST_WINDOW, LAST_STREAM, PREFACE, be32, flag, kind, setting,
    },
    message,
    stream::Stream,
};

/// What a frame came to: an event, or nothing to tell.
type Told = Result<Option<Event>, Error>;

/// Streams that are over but not forgotten by the caller, beyond those that may be open.
const LINGERING: usize = 64;

impl<T: Default> Connection<T> {
    /// Reads frames up to the first that is worth telling. `input` begins where the last call's `consumed` ended, and should
    /// hold a whole frame of 16,393 bytes if that many have come.
    ///
    /// # Errors
    /// When the peer broke a rule of the connection, or did too much for nothing. The output then ends with GOAWAY; send it and
    /// close. What breaks one stream only is an [`Event::Gone`].
    pub fn read(&mut self, input: &[u8]) -> Result<Step, Error> {
        let mut at = 0;
        let told = self.frames(input, &mut at);
        match told {
            Ok(event) => Ok(Step { consumed: at, event }),
            Err(error) => {
                self.break_off(error);
                Err(error)
            }
        }
    }

    fn frames(&mut self, input: &[u8], at: &mut usize) -> Told {
        if !self.preface {
            let count = input.len().min(PREFACE.len());
            if input[..count] != PREFACE[..count] {
                return Err(Error::Preface);
            }
            if count < PREFACE.len() {
                return Ok(None);
            }
            *at = count;
            self.preface = true;
        }
        loop {
            let rest = &input[*at..];
            if self.skip > 0 {
                let count = rest.len().min(self.skip as usize);
                self.skip -= count as u32;
                *at += count;
                if self.skip > 0 {
                    return Ok(None);
                }
                continue;
            }
            if self.incoming.is_some() {
                if rest.is_empty() {
                    return Ok(None);
                }
                if let Some(event) = self.go_on(rest.len(), at)? {
                    return Ok(Some(event));
                }
                continue;
            }
            let Some(head) = Head::read(rest) else {
                return Ok(None);
            };
            self.admit(head)?;
            if head.kind == kind::DATA {
                let padded = head.has(flag::PADDED);
                let padding = match rest.get(HEAD) {
                    Some(padding) if padded && head.length > 0 => Some(*padding),
                    None if padded && head.length > 0 => return Ok(None),
                    _ => None,
                };
                *at += HEAD + usize::from(padding.is_some());
                if let Some(event) = self.data_begins(head, padding)? {
                    return Ok(Some(event));
                }
                continue;
            }
            let end = HEAD + head.length as usize;
            if head.kind > kind::CONTINUATION {
                // RFC 9113 §4.1: unknown kinds are ignored.
                self.idle()?;
                self.skip = head.length;
                *at += HEAD;
                continue;
            }
            let Some(payload) = rest.get(HEAD..end) else {
                return Ok(None);
            };
            *at += end;
            if let Some(event) = self.frame(head, payload)? {
                return Ok(Some(event));
            }
        }
    }

    /// Rules for all frames.
    fn admit(&self, head: Head) -> Result<(), Error> {
        if !self.settled && (head.kind != kind::SETTINGS || head.has(flag::ACK)) {
            return Err(Error::NoSettings);
        }
        if head.length > DEFAULT_FRAME {
            return Err(Error::FrameTooLong);
        }
        let continues = |block: Block| head.kind == kind::CONTINUATION && head.stream == block.stream;
        match self.block {
            Some(block) if !continues(block) => return Err(Error::Continuation),
            None if head.kind == kind::CONTINUATION => return Err(Error::Continuation),
            _ => {}
        }
        match head.kind {
            kind::DATA | kind::HEADERS | kind::PRIORITY | kind::RST_STREAM if head.stream == 0 => Err(Error::NoStream),
            kind::SETTINGS | kind::PING | kind::GOAWAY if head.stream != 0 => Err(Error::OnStream),
            _ => Ok(()),
        }
    }

    fn frame(&mut self, head: Head, payload: &[u8]) -> Told {
        match head.kind {
            kind::HEADERS => self.headers(head, payload),
            kind::CONTINUATION => self.continuation(head, payload),
            kind::PRIORITY => self.priority(head.stream, payload),
            kind::RST_STREAM => self.reset_by_peer(head.stream, payload),
            kind::SETTINGS => self.settings(head, payload),
            kind::PING => self.pinged(head, payload),
            kind::GOAWAY => self.goodbye(payload),
            kind::WINDOW_UPDATE => self.window_update(head.stream, payload),
            _ => Err(Error::Push),
        }
    }

    /// Counts a frame that carries nothing.
    fn idle(&mut self) -> Result<(), Error> {
        if self.idle_frames.spend() {
            Ok(())
        } else {
            Err(Error::ControlFlood)
        }
    }

    /// Whether a stream of this number was never opened.
    fn is_idle(&self, id: u32) -> bool {
        id > self.highest || id.is_multiple_of(2)
    }

    /// A fault of the peer that ends one stream. It costs us work that nobody wants, so it is counted (CVE-2025-8671).
    fn break_stream(&mut self, id: u32, error: Error) -> Told {
        if !self.resets.spend() {
            return Err(Error::ResetFlood);
        }
        let code = error.code();
        let known = self.streams.get(id).is_some();
        self.say_reset(id, code);
        self.streams.close(id, true, true);
        Ok(known.then_some(Event::Gone {
            stream: id,
            code,
            by_peer: false,
        }))
    }

    fn data_begins(&mut self, head: Head, padding: Option<u8>) -> Told {
        if self.is_idle(head.stream) {
            return Err(Error::IdleStream);
        }
        let total = head.length;
        let padded = padding.map_or(0, |padding| u32::from(padding) + 1);
        if padded > total || (head.has(flag::PADDED) && padding.is_none()) {
            return Err(Error::Padding);
        }
        if i64::from(total) > self.recv_window {
            return Err(Error::WindowExceeded);
        }
        self.recv_window -= i64::from(total);
        let left = total - padded;
        let end = head.has(flag::END_STREAM);
        if left > 0 || end {
            self.idle_frames.earn(1);
        } else {
            self.idle()?;
        }
        // Padding is consumed at once.
        self.credit_connection(padded);
        self.incoming = Some(Incoming {
            stream: head.stream,
            left,
            padding: padded.saturating_sub(1),
            end,
        });
        let given_up = self.was_given_up(head.stream);
        let fault = match self.streams.get_mut(head.stream) {
            Some(stream) if !stream.received => {
                stream.recv_window -= i64::from(total);
                stream.credit += padded;
                let length = match &mut stream.left {
                    Some(said) => match said.checked_sub(u64::from(left)) {
                        Some(still) => {
                            *said = still;
                            !(end && still > 0)
                        }
                        None => false,
                    },
                    None => true,
                };
                if stream.recv_window < 0 {
                    Some(Error::WindowExceeded)
                } else if !stream.headed || !length {
                    Some(Error::LengthMismatch)
                } else {
                    stream.held += left;
                    None
                }
            }
            _ if given_up => {
                self.idle()?;
                None
            }
            _ => Some(Error::ClosedStream),
        };
        if let Some(fault) = fault {
            return self.break_stream(head.stream, fault);
        }
        if left == 0 {
            return self.deliver(0..0);
        }
        Ok(None)
    }

    /// More of the DATA frame that has begun; `available` bytes are there.
    fn go_on(&mut self, available: usize, at: &mut usize) -> Told {
        let Some(incoming) = &mut self.incoming else {
            return Ok(None);
        };
        let count = available.min(incoming.left as usize);
        incoming.left -= count as u32;
        let bytes = *at..*at + count;
        *at += count;
        self.deliver(bytes)
    }

    /// Gives bytes of the DATA frame to its stream.
    fn deliver(&mut self, bytes: std::ops::Range<usize>) -> Told {
        let Some(incoming) = self.incoming else {
            return Ok(None);
        };
        let last = incoming.left == 0;
        if last {
            self.incoming = None;
            self.skip = incoming.padding;
        }
        let end = last && incoming.end;
        match self.streams.get(incoming.stream) {
            Some(stream) if !stream.received => {
                if end {
                    self.ended(incoming.stream);
                } else if bytes.is_empty() {
                    return Ok(None);
                }
                Ok(Some(Event::Data {
                    stream: incoming.stream,
                    bytes,
                    end,
                }))
            }
            // Nobody waits for it.
            _ => {
                self.credit_connection(bytes.len() as u32);
                Ok(None)
            }
        }
    }

    /// The peer has said its last on a stream.
    fn ended(&mut self, id: u32) {
        self.streams.close(id, true, false);
        if self.config.role == Role::Client {
            self.resets.earn(1);
        }
    }

    fn headers(&mut self, head: Head, payload: &[u8]) -> Told {
        let mut block = payload;
        if head.has(flag::PADDED) {
            let (padding, rest) = block.split_first().ok_or(Error::Padding)?;
            let length = rest.len().checked_sub(usize::from(*padding)).ok_or(Error::Padding)?;
            block = &rest[..length];
        }
        let mut depends_on_itself = false;
        if head.has(flag::PRIORITY) {
            let (priority, rest) = block.split_at_checked(5).ok_or(Error::FrameLength)?;
            depends_on_itself = be32(priority).is_some_and(|on| on & LAST_STREAM == head.stream);
            block = rest;
        }
        let end = head.has(flag::END_STREAM);
        if head.has(flag::END_HEADERS) {
            return self.block(head.stream, end, depends_on_itself, block);
        }
        self.block_text.clear();
        self.block_text.extend_from_slice(block);
        self.block = Some(Block {
            stream: head.stream,
            end,
        });
        self.idle()?;
        self.bound_block()?;
        if depends_on_itself {
            return Err(Error::SelfDependency);
        }
        Ok(None)
    }

    /// A block that no message within the limit could have is not worth its memory (CVE-2024-27316 and its kin).
    fn bound_block(&self) -> Result<(), Error> {
        if self.block_text.len() as u64 > u64::from(self.config.max_fields_bytes) * 2 {
            return Err(Error::BlockTooLong);
        }
        Ok(())
    }

    fn continuation(&mut self, head: Head, payload: &[u8]) -> Told {
        let block = self.block.ok_or(Error::Continuation)?;
        self.idle()?;
        self.block_text.extend_from_slice(payload);
        self.bound_block()?;
        if !head.has(flag::END_HEADERS) {
            return Ok(None);
        }
        self.block = None;
        let text = std::mem::take(&mut self.block_text);
        self.block(block.stream, block.end, false, &text)
    }

    /// A whole header block.
    fn block(&mut self, id: u32, end: bool, depends_on_itself: bool, block: &[u8]) -> Told {
        self.fields.clear();
        let limit = self.config.max_fields_bytes as usize;
        self.decoder.decode(block, limit, &mut self.fields)?;
        if id.is_multiple_of(2) {
            return Err(Error::StreamNumber);
        }
        if id > self.highest {
            return match self.config.role {
                Role::Server => self.request(id, end, depends_on_itself),
                Role::Client => Err(Error::IdleStream),
            };
        }
        let fault = match self.streams.get(id) {
            Some(stream) if !stream.received => None,
            _ if self.was_given_up(id) => {
                self.idle()?;
                return Ok(None);
            }
            Some(_) => Some(Error::ClosedStream),
            None => return Err(Error::ClosedStream),
        };
        let fault = fault.or_else(|| depends_on_itself.then_some(Error::SelfDependency));
        if let Some(fault) = fault {
            return self.break_stream(id, fault);
        }
        let headed = self.streams.get(id).is_some_and(|stream| stream.headed);
        let told = if headed {
            self.trailers(id, end)
        } else {
            self.response(id, end)
        };
        match told {
            Err(Error::ControlFlood) => Err(Error::ControlFlood),
            Ok(event) => Ok(Some(event)),
            Err(fault) => self.break_stream(id, fault),
        }
    }

    fn request(&mut self, id: u32, end: bool, depends_on_itself: bool) -> Told {
        if let Farewell::Final(_) = self.farewell {
            // It was said that this one is not taken.
            self.idle()?;
            self.highest = id;
            self.remember(id);
            return Ok(None);
        }
        self.highest = id;
        let most = self.config.max_streams as usize;
        if self.streams.open() >= most || self.streams.len() >= most + LINGERING {
            self.idle()?;
            self.say_reset(id, Error::TooManyStreams.code());
            return Ok(None);
        }
        if depends_on_itself {
            return self.break_stream(id, Error::SelfDependency);
        }
        let left = if self.fields.is_over() {
            None
        } else {
            match message::request(&mut self.fields, self.config.connect_protocol) {
                Ok(left) if end && left.is_some_and(|left| left > 0) => {
                    return self.break_stream(id, Error::LengthMismatch);
                }
                Ok(left) => left,
                Err(fault) => return self.break_stream(id, fault),
            }
        };
        self.idle_frames.earn(1);
        self.streams.push(Stream {
            id,
            received: end,
            sent: false,
            headed: true,
            bodyless: false,
            send_window: i64::from(self.remote.window),
            recv_window: i64::from(self.config.stream_window),
            held: 0,
            credit: 0,
            left,
            own: T::default(),
        });
        Ok(Some(Event::Request { stream: id, end }))
    }

    fn response(&mut self, id: u32, end: bool) -> Result<Event, Error> {
        if self.fields.is_over() {
            return Err(Error::FieldsTooLarge);
        }
        let (status, length) = message::response(&mut self.fields)?;
        if status < 200 {
            // RFC 9113 §8.1: an interim response does not end a stream.
            if end {
                return Err(Error::PseudoField);
            }
            self.idle()?;
        } else if let Some(stream) = self.streams.get_mut(id) {
            stream.headed = true;
            self.idle_frames.earn(1);
            if !stream.bodyless && !matches!(status, 204 | 304) {
                stream.left = length;
                if end && length.is_some_and(|length| length > 0) {
                    return Err(Error::LengthMismatch);
                }
            }
        }
        if end {
            self.ended(id);
        }
        Ok(Event::Response {
            stream: id,
            status,
            end,
        })
    }

    fn trailers(&mut self, id: u32, end: bool) -> Result<Event, Error> {
        if !end {
            return Err(Error::TrailersNotLast);
        }
        if self.fields.is_over() {
            return Err(Error::FieldsTooLarge);
        }
        message::trailers(&mut self.fields)?;
        if self
            .streams
            .get(id)
            .is_some_and(|stream| stream.left.is_some_and(|left| left > 0))
        {
            return Err(Error::LengthMismatch);
        }
        self.ended(id);
        Ok(Event::Trailers { stream: id })
    }

    /// Priorities are not obeyed, only checked (RFC 9113 §5.3.2).
    fn priority(&mut self, id: u32, payload: &[u8]) -> Told {
        self.idle()?;
        let fault = if payload.len() != 5 {
            Error::FrameLength
        } else if be32(payload).is_some_and(|on| on & LAST_STREAM == id) {
            Error::SelfDependency
        } else {
            return Ok(None);
        };
        if self.streams.get(id).is_some_and(Stream::is_open) {
            return self.break_stream(id, fault);
        }
        Err(fault)
    }

    fn reset_by_peer(&mut self, id: u32, payload: &[u8]) -> Told {
        let code = be32(payload).filter(|_| payload.len() == 4).ok_or(Error::FrameLength)?;
        if self.is_idle(id) {
            return Err(Error::IdleStream);
        }
        let open = self.streams.get(id).is_some_and(Stream::is_open);
        if !open {
            self.idle()?;
            return Ok(None);
        }
        // A client that opens streams and gives them up lets us work for nothing (CVE-2023-44487).
        if self.config.role == Role::Server && !self.resets.spend() {
            return Err(Error::ResetFlood);
        }
        self.streams.close(id, true, true);
        Ok(Some(Event::Gone {
            stream: id,
            code: Code(code),
            by_peer: true,
        }))
    }

    fn settings(&mut self, head: Head, payload: &[u8]) -> Told {
        if head.has(flag::ACK) {
            if !payload.is_empty() {
                return Err(Error::FrameLength);
            }
            self.settings_sent = self.settings_sent.checked_sub(1).ok_or(Error::Ack)?;
            return Ok(None);
        }
        let (all, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(Error::FrameLength);
        }
        self.idle()?;
        for [a, b, value @ ..] in all {
            self.set(u16::from_be_bytes([*a, *b]), u32::from_be_bytes(*value))?;
        }
        self.settled = true;
        self.last = None;
        frame::settings_ack(&mut self.out);
        Ok(Some(Event::Settings))
    }

    fn set(&mut self, name: u16, value: u32) -> Result<(), Error> {
        match name {
            setting::HEADER_TABLE_SIZE => self.encoder.resize(value as usize),
            // RFC 9113 §6.5.2: a server must not say 1.
            setting::ENABLE_PUSH if value > u32::from(self.config.role == Role::Server) => return Err(Error::Setting),
            setting::MAX_CONCURRENT_STREAMS => self.remote.streams = value,
            setting::INITIAL_WINDOW_SIZE => {
                if value > LARGEST_WINDOW {
                    return Err(Error::InitialWindow);
                }
                let change = i64::from(value) - i64::from(self.remote.window);
                self.remote.window = value;
                for stream in self.streams.iter_mut() {
                    stream.send_window += change;
                    if stream.send_window > i64::from(LARGEST_WINDOW) {
                        return Err(Error::InitialWindow);
                    }
                }
            }
            setting::MAX_FRAME_SIZE => {
                if !(DEFAULT_FRAME..=LARGEST_FRAME).contains(&value) {
                    return Err(Error::Setting);
                }
                self.remote.frame = value;
            }
            setting::ENABLE_CONNECT_PROTOCOL => {
                // RFC 8441 §3: never taken back.
                if value > 1 || (self.remote.connect_protocol && value == 0) {
                    return Err(Error::Setting);
                }
                self.remote.connect_protocol = value == 1;
            }
            _ => {}
        }
        Ok(())
    }

    fn pinged(&mut self, head: Head, payload: &[u8]) -> Told {
        let payload = <&[u8; 8]>::try_from(payload).map_err(|_| Error::FrameLength)?;
        if !head.has(flag::ACK) {
            self.idle()?;
            self.last = None;
            frame::ping(true, payload, &mut self.out);
            return Ok(None);
        }
        match *payload {
            ALIVE => Ok(Some(Event::Pong)),
            LEAVING => {
                self.leave_now();
                Ok(Some(Event::Pong))
            }
            _ => {
                self.idle()?;
                Ok(None)
            }
        }
    }

    fn goodbye(&mut self, payload: &[u8]) -> Told {
        let (last, code) = match (be32(payload), payload.get(4..).and_then(be32)) {
            (Some(last), Some(code)) => (last & LAST_STREAM, Code(code)),
            _ => return Err(Error::FrameLength),
        };
        self.idle()?;
        // RFC 9113 §6.8: it may only become less.
        let last = self.peer_last.map_or(last, |before| before.min(last));
        self.peer_last = Some(last);
        Ok(Some(Event::GoAway { last, code }))
    }

    fn window_update(&mut self, id: u32, payload: &[u8]) -> Told {
        let count = be32(payload).filter(|_| payload.len() == 4).ok_or(Error::FrameLength)? & LARGEST_WINDOW;
        self.idle()?;
        if id == 0 {
            if count == 0 {
                return Err(Error::ZeroUpdate);
            }
            self.send_window += i64::from(count);
            if self.send_window > i64::from(LARGEST_WINDOW) {
                return Err(Error::WindowOverflow);
            }
            return Ok(Some(Event::Window { stream: None }));
        }
        if self.is_idle(id) {
            return Err(Error::IdleStream);
        }
        let Some(stream) = self.streams.get_mut(id).filter(|stream| !stream.sent) else {
            return Ok(None);
        };
        stream.send_window += i64::from(count);
        let fault = if count == 0 {
            Error::ZeroUpdate
        } else if stream.send_window > i64::from(LARGEST_WINDOW) {
            Error::WindowOverflow
        } else {
            return Ok(Some(Event::Window { stream: Some(id) }));
        };
        self.break_stream(id, fault)
    }
}
