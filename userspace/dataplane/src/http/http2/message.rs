//! HTTP/2 messages as the pipeline sees them: fields become flat header blocks, and the other way.

use pierhead_http1::{
    Authority, BodyLength, Error, Headers, Known, Method, Name, RequestHead, ResponseHead, Status, Value, Version,
    encode,
};
use pierhead_http2::{Fields, HeadWriter, Policy, Pseudo};
use smallvec::SmallVec;

use crate::http::body::Fault;

/// Fields that HTTP/2 must not carry (RFC 9113 §8.2.2) or that the encoder writes itself.
fn is_of_the_connection(known: Option<Known>) -> bool {
    matches!(
        known,
        Some(
            Known::Connection
                | Known::KeepAlive
                | Known::ProxyConnection
                | Known::TransferEncoding
                | Known::Upgrade
                | Known::ContentLength
                | Known::Host
                | Known::Http2Settings
        )
    )
}

/// A larger field would drive most others out of the table.
const LARGE: usize = 1024;

/// What becomes of a field in the table of those that were sent before, which holds some fifty: one that never comes again with
/// the same value drives out those that do. What identifies a user stays out of it altogether, for a connection to a backend
/// carries requests of many.
fn policy(known: Option<Known>, size: usize) -> Policy {
    match known {
        Some(Known::Authorization | Known::ProxyAuthorization | Known::Cookie | Known::SetCookie) => Policy::Secret,
        Some(
            Known::Age
            | Known::Baggage
            | Known::ContentRange
            | Known::ETag
            | Known::Forwarded
            | Known::GrpcTimeout
            | Known::IfModifiedSince
            | Known::IfNoneMatch
            | Known::Location
            | Known::Traceparent
            | Known::Tracestate
            | Known::XForwardedFor
            | Known::XRealIp
            | Known::XRequestId,
        ) => Policy::Once,
        _ if size > LARGE => Policy::Once,
        _ => Policy::Index,
    }
}

fn append(headers: &mut Headers, name: &[u8], value: &[u8]) -> Result<(), Error> {
    let name = Name::new(name).map_err(|_| Error::FieldName)?;
    let value = Value::trimmed(value).map_err(|_| Error::FieldValue)?;
    headers.append(name, value);
    Ok(())
}

pub(super) fn read_trailers(fields: &Fields) -> Headers {
    let mut headers = Headers::new();
    for (name, value) in fields.regular() {
        // A field that cannot be read is not worth the message it ends.
        let _ = append(&mut headers, name, value);
    }
    encode::strip_trailers(&mut headers);
    headers
}

/// Takes a request that came by HTTP/2. `max_fields` counts cookie crumbs one each.
///
/// # Errors
/// When the client must be answered 400 (431 for too many fields, or too large ones).
pub(crate) fn read_request(
    fields: &Fields,
    ended: bool,
    max_fields: usize,
    head: &mut RequestHead,
) -> Result<BodyLength, Status> {
    read(fields, ended, max_fields, head).map_err(Status::from)
}

fn read(fields: &Fields, ended: bool, max_fields: usize, head: &mut RequestHead) -> Result<BodyLength, Error> {
    head.clear();
    head.version = Version::Http2;
    if fields.is_over() {
        return Err(Error::HeadTooLarge);
    }
    head.method = Method::new(fields.pseudo(Pseudo::Method).unwrap_or_default())?;
    if fields.len() > max_fields {
        return Err(Error::TooManyFields);
    }
    let target = fields.pseudo(Pseudo::Path).unwrap_or(b"/");
    // An extended CONNECT has a path like any other request (RFC 8441 §4).
    let method = if head.method == Method::Connect {
        Method::Get
    } else {
        head.method
    };
    // RFC 9113 §8.3.1: a path, or the asterisk of OPTIONS.
    if target.first() != Some(&b'/') && !(target == b"*" && method == Method::Options) {
        return Err(Error::Target);
    }
    head.target.set(method, target).map_err(|_| Error::Target)?;

    let mut hosts = fields
        .regular()
        .filter(|(name, _)| *name == b"host")
        .map(|(_, value)| value);
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Error::HostRepeated);
    }
    let authority = fields.pseudo(Pseudo::Authority);
    // RFC 9113 §8.3.1: they must not disagree.
    if let (Some(authority), Some(host)) = (authority, host)
        && !host.eq_ignore_ascii_case(authority)
    {
        return Err(Error::Host);
    }
    let host = authority.or(host).ok_or(Error::HostMissing)?;
    Authority::parse(host)?;
    head.headers
        .append(Known::Host, Value::new(host).map_err(|_| Error::Host)?);

    let mut cookies: Vec<u8> = Vec::new();
    for (name, value) in fields.regular() {
        match name {
            b"host" => {}
            // Crumbs are joined for whoever speaks HTTP/1 (RFC 9113 §8.2.3).
            b"cookie" => {
                if !cookies.is_empty() {
                    cookies.extend_from_slice(b"; ");
                }
                cookies.extend_from_slice(value);
            }
            _ => append(&mut head.headers, name, value)?,
        }
    }
    if !cookies.is_empty() {
        let cookies = Value::trimmed(&cookies).map_err(|_| Error::FieldValue)?;
        head.headers.append(Known::Cookie, cookies);
    }
    body_length(&head.headers, ended)
}

