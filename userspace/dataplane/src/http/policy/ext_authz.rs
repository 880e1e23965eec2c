//! The gRPC protocol of external authorization: `envoy.service.auth.v3.Authorization/Check`. Messages hold the fields we
//! write or obey; what else a service says (dynamic metadata, for one) is for other proxies.

use std::{borrow::Cow, collections::BTreeMap, net::SocketAddr, time::Duration};

use pierhead_http1::{Headers, Known, Method, Name, OwnedName, OwnedValue, RequestHead, Value, Version};
use prost::Message;

use super::external_auth::is_ours;

/// The method's path.
const PATH: &[u8] = b"/envoy.service.auth.v3.Authorization/Check";

/// Length of what stands before a message: a flag for compression and four bytes of length.
const PREFIX: usize = 5;

/// How a service is asked.
#[derive(Debug)]
pub(crate) struct Asking {
    /// Fields it is told; `None`: all.
    request: Option<Vec<OwnedName>>,
}

/// What a service is told besides the request's head.
pub(crate) struct About<'a> {
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
    pub(crate) https: bool,
    pub(crate) sni: Option<&'a str>,
    /// When the request came, since the epoch.
    pub(crate) time: Duration,
    /// Length of the body; `None`: not known.
    pub(crate) size: Option<u64>,
    pub(crate) body: &'a [u8],
}

/// What a service said.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    Allowed(Box<Allowed>),
    Denied(Box<Denied>),
}

/// What is to be done to a request that may pass.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Allowed {
    request: Vec<Change>,
    remove: Vec<OwnedName>,
    method: Option<Method>,
    /// With query.
    path: Option<Vec<u8>>,
    set_query: Vec<(String, String)>,
    remove_query: Vec<String>,
    /// For the answer to the client.
    pub(crate) response: Vec<Change>,
}

/// The answer to the client.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Denied {
    pub(crate) status: u16,
    pub(crate) headers: Vec<Change>,
    pub(crate) body: String,
}

/// A field to be added to those of its name, or to replace them.
#[derive(Debug, PartialEq)]
pub(crate) struct Change {
    name: OwnedName,
    value: OwnedValue,
    how: How,
}

/// `config.core.v3.HeaderValueOption.HeaderAppendAction`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Append,
    AddIfAbsent,
    Overwrite,
    OverwriteIfPresent,
}

/// Why an answer is none.
#[derive(Debug, thiserror::Error, PartialEq)]
pub(crate) enum Unusable {
    #[error("it is not framed as one gRPC message")]
    Framing,
    #[error("its message cannot be read: {0}")]
    Message(prost::DecodeError),
    #[error("it sets what cannot be written: {0}")]
    Change(String),
}

impl Change {
    pub(crate) fn apply(&self, headers: &mut Headers) {
        match self.how {
            How::AddIfAbsent if headers.contains(&self.name) => {}
            How::OverwriteIfPresent if !headers.contains(&self.name) => {}
            How::Append | How::AddIfAbsent => headers.append(&self.name, self.value.as_value()),
            How::Overwrite | How::OverwriteIfPresent => headers.set(&self.name, self.value.as_value()),
        }
    }
}

impl Asking {
    pub(crate) fn new(request: Option<Vec<OwnedName>>) -> Self {
        Self { request }
    }

    /// The head and the body of the request to the service. `authority` names the service, `limit` is how long it has.
    ///
    /// # Errors
    /// When `authority` is none.
    pub(crate) fn ask(
        &self,
        head: &RequestHead,
        about: &About<'_>,
        authority: &str,
        limit: Duration,
    ) -> Result<(RequestHead, Vec<u8>), pierhead_http1::InvalidValue> {
        let mut asking = RequestHead::new();
        asking.method = Method::Post;
        // The path is ours and right.
        let _ = asking.target.set_path_and_query(PATH, None);
        let headers = &mut asking.headers;
        headers.append(Known::Host, Value::new(authority.as_bytes())?);
        headers.append(Known::ContentType, Value::from_static("application/grpc"));
        headers.append(Known::Te, Value::from_static("trailers"));
        let timeout = format!("{}m", limit.as_millis().clamp(1, 99_999_999));
        headers.append(Known::GrpcTimeout, Value::new(timeout.as_bytes())?);
        Ok((asking, framed(&self.request(head, about))))
    }

