//! From a snapshot to what is wanted in the maps, and for each bind what carries it and why. Pure: what the machine
//! looks like is an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use pierhead_abi::l4::{Hop, Place};
use pierhead_abi::packet::{TCP, UDP};
use pierhead_abi::steer::{Binding, BindingKey, Owned, action, on_miss};
use pierhead_abi::{Addr, Port};
use pierhead_model::{
    BackendTarget, BindAddress, BindKey, BindPort, DataPath, DataPathReport, Endpoint, EndpointState, L4Route,
    ListenerKind, OnMiss, OwnedPrefix, Snapshot, Transport,
};

use crate::plan::{Target, Wanted, bounded};

/// Where an address is, seen from this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// One of the machine's own addresses, not a loopback one.
    Own,
    /// Behind an interface that is not external, without a gateway: a pod, a container, a directly wired host.
    OnLink,
    /// 127.0.0.0/8 or ::1: a rewritten packet from outside would be a martian.
    Loopback,
    /// Behind a gateway or an external interface.
    Elsewhere,
    /// No route.
    Unreachable,
}

/// What the machine looks like, as far as the plan depends on it.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Why layer 4 cannot be in the kernel at all; `None` when it can.
    pub no_l4: Option<String>,
    /// Kubernetes' name of this node, if there is one.
    pub node: Option<String>,
    /// Addresses of the external interfaces: what a bind to every address means in the kernel.
    pub addresses: Vec<IpAddr>,
    /// Whether packets that are not for this machine are passed on.
    pub forwards_v4: bool,
    pub forwards_v6: bool,
    /// Every endpoint address of an L4 bind.
    pub places: BTreeMap<IpAddr, Whereabouts>,
    /// Ways to the other nodes of the fleet that have endpoints of L4 binds: one for each address that is a neighbour on an
    /// external interface.
    pub neighbours: BTreeMap<Arc<str>, Vec<Hop>>,
}

/// The endpoint addresses that [`wanted`] will ask [`Surroundings::places`] for.
pub fn endpoint_addresses(snapshot: &Snapshot) -> BTreeSet<IpAddr> {
    l4_endpoints(snapshot)
        .map(|endpoint| endpoint.address.ip().to_canonical())
        .collect()
}

/// The nodes that [`wanted`] will ask [`Surroundings::neighbours`] for, with all their addresses.
pub fn endpoint_nodes(snapshot: &Snapshot) -> BTreeMap<&Arc<str>, &[IpAddr]> {
    let all = snapshot.fleet.values().flat_map(|fleet| &fleet.nodes);
    let known: BTreeMap<&Arc<str>, &[IpAddr]> = all.map(|node| (&node.name, &*node.addresses)).collect();
    l4_endpoints(snapshot)
        .filter_map(|endpoint| endpoint.node.as_ref())
        .filter_map(|name| known.get_key_value(name))
        .map(|(name, addresses)| (*name, *addresses))
        .collect()
}

fn l4_endpoints(snapshot: &Snapshot) -> impl Iterator<Item = &Endpoint> {
    let routes = snapshot
        .binds
        .values()
        .filter_map(|bind| l4_route(&bind.listeners.first()?.kind));
    let backends = routes
        .flat_map(|route| &route.backends)
        .filter_map(|share| snapshot.backends.get(&share.backend));
    let sets = backends.filter_map(|backend| match &backend.target {
        BackendTarget::Endpoints(id) => snapshot.endpoints.get(id),
        BackendTarget::Dns { .. } | BackendTarget::Invalid { .. } => None,
    });
    sets.flat_map(|set| &set.endpoints)
}

/// The route of a plain TCP or UDP listener. `None` for everything that only userspace can serve.
fn l4_route(kind: &ListenerKind) -> Option<&L4Route> {
    match kind {
        ListenerKind::Tcp { route } | ListenerKind::Udp { route } => route.as_deref(),
        ListenerKind::Http(_)
        | ListenerKind::Https { .. }
        | ListenerKind::TlsPassthrough { .. }
        | ListenerKind::TlsTerminate { .. } => None,
    }
}

