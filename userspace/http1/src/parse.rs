//! Incremental parsing of heads. Each byte is looked at once, however the input is split, and errors come in byte
//! order, so the result never depends on the split.

use crate::framing::{self, BodyLength};
use crate::head::{RequestHead, ResponseHead, Status, Version};
use crate::{Error, Headers, Known, Method, chars};

/// What a head may cost. All sizes in bytes, line ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Request line or status line.
    pub start_line: usize,
    /// All field lines together, with the empty line. A caller's buffer must hold `start_line + fields_bytes + 2`.
    pub fields_bytes: usize,
    /// Number of field lines.
    pub fields: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            start_line: 8 << 10,
            fields_bytes: 32 << 10,
            fields: 100,
        }
    }
}

/// A request whose head is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestStart {
    /// Bytes of input that the head took; the body starts there.
    pub consumed: usize,
    /// How the body ends; never [`BodyLength::UntilClose`].
    pub body: BodyLength,
    /// Whether the client keeps the connection after the answer.
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expect_continue: bool,
}

/// A response whose head is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseStart {
    /// Bytes of input that the head took.
    pub consumed: usize,
    /// How the body ends.
    pub body: BodyLength,
    /// Whether the connection can carry another request once the body has ended exactly at the end of what was
    /// received: any byte more, and it must be closed.
    pub keep_alive: bool,
}

/// Whether a connection starts with the HTTP/2 preface (RFC 9113 §3.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preface {
    /// HTTP/1: parse on. Decided at the first byte that differs.
    No,
    /// Could still be: read more.
    Partial,
    /// HTTP/2: hand over all bytes, nothing is consumed.
    Yes,
}

/// Looks for `PRI * HTTP/2.0…` at the start of a connection.
pub fn preface(input: &[u8]) -> Preface {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let len = input.len().min(PREFACE.len());
    if input[..len] != PREFACE[..len] {
        Preface::No
    } else if len < PREFACE.len() {
        Preface::Partial
    } else {
        Preface::Yes
    }
}

/// Where the scan of a field section stands. Positions are offsets into the caller's input.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct FieldScan {
    section: usize,
    at: usize,
    line: usize,
    name_end: usize,
    value_start: usize,
    known: Option<Known>,
    state: FieldState,
}

#[derive(Debug, Clone, Copy, Default)]
enum FieldState {
    #[default]
    LineStart,
    Name,
    BeforeValue,
    Value,
}

impl FieldScan {
    pub(crate) fn new(section: usize) -> Self {
        Self {
            section,
            at: section,
            ..Self::default()
        }
    }

    /// Goes on where it stopped; the end of the section when its empty line has come. `headers` is filled then.
    pub(crate) fn run(&mut self, input: &[u8], headers: &mut Headers, limits: &Limits) -> Result<Option<usize>, Error> {
        let limit = self.section.saturating_add(limits.fields_bytes);
        let window = &input[..input.len().min(limit)];
        let more = || {
            if window.len() >= limit {
                Err(Error::HeadTooLarge)
            } else {
                Ok(None)
            }
        };
        if matches!(self.state, FieldState::LineStart) {
            self.usual_lines(window, headers, limits);
        }
        loop {
            match self.state {
                FieldState::LineStart => match window.get(self.at) {
                    None => return more(),
                    Some(b'\r') => match window.get(self.at + 1) {
                        None => return more(),
                        Some(b'\n') => {
                            headers.fill(&input[self.section..self.at]);
                            return Ok(Some(self.at + 2));
                        }
                        Some(_) => return Err(Error::BareCr),
                    },
                    Some(b'\n') => return Err(Error::BareLf),
                    Some(b' ' | b'\t') => return Err(Error::LineFolding),
                    Some(_) => {
                        if headers.indexed() >= limits.fields {
                            return Err(Error::TooManyFields);
                        }
                        self.line = self.at;
                        self.state = FieldState::Name;
                    }
                },
                FieldState::Name => {
                    self.at = chars::token_end(window, self.at);
                    if self.at - self.line > usize::from(u16::MAX) {
                        return Err(Error::HeadTooLarge);
                    }
                    match window.get(self.at) {
                        None => return more(),
                        Some(b':') if self.at > self.line => {}
                        Some(b' ' | b'\t') => return Err(Error::SpaceBeforeColon),
                        Some(_) => return Err(Error::FieldName),
                    }
                    self.name_end = self.at;
                    self.known = Known::of(&window[self.line..self.at]);
                    self.at += 1;
                    self.state = FieldState::BeforeValue;
                }
                FieldState::BeforeValue => match window.get(self.at) {
                    None => return more(),
                    Some(b' ' | b'\t') => self.at += 1,
                    Some(_) => {
                        self.value_start = self.at;
                        self.state = FieldState::Value;
                    }
                },
                FieldState::Value => {
                    self.at = chars::value_end(window, self.at);
                    match window.get(self.at) {
                        None => return more(),
                        Some(b'\r') => match window.get(self.at + 1) {
                            None => return more(),
                            Some(b'\n') => {}
                            Some(_) => return Err(Error::BareCr),
                        },
                        Some(b'\n') => return Err(Error::BareLf),
                        Some(_) => return Err(Error::FieldValue),
                    }
                    self.index(window, headers);
                    self.at += 2;
                    self.state = FieldState::LineStart;
                }
            }
        }
    }

