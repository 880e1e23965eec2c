//! The PROXY protocol, versions 1 and 2: what a load balancer says about the client before the first byte of the client's.
//!
//! Only peers that are trusted are asked for it, and from them it must come: "the receiver … must not try to guess whether
//! the PROXY protocol header is present or not" (proxy-protocol.txt of HAProxy, §2).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    net::TcpStream,
};

/// What a version 2 header starts with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The longest line of version 1, CRLF included ("worst case", §2.1).
const MAX_LINE: usize = 107;

/// The longest version 2 header that is read: addresses and type-length-values.
const MAX_BODY: usize = 4096;

/// Takes the header off a stream, and nothing of what follows it. `None`: the sender speaks for itself (health checks).
///
/// # Errors
/// When the stream ends or fails, or has no such header.
pub(super) async fn read(stream: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut start = [0; SIGNATURE.len()];
    stream.read_exact(&mut start).await?;
    if start == *SIGNATURE {
        return binary(stream).await;
    }
    if !start.starts_with(b"PROXY ") {
        return Err(malformed());
    }
    let mut line = start.to_vec();
    loop {
        let mut space = [0; MAX_LINE];
        let left = MAX_LINE - line.len();
        let count = stream.peek(&mut space[..left]).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // Whatever stands before the end of the line belongs to the header.
        let end = space[..count].iter().position(|byte| *byte == b'\n');
        let count = end.map_or(count, |end| end + 1);
        stream.read_exact(&mut space[..count]).await?;
        line.extend_from_slice(&space[..count]);
        if end.is_some() {
            return text(&line).ok_or_else(malformed);
        }
        if line.len() == MAX_LINE {
            return Err(malformed());
        }
    }
}

fn malformed() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

/// `PROXY TCP4 source destination source-port destination-port`; the outer `None` when it is not.
#[expect(clippy::option_option, reason = "malformed and nothing said are different things")]
fn text(line: &[u8]) -> Option<Option<SocketAddr>> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix("\r\n")?;
    let mut words = line.split(' ');
    if words.next() != Some("PROXY") {
        return None;
    }
    let v4 = match words.next()? {
        // "the receiver must ignore anything presented before the CRLF"
        "UNKNOWN" => return Some(None),
        "TCP4" => true,
        "TCP6" => false,
        _ => return None,
    };
    let address = |word: &str| -> Option<IpAddr> {
        if v4 {
            word.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
        } else {
            word.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
        }
    };
    let port = |word: &str| -> Option<u16> {
        let plain = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
        word.parse().ok().filter(|_| plain)
    };
    let source = address(words.next()?)?;
    address(words.next()?)?;
    let source = SocketAddr::new(source, port(words.next()?)?);
    port(words.next()?)?;
    words.next().is_none().then_some(Some(source))
}

/// What follows the signature of version 2 (§2.2).
async fn binary(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let [version_and_command, family, high, low] = head;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if version_and_command >> 4 != 2 || length > MAX_BODY {
        return Err(malformed());
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    match version_and_command & 15 {
        // LOCAL: "the receiver must accept this connection as valid and must use the real connection endpoints".
        0 => Ok(None),
        1 => addresses(family, &body).ok_or_else(malformed),
        _ => Err(malformed()),
    }
}

#[expect(clippy::option_option, reason = "malformed and nothing said are different things")]
fn addresses(family: u8, body: &[u8]) -> Option<Option<SocketAddr>> {
    let port = |bytes: &[u8]| bytes.first_chunk().map(|two| u16::from_be_bytes(*two));
    match family {
        // TCP over IPv4: two addresses, two ports.
        0x11 => {
            let source = Ipv4Addr::from(*body.first_chunk::<4>()?);
            body.get(..12)?;
            Some(Some(SocketAddr::new(source.into(), port(&body[8..])?)))
        }
        // TCP over IPv6.
        0x21 => {
            let source = Ipv6Addr::from(*body.first_chunk::<16>()?);
            body.get(..36)?;
            Some(Some(SocketAddr::new(source.into(), port(&body[32..])?)))
        }
        // "UNSPEC": a relay that does not know; Unix sockets have no address.
        0x00 | 0x31 => Some(None),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_who_the_client_is() {
        let source = |text: &str| Some(Some(text.parse().unwrap()));
        for (line, expected) in [
            ("PROXY TCP4 192.0.2.1 10.0.0.1 56324 443\r\n", source("192.0.2.1:56324")),
            (
                "PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n",
                source("[2001:db8::1]:1"),
            ),
            ("PROXY UNKNOWN\r\n", Some(None)),
            ("PROXY UNKNOWN ff::1 what ever\r\n", Some(None)),
            ("PROXY TCP4 192.0.2.1 10.0.0.1 56324 443\n", None),
            ("PROXY TCP4 192.0.2.1 10.0.0.1 56324 443 \r\n", None),
            ("PROXY TCP4 2001:db8::1 10.0.0.1 56324 443\r\n", None),
            ("PROXY TCP6 192.0.2.1 10.0.0.1 56324 443\r\n", None),
            ("PROXY TCP4 192.0.2.1 10.0.0.1 +1 443\r\n", None),
            ("PROXY TCP4 192.0.2.1 10.0.0.1 01 443\r\n", None),
            ("PROXY TCP4 192.0.2.1 10.0.0.1 65536 443\r\n", None),
            ("PROXY TCP4 192.0.2.1 10.0.0.1 1\r\n", None),
            ("PROXY UDP4 192.0.2.1 10.0.0.1 1 2\r\n", None),
            ("GET / HTTP/1.1\r\n", None),
        ] {
            assert_eq!(text(line.as_bytes()), expected, "{line:?}");
        }
    }

    #[test]
    fn a_binary_header_says_who_the_client_is() {
        let v4 = [192, 0, 2, 1, 10, 0, 0, 1, 0xdc, 0x04, 1, 0xbb];
        let client = "192.0.2.1:56324".parse().ok();
        assert_eq!(addresses(0x11, &v4), Some(client));
        // With type-length-values behind.
        assert_eq!(addresses(0x11, &[&v4[..], &[4, 0, 0]].concat()), Some(client));
        assert_eq!(addresses(0x11, &v4[..11]), None);
        let mut v6 = [0; 36];
        v6[15] = 1;
        v6[33] = 80;
        assert_eq!(addresses(0x21, &v6), Some("[::1]:80".parse().ok()));
        assert_eq!(addresses(0x21, &v6[..35]), None);
        assert_eq!(addresses(0x00, &[]), Some(None));
        // Datagrams do not come over TCP.
        assert_eq!(addresses(0x12, &v4), None);
    }
}