/// What is wanted in the maps for `snapshot`, and a report for each of its binds, in order.
pub fn wanted(snapshot: &Snapshot, around: &Surroundings) -> (Wanted, Vec<DataPathReport>) {
    let index = Index::new(snapshot);
    let mut wanted = Wanted {
        seed: snapshot.fleet.values().next().map(|fleet| fleet.seed),
        ..Wanted::default()
    };
    for (prefix, ownership) in &snapshot.owned {
        let (bits, addr) = prefix_bits(prefix.0);
        let on_miss = miss_code(ownership.on_miss);
        wanted.owned.insert(
            (bits, addr.0),
            Owned {
                on_miss,
                reserved: [0; 3],
            },
        );
        wanted.local.insert(prefix.0.trunc());
    }
    for key in snapshot.binds.keys() {
        bindings(*key, &index, &mut wanted.bindings);
    }
    let mut places: BTreeMap<BindKey, Result<(Vec<Place>, String), String>> = BTreeMap::new();
    for key in snapshot.binds.keys() {
        let found = in_kernel(*key, snapshot, &index, around).map(|(vips, endpoints)| {
            for vip in &vips {
                // A bind to one address is more specific than one to every address.
                if key.address != BindAddress::Any || !wanted.vips.contains_key(vip) {
                    wanted.vips.insert(*vip, endpoints.clone());
                }
            }
            (vips, what(&endpoints))
        });
        places.insert(*key, found);
    }
    let refused = bounded(&mut wanted);
    let report = |(key, found): (&BindKey, Result<(Vec<Place>, String), String>)| {
        let found = found.and_then(|(vips, what)| match vips.iter().find_map(|vip| refused.get(vip)) {
            Some(full) => Err(full.why()),
            None => Ok(what),
        });
        match found {
            Ok(why) => DataPathReport {
                bind: *key,
                path: DataPath::Kernel,
                why,
            },
            Err(why) => DataPathReport {
                bind: *key,
                path: DataPath::Steered,
                why,
            },
        }
    };
    let reports = snapshot
        .binds
        .keys()
        .map(|key| report((key, places.remove(key).unwrap_or_else(|| Err(String::new())))))
        .collect();
    (wanted, reports)
}

/// What the kernel does for a bind with these endpoints, for people.
fn what(endpoints: &BTreeMap<Target, u32>) -> String {
    let all = endpoints.len();
    match endpoints.keys().filter(|endpoint| endpoint.hop.is_here()).count() {
        here if here == all => "every endpoint is on this node".to_owned(),
        0 => "every endpoint is on another node, which is passed what is for it".to_owned(),
        here => format!("{here} of {all} endpoints are on this node; other nodes are passed what is for theirs"),
    }
}

const fn protocol(transport: Transport) -> u8 {
    match transport {
        Transport::Tcp => TCP,
        Transport::Udp => UDP,
    }
}

const fn miss_code(miss: OnMiss) -> u8 {
    match miss {
        OnMiss::Drop => on_miss::REFUSE,
        OnMiss::Pass => on_miss::PASS,
    }
}

/// A prefix as bits of the 16-byte address.
fn prefix_bits(net: IpNet) -> (u32, Addr) {
    let mapped = if net.addr().is_ipv4() { 96 } else { 0 };
    (mapped + u32::from(net.prefix_len()), Addr::from(net.network()))
}