    /// Indexes whole lines `name ":" [SP] value CRLF` in one go, and leaves anything else, right or wrong, to the
    /// careful way.
    fn usual_lines(&mut self, window: &[u8], headers: &mut Headers, limits: &Limits) {
        while headers.indexed() < limits.fields {
            let line = &window[self.at..];
            let Some(colon) = chars::near_colon(line) else {
                return;
            };
            let name = &line[..colon];
            let known = Known::of(name);
            // A known name is a token.
            if known.is_none() && (name.is_empty() || chars::token_end(name, 0) < colon) {
                return;
            }
            let start = colon + 1 + usize::from(line.get(colon + 1) == Some(&b' '));
            let end = chars::value_end(line, start);
            let value = &line[start..end];
            let blank = |byte: Option<&u8>| byte.is_some_and(|&byte| chars::is_blank(byte));
            if !line[end..].starts_with(b"\r\n") || blank(value.first()) || blank(value.last()) {
                return;
            }
            let at = self.at - self.section;
            headers.index(at..at + colon, known, at + start..at + end, true);
            self.at += end + 2;
        }
    }

    fn index(&self, input: &[u8], headers: &mut Headers) {
        let mut end = self.at;
        while end > self.value_start && chars::is_blank(input[end - 1]) {
            end -= 1;
        }
        let lead = &input[self.name_end + 1..self.value_start];
        let plain = end == self.at && matches!(lead, [] | [b' ']);
        let from = self.section;
        headers.index(
            self.line - from..self.name_end - from,
            self.known,
            self.value_start - from..end - from,
            plain,
        );
    }
}

#[derive(Debug, Clone, Copy, Default)]
enum RequestState {
    #[default]
    Blank,
    Method,
    Target,
    Version,
    Fields,
}

/// Parses the heads of requests, one after another. Holds only positions: the caller keeps the bytes.
#[derive(Debug, Clone, Default)]
pub struct RequestParser {
    state: RequestState,
    /// Start of the request line.
    line: usize,
    at: usize,
    /// Start of the target or of the version.
    part: usize,
    fields: FieldScan,
}

impl RequestParser {
    /// A parser at the start of a request.
    pub fn new() -> Self {
        Self::default()
    }

    /// Parses a head. `input` holds everything from the first byte of this request on, at every call; `None` asks
    /// for more. When it is complete, `head` holds it and the parser is ready for the next request, whose input
    /// starts after [`RequestStart::consumed`] and the body. `head` is cleared at the first call for a request and
    /// belongs to the parser until then.
    ///
    /// # Errors
    /// Answer [`Error::status`] and close: the parser cannot be used again.
    pub fn parse(
        &mut self,
        input: &[u8],
        head: &mut RequestHead,
        limits: &Limits,
    ) -> Result<Option<RequestStart>, Error> {
        if !matches!(self.state, RequestState::Fields) {
            if matches!(self.state, RequestState::Blank) {
                head.clear();
            }
            let Some(section) = self.request_line(input, head, limits)? else {
                return Ok(None);
            };
            self.fields = FieldScan::new(section);
            self.state = RequestState::Fields;
        }
        let Some(consumed) = self.fields.run(input, &mut head.headers, limits)? else {
            return Ok(None);
        };
        *self = Self::new();
        framing::check_host(head)?;
        let body = framing::request_body(head)?;
        let expect_continue = framing::expects_continue(head)? && body != BodyLength::Empty;
        let keep_alive = framing::keep_alive(&head.headers, head.version);
        Ok(Some(RequestStart {
            consumed,
            body,
            keep_alive,
            expect_continue,
        }))
    }

