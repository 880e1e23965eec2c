//! Headers of a packet, read through offsets so that the same code runs on a socket buffer and on a slice.

use crate::addr::{Addr, Port};

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMP: u8 = 1;
pub const ICMPV6: u8 = 58;

pub const ETH_IPV4: u16 = 0x0800;
pub const ETH_IPV6: u16 = 0x86dd;

/// Offset of a field from the start of its header.
pub mod field {
    /// TTL, then the protocol: one word of the checksum.
    pub const IPV4_TTL: u32 = 8;
    pub const IPV4_CHECKSUM: u32 = 10;
    pub const IPV4_SRC: u32 = 12;
    pub const IPV4_DST: u32 = 16;
    /// Where the transport header begins if there are no options.
    pub const IPV4_END: u32 = 20;
    pub const IPV6_HOP_LIMIT: u32 = 7;
    pub const IPV6_SRC: u32 = 8;
    pub const IPV6_DST: u32 = 24;
    pub const SRC_PORT: u32 = 0;
    pub const DST_PORT: u32 = 2;
    pub const TCP_CHECKSUM: u32 = 16;
    pub const UDP_CHECKSUM: u32 = 6;
    pub const ICMP_CHECKSUM: u32 = 2;
    /// Where the packet that an ICMP error is about begins (RFC 792, RFC 4443).
    pub const ICMP_INNER: u32 = 8;
}

/// IPv6 extension headers that are skipped. A packet with more goes up the stack.
const MAX_EXTENSIONS: usize = 4;

/// Bytes that can be read at an offset.
pub trait Packet {
    /// `None` beyond the end.
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]>;
}

impl Packet for &[u8] {
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let start = offset as usize;
        self.get(start..start.checked_add(N)?)?.try_into().ok()
    }
}

/// What the network header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip {
    pub v4: bool,
    /// Of the transport header; IP options and extension headers are behind it.
    pub protocol: u8,
    /// Offset of the network header.
    pub l3: u32,
    /// Offset of the transport header.
    pub l4: u32,
    pub src: Addr,
    pub dst: Addr,
    /// Of the IPv4 header, as it lies there; 0 for IPv6.
    pub checksum: u16,
}

impl Ip {
    /// Offset of the source address.
    #[inline(always)]
    pub const fn src_offset(&self) -> u32 {
        self.l3 + if self.v4 { field::IPV4_SRC } else { field::IPV6_SRC }
    }

    /// Offset of the destination address.
    #[inline(always)]
    pub const fn dst_offset(&self) -> u32 {
        self.l3 + if self.v4 { field::IPV4_DST } else { field::IPV6_DST }
    }

    /// Offset of the transport checksum. `None` where the protocol is neither TCP nor UDP.
    #[inline(always)]
    pub const fn checksum_offset(&self) -> Option<u32> {
        match self.protocol {
            TCP => Some(self.l4 + field::TCP_CHECKSUM),
            UDP => Some(self.l4 + field::UDP_CHECKSUM),
            _ => None,
        }
    }
}

/// Why a packet is not read further. Its addresses are known where the header was whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// Neither IPv4 nor IPv6.
    NotIp,
    /// Shorter than its headers say, a wrong version, or more extension headers than we follow.
    Malformed,
    /// A fragment: only the stack can put it together.
    Fragment(Fragment),
}

/// A piece of a packet. The transport header, at `ip.l4`, is only in the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    pub ip: Ip,
    /// Common to all pieces of one packet.
    pub id: u32,
    pub first: bool,
}

/// Reads the network header at `l3`; `ethertype` in host order.
#[inline(always)]
pub fn ip<P: Packet>(packet: &P, ethertype: u16, l3: u32) -> Result<Ip, Unreadable> {
    match ethertype {
        ETH_IPV4 => ipv4(packet, l3),
        ETH_IPV6 => ipv6(packet, l3),
        _ => Err(Unreadable::NotIp),
    }
}

#[inline(always)]
const fn word(b: [u8; 4]) -> u32 {
    u32::from_ne_bytes(b)
}

