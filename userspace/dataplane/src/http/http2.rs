//! HTTP/2 messages as the pipeline sees them: heads become flat header blocks, streams become sources and sinks.
//!
//! `h2` is used directly, below hyper: hyper stops polling a body while the peer's window is closed, so a stalled stream
//! could never time out, and it sends no interim responses.

use std::{
    sync::LazyLock,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, Method as HttpMethod, StatusCode, Uri, uri};
use pierhead_http1::{
    BodyLength, Headers, Known, Method, Name, RequestHead, ResponseHead, Status, Value, Version, encode,
};

use super::body::{Fault, Front, Sink, Source};

/// Reads a body from a stream.
pub(crate) struct StreamReader {
    recv: RecvStream,
    front: Bytes,
    ended: bool,
    trailers: Option<Headers>,
}

impl StreamReader {
    pub(crate) fn new(recv: RecvStream) -> Self {
        Self {
            recv,
            front: Bytes::new(),
            ended: false,
            trailers: None,
        }
    }

    fn release(&mut self, count: usize) {
        // Fails only for a stream that is gone, whose window matters no more.
        let _ = self.recv.flow_control().release_capacity(count);
    }
}

impl Source for StreamReader {
    fn poll_front(&mut self, cx: &mut Context<'_>) -> Poll<Result<Front, Fault>> {
        loop {
            if !self.front.is_empty() {
                return Poll::Ready(Ok(Front::Data));
            }
            if self.ended {
                return Poll::Ready(Ok(Front::End));
            }
            match ready!(self.recv.poll_data(cx)) {
                Some(data) => self.front = data?,
                None => {
                    let trailers = ready!(self.recv.poll_trailers(cx))?;
                    self.trailers = trailers.map(|map| trailers_of(&map));
                    self.ended = true;
                }
            }
        }
    }

    fn data(&self) -> &[u8] {
        &self.front
    }

    fn consume(&mut self, count: usize) {
        self.front.advance(count);
        self.release(count);
    }

    fn take(&mut self, count: usize) -> Bytes {
        let taken = self.front.split_to(count);
        self.release(count);
        taken
    }

    fn trailers(&self) -> Option<&Headers> {
        self.trailers.as_ref()
    }
}

/// Most data asked of a peer's window at once: what one stream can make us hold.
const CHUNK: usize = 64 * 1024;

/// Writes a body to a stream.
pub(crate) struct StreamWriter {
    /// `None` once the end was sent.
    send: Option<SendStream<Bytes>>,
}

impl StreamWriter {
    pub(crate) fn new(send: SendStream<Bytes>) -> Self {
        Self { send: Some(send) }
    }

    /// For a message whose head ended the stream.
    pub(crate) fn ended() -> Self {
        Self { send: None }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.send.is_none()
    }

    pub(crate) fn reset(&mut self, reason: h2::Reason) {
        if let Some(mut send) = self.send.take() {
            send.send_reset(reason);
        }
    }

    /// Ready when the peer has given the stream up.
    pub(crate) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.send {
            Some(send) => send.poll_reset(cx).map(drop),
            None => Poll::Pending,
        }
    }
}

impl Sink for StreamWriter {
    fn poll_take(&mut self, cx: &mut Context<'_>, from: &mut impl Source) -> Poll<Result<(), Fault>> {
        let wanted = from.data().len().min(CHUNK);
        let Some(send) = &mut self.send else {
            // The head ended the stream: an answer to HEAD, for one.
            from.consume(wanted);
            return Poll::Ready(Ok(()));
        };
        send.reserve_capacity(wanted);
        while send.capacity() == 0 {
            match ready!(send.poll_capacity(cx)) {
                Some(capacity) => drop(capacity?),
                None => return Poll::Ready(Err(Fault::Cut)),
            }
        }
        let count = wanted.min(send.capacity());
        send.send_data(from.take(count), false)?;
        Poll::Ready(Ok(()))
    }

    fn finish(&mut self, trailers: Option<&Headers>) -> Result<(), Fault> {
        let Some(mut send) = self.send.take() else {
            return Ok(());
        };
        match trailers {
            Some(trailers) => send.send_trailers(map_of(trailers))?,
            None => send.send_data(Bytes::new(), true)?,
        }
        Ok(())
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        // The connection's own task writes.
        Poll::Ready(Ok(()))
    }
}

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

/// Fields that have another value in each request, or for each client. The connection's table of fields that were sent before
/// holds some fifty of them: one that never comes again drives out those that do, and is compared with all its predecessors.
fn is_never_the_same(known: Option<Known>) -> bool {
    matches!(
        known,
        Some(
            Known::Baggage
                | Known::Forwarded
                | Known::GrpcTimeout
                | Known::Traceparent
                | Known::Tracestate
                | Known::XForwardedFor
                | Known::XRealIp
                | Known::XRequestId
        )
    )
}

/// The known names, by their number.
static NAMES: LazyLock<Box<[HeaderName]>> = LazyLock::new(|| {
    let names = Known::ALL.iter().map(|known| HeaderName::from_static(known.as_str()));
    names.collect()
});

