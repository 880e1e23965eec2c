//! Redirects: the `Location` that a client is sent to (HTTPRoute `RequestRedirect`).

use pierhead_http1::{Authority, Known, RequestHead};
use pierhead_model::{PathMatch, RedirectFilter, RedirectPort};

use super::rewrite;

/// What a redirect must know besides the request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) https: bool,
    /// The port the listener was given by its author.
    pub(crate) port: u16,
    pub(crate) found: &'a PathMatch,
}

/// `scheme://host[:port]/path[?query]`. The port is left out when the scheme implies it.
pub(crate) fn location(filter: &RedirectFilter, head: &RequestHead, place: Place<'_>) -> Vec<u8> {
    let scheme = filter
        .scheme
        .as_deref()
        .unwrap_or(if place.https { "https" } else { "http" });
    let well_known = if scheme.eq_ignore_ascii_case("https") { 443 } else { 80 };
    // Explicit > the scheme's own when the filter sets one > the listener's.
    let port = match filter.port {
        RedirectPort::Explicit(port) => port,
        RedirectPort::Derived if filter.scheme.is_some() => well_known,
        RedirectPort::Derived => place.port,
    };
    let mut out = Vec::with_capacity(128);
    out.extend_from_slice(scheme.as_bytes());
    out.extend_from_slice(b"://");
    match &filter.host {
        Some(host) if host.as_str().contains(':') => {
            out.push(b'[');
            out.extend_from_slice(host.as_str().as_bytes());
            out.push(b']');
        }
        Some(host) => out.extend_from_slice(host.as_str().as_bytes()),
        None => {
            let asked = head.headers.first(Known::Host).map(Authority::parse);
            out.extend_from_slice(asked.and_then(Result::ok).map_or(&b""[..], |authority| authority.host));
        }
    }
    if port != well_known {
        out.push(b':');
        out.extend_from_slice(port.to_string().as_bytes());
    }
    match &filter.path {
        Some(path) => out.extend_from_slice(&rewrite::path(path, place.found, head.target.path())),
        None => out.extend_from_slice(head.target.path()),
    }
    if let Some(query) = head.target.query() {
        out.push(b'?');
        out.extend_from_slice(query);
    }
    out
}

#[cfg(test)]
mod tests {
    use pierhead_http1::{Method, Value};
    use pierhead_model::{Hostname, PathRewrite};

    use super::*;

    struct Case {
        scheme: Option<&'static str>,
        host: Option<&'static str>,
        port: RedirectPort,
        path: Option<PathRewrite>,
        https: bool,
        listener_port: u16,
        expected: &'static str,
    }

    const PLAIN: Case = Case {
        scheme: None,
        host: None,
        port: RedirectPort::Derived,
        path: None,
        https: false,
        listener_port: 80,
        expected: "",
    };

    #[test]
    fn each_part_follows_its_rule() {
        for case in [
            Case {
                expected: "http://shop.example/a/b?c=d",
                ..PLAIN
            },
            Case {
                host: Some("other.example"),
                expected: "http://other.example/a/b?c=d",
                ..PLAIN
            },
            // The listener's port, when the scheme is not set.
            Case {
                listener_port: 8080,
                expected: "http://shop.example:8080/a/b?c=d",
                ..PLAIN
            },
            // The scheme's own port, when it is.
            Case {
                scheme: Some("https"),
                listener_port: 8080,
                expected: "https://shop.example/a/b?c=d",
                ..PLAIN
            },
            Case {
                scheme: Some("http"),
                https: true,
                listener_port: 443,
                expected: "http://shop.example/a/b?c=d",
                ..PLAIN
            },
            Case {
                https: true,
                listener_port: 443,
                expected: "https://shop.example/a/b?c=d",
                ..PLAIN
            },
            Case {
                https: true,
                listener_port: 80,
                expected: "https://shop.example:80/a/b?c=d",
                ..PLAIN
            },
            Case {
                port: RedirectPort::Explicit(8083),
                expected: "http://shop.example:8083/a/b?c=d",
                ..PLAIN
            },
            Case {
                port: RedirectPort::Explicit(80),
                listener_port: 8080,
                expected: "http://shop.example/a/b?c=d",
                ..PLAIN
            },
            Case {
                scheme: Some("https"),
                port: RedirectPort::Explicit(443),
                expected: "https://shop.example/a/b?c=d",
                ..PLAIN
            },
            Case {
                path: Some(PathRewrite::Full("/full".into())),
                expected: "http://shop.example/full?c=d",
                ..PLAIN
            },
            Case {
                path: Some(PathRewrite::Prefix("/new".into())),
                expected: "http://shop.example/new/b?c=d",
                ..PLAIN
            },
        ] {
            let filter = RedirectFilter {
                scheme: case.scheme.map(Into::into),
                host: case.host.map(|host| Hostname::parse(host).unwrap()),
                port: case.port,
                path: case.path,
                status: 302,
            };
            let mut head = RequestHead::new();
            head.target.set(Method::Get, b"/a/b?c=d").unwrap();
            head.headers
                .append(Known::Host, Value::from_static("shop.example:1234"));
            let place = Place {
                https: case.https,
                port: case.listener_port,
                found: &PathMatch::Prefix("/a".into()),
            };
            let location = location(&filter, &head, place);
            assert_eq!(str::from_utf8(&location).unwrap(), case.expected);
        }
    }
}