#[inline(always)]
fn ipv4<P: Packet>(packet: &P, l3: u32) -> Result<Ip, Unreadable> {
    let h: [u8; 20] = packet.load(l3).ok_or(Unreadable::Malformed)?;
    if h[0] >> 4 != 4 || h[0] & 15 < 5 {
        return Err(Unreadable::Malformed);
    }
    let dst = Addr::from_v4_word(word([h[16], h[17], h[18], h[19]]));
    let ip = Ip {
        v4: true,
        protocol: h[9],
        l3,
        l4: l3 + ((h[0] & 15) as u32) * 4,
        src: Addr::from_v4_word(word([h[12], h[13], h[14], h[15]])),
        dst,
        checksum: u16::from_ne_bytes([h[10], h[11]]),
    };
    // More fragments, or not the first: everything but DF.
    if h[6] & 0x3f != 0 || h[7] != 0 {
        let first = h[6] & 0x1f == 0 && h[7] == 0;
        let id = u16::from_ne_bytes([h[4], h[5]]) as u32;
        return Err(Unreadable::Fragment(Fragment { ip, id, first }));
    }
    Ok(ip)
}

#[inline(always)]
fn ipv6<P: Packet>(packet: &P, l3: u32) -> Result<Ip, Unreadable> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const DESTINATION: u8 = 60;
    let h: [u8; 40] = packet.load(l3).ok_or(Unreadable::Malformed)?;
    if h[0] >> 4 != 6 {
        return Err(Unreadable::Malformed);
    }
    let src = Addr([
        word([h[8], h[9], h[10], h[11]]),
        word([h[12], h[13], h[14], h[15]]),
        word([h[16], h[17], h[18], h[19]]),
        word([h[20], h[21], h[22], h[23]]),
    ]);
    let dst = Addr([
        word([h[24], h[25], h[26], h[27]]),
        word([h[28], h[29], h[30], h[31]]),
        word([h[32], h[33], h[34], h[35]]),
        word([h[36], h[37], h[38], h[39]]),
    ]);
    let mut next = h[6];
    let mut l4 = l3 + 40;
    for _ in 0..MAX_EXTENSIONS {
        match next {
            HOP_BY_HOP | ROUTING | DESTINATION => {
                let e: [u8; 2] = packet.load(l4).ok_or(Unreadable::Malformed)?;
                next = e[0];
                l4 += (e[1] as u32 + 1) * 8;
            }
            FRAGMENT => {
                let e: [u8; 8] = packet.load(l4).ok_or(Unreadable::Malformed)?;
                let ip = Ip {
                    v4: false,
                    protocol: e[0],
                    l3,
                    l4: l4 + 8,
                    src,
                    dst,
                    checksum: 0,
                };
                let first = e[2] == 0 && e[3] & 0xf8 == 0;
                return Err(Unreadable::Fragment(Fragment {
                    ip,
                    id: word([e[4], e[5], e[6], e[7]]),
                    first,
                }));
            }
            protocol => {
                return Ok(Ip {
                    v4: false,
                    protocol,
                    l3,
                    l4,
                    src,
                    dst,
                    checksum: 0,
                });
            }
        }
    }
    Err(Unreadable::Malformed)
}

/// Source and destination port of TCP or UDP.
#[inline(always)]
pub fn ports<P: Packet>(packet: &P, l4: u32) -> Option<(Port, Port)> {
    let b: [u8; 4] = packet.load(l4)?;
    Some((
        Port(u16::from_ne_bytes([b[0], b[1]])),
        Port(u16::from_ne_bytes([b[2], b[3]])),
    ))
}