fn name_of(name: Name<'_>) -> Option<HeaderName> {
    match name.known() {
        Some(known) => NAMES.get(known as usize).cloned(),
        None => HeaderName::from_bytes(name.as_bytes()).ok(),
    }
}

/// All values in one allocation of bytes, of which each is a slice.
fn map_of(headers: &Headers) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(headers.len() + 1);
    let fields = || headers.iter().filter(|field| !is_of_the_connection(field.name.known()));
    let mut text = Vec::with_capacity(fields().map(|field| field.value.as_bytes().len()).sum());
    for field in fields() {
        text.extend_from_slice(field.value.as_bytes());
    }
    let mut text = Bytes::from(text);
    for field in fields() {
        let value = text.split_to(field.value.as_bytes().len());
        // Both were checked by stricter rules when they entered the block.
        if let (Some(name), Ok(mut value)) = (name_of(field.name), HeaderValue::from_maybe_shared(value)) {
            value.set_sensitive(is_never_the_same(field.name.known()));
            map.append(name, value);
        }
    }
    map
}

fn append(headers: &mut Headers, name: &HeaderName, value: &HeaderValue) -> Result<(), Unreadable> {
    let name = Name::new(name.as_str().as_bytes()).map_err(|_| Unreadable)?;
    let value = Value::trimmed(value.as_bytes()).map_err(|_| Unreadable)?;
    headers.append(name, value);
    Ok(())
}

fn trailers_of(map: &HeaderMap) -> Headers {
    let mut headers = Headers::new();
    for (name, value) in map {
        // A field that cannot be read is not worth the message it ends.
        let _ = append(&mut headers, name, value);
    }
    encode::strip_trailers(&mut headers);
    headers
}

/// A head that breaks the rules of HTTP; the stream is answered 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable;

/// Takes a request that came by HTTP/2. `max_fields` counts cookie crumbs one each.
///
/// # Errors
/// When the client must be answered 400 (431 for too many fields).
pub(crate) fn read_request(
    parts: &http::request::Parts,
    ended: bool,
    max_fields: usize,
    head: &mut RequestHead,
) -> Result<BodyLength, Status> {
    let bad = pierhead_http1::Error::Target;
    head.clear();
    head.version = Version::Http2;
    head.method = Method::new(parts.method.as_str().as_bytes()).map_err(Status::from)?;
    if parts.headers.len() > max_fields {
        return Err(pierhead_http1::Error::TooManyFields.into());
    }
    let target = parts.uri.path_and_query().map_or("/", uri::PathAndQuery::as_str);
    // An extended CONNECT has a path like any other request (RFC 8441 §4).
    let method = if head.method == Method::Connect {
        Method::Get
    } else {
        head.method
    };
    let text = if method == Method::Options && target == "*" {
        b"*"
    } else {
        target.as_bytes()
    };
    head.target.set(method, text).map_err(|_| Status::from(bad))?;

    let host = parts.headers.get(http::header::HOST);
    let authority = parts.uri.authority().map(uri::Authority::as_str);
    match (authority, host) {
        // RFC 9113 §8.3.1: they must not disagree.
        (Some(authority), Some(host)) if !host.as_bytes().eq_ignore_ascii_case(authority.as_bytes()) => {
            return Err(pierhead_http1::Error::Host.into());
        }
        _ => {}
    }
    let host = authority.map(str::as_bytes).or_else(|| host.map(HeaderValue::as_bytes));
    let host = host.ok_or(pierhead_http1::Error::HostMissing)?;
    if parts.headers.get_all(http::header::HOST).iter().count() > 1 {
        return Err(pierhead_http1::Error::HostRepeated.into());
    }
    pierhead_http1::Authority::parse(host).map_err(Status::from)?;
    head.headers
        .append(Known::Host, Value::new(host).map_err(|_| pierhead_http1::Error::Host)?);

    let mut cookies: Vec<u8> = Vec::new();
    for (name, value) in &parts.headers {
        match *name {
            http::header::HOST => {}
            // Crumbs are joined for whoever speaks HTTP/1 (RFC 9113 §8.2.3).
            http::header::COOKIE => {
                if !cookies.is_empty() {
                    cookies.extend_from_slice(b"; ");
                }
                cookies.extend_from_slice(value.as_bytes());
            }
            _ => append(&mut head.headers, name, value).map_err(|_| pierhead_http1::Error::FieldValue)?,
        }
    }
    if !cookies.is_empty() {
        let cookies = Value::trimmed(&cookies).map_err(|_| pierhead_http1::Error::FieldValue)?;
        head.headers.append(Known::Cookie, cookies);
    }
    body_length(&head.headers, ended).map_err(Status::from)
}

