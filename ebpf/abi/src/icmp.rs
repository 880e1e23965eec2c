//! ICMP errors: the packet they are about, and how to rewrite it so that the receiver recognises its own.

use crate::addr::{Addr, Port};
use crate::checksum;
use crate::packet::{self, ETH_IPV4, ETH_IPV6, ICMP, ICMPV6, Ip, Packet, TCP, UDP, field};

/// The packet inside an ICMP error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner {
    pub ip: Ip,
    pub src: Port,
    pub dst: Port,
}

/// `None` where this is no error message, or not about TCP or UDP, or is cut before the ports.
#[inline(always)]
pub fn inner<P: Packet>(packet: &P, outer: &Ip) -> Option<Inner> {
    let kind: [u8; 1] = packet.load(outer.l4)?;
    let ethertype = match (outer.protocol, outer.v4) {
        // Destination unreachable (with "fragmentation needed"), time exceeded, parameter problem.
        (ICMP, true) if matches!(kind[0], 3 | 11 | 12) => ETH_IPV4,
        // Destination unreachable, packet too big, time exceeded, parameter problem.
        (ICMPV6, false) if matches!(kind[0], 1..=4) => ETH_IPV6,
        _ => return None,
    };
    let ip = packet::ip(packet, ethertype, outer.l4 + field::ICMP_INNER).ok()?;
    if ip.protocol != TCP && ip.protocol != UDP {
        return None;
    }
    let (src, dst) = packet::ports(packet, ip.l4)?;
    Some(Inner { ip, src, dst })
}

/// Which end of the inner packet is rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Src,
    Dst,
}

/// A checksum field and its new value; offset 0 says that there is none. (No `Option`: the compiler copies its unset
/// half around, which the verifier takes for a read of an uninitialised register.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Check {
    pub offset: u32,
    pub value: u16,
}

/// Changes to the inner packet, and what they do to the ICMP checksum. Checksums as they lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edit {
    pub addr_offset: u32,
    pub port_offset: u32,
    /// The inner IPv4 header checksum.
    pub ip_check: Check,
    /// The inner transport checksum, where the message is long enough to hold it.
    pub l4_check: Check,
    /// Difference of all bytes above, for the ICMP checksum.
    pub diff: u32,
}

