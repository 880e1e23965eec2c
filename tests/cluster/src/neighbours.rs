//! Asks, as a neighbour on the client's link, who answers for an address: ARP and Neighbor Discovery, frame by frame. The
//! kernel's own table keeps one answer; here all count.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recv, sendto, socket};

use crate::lab::{CLIENT_LINK, Lab};

/// An Ethernet address.
pub type Mac = [u8; 6];

/// How long answers may take. Whoever answers at all does so within a millisecond.
const PATIENCE: Duration = Duration::from_millis(500);
const STEP: Duration = Duration::from_millis(5);
const LONGEST: usize = 1514;

const ARP: [u8; 2] = [0x08, 0x06];
const IPV6: [u8; 2] = [0x86, 0xdd];
const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

impl Lab {
    /// Everybody who says that the address is his.
    ///
    /// # Errors
    /// The client cannot ask.
    pub fn answers(&self, address: IpAddr) -> Result<BTreeSet<Mac>> {
        self.host.enter(|| ask(address))?
    }
}

/// The client's interface.
struct Own {
    link: LinkAddr,
    mac: Mac,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
}

fn ask(address: IpAddr) -> Result<BTreeSet<Mac>> {
    let own = own()?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket: OwnedFd =
        socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll).context("a socket for frames")?;
    let question = match address {
        IpAddr::V4(address) => arp_request(&own, address),
        IpAddr::V6(address) => solicitation(&own, address),
    };
    sendto(socket.as_raw_fd(), &question, &own.link, MsgFlags::empty()).context("cannot ask")?;
    let deadline = Instant::now() + PATIENCE;
    let mut found = BTreeSet::new();
    while Instant::now() < deadline {
        let mut frame = [0; LONGEST];
        match recv(socket.as_raw_fd(), &mut frame, MsgFlags::empty()) {
            Ok(length) => found.extend(answer(frame.get(..length).unwrap_or_default(), address)),
            Err(nix::Error::EAGAIN) => thread::sleep(STEP),
            Err(error) => return Err(error).context("cannot hear"),
        }
    }
    found.remove(&own.mac);
    Ok(found)
}

fn own() -> Result<Own> {
    let (mut link, mut v4, mut v6) = (None, None, None);
    for one in getifaddrs()?.filter(|one| one.interface_name == CLIENT_LINK) {
        let Some(address) = one.address else { continue };
        link = link.or_else(|| address.as_link_addr().copied());
        v4 = v4.or_else(|| address.as_sockaddr_in().map(|address| address.ip()));
        let global = address.as_sockaddr_in6().map(|address| address.ip());
        v6 = v6.or_else(|| global.filter(|ip| !ip.is_unicast_link_local()));
    }
    let link = link.context("the client has no such interface")?;
    Ok(Own {
        mac: link.addr().context("no Ethernet address")?,
        link,
        v4: v4.context("no IPv4 address")?,
        v6: v6.context("no IPv6 address")?,
    })
}

/// RFC 826.
fn arp_request(own: &Own, address: Ipv4Addr) -> Vec<u8> {
    let (mac, from, to) = (own.mac, own.v4.octets(), address.octets());
    // Hardware Ethernet, protocol IPv4, lengths 6 and 4, a request.
    let head = [0, 1, 0x08, 0, 6, 4, 0, 1];
    [&[0xff; 6][..], &mac, &ARP, &head, &mac, &from, &[0; 6], &to].concat()
}

