//! Writing messages. The encoder alone writes `Content-Length`, `Transfer-Encoding` and `Connection`; fields of
//! these names in a block are skipped.

use crate::framing::{self, BodyLength};
use crate::head::{RequestHead, ResponseHead, Version};
use crate::headers::FRAMING;
use crate::{Form, Headers, Known, Method, Status, Value, chars, known};

/// What to say about the connection. `TE` in a request is announced besides, as RFC 9110 §10.1.4 demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// Nothing: an HTTP/1.1 peer keeps it.
    Default,
    /// `keep-alive`, for an HTTP/1.0 client that asked for it.
    KeepAlive,
    /// `close`
    Close,
    /// `upgrade`, beside the block's Upgrade field.
    Upgrade,
}

/// How the body must now be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// No body follows, whatever the source has.
    Nothing,
    /// Exactly that many bytes as they are.
    Length(u64),
    /// With [`chunk_head`], [`chunk_end`] and [`last_chunk`].
    Chunked,
    /// As it is, then close the connection.
    UntilClose,
}

/// Writes the head of a request for a backend, as HTTP/1.1 and in origin form (asterisk form for `OPTIONS *`,
/// authority form for CONNECT). A body of unknown length goes chunked.
#[must_use = "says how to write the body"]
pub fn request(head: &RequestHead, body: BodyLength, connection: Connection, out: &mut Vec<u8>) -> Framing {
    out.extend_from_slice(head.method.as_bytes());
    out.push(b' ');
    match head.target.form() {
        Form::Authority | Form::Asterisk => out.extend_from_slice(head.target.as_bytes()),
        Form::Origin | Form::Absolute => {
            let rest = head.target.path_and_query();
            if rest.first() != Some(&b'/') {
                // RFC 9112 §3.2.4: an absolute form without a path is `*` for OPTIONS, else `/`.
                out.push(if rest.is_empty() && head.method == Method::Options {
                    b'*'
                } else {
                    b'/'
                });
            }
            out.extend_from_slice(rest);
        }
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    head.headers.write(FRAMING, out);
    let framing = match body {
        // RFC 9110 §8.6: say so where a body is usual.
        BodyLength::Empty if matches!(head.method, Method::Post | Method::Put | Method::Patch) => Framing::Length(0),
        BodyLength::Empty => Framing::Nothing,
        BodyLength::Exact(length) => Framing::Length(length),
        BodyLength::Chunked | BodyLength::UntilClose => Framing::Chunked,
    };
    framing_line(framing, out);
    connection_line(connection, head.headers.contains(Known::Te), out);
    out.extend_from_slice(b"\r\n");
    framing
}

/// The request that a response answers, as far as it decides framing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    pub method: Method,
    /// The client's version: HTTP/1.0 knows no chunks.
    pub version: Version,
}

/// Writes the head of a response for a client, as HTTP/1.1. After [`Framing::UntilClose`], close the connection; the
/// head then says so whatever `connection` is.
#[must_use = "says how to write the body"]
pub fn response(
    head: &ResponseHead,
    asked: Asked,
    body: BodyLength,
    connection: Connection,
    out: &mut Vec<u8>,
) -> Framing {
    status_line(head.status, head.reason(), out);
    head.headers.write(FRAMING, out);
    let framing = if framing::never_has_body(head.status, asked.method) {
        // RFC 9110 §8.6: here a length tells what GET would have got; elsewhere it is forbidden.
        if (asked.method == Method::Head || head.status.code() == 304)
            && head.status.code() >= 200
            && head.status.code() != 204
            && let Ok(Some(length)) = framing::content_length(&head.headers)
        {
            framing_line(Framing::Length(length), out);
        }
        Framing::Nothing
    } else if asked.method == Method::Connect && head.status.code() < 300 {
        Framing::Nothing
    } else {
        let framing = match body {
            BodyLength::Empty => Framing::Length(0),
            BodyLength::Exact(length) => Framing::Length(length),
            BodyLength::Chunked | BodyLength::UntilClose if asked.version == Version::Http10 => Framing::UntilClose,
            BodyLength::Chunked | BodyLength::UntilClose => Framing::Chunked,
        };
        framing_line(framing, out);
        framing
    };
    let connection = if framing == Framing::UntilClose {
        Connection::Close
    } else {
        connection
    };
    connection_line(connection, false, out);
    out.extend_from_slice(b"\r\n");
    framing
}

/// The whole interim response `100 Continue`.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Writes an interim response other than 101, without framing or connection fields. Not for HTTP/1.0 clients
/// (RFC 9110 §15.2).
pub fn interim(status: Status, headers: &Headers, out: &mut Vec<u8>) {
    status_line(status, status.reason().as_bytes(), out);
    headers.write(FRAMING, out);
    out.extend_from_slice(b"\r\n");
}

