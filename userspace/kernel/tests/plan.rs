//! The pure part: what a snapshot wants, and the steps towards it. Needs nothing of the machine.
#![allow(clippy::unwrap_used, reason = "a test says what failed by panicking")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use pierhead_abi::l4::{Backend, Hop, Place, Replies, Side, Slot, port_bit};
use pierhead_abi::layout::MAX_VIPS_PER_ENDPOINT;
use pierhead_abi::steer::{Binding, BindingKey, action, on_miss};
use pierhead_abi::{Addr, Port};
use pierhead_kernel::plan::{MapOp, State, Table, Target, Wanted, bounded, plan};
use pierhead_kernel::table::slots;
use pierhead_kernel::wanted::{Surroundings, Whereabouts, endpoint_nodes, wanted};
use pierhead_model::{BackendTarget, DataPath, EndpointState, InvalidReason, OnMiss, Snapshot, Transport};
use proptest::prelude::*;
use support::{Share, Snap, bind, share};

fn place(n: u8, port: u16) -> Place {
    Place::new(6, Addr::v4([10, 0, 0, n]), Port::new(port))
}

/// An endpoint here (link 0), or by way of another node.
fn at(n: u8, link: u32) -> Target {
    let addr = if link == 0 { [0; 4] } else { Addr::v4([10, 9, 0, 2]).0 };
    Target {
        place: place(n, 5_000),
        hop: Hop { addr, link },
    }
}

/// The maps as the kernel would have them, which complain when a step breaks what packets rely on.
#[derive(Default)]
struct Maps {
    backends: BTreeMap<u32, Backend>,
    /// Every endpoint that an id and generation ever meant.
    meant: BTreeMap<(u32, u32), (u32, Target)>,
    replies: BTreeMap<Place, Replies>,
    tables: BTreeMap<Place, Table>,
    ports: BTreeMap<u32, u64>,
    bindings: BTreeMap<(u32, BindingKey), Binding>,
    local: BTreeSet<ipnet::IpNet>,
}

impl Maps {
    fn perform(&mut self, op: &MapOp) {
        match op {
            MapOp::PutBackend { id, backend } | MapOp::RetireBackend { id, backend } => {
                let endpoint = Target {
                    place: Place::new(backend.protocol, Addr(backend.addr), Port(backend.port)),
                    hop: backend.hop,
                };
                let meant = (backend.vip, endpoint);
                let before = self.meant.insert((*id, backend.generation), meant);
                assert!(
                    before.is_none_or(|before| before == meant),
                    "an id and generation mean one endpoint for ever"
                );
                if backend.alive == 1 {
                    let there = self.backends.get(id).unwrap();
                    assert_eq!(
                        Backend { alive: 1, ..*there },
                        *backend,
                        "all the rest is there before it is alive"
                    );
                }
                self.backends.insert(*id, *backend);
            }
            MapOp::PutPorts { index, ports: 0 } => assert!(self.ports.remove(index).is_some()),
            MapOp::PutPorts { index, ports } => drop(self.ports.insert(*index, *ports)),
            MapOp::PutReplies { endpoint, replies } => drop(self.replies.insert(*endpoint, *replies)),
            MapOp::DropReplies { endpoint } => assert!(self.replies.remove(endpoint).is_some()),
            MapOp::PutTable { vip, table, .. } => drop(self.tables.insert(*vip, table.clone())),
            MapOp::DropTable { vip } => assert!(self.tables.remove(vip).is_some()),
            MapOp::PutBinding { key, binding } => drop(self.bindings.insert(*key, *binding)),
            MapOp::DropBinding { key } => assert!(self.bindings.remove(key).is_some()),
            MapOp::AddLocal(net) => assert!(self.local.insert(*net)),
            MapOp::RemoveLocal(net) => assert!(self.local.remove(net)),
            MapOp::PutSeed(_) | MapOp::PutOwned { .. } | MapOp::DropOwned { .. } => {}
        }
        self.check();
    }

