//! External authorization (HTTPRoute `ExternalAuth`, GEP-1494; listener filters, GEP-5224): what an authorization service
//! is told of a request, and what its answer does to the request.
//!
//! Whatever is sent is made here, field by field: nothing of the connection and no framing of the client's gets there, and
//! nothing of the kind comes back into the request.

use std::sync::Arc;

use pierhead_http1::{Headers, Known, Name, OwnedName, RequestHead, Value, strip_hop_by_hop};
use pierhead_model::{ExternalAuthFilter, ExternalAuthProtocol, HeaderName};

use super::ext_authz;
use crate::upstream::{Backend, Backends};

/// An authorization service, and how it is asked.
#[derive(Debug)]
pub(crate) struct ExternalAuth {
    model: ExternalAuthFilter,
    /// `None`: not in the snapshot; nothing passes.
    pub(crate) backend: Option<Arc<Backend>>,
    pub(crate) protocol: Protocol,
}

#[derive(Debug)]
pub(crate) enum Protocol {
    Http(HttpAuth),
    Grpc(ext_authz::Asking),
}

/// The request itself, to another place.
#[derive(Debug)]
pub(crate) struct HttpAuth {
    prefix: Box<[u8]>,
    request: Vec<OwnedName>,
    /// Empty: all.
    response: Vec<OwnedName>,
    all: bool,
}

impl ExternalAuth {
    pub(crate) fn compile(model: &ExternalAuthFilter, backends: &Backends) -> Self {
        let protocol = match &model.protocol {
            ExternalAuthProtocol::Http {
                path_prefix,
                request_headers,
                response_headers,
            } => Protocol::Http(HttpAuth {
                prefix: path_prefix.as_bytes().into(),
                request: names(request_headers),
                response: names(response_headers),
                all: response_headers.is_empty(),
            }),
            ExternalAuthProtocol::Grpc { request_headers } => Protocol::Grpc(ext_authz::Asking::new(
                (!request_headers.is_empty()).then(|| names(request_headers)),
            )),
        };
        Self {
            model: model.clone(),
            backend: backends.find(&model.backend).cloned(),
            protocol,
        }
    }

    /// Whether compiling again with `backends` would give the same.
    pub(crate) fn is_current(&self, backends: &Backends) -> bool {
        match (&self.backend, backends.find(&self.model.backend)) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }

    /// Most of a request's body that is sent along; zero: none.
    pub(crate) fn body_bytes(&self) -> usize {
        self.model.body_bytes as usize
    }
}

/// Names that may be listed. Those of framing and of the connection say nothing about another message.
fn names(models: &[HeaderName]) -> Vec<OwnedName> {
    let names = models
        .iter()
        .filter_map(|model| Name::new(model.as_str().as_bytes()).ok());
    names
        .filter(|name| !is_ours(*name))
        .map(|name| name.to_owned())
        .collect()
}

/// Fields that an authorization service neither learns nor changes: those of the connection, of framing, and the host,
/// which decided already whose request this is.
pub(crate) fn is_ours(name: Name<'_>) -> bool {
    matches!(
        name.known(),
        Some(
            Known::Connection
                | Known::ContentLength
                | Known::Expect
                | Known::Host
                | Known::Http2Settings
                | Known::KeepAlive
                | Known::ProxyAuthenticate
                | Known::ProxyAuthenticationInfo
                | Known::ProxyAuthorization
                | Known::ProxyConnection
                | Known::Te
                | Known::Trailer
                | Known::TransferEncoding
                | Known::Upgrade
        )
    )
}

/// Fields about the content of the service's own answer. "All headers" of it are copied, but these would be untrue of the
/// request; whoever wants one of them lists it.
fn is_about_content(name: Name<'_>) -> bool {
    let about = matches!(
        name.known(),
        Some(
            Known::ContentEncoding
                | Known::ContentLanguage
                | Known::ContentLocation
                | Known::ContentRange
                | Known::ContentType
        )
    );
    about || name.as_bytes().eq_ignore_ascii_case(b"authority")
}

impl HttpAuth {
    /// Makes the request to the service. "The following headers must always be sent": Host, method, path, Content-Length
    /// (by the codec) and Authorization.
    ///
    /// # Errors
    /// When its target cannot be said.
    pub(crate) fn ask(&self, head: &RequestHead) -> Result<RequestHead, pierhead_http1::Error> {
        let mut asking = RequestHead::new();
        asking.method = head.method;
        let mut path = self.prefix.to_vec();
        match head.target.path() {
            rooted @ [b'/', ..] => path.extend_from_slice(rooted),
            // `OPTIONS *`
            _ => path.push(b'/'),
        }
        asking.target.set_path_and_query(&path, head.target.query())?;
        let always = [Name::from(Known::Host), Name::from(Known::Authorization)];
        let listed = self.request.iter().map(OwnedName::as_name);
        for name in always.into_iter().chain(listed.filter(|name| !always.contains(name))) {
            copy(&head.headers, name, &mut asking.headers);
        }
        Ok(asking)
    }