/// Plans the replacement of one end of the inner packet.
#[inline(always)]
pub fn edit<P: Packet>(packet: &P, inner: &Inner, end: End, addr: &Addr, port: Port) -> Edit {
    let (old_addr, old_port, addr_offset, port_offset) = match end {
        End::Src => (
            &inner.ip.src,
            inner.src,
            inner.ip.src_offset(),
            inner.ip.l4 + field::SRC_PORT,
        ),
        End::Dst => (
            &inner.ip.dst,
            inner.dst,
            inner.ip.dst_offset(),
            inner.ip.l4 + field::DST_PORT,
        ),
    };
    let by_addr = checksum::diff_addr(&old_addr.0, &addr.0);
    let by_port = checksum::diff16(old_port.0, port.0);
    let mut diff = checksum::add(by_addr, by_port);
    let mut ip_check = Check::default();
    if inner.ip.v4 {
        let offset = inner.ip.l3 + field::IPV4_CHECKSUM;
        if let Some(bytes) = packet.load::<2>(offset) {
            let old = u16::from_ne_bytes(bytes);
            let new = checksum::apply(old, by_addr);
            diff = checksum::add(diff, checksum::diff16(old, new));
            ip_check = Check { offset, value: new };
        }
    }
    let mut l4_check = Check::default();
    if let Some(offset) = inner.ip.checksum_offset()
        && let Some(bytes) = packet.load::<2>(offset)
    {
        let old = u16::from_ne_bytes(bytes);
        // RFC 768: zero says that there is no checksum, and a computed zero is sent as all ones.
        if !(inner.ip.protocol == UDP && old == 0) {
            let mut new = checksum::apply(old, checksum::add(by_addr, by_port));
            if inner.ip.protocol == UDP && new == 0 {
                new = 0xffff;
            }
            diff = checksum::add(diff, checksum::diff16(old, new));
            l4_check = Check { offset, value: new };
        }
    }
    Edit {
        addr_offset,
        port_offset,
        ip_check,
        l4_check,
        diff,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::tests::{checksum, same};
    use proptest::prelude::*;
    use std::vec::Vec;

    /// An ICMPv4 error about a UDP packet with `payload`, all checksums right.
    fn error_v4(kind: u8, src: [u8; 4], dst: [u8; 4], sport: u16, dport: u16, payload: &[u8], zero: bool) -> Vec<u8> {
        let mut inner = std::vec![0u8; 28];
        inner[0] = 0x45;
        inner[8] = 64;
        inner[9] = UDP;
        inner[12..16].copy_from_slice(&src);
        inner[16..20].copy_from_slice(&dst);
        let c = checksum(&inner[..20]);
        inner[10..12].copy_from_slice(&c.to_ne_bytes());
        inner[20..22].copy_from_slice(&sport.to_be_bytes());
        inner[22..24].copy_from_slice(&dport.to_be_bytes());
        inner.extend(payload);
        if !zero {
            let c = udp_check(&inner);
            inner[26..28].copy_from_slice(&c.to_ne_bytes());
        }
        let mut p = std::vec![0u8; 28];
        p[0] = 0x45;
        p[9] = ICMP;
        p[20] = kind;
        p.extend(inner);
        let c = checksum(&p[20..]);
        p[22..24].copy_from_slice(&c.to_ne_bytes());
        p
    }

    fn udp_check(inner: &[u8]) -> u16 {
        let mut data: Vec<u8> = inner[12..20].to_vec();
        data.extend([0, UDP]);
        data.extend(&inner[20..26]);
        data.extend([0, 0]);
        data.extend(&inner[28..]);
        checksum(&data)
    }

    proptest! {
        #[test]
        fn an_edited_error_has_right_checksums(
            src: [u8; 4], dst: [u8; 4], to: [u8; 4], sport: u16, dport: u16, port: u16,
            payload in proptest::collection::vec(any::<u8>(), 0..40), zero: bool, at_src: bool,
        ) {
            let mut p = error_v4(3, src, dst, sport, dport, &payload, zero);
            let outer = packet::ip(&p.as_slice(), ETH_IPV4, 0).expect("readable");
            let inner = inner(&p.as_slice(), &outer).expect("an error about UDP");
            let end = if at_src { End::Src } else { End::Dst };
            let edit = edit(&p.as_slice(), &inner, end, &Addr::v4(to), Port::new(port));
            let put = |p: &mut Vec<u8>, at: u32, bytes: &[u8]| {
                p[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
            };
            put(&mut p, edit.addr_offset, &to);
            put(&mut p, edit.port_offset, &port.to_be_bytes());
            for check in [edit.ip_check, edit.l4_check].into_iter().filter(|check| check.offset != 0) {
                put(&mut p, check.offset, &check.value.to_ne_bytes());
            }
            let old = u16::from_ne_bytes([p[22], p[23]]);
            put(&mut p, 22, &checksum::apply(old, edit.diff).to_ne_bytes());
            prop_assert!(same(checksum(&p[20..]), 0), "ICMP");
            prop_assert!(same(checksum(&p[28..48]), 0), "inner IP");
            let stored = u16::from_ne_bytes([p[54], p[55]]);
            if zero {
                prop_assert_eq!(stored, 0);
            } else {
                prop_assert!(same(udp_check(&p[28..]), stored), "inner UDP");
                prop_assert_ne!(stored, 0);
            }
        }
    }

    #[test]
    fn only_errors_have_an_inner_packet() {
        for kind in 0..=40u8 {
            let p = error_v4(kind, [192, 0, 2, 1], [192, 0, 2, 2], 1, 2, &[], false);
            let outer = packet::ip(&p.as_slice(), ETH_IPV4, 0).expect("readable");
            assert_eq!(
                inner(&p.as_slice(), &outer).is_some(),
                matches!(kind, 3 | 11 | 12),
                "type {kind}"
            );
        }
    }
}
