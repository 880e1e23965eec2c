//! Which addresses a Gateway, or a class of Ingresses, has: those it names; else some of a pool; else the machines' own; or
//! those that a load balancer or the cluster gave a Service that is made for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use pierhead_api::gateway_parameters::{Addresses, Pool, ServiceSpec};
use pierhead_model::{Age, BindAddress};

use crate::{
    ObjectName, Settings,
    service::{Given, Host},
};

/// Pool addresses by Gateway; those of an IngressClass by its name, in no namespace.
pub type Allocations = BTreeMap<ObjectName, Vec<IpAddr>>;

/// What one Gateway or IngressClass asks for.
#[derive(Clone, Debug)]
pub(crate) struct Demand {
    pub(crate) owner: ObjectName,
    /// The oldest is served first when a pool runs dry.
    pub(crate) age: Age,
    pub(crate) mode: Arc<Addresses>,
    /// `spec.addresses`. No entry at all: whatever `mode` gives, one address of each family for a pool.
    pub(crate) wishes: Vec<Wish>,
    /// What its status shows: it keeps these as long as the pool has them.
    pub(crate) present: Vec<IpAddr>,
    /// What its Service was given.
    pub(crate) given: Given,
}

/// One entry of `spec.addresses`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wish {
    /// `None`: any address.
    pub(crate) value: Option<IpAddr>,
    pub(crate) routability: Routability,
}

/// From where an address is to be reached (GEP-5093).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Routability {
    /// Nothing is said.
    #[default]
    Any,
    /// The ClusterIP of a Service.
    Cluster,
    /// `testing.x-k8s.io/sentinel`: whoever supports routability supports this one, which means nothing.
    Sentinel,
    /// A value that cannot be satisfied.
    Unknown(String),
}

const SENTINEL: &str = "testing.x-k8s.io/sentinel";

impl Routability {
    pub(crate) fn parse(text: &str) -> Self {
        match text {
            "" => Self::Any,
            "Cluster" => Self::Cluster,
            SENTINEL => Self::Sentinel,
            other => Self::Unknown(other.to_owned()),
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Any => "",
            Self::Cluster => "Cluster",
            Self::Sentinel => SENTINEL,
            Self::Unknown(text) => text,
        }
    }
}

/// What it gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Assigned {
    /// Where its listeners bind, on their own ports.
    pub(crate) binds: Vec<BindAddress>,
    /// Its listeners also stand on ports of the nodes that a Service sends to.
    pub(crate) service: Option<ServiceWish>,
    /// What `status.addresses` shows.
    pub(crate) shown: Vec<Shown>,
    /// Those of its addresses that are made local for it, and whether one node answers ARP and NDP for them.
    pub(crate) owned: Vec<(IpNet, bool)>,
    pub(crate) faults: Vec<AddressFault>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) host: Host,
    pub(crate) routability: Routability,
}

