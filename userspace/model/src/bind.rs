use std::{fmt, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use serde::{Serialize, Serializer};

use crate::{ClientAddress, Filter, HostPattern, L4Route, Limits, Origin, SniRoute, TlsTermination};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Transport {
    Tcp,
    Udp,
}

/// The address part of a bind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BindAddress {
    /// Every address of the machine, IPv4 and IPv6.
    Any,
    Ip(IpAddr),
    /// Every address of a prefix: only with steering, never in bind mode.
    Prefix(IpNet),
}

/// The port part of a bind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BindPort {
    Port(u16),
    /// Every port: only with steering, never in bind mode.
    All,
}

/// What a connection is addressed to: the key by which a bind is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BindKey {
    pub transport: Transport,
    pub address: BindAddress,
    pub port: BindPort,
}

impl fmt::Display for BindKey {
    /// `tcp 10.0.0.1:80`, `udp [2001:db8::1]:53`, `tcp *:443`, `tcp 10.0.0.0/24:*`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.transport {
            Transport::Tcp => "tcp ",
            Transport::Udp => "udp ",
        })?;
        match self.address {
            BindAddress::Any => f.write_str("*")?,
            BindAddress::Ip(IpAddr::V4(ip)) => ip.fmt(f)?,
            BindAddress::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]")?,
            BindAddress::Prefix(net) => net.fmt(f)?,
        }
        match self.port {
            BindPort::Port(port) => write!(f, ":{port}"),
            BindPort::All => f.write_str(":*"),
        }
    }
}

impl Serialize for BindKey {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// Everything that listens on one [`BindKey`].
///
/// Invariant (kept by `translate`): all listeners are of one family: cleartext HTTP; or TLS of any kind; or exactly
/// one TCP; or exactly one UDP listener. Their host patterns are distinct.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bind {
    pub key: BindKey,
    pub listeners: Vec<Arc<Listener>>,
}

/// Identity of a listener: its owner and its name there. The owner `IngressController` has the names `http` and `https`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId {
    /// A Gateway, a ListenerSet or the Ingress controller.
    pub owner: Origin,
    pub name: Arc<str>,
}

impl fmt::Display for ListenerId {
    /// `Gateway default/web#https`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.owner, self.name)
    }
}

impl Serialize for ListenerId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// One listener. Among the listeners of a bind the most specific host pattern that matches is chosen (by SNI for TLS, by
/// Host for cleartext HTTP), and only its routes are considered after that (Gateway API "listener isolation").
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listener {
    pub id: ListenerId,
    /// Never empty; `[Any]` when no hostname is given. Ingress listeners list every host they know.
    pub hosts: Vec<HostPattern>,
    /// The port its author wrote (what a redirect without a port of its own names).
    pub port: u16,
    pub kind: ListenerKind,
    pub limits: Limits,
    #[serde(skip_serializing_if = "ClientAddress::is_default")]
    pub client_address: ClientAddress,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum ListenerKind {
    /// Cleartext HTTP/1.1, and HTTP/2 with prior knowledge. Its routes name it in their attachments.
    Http(HttpOptions),
    /// HTTP over TLS.
    Https { tls: TlsTermination, http: HttpOptions },
    /// TLS to the end, carried unread to a backend chosen by SNI.
    TlsPassthrough { routes: Vec<SniRoute> },
    /// TLS ends here; the plaintext goes to a TCP backend chosen by SNI.
    TlsTerminate { tls: TlsTermination, routes: Vec<SniRoute> },
    /// `None`: no route is attached; connections are refused.
    Tcp { route: Option<Arc<L4Route>> },
    /// `None`: no route is attached; datagrams are dropped.
    Udp { route: Option<Arc<L4Route>> },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HttpOptions {
    pub host_selection: HostSelection,
    /// Answer 421 when the Host belongs to another listener than the one the SNI chose (RFC 9110 §15.5.20). Off for
    /// Ingress, where SNI picks the certificate and Host the route.
    pub detect_misdirected: bool,
    /// What every request meets before a route is looked for, in this order (GEP-5224): `ExternalAuth` and `Unsupported`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
}

/// What happens when the best host has no rule that matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum HostSelection {
    /// Rules of the next best host are tried (Gateway API).
    FallThrough,
    /// Only the best host's rules count (Ingress).
    BestOnly,
}

/// What to do with a packet for an address we own and a port nobody listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum OnMiss {
    /// Refuse: TCP RST, ICMP port unreachable.
    Drop,
    /// Let the machine's own sockets have it.
    Pass,
}

/// What goes with an address that we own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ownership {
    pub on_miss: OnMiss,
    /// Who makes it local and answers ARP and NDP for it. `None`: every node makes it local and nobody announces it: routers
    /// know of it in another way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub announcer: Option<Announcer>,
    /// Another number than before: the announcer tells the neighbours again. Another node, which came back, answered for the
    /// address too, until it heard that it is no longer its own.
    #[serde(skip_serializing_if = "is_first")]
    pub round: u32,
}

fn is_first(round: &u32) -> bool {
    *round == 0
}

/// The one node that has an announced address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Announcer {
    /// Whoever has this snapshot: one machine, no cluster.
    Here,
    /// The node of this name, elected among those that are there.
    Node(Arc<str>),
}

impl Announcer {
    /// Whether it is another node than `node`, which may have no name that a controller knows.
    pub fn is_elsewhere(&self, node: Option<&str>) -> bool {
        match self {
            Self::Here => false,
            Self::Node(elected) => Some(&**elected) != node,
        }
    }
}

/// Addresses that belong to a Gateway and are made local by a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnedPrefix(pub IpNet);

impl Serialize for OwnedPrefix {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&self.0)
    }
}

/// How traffic of one bind reaches its handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum DataPath {
    /// Balanced in the kernel, userspace never sees it.
    Kernel,
    /// Steered by the kernel to a worker of the proxy.
    Steered,
    /// A socket of the proxy is bound to the address.
    Bound,
    /// Not served; the report says why.
    None,
}

/// What carries a bind, and why nothing better does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DataPathReport {
    pub bind: BindKey,
    pub path: DataPath,
    pub why: String,
}
