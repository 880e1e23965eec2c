use std::collections::BTreeSet;

use pierhead_model::{
    Backend, BackendId, BackendProtocol, BackendTarget, BindAddress, BindKey, BindPort, Endpoints, EndpointsId, Origin,
    RouteFlavor, Transport,
};
use proptest::prelude::*;

use super::*;
use crate::fixture::{self, everything};

/// A controller and a node.
struct Pair {
    encoder: Encoder,
    assembly: Assembly,
}

impl Pair {
    fn new() -> Self {
        Self {
            encoder: Encoder::default(),
            assembly: Assembly::default(),
        }
    }

    /// Sends a snapshot; what the node makes of it, accepted.
    fn send(&mut self, snapshot: &Arc<Snapshot>) -> Candidate {
        let changes = self.encoder.encode(snapshot);
        changes
            .changed
            .into_iter()
            .for_each(|resource| self.assembly.put(resource));
        changes.removed.iter().for_each(|name| self.assembly.remove(name));
        let candidate = self.assembly.candidate();
        check(&candidate);
        self.assembly.accept(&candidate);
        candidate
    }

    /// Sends a body that is none, under a name.
    fn garble(&mut self, name: &str) -> Candidate {
        self.assembly
            .put(Resource::new(ResourceName::new(name), vec![0xff].into()));
        let candidate = self.assembly.candidate();
        check(&candidate);
        self.assembly.accept(&candidate);
        candidate
    }
}

/// Whatever was sent, every id that is named exists.
#[track_caller]
fn check(candidate: &Candidate) {
    let dangling = reference::dangling(&candidate.snapshot);
    assert!(dangling.is_empty(), "{dangling:?}");
}

fn held_back(candidate: &Candidate) -> Vec<&str> {
    candidate.held_back.keys().map(ResourceName::as_str).collect()
}

fn without(snapshot: &Snapshot, change: impl FnOnce(&mut Snapshot)) -> Arc<Snapshot> {
    let mut snapshot = snapshot.clone();
    change(&mut snapshot);
    snapshot.into()
}

#[test]
fn what_did_not_change_stays_the_same_allocation() {
    let mut pair = Pair::new();
    let first = pair.send(&everything()).snapshot;
    let id = fixture::route_id(RouteFlavor::Http);
    let changed = without(&everything(), |s| {
        Arc::make_mut(s.routes.get_mut(&id).unwrap()).rules.clear()
    });
    let second = pair.send(&changed).snapshot;
    assert_eq!(second, changed);
    for (key, route) in &second.routes {
        assert_eq!(Arc::ptr_eq(route, &first.routes[key]), *key != id, "{key}");
    }
    for (key, bind) in &second.binds {
        assert!(Arc::ptr_eq(bind, &first.binds[key]), "{key}");
    }
}

#[test]
fn a_changed_bind_keeps_its_unchanged_listeners() {
    let mut pair = Pair::new();
    let first = pair.send(&everything()).snapshot;
    let (key, _) = first.binds.iter().find(|(_, bind)| bind.listeners.len() == 3).unwrap();
    let changed = without(&everything(), |s| {
        drop(Arc::make_mut(s.binds.get_mut(key).unwrap()).listeners.remove(1))
    });
    let second = pair.send(&changed).snapshot;
    assert_eq!(second, changed);
    let (old, new) = (&first.binds[key].listeners, &second.binds[key].listeners);
    assert!(Arc::ptr_eq(&old[0], &new[0]) && Arc::ptr_eq(&old[2], &new[1]));
}

#[test]
fn a_resource_that_is_held_already_costs_nothing() {
    let mut pair = Pair::new();
    let first = pair.send(&everything()).snapshot;
    for resource in pair.encoder.resources().values() {
        pair.assembly.put(resource.clone());
    }
    assert!(Arc::ptr_eq(&pair.assembly.candidate().snapshot, &first));
}

#[test]
fn what_cannot_be_read_keeps_its_old_value_and_the_rest_goes_on() {
    let mut pair = Pair::new();
    pair.send(&everything());
    let name = "route/HttpRoute ns/shop";
    assert_eq!(held_back(&pair.garble(name)), [name]);

    // Another route goes, and the one that is held back stays.
    let gone = fixture::route_id(RouteFlavor::Grpc);
    let changed = without(&everything(), |s| drop(s.routes.remove(&gone)));
    let candidate = pair.send(&changed);
    assert_eq!(held_back(&candidate), [name]);
    assert_eq!(candidate.snapshot, changed);

    // It is mended.
    let id = fixture::route_id(RouteFlavor::Http);
    let mended = without(&changed, |s| {
        Arc::make_mut(s.routes.get_mut(&id).unwrap()).rules.clear()
    });
    let candidate = pair.send(&mended);
    assert!(candidate.held_back.is_empty());
    assert_eq!(candidate.snapshot, mended);
}