/// The Service that is to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServiceWish {
    /// Of type LoadBalancer with these options; `None`: ClusterIP is enough.
    pub(crate) balancer: Option<ServiceSpec>,
    pub(crate) balancer_ip: Option<IpAddr>,
    pub(crate) cluster_ip: Option<IpAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AddressFault {
    /// Neither the machine's nor in a pool: nobody may take an address the operator did not give
    /// (`AddressNotUsable`).
    NotUsable(IpAddr),
    /// Every address of the pool is taken (`AddressNotAssigned`).
    Exhausted,
    /// It has addresses of other families; of this one every address of the pool is taken.
    FamilyExhausted(&'static str),
    /// The load balancer, or the API server, gave the Service no address yet.
    ServicePending,
    /// Somebody else has a Service of the name that its own would have.
    ServiceTaken(ObjectName),
    /// This program does not give addresses of this routability.
    Unsatisfiable(String),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn of(ip: &IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// The addresses one owner is to get out of its pool.
struct Slots<'a> {
    demand: &'a Demand,
    pool: &'a Pool,
    slots: Vec<(Family, Option<IpAddr>)>,
}

impl<'a> Slots<'a> {
    fn new(demand: &'a Demand) -> Option<Self> {
        let Addresses::Pool(pool) = &*demand.mode else {
            return None;
        };
        let mut families: Vec<Family> = Vec::new();
        for prefix in &pool.prefixes {
            let family = Family::of(&prefix.addr());
            if !families.contains(&family) {
                families.push(family);
            }
        }
        let open =
            |wish: &&Wish| wish.value.is_none() && matches!(wish.routability, Routability::Any | Routability::Sentinel);
        let count = match demand.wishes.len() {
            0 => families.len(),
            _ => demand.wishes.iter().filter(open).count(),
        };
        let slots = families.iter().cycle().take(count).map(|family| (*family, None));
        Some(Self {
            demand,
            pool,
            slots: slots.collect(),
        })
    }

    fn keep(&mut self, settings: &Settings, taken: &mut BTreeSet<IpAddr>) {
        let last = settings.allocations.get(&self.demand.owner).into_iter().flatten();
        for ip in self.demand.present.iter().chain(last) {
            let family = Family::of(ip);
            let mut free = self.slots.iter_mut().filter(|(f, slot)| *f == family && slot.is_none());
            if let Some((_, slot)) = free.next()
                && in_pool(self.pool, ip)
                && taken.insert(*ip)
            {
                *slot = Some(*ip);
            }
        }
    }
}

type Free<'a> = Box<dyn Iterator<Item = IpAddr> + 'a>;

/// Pure and stable: an owner keeps the address it has while it exists and the pool has it. Pools of several
/// GatewayParameters may overlap: no address is given twice.
pub(crate) fn assign(settings: &Settings, demands: &[Demand]) -> (BTreeMap<ObjectName, Assigned>, Allocations) {
    let mut order: Vec<&Demand> = demands.iter().collect();
    order.sort_by(|a, b| (&a.age, &a.owner).cmp(&(&b.age, &b.owner)));
    // An address that somebody names now goes to that one.
    let mut taken: BTreeSet<IpAddr> = BTreeSet::new();
    for demand in &order {
        if let Addresses::Pool(pool) = &*demand.mode {
            let named = demand.wishes.iter().filter_map(|wish| wish.value);
            taken.extend(named.filter(|ip| in_pool(pool, ip)));
        }
    }
    let mut all: Vec<Slots<'_>> = order.iter().filter_map(|demand| Slots::new(demand)).collect();
    for slots in &mut all {
        slots.keep(settings, &mut taken);
    }
    if settings.allocate {
        let mut free: BTreeMap<(&[IpNet], Family), Free<'_>> = BTreeMap::new();
        for slots in &mut all {
            let prefixes = &slots.pool.prefixes[..];
            for (family, slot) in slots.slots.iter_mut().filter(|(_, slot)| slot.is_none()) {
                let free = free.entry((prefixes, *family)).or_insert_with(|| {
                    let family = *family;
                    let of_family = prefixes.iter().filter(move |p| Family::of(&p.addr()) == family);
                    Box::new(of_family.flat_map(addresses))
                });
                *slot = free.find(|ip| taken.insert(*ip));
            }
        }
    }
    let allocated: BTreeMap<&ObjectName, Vec<(Family, Option<IpAddr>)>> = all
        .into_iter()
        .map(|slots| (&slots.demand.owner, slots.slots))
        .collect();
    let allocations = allocated
        .iter()
        .map(|(owner, slots)| ((*owner).clone(), slots.iter().filter_map(|(_, ip)| *ip).collect()))
        .filter(|(_, ips): &(_, Vec<IpAddr>)| !ips.is_empty())
        .collect();
    let assigned = order.iter().map(|demand| {
        let slots = allocated.get(&demand.owner).map_or(&[][..], Vec::as_slice);
        (demand.owner.clone(), assign_one(settings, demand, slots))
    });
    (assigned.collect(), allocations)
}

fn assign_one(settings: &Settings, demand: &Demand, slots: &[(Family, Option<IpAddr>)]) -> Assigned {
    let mut making = Making {
        settings,
        demand,
        // With routability, "exactly one address per satisfied entry".
        single: demand.wishes.iter().any(|wish| wish.routability != Routability::Any),
        slots: slots.iter(),
        given: demand.given.clone(),
        made: Assigned::default(),
    };
    if demand.wishes.is_empty() {
        making.default();
    }
    for wish in &demand.wishes {
        making.wish(wish);
    }
    making.made
}

struct Making<'a> {
    settings: &'a Settings,
    demand: &'a Demand,
    single: bool,
    slots: std::slice::Iter<'a, (Family, Option<IpAddr>)>,
    /// What is not shown yet.
    given: Given,
    made: Assigned,
}

impl Making<'_> {
    fn default(&mut self) {
        let wish = Wish::default();
        let Addresses::Pool(pool) = &*self.demand.mode else {
            return self.wish(&wish);
        };
        let slots: Vec<_> = self.slots.by_ref().collect();
        if slots.iter().all(|(_, ip)| ip.is_none()) {
            return self.made.faults.push(AddressFault::Exhausted);
        }
        for (family, ip) in slots {
            match ip {
                Some(ip) => self.own(pool, *ip, &wish.routability),
                None => self.made.faults.push(AddressFault::FamilyExhausted(family.name())),
            }
        }
    }

    fn wish(&mut self, wish: &Wish) {
        let routability = &wish.routability;
        match (routability, wish.value, &*self.demand.mode) {
            (Routability::Unknown(text), _, _) => self.fault(AddressFault::Unsatisfiable(text.clone())),
            (Routability::Cluster, value, _) => self.cluster(value),
            (_, Some(ip), Addresses::Pool(pool)) if in_pool(pool, &ip) => self.own(pool, ip, routability),
            (_, Some(ip), Addresses::Service(spec)) => {
                self.service().balancer = Some(spec.clone());
                self.service().balancer_ip.get_or_insert(ip);
                match self.given.balancer.iter().position(|host| *host == Host::Ip(ip)) {
                    Some(index) => {
                        let host = self.given.balancer.remove(index);
                        self.show(host, routability);
                    }
                    None if self.demand.given.balancer.is_empty() => self.pending(),
                    None => self.fault(AddressFault::NotUsable(ip)),
                }
            }
            (_, Some(ip), _) if ip.is_loopback() || self.settings.machine_addresses.contains(&ip) => {
                self.bind(BindAddress::Ip(ip));
                self.show(Host::Ip(ip), routability);
            }
            (_, Some(ip), _) if ip.is_unspecified() => self.machine(routability),
            (_, Some(ip), _) => self.fault(AddressFault::NotUsable(ip)),
            (_, None, Addresses::Pool(pool)) => match self.slots.next() {
                Some((_, Some(ip))) => self.own(pool, *ip, routability),
                _ => self.fault(AddressFault::Exhausted),
            },
            (_, None, Addresses::Node) => self.machine(routability),
            (_, None, Addresses::Service(spec)) => {
                self.service().balancer = Some(spec.clone());
                let count = if self.single { 1 } else { self.given.balancer.len() };
                if self.given.balancer.is_empty() {
                    self.pending();
                }
                for host in self
                    .given
                    .balancer
                    .drain(..count.min(self.given.balancer.len()))
                    .collect::<Vec<_>>()
                {
                    self.show(host, routability);
                }
            }
        }
    }

    /// "An IPAddress that is a Service ClusterIP".
    fn cluster(&mut self, value: Option<IpAddr>) {
        let service = self.service();
        service.cluster_ip = service.cluster_ip.or(value);
        let found = match value {
            Some(ip) => self.given.cluster.iter().position(|other| *other == ip),
            None => (!self.given.cluster.is_empty()).then_some(0),
        };
        match (found, value) {
            (Some(index), _) => {
                let ip = self.given.cluster.remove(index);
                self.show(Host::Ip(ip), &Routability::Cluster);
            }
            (None, _) if self.demand.given.cluster.is_empty() => self.pending(),
            (None, Some(ip)) => self.fault(AddressFault::NotUsable(ip)),
            (None, None) => self.fault(AddressFault::Unsatisfiable("Cluster".to_owned())),
        }
    }

    fn service(&mut self) -> &mut ServiceWish {
        self.made.service.get_or_insert_default()
    }

    /// There is no Service of its own that could have been given anything.
    fn pending(&mut self) {
        self.fault(match &self.demand.given.taken {
            Some(name) => AddressFault::ServiceTaken(name.clone()),
            None => AddressFault::ServicePending,
        });
    }

    fn fault(&mut self, fault: AddressFault) {
        self.made.faults.push(fault);
    }

    fn own(&mut self, pool: &Pool, ip: IpAddr, routability: &Routability) {
        self.bind(BindAddress::Ip(ip));
        self.show(Host::Ip(ip), routability);
        let host = IpNet::from(ip);
        if !self.made.owned.iter().any(|(net, _)| *net == host) {
            self.made.owned.push((host, pool.announced));
        }
    }

    fn machine(&mut self, routability: &Routability) {
        self.bind(BindAddress::Any);
        let count = if self.single { 1 } else { usize::MAX };
        for ip in self.settings.shown_addresses().iter().take(count) {
            self.show(Host::Ip(*ip), routability);
        }
    }

    fn bind(&mut self, address: BindAddress) {
        if !self.made.binds.contains(&address) {
            self.made.binds.push(address);
        }
    }

    fn show(&mut self, host: Host, routability: &Routability) {
        let shown = Shown {
            host,
            routability: routability.clone(),
        };
        if !self.made.shown.contains(&shown) {
            self.made.shown.push(shown);
        }
    }
}