    /// What must hold between any two steps: whoever is chosen lives, and its reply finds the way back.
    fn check(&self) {
        let binds = self.tables.keys().map(|place| (Side::Bind, place));
        let endpoints = self.replies.keys().map(|place| (Side::Endpoint, place));
        for (side, place) in binds.chain(endpoints) {
            let (index, bit) = port_bit(side, place.protocol, Port(place.port));
            let ports = self.ports.get(&index).copied().unwrap_or_default();
            assert!(
                ports & bit != 0,
                "{place:?} is there, and packets of its port are passed over"
            );
        }
        let mut vips = BTreeSet::new();
        for (vip, table) in &self.tables {
            assert!(vips.insert(table.vip), "one id, one bind");
            for (endpoint, slot, _) in &table.members {
                let backend = self.backends[&slot.backend];
                assert_eq!(
                    (backend.alive, backend.generation, backend.vip),
                    (1, slot.generation, table.vip)
                );
                assert_eq!(
                    Place::new(backend.protocol, Addr(backend.addr), Port(backend.port)),
                    *endpoint
                );
                if !backend.hop.is_here() {
                    continue;
                }
                let replies = self.replies[endpoint];
                let known = replies.vips[..replies.count as usize]
                    .iter()
                    .any(|known| known.addr == vip.addr && known.port == vip.port);
                // More changes at once than an endpoint has room for: the later step makes it good.
                assert!(
                    known || replies.count as usize == MAX_VIPS_PER_ENDPOINT,
                    "{vip:?} is not answered from {endpoint:?}"
                );
            }
        }
    }
}

fn any_wanted() -> impl Strategy<Value = Wanted> {
    let endpoints = proptest::collection::btree_map(0u8..5, (0u32..4, 0u32..3), 0..4);
    let vips = proptest::collection::btree_map(0u16..6, endpoints, 0..6);
    let nets = proptest::collection::btree_set(0u8..4, 0..3);
    (vips, nets).prop_map(|(vips, nets)| {
        let mut wanted = Wanted::default();
        for (port, endpoints) in vips {
            let endpoints = endpoints
                .into_iter()
                .map(|(n, (weight, link))| (at(n, link), weight))
                .collect();
            wanted.vips.insert(place(200, 80 + port), endpoints);
        }
        for n in nets {
            wanted.local.insert(format!("198.51.100.{n}/32").parse().unwrap());
            let key = BindingKey::new(6, Port::new(80), Addr::v4([198, 51, 100, n]));
            let binding = Binding {
                addr_bits: 128,
                action: action::STEER,
                on_miss: on_miss::PASS,
                reserved: 0,
            };
            wanted.bindings.insert((160, key), binding);
        }
        let _ = bounded(&mut wanted);
        wanted
    })
}

proptest! {
    #[test]
    fn every_step_of_any_history_keeps_packets_safe(history in proptest::collection::vec(any_wanted(), 1..12)) {
        let mut maps = Maps::default();
        let mut state = State::default();
        for wanted in history {
            let (ops, new) = plan(&state, &wanted);
            ops.iter().for_each(|op| maps.perform(op));
            prop_assert_eq!(&maps.bindings, &wanted.bindings);
            prop_assert_eq!(&maps.local, &wanted.local);
            prop_assert_eq!(&maps.replies, &new.replies);
            prop_assert_eq!(&maps.tables, &new.tables);
            prop_assert_eq!(&maps.ports, &new.ports);
            let alive = maps.backends.values().filter(|backend| backend.alive == 1).count();
            prop_assert_eq!(alive, wanted.vips.values().map(BTreeMap::len).sum::<usize>());
            for replies in maps.replies.values() {
                prop_assert!(replies.count > 0);
            }
            prop_assert_eq!(plan(&new, &wanted).0, vec![], "nothing is left to do");
            state = new;
        }
    }
}

