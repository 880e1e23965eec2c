//! Tells the neighbours on the node's links that an address is here now, for addresses that one elected node answers for.
//!
//! IPv4: the kernel answers ARP for every address that is local, so a gratuitous ARP is all there is to do (RFC 5227 §3, and
//! the same as a reply, for those who only learn from replies). IPv6: the kernel answers Neighbor Solicitations only for
//! addresses of the interface, so the address is put there; and an unsolicited Neighbor Advertisement is sent (RFC 4861
//! §7.2.6). A neighbour may miss a frame: it is sent again after one and after three seconds, and every minute.
//!
//! Nobody is told unasked while it may be that the address is another node's by now; whoever asks is answered. And questions of
//! this node do not tell either: by default the kernel asks in the name of the address that a packet is from, and whoever hears
//! that believes it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use crate::error::KernelError;
use crate::netlink::{Link, Netlink};
use crate::{surroundings, sys};

const BROADCAST: [u8; 6] = [0xff; 6];
/// The Ethernet group of `ff02::1` (RFC 2464 §7).
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Seconds after the first announcement at which it is repeated.
const AGAIN: [u32; 2] = [1, 3];
/// And then every so many seconds: switches forget, and a neighbour may have been deaf.
const ROUTINE: u32 = 60;

/// What is announced from this node. Dropping it leaves the addresses: a successor in the same place goes on.
#[derive(Debug)]
pub struct Announcements {
    nics: Vec<String>,
    announced: BTreeMap<IpAddr, Announced>,
}

#[derive(Clone, Copy, Debug)]
struct Announced {
    round: u32,
    /// Since the neighbours were first told. `None`: they are to be.
    seconds: Option<u32>,
}

impl Announcements {
    /// Announces on these interfaces. Empty: those that a default route leaves by.
    pub fn new(nics: Vec<String>) -> Self {
        Self {
            nics,
            announced: BTreeMap::new(),
        }
    }

    /// Announces these addresses from now on, and no others. They must have been made local before. With another number than
    /// before, the neighbours are told again. They are told nothing (`speaks`: false) as long as it may be that an address is
    /// another node's by now.
    ///
    /// # Errors
    /// When interfaces cannot be read or a frame cannot be sent (CAP_NET_RAW is needed, and CAP_NET_ADMIN for IPv6). What can
    /// be done is done; the next [`Self::tick`] tries again.
    pub fn set(&mut self, wanted: &BTreeMap<IpAddr, u32>, speaks: bool) -> Result<(), KernelError> {
        let is_known = |ip: &IpAddr, round: u32| self.announced.get(ip).is_some_and(|known| known.round == round);
        let fresh: Vec<(IpAddr, u32)> = wanted
            .iter()
            .map(|(ip, round)| (*ip, *round))
            .filter(|(ip, round)| !is_known(ip, *round))
            .collect();
        let same = fresh.is_empty() && self.announced.len() == wanted.len();
        self.announced.retain(|ip, _| wanted.contains_key(ip));
        let seconds = speaks.then_some(0);
        let news = fresh.iter().map(|(ip, round)| {
            let round = *round;
            (*ip, Announced { round, seconds })
        });
        self.announced.extend(news);
        if same {
            return Ok(());
        }
        let told = fresh.iter().map(|(ip, _)| *ip).filter(|_| speaks);
        self.announce(told)
    }