    /// Takes over from the service's yes. What is taken replaces what the client sent by that name; what is listed and not
    /// in the answer is removed, so that no client can say itself what only the service may.
    pub(crate) fn take(&self, answer: &mut Headers, headers: &mut Headers) {
        strip_hop_by_hop(answer);
        if !self.all {
            for name in &self.response {
                headers.remove(name);
                copy(answer, name.as_name(), headers);
            }
            return;
        }
        answer.retain(|field| !is_ours(field.name) && !is_about_content(field.name));
        for field in answer.iter() {
            headers.remove(field.name);
        }
        headers.append_all(answer);
    }
}

fn copy(from: &Headers, name: Name<'_>, to: &mut Headers) {
    for value in from.all(name) {
        if let Ok(value) = Value::new(value) {
            to.append(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use pierhead_http1::Method;
    use pierhead_model::BackendId;

    use super::*;

    fn auth(prefix: &str, request: &[&str], response: &[&str]) -> HttpAuth {
        let names = |list: &[&str]| list.iter().map(|n| HeaderName::parse(n).unwrap()).collect();
        let model = ExternalAuthFilter {
            backend: BackendId::new("x"),
            protocol: ExternalAuthProtocol::Http {
                path_prefix: prefix.into(),
                request_headers: names(request),
                response_headers: names(response),
            },
            body_bytes: 0,
        };
        match ExternalAuth::compile(&model, &Backends::default()).protocol {
            Protocol::Http(auth) => auth,
            Protocol::Grpc(_) => unreachable!(),
        }
    }

    fn headers(lines: &[(&str, &str)]) -> Headers {
        let mut headers = Headers::new();
        for (name, value) in lines {
            headers.append(
                Name::new(name.as_bytes()).unwrap(),
                Value::new(value.as_bytes()).unwrap(),
            );
        }
        headers
    }

    fn request(target: &str, lines: &[(&str, &str)]) -> RequestHead {
        let mut head = RequestHead::new();
        head.method = Method::Put;
        head.target.set(Method::Put, target.as_bytes()).unwrap();
        head.headers = headers(lines);
        head
    }

    #[test]
    fn only_what_is_listed_is_sent_and_never_framing() {
        let head = request(
            "/a/b?c=d",
            &[
                ("Host", "shop.example"),
                ("Authorization", "Basic x"),
                ("Cookie", "a"),
                ("X-Extra", "1"),
                ("x-extra", "2"),
                ("Content-Length", "5"),
                ("Transfer-Encoding", "chunked"),
            ],
        );
        let list = [
            "X-EXTRA",
            "authorization",
            "Content-Length",
            "Transfer-Encoding",
            "Host",
        ];
        let asked = auth("/check", &list, &[]).ask(&head).unwrap();
        assert_eq!(asked.method, Method::Put);
        assert_eq!(asked.target.as_bytes(), b"/check/a/b?c=d");
        let expected = headers(&[
            ("Host", "shop.example"),
            ("Authorization", "Basic x"),
            ("X-Extra", "1"),
            ("X-Extra", "2"),
        ]);
        assert_eq!(asked.headers, expected);
        assert_eq!(auth("", &[], &[]).ask(&head).unwrap().target.as_bytes(), b"/a/b?c=d");
    }

    #[test]
    fn what_is_listed_comes_from_the_answer_or_from_nobody() {
        let mut own = headers(&[("X-User", "root"), ("X-Role", "admin"), ("X-Other", "1")]);
        let mut answer = headers(&[("x-user", "guest"), ("X-Else", "2"), ("Content-Length", "0")]);
        auth("", &[], &["X-User", "X-Role", "Content-Length"]).take(&mut answer, &mut own);
        assert_eq!(own, headers(&[("X-Other", "1"), ("x-user", "guest")]));
    }

    #[test]
    fn without_a_list_all_is_copied_but_host_framing_and_what_is_about_content() {
        let mut own = headers(&[("Host", "a"), ("X-User", "root"), ("Content-Type", "text/csv")]);
        let mut answer = headers(&[
            ("Host", "evil"),
            ("Authority", "evil"),
            ("X-User", "guest"),
            ("X-User", "staff"),
            ("Connection", "close, x-hop"),
            ("X-Hop", "1"),
            ("Content-Type", "text/html"),
            ("Content-Length", "7"),
            ("Transfer-Encoding", "chunked"),
            ("Upgrade", "h2c"),
        ]);
        auth("", &[], &[]).take(&mut answer, &mut own);
        let expected = headers(&[
            ("Host", "a"),
            ("Content-Type", "text/csv"),
            ("X-User", "guest"),
            ("X-User", "staff"),
        ]);
        assert_eq!(own, expected);
    }
}