#[test]
fn endpoints_come_before_binds_and_leave_after_them() {
    let mut old = Wanted::default();
    old.vips.insert(place(200, 80), [(at(1, 0), 1)].into());
    old.local.insert("198.51.100.1/32".parse().unwrap());
    let (ops, state) = plan(&State::default(), &old);
    let names = |ops: &[MapOp]| -> Vec<String> {
        ops.iter()
            .map(|op| format!("{op:?}").split(['(', ' ']).next().unwrap().to_owned())
            .collect()
    };
    assert_eq!(
        names(&ops),
        [
            "PutPorts",
            "PutPorts",
            "PutBackend",
            "PutBackend",
            "PutReplies",
            "PutTable",
            "AddLocal"
        ]
    );
    let (ops, _) = plan(&state, &Wanted::default());
    assert_eq!(
        names(&ops),
        [
            "RemoveLocal",
            "DropTable",
            "DropReplies",
            "PutPorts",
            "PutPorts",
            "RetireBackend"
        ]
    );
}

/// What each slot of the bind's only table leads to.
fn chosen(wanted: &Wanted, before: &State) -> Vec<Place> {
    let (_, state) = plan(before, wanted);
    let by_slot: BTreeMap<Slot, Place> = state.pairs.iter().map(|((_, to), slot)| (*slot, to.place)).collect();
    let table = state.tables.values().next().unwrap();
    slots(table).iter().map(|slot| by_slot[slot]).collect()
}

proptest! {
    #[test]
    fn all_nodes_choose_alike(
        endpoints in proptest::collection::btree_map(1u8..60, (0u32..5, 0u8..3), 1..20), seed: u64,
        histories in proptest::collection::vec(any_wanted(), 2),
    ) {
        prop_assume!(endpoints.values().any(|(weight, _)| *weight > 0));
        // As seen from a node: what is there is here, the rest by way of others.
        let seen_from = |node: u8| {
            let link = |its: u8| if its == node { 0 } else { u32::from(its) + 1 };
            let targets = endpoints.iter().map(|(n, (weight, its))| (at(*n, link(*its)), *weight));
            let vips = [(place(200, 80), targets.collect())].into();
            Wanted { vips, seed: Some(seed), ..Wanted::default() }
        };
        let after = |wanted: &Wanted| plan(&State::default(), wanted).1;
        let [one, two] = [0, 1].map(|node| chosen(&seen_from(node), &after(&histories[usize::from(node)])));
        prop_assert_eq!(&one, &two);
        prop_assert_eq!(&one, &chosen(&seen_from(9), &State { seed: !seed, ..State::default() }));
    }
}

#[test]
fn a_new_seed_is_known_before_the_tables_are_made_of_it() {
    let mut want = Wanted::default();
    want.vips.insert(place(200, 80), [(at(1, 0), 1), (at(2, 1), 1)].into());
    let (_, state) = plan(
        &State {
            seed: 7,
            ..State::default()
        },
        &want,
    );
    assert!(
        state.tables.values().all(|table| table.seed == 7),
        "what the kernel had"
    );
    want.seed = Some(8);
    let (ops, state) = plan(&state, &want);
    assert!(
        matches!(&ops[..], [MapOp::PutSeed(8), MapOp::PutTable { fresh: false, .. }]),
        "{ops:?}"
    );
    assert_eq!(plan(&state, &want).0, vec![]);
}

#[test]
fn a_restarted_process_writes_tables_anew_but_keeps_ids() {
    let mut want = Wanted::default();
    want.vips.insert(place(200, 80), [(at(1, 0), 1)].into());
    let (_, mut state) = plan(&State::default(), &want);
    let before = state.tables.clone();
    state.tables.clear();
    let (ops, after) = plan(&state, &want);
    assert!(matches!(&ops[..], [MapOp::PutTable { fresh: false, .. }]), "{ops:?}");
    assert_eq!(after.tables, before);
}