    /// Repeats what is due. Call it every second. See [`Self::set`] for `speaks`.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub fn tick(&mut self, speaks: bool) -> Result<(), KernelError> {
        if !speaks {
            return Ok(());
        }
        let due: Vec<IpAddr> = self
            .announced
            .iter_mut()
            .filter_map(|(ip, announced)| announced.is_due().then_some(*ip))
            .collect();
        if due.is_empty() {
            return Ok(());
        }
        self.announce(due)
    }

    /// Has the kernel answer for all, and tells the neighbours of these.
    fn announce(&self, told: impl IntoIterator<Item = IpAddr>) -> Result<(), KernelError> {
        let links = self.links()?;
        let answered = self.answer(&links);
        let hidden = self.hide(&links);
        announce(&links, told)?;
        answered.and(hidden)
    }

    /// Keeps the kernel from asking for neighbours in the name of what is announced.
    fn hide(&self, links: &[Link]) -> Result<(), KernelError> {
        if !self.announced.keys().any(IpAddr::is_ipv4) {
            return Ok(());
        }
        let mut netlink = Netlink::open().map_err(KernelError::system("open rtnetlink"))?;
        links
            .iter()
            .try_for_each(|link| netlink.ask_as_interface(link.index))
            .map_err(KernelError::system("set arp_announce of the external interfaces to 2"))
    }

    fn links(&self) -> Result<Vec<Link>, KernelError> {
        let mut netlink = Netlink::open().map_err(KernelError::system("open rtnetlink"))?;
        surroundings::external(&mut netlink, &self.nics)
    }

    /// Has the kernel answer Neighbor Solicitations for what is announced, and for nothing else of ours.
    fn answer(&self, links: &[Link]) -> Result<(), KernelError> {
        let system = KernelError::system("put announced addresses on the external interfaces");
        let mut netlink = Netlink::open().map_err(KernelError::system("open rtnetlink"))?;
        let wanted: BTreeSet<(u32, Ipv6Addr)> = self
            .announced
            .keys()
            .filter_map(|ip| match ip {
                IpAddr::V6(ip) => Some(*ip),
                IpAddr::V4(_) => None,
            })
            .flat_map(|ip| links.iter().map(move |link| (link.index, ip)))
            .collect();
        let there: BTreeSet<(u32, Ipv6Addr)> = netlink.neighbors().map_err(&system)?.into_iter().collect();
        for (index, ip) in there.difference(&wanted) {
            netlink.remove_neighbor(*index, *ip).map_err(&system)?;
        }
        for (index, ip) in wanted.difference(&there) {
            netlink.add_neighbor(*index, *ip).map_err(&system)?;
        }
        Ok(())
    }
}

impl Announced {
    /// A second later.
    fn is_due(&mut self) -> bool {
        let seconds = self.seconds.map_or(0, |seconds| seconds.saturating_add(1));
        self.seconds = Some(seconds);
        AGAIN.contains(&seconds) || seconds.is_multiple_of(ROUTINE)
    }
}

/// Removes every address that an [`Announcements`] put on an interface of this network namespace.
pub(crate) fn forget(netlink: &mut Netlink) -> io::Result<()> {
    for (index, ip) in netlink.neighbors()? {
        netlink.remove_neighbor(index, ip)?;
    }
    Ok(())
}

fn announce(links: &[Link], addresses: impl IntoIterator<Item = IpAddr>) -> Result<(), KernelError> {
    let system = KernelError::system("announce addresses to the neighbours (CAP_NET_RAW is needed)");
    let mut socket: Option<OwnedFd> = None;
    for ip in addresses {
        for link in links {
            let Some(mac) = link.mac else { continue };
            let socket = match &socket {
                Some(socket) => socket,
                None => socket.insert(sys::packet_socket().map_err(&system)?),
            };
            for frame in frames(mac, ip) {
                sys::send_frame(socket, link.index, &frame).map_err(&system)?;
            }
        }
    }
    Ok(())
}

fn frames(mac: [u8; 6], ip: IpAddr) -> Vec<Vec<u8>> {
    match ip {
        IpAddr::V4(ip) => vec![arp(mac, ip, 1), arp(mac, ip, 2)],
        IpAddr::V6(ip) => vec![advertisement(mac, ip)],
    }
}

