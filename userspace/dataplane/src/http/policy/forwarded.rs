//! What a backend is told about the client.
//!
//! Clients are not trusted: whatever they say about themselves in these fields is removed first. Then `X-Forwarded-For`,
//! `X-Forwarded-Proto`, `X-Forwarded-Port` and `X-Real-IP` are set from the connection (made once per connection),
//! `X-Forwarded-Host` from the request. `X-Request-Id` is kept when it looks like an id, so that a trace goes on.
//!
//! A peer that the configuration trusts is a proxy: what it says counts. Of its `X-Forwarded-For` what stands before the
//! client's address is what the client said, and removed all the same.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use pierhead_http1::{Authority, Headers, Known, KnownSet, RequestHead, Value};
use pierhead_model::ForwardedFor;

const UNTRUSTED: KnownSet = KnownSet::of(&[
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
]);

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
    headers.remove_all(UNTRUSTED);
    headers.append_all(constant);
    headers.append_copy(Known::XForwardedHost, Known::Host);
    let kept = headers.only(Known::XRequestId).is_some_and(is_id);
    if !kept {
        headers.remove(Known::XRequestId);
        if let Ok(value) = Value::new(&hex(random())) {
            headers.append(Known::XRequestId, value);
        }
    }
}

/// What a trusted proxy says, to be put over what is known of its connection.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Said {
    /// The client, then the proxies up to the one before `peer`. Never empty, unless nothing was said.
    chain: Vec<IpAddr>,
    proto: Option<&'static str>,
    port: Option<u16>,
    host: Option<Vec<u8>>,
}

impl Said {
    /// `None`: `peer` is not believed.
    pub(crate) fn read(headers: &Headers, peer: IpAddr, trust: &ForwardedFor) -> Option<Self> {
        let peer = peer.to_canonical();
        if !contains(&trust.trusted, peer) {
            return None;
        }
        // An address that is none ends the list: nobody who is believed wrote it.
        let all: Vec<&[u8]> = headers.members(Known::XForwardedFor).collect();
        let mut chain = Vec::new();
        for address in all.into_iter().rev().map_while(address) {
            chain.push(address);
            let enough = match trust.hops {
                Some(hops) => chain.len() >= hops as usize,
                None => !contains(&trust.trusted, address),
            };
            if enough {
                break;
            }
        }
        chain.reverse();
        let only = |name| headers.only(name);
        Some(Self {
            chain,
            proto: match only(Known::XForwardedProto) {
                Some(text) if text.eq_ignore_ascii_case(b"https") => Some("https"),
                Some(text) if text.eq_ignore_ascii_case(b"http") => Some("http"),
                _ => None,
            },
            port: only(Known::XForwardedPort).and_then(|text| std::str::from_utf8(text).ok()?.parse().ok()),
            host: only(Known::XForwardedHost)
                .filter(|text| Authority::parse(text).is_ok())
                .map(<[u8]>::to_vec),
        })
    }

    /// Puts it over the fields that [`apply`] has set.
    pub(crate) fn apply(&self, headers: &mut Headers, peer: IpAddr) {
        let mut set = |name: Known, text: &str| {
            if let Ok(value) = Value::new(text.as_bytes()) {
                headers.set(name, value);
            }
        };
        if let Some(client) = self.chain.first() {
            let all = self.chain.iter().copied().chain([peer.to_canonical()]);
            let all: Vec<String> = all.map(|ip| ip.to_string()).collect();
            set(Known::XForwardedFor, &all.join(", "));
            set(Known::XRealIp, &client.to_string());
        }
        if let Some(proto) = self.proto {
            set(Known::XForwardedProto, proto);
        }
        if let Some(port) = self.port {
            set(Known::XForwardedPort, &port.to_string());
        }
        if let Some(host) = &self.host
            && let Ok(value) = Value::new(host)
        {
            headers.set(Known::XForwardedHost, value);
        }
    }
}

fn contains(nets: &[IpNet], ip: IpAddr) -> bool {
    nets.iter().any(|net| net.contains(&ip))
}

/// An address, with a port perhaps, as proxies write them.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let ip = text.parse().ok().or_else(|| {
        let with_port = text.parse::<SocketAddr>().ok().map(|address| address.ip());
        with_port.or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok())
    });
    ip.map(|ip: IpAddr| ip.to_canonical())
}

fn is_id(text: &[u8]) -> bool {
    (1..=ID_MAX).contains(&text.len()) && text.iter().all(|b| b.is_ascii_graphic())
}