#[test]
fn more_binds_on_one_endpoint_than_a_reply_looks_at_stay_in_userspace() {
    let mut want = Wanted::default();
    for port in 0..6 {
        want.vips.insert(place(200, 80 + port), [(at(1, 0), 1)].into());
    }
    let refused = bounded(&mut want);
    assert_eq!((want.vips.len(), refused.len()), (MAX_VIPS_PER_ENDPOINT, 2));
    assert!(refused.values().all(|full| full.why().contains("shared")));
}

#[test]
fn ten_thousand_binds_fit_and_those_beyond_the_limit_are_told_it() {
    let mut want = Wanted::default();
    for number in 0..10_500_u16 {
        let vip = Place::new(17, Addr::v4([198, 51, 100, 1]), Port::new(1_000 + number));
        let endpoint = Place::new(17, Addr::v4([10, 1, 0, 10]), Port::new(5_000 + number));
        want.vips.insert(vip, [(Target::here(endpoint), 1)].into());
    }
    let refused = bounded(&mut want);
    assert_eq!((want.vips.len(), refused.len()), (10_240, 260));
    assert!(refused.values().all(|full| full.why().contains("10240")), "{refused:?}");
    // All of them may be exchanged for others at once.
    let (_, state) = plan(&State::default(), &want);
    let mut others = Wanted::default();
    for (vip, endpoints) in std::mem::take(&mut want.vips) {
        others.vips.insert(Place { protocol: 6, ..vip }, endpoints);
    }
    let (ops, state) = plan(&state, &others);
    assert!(
        ops.iter()
            .all(|op| !matches!(op, MapOp::PutTable { table, .. } if table.vip >= 20_480))
    );
    assert_eq!(state.vip_ids.len(), 10_240);
}

const POD: &str = "10.1.0.10:5000";
const HERE: &str = "198.51.100.1:80";

/// A node that has everything.
fn around() -> Surroundings {
    let mut places = BTreeMap::new();
    for (ip, whereabouts) in [
        ("10.1.0.10", Whereabouts::OnLink),
        ("10.1.0.11", Whereabouts::OnLink),
        ("10.9.0.1", Whereabouts::Own),
        ("127.0.0.1", Whereabouts::Loopback),
        ("10.2.0.10", Whereabouts::Elsewhere),
        ("fd01::10", Whereabouts::OnLink),
    ] {
        places.insert(ip.parse::<IpAddr>().unwrap(), whereabouts);
    }
    Surroundings {
        no_l4: None,
        node: Some("here".to_owned()),
        addresses: vec!["10.9.0.1".parse().unwrap(), "2001:db8:9::1".parse().unwrap()],
        forwards_v4: true,
        forwards_v6: true,
        places,
        neighbours: BTreeMap::from([("there".into(), vec![hop("10.9.0.2")]), ("far".into(), Vec::new())]),
    }
}

fn hop(address: &str) -> Hop {
    Hop {
        addr: Addr::from(address.parse::<IpAddr>().unwrap()).0,
        link: 2,
    }
}

/// What carries the only bind, why, and what is wanted.
fn carried(snapshot: &Snapshot, around: &Surroundings) -> (DataPath, String, Wanted) {
    let (wanted, reports) = wanted(snapshot, around);
    let first = reports.into_iter().next().unwrap();
    (first.path, first.why, wanted)
}

#[track_caller]
fn steered(snapshot: &Snapshot, around: &Surroundings, why: &str) {
    let (path, said, wanted) = carried(snapshot, around);
    assert_eq!(path, DataPath::Steered);
    assert!(said.contains(why), "{said:?} should say {why:?}");
    assert!(wanted.vips.is_empty());
    assert!(!wanted.bindings.is_empty(), "userspace gets it");
}

fn tcp(address: &str, shares: &[Share]) -> Snap {
    Snap::default().l4(bind(Transport::Tcp, address), shares)
}