/// The codec itself holds the data to a Content-Length.
fn body_length(headers: &Headers, ended: bool) -> Result<BodyLength, Error> {
    if ended {
        return Ok(BodyLength::Empty);
    }
    if !headers.contains(Known::ContentLength) {
        return Ok(BodyLength::Chunked);
    }
    let length = headers.only(Known::ContentLength);
    let length = length.ok_or(Error::ContentLengthRepeated)?;
    let digits = !length.is_empty() && length.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(length).ok().filter(|_| digits);
    let length = text.and_then(|text| text.parse().ok());
    Ok(BodyLength::Exact(length.ok_or(Error::ContentLength)?))
}

/// Takes a response that came by HTTP/2.
///
/// # Errors
/// When it breaks the rules: the client is answered 502.
pub(super) fn read_response(
    status: u16,
    fields: &Fields,
    ended: bool,
    head: &mut ResponseHead,
) -> Result<BodyLength, Fault> {
    head.clear();
    head.version = Version::Http2;
    head.status = Status::new(status).ok_or(Error::StatusLine)?;
    for (name, value) in fields.regular() {
        append(&mut head.headers, name, value)?;
    }
    Ok(body_length(&head.headers, ended)?)
}

/// Writes the fields of a block, other than those of the connection.
pub(super) fn write_fields<T: Default>(headers: &Headers, out: &mut HeadWriter<'_, T>) {
    for field in headers.iter() {
        let known = field.name.known();
        if is_of_the_connection(known) {
            continue;
        }
        let value = field.value.as_bytes();
        match known {
            Some(known) => {
                let name = known.as_str().as_bytes();
                out.field(name, value, policy(Some(known), name.len() + value.len()));
            }
            None => {
                let mut name: SmallVec<[u8; 64]> = SmallVec::from_slice(field.name.as_bytes());
                name.make_ascii_lowercase();
                out.field(&name, value, policy(None, name.len() + value.len()));
            }
        }
    }
}

/// Writes the one Content-Length that the message's framing says.
fn write_length<T: Default>(length: u64, out: &mut HeadWriter<'_, T>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut left = length;
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.field(b"content-length", &digits[at..], Policy::Once);
}

/// A request whose target can be said in HTTP/2.
pub(crate) struct Sayable<'h> {
    head: &'h RequestHead,
    authority: &'h [u8],
    path: SmallVec<[u8; 128]>,
}

/// `None` when its target cannot be said in HTTP/2.
pub(crate) fn sayable(head: &RequestHead) -> Option<Sayable<'_>> {
    let authority = head.headers.first(Known::Host)?;
    Authority::parse(authority).ok()?;
    let mut path = SmallVec::from_slice(head.target.path());
    if let Some(query) = head.target.query() {
        path.push(b'?');
        path.extend_from_slice(query);
    }
    (path.first() == Some(&b'/') || *path == *b"*").then_some(Sayable { head, authority, path })
}

