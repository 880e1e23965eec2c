//! Switching protocols: HTTP/1.1 `Upgrade` and HTTP/2 extended CONNECT (RFC 8441), both towards HTTP/1.1 backends.

use pierhead_http1::{BodyLength, Known, Method, RequestHead, ResponseHead, Status, Value, upgrade_requested};

/// A switch that the client asks for.
#[derive(Debug)]
pub(crate) struct Upgrade {
    /// The protocol, as the client wrote it.
    pub(crate) protocol: Vec<u8>,
    pub(crate) extended_connect: bool,
}

/// What `head` asks for, before fields of the connection are removed. `protocol` is `:protocol` of an extended CONNECT.
pub(crate) fn asked(head: &RequestHead, protocol: Option<&[u8]>, body: BodyLength) -> Option<Upgrade> {
    if let Some(protocol) = protocol {
        return Some(Upgrade {
            protocol: protocol.to_vec(),
            extended_connect: true,
        });
    }
    if body != BodyLength::Empty && body != BodyLength::Exact(0) {
        return None;
    }
    let protocol = upgrade_requested(head).next()?;
    // HTTP/2 is ours to speak or not.
    if protocol.eq_ignore_ascii_case(b"h2c") {
        return None;
    }
    Some(Upgrade {
        protocol: protocol.to_vec(),
        extended_connect: false,
    })
}

impl Upgrade {
    /// Makes the request for the backend ask for the switch.
    pub(crate) fn prepare(&self, head: &mut RequestHead, mut random: impl FnMut() -> u64) {
        if let Ok(protocol) = Value::new(&self.protocol) {
            head.headers.set(Known::Upgrade, protocol);
        }
        if self.extended_connect {
            head.method = Method::Get;
            if self.protocol.eq_ignore_ascii_case(b"websocket") && !head.headers.contains(Known::SecWebSocketKey) {
                let mut nonce = [0; 16];
                nonce[..8].copy_from_slice(&random().to_ne_bytes());
                nonce[8..].copy_from_slice(&random().to_ne_bytes());
                if let Ok(key) = Value::new(&base64(&nonce)) {
                    head.headers.append(Known::SecWebSocketKey, key);
                }
            }
        }
    }

    /// Makes the backend's 101 the answer to this client. Fields of the connection were removed.
    pub(crate) fn answer(&self, head: &mut ResponseHead, http2: bool) {
        if http2 {
            head.status = Status::OK;
            head.headers.remove(Known::SecWebSocketAccept);
        } else if let Ok(protocol) = Value::new(&self.protocol) {
            head.headers.set(Known::Upgrade, protocol);
        }
    }
}

/// RFC 4648 §4, of 16 bytes.
fn base64(bytes: &[u8; 16]) -> [u8; 24] {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = [b'='; 24];
    for (group, three) in out.chunks_exact_mut(4).zip(bytes.chunks(3)) {
        let mut bits = 0_u32;
        for at in 0..3 {
            bits = bits << 8 | u32::from(three.get(at).copied().unwrap_or(0));
        }
        for (at, digit) in group.iter_mut().enumerate().take(three.len() + 1) {
            *digit = ALPHABET[(bits >> (18 - at * 6)) as usize & 63];
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_as_in_the_rfc() {
        assert_eq!(&base64(b"the sample nonce"), b"dGhlIHNhbXBsZSBub25jZQ==");
    }

    #[test]
    fn an_upgrade_needs_connection_upgrade_and_no_body() {
        let mut head = RequestHead::new();
        head.headers.append(Known::Upgrade, Value::from_static("WebSocket"));
        assert!(asked(&head, None, BodyLength::Empty).is_none());
        head.headers.append(Known::Connection, Value::from_static("Upgrade"));
        assert_eq!(asked(&head, None, BodyLength::Empty).unwrap().protocol, b"WebSocket");
        assert!(asked(&head, None, BodyLength::Exact(3)).is_none());
        assert!(asked(&head, None, BodyLength::Chunked).is_none());
        head.headers.set(Known::Upgrade, Value::from_static("h2c"));
        assert!(asked(&head, None, BodyLength::Empty).is_none());
    }
}