#[test]
fn a_bind_whose_endpoints_are_all_here_is_in_the_kernel_and_steered_too() {
    let snapshot = tcp(
        HERE,
        &[share(1, &[POD]), share(3, &["10.1.0.11:5000", "10.9.0.1:6000"])],
    )
    .0;
    let (path, _, wanted) = carried(&snapshot, &around());
    assert_eq!(path, DataPath::Kernel);
    let endpoints = wanted.vips.values().next().unwrap();
    let weights: BTreeMap<IpAddr, u32> = endpoints
        .iter()
        .map(|(endpoint, weight)| (Addr(endpoint.place.addr).into(), *weight))
        .collect();
    // One backend has a share of 1, the other 3 for two endpoints.
    let expected = [("10.1.0.10", 4_096), ("10.1.0.11", 6_144), ("10.9.0.1", 6_144)];
    assert_eq!(
        weights,
        expected.map(|(ip, weight)| (ip.parse().unwrap(), weight)).into()
    );
    assert_eq!(
        wanted.bindings.len(),
        1,
        "what the kernel does not take goes to userspace"
    );
}

#[test]
fn one_endpoint_in_two_backends_adds_up() {
    let snapshot = tcp(HERE, &[share(1, &[POD]), share(2, &[POD, "10.1.0.11:5000"])]).0;
    let (_, _, wanted) = carried(&snapshot, &around());
    let weights: Vec<u32> = wanted.vips.values().next().unwrap().values().copied().collect();
    assert_eq!(weights, [8_192, 4_096]);
}

#[test]
fn every_address_means_those_of_external_interfaces() {
    let (path, _, wanted) = carried(&tcp("*:80", &[share(1, &[POD])]).0, &around());
    assert_eq!(path, DataPath::Kernel);
    let vips: Vec<Place> = wanted.vips.keys().copied().collect();
    assert_eq!(
        vips,
        [Place::new(6, Addr::v4([10, 9, 0, 1]), Port::new(80))],
        "the endpoint's family"
    );
    assert_eq!(wanted.bindings.len(), 3);
}

#[test]
fn everything_that_is_not_for_the_kernel_says_why() {
    let here = around();
    let one = |shares: &[Share]| tcp(HERE, shares).0;
    steered(
        &one(&[share(1, &["10.2.0.10:1"])]),
        &here,
        "endpoint 10.2.0.10:1 of test/tcp 198.51.100.1:80/0 is not on this node",
    );
    steered(
        &one(&[share(1, &[POD]), share(1, &["10.2.0.10:1"])]),
        &here,
        "is not on this node",
    );
    steered(&one(&[share(1, &["127.0.0.1:1"])]), &here, "is a loopback address");
    steered(&one(&[share(1, &["10.3.0.10:1"])]), &here, "has no route");
    steered(&one(&[share(1, &[POD]), share(1, &[])]), &here, "has no endpoint");
    steered(&one(&[share(0, &[POD])]), &here, "no backend has a weight");
    steered(
        &one(&[share(1, &[POD, "[fd01::10]:1"])]),
        &here,
        "both address families",
    );
    steered(&one(&[share(1, &["[fd01::10]:1"])]), &here, "no IPv6 address");
    steered(&one(&[]), &here, "no route is attached");
    steered(
        &tcp("198.51.100.0/24:80", &[share(1, &[POD])]).0,
        &here,
        "a bind to a prefix",
    );
    steered(
        &tcp("198.51.100.1:*", &[share(1, &[POD])]).0,
        &here,
        "a bind to all ports",
    );
    steered(
        &tcp("127.0.0.1:80", &[share(1, &[POD])]).0,
        &here,
        "not reached through an external interface",
    );
    steered(
        &tcp("10.9.0.1:80", &[share(1, &["10.9.0.1:80"])]).0,
        &here,
        "is itself an address of a bind",
    );
    steered(
        &tcp("*:80", &[share(1, &["10.9.0.1:80"])]).0,
        &here,
        "is itself an address of a bind",
    );
    let off = Surroundings {
        no_l4: Some("it is off".to_owned()),
        ..around()
    };
    steered(&one(&[share(1, &[POD])]), &off, "it is off");
    let closed = Surroundings {
        forwards_v4: false,
        ..around()
    };
    steered(&one(&[share(1, &[POD])]), &closed, "sysctl -w net.ipv4.ip_forward=1");
}