/// RFC 4861 4.3, to the group of all whose address ends so (RFC 4291 2.7.1).
fn solicitation(own: &Own, address: Ipv6Addr) -> Vec<u8> {
    let [.., x, y, z] = address.octets();
    let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, x, y, z]);
    let mut icmp = [
        &[SOLICITATION, 0, 0, 0, 0, 0, 0, 0][..],
        &address.octets(),
        // Whom to answer.
        &[1, 1],
        &own.mac,
    ]
    .concat();
    let sum = checksum(own.v6, group, &icmp).to_be_bytes();
    icmp[2..4].copy_from_slice(&sum);
    let length = u8::try_from(icmp.len()).unwrap_or_default();
    let head = [0x60, 0, 0, 0, 0, length, ICMPV6, 255];
    let to = [0x33, 0x33, 0xff, x, y, z];
    [
        &to[..],
        &own.mac,
        &IPV6,
        &head,
        &own.v6.octets(),
        &group.octets(),
        &icmp,
    ]
    .concat()
}

/// RFC 4443 2.3, over an even number of bytes.
fn checksum(from: Ipv6Addr, to: Ipv6Addr, icmp: &[u8]) -> u16 {
    let pseudo = [0, 0, 0, u8::try_from(icmp.len()).unwrap_or_default(), 0, 0, 0, ICMPV6];
    let all = [&from.octets()[..], &to.octets(), &pseudo, icmp].concat();
    let mut sum: u32 = all
        .as_chunks::<2>()
        .0
        .iter()
        .map(|word| u32::from(u16::from_be_bytes(*word)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

/// Whose the address is, if the frame says so.
fn answer(frame: &[u8], address: IpAddr) -> Option<Mac> {
    match (address, frame.get(12..14)?.try_into().ok()?) {
        (IpAddr::V4(address), ARP) => {
            let is_reply = frame.get(20..22)? == [0, 2];
            let is_its = frame.get(28..32)? == address.octets();
            (is_reply && is_its)
                .then(|| frame.get(22..28)?.try_into().ok())
                .flatten()
        }
        (IpAddr::V6(address), IPV6) => {
            let is_advertisement = *frame.get(20)? == ICMPV6 && *frame.get(54)? == ADVERTISEMENT;
            let is_its = frame.get(62..78)? == address.octets();
            (is_advertisement && is_its)
                .then(|| frame.get(6..12)?.try_into().ok())
                .flatten()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 7];

    #[test]
    fn an_answer_names_its_sender_and_a_question_is_none() {
        let address = Ipv4Addr::new(192, 0, 2, 9);
        let mut frame = [
            &[0xff; 6][..],
            &MAC,
            &ARP,
            &[0, 1, 8, 0, 6, 4, 0, 2],
            &MAC,
            &address.octets(),
        ]
        .concat();
        frame.extend([0; 10]);
        assert_eq!(answer(&frame, address.into()), Some(MAC));
        assert_eq!(answer(&frame, Ipv4Addr::LOCALHOST.into()), None);
        frame[21] = 1;
        assert_eq!(answer(&frame, address.into()), None);
        assert_eq!(answer(&frame[..20], address.into()), None);
    }

    #[test]
    fn an_advertisement_names_its_sender() {
        let address: Ipv6Addr = "2001:db8::9".parse().unwrap();
        let mut frame = [
            &[0x33; 6][..],
            &MAC,
            &IPV6,
            &[0x60, 0, 0, 0, 0, 24, ICMPV6, 255],
            &[0; 32],
        ]
        .concat();
        frame.extend([ADVERTISEMENT, 0, 0, 0, 0, 0, 0, 0]);
        frame.extend(address.octets());
        assert_eq!(answer(&frame, address.into()), Some(MAC));
        frame[54] = SOLICITATION;
        assert_eq!(answer(&frame, address.into()), None);
    }

    #[test]
    fn the_checksum_makes_the_message_sum_to_nothing() {
        let (from, to) = (Ipv6Addr::LOCALHOST, "ff02::1:ff00:9".parse().unwrap());
        let mut icmp = vec![SOLICITATION, 0, 0, 0, 1, 2, 3, 4];
        let sum = checksum(from, to, &icmp).to_be_bytes();
        icmp[2..4].copy_from_slice(&sum);
        assert_eq!(checksum(from, to, &icmp), 0);
    }
}