/// Writes the request for an HTTP/2 backend.
pub(crate) fn write_request<T: Default>(
    request: &Sayable<'_>,
    body: BodyLength,
    https: bool,
    out: &mut HeadWriter<'_, T>,
) {
    let Sayable { head, authority, path } = request;
    let grpc = head
        .headers
        .first(Known::ContentType)
        .is_some_and(|kind| kind.starts_with(b"application/grpc"));
    out.field(b":method", head.method.as_bytes(), Policy::Index);
    out.field(b":scheme", if https { b"https" } else { b"http" }, Policy::Index);
    // Methods of gRPC are few; of other paths there is no end.
    out.field(b":path", path, if grpc { Policy::Index } else { Policy::Once });
    out.field(b":authority", authority, Policy::Index);
    write_fields(&head.headers, out);
    match body {
        BodyLength::Exact(length) => write_length(length, out),
        BodyLength::Empty if matches!(head.method, Method::Post | Method::Put | Method::Patch) => write_length(0, out),
        BodyLength::Empty | BodyLength::Chunked | BodyLength::UntilClose => {}
    }
}

/// Writes the response for an HTTP/2 client; `head_only` for one whose body must not follow.
pub(crate) fn write_response<T: Default>(
    head: &ResponseHead,
    body: BodyLength,
    head_only: bool,
    out: &mut HeadWriter<'_, T>,
) {
    let code = head.status.code();
    let digits = [100, 10, 1].map(|unit| b'0' + (code / unit % 10) as u8);
    out.field(b":status", &digits, Policy::Index);
    write_fields(&head.headers, out);
    match body {
        // What GET would have got.
        _ if head_only => {
            if let Some(length) = head.headers.only(Known::ContentLength)
                && code >= 200
                && code != 204
            {
                out.field(b"content-length", length, Policy::Once);
            }
        }
        BodyLength::Exact(length) => write_length(length, out),
        BodyLength::Empty | BodyLength::Chunked | BodyLength::UntilClose => {}
    }
}

#[cfg(test)]
mod tests {
    use pierhead_http2::{Config, Connection, Event, Role};

    use super::*;

    #[test]
    fn fields_keep_names_and_values_in_order_and_a_response_is_read_back() {
        let config = |role| Config {
            role,
            stream_window: 65_535,
            connection_window: 65_535,
            max_streams: 1,
            max_fields_bytes: 4096,
            connect_protocol: false,
        };
        let mut client = Connection::<()>::new(&config(Role::Client));
        let mut server = Connection::<()>::new(&config(Role::Server));
        let settings = server.output().to_vec();
        server.sent(settings.len());
        client.read(&settings).unwrap();
        let mut request = RequestHead::new();
        request.target.set(Method::Get, b"/a?b=c").unwrap();
        request.headers.append(Known::Host, Value::from_static("shop.example"));
        request
            .headers
            .append(Name::from_static("X-Own"), Value::from_static(""));
        request.headers.append(Known::Connection, Value::from_static("close"));
        request.headers.append(Known::Cookie, Value::from_static("a=1"));
        let stream = client.open((), false).unwrap();
        let mut out = client.head(stream).unwrap();
        write_request(
            &sayable(&request).unwrap(),
            BodyLength::Exact(1_234_567),
            true,
            &mut out,
        );
        out.finish(false);
        let input = client.output().to_vec();
        let mut at = 0;
        loop {
            let step = server.read(&input[at..]).unwrap();
            at += step.consumed;
            if step.event == Some(Event::Request { stream, end: false }) {
                break;
            }
        }
        let expected: &[(&[u8], &[u8])] = &[
            (b":method", b"GET"),
            (b":scheme", b"https"),
            (b":path", b"/a?b=c"),
            (b":authority", b"shop.example"),
            (b"x-own", b""),
            (b"cookie", b"a=1"),
            (b"content-length", b"1234567"),
        ];
        assert!(server.fields().all().eq(expected.iter().copied()));
        let mut head = RequestHead::new();
        let length = read_request(server.fields(), false, 10, &mut head).unwrap();
        assert_eq!(length, BodyLength::Exact(1_234_567));
        assert_eq!(
            (head.target.path(), head.target.query()),
            (&b"/a"[..], Some(&b"b=c"[..]))
        );
        assert_eq!(head.headers.only(Known::Host), Some(&b"shop.example"[..]));
    }

    #[test]
    fn what_identifies_a_user_is_a_secret_and_what_never_comes_again_is_not_kept() {
        assert_eq!(policy(Some(Known::Cookie), 10), Policy::Secret);
        assert_eq!(policy(Some(Known::Authorization), 10), Policy::Secret);
        assert_eq!(policy(Some(Known::XRequestId), 10), Policy::Once);
        assert_eq!(policy(Some(Known::ContentType), 10), Policy::Index);
        assert_eq!(policy(None, 10_000), Policy::Once);
    }
}