    fn request(&self, head: &RequestHead, about: &About<'_>) -> CheckRequest {
        let path = match head.target.query() {
            Some(query) => [head.target.path(), b"?", query].concat(),
            None => head.target.path().to_vec(),
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let one = |name: Known| head.headers.first(name).map(text).unwrap_or_default();
        let scheme = if about.https { "https" } else { "http" };
        let mut headers = self.headers(&head.headers);
        if self.request.is_none() {
            for (name, value) in [
                (":method", head.method.as_str()),
                (":scheme", scheme),
                (":path", &text(&path)),
                (":authority", &one(Known::Host)),
            ] {
                headers.insert(name.to_owned(), value.to_owned());
            }
        }
        // A string must be text.
        let (body, raw_body) = match std::str::from_utf8(about.body) {
            Ok(body) => (body.to_owned(), Vec::new()),
            Err(_) => (String::new(), about.body.to_vec()),
        };
        let http = HttpRequest {
            id: one(Known::XRequestId),
            method: head.method.as_str().to_owned(),
            headers,
            path: text(&path),
            host: one(Known::Host),
            scheme: scheme.to_owned(),
            size: about.size.map_or(-1, |size| i64::try_from(size).unwrap_or(i64::MAX)),
            protocol: match head.version {
                Version::Http10 => "HTTP/1.0",
                Version::Http11 => "HTTP/1.1",
                Version::Http2 => "HTTP/2",
            }
            .to_owned(),
            body,
            raw_body,
        };
        CheckRequest {
            attributes: Some(AttributeContext {
                source: Some(Peer::new(about.peer)),
                destination: Some(Peer::new(about.local)),
                request: Some(Request {
                    time: Some(Timestamp {
                        seconds: i64::try_from(about.time.as_secs()).unwrap_or_default(),
                        nanos: i32::try_from(about.time.subsec_nanos()).unwrap_or_default(),
                    }),
                    http: Some(http),
                }),
                tls_session: about.sni.map(|sni| TlsSession { sni: sni.to_owned() }),
            }),
        }
    }

    /// "If multiple headers share the same key, they must be merged … All header keys must be lower-cased".
    fn headers(&self, headers: &Headers) -> BTreeMap<String, String> {
        let mut all: BTreeMap<String, String> = BTreeMap::new();
        for field in headers.iter() {
            let told = match &self.request {
                None => !is_ours(field.name) || field.name.known() == Some(Known::ContentLength),
                Some(list) => list.iter().any(|name| name.as_name() == field.name),
            };
            if !told {
                continue;
            }
            let name = String::from_utf8_lossy(field.name.as_bytes()).to_ascii_lowercase();
            let value = String::from_utf8_lossy(field.value.as_bytes());
            all.entry(name)
                .and_modify(|text| {
                    text.push(',');
                    text.push_str(&value);
                })
                .or_insert_with(|| value.clone().into_owned());
        }
        all
    }
}

/// Reads what a service answered.
///
/// # Errors
/// When it is no answer: that is no permission.
pub(crate) fn read(body: &[u8]) -> Result<Verdict, Unusable> {
    let (prefix, message) = body.split_at_checked(PREFIX).ok_or(Unusable::Framing)?;
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
    if prefix[0] != 0 || message.len() != length {
        return Err(Unusable::Framing);
    }
    let answer = CheckResponse::decode(message).map_err(Unusable::Message)?;
    // "Status `OK` allows the request. Any other status indicates the request should be denied." None at all is no OK.
    if answer.status.is_some_and(|status| status.code == 0) {
        Ok(Verdict::Allowed(Box::new(allowed(
            answer.ok_response.unwrap_or_default(),
        )?)))
    } else {
        Ok(Verdict::Denied(Box::new(denied(
            answer.denied_response.unwrap_or_default(),
        )?)))
    }
}

fn allowed(answer: OkHttpResponse) -> Result<Allowed, Unusable> {
    let mut allowed = Allowed::default();
    for option in answer.headers {
        let value = option.value();
        match option.name() {
            ":method" => {
                let method = Method::new(&value).ok().filter(|method| *method != Method::Connect);
                allowed.method = Some(method.ok_or_else(|| Unusable::Change(":method".to_owned()))?);
            }
            ":path" => allowed.path = Some(value.into_owned()),
            _ => allowed.request.extend(option.change()?),
        }
    }
    for option in answer.response_headers_to_add {
        allowed.response.extend(option.change()?);
    }
    // "If mentioned in `headers_to_remove` these special headers will be ignored."
    let names = answer
        .headers_to_remove
        .iter()
        .filter_map(|name| Name::new(name.as_bytes()).ok());
    allowed.remove = names
        .filter(|name| !is_ours(*name))
        .map(|name| name.to_owned())
        .collect();
    let pairs = answer.query_parameters_to_set.into_iter();
    allowed.set_query = pairs.map(|pair| (pair.key, pair.value)).collect();
    allowed.remove_query = answer.query_parameters_to_remove;
    Ok(allowed)
}

fn denied(answer: DeniedHttpResponse) -> Result<Denied, Unusable> {
    let status = answer.status.map_or(0, |status| status.code);
    let mut headers = Vec::new();
    for option in answer.headers {
        // There is nothing yet that could be replaced, and there may be several cookies.
        headers.extend(option.change()?.map(|change| Change {
            how: How::Append,
            ..change
        }));
    }
    Ok(Denied {
        status: u16::try_from(status)
            .ok()
            .filter(|status| (200..=599).contains(status))
            .unwrap_or(403),
        headers,
        body: answer.body,
    })
}

impl Allowed {
    /// Changes a request. Its path is to be normalised again.
    ///
    /// # Errors
    /// When the new target is none.
    pub(crate) fn apply(&self, head: &mut RequestHead) -> Result<(), pierhead_http1::Error> {
        for change in &self.request {
            change.apply(&mut head.headers);
        }
        for name in &self.remove {
            head.headers.remove(name);
        }
        if let Some(method) = self.method {
            head.method = method;
        }
        if let Some(target) = &self.path {
            let (path, query) = match target.iter().position(|b| *b == b'?') {
                Some(at) => (&target[..at], Some(&target[at + 1..])),
                None => (&target[..], None),
            };
            head.target.set_path_and_query(path, query)?;
        }
        if !self.set_query.is_empty() || !self.remove_query.is_empty() {
            let path = head.target.path().to_vec();
            let query = self.query(head.target.query().unwrap_or_default());
            let query = (!query.is_empty()).then_some(query);
            head.target.set_path_and_query(&path, query.as_deref())?;
        }
        Ok(())
    }