    /// Whether `input` holds nothing of a request yet: such a connection may be closed quietly.
    pub fn is_idle(input: &[u8]) -> bool {
        input.is_empty() || input == b"\r" || input == b"\r\n"
    }

    /// The start of the field section, when the line is complete.
    fn request_line(&mut self, input: &[u8], head: &mut RequestHead, limits: &Limits) -> Result<Option<usize>, Error> {
        if matches!(self.state, RequestState::Blank) {
            // RFC 9112 §2.2: a server should ignore at least one empty line before the request line.
            match input {
                [] | [b'\r'] => return Ok(None),
                [b'\r', b'\n', ..] => self.line = 2,
                [b'\r', ..] => return Err(Error::BareCr),
                [b'\n', ..] => return Err(Error::BareLf),
                _ => self.line = 0,
            }
            self.at = self.line;
            self.state = RequestState::Method;
        }
        let limit = self.line.saturating_add(limits.start_line);
        let window = &input[..input.len().min(limit)];
        let more = || {
            if window.len() >= limit {
                Err(Error::StartLineTooLong)
            } else {
                Ok(None)
            }
        };
        // As nearly always; of a method that was begun before, only the rest would be looked at here.
        if matches!(self.state, RequestState::Method)
            && self.at == self.line
            && window.get(self.line..).is_some_and(|line| line.starts_with(b"GET "))
        {
            head.method = Method::Get;
            self.at += 4;
            self.part = self.at;
            self.state = RequestState::Target;
        }
        if matches!(self.state, RequestState::Method) {
            self.at = chars::token_end(window, self.at);
            if self.at - self.line > Method::MAX_LEN {
                return Err(Error::MethodTooLong);
            }
            match window.get(self.at) {
                None => return more(),
                Some(b' ') => head.method = Method::new(&window[self.line..self.at])?,
                Some(b'\r' | b'\n') if self.at == self.line => return Err(Error::EmptyLine),
                Some(_) => return Err(Error::Method),
            }
            self.at += 1;
            self.part = self.at;
            self.state = RequestState::Target;
        }
        if matches!(self.state, RequestState::Target) {
            self.at = chars::target_end(window, self.at);
            match window.get(self.at) {
                None => return more(),
                Some(b' ') => head.target.set_checked(head.method, &window[self.part..self.at])?,
                // HTTP/0.9.
                Some(b'\r' | b'\n') => return Err(Error::Version),
                Some(_) => return Err(Error::Target),
            }
            self.at += 1;
            self.part = self.at;
            self.state = RequestState::Version;
        }
        if let Some(&[ref version @ .., b'\r', b'\n']) =
            window.get(self.part..).and_then(|rest| rest.first_chunk::<10>())
            && version == b"HTTP/1.1"
        {
            head.version = Version::Http11;
            return Ok(Some(self.part + 10));
        }
        while let Some(&byte) = window.get(self.at) {
            let place = self.at - self.part;
            match (place, byte) {
                (8, b'\r') => {}
                (8, b'\n') => return Err(Error::BareLf),
                (9, b'\n') => return Ok(Some(self.at + 1)),
                (9, _) => return Err(Error::BareCr),
                (0..8, _) => {
                    if let Some(version) = version_byte(&window[self.part..], place).ok_or(Error::Version)? {
                        head.version = version?;
                    }
                }
                _ => return Err(Error::Version),
            }
            self.at += 1;
        }
        more()
    }
}

