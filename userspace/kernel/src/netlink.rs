//! The little of rtnetlink that is needed: links, addresses, default routes, one route lookup, local routes, and the
//! addresses for which the kernel is to answer Neighbor Solicitations.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use ipnet::IpNet;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

const ERROR: u16 = 2;
const DONE: u16 = 3;
const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const SET_LINK: u16 = 19;
const NEW_ADDR: u16 = 20;
const DEL_ADDR: u16 = 21;
const GET_ADDR: u16 = 22;
const NEW_ROUTE: u16 = 24;
const DEL_ROUTE: u16 = 25;
const GET_ROUTE: u16 = 26;

const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const EXCL: u16 = 0x200;
const CREATE: u16 = 0x400;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_MULTIPATH: u16 = 9;
const RTA_VIA: u16 = 18;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_CACHEINFO: u16 = 6;
const IFA_FLAGS: u16 = 8;
const IFA_PROTO: u16 = 11;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_INET_CONF: u16 = 1;
const CONF_ARP_ANNOUNCE: u16 = 18;

const TYPE_UNICAST: u8 = 1;
const TYPE_LOCAL: u8 = 2;
const TABLE_LOCAL: u8 = 255;
const SCOPE_HOST: u8 = 254;
const ARPHRD_ETHER: u16 = 1;
const LOOPBACK: u32 = 1;

/// No duplicate detection (the address is one node's by election), and no route to the rest of a prefix.
const NODAD_NOPREFIXROUTE: u32 = 0x202;

/// Marks our local routes and addresses, so that we remove nobody else's.
const PROTOCOL: u8 = 178;

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) ethernet: bool,
    /// Its hardware address, where it has one of six bytes.
    pub(crate) mac: Option<[u8; 6]>,
}

/// Where a packet to an address would go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// To this machine.
    Local,
    /// Out of an interface, to the address itself or to a gateway.
    Out { index: u32, gateway: bool },
    /// Nowhere.
    None,
}

pub(crate) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

struct Message {
    kind: u16,
    body: Vec<u8>,
}

impl Netlink {
    pub(crate) fn open() -> io::Result<Self> {
        let socket = // Protocol 0 is NETLINK_ROUTE.
            rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        Ok(Self { socket, sequence: 0 })
    }