    fn query(&self, old: &[u8]) -> Vec<u8> {
        let gone = |name: &[u8]| {
            let set = self.set_query.iter().any(|(key, _)| key.as_bytes() == name);
            set || self.remove_query.iter().any(|key| key.as_bytes() == name)
        };
        let kept = old.split(|b| *b == b'&').filter(|pair| {
            let name = pair.split(|b| *b == b'=').next().unwrap_or_default();
            !pair.is_empty() && !gone(name)
        });
        let mut parts: Vec<Vec<u8>> = kept.map(<[u8]>::to_vec).collect();
        parts.extend(
            self.set_query
                .iter()
                .map(|(key, value)| format!("{}={}", encoded(key), encoded(value)).into_bytes()),
        );
        parts.join(&b'&')
    }
}

/// What is not unreserved (RFC 3986 §2.3) as an escape.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn framed(message: &CheckRequest) -> Vec<u8> {
    let length = message.encoded_len();
    let mut out = Vec::with_capacity(PREFIX + length);
    out.push(0);
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    // A vector grows.
    let _ = message.encode(&mut out);
    out
}

#[derive(Clone, PartialEq, Message)]
struct CheckRequest {
    #[prost(message, optional, tag = "1")]
    attributes: Option<AttributeContext>,
}

#[derive(Clone, PartialEq, Message)]
struct AttributeContext {
    #[prost(message, optional, tag = "1")]
    source: Option<Peer>,
    #[prost(message, optional, tag = "2")]
    destination: Option<Peer>,
    #[prost(message, optional, tag = "4")]
    request: Option<Request>,
    #[prost(message, optional, tag = "12")]
    tls_session: Option<TlsSession>,
}

#[derive(Clone, PartialEq, Message)]
struct Peer {
    #[prost(message, optional, tag = "1")]
    address: Option<Address>,
}