#[test]
fn what_cannot_be_read_and_has_no_old_value_is_absent() {
    let mut pair = Pair::new();
    pair.send(&everything());
    for name in ["route/HTTPRoute ns/new", "quota/new"] {
        let candidate = pair.garble(name);
        assert!(held_back(&candidate).contains(&name));
        assert_eq!(candidate.snapshot, everything());
        pair.assembly.remove(&ResourceName::new(name));
    }
    assert!(pair.assembly.candidate().held_back.is_empty());
}

#[test]
fn an_old_value_keeps_all_that_it_names() {
    let mut pair = Pair::new();
    pair.send(&everything());
    let name = "route/HttpRoute ns/shop";
    pair.garble(name);
    // The controller takes everything else back: the old route still needs its backends, these their endpoints, certificate
    // and trust.
    let id = fixture::route_id(RouteFlavor::Http);
    let alone = Snapshot {
        routes: [(id.clone(), Arc::clone(&everything().routes[&id]))].into(),
        ..Snapshot::default()
    };
    let candidate = pair.send(&alone.into());
    assert_eq!(held_back(&candidate), [name], "what only came back is not held back");
    let Snapshot {
        binds,
        routes,
        backends,
        endpoints,
        certificates,
        trust,
        owned,
        fleet,
    } = &*candidate.snapshot;
    assert_eq!((binds.len(), routes.len(), backends.len()), (0, 1, 2));
    assert_eq!(
        (
            endpoints.len(),
            certificates.len(),
            trust.len(),
            owned.len(),
            fleet.len()
        ),
        (1, 1, 1, 0, 0)
    );

    // When the route goes as well, so does all of it.
    pair.assembly.remove(&ResourceName::new(name));
    assert_eq!(*pair.assembly.candidate().snapshot, Snapshot::default());
}

#[test]
fn what_names_something_missing_is_held_back_until_it_comes() {
    let mut pair = Pair::new();
    let backend = fixture::backend_id();
    let lacking = without(&everything(), |s| drop(s.backends.remove(&backend)));
    let candidate = pair.send(&lacking);
    let why = "it names backend/ns/web:80, which is missing or cannot be used";
    assert!(candidate.held_back.values().all(|told| told == why), "{candidate:?}");
    assert_eq!(
        candidate.held_back.len(),
        5,
        "three routes and the two binds with L4 routes"
    );
    assert!(candidate.snapshot.routes.is_empty());
    assert_eq!(candidate.snapshot.binds.len(), 2);

    let candidate = pair.send(&everything());
    assert!(candidate.held_back.is_empty());
    assert_eq!(candidate.snapshot, everything());
}

#[test]
fn taking_back_what_is_still_named_holds_it() {
    let mut pair = Pair::new();
    pair.send(&everything());
    let trust = fixture::trust();
    let candidate = pair.send(&without(&everything(), |s| drop(s.trust.remove(&trust))));
    assert_eq!(candidate.snapshot, everything(), "nothing is torn apart");
    assert!(held_back(&candidate).contains(&"backend/ns/web:80"));
}

#[test]
fn what_the_data_plane_refuses_is_held_back_until_it_changes() {
    let mut pair = Pair::new();
    pair.send(&everything());
    let id = fixture::route_id(RouteFlavor::Http);
    let changed = without(&everything(), |s| {
        Arc::make_mut(s.routes.get_mut(&id).unwrap()).rules.clear()
    });
    let changes = pair.encoder.encode(&changed);
    changes
        .changed
        .into_iter()
        .for_each(|resource| pair.assembly.put(resource));
    assert_eq!(pair.assembly.candidate().snapshot, changed);
    let name = ResourceId::Route(id.clone()).name();
    let unknown = ResourceName::new("route/HTTPRoute ns/nobody");
    pair.assembly
        .refuse([(name.clone(), "too much".to_owned()), (unknown, "?".to_owned())]);
    let candidate = pair.assembly.candidate();
    assert_eq!(candidate.held_back, BTreeMap::from([(name, "too much".to_owned())]));
    assert_eq!(candidate.snapshot, everything());
    pair.assembly.accept(&candidate);

    let again = without(&changed, |s| {
        Arc::make_mut(s.routes.get_mut(&id).unwrap()).attachments.clear()
    });
    assert_eq!(pair.send(&again).snapshot, again);
}

#[test]
fn a_candidate_that_was_not_accepted_is_tried_again_with_the_next() {
    let mut pair = Pair::new();
    let first = pair.send(&everything()).snapshot;
    let id = fixture::route_id(RouteFlavor::Http);
    let second = without(&everything(), |s| drop(s.routes.remove(&id)));
    let changes = pair.encoder.encode(&second);
    changes.removed.iter().for_each(|name| pair.assembly.remove(name));
    let _rejected = pair.assembly.candidate();
    assert!(Arc::ptr_eq(pair.assembly.good(), &first));
    let third = without(&second, |s| s.owned.clear());
    assert_eq!(pair.send(&third).snapshot, third);
}