fn bindings(key: BindKey, index: &Index<'_>, into: &mut BTreeMap<(u32, BindingKey), Binding>) {
    let port = match key.port {
        BindPort::Port(port) => Port::new(port),
        BindPort::All => Port::ANY,
    };
    let mut put = |bits: u32, addr: Addr, action: u8, on_miss: u8| {
        let key = BindingKey::new(protocol(key.transport), port, addr);
        let binding = Binding {
            addr_bits: bits as u8,
            action,
            on_miss,
            reserved: 0,
        };
        into.insert((BindingKey::prefix_len(bits), key), binding);
    };
    let prefix = match key.address {
        BindAddress::Ip(ip) => IpNet::from(ip),
        BindAddress::Prefix(net) => net.trunc(),
        BindAddress::Any => {
            // Services of the machine itself live in the rest of 127.0.0.0/8 (a local resolver at 127.0.0.53). They keep
            // their ports, as they would beside a socket that is bound to every address.
            put(0, Addr::default(), action::STEER, on_miss::PASS);
            put(96 + 8, Addr::v4([127, 0, 0, 0]), action::PASS, on_miss::PASS);
            put(128, Addr::v4([127, 0, 0, 1]), action::STEER, on_miss::PASS);
            return;
        }
    };
    // An address we do not own is the machine's: its other sockets may serve it while no worker is there.
    let (bits, addr) = prefix_bits(prefix);
    put(
        bits,
        addr,
        action::STEER,
        index.owner(prefix).map_or(on_miss::PASS, miss_code),
    );
}

/// The binds' places in the kernel and their endpoints with weights; or why the bind is not for the kernel.
fn in_kernel(
    key: BindKey,
    snapshot: &Snapshot,
    index: &Index<'_>,
    around: &Surroundings,
) -> Result<(Vec<Place>, BTreeMap<Target, u32>), String> {
    let listener = snapshot
        .binds
        .get(&key)
        .and_then(|bind| bind.listeners.first())
        .ok_or("it has no listener")?;
    let kind = &listener.kind;
    let route = match kind {
        ListenerKind::Http(_) | ListenerKind::Https { .. } => return Err("HTTP is served in userspace".to_owned()),
        ListenerKind::TlsPassthrough { .. } | ListenerKind::TlsTerminate { .. } => {
            return Err("TLS is routed by server name, in userspace".to_owned());
        }
        ListenerKind::Tcp { .. } | ListenerKind::Udp { .. } => l4_route(kind).ok_or("no route is attached")?,
    };
    if !listener.client_address.proxy_protocol.is_empty() && key.transport == Transport::Tcp {
        return Err("the PROXY protocol is read in userspace".to_owned());
    }
    if let Some(why) = &around.no_l4 {
        return Err(why.clone());
    }
    let BindPort::Port(port) = key.port else {
        return Err("a bind to all ports is steered, not balanced in the kernel".to_owned());
    };
    let addresses = match key.address {
        BindAddress::Ip(ip) => vec![ip.to_canonical()],
        BindAddress::Any => around.addresses.iter().map(IpAddr::to_canonical).collect(),
        BindAddress::Prefix(_) => return Err("a bind to a prefix is steered, not balanced in the kernel".to_owned()),
    };
    if let Some(ip) = addresses.iter().find(|ip| ip.is_loopback()) {
        return Err(format!("{ip} is not reached through an external interface"));
    }
    let endpoints = endpoints(route, snapshot, around)?;
    if key.address == BindAddress::Any
        && let Some((address, _)) = endpoints.iter().find(|(_, (hop, _))| !hop.is_here())
    {
        // It would be another bind there.
        let address = SocketAddr::from(*address);
        return Err(format!(
            "endpoint {address} is on another node, and the bind is to this node's own addresses"
        ));
    }
    let families: BTreeSet<bool> = endpoints.keys().map(|(address, _)| address.is_ipv4()).collect();
    let [v4] = families.iter().copied().collect::<Vec<_>>()[..] else {
        return Err("its endpoints are of both address families".to_owned());
    };
    let protocol = protocol(key.transport);
    let vips: Vec<Place> = addresses
        .iter()
        .filter(|ip| ip.is_ipv4() == v4)
        .map(|ip| Place::new(protocol, Addr::from(*ip), Port::new(port)))
        .collect();
    if vips.is_empty() {
        let family = if v4 { "IPv4" } else { "IPv6" };
        return Err(format!(
            "its endpoints are {family} and the bind has no {family} address on an external interface"
        ));
    }
    if key.address == BindAddress::Any && addresses.iter().any(|ip| ip.is_ipv4() != v4) {
        tracing::debug!(bind = %key, "only one address family of this bind is in the kernel");
    }
    let mut shares = BTreeMap::new();
    for ((address, port), (hop, weight)) in endpoints {
        let place = Place::new(protocol, Addr::from(address), Port::new(port));
        let own = around.places.get(&address) == Some(&Whereabouts::Own);
        if index.covers(key.transport, address, port, own) {
            return Err(format!(
                "its endpoint {} is itself an address of a bind",
                SocketAddr::new(address, port)
            ));
        }
        shares.insert(Target { place, hop }, weight);
    }
    Ok((vips, shares))
}

