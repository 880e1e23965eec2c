//! Builds frames from words, with checksums computed from scratch: what a sender would send, not what our code makes.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "a module of several test files, each of which uses its own part"
)]
#![allow(clippy::unwrap_used, reason = "a test says what failed by panicking")]

use std::net::{IpAddr, SocketAddr};

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;

/// A packet, from the network header on.
#[derive(Clone, Debug)]
pub struct Packet {
    pub src: SocketAddr,
    pub dst: SocketAddr,
    pub body: Body,
    pub payload: Vec<u8>,
    /// IPv4 options, or IPv6 extension headers as (kind, bytes after the two fixed ones).
    pub options: Vec<u8>,
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// IPv4 flags and fragment offset.
    pub fragment: u16,
    pub hop_limit: u8,
}

#[derive(Clone, Debug)]
pub enum Body {
    Tcp {
        flags: u8,
    },
    Udp {
        checksum: bool,
    },
    /// Type, code, the four bytes that follow the checksum; the payload is what it is about.
    Icmp {
        kind: u8,
        code: u8,
        rest: u32,
    },
}

fn packet(src: &str, dst: &str, body: Body) -> Packet {
    Packet {
        src: src.parse().unwrap(),
        dst: dst.parse().unwrap(),
        body,
        payload: b"payload".to_vec(),
        options: Vec::new(),
        extensions: Vec::new(),
        fragment: 0x4000,
        hop_limit: 64,
    }
}

pub fn tcp(src: &str, dst: &str, flags: u8) -> Packet {
    packet(src, dst, Body::Tcp { flags })
}

pub fn udp(src: &str, dst: &str) -> Packet {
    packet(src, dst, Body::Udp { checksum: true })
}

/// An ICMP error from `src` to `dst` (ports are ignored) about `inner`, of which `bytes` are quoted.
pub fn error(src: &str, dst: &str, kind: u8, code: u8, rest: u32, inner: &Packet, bytes: usize) -> Packet {
    let mut error = packet(src, dst, Body::Icmp { kind, code, rest });
    error.payload = inner.bytes();
    error.payload.truncate(bytes);
    error
}

impl Packet {
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    pub fn options(mut self, options: &[u8]) -> Self {
        self.options = options.to_vec();
        self
    }

    pub fn extension(mut self, kind: u8, bytes: &[u8]) -> Self {
        self.extensions.push((kind, bytes.to_vec()));
        self
    }

    pub fn fragment(mut self, fragment: u16) -> Self {
        self.fragment = fragment;
        self
    }

    pub fn hops(mut self, hop_limit: u8) -> Self {
        self.hop_limit = hop_limit;
        self
    }

    pub fn no_checksum(mut self) -> Self {
        self.body = Body::Udp { checksum: false };
        self
    }

    pub fn from(mut self, src: &str) -> Self {
        self.src = src.parse().unwrap();
        self
    }

    pub fn to(mut self, dst: &str) -> Self {
        self.dst = dst.parse().unwrap();
        self
    }

    /// The Ethernet frame, to the interface that it comes by: in a test run that is the loopback, whose address is zero.
    pub fn frame(&self) -> Vec<u8> {
        let mut frame = vec![0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2];
        frame.extend(if self.src.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] });
        frame.extend(self.bytes());
        frame
    }

    pub fn bytes(&self) -> Vec<u8> {
        let transport = self.transport();
        match (self.src.ip(), self.dst.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let ihl = 5 + self.options.len() / 4;
                let mut ip = vec![0x40 | ihl as u8, 0];
                ip.extend(((ihl * 4 + transport.len()) as u16).to_be_bytes());
                ip.extend([0x12, 0x34]);
                ip.extend(self.fragment.to_be_bytes());
                ip.extend([self.hop_limit, self.protocol(), 0, 0]);
                ip.extend(src.octets());
                ip.extend(dst.octets());
                ip.extend(&self.options);
                let check = checksum(&ip);
                ip[10..12].copy_from_slice(&check.to_be_bytes());
                ip.extend(transport);
                ip
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let mut chain = Vec::new();
                for (i, (_, bytes)) in self.extensions.iter().enumerate() {
                    let next = self
                        .extensions
                        .get(i + 1)
                        .map_or_else(|| self.protocol(), |(kind, _)| *kind);
                    chain.push(next);
                    // A fragment header has no length.
                    chain.push(if self.extensions[i].0 == 44 {
                        0
                    } else {
                        ((bytes.len() + 2) / 8 - 1) as u8
                    });
                    chain.extend(bytes);
                }
                let mut ip = vec![0x60, 0, 0, 0];
                ip.extend(((chain.len() + transport.len()) as u16).to_be_bytes());
                ip.push(
                    self.extensions
                        .first()
                        .map_or_else(|| self.protocol(), |(kind, _)| *kind),
                );
                ip.push(self.hop_limit);
                ip.extend(src.octets());
                ip.extend(dst.octets());
                ip.extend(chain);
                ip.extend(transport);
                ip
            }
            mixed => panic!("one packet, two families: {mixed:?}"),
        }
    }

    fn protocol(&self) -> u8 {
        match self.body {
            Body::Tcp { .. } => 6,
            Body::Udp { .. } => 17,
            Body::Icmp { .. } if self.src.is_ipv4() => 1,
            Body::Icmp { .. } => 58,
        }
    }

    fn transport(&self) -> Vec<u8> {
        let mut t = Vec::new();
        let at = match &self.body {
            Body::Tcp { flags } => {
                t.extend(self.src.port().to_be_bytes());
                t.extend(self.dst.port().to_be_bytes());
                t.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, *flags, 0xff, 0xff, 0, 0, 0, 0]);
                16
            }
            Body::Udp { .. } => {
                t.extend(self.src.port().to_be_bytes());
                t.extend(self.dst.port().to_be_bytes());
                t.extend(((8 + self.payload.len()) as u16).to_be_bytes());
                t.extend([0, 0]);
                6
            }
            Body::Icmp { kind, code, rest } => {
                t.extend([*kind, *code, 0, 0]);
                t.extend(rest.to_be_bytes());
                2
            }
        };
        t.extend(&self.payload);
        let check = match &self.body {
            Body::Udp { checksum: false } => 0,
            Body::Icmp { .. } if self.src.is_ipv4() => checksum(&t),
            _ => {
                let mut all = self.pseudo(t.len());
                all.extend(&t);
                match (checksum(&all), &self.body) {
                    (0, Body::Udp { .. }) => 0xffff,
                    (check, _) => check,
                }
            }
        };
        t[at..at + 2].copy_from_slice(&check.to_be_bytes());
        t
    }

    fn pseudo(&self, len: usize) -> Vec<u8> {
        let mut p = Vec::new();
        for ip in [self.src.ip(), self.dst.ip()] {
            match ip {
                IpAddr::V4(ip) => p.extend(ip.octets()),
                IpAddr::V6(ip) => p.extend(ip.octets()),
            }
        }
        p.extend((len as u32).to_be_bytes());
        p.extend(u32::from(self.protocol()).to_be_bytes());
        p
    }
}

/// RFC 1071.
fn checksum(data: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in data.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
