//! Host rules: the name a request is for, and the listener that serves it.

use std::{fmt::Write, sync::Arc};

use pierhead_http1::{Authority, Known, RequestHead};

use crate::runtime::{BindRuntime, ListenerRuntime};

/// Puts the host of a request into `out` as names are compared: lower case, without port, trailing dot and brackets; empty
/// when an HTTP/1.0 client named none.
pub(crate) fn canonical(head: &RequestHead, out: &mut String) {
    out.clear();
    let Some(Ok(authority)) = head.headers.first(Known::Host).map(Authority::parse) else {
        return;
    };
    let host = match authority.host {
        [b'[', inner @ .., b']'] => inner,
        host => host.strip_suffix(b".").unwrap_or(host),
    };
    // An authority is ASCII.
    out.push_str(str::from_utf8(host).unwrap_or_default());
    out.make_ascii_lowercase();
    if host.contains(&b':')
        && let Ok(address) = out.parse::<std::net::Ipv6Addr>()
    {
        // Addresses have many spellings.
        out.clear();
        let _ = write!(out, "{address}");
    }
}

/// Whose routes serve a request.
#[derive(Debug)]
pub(crate) enum Selected<'r> {
    Listener(&'r Arc<ListenerRuntime>),
    /// The host belongs to another listener than the one the client connected to: 421 (RFC 9110 §15.5.20).
    Misdirected,
    /// No listener takes this host: 404.
    Nobody,
}

/// Chooses the listener for `host`. `by_sni` is the one that TLS chose.
///
/// Cleartext: the most specific listener for the host. TLS with detection: the same, and it must be the one of the SNI.
/// TLS without: SNI picks the certificate and Host the routes (Ingress).
pub(crate) fn select<'r>(bind: &'r BindRuntime, by_sni: Option<&ListenerRuntime>, host: &str) -> Selected<'r> {
    let Some(by_host) = bind.listener(host) else {
        return Selected::Nobody;
    };
    match by_sni {
        Some(by_sni) if by_sni.model.id != by_host.model.id => {
            let detects = |listener: &ListenerRuntime| listener.http().is_some_and(|h| h.options.detect_misdirected);
            if detects(by_sni) || detects(by_host) {
                Selected::Misdirected
            } else {
                Selected::Listener(by_host)
            }
        }
        _ => Selected::Listener(by_host),
    }
}

#[cfg(test)]
mod tests {
    use pierhead_http1::Value;

    use super::*;

    #[test]
    fn hosts_are_compared_without_port_case_dot_and_brackets() {
        for (given, expected) in [
            ("Very.Specific.com:1234", "very.specific.com"),
            ("example.com.", "example.com"),
            ("example.com.:80", "example.com"),
            ("10.0.0.1:80", "10.0.0.1"),
            ("[2001:DB8:0:0::1]:80", "2001:db8::1"),
            ("localhost", "localhost"),
        ] {
            let mut head = RequestHead::new();
            head.headers.append(Known::Host, Value::new(given.as_bytes()).unwrap());
            let mut out = "rest".to_owned();
            canonical(&head, &mut out);
            assert_eq!(out, expected);
        }
        let mut out = "rest".to_owned();
        canonical(&RequestHead::new(), &mut out);
        assert_eq!(out, "");
    }
}