    fn request(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<Vec<Message>> {
        self.sequence += 1;
        let mut message = Vec::with_capacity(16 + body.len());
        message.extend(((16 + body.len()) as u32).to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend((REQUEST | flags).to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend(0u32.to_ne_bytes());
        message.extend(body);
        rustix::net::sendto(
            &self.socket,
            &message,
            SendFlags::empty(),
            &SocketAddrNetlink::new(0, 0),
        )?;
        let mut answers = Vec::new();
        let mut buffer = vec![0u8; 64 * 1024];
        loop {
            let (n, _) = rustix::net::recv(&self.socket, &mut buffer, RecvFlags::empty())?;
            let mut rest = buffer.get(..n).unwrap_or_default();
            while let Some((header, tail)) = rest.split_first_chunk::<16>() {
                let len = u32_at(header, 0) as usize;
                let body = tail.get(..len.saturating_sub(16)).unwrap_or_default();
                let kind = u16::from_ne_bytes([header[4], header[5]]);
                let ours = u32_at(header, 8) == self.sequence;
                match kind {
                    _ if !ours => {}
                    ERROR => {
                        let code = body.first_chunk::<4>().map_or(0, |b| i32::from_ne_bytes(*b));
                        return if code == 0 {
                            Ok(answers)
                        } else {
                            Err(io::Error::from_raw_os_error(-code))
                        };
                    }
                    DONE => return Ok(answers),
                    kind => {
                        answers.push(Message {
                            kind,
                            body: body.to_vec(),
                        });
                        // Neither a dump nor an acknowledged request: one answer is all.
                        if flags & (DUMP | ACK) == 0 {
                            return Ok(answers);
                        }
                    }
                }
                rest = rest.get(len.next_multiple_of(4).max(16)..).unwrap_or_default();
            }
        }
    }

    pub(crate) fn links(&mut self) -> io::Result<Vec<Link>> {
        let links = self.request(GET_LINK, DUMP, &[0; 16])?;
        let read = |message: &Message| {
            let head = message.body.first_chunk::<16>()?;
            let all: Vec<_> = attributes(message.body.get(16..)?).collect();
            let pick = |wanted| all.iter().find(|(kind, _)| *kind == wanted).map(|(_, value)| *value);
            let name = pick(IFLA_IFNAME)?;
            Some(Link {
                index: u32_at(head, 4),
                name: String::from_utf8_lossy(name.strip_suffix(&[0]).unwrap_or(name)).into_owned(),
                ethernet: u16::from_ne_bytes([head[2], head[3]]) == ARPHRD_ETHER,
                mac: pick(IFLA_ADDRESS).and_then(|mac| mac.try_into().ok()),
            })
        };
        Ok(links
            .iter()
            .filter(|message| message.kind == NEW_LINK)
            .filter_map(read)
            .collect())
    }

    /// Addresses with the index of their interface, without link-local ones.
    pub(crate) fn addresses(&mut self) -> io::Result<Vec<(u32, IpAddr)>> {
        let addresses = self.request(GET_ADDR, DUMP, &[0; 8])?;
        let read = |message: &Message| {
            let head = message.body.first_chunk::<8>()?;
            let scope = head[3];
            let all: Vec<_> = attributes(message.body.get(8..)?).collect();
            let pick = |wanted| all.iter().find(|(kind, _)| *kind == wanted).map(|(_, value)| *value);
            // On a point-to-point link ADDRESS is the peer's.
            let ip = ip(pick(IFA_LOCAL).or_else(|| pick(IFA_ADDRESS))?)?;
            (scope < 253).then_some((u32_at(head, 4), ip))
        };
        Ok(addresses
            .iter()
            .filter(|message| message.kind == NEW_ADDR)
            .filter_map(read)
            .collect())
    }

    /// Interfaces that a default route leaves by.
    pub(crate) fn default_interfaces(&mut self) -> io::Result<BTreeSet<u32>> {
        let mut found = BTreeSet::new();
        for family in [libc::AF_INET, libc::AF_INET6] {
            let mut body = [0u8; 12];
            body[0] = family as u8;
            for message in self.request(GET_ROUTE, DUMP, &body)? {
                let Some(head) = message.body.first_chunk::<12>() else {
                    continue;
                };
                let (to_bits, table, kind) = (head[1], head[4], head[7]);
                if message.kind != NEW_ROUTE || to_bits != 0 || table == TABLE_LOCAL || kind != TYPE_UNICAST {
                    continue;
                }
                for (kind, value) in attributes(message.body.get(12..).unwrap_or_default()) {
                    match kind {
                        RTA_OIF => found.extend(value.first_chunk::<4>().map(|b| u32::from_ne_bytes(*b))),
                        RTA_MULTIPATH => {
                            let mut rest = value;
                            while let Some(hop) = rest.first_chunk::<8>() {
                                found.insert(u32_at(hop, 4));
                                let len = usize::from(u16::from_ne_bytes([hop[0], hop[1]]));
                                rest = rest.get(len.next_multiple_of(4).max(8)..).unwrap_or_default();
                            }
                        }
                        _ => {}
                    }
                }
            }
        }
        found.remove(&LOOPBACK);
        Ok(found)
    }

    /// What the routing tables say about one destination.
    pub(crate) fn route_to(&mut self, to: IpAddr) -> io::Result<Route> {
        let mut body = route_head(to, 0);
        push_address(&mut body, RTA_DST, to);
        let answer = match self.request(GET_ROUTE, 0, &body) {
            Ok(answer) => answer,
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EINVAL | libc::EACCES)
                ) =>
            {
                return Ok(Route::None);
            }
            Err(error) => return Err(error),
        };
        let Some((head, rest)) = answer
            .first()
            .and_then(|message| message.body.split_first_chunk::<12>())
        else {
            return Ok(Route::None);
        };
        match head[7] {
            TYPE_LOCAL => Ok(Route::Local),
            TYPE_UNICAST => {
                let mut index = None;
                let mut gateway = false;
                for (kind, value) in attributes(rest) {
                    match kind {
                        RTA_OIF => index = value.first_chunk::<4>().map(|b| u32::from_ne_bytes(*b)),
                        RTA_GATEWAY | RTA_VIA => gateway = true,
                        _ => {}
                    }
                }
                Ok(index.map_or(Route::None, |index| Route::Out { index, gateway }))
            }
            _ => Ok(Route::None),
        }
    }

    /// Makes every address of a prefix local. Nothing happens when it already is.
    pub(crate) fn add_local(&mut self, net: IpNet) -> io::Result<()> {
        match self.request(NEW_ROUTE, ACK | CREATE | EXCL, &local_route(net)) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            result => result.map(drop),
        }
    }