/// A gratuitous ARP (RFC 826): sender and target are the same. `operation`: 1 request, 2 reply.
fn arp(mac: [u8; 6], ip: Ipv4Addr, operation: u8) -> Vec<u8> {
    let mut frame = Vec::with_capacity(42);
    frame.extend(BROADCAST);
    frame.extend(mac);
    // EtherType ARP; hardware Ethernet, protocol IPv4, lengths 6 and 4.
    frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, operation]);
    frame.extend(mac);
    frame.extend(ip.octets());
    frame.extend(if operation == 1 { [0; 6] } else { BROADCAST });
    frame.extend(ip.octets());
    frame
}

/// An unsolicited Neighbor Advertisement to all nodes, with the override flag (RFC 4861 §4.4).
fn advertisement(mac: [u8; 6], ip: Ipv6Addr) -> Vec<u8> {
    let mut icmp = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    icmp.extend(ip.octets());
    icmp.extend([2, 1]);
    icmp.extend(mac);
    let sum = icmp6_checksum(ip, ALL_NODES, &icmp);
    if let Some(field) = icmp.get_mut(2..4) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
    let mut frame = Vec::with_capacity(14 + 40 + icmp.len());
    frame.extend(ALL_NODES_MAC);
    frame.extend(mac);
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    frame.extend((icmp.len() as u16).to_be_bytes());
    // Next header ICMPv6; hop limit 255, or it is not believed.
    frame.extend([58, 255]);
    frame.extend(ip.octets());
    frame.extend(ALL_NODES.octets());
    frame.extend(icmp);
    frame
}

/// The checksum of RFC 4443 §2.3 over an even number of bytes, whose own field must be zero.
fn icmp6_checksum(from: Ipv6Addr, to: Ipv6Addr, icmp: &[u8]) -> u16 {
    let pseudo = [0, 0, (icmp.len() >> 8) as u8, icmp.len() as u8, 0, 0, 0, 58];
    let words = [&from.octets()[..], &to.octets()[..], &pseudo[..], icmp];
    let mut sum: u32 = words
        .iter()
        .flat_map(|bytes| bytes.as_chunks::<2>().0)
        .map(|word| u32::from(u16::from_be_bytes(*word)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

    #[test]
    fn neighbours_are_told_again_and_not_before_it_is_known_that_the_address_is_here() {
        let mut announced = Announced {
            round: 0,
            seconds: None,
        };
        let due: Vec<u32> = (0..130).filter(|_| announced.is_due()).collect();
        assert_eq!(due, [0, 1, 3, 60, 120]);
        announced.seconds = Some(0);
        let due: Vec<u32> = (1..70).filter(|_| announced.is_due()).collect();
        assert_eq!(due, [1, 3, 60], "the first was sent when it was set");
    }

    #[test]
    fn a_gratuitous_arp_names_the_address_twice() {
        let frame = arp(MAC, Ipv4Addr::new(192, 0, 2, 9), 1);
        let expected = [
            &[0xff; 6][..],
            &MAC,
            &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
            &MAC,
            &[192, 0, 2, 9, 0, 0, 0, 0, 0, 0, 192, 0, 2, 9],
        ]
        .concat();
        assert_eq!(frame, expected);
        assert_eq!(arp(MAC, Ipv4Addr::LOCALHOST, 2).len(), 42);
    }

    #[test]
    fn an_advertisement_is_valid() {
        let ip: Ipv6Addr = "2001:db8::9".parse().unwrap();
        let frame = advertisement(MAC, ip);
        assert_eq!(frame.len(), 14 + 40 + 32);
        assert_eq!(frame[21], 255, "hop limit");
        // Summed with its checksum in place, the message comes to nothing.
        let mut icmp = frame[54..].to_vec();
        assert_eq!(icmp6_checksum(ip, ALL_NODES, &icmp), 0);
        assert_eq!(icmp[8..24], ip.octets());
        assert_eq!(icmp[24..], [2, 1, 2, 0, 0, 0, 0, 7]);
        icmp[10] ^= 1;
        assert_ne!(icmp6_checksum(ip, ALL_NODES, &icmp), 0);
    }
}