/// The flags of a TCP header that matter to a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    #[inline(always)]
    pub fn read<P: Packet>(packet: &P, l4: u32) -> Option<Self> {
        let b: [u8; 1] = packet.load(l4 + 13)?;
        Some(Self(b[0]))
    }

    #[inline(always)]
    pub const fn fin(self) -> bool {
        self.0 & 1 != 0
    }

    #[inline(always)]
    pub const fn rst(self) -> bool {
        self.0 & 4 != 0
    }

    #[inline(always)]
    pub const fn syn(self) -> bool {
        self.0 & 2 != 0
    }

    /// Opens a connection: SYN without ACK.
    #[inline(always)]
    pub const fn opens(self) -> bool {
        self.0 & 0x12 == 2
    }

    #[inline(always)]
    pub const fn ack(self) -> bool {
        self.0 & 0x10 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn v4(ihl: u8, frag: u16, protocol: u8) -> Vec<u8> {
        let mut p = std::vec![0u8; ihl as usize * 4];
        p[0] = 0x40 | ihl;
        p[6..8].copy_from_slice(&frag.to_be_bytes());
        p[9] = protocol;
        p[12..16].copy_from_slice(&[192, 0, 2, 1]);
        p[16..20].copy_from_slice(&[198, 51, 100, 2]);
        p.extend([0x1f, 0x90, 0x00, 0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x02]);
        p
    }

    #[test]
    fn ipv4_options_move_the_transport_header() {
        for ihl in 5..=15 {
            let p = v4(ihl, 0x4000, TCP);
            let got = ip(&p.as_slice(), ETH_IPV4, 0).expect("readable");
            assert_eq!(got.l4, u32::from(ihl) * 4);
            assert_eq!(
                (got.src, got.dst),
                (Addr::v4([192, 0, 2, 1]), Addr::v4([198, 51, 100, 2]))
            );
            let (src, dst) = ports(&p.as_slice(), got.l4).expect("ports");
            assert_eq!((src.host_order(), dst.host_order()), (8080, 53));
            assert!(TcpFlags::read(&p.as_slice(), got.l4).expect("flags").opens());
        }
    }

    #[test]
    fn every_fragment_is_one() {
        for (frag, first) in [
            (0x2000, true),
            (0x0001, false),
            (0x2001, false),
            (0x0100, false),
            (0x1fff, false),
        ] {
            let Err(Unreadable::Fragment(fragment)) = ip(&v4(6, frag, UDP).as_slice(), ETH_IPV4, 0) else {
                panic!("{frag:#x} is a fragment");
            };
            assert_eq!(
                (fragment.first, fragment.ip.l4, fragment.ip.protocol),
                (first, 24, UDP),
                "{frag:#x}"
            );
        }
        assert!(
            ip(&v4(5, 0x4000, UDP).as_slice(), ETH_IPV4, 0).is_ok(),
            "DF alone is not a fragment"
        );
    }

    #[test]
    fn a_wrong_version_or_header_length_is_malformed() {
        let mut p = v4(5, 0, TCP);
        p[0] = 0x44;
        assert_eq!(ip(&p.as_slice(), ETH_IPV4, 0), Err(Unreadable::Malformed));
        p[0] = 0x65;
        assert_eq!(ip(&p.as_slice(), ETH_IPV4, 0), Err(Unreadable::Malformed));
        assert_eq!(ip(&p.as_slice(), 0x0806, 0), Err(Unreadable::NotIp));
    }

    fn v6(next: u8, extensions: &[(u8, u8)]) -> Vec<u8> {
        let mut p = std::vec![0u8; 40];
        p[0] = 0x60;
        p[6] = next;
        p[8..24].copy_from_slice(&Addr::v6([0x20; 16]).octets());
        p[24..40].copy_from_slice(&Addr::v6([0x21; 16]).octets());
        for &(next, len) in extensions {
            let start = p.len();
            p.resize(start + (usize::from(len) + 1) * 8, 0);
            p[start] = next;
            p[start + 1] = len;
        }
        p.extend([0, 80, 0, 81]);
        p
    }

    #[test]
    fn ipv6_extension_headers_are_skipped_and_fragments_seen() {
        let p = v6(0, &[(60, 0), (43, 2), (UDP, 1)]);
        let got = ip(&p.as_slice(), ETH_IPV6, 0).expect("readable");
        assert_eq!((got.protocol, got.l4, got.v4), (UDP, 40 + 8 + 24 + 16, false));
        let mut p = v6(0, &[(44, 0), (UDP, 0)]);
        for (offset, first) in [(1u16, true), (0x09, false), (0x08, false)] {
            p[50..52].copy_from_slice(&offset.to_be_bytes());
            p[52..56].copy_from_slice(&[1, 2, 3, 4]);
            let Err(Unreadable::Fragment(fragment)) = ip(&p.as_slice(), ETH_IPV6, 0) else {
                panic!("a fragment header makes a fragment");
            };
            assert_eq!((fragment.first, fragment.ip.l4, fragment.ip.protocol), (first, 56, UDP));
            assert_eq!(fragment.id.to_ne_bytes(), [1, 2, 3, 4]);
        }
        let many = v6(0, &[(0, 0), (0, 0), (0, 0), (0, 0), (UDP, 0)]);
        assert_eq!(ip(&many.as_slice(), ETH_IPV6, 0), Err(Unreadable::Malformed));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, ethertype in prop_oneof![Just(ETH_IPV4), Just(ETH_IPV6)], at in 0u32..64) {
            if let Ok(ip) = ip(&bytes.as_slice(), ethertype, at) {
                prop_assert!(ip.l4 >= ip.l3 + 20);
                let _ = ports(&bytes.as_slice(), ip.l4);
                let _ = TcpFlags::read(&bytes.as_slice(), ip.l4);
                let _ = crate::icmp::inner(&bytes.as_slice(), &ip);
            }
        }
    }
}
