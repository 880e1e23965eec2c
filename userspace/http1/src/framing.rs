//! Where a message ends (RFC 9112 §6), and whether the connection lives on (§9.3).

use crate::target::Authority;
use crate::{
    Error, Form, Headers, Known, Method, RequestHead, ResponseHead, Status, Target, Value, Version, chars, known,
};

/// How the end of a body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLength {
    /// No body at all.
    Empty,
    /// `Content-Length`; may be zero.
    Exact(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// Responses only: the body ends with the connection.
    UntilClose,
}

const BODY: u128 = known::set(&[Known::ContentLength, Known::TransferEncoding]);

/// What the framing fields say, apart from the rules of requests and responses.
enum Stated {
    Nothing,
    Length(u64),
    Chunked,
}

fn stated(headers: &Headers, version: Version) -> Result<Stated, Error> {
    if !headers.may_hold_any(BODY) {
        return Ok(Stated::Nothing);
    }
    let length = content_length(headers)?;
    let mut codings = headers.all(Known::TransferEncoding);
    let Some(coding) = codings.next() else {
        return Ok(length.map_or(Stated::Nothing, Stated::Length));
    };
    // RFC 9112 §6.1 lets a server refuse both; nobody sends both in good faith.
    if length.is_some() {
        return Err(Error::LengthAndEncoding);
    }
    // §6.1: framing is faulty in a message of an earlier version.
    if version == Version::Http10 {
        return Err(Error::TransferEncodingForbidden);
    }
    if codings.next().is_some() {
        return Err(Error::TransferEncoding);
    }
    if coding.eq_ignore_ascii_case(b"chunked") {
        return Ok(Stated::Chunked);
    }
    // One chunked at the end of other codings is right but not implemented; anything else is wrong.
    let mut members = coding.rsplit(|&b| b == b',').map(chars::trim);
    let last = members.next().unwrap_or_default();
    let others_fit = members.all(|member| {
        !member.is_empty() && chars::token_end(member, 0) == member.len() && !member.eq_ignore_ascii_case(b"chunked")
    });
    if last.eq_ignore_ascii_case(b"chunked") && others_fit {
        Err(Error::TransferCodingUnsupported)
    } else {
        Err(Error::TransferEncoding)
    }
}

/// The one Content-Length; `1*DIGIT` that fits 64 bits. A repeated one is refused even when equal.
pub(crate) fn content_length(headers: &Headers) -> Result<Option<u64>, Error> {
    let mut lengths = headers.all(Known::ContentLength);
    let Some(length) = lengths.next() else {
        return Ok(None);
    };
    if lengths.next().is_some() {
        return Err(Error::ContentLengthRepeated);
    }
    chars::parse_decimal(length).map(Some).ok_or(Error::ContentLength)
}

pub(crate) fn request_body(head: &RequestHead) -> Result<BodyLength, Error> {
    Ok(match stated(&head.headers, head.version)? {
        Stated::Nothing => BodyLength::Empty,
        Stated::Length(length) => BodyLength::Exact(length),
        Stated::Chunked => BodyLength::Chunked,
    })
}

/// `method` is that of the request answered.
pub(crate) fn response_body(head: &ResponseHead, method: Method) -> Result<BodyLength, Error> {
    let stated = stated(&head.headers, head.version)?;
    let code = head.status.code();
    if code < 200 || code == 204 {
        // RFC 9112 §6.1: no Transfer-Encoding here, ever. A length is forbidden too but harmless, and common.
        return match stated {
            Stated::Chunked => Err(Error::TransferEncodingForbidden),
            Stated::Nothing | Stated::Length(_) => Ok(BodyLength::Empty),
        };
    }
    // §6.3 rules 1 and 2; after a 2xx to CONNECT the connection is a tunnel.
    if code == 304 || method == Method::Head || (method == Method::Connect && code < 300) {
        return Ok(BodyLength::Empty);
    }
    Ok(match stated {
        Stated::Nothing => BodyLength::UntilClose,
        Stated::Length(length) => BodyLength::Exact(length),
        Stated::Chunked => BodyLength::Chunked,
    })
}

/// RFC 9112 §9.3.
pub(crate) fn keep_alive(headers: &Headers, version: Version) -> bool {
    match version {
        Version::Http11 => !headers.has_member(Known::Connection, "close"),
        Version::Http10 => {
            headers.has_member(Known::Connection, "keep-alive") && !headers.has_member(Known::Connection, "close")
        }
        Version::Http2 => true,
    }
}

/// RFC 9110 §10.1.1; ignored from an HTTP/1.0 client.
pub(crate) fn expects_continue(head: &RequestHead) -> Result<bool, Error> {
    let mut expected = false;
    for member in head.headers.members(Known::Expect) {
        if !member.eq_ignore_ascii_case(b"100-continue") {
            return Err(Error::Expectation);
        }
        expected = true;
    }
    Ok(expected && head.version != Version::Http10)
}

/// RFC 9112 §3.2: exactly one valid Host in HTTP/1.1, at most one in HTTP/1.0; the authority of an absolute-form
/// target replaces it.
pub(crate) fn check_host(head: &mut RequestHead) -> Result<(), Error> {
    let mut hosts = head.headers.all(Known::Host);
    match hosts.next() {
        Some(host) => {
            if hosts.next().is_some() {
                return Err(Error::HostRepeated);
            }
            Authority::parse(host)?;
        }
        None if head.version == Version::Http10 => {}
        None => return Err(Error::HostMissing),
    }
    if head.target.form() == Form::Absolute {
        let RequestHead { target, headers, .. } = head;
        overwrite_host(headers, target);
    }
    Ok(())
}

fn overwrite_host(headers: &mut Headers, target: &Target) {
    if let Some(authority) = target.authority()
        && headers.first(Known::Host) != Some(authority)
    {
        // Characters of an authority are characters of a value.
        headers.set(Known::Host, Value::checked(authority));
    }
}

/// Whether a response of this status to `method` has no body whatever its fields say.
pub(crate) const fn never_has_body(status: Status, method: Method) -> bool {
    let code = status.code();
    code < 200 || code == 204 || code == 304 || matches!(method, Method::Head)
}