#[test]
fn what_was_found_on_disk_is_held() {
    let assembly = Assembly::of(&everything());
    let mut encoder = Encoder::default();
    encoder.encode(&everything());
    let held: Vec<_> = assembly
        .versions()
        .map(|(name, version)| (name.clone(), version))
        .collect();
    let had: Vec<_> = encoder
        .resources()
        .values()
        .map(|r| (r.name.clone(), r.version))
        .collect();
    assert_eq!(held, had);
    assert_eq!(*assembly.good(), everything());
    assert!(assembly.candidate().held_back.is_empty());
}

/// A small world in which things are missing, garbled, refused, mended and taken back at random.
mod at_random {
    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Endpoints(u8, bool),
        /// A backend with the endpoints it names, or none.
        Backend(u8, Option<u8>),
        Route(u8, Option<Vec<u8>>),
        Garble(u8),
        Refuse(u8),
        Reject,
    }

    fn step() -> impl Strategy<Value = Step> {
        let few = 0..3_u8;
        prop_oneof![
            (few.clone(), any::<bool>()).prop_map(|(n, there)| Step::Endpoints(n, there)),
            (few.clone(), prop::option::of(few.clone())).prop_map(|(n, to)| Step::Backend(n, to)),
            (few.clone(), prop::option::of(prop::collection::vec(few.clone(), 0..3)))
                .prop_map(|(n, to)| Step::Route(n, to)),
            few.clone().prop_map(Step::Garble),
            few.prop_map(Step::Refuse),
            Just(Step::Reject),
        ]
    }

    fn endpoints(n: u8) -> Endpoints {
        Endpoints {
            id: EndpointsId::new(&format!("e{n}")),
            endpoints: Vec::new(),
        }
    }

    fn backend(n: u8, to: u8) -> Backend {
        Backend {
            id: BackendId::new(&format!("b{n}")),
            origin: Origin::new("Service", "ns", "s"),
            target: BackendTarget::Endpoints(EndpointsId::new(&format!("e{to}"))),
            protocol: BackendProtocol::Http1,
            tls: None,
        }
    }

    fn bind(n: u8, to: &[u8]) -> Bind {
        let base = everything();
        let tcp = base
            .binds
            .values()
            .find(|bind| matches!(bind.listeners[0].kind, pierhead_model::ListenerKind::Tcp { .. }));
        let mut bind = (**tcp.unwrap()).clone();
        bind.key = BindKey {
            transport: Transport::Tcp,
            address: BindAddress::Any,
            port: BindPort::Port(n.into()),
        };
        let backends = to.iter().map(|n| pierhead_model::WeightedBackend {
            backend: BackendId::new(&format!("b{n}")),
            weight: 1,
            filters: Vec::new(),
        });
        let route = pierhead_model::L4Route {
            origin: Origin::new("TCPRoute", "ns", "t"),
            backends: backends.collect(),
        };
        let mut listener = (*bind.listeners[0]).clone();
        listener.kind = pierhead_model::ListenerKind::Tcp {
            route: Some(route.into()),
        };
        bind.listeners = vec![listener.into()];
        bind
    }

    fn put<S: Section>(assembly: &mut Assembly, key: &S::Key, value: Option<&S>) {
        let name = S::id(key).name();
        match value {
            Some(value) => assembly.put(Resource::new(name, value.encode(key))),
            None => assembly.remove(&name),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn a_candidate_is_whole_and_the_short_way_finds_the_same(steps in prop::collection::vec(step(), 0..30)) {
            let mut assembly = Assembly::default();
            for step in steps {
                match step {
                    Step::Endpoints(n, there) => {
                        let value = Arc::new(endpoints(n));
                        put(&mut assembly, &value.id, there.then_some(&value));
                    }
                    Step::Backend(n, to) => {
                        let value = Arc::new(backend(n, to.unwrap_or_default()));
                        put(&mut assembly, &value.id, to.is_some().then_some(&value));
                    }
                    Step::Route(n, to) => {
                        let value = Arc::new(bind(n, to.as_deref().unwrap_or_default()));
                        put(&mut assembly, &value.key, to.is_some().then_some(&value));
                    }
                    Step::Garble(n) => {
                        let name = ResourceName::new(&format!("backend/b{n}"));
                        assembly.put(Resource::new(name, vec![0xff].into()));
                    }
                    Step::Refuse(n) => {
                        let name = ResourceName::new(&format!("bind/tcp *:{n}"));
                        assembly.refuse([(name, "refused".to_owned())]);
                    }
                    Step::Reject => {
                        assembly.candidate();
                        continue;
                    }
                }
                let candidate = assembly.candidate();
                check(&candidate);
                let long_way = assembly.settle();
                prop_assert_eq!(&candidate.snapshot, &long_way.snapshot);
                prop_assert_eq!(&candidate.held_back, &long_way.held_back);
                if candidate.held_back.is_empty() {
                    prop_assert_eq!(&candidate.snapshot, &assembly.wanted);
                }
                let held: BTreeSet<_> = assembly.held.keys().collect();
                prop_assert!(candidate.held_back.keys().all(|name| held.contains(name)));
                assembly.accept(&candidate);
            }
        }
    }
}