/// h2 itself holds the data to a Content-Length.
fn body_length(headers: &Headers, ended: bool) -> Result<BodyLength, pierhead_http1::Error> {
    if ended {
        return Ok(BodyLength::Empty);
    }
    if !headers.contains(Known::ContentLength) {
        return Ok(BodyLength::Chunked);
    }
    let length = headers.only(Known::ContentLength);
    let length = length.ok_or(pierhead_http1::Error::ContentLengthRepeated)?;
    let digits = !length.is_empty() && length.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(length).ok().filter(|_| digits);
    let length = text.and_then(|text| text.parse().ok());
    Ok(BodyLength::Exact(length.ok_or(pierhead_http1::Error::ContentLength)?))
}

/// Takes a response that came by HTTP/2.
///
/// # Errors
/// When it breaks the rules: the client is answered 502.
pub(crate) fn read_response(
    status: StatusCode,
    headers: &HeaderMap,
    ended: bool,
    head: &mut ResponseHead,
) -> Result<BodyLength, Fault> {
    head.clear();
    head.version = Version::Http2;
    head.status = Status::new(status.as_u16()).ok_or(pierhead_http1::Error::StatusLine)?;
    for (name, value) in headers {
        append(&mut head.headers, name, value).map_err(|_| pierhead_http1::Error::FieldValue)?;
    }
    Ok(body_length(&head.headers, ended)?)
}

/// Adds the one Content-Length that the message's framing says.
fn state_length(map: &mut HeaderMap, length: u64) {
    map.insert(http::header::CONTENT_LENGTH, HeaderValue::from(length));
}

/// The request for an HTTP/2 backend; `None` when its target cannot be said there.
pub(crate) fn write_request(head: &RequestHead, body: BodyLength, https: bool) -> Option<http::Request<()>> {
    let target = match head.target.query() {
        Some(query) => {
            let path = head.target.path();
            let mut target = Vec::with_capacity(path.len() + 1 + query.len());
            target.extend_from_slice(path);
            target.push(b'?');
            target.extend_from_slice(query);
            Bytes::from(target)
        }
        None => Bytes::copy_from_slice(head.target.path()),
    };
    let authority = Bytes::copy_from_slice(head.headers.first(Known::Host)?);
    let uri = Uri::builder()
        .scheme(if https { uri::Scheme::HTTPS } else { uri::Scheme::HTTP })
        .authority(uri::Authority::from_maybe_shared(authority).ok()?)
        .path_and_query(uri::PathAndQuery::from_maybe_shared(target).ok()?)
        .build()
        .ok()?;
    let mut request = http::Request::new(());
    *request.version_mut() = http::Version::HTTP_2;
    *request.method_mut() = HttpMethod::from_bytes(head.method.as_bytes()).ok()?;
    *request.uri_mut() = uri;
    *request.headers_mut() = map_of(&head.headers);
    match body {
        BodyLength::Exact(length) => state_length(request.headers_mut(), length),
        BodyLength::Empty if matches!(head.method, Method::Post | Method::Put | Method::Patch) => {
            state_length(request.headers_mut(), 0);
        }
        BodyLength::Empty | BodyLength::Chunked | BodyLength::UntilClose => {}
    }
    Some(request)
}

/// The response for an HTTP/2 client; `head_only` for one whose body must not follow.
pub(crate) fn write_response(head: &ResponseHead, body: BodyLength, head_only: bool) -> http::Response<()> {
    let mut response = http::Response::new(());
    *response.version_mut() = http::Version::HTTP_2;
    *response.status_mut() = StatusCode::from_u16(head.status.code()).unwrap_or(StatusCode::BAD_GATEWAY);
    *response.headers_mut() = map_of(&head.headers);
    match body {
        // What GET would have got.
        _ if head_only => {
            if let Some(length) = head.headers.only(Known::ContentLength)
                && head.status.code() >= 200
                && head.status.code() != 204
                && let Ok(length) = HeaderValue::from_bytes(length)
            {
                response.headers_mut().insert(http::header::CONTENT_LENGTH, length);
            }
        }
        BodyLength::Exact(length) => state_length(response.headers_mut(), length),
        BodyLength::Empty | BodyLength::Chunked | BodyLength::UntilClose => {}
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_keep_names_and_values_and_what_never_comes_again_is_marked() {
        let mut headers = Headers::new();
        let fields = [
            ("Accept", "text/html"),
            ("x-request-id", "0123"),
            ("Connection", "close"),
            ("X-Own", ""),
            ("accept", "*/*"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-proto", "https"),
        ];
        for (name, value) in fields {
            let value = Value::new(value.as_bytes()).unwrap();
            headers.append(Name::new(name.as_bytes()).unwrap(), value);
        }
        let map = map_of(&headers);
        let mut found: Vec<_> = map
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap(), value.is_sensitive()))
            .collect();
        found.sort_unstable();
        let expected = [
            ("accept", "*/*", false),
            ("accept", "text/html", false),
            ("x-forwarded-for", "192.0.2.1", true),
            ("x-forwarded-proto", "https", false),
            ("x-own", "", false),
            ("x-request-id", "0123", true),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn known_names_are_found_by_their_number() {
        for known in Known::ALL {
            assert_eq!(name_of((*known).into()).unwrap().as_str(), known.as_str());
        }
    }
}