#[test]
fn a_share_that_userspace_must_refuse_keeps_the_bind_there() {
    let mut snapshot = tcp(HERE, &[share(1, &[POD]), share(1, &[POD])]).0;
    let id = snapshot.backends.keys().nth(1).unwrap().clone();
    let mut backend = (*snapshot.backends[&id]).clone();
    backend.target = BackendTarget::Invalid {
        reason: InvalidReason::BackendNotFound,
        message: String::new(),
    };
    snapshot.backends.insert(id, backend.into());
    steered(&snapshot, &around(), "is invalid");
}

#[test]
fn the_name_of_a_node_is_believed() {
    let named = |node: &str, endpoint: &str| {
        let mut snapshot = tcp(HERE, &[share(1, &[endpoint])]).0;
        let id = snapshot.endpoints.keys().next().unwrap().clone();
        let mut set = (*snapshot.endpoints[&id]).clone();
        set.endpoints[0].node = Some(node.into());
        snapshot.endpoints.insert(id, set.into());
        carried(&snapshot, &around()).0
    };
    assert_eq!(named("here", POD), DataPath::Kernel);
    assert_eq!(named("far", POD), DataPath::Steered);
    assert_eq!(named("here", "10.2.0.10:1"), DataPath::Kernel);
}

#[test]
fn a_draining_endpoint_weighs_nothing_unless_all_drain() {
    let endpoints = |states: [EndpointState; 2]| {
        let endpoints = ["10.1.0.10:5000", "10.1.0.11:5000"].map(|text| text.parse().unwrap());
        let shares = [Share {
            weight: 2,
            endpoints: endpoints.into_iter().zip(states).collect(),
        }];
        let (_, _, wanted) = carried(&tcp(HERE, &shares).0, &around());
        wanted
            .vips
            .values()
            .next()
            .unwrap()
            .values()
            .copied()
            .collect::<Vec<u32>>()
    };
    use EndpointState::{Draining, Ready};
    assert_eq!(endpoints([Ready, Ready]), [4_096, 4_096]);
    assert_eq!(endpoints([Draining, Ready]), [0, 8_192]);
    assert_eq!(endpoints([Draining, Draining]), [4_096, 4_096]);
}

#[test]
fn a_bind_on_an_owned_address_misses_as_the_owner_says() {
    let snapshot = Snap::default()
        .own("198.51.100.0/24", OnMiss::Pass)
        .own("198.51.100.1/32", OnMiss::Drop)
        .steer(bind(Transport::Tcp, "198.51.100.1:80"))
        .steer(bind(Transport::Tcp, "198.51.100.2:80"))
        .steer(bind(Transport::Tcp, "10.9.0.1:80"));
    let (wanted, _) = wanted(&snapshot.0, &around());
    let misses: BTreeMap<IpAddr, u8> = wanted
        .bindings
        .iter()
        .map(|((_, key), binding)| (Addr(key.addr).into(), binding.on_miss))
        .collect();
    let miss = |ip: &str| misses[&ip.parse::<IpAddr>().unwrap()];
    assert_eq!(miss("198.51.100.1"), on_miss::REFUSE, "the longest owner decides");
    assert_eq!(miss("198.51.100.2"), on_miss::PASS);
    assert_eq!(miss("10.9.0.1"), on_miss::PASS, "the machine's own address");
}

/// The same with the endpoint on a node of this name.
fn on(node: &str, bind: &str, endpoints: &[&str]) -> Snapshot {
    endpoints
        .iter()
        .fold(tcp(bind, &[share(1, endpoints)]), |snap, one| snap.on(one, node))
        .0
}

