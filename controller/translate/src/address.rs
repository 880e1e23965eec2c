//! Which addresses a Gateway has: those it names; else one of the pools; else the machine's own.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use pierhead_model::{Age, BindAddress};

use crate::{ObjectName, Settings};

/// Pool addresses by Gateway.
pub type Allocations = BTreeMap<ObjectName, IpAddr>;

/// What one Gateway asks for.
#[derive(Clone, Debug)]
pub struct Demand {
    pub gateway: ObjectName,
    /// The oldest is served first when a pool runs dry.
    pub age: Age,
    /// `spec.addresses` of type `IPAddress`; `None` is an entry without a value: any address. No entry at all: the same as
    /// one `None`.
    pub requested: Vec<Option<IpAddr>>,
}

/// What it gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assigned {
    /// Where its listeners bind.
    pub binds: Vec<BindAddress>,
    /// What `status.addresses` shows.
    pub shown: Vec<IpAddr>,
    /// Those of its addresses that are made local for it.
    pub owned: Vec<IpNet>,
    pub faults: Vec<AddressFault>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressFault {
    /// Neither the machine's nor in a pool: nobody may take an address the operator did not give
    /// (`AddressNotUsable`).
    NotUsable(IpAddr),
    /// Every address of every pool is taken (`NoResources` / `AddressNotAssigned`).
    Exhausted,
}

/// Pure and stable: a Gateway keeps the address it has while it exists and the pool has it.
pub(crate) fn assign(settings: &Settings, demands: &[Demand]) -> (BTreeMap<ObjectName, Assigned>, Allocations) {
    let pools = &settings.address_pools;
    let in_pool = |ip: &IpAddr| pools.iter().any(|pool| usable(pool, ip));
    let named: BTreeSet<IpAddr> = demands
        .iter()
        .flat_map(|d| d.requested.iter().flatten().copied())
        .collect();

    let mut order: Vec<&Demand> = demands.iter().collect();
    order.sort_by(|a, b| a.age.cmp(&b.age));
    let dynamic = |d: &&&Demand| !pools.is_empty() && (d.requested.is_empty() || d.requested.contains(&None));
    let mut allocations = Allocations::new();
    let mut taken = named;
    for demand in order.iter().filter(dynamic) {
        // An address that another Gateway names now goes to that one.
        if let Some(ip) = settings.allocations.get(&demand.gateway).filter(|ip| in_pool(ip))
            && taken.insert(*ip)
        {
            allocations.insert(demand.gateway.clone(), *ip);
        }
    }
    let mut free = pools.iter().flat_map(addresses);
    for demand in order.iter().filter(dynamic) {
        if !allocations.contains_key(&demand.gateway)
            && let Some(ip) = free.by_ref().find(|ip| !taken.contains(ip))
        {
            taken.insert(ip);
            allocations.insert(demand.gateway.clone(), ip);
        }
    }

    let assigned = order
        .iter()
        .map(|demand| {
            (
                demand.gateway.clone(),
                assign_one(settings, demand, allocations.get(&demand.gateway), in_pool),
            )
        })
        .collect();
    (assigned, allocations)
}

fn assign_one(
    settings: &Settings,
    demand: &Demand,
    allocated: Option<&IpAddr>,
    in_pool: impl Fn(&IpAddr) -> bool,
) -> Assigned {
    let mut assigned = Assigned::default();
    let any = [None];
    let requested = if demand.requested.is_empty() {
        &any[..]
    } else {
        &demand.requested
    };
    for wish in requested {
        match (wish, allocated) {
            (Some(ip), _) if in_pool(ip) => assigned.own(*ip),
            (Some(ip), _) if ip.is_loopback() || settings.machine_addresses.contains(ip) => {
                assigned.bind(BindAddress::Ip(*ip));
                assigned.show(*ip);
            }
            (Some(ip), _) if ip.is_unspecified() => assigned.machine(settings),
            (Some(ip), _) => assigned.faults.push(AddressFault::NotUsable(*ip)),
            (None, Some(ip)) => assigned.own(*ip),
            (None, None) if settings.address_pools.is_empty() => assigned.machine(settings),
            (None, None) => assigned.faults.push(AddressFault::Exhausted),
        }
    }
    assigned
}

impl Assigned {
    fn own(&mut self, ip: IpAddr) {
        self.bind(BindAddress::Ip(ip));
        self.show(ip);
        let host = IpNet::from(ip);
        if !self.owned.contains(&host) {
            self.owned.push(host);
        }
    }

    fn machine(&mut self, settings: &Settings) {
        self.bind(BindAddress::Any);
        for ip in &settings.machine_addresses {
            self.show(*ip);
        }
    }

    fn bind(&mut self, address: BindAddress) {
        if !self.binds.contains(&address) {
            self.binds.push(address);
        }
    }

    fn show(&mut self, ip: IpAddr) {
        if !self.shown.contains(&ip) {
            self.shown.push(ip);
        }
    }
}

/// The addresses of a pool that a host can have, lowest first: not the network and broadcast address of an IPv4 prefix
/// shorter than /31 (RFC 3021), not the subnet-router anycast address of an IPv6 prefix shorter than /127 (RFC 6164).
fn addresses(pool: &IpNet) -> impl Iterator<Item = IpAddr> + use<> {
    let skip = usize::from(matches!(pool, IpNet::V6(net) if net.prefix_len() < 127));
    pool.hosts().skip(skip)
}

fn usable(pool: &IpNet, ip: &IpAddr) -> bool {
    pool.contains(ip)
        && match pool {
            IpNet::V4(net) => net.prefix_len() >= 31 || (*ip != net.network() && *ip != net.broadcast()),
            IpNet::V6(net) => net.prefix_len() >= 127 || *ip != net.network(),
        }
}
