//! The street every test walks: a client, the node, two hosts with backends.
//!
//! ```text
//! client ──────── node ──────── host a
//! 10.0.1.2        10.0.1.1      10.0.11.2
//! fd00:1::2       fd00:1::1 ─── host b
//!                               10.0.12.2
//! ```
//!
//! The outside world is behind the client's link: the node's default route leaves there.
//!
//! Addresses are the same in every test: each has namespaces of its own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Result;

use crate::netns::Netns;

/// The client's addresses.
pub const CLIENT: Pair = Pair {
    v4: Ipv4Addr::new(10, 0, 1, 2),
    v6: Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 2),
};
/// The node's addresses towards the client.
pub const NODE: Pair = Pair {
    v4: Ipv4Addr::new(10, 0, 1, 1),
    v6: Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 1),
};
/// The first host's addresses.
pub const HOST_A: Pair = Pair {
    v4: Ipv4Addr::new(10, 0, 11, 2),
    v6: Ipv6Addr::new(0xfd00, 0x11, 0, 0, 0, 0, 0, 2),
};
/// The second host's addresses.
pub const HOST_B: Pair = Pair {
    v4: Ipv4Addr::new(10, 0, 12, 2),
    v6: Ipv6Addr::new(0xfd00, 0x12, 0, 0, 0, 0, 0, 2),
};

/// The addresses that tests give to their first Gateway: in the pools.
pub const GATE: Pair = Pair {
    v4: Ipv4Addr::new(10, 96, 0, 10),
    v6: Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 0x10),
};

/// Addresses for Gateways; the client reaches them through the node.
pub const POOL_V4: &str = "10.96.0.0/24";
/// The same for IPv6.
pub const POOL_V6: &str = "fd00:96::/112";

/// An address of each family.
#[derive(Debug, Clone, Copy)]
pub struct Pair {
    /// IPv4.
    pub v4: Ipv4Addr,
    /// IPv6.
    pub v6: Ipv6Addr,
}

impl Pair {
    /// The address of one family.
    pub fn of(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4.into(),
            Family::V6 => self.v6.into(),
        }
    }
}

impl Pair {
    /// One family's address with a port.
    pub fn at(&self, family: Family, port: u16) -> SocketAddr {
        SocketAddr::new(self.of(family), port)
    }

    /// The IPv4 address with a port.
    pub fn v4_at(&self, port: u16) -> SocketAddr {
        self.at(Family::V4, port)
    }
}

/// Both families, to run something over each.
pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// An IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The four namespaces, wired together.
#[derive(Debug)]
pub struct Net {
    /// Where requests come from.
    pub client: Arc<Netns>,
    /// Where Pierhead runs.
    pub node: Arc<Netns>,
    /// The first host with backends.
    pub a: Arc<Netns>,
    /// The second host with backends.
    pub b: Arc<Netns>,
}

impl Net {
    /// Lays the street out under names nobody else uses.
    pub fn new() -> Result<Self> {
        Self::wire(
            Netns::unique("client")?,
            Netns::unique("node")?,
            Netns::unique("a")?,
            Netns::unique("b")?,
        )
    }

    /// Lays it out under names for a person to type: `<prefix>-client`, `-node`, `-a`, `-b`.
    pub fn named(prefix: &str) -> Result<Self> {
        let make = |role: &str| Netns::named(&format!("{prefix}-{role}"));
        Self::wire(make("client")?, make("node")?, make("a")?, make("b")?)
    }

    fn wire(client: Netns, node: Netns, a: Netns, b: Netns) -> Result<Self> {
        node.sysctl("ipv4/ip_forward", "1")?;
        node.sysctl("ipv6/conf/all/forwarding", "1")?;
        node.ip(&format!(
            "link add client type veth peer name eth0 netns {}\n\
             link add host-a type veth peer name eth0 netns {}\n\
             link add host-b type veth peer name eth0 netns {}\n\
             addr add 10.0.1.1/24 dev client\naddr add fd00:1::1/64 dev client nodad\n\
             addr add 10.0.11.1/24 dev host-a\naddr add fd00:11::1/64 dev host-a nodad\n\
             addr add 10.0.12.1/24 dev host-b\naddr add fd00:12::1/64 dev host-b nodad\n\
             link set client up\nlink set host-a up\nlink set host-b up\n\
             route add default via 10.0.1.2\nroute add ::/0 via fd00:1::2\n",
            client.name(),
            a.name(),
            b.name()
        ))?;
        for (namespace, own, gateway) in [
            (&client, CLIENT, NODE),
            (&a, HOST_A, gateway(HOST_A)),
            (&b, HOST_B, gateway(HOST_B)),
        ] {
            namespace.ip(&format!(
                "addr add {}/24 dev eth0\naddr add {}/64 dev eth0 nodad\nlink set eth0 up\n\
                 route add default via {}\nroute add ::/0 via {}\n",
                own.v4, own.v6, gateway.v4, gateway.v6
            ))?;
        }
        Ok(Self {
            client: client.into(),
            node: node.into(),
            a: a.into(),
            b: b.into(),
        })
    }
}

/// The node's end of a host's link: the same network, number 1.
fn gateway(host: Pair) -> Pair {
    let [a, b, c, _] = host.v4.octets();
    let [p, q, ..] = host.v6.segments();
    Pair {
        v4: Ipv4Addr::new(a, b, c, 1),
        v6: Ipv6Addr::new(p, q, 0, 0, 0, 0, 0, 1),
    }
}
