//! Heads of requests and responses.

use std::fmt;

use crate::{Error, Headers, InvalidValue, Method, Target, chars};

/// What the message said; what we write is always HTTP/1.1 or, to an HTTP/1.0 client, still HTTP/1.1 with a body
/// that it can read (RFC 9112 §2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Version {
    Http10,
    #[default]
    Http11,
    /// Only for heads converted from HTTP/2; never parsed, written as HTTP/1.1.
    Http2,
}

/// The head of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead {
    pub method: Method,
    pub target: Target,
    pub version: Version,
    /// After parsing an absolute-form target, Host is its authority (RFC 9112 §3.2.2).
    pub headers: Headers,
}

impl RequestHead {
    /// `GET` with an empty target and no headers, to be parsed into or built up.
    pub fn new() -> Self {
        Self {
            method: Method::Get,
            target: Target::default(),
            version: Version::Http11,
            headers: Headers::new(),
        }
    }

    /// Back to [`RequestHead::new`], keeping the memory.
    pub fn clear(&mut self) {
        self.method = Method::Get;
        self.target.clear();
        self.version = Version::Http11;
        self.headers.clear();
    }
}

impl Default for RequestHead {
    fn default() -> Self {
        Self::new()
    }
}

/// A status code, 100 to 999.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Status(u16);

impl Status {
    pub const CONTINUE: Self = Self(100);
    pub const SWITCHING_PROTOCOLS: Self = Self(101);
    pub const OK: Self = Self(200);

    /// `None` outside 100 to 999.
    pub const fn new(code: u16) -> Option<Self> {
        if code >= 100 && code <= 999 {
            Some(Self(code))
        } else {
            None
        }
    }

    /// The number.
    pub const fn code(self) -> u16 {
        self.0
    }

    /// 1xx but not 101: another response to the same request follows.
    pub const fn is_interim(self) -> bool {
        self.0 < 200 && self.0 != 101
    }

    /// The reason phrase of RFC 9110 §15; empty for a code that has none.
    pub const fn reason(self) -> &'static str {
        match self.0 {
            100 => "Continue",
            101 => "Switching Protocols",
            103 => "Early Hints",
            200 => "OK",
            201 => "Created",
            202 => "Accepted",
            203 => "Non-Authoritative Information",
            204 => "No Content",
            205 => "Reset Content",
            206 => "Partial Content",
            300 => "Multiple Choices",
            301 => "Moved Permanently",
            302 => "Found",
            303 => "See Other",
            304 => "Not Modified",
            307 => "Temporary Redirect",
            308 => "Permanent Redirect",
            400 => "Bad Request",
            401 => "Unauthorized",
            402 => "Payment Required",
            403 => "Forbidden",
            404 => "Not Found",
            405 => "Method Not Allowed",
            406 => "Not Acceptable",
            407 => "Proxy Authentication Required",
            408 => "Request Timeout",
            409 => "Conflict",
            410 => "Gone",
            411 => "Length Required",
            412 => "Precondition Failed",
            413 => "Content Too Large",
            414 => "URI Too Long",
            415 => "Unsupported Media Type",
            416 => "Range Not Satisfiable",
            417 => "Expectation Failed",
            421 => "Misdirected Request",
            422 => "Unprocessable Content",
            425 => "Too Early",
            426 => "Upgrade Required",
            428 => "Precondition Required",
            429 => "Too Many Requests",
            431 => "Request Header Fields Too Large",
            451 => "Unavailable For Legal Reasons",
            500 => "Internal Server Error",
            501 => "Not Implemented",
            502 => "Bad Gateway",
            503 => "Service Unavailable",
            504 => "Gateway Timeout",
            505 => "HTTP Version Not Supported",
            511 => "Network Authentication Required",
            _ => "",
        }
    }
}

impl From<Error> for Status {
    /// For a fault in a request: see [`Error::status`].
    fn from(error: Error) -> Self {
        Self(error.status())
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The head of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseHead {
    pub status: Status,
    pub version: Version,
    pub headers: Headers,
    reason: Vec<u8>,
}

impl ResponseHead {
    /// `200` without headers.
    pub fn new() -> Self {
        Self::with_status(Status::OK)
    }

    /// A response without headers and with the standard reason phrase.
    pub fn with_status(status: Status) -> Self {
        Self {
            status,
            version: Version::Http11,
            headers: Headers::new(),
            reason: Vec::new(),
        }
    }

    /// Back to [`ResponseHead::new`], keeping the memory.
    pub fn clear(&mut self) {
        self.status = Status::OK;
        self.version = Version::Http11;
        self.headers.clear();
        self.reason.clear();
    }

    /// The reason phrase: the one received or set, else the standard one.
    pub fn reason(&self) -> &[u8] {
        if self.reason.is_empty() {
            self.status.reason().as_bytes()
        } else {
            &self.reason
        }
    }

    /// Sets the reason phrase; empty for the standard one.
    ///
    /// # Errors
    /// When it holds a control character.
    pub fn set_reason(&mut self, reason: &[u8]) -> Result<(), InvalidValue> {
        if chars::value_end(reason, 0) < reason.len() {
            return Err(InvalidValue);
        }
        self.set_reason_checked(reason);
        Ok(())
    }

    pub(crate) fn set_reason_checked(&mut self, reason: &[u8]) {
        self.reason.clear();
        // The usual phrase needs no copy: it is what an empty one means.
        if reason != self.status.reason().as_bytes() {
            self.reason.extend_from_slice(reason);
        }
    }
}

impl Default for ResponseHead {
    fn default() -> Self {
        Self::new()
    }
}