#[test]
fn what_is_on_another_node_is_passed_on_where_that_is_a_neighbour() {
    let here = around();
    let targets = |snapshot: &Snapshot| -> Vec<Hop> {
        let (path, why, wanted) = carried(snapshot, &here);
        assert_eq!(path, DataPath::Kernel, "{why}");
        let mut hops: Vec<Hop> = wanted
            .vips
            .values()
            .flat_map(BTreeMap::keys)
            .map(|target| target.hop)
            .collect();
        hops.sort_by_key(|hop| hop.link);
        hops
    };
    // Whatever the routes say of its address.
    for endpoint in [POD, "10.2.0.10:1", "10.3.0.10:1"] {
        assert_eq!(
            targets(&on("there", HERE, &[endpoint])),
            [hop("10.9.0.2")],
            "{endpoint}"
        );
    }
    assert_eq!(targets(&on("here", HERE, &[POD])), [Hop::HERE]);
    // An address of this machine is here, whatever is said of it.
    assert_eq!(targets(&on("there", HERE, &["10.9.0.1:6000"])), [Hop::HERE]);
    let both = tcp(HERE, &[share(1, &[POD, "10.1.0.11:1", "10.2.0.10:1"])])
        .on("10.2.0.10:1", "there")
        .0;
    assert_eq!(targets(&both), [Hop::HERE, Hop::HERE, hop("10.9.0.2")]);
    assert!(carried(&both, &here).1.contains("2 of 3 endpoints are on this node"));

    steered(
        &on("far", HERE, &[POD]),
        &here,
        "is on node far, which is no neighbour on an external interface",
    );
    steered(
        &on("new", HERE, &[POD]),
        &here,
        "is on node new, of which no address is known",
    );
    steered(&on("there", HERE, &["127.0.0.1:1"]), &here, "is a loopback address");
    steered(
        &on("there", "*:80", &[POD]),
        &here,
        "is on another node, and the bind is to this node's own addresses",
    );
    let nameless = Surroundings { node: None, ..around() };
    steered(&on("there", HERE, &["10.2.0.10:1"]), &nameless, "is not on this node");
    let closed = Surroundings {
        forwards_v4: false,
        ..around()
    };
    assert_eq!(
        carried(&on("there", HERE, &[POD]), &closed).0,
        DataPath::Kernel,
        "nothing is forwarded here"
    );
}

#[test]
fn the_way_to_a_node_is_of_the_packets_family() {
    let way = |vip: &str, endpoint: &str, hops: &[&str]| {
        let neighbours = BTreeMap::from([("there".into(), hops.iter().map(|text| hop(text)).collect())]);
        let (_, _, wanted) = carried(&on("there", vip, &[endpoint]), &Surroundings { neighbours, ..around() });
        wanted
            .vips
            .values()
            .flat_map(BTreeMap::keys)
            .next()
            .map(|target| target.hop)
    };
    let (v4, v6) = ("10.9.0.2", "2001:db8:9::2");
    assert_eq!(way(HERE, POD, &[v6, v4]), Some(hop(v4)));
    assert_eq!(way(HERE, POD, &[v6]), None);
    const HERE6: &str = "[2001:db8:100::1]:80";
    assert_eq!(way(HERE6, "[fd01::10]:1", &[v4, v6]), Some(hop(v6)));
    assert_eq!(way(HERE6, "[fd01::10]:1", &[v4]), None);
}

#[test]
fn only_nodes_with_endpoints_of_layer_4_are_looked_for() {
    let snapshot = tcp(HERE, &[share(1, &[POD, "10.2.0.10:1"])])
        .on(POD, "one")
        .on("10.2.0.10:1", "unknown")
        .fleet(7, &[("one", &["10.9.0.2", "10.9.0.3"]), ("two", &["10.9.0.4"])])
        .0;
    let found: Vec<(String, usize)> = endpoint_nodes(&snapshot)
        .iter()
        .map(|(name, addresses)| (name.to_string(), addresses.len()))
        .collect();
    assert_eq!(found, [("one".to_owned(), 2)]);
    assert_eq!(wanted(&snapshot, &around()).0.seed, Some(7));
}