/// A snapshot's binds and owned prefixes, for questions asked once per bind or endpoint.
struct Index<'a> {
    snapshot: &'a Snapshot,
    /// Binds that no exact key finds.
    wide: Vec<BindKey>,
    owned: BTreeMap<IpNet, OnMiss>,
    /// Lengths of owned prefixes by family; few.
    lengths: BTreeSet<(bool, u8)>,
}

impl<'a> Index<'a> {
    fn new(snapshot: &'a Snapshot) -> Self {
        let is_wide = |key: &&BindKey| key.port == BindPort::All || matches!(key.address, BindAddress::Prefix(_));
        let owned: BTreeMap<IpNet, OnMiss> = snapshot
            .owned
            .iter()
            .map(|(OwnedPrefix(net), ownership)| (net.trunc(), ownership.on_miss))
            .collect();
        Self {
            snapshot,
            wide: snapshot.binds.keys().filter(is_wide).copied().collect(),
            lengths: owned
                .keys()
                .map(|net| (net.addr().is_ipv4(), net.prefix_len()))
                .collect(),
            owned,
        }
    }

    /// What a miss does on the longest owned prefix around `net`.
    fn owner(&self, net: IpNet) -> Option<OnMiss> {
        let v4 = net.addr().is_ipv4();
        let lengths = self.lengths.range((v4, 0)..=(v4, net.prefix_len())).rev();
        let around = |(_, length): &(bool, u8)| IpNet::new(net.addr(), *length).ok().map(|net| net.trunc());
        lengths.filter_map(around).find_map(|net| self.owned.get(&net).copied())
    }

    /// Whether a packet to this address and port would come back to us. `own`: the address is one of the machine.
    fn covers(&self, transport: Transport, ip: IpAddr, port: u16, own: bool) -> bool {
        let exact = |address| {
            let port = BindPort::Port(port);
            self.snapshot.binds.contains_key(&BindKey {
                transport,
                address,
                port,
            })
        };
        exact(BindAddress::Ip(ip))
            || own && exact(BindAddress::Any)
            || self.wide.iter().any(|bind| {
                bind.transport == transport
                    && (bind.port == BindPort::All || bind.port == BindPort::Port(port))
                    && match bind.address {
                        BindAddress::Any => own,
                        BindAddress::Ip(own) => own.to_canonical() == ip,
                        BindAddress::Prefix(net) => net.contains(&ip),
                    }
            })
    }
}

/// Endpoints by address and port: the way to the node of each, and its weight.
type Shares = BTreeMap<(IpAddr, u16), (Hop, u32)>;

/// Weight of one whole backend's unit of weight, shared by its endpoints. Weights go to 1,000,000 (Gateway API).
const UNIT: u64 = 4_096;