fn in_pool(pool: &Pool, ip: &IpAddr) -> bool {
    pool.prefixes.iter().any(|prefix| usable(prefix, ip))
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

    /// The pool is for every demand of [`check`].
    fn settings(pools: &[&str], allocations: &[(&str, &str)]) -> Settings {
        let mut settings = Settings::new(jiff::Timestamp::UNIX_EPOCH);
        settings.address_pools = pools.iter().map(|pool| pool.parse().unwrap()).collect();
        settings.machine_addresses = vec!["192.0.2.10".parse().unwrap(), "2001:db8::10".parse().unwrap()];
        settings.allocations = allocations
            .iter()
            .map(|(name, ip)| (ObjectName::new("ns", name), vec![ip.parse().unwrap()]))
            .collect();
        settings
    }

    /// A Gateway that asks for `requested`; `""` is an entry without value.
    fn demand(name: &str, created: i64, requested: &[&str]) -> Demand {
        Demand {
            owner: ObjectName::new("ns", name),
            age: Age {
                created,
                namespace: "ns".into(),
                name: name.into(),
            },
            mode: Addresses::Node.into(),
            wishes: requested
                .iter()
                .map(|text| Wish {
                    value: text.parse().ok(),
                    routability: Routability::Any,
                })
                .collect(),
            present: Vec::new(),
            given: Given::default(),
        }
    }

    /// Every demand in the settings' pool.
    fn pooled(settings: &Settings, demands: &[Demand]) -> (BTreeMap<ObjectName, Assigned>, Allocations) {
        let mode = Arc::new(settings.default_addresses());
        let mut demands = demands.to_vec();
        for demand in &mut demands {
            demand.mode = Arc::clone(&mode);
        }
        assign(settings, &demands)
    }

    fn show(shown: &Shown) -> String {
        let place = shown.routability.as_str();
        let at = if place.is_empty() { "" } else { "@" };
        format!("{}{at}{place}", shown.host)
    }

    /// What each Gateway shows, or its faults.
    fn check(settings: &Settings, demands: &[Demand], expected: &[(&str, &str)]) {
        compare(&pooled(settings, demands).0, expected);
    }

    fn compare(assigned: &BTreeMap<ObjectName, Assigned>, expected: &[(&str, &str)]) {
        let actual: Vec<(String, String)> = assigned
            .iter()
            .map(|(name, a)| {
                let shown: Vec<String> = a.shown.iter().map(show).collect();
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
        let (assigned, _) = pooled(&settings(&["10.1.0.0/30"], &[]), &demands);
        assert_eq!(
            assigned[&ObjectName::new("ns", "a")].owned,
            [("10.1.0.1/32".parse().unwrap(), false)]
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
            ("d", "Exhausted"),
        ];
        check(&settings(&["10.1.0.0/31", "10.2.0.7/32"], &[]), &demands, &expected);
    }

    #[test]
    fn of_a_pool_of_both_families_each_gateway_gets_one_of_each() {
        let demands = [
            demand("a", 1, &[]),
            demand("b", 2, &[]),
            demand("c", 3, &["", ""]),
            demand("d", 4, &["", "", ""]),
        ];
        let expected = [
            ("a", "10.1.0.0 2001:db8:1::1"),
            ("b", "2001:db8:1::2 FamilyExhausted(\"IPv4\")"),
            ("c", "2001:db8:1::3 Exhausted"),
            ("d", "2001:db8:1::4 Exhausted Exhausted"),
        ];
        check(&settings(&["10.1.0.0/32", "2001:db8:1::/64"], &[]), &demands, &expected);
    }

    #[test]
    fn overlapping_pools_of_several_owners_give_no_address_twice() {
        let pool = |text: &str| {
            Arc::new(Addresses::Pool(Pool {
                prefixes: vec![text.parse().unwrap()],
                announced: true,
            }))
        };
        let (wide, narrow) = (pool("10.1.0.0/29"), pool("10.1.0.0/30"));
        let mut demands = [
            demand("a", 1, &[]),
            demand("b", 2, &[]),
            demand("c", 3, &["10.1.0.3"]),
            demand("d", 4, &["10.1.0.5"]),
        ];
        for (demand, mode) in demands.iter_mut().zip([&wide, &narrow, &wide, &narrow]) {
            demand.mode = Arc::clone(mode);
        }
        let (assigned, _) = assign(&settings(&[], &[]), &demands);
        let expected = [
            ("a", "10.1.0.1"),
            ("b", "10.1.0.2"),
            ("c", "10.1.0.3"),
            ("d", "NotUsable(10.1.0.5)"),
        ];
        compare(&assigned, &expected);
        assert_eq!(
            assigned[&ObjectName::new("ns", "a")].owned,
            [("10.1.0.1/32".parse().unwrap(), true)]
        );
    }

    #[test]
    fn what_stands_in_status_is_kept_and_only_the_leader_gives_more() {
        let mut demands = [demand("a", 1, &[]), demand("b", 2, &[]), demand("c", 3, &[])];
        demands[1].present = vec!["10.1.0.1".parse().unwrap()];
        demands[2].present = vec!["192.0.2.1".parse().unwrap(), "10.1.0.1".parse().unwrap()];
        let mut settings = settings(&["10.1.0.0/29"], &[]);
        check(
            &settings,
            &demands,
            &[("a", "10.1.0.2"), ("b", "10.1.0.1"), ("c", "10.1.0.3")],
        );
        settings.allocate = false;
        check(
            &settings,
            &demands,
            &[("a", "Exhausted"), ("b", "10.1.0.1"), ("c", "Exhausted")],
        );
    }

    #[test]
    fn a_balancer_gives_what_it_gives() {
        let mode = Arc::new(Addresses::Service(ServiceSpec::default()));
        let given = Given {
            taken: None,
            balancer: vec![
                Host::Ip("198.51.100.7".parse().unwrap()),
                Host::Name("lb.example".into()),
            ],
            cluster: Vec::new(),
        };
        let mut demands = [
            demand("any", 1, &[]),
            demand("named", 2, &["198.51.100.7"]),
            demand("other", 3, &["198.51.100.8"]),
            demand("waiting", 4, &[]),
        ];
        for demand in &mut demands {
            demand.mode = Arc::clone(&mode);
            if &*demand.owner.name != "waiting" {
                demand.given = given.clone();
            }
        }
        let (assigned, _) = assign(&settings(&[], &[]), &demands);
        let expected = [
            ("any", "198.51.100.7 lb.example"),
            ("named", "198.51.100.7"),
            ("other", "NotUsable(198.51.100.8)"),
            ("waiting", "ServicePending"),
        ];
        compare(&assigned, &expected);
        assert!(assigned.values().all(|a| a.binds.is_empty() && a.service.is_some()));
        let named = &assigned[&ObjectName::new("ns", "named")];
        let wanted = named.service.as_ref().and_then(|service| service.balancer_ip);
        assert_eq!(wanted, Some("198.51.100.7".parse().unwrap()));
    }

    #[test]
    fn each_entry_with_a_routability_gets_exactly_that() {
        let wish = |value: &str, routability: &str| Wish {
            value: value.parse().ok(),
            routability: Routability::parse(routability),
        };
        let wishes = vec![
            wish("", "Cluster"),
            wish("", SENTINEL),
            wish("", "testing.x-k8s.io/other"),
            wish("", ""),
            wish("10.96.0.9", "Cluster"),
        ];
        let mut one = demand("one", 1, &[]);
        one.wishes = wishes;
        one.given.cluster = vec!["10.96.0.7".parse().unwrap()];
        let waiting = Demand {
            owner: ObjectName::new("ns", "waiting"),
            given: Given::default(),
            wishes: vec![wish("", "Cluster")],
            ..one.clone()
        };
        let expected = [
            (
                "one",
                "10.96.0.7@Cluster 192.0.2.10@testing.x-k8s.io/sentinel 192.0.2.10 \
                 Unsatisfiable(\"testing.x-k8s.io/other\") NotUsable(10.96.0.9)",
            ),
            ("waiting", "ServicePending"),
        ];
        let (assigned, _) = assign(&settings(&[], &[]), &[one, waiting]);
        compare(&assigned, &expected);
        let waiting = &assigned[&ObjectName::new("ns", "waiting")];
        assert_eq!(
            (&waiting.binds[..], &waiting.service),
            (&[][..], &Some(ServiceWish::default()))
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
        let (assigned, allocations) = pooled(&settings, &demands);
        let fed = Settings {
            allocations,
            ..settings
        };
        assert_eq!(pooled(&fed, &demands).0, assigned);
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
        let (assigned, allocations) = pooled(&settings(&[], &[]), &demands);
        assert_eq!(assigned[&ObjectName::new("ns", "a")].binds, [BindAddress::Any]);
        assert!(allocations.is_empty());
    }
}