/// A number in hexadecimal, all digits at once.
fn eight_digits(number: u32) -> [u8; 8] {
    let each = |byte: u64| 0x0101_0101_0101_0101 * byte;
    // A digit to a byte, the first in the highest.
    let mut digits = u64::from(number);
    digits = (digits | digits << 16) & 0x0000_ffff_0000_ffff;
    digits = (digits | digits << 8) & 0x00ff_00ff_00ff_00ff;
    digits = (digits | digits << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    // One in each byte of ten and more.
    let letters = (digits + each(6)) >> 4 & each(1);
    (digits + each(b'0'.into()) + letters * u64::from(b'a' - b'0' - 10)).to_be_bytes()
}

fn hex(numbers: [u64; 2]) -> [u8; 32] {
    let mut out = [0; 32];
    let halves = numbers
        .iter()
        .flat_map(|number| [(number >> 32) as u32, *number as u32]);
    for (eight, half) in out.chunks_exact_mut(8).zip(halves) {
        eight.copy_from_slice(&eight_digits(half));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_all_digits_of_its_numbers() {
        assert_eq!(
            hex([0x0123_4567_89ab_cdef, 0xfed0_ba98_0000_000a]),
            *b"0123456789abcdeffed0ba980000000a"
        );
    }

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

    fn said(lines: &[(Known, &str)], peer: &str, trusted: &[&str], hops: Option<u32>) -> Option<Vec<String>> {
        let mut headers = Headers::new();
        for (name, value) in lines {
            headers.append(*name, Value::new(value.as_bytes()).unwrap());
        }
        let trust = ForwardedFor {
            trusted: trusted.iter().map(|net| net.parse().unwrap()).collect(),
            hops,
        };
        let peer = peer.parse().unwrap();
        let said = Said::read(&headers, peer, &trust)?;
        apply_fixed(&mut headers);
        said.apply(&mut headers, peer);
        let text = |name| headers.only(name).map(|text| String::from_utf8(text.to_vec()).unwrap());
        let names = [
            Known::XForwardedFor,
            Known::XRealIp,
            Known::XForwardedProto,
            Known::XForwardedPort,
            Known::XForwardedHost,
        ];
        Some(names.into_iter().map(|name| text(name).unwrap_or_default()).collect())
    }

    /// As the pipeline does before what is said.
    fn apply_fixed(headers: &mut Headers) {
        headers.remove_all(UNTRUSTED);
        let peer = "10.0.0.1:5000".parse().unwrap();
        headers.append_all(&constant_lines(peer, "10.9.9.9:80".parse().unwrap(), false));
        headers.append(Known::XForwardedHost, Value::from_static("own.example"));
    }

    #[test]
    fn a_trusted_proxy_says_who_the_client_is_and_the_client_says_nothing() {
        let trusted = ["10.0.0.0/8", "2001:db8::/32"];
        fn list(text: &str) -> [(Known, &str); 1] {
            [(Known::XForwardedFor, text)]
        }
        let client = |text: &str, hops| {
            let said = said(&list(text), "10.0.0.1", &trusted, hops).unwrap();
            (said[0].clone(), said[1].clone())
        };
        let pair = |chain: &str, client: &str| (chain.to_owned(), client.to_owned());
        assert_eq!(
            client("6.6.6.6, 192.0.2.7, 10.1.1.1", None),
            pair("192.0.2.7, 10.1.1.1, 10.0.0.1", "192.0.2.7")
        );
        assert_eq!(client("192.0.2.7:1234", None), pair("192.0.2.7, 10.0.0.1", "192.0.2.7"));
        assert_eq!(client("10.1.1.1", None), pair("10.1.1.1, 10.0.0.1", "10.1.1.1"));
        assert_eq!(
            client("6.6.6.6, [2001:db8::1]:80", Some(1)),
            pair("2001:db8::1, 10.0.0.1", "2001:db8::1")
        );
        assert_eq!(
            client("6.6.6.6, 192.0.2.7, 192.0.2.8", Some(2)),
            pair("192.0.2.7, 192.0.2.8, 10.0.0.1", "192.0.2.7")
        );
        assert_eq!(client("192.0.2.7", Some(3)), pair("192.0.2.7, 10.0.0.1", "192.0.2.7"));
        // What is no address ends what is believed.
        assert_eq!(
            client("192.0.2.7, unknown, 10.1.1.1", None),
            pair("10.1.1.1, 10.0.0.1", "10.1.1.1")
        );
        assert_eq!(client("unknown", None), pair("10.0.0.1", "10.0.0.1"));
        assert_eq!(said(&list("192.0.2.7"), "192.0.2.1", &trusted, None), None);
    }

    #[test]
    fn a_trusted_proxy_says_what_the_client_asked_for() {
        let lines = [
            (Known::XForwardedProto, "HTTPS"),
            (Known::XForwardedPort, "8443"),
            (Known::XForwardedHost, "outer.example"),
        ];
        let of = said(&lines, "::ffff:10.0.0.1", &["10.0.0.0/8"], None).unwrap();
        assert_eq!(of[2..], ["https", "8443", "outer.example"]);
        let bad = [
            (Known::XForwardedProto, "gopher"),
            (Known::XForwardedPort, "99999"),
            (Known::XForwardedHost, "two words"),
        ];
        let of = said(&bad, "10.0.0.1", &["10.0.0.0/8"], None).unwrap();
        assert_eq!(of[2..], ["http", "80", "own.example"]);
    }
}