    /// Takes back what [`Self::add_local`] did, and only that: a route of somebody else stays.
    pub(crate) fn remove_local(&mut self, net: IpNet) -> io::Result<()> {
        match self.request(DEL_ROUTE, ACK, &local_route(net)) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            result => result.map(drop),
        }
    }

    /// Has the kernel ask for neighbours on an interface with an address of that interface, not with the one that a packet is
    /// from: sysctl `arp_announce` = 2.
    pub(crate) fn ask_as_interface(&mut self, index: u32) -> io::Result<()> {
        let mut setting = Vec::new();
        push(&mut setting, CONF_ARP_ANNOUNCE, &2_u32.to_ne_bytes());
        let mut inet = Vec::new();
        push(&mut inet, IFLA_INET_CONF, &setting);
        let mut families = Vec::new();
        push(&mut families, libc::AF_INET as u16, &inet);
        let mut body = vec![0; 16];
        if let Some(field) = body.get_mut(4..8) {
            field.copy_from_slice(&index.to_ne_bytes());
        }
        push(&mut body, IFLA_AF_SPEC, &families);
        self.request(SET_LINK, ACK, &body).map(drop)
    }

    /// Puts an IPv6 address on an interface, so that the kernel answers Neighbor Solicitations for it. It is deprecated from
    /// the start (preferred lifetime 0): nothing is sent from it unless asked for.
    pub(crate) fn add_neighbor(&mut self, index: u32, ip: Ipv6Addr) -> io::Result<()> {
        let mut body = interface_address(index, ip);
        push(&mut body, IFA_FLAGS, &NODAD_NOPREFIXROUTE.to_ne_bytes());
        let lifetimes: Vec<u8> = [0u32, u32::MAX, 0, 0].iter().flat_map(|n| n.to_ne_bytes()).collect();
        push(&mut body, IFA_CACHEINFO, &lifetimes);
        push(&mut body, IFA_PROTO, &[PROTOCOL]);
        body.resize(body.len().next_multiple_of(4), 0);
        match self.request(NEW_ADDR, ACK | CREATE | EXCL, &body) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            result => result.map(drop),
        }
    }

    /// Takes back what [`Self::add_neighbor`] did.
    pub(crate) fn remove_neighbor(&mut self, index: u32, ip: Ipv6Addr) -> io::Result<()> {
        match self.request(DEL_ADDR, ACK, &interface_address(index, ip)) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::ENODEV)) => Ok(()),
            result => result.map(drop),
        }
    }

    /// What [`Self::add_neighbor`] put on interfaces, also in an earlier life. Kernels before 5.18 do not tell.
    pub(crate) fn neighbors(&mut self) -> io::Result<Vec<(u32, Ipv6Addr)>> {
        let mut body = [0u8; 8];
        body[0] = libc::AF_INET6 as u8;
        let read = |message: &Message| {
            let head = message.body.first_chunk::<8>()?;
            let all: Vec<_> = attributes(message.body.get(8..)?).collect();
            let pick = |wanted| all.iter().find(|(kind, _)| *kind == wanted).map(|(_, value)| *value);
            let ours = pick(IFA_PROTO)?.first() == Some(&PROTOCOL);
            match ip(pick(IFA_LOCAL).or_else(|| pick(IFA_ADDRESS))?)? {
                IpAddr::V6(ip) if ours => Some((u32_at(head, 4), ip)),
                _ => None,
            }
        };
        let addresses = self.request(GET_ADDR, DUMP, &body)?;
        Ok(addresses
            .iter()
            .filter(|message| message.kind == NEW_ADDR)
            .filter_map(read)
            .collect())
    }

    /// The prefixes that [`Self::add_local`] made local.
    pub(crate) fn locals(&mut self) -> io::Result<Vec<IpNet>> {
        let mut found = Vec::new();
        for family in [libc::AF_INET, libc::AF_INET6] {
            let mut body = [0u8; 12];
            body[0] = family as u8;
            for message in self.request(GET_ROUTE, DUMP, &body)? {
                let Some((head, rest)) = message.body.split_first_chunk::<12>() else {
                    continue;
                };
                if head[5] != PROTOCOL || head[7] != TYPE_LOCAL {
                    continue;
                }
                let to = attributes(rest)
                    .find(|(kind, _)| *kind == RTA_DST)
                    .and_then(|(_, value)| ip(value));
                found.extend(to.and_then(|to| IpNet::new(to, head[1]).ok()));
            }
        }
        Ok(found)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..)
        .and_then(|b| b.first_chunk::<4>())
        .map_or(0, |b| u32::from_ne_bytes(*b))
}

fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (head, tail) = rest.split_first_chunk::<4>()?;
        let len = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let value = tail.get(..len.checked_sub(4)?)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        // The two upper bits say "nested" and "network order".
        Some((u16::from_ne_bytes([head[2], head[3]]) & 0x3fff, value))
    })
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        Some(Ipv4Addr::from(v4).into())
    } else {
        <[u8; 16]>::try_from(bytes).ok().map(|v6| Ipv6Addr::from(v6).into())
    }
}

fn route_head(to: IpAddr, kind: u8) -> Vec<u8> {
    let (family, bits) = match to {
        IpAddr::V4(_) => (libc::AF_INET, 32),
        IpAddr::V6(_) => (libc::AF_INET6, 128),
    };
    vec![family as u8, bits, 0, 0, 0, 0, 0, kind, 0, 0, 0, 0]
}

fn push(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend(((4 + value.len()) as u16).to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
}

fn push_address(body: &mut Vec<u8>, kind: u16, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => push(body, kind, &ip.octets()),
        IpAddr::V6(ip) => push(body, kind, &ip.octets()),
    }
}

/// `ADDRESS/128 dev INDEX`.
fn interface_address(index: u32, ip: Ipv6Addr) -> Vec<u8> {
    let mut body = vec![libc::AF_INET6 as u8, 128, 0, 0];
    body.extend(index.to_ne_bytes());
    push_address(&mut body, IFA_LOCAL, ip.into());
    push_address(&mut body, IFA_ADDRESS, ip.into());
    body
}

/// `local NET dev lo proto 178`.
fn local_route(net: IpNet) -> Vec<u8> {
    let mut body = route_head(net.network(), TYPE_LOCAL);
    body[1] = net.prefix_len();
    body[4] = TABLE_LOCAL;
    body[5] = PROTOCOL;
    body[6] = SCOPE_HOST;
    push_address(&mut body, RTA_DST, net.network());
    push(&mut body, RTA_OIF, &LOOPBACK.to_ne_bytes());
    body
}
