//! What a backend is told about the client.
//!
//! Clients are not trusted: whatever they say about themselves in these fields is removed first. Then `X-Forwarded-For`,
//! `X-Forwarded-Proto`, `X-Forwarded-Port` and `X-Real-IP` are set from the connection (made once per connection),
//! `X-Forwarded-Host` from the request. `X-Request-Id` is kept when it looks like an id, so that a trace goes on.

use std::net::SocketAddr;

use pierhead_http1::{Headers, Known, RequestHead, Value};

const UNTRUSTED: [Known; 11] = [
    Known::Forwarded,
    Known::XForwardedFor,
    Known::XForwardedHost,
    Known::XForwardedPort,
    Known::XForwardedProto,
    Known::XForwardedScheme,
    Known::XForwardedServer,
    Known::XForwardedPrefix,
    Known::XOriginalForwardedFor,
    Known::XRealIp,
    Known::XScheme,
];

/// Longest id taken from a client.
const ID_MAX: usize = 128;

/// The lines that are the same for all requests of a connection.
pub(crate) fn constant_lines(peer: SocketAddr, local: SocketAddr, https: bool) -> Headers {
    let ip = peer.ip().to_canonical().to_string();
    let port = local.port().to_string();
    let mut lines = Headers::new();
    for (name, text) in [
        (Known::XForwardedFor, ip.as_str()),
        (Known::XForwardedProto, if https { "https" } else { "http" }),
        (Known::XForwardedPort, &port),
        (Known::XRealIp, &ip),
    ] {
        if let Ok(value) = Value::new(text.as_bytes()) {
            lines.append(name, value);
        }
    }
    lines
}

/// Replaces what the client said by what we know. `random` makes an id where there is none.
pub(crate) fn apply(head: &mut RequestHead, constant: &Headers, random: impl FnOnce() -> [u64; 2]) {
    let headers = &mut head.headers;
    for known in UNTRUSTED {
        headers.remove(known);
    }
    headers.append_all(constant);
    let mut host = [0; 256];
    if let Some(copy) = headers.first(Known::Host).and_then(|text| {
        let copy = host.get_mut(..text.len())?;
        copy.copy_from_slice(text);
        Some(&*copy)
    }) && let Ok(value) = Value::new(copy)
    {
        headers.append(Known::XForwardedHost, value);
    }
    let kept = headers.only(Known::XRequestId).is_some_and(is_id);
    if !kept {
        headers.remove(Known::XRequestId);
        if let Ok(value) = Value::new(&hex(random())) {
            headers.append(Known::XRequestId, value);
        }
    }
}

fn is_id(text: &[u8]) -> bool {
    (1..=ID_MAX).contains(&text.len()) && text.iter().all(|b| b.is_ascii_graphic())
}

fn hex(numbers: [u64; 2]) -> [u8; 32] {
    let mut out = [0; 32];
    for (half, number) in out.chunks_exact_mut(16).zip(numbers) {
        for (at, digit) in half.iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[(number >> (60 - at * 4)) as usize & 15];
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply_to(lines: &[(Known, &str)]) -> Headers {
        let mut head = RequestHead::new();
        for (name, value) in lines {
            head.headers.append(*name, Value::new(value.as_bytes()).unwrap());
        }
        let constant = constant_lines(
            "[::ffff:192.0.2.7]:5000".parse().unwrap(),
            "10.0.0.1:8443".parse().unwrap(),
            true,
        );
        apply(&mut head, &constant, || [0x0123_4567_89ab_cdef, 1]);
        head.headers
    }

    #[test]
    fn what_the_client_claims_is_replaced() {
        let headers = apply_to(&[
            (Known::Host, "shop.example:8443"),
            (Known::XForwardedFor, "6.6.6.6"),
            (Known::Forwarded, "for=6.6.6.6"),
            (Known::XRealIp, "6.6.6.6"),
            (Known::XForwardedProto, "gopher"),
        ]);
        assert_eq!(headers.only(Known::XForwardedFor), Some(&b"192.0.2.7"[..]));
        assert_eq!(headers.only(Known::XRealIp), Some(&b"192.0.2.7"[..]));
        assert_eq!(headers.only(Known::XForwardedProto), Some(&b"https"[..]));
        assert_eq!(headers.only(Known::XForwardedPort), Some(&b"8443"[..]));
        assert_eq!(headers.only(Known::XForwardedHost), Some(&b"shop.example:8443"[..]));
        assert!(!headers.contains(Known::Forwarded));
        assert_eq!(
            headers.only(Known::XRequestId),
            Some(&b"0123456789abcdef0000000000000001"[..])
        );
    }

    #[test]
    fn a_request_id_goes_on_unless_it_is_no_id() {
        let kept = apply_to(&[(Known::XRequestId, "abc-123")]);
        assert_eq!(kept.only(Known::XRequestId), Some(&b"abc-123"[..]));
        for bad in [&["two words"][..], &["a", "b"], &[""]] {
            let lines: Vec<_> = bad.iter().map(|v| (Known::XRequestId, *v)).collect();
            assert_eq!(apply_to(&lines).only(Known::XRequestId).map(<[u8]>::len), Some(32));
        }
    }
}