/// Writes what goes before the data of a chunk. `len` is not zero: that would end the body.
pub fn chunk_head(len: usize, out: &mut Vec<u8>) {
    debug_assert!(len > 0, "an empty chunk ends the body");
    let mut digits = [0; 16];
    let mut at = digits.len();
    let mut rest = len;
    while rest > 0 {
        at -= 1;
        digits[at] = b"0123456789abcdef"[rest & 15];
        rest >>= 4;
    }
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

/// What goes after the data of a chunk.
pub const CHUNK_END: &[u8] = b"\r\n";

/// Writes one whole chunk; nothing when `data` is empty.
pub fn chunk(data: &[u8], out: &mut Vec<u8>) {
    if data.is_empty() {
        return;
    }
    out.reserve(data.len() + 20);
    chunk_head(data.len(), out);
    out.extend_from_slice(data);
    out.extend_from_slice(CHUNK_END);
}

/// Writes the last chunk and the trailers, without those fields that may not stand there (RFC 9110 §6.5.1).
pub fn last_chunk(trailers: Option<&Headers>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    if let Some(trailers) = trailers {
        trailers.write(NOT_IN_TRAILERS, out);
    }
    out.extend_from_slice(b"\r\n");
}

/// Framing, routing, authentication and content description: a receiver that merges trailers into the head must not
/// be steered by them.
const NOT_IN_TRAILERS: u128 = FRAMING
    | known::set(&[
        Known::Authorization,
        Known::CacheControl,
        Known::ContentEncoding,
        Known::ContentRange,
        Known::ContentType,
        Known::Cookie,
        Known::Expect,
        Known::Forwarded,
        Known::Host,
        Known::KeepAlive,
        Known::MaxForwards,
        Known::ProxyAuthenticate,
        Known::ProxyAuthorization,
        Known::ProxyConnection,
        Known::Range,
        Known::SetCookie,
        Known::Te,
        Known::Trailer,
        Known::Upgrade,
        Known::XForwardedClientCert,
        Known::XForwardedFor,
        Known::XForwardedHost,
        Known::XForwardedPort,
        Known::XForwardedProto,
        Known::XRealIp,
        Known::XRequestId,
    ]);

/// Removes the fields that may not stand in trailers, for a protocol that writes them itself.
pub fn strip_trailers(trailers: &mut Headers) {
    trailers.remove_set(NOT_IN_TRAILERS);
}

/// A Date value (RFC 9110 §5.6.7) from seconds since the epoch.
pub fn date(seconds: u64) -> [u8; 29] {
    // From the year 10000 on the format has no room.
    let seconds = seconds.min(253_402_300_799);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Civil date in the proleptic Gregorian calendar, in eras of 400 years that start in March.
    let day = days + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * march_month + 2) / 5 + 1;
    let month = (march_month + 2) % 12;
    let year = era * 400 + year_of_era + u64::from(month < 2);
    let mut text = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    let mut two = |at: usize, number: u64| {
        text[at] = b'0' + (number / 10 % 10) as u8;
        text[at + 1] = b'0' + (number % 10) as u8;
    };
    two(5, day_of_month);
    two(12, year / 100);
    two(14, year % 100);
    two(17, second / 3_600);
    two(20, second / 60 % 60);
    two(23, second % 60);
    let weekday = (days % 7) as usize * 3;
    text[..3].copy_from_slice(&b"ThuFriSatSunMonTueWed"[weekday..weekday + 3]);
    let month = month as usize * 3;
    text[8..11].copy_from_slice(&b"JanFebMarAprMayJunJulAugSepOctNovDec"[month..month + 3]);
    text
}

/// Adds a Date when there is none: a gateway must (RFC 9110 §6.6.1), but keeps the origin's.
pub fn ensure_date(headers: &mut Headers, now: &[u8; 29]) {
    if !headers.contains(Known::Date)
        && let Ok(now) = Value::new(now)
    {
        headers.append(Known::Date, now);
    }
}

fn status_line(status: Status, reason: &[u8], out: &mut Vec<u8>) {
    let code = status.code();
    let digit = |part: u16| b'0' + (part % 10) as u8;
    let mut start = *b"HTTP/1.1 000 ";
    start[9..12].copy_from_slice(&[digit(code / 100), digit(code / 10), digit(code)]);
    out.extend_from_slice(&start);
    out.extend_from_slice(reason);
    out.extend_from_slice(b"\r\n");
}

fn framing_line(framing: Framing, out: &mut Vec<u8>) {
    match framing {
        Framing::Nothing | Framing::UntilClose => {}
        Framing::Length(length) => {
            out.extend_from_slice(b"content-length: ");
            chars::push_decimal(out, length);
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
}

fn connection_line(connection: Connection, te: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(match (connection, te) {
        (Connection::Default, false) => b"",
        (Connection::Default, true) => b"connection: te\r\n",
        (Connection::KeepAlive, false) => b"connection: keep-alive\r\n",
        (Connection::KeepAlive, true) => b"connection: keep-alive, te\r\n",
        (Connection::Close, false) => b"connection: close\r\n",
        (Connection::Close, true) => b"connection: close, te\r\n",
        (Connection::Upgrade, false) => b"connection: upgrade\r\n",
        (Connection::Upgrade, true) => b"connection: upgrade, te\r\n",
    });
}