#[derive(Clone, PartialEq, Message)]
struct Address {
    #[prost(message, optional, tag = "1")]
    socket_address: Option<SocketAddressMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct SocketAddressMessage {
    #[prost(string, tag = "2")]
    address: String,
    #[prost(uint32, tag = "3")]
    port_value: u32,
}

impl Peer {
    fn new(address: SocketAddr) -> Self {
        Self {
            address: Some(Address {
                socket_address: Some(SocketAddressMessage {
                    address: address.ip().to_canonical().to_string(),
                    port_value: address.port().into(),
                }),
            }),
        }
    }
}

#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(message, optional, tag = "1")]
    time: Option<Timestamp>,
    #[prost(message, optional, tag = "2")]
    http: Option<HttpRequest>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Timestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[derive(Clone, PartialEq, Message)]
struct HttpRequest {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    method: String,
    #[prost(btree_map = "string, string", tag = "3")]
    headers: BTreeMap<String, String>,
    #[prost(string, tag = "4")]
    path: String,
    #[prost(string, tag = "5")]
    host: String,
    #[prost(string, tag = "6")]
    scheme: String,
    #[prost(int64, tag = "9")]
    size: i64,
    #[prost(string, tag = "10")]
    protocol: String,
    #[prost(string, tag = "11")]
    body: String,
    #[prost(bytes = "vec", tag = "12")]
    raw_body: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct TlsSession {
    #[prost(string, tag = "1")]
    sni: String,
}

#[derive(Clone, PartialEq, Message)]
struct CheckResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<RpcStatus>,
    #[prost(message, optional, tag = "2")]
    denied_response: Option<DeniedHttpResponse>,
    #[prost(message, optional, tag = "3")]
    ok_response: Option<OkHttpResponse>,
}

#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct DeniedHttpResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<HttpStatus>,
    #[prost(message, repeated, tag = "2")]
    headers: Vec<HeaderValueOption>,
    #[prost(string, tag = "3")]
    body: String,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct HttpStatus {
    #[prost(int32, tag = "1")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct OkHttpResponse {
    #[prost(message, repeated, tag = "2")]
    headers: Vec<HeaderValueOption>,
    #[prost(string, repeated, tag = "5")]
    headers_to_remove: Vec<String>,
    #[prost(message, repeated, tag = "6")]
    response_headers_to_add: Vec<HeaderValueOption>,
    #[prost(message, repeated, tag = "7")]
    query_parameters_to_set: Vec<QueryParameter>,
    #[prost(string, repeated, tag = "8")]
    query_parameters_to_remove: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct QueryParameter {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct HeaderValueOption {
    #[prost(message, optional, tag = "1")]
    header: Option<HeaderValue>,
    #[prost(message, optional, tag = "2")]
    append: Option<BoolValue>,
    #[prost(int32, tag = "3")]
    append_action: i32,
}

#[derive(Clone, PartialEq, Message)]
struct HeaderValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
    #[prost(bytes = "vec", tag = "3")]
    raw_value: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct BoolValue {
    #[prost(bool, tag = "1")]
    value: bool,
}

impl HeaderValueOption {
    fn name(&self) -> &str {
        self.header.as_ref().map_or("", |header| header.key.as_str())
    }

    fn value(&self) -> Cow<'_, [u8]> {
        let Some(header) = &self.header else {
            return Cow::Borrowed(b"");
        };
        if header.value.is_empty() {
            Cow::Borrowed(&header.raw_value)
        } else {
            Cow::Borrowed(header.value.as_bytes())
        }
    }

    /// `None` for a field that is ours to write. "`append` … defaults to false when used in this message."
    fn change(&self) -> Result<Option<Change>, Unusable> {
        let bad = || Unusable::Change(self.name().to_owned());
        if self.name().starts_with(':') {
            return Ok(None);
        }
        let name = Name::new(self.name().as_bytes()).map_err(|_| bad())?;
        if is_ours(name) {
            return Ok(None);
        }
        let value = self.value();
        let how = match (self.append, self.append_action) {
            (Some(BoolValue { value: true }), _) => How::Append,
            (Some(BoolValue { value: false }), _) | (None, 0 | 2) => How::Overwrite,
            (None, 1) => How::AddIfAbsent,
            (None, 3) => How::OverwriteIfPresent,
            (None, _) => return Err(bad()),
        };
        Ok(Some(Change {
            name: name.to_owned(),
            value: Value::trimmed(&value).map_err(|_| bad())?.to_owned(),
            how,
        }))
    }
}
