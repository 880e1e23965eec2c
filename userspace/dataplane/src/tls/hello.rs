/// The longest ClientHello, record headers included, that is waited for. Post-quantum ones have about 2 kB.
pub(crate) const MAX_HELLO_BYTES: usize = 16 * 1024;

const RECORD_HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const EXTENSION_SERVER_NAME: u16 = 0;
const NAME_TYPE_HOST: u8 = 0;
/// RFC 8446 §5.1: a plaintext record carries at most 2^14 bytes.
const MAX_RECORD: usize = 1 << 14;

/// What the first bytes of a connection say (RFC 8446 §4.1.2, RFC 6066 §3). Only the server name is read: whether the
/// rest is sound is for whoever ends the TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hello {
    /// More bytes are needed.
    Partial,
    /// A whole ClientHello; the name in lower case, without a trailing dot.
    Whole { sni: Option<Box<str>> },
    /// No TLS, or too long.
    Invalid,
}

impl Hello {
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let mut message = Vec::new();
        let mut rest = bytes;
        loop {
            if let Some(body) = whole_message(&message) {
                return body.map_or(Self::Invalid, |body| {
                    client_hello(body).map_or(Self::Invalid, |sni| Self::Whole { sni })
                });
            }
            match rest {
                [] => return partial(bytes),
                [kind, ..] if *kind != RECORD_HANDSHAKE => return Self::Invalid,
                [_, major, ..] if *major != 3 => return Self::Invalid,
                [_, _, _, high, low, payload @ ..] => {
                    let length = usize::from(u16::from_be_bytes([*high, *low]));
                    if length == 0 || length > MAX_RECORD {
                        return Self::Invalid;
                    }
                    let Some((fragment, after)) = payload.split_at_checked(length) else {
                        // The type is known before the record is whole: refuse early what is no ClientHello.
                        let first = message.first().or_else(|| payload.first());
                        return match first {
                            Some(kind) if *kind != CLIENT_HELLO => Self::Invalid,
                            _ => partial(bytes),
                        };
                    };
                    message.extend_from_slice(fragment);
                    rest = after;
                }
                _ => return partial(bytes),
            }
        }
    }
}

fn partial(bytes: &[u8]) -> Hello {
    if bytes.len() < MAX_HELLO_BYTES {
        Hello::Partial
    } else {
        Hello::Invalid
    }
}

/// `None`: more is needed. `Some(None)`: not a ClientHello, or too long.
#[expect(
    clippy::option_option,
    reason = "two questions with different answers: is it whole, is it one"
)]
fn whole_message(message: &[u8]) -> Option<Option<&[u8]>> {
    match message {
        [] => None,
        [kind, ..] if *kind != CLIENT_HELLO => Some(None),
        [_, high, middle, low, body @ ..] => {
            let length = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
            if length > MAX_HELLO_BYTES {
                return Some(None);
            }
            body.get(..length).map(Some)
        }
        _ => None,
    }
}

/// The server name in the body of a ClientHello; the outer `None` when it is malformed.
#[expect(clippy::option_option, reason = "malformed and nameless are different things")]
fn client_hello(body: &[u8]) -> Option<Option<Box<str>>> {
    // legacy_version, random
    let rest = body.get(2 + 32..)?;
    let (_session_id, rest) = take_u8(rest)?;
    let (_cipher_suites, rest) = take_u16(rest)?;
    let (_compression, rest) = take_u8(rest)?;
    if rest.is_empty() {
        return Some(None);
    }
    let (mut extensions, rest) = take_u16(rest)?;
    if !rest.is_empty() {
        return None;
    }
    while let [high, low, after @ ..] = extensions {
        let (data, next) = take_u16(after)?;
        if u16::from_be_bytes([*high, *low]) == EXTENSION_SERVER_NAME {
            return server_name(data);
        }
        extensions = next;
    }
    extensions.is_empty().then_some(None)
}

#[expect(clippy::option_option, reason = "malformed and nameless are different things")]
fn server_name(data: &[u8]) -> Option<Option<Box<str>>> {
    let (mut list, _) = take_u16(data)?;
    while let [kind, after @ ..] = list {
        let (name, next) = take_u16(after)?;
        if *kind == NAME_TYPE_HOST {
            let name = std::str::from_utf8(name)
                .ok()
                .filter(|name| name.is_ascii() && !name.is_empty())?;
            let name = name.strip_suffix('.').unwrap_or(name);
            return Some(Some(name.to_ascii_lowercase().into_boxed_str()));
        }
        list = next;
    }
    Some(None)
}

fn take_u8(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*length))
}

fn take_u16(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// What rustls sends when it greets `name`.
    fn greeting(name: &str) -> Vec<u8> {
        let config =
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth();
        let name = name.to_owned().try_into().unwrap();
        let mut connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        connection.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn the_name_is_found_in_lower_case_and_without_trailing_dot() {
        for (name, sni) in [("Foo.Example.com", Some("foo.example.com")), ("10.0.0.1", None)] {
            assert_eq!(
                Hello::parse(&greeting(name)),
                Hello::Whole {
                    sni: sni.map(Into::into)
                }
            );
        }
    }

    #[test]
    fn every_prefix_is_partial() {
        let whole = greeting("a.example.com");
        for length in 0..whole.len() {
            assert_eq!(Hello::parse(&whole[..length]), Hello::Partial, "{length}");
        }
    }

    #[test]
    fn a_hello_in_many_records_is_put_together() {
        let whole = greeting("a.example.com");
        let mut fragmented = Vec::new();
        for chunk in whole[5..].chunks(7) {
            fragmented.extend([22, 3, 1, 0, u8::try_from(chunk.len()).unwrap()]);
            fragmented.extend(chunk);
        }
        assert_eq!(
            Hello::parse(&fragmented),
            Hello::Whole {
                sni: Some("a.example.com".into())
            }
        );
    }

    #[test]
    fn what_follows_the_hello_is_left_alone() {
        let mut bytes = greeting("a.example.com");
        bytes.extend_from_slice(b"anything");
        assert!(matches!(Hello::parse(&bytes), Hello::Whole { .. }));
    }

    #[test]
    fn other_protocols_and_endless_hellos_are_refused() {
        for bad in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"\x16\x02\x00",
            b"\x16\x03\x01\x00\x00",
            b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",
            b"\x16\x03\x01\xff\xff\x01",
            b"\x16\x03\x01\x00\x04\x01\x7f\xff\xff",
        ] {
            assert_eq!(Hello::parse(bad), Hello::Invalid, "{bad:?}");
        }
        let mut endless = vec![22, 3, 1, 0x3f, 0xff, 1, 0, 0x3f, 0xff];
        endless.resize(MAX_HELLO_BYTES, 0);
        assert_eq!(Hello::parse(&endless), Hello::Invalid);
    }

    #[test]
    fn damage_never_panics() {
        let whole = greeting("a.example.com");
        for at in 0..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                let _ = Hello::parse(&bytes);
            }
        }
    }
}