/// Looks at byte `place` of `HTTP/d.d`; the version after the last one, `None` when the byte does not fit.
fn version_byte(text: &[u8], place: usize) -> Option<Option<Result<Version, Error>>> {
    let byte = text[place];
    let fits = match place {
        0..=4 => byte == b"HTTP/"[place],
        6 => byte == b'.',
        5 | 7 => byte.is_ascii_digit(),
        _ => false,
    };
    if !fits {
        return None;
    }
    Some((place == 7).then(|| match (text[5], byte) {
        (b'1', b'1') => Ok(Version::Http11),
        (b'1', b'0') => Ok(Version::Http10),
        _ => Err(Error::VersionUnsupported),
    }))
}

/// The number of three digits.
fn code_of(digits: &[u8]) -> u16 {
    digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'))
}

/// Parses the heads of responses, one after another. Holds only positions: the caller keeps the bytes.
#[derive(Debug, Clone, Default)]
pub struct ResponseParser {
    in_fields: bool,
    at: usize,
    fields: FieldScan,
}

impl ResponseParser {
    /// A parser at the start of a response.
    pub fn new() -> Self {
        Self::default()
    }

    /// As [`RequestParser::parse`], for the response to a request with `method`. After an interim response
    /// ([`Status::is_interim`]) call it again for the next one.
    ///
    /// # Errors
    /// Answer 502 and close the upstream connection.
    pub fn parse(
        &mut self,
        input: &[u8],
        head: &mut ResponseHead,
        method: Method,
        limits: &Limits,
    ) -> Result<Option<ResponseStart>, Error> {
        if !self.in_fields {
            if self.at == 0 {
                head.clear();
            }
            let Some(section) = self.status_line(input, head, limits)? else {
                return Ok(None);
            };
            self.fields = FieldScan::new(section);
            self.in_fields = true;
        }
        let Some(consumed) = self.fields.run(input, &mut head.headers, limits)? else {
            return Ok(None);
        };
        *self = Self::new();
        let body = framing::response_body(head, method)?;
        let keep_alive = body != BodyLength::UntilClose && framing::keep_alive(&head.headers, head.version);
        Ok(Some(ResponseStart {
            consumed,
            body,
            keep_alive,
        }))
    }

    fn status_line(&mut self, input: &[u8], head: &mut ResponseHead, limits: &Limits) -> Result<Option<usize>, Error> {
        /// After version, space and code.
        const REASON: usize = 12;
        let window = &input[..input.len().min(limits.start_line)];
        let more = || {
            if window.len() >= limits.start_line {
                Err(Error::StartLineTooLong)
            } else {
                Ok(None)
            }
        };
        if self.at == 0
            && let Some(&[ref version @ .., a, b, c]) = window.first_chunk::<REASON>()
            && version == b"HTTP/1.1 "
            && let [0..10, 0..10, 0..10] = [a, b, c].map(|digit| digit.wrapping_sub(b'0'))
            && let Some(status) = Status::new(code_of(&[a, b, c]))
        {
            // As nearly always.
            head.version = Version::Http11;
            head.status = status;
            self.at = REASON;
        }
        while self.at < REASON {
            let Some(&byte) = window.get(self.at) else {
                return more();
            };
            match self.at {
                0..8 => {
                    if let Some(version) = version_byte(window, self.at).ok_or(Error::StatusLine)? {
                        head.version = version?;
                    }
                }
                8 if byte == b' ' => {}
                9..REASON if byte.is_ascii_digit() => {}
                _ => return Err(Error::StatusLine),
            }
            self.at += 1;
            if self.at == REASON {
                head.status = Status::new(code_of(&window[9..REASON])).ok_or(Error::StatusLine)?;
            }
        }
        if self.at == REASON {
            match window.get(REASON) {
                None => return more(),
                // The space belongs there even without a reason (RFC 9112 §4), but many leave it out.
                Some(b' ' | b'\r' | b'\n') => {}
                Some(_) => return Err(Error::StatusLine),
            }
        }
        self.at = chars::value_end(window, self.at);
        match window.get(self.at) {
            None => return more(),
            Some(b'\r') => match window.get(self.at + 1) {
                None => return more(),
                Some(b'\n') => {}
                Some(_) => return Err(Error::BareCr),
            },
            Some(b'\n') => return Err(Error::BareLf),
            Some(_) => return Err(Error::StatusLine),
        }
        head.set_reason_checked(window.get(REASON + 1..self.at).unwrap_or_default());
        Ok(Some(self.at + 2))
    }
}
