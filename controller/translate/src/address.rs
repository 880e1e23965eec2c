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

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pools: &[&str], allocations: &[(&str, &str)]) -> Settings {
        let mut settings = Settings::new(jiff::Timestamp::UNIX_EPOCH);
        settings.address_pools = pools.iter().map(|pool| pool.parse().unwrap()).collect();
        settings.machine_addresses = vec!["192.0.2.10".parse().unwrap(), "2001:db8::10".parse().unwrap()];
        settings.allocations = allocations
            .iter()
            .map(|(name, ip)| (ObjectName::new("ns", name), ip.parse().unwrap()))
            .collect();
        settings
    }

    /// A Gateway that asks for `requested`; `""` is an entry without value.
    fn demand(name: &str, created: i64, requested: &[&str]) -> Demand {
        Demand {
            gateway: ObjectName::new("ns", name),
            age: Age {
                created,
                namespace: "ns".into(),
                name: name.into(),
            },
            requested: requested.iter().map(|text| text.parse().ok()).collect(),
        }
    }

    /// What each Gateway shows, or its faults.
    fn check(settings: &Settings, demands: &[Demand], expected: &[(&str, &str)]) {
        let (assigned, _) = assign(settings, demands);
        let actual: Vec<(String, String)> = assigned
            .iter()
            .map(|(name, a)| {
                let shown: Vec<String> = a.shown.iter().map(ToString::to_string).collect();
                let faults: Vec<String> = a.faults.iter().map(|f| format!("{f:?}")).collect();
                (name.name.to_string(), [shown, faults].concat().join(" "))
            })
            .collect();
        let expected: Vec<(String, String)> = expected
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
            .collect();
        assert_eq!(actual, expected);
    }

    #[test]
    fn each_gateway_gets_one_pool_address_and_never_network_or_broadcast() {
        let demands = [demand("a", 1, &[]), demand("b", 2, &[]), demand("c", 3, &[])];
        let expected = [("a", "10.1.0.1"), ("b", "10.1.0.2"), ("c", "Exhausted")];
        check(&settings(&["10.1.0.0/30"], &[]), &demands, &expected);
        let (assigned, _) = assign(&settings(&["10.1.0.0/30"], &[]), &demands);
        assert_eq!(
            assigned[&ObjectName::new("ns", "a")].owned,
            ["10.1.0.1/32".parse().unwrap()]
        );
    }

    #[test]
    fn a_pair_and_a_single_address_are_used_whole() {
        let demands = [
            demand("a", 1, &[]),
            demand("b", 2, &[]),
            demand("c", 3, &[]),
            demand("d", 4, &[]),
        ];
        let expected = [
            ("a", "10.1.0.0"),
            ("b", "10.1.0.1"),
            ("c", "10.2.0.7"),
            ("d", "2001:db8:1::1"),
        ];
        check(
            &settings(&["10.1.0.0/31", "10.2.0.7/32", "2001:db8:1::/64"], &[]),
            &demands,
            &expected,
        );
    }

    #[test]
    fn the_oldest_is_served_first_whatever_the_order() {
        let demands = [demand("young", 9, &[]), demand("old", 1, &[])];
        check(
            &settings(&["10.1.0.7/32"], &[]),
            &demands,
            &[("old", "10.1.0.7"), ("young", "Exhausted")],
        );
    }

    #[test]
    fn an_address_is_kept_while_the_pool_has_it() {
        let before = [("b", "10.1.0.1"), ("gone", "10.1.0.2"), ("moved", "10.9.0.1")];
        let demands = [demand("a", 1, &[]), demand("b", 2, &[]), demand("moved", 3, &[])];
        let settings = settings(&["10.1.0.0/29"], &before);
        check(
            &settings,
            &demands,
            &[("a", "10.1.0.2"), ("b", "10.1.0.1"), ("moved", "10.1.0.3")],
        );
        // Fed back, it is a fixed point.
        let (assigned, allocations) = assign(&settings, &demands);
        let fed = Settings {
            allocations,
            ..settings
        };
        assert_eq!(assign(&fed, &demands).0, assigned);
    }

    #[test]
    fn named_addresses_are_the_machines_or_the_pools() {
        let demands = [
            demand("any", 1, &["0.0.0.0"]),
            demand("foreign", 2, &["203.0.113.1", "10.1.0.5"]),
            demand("machine", 3, &["192.0.2.10", "127.0.0.1"]),
            demand("network", 4, &["10.1.0.0"]),
            demand("one-of-all", 5, &[""]),
        ];
        let expected = [
            ("any", "192.0.2.10 2001:db8::10"),
            ("foreign", "10.1.0.5 NotUsable(203.0.113.1)"),
            ("machine", "192.0.2.10 127.0.0.1"),
            ("network", "NotUsable(10.1.0.0)"),
            ("one-of-all", "10.1.0.1"),
        ];
        check(&settings(&["10.1.0.0/29"], &[]), &demands, &expected);
    }

    #[test]
    fn a_named_address_is_given_to_nobody_else() {
        let demands = [demand("a", 1, &[]), demand("b", 2, &["10.1.0.1"])];
        check(
            &settings(&["10.1.0.0/29"], &[("a", "10.1.0.1")]),
            &demands,
            &[("a", "10.1.0.2"), ("b", "10.1.0.1")],
        );
    }

    #[test]
    fn without_pools_it_is_the_machine() {
        let demands = [demand("a", 1, &[])];
        check(&settings(&[], &[]), &demands, &[("a", "192.0.2.10 2001:db8::10")]);
        let (assigned, allocations) = assign(&settings(&[], &[]), &demands);
        assert_eq!(assigned[&ObjectName::new("ns", "a")].binds, [BindAddress::Any]);
        assert!(allocations.is_empty());
    }
}