/// Endpoints, the ways to their nodes, and weights. All or nothing: if any share is not for the kernel, userspace divides them
/// all.
fn endpoints(route: &L4Route, snapshot: &Snapshot, around: &Surroundings) -> Result<Shares, String> {
    let mut shares: BTreeMap<(IpAddr, u16), (Hop, u64)> = BTreeMap::new();
    for share in &route.backends {
        let id = &share.backend;
        let backend = snapshot
            .backends
            .get(id)
            .ok_or_else(|| format!("backend {id} is unknown"))?;
        let set = match &backend.target {
            BackendTarget::Endpoints(set) => snapshot.endpoints.get(set),
            // No flow can be on it, so it only counts where it has a share.
            _ if share.weight == 0 => continue,
            BackendTarget::Dns { .. } => return Err(format!("backend {id} is resolved by DNS, in userspace")),
            BackendTarget::Invalid { .. } => {
                return Err(format!("backend {id} is invalid: userspace refuses its share"));
            }
        };
        if backend.tls.is_some() {
            return Err(format!("backend {id} is spoken to with TLS, in userspace"));
        }
        let all = set.map(|set| set.endpoints.as_slice()).unwrap_or_default();
        let ready = all
            .iter()
            .filter(|endpoint| endpoint.state == EndpointState::Ready)
            .count();
        // "Takes new ones only when no endpoint is ready."
        let (takers, only_ready) = if ready > 0 { (ready, true) } else { (all.len(), false) };
        if takers == 0 {
            if share.weight == 0 {
                continue;
            }
            return Err(format!("backend {id} has no endpoint: userspace refuses its share"));
        }
        for endpoint in all {
            let address = endpoint.address.ip().to_canonical();
            let hop = way_to(address, endpoint.node.as_deref(), around)
                .map_err(|why| format!("endpoint {} of {id} {why}", endpoint.address))?;
            let takes = !only_ready || endpoint.state == EndpointState::Ready;
            let weight = if takes {
                u64::from(share.weight) * UNIT / takers as u64
            } else {
                0
            };
            let share = shares.entry((address, endpoint.address.port())).or_insert((hop, 0));
            share.1 += weight;
        }
    }
    if shares.values().all(|(_, weight)| *weight == 0) {
        return Err("no backend has a weight: userspace refuses connections".to_owned());
    }
    let largest = shares.values().map(|(_, weight)| *weight).max().unwrap_or_default();
    // One endpoint behind several references may add up beyond what a table takes.
    let scale = largest.div_ceil(u64::from(u32::MAX)).max(1);
    Ok(shares
        .into_iter()
        .map(|(endpoint, (hop, weight))| (endpoint, (hop, (weight / scale) as u32)))
        .collect())
}

/// How a packet gets to an endpoint: rewritten, and its reply comes back through us; or by way of the node that has it, which
/// does that. Or why neither.
fn way_to(address: IpAddr, node: Option<&str>, around: &Surroundings) -> Result<Hop, String> {
    let (Some(its), Some(ours)) = (node, around.node.as_deref()) else {
        return on_this_node(address, node, around).map(|()| Hop::HERE);
    };
    match around.places.get(&address) {
        Some(Whereabouts::Own | Whereabouts::Loopback) => on_this_node(address, node, around).map(|()| Hop::HERE),
        _ if its == ours => on_this_node(address, node, around).map(|()| Hop::HERE),
        _ => {
            let hops = around
                .neighbours
                .get(its)
                .ok_or_else(|| format!("is on node {its}, of which no address is known"))?;
            hops.iter()
                .find(|hop| Addr(hop.addr).is_v4() == address.is_ipv4())
                .copied()
                .ok_or_else(|| format!("is on node {its}, which is no neighbour on an external interface"))
        }
    }
}

/// Whether a rewritten packet gets there and its reply comes back through us; or why not.
fn on_this_node(address: IpAddr, node: Option<&str>, around: &Surroundings) -> Result<(), String> {
    let forwards = if address.is_ipv4() {
        around.forwards_v4
    } else {
        around.forwards_v6
    };
    let switch = if address.is_ipv4() {
        "net.ipv4.ip_forward"
    } else {
        "net.ipv6.conf.all.forwarding"
    };
    match around.places.get(&address).copied().unwrap_or(Whereabouts::Unreachable) {
        Whereabouts::Own => Ok(()),
        Whereabouts::OnLink if !forwards => Err(format!("needs packets to be forwarded; fix: sysctl -w {switch}=1")),
        Whereabouts::OnLink => match (node, &around.node) {
            (Some(its), Some(ours)) if its != ours => Err(format!("is on node {its}")),
            _ => Ok(()),
        },
        Whereabouts::Loopback => Err("is a loopback address".to_owned()),
        // A name that says "here" is better than a route that looks like "there".
        Whereabouts::Elsewhere if node.is_some() && node == around.node.as_deref() && forwards => Ok(()),
        Whereabouts::Elsewhere => Err("is not on this node".to_owned()),
        Whereabouts::Unreachable => Err("has no route".to_owned()),
    }
}
