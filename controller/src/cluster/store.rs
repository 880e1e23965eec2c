//! The [`World`] in the making: what the watches said so far. Pure.

use std::collections::{BTreeMap, BTreeSet};

use pierhead_model::{Origin, Problem, Severity};
use pierhead_translate::{Bundle, ObjectName, World};

use super::kinds::SOURCES;
use super::object::{Object, Standing};
use crate::files::typed::Typed;

/// What a watch says; the number is that of its source in [`SOURCES`].
#[derive(Debug)]
pub(crate) enum Change {
    /// A list of everything begins.
    Begin(usize),
    /// One object of the list, or one that changed.
    Seen(usize, Box<Object>),
    Gone(usize, ObjectName),
    /// The list is complete: what was not in it is gone.
    Complete(usize),
    /// The API server does not serve this kind: there is nothing of it.
    Unserved(usize),
    /// The CRDs of the Gateway API that are there changed.
    Crds(BTreeMap<String, Bundle>),
}

/// The present status of an object, or that it is gone.
#[derive(Debug)]
pub(crate) struct Standings {
    pub(crate) kind: &'static str,
    pub(crate) name: ObjectName,
    pub(crate) standing: Option<Standing>,
}

#[derive(Debug, Default)]
struct Listed {
    names: BTreeSet<ObjectName>,
    /// While a list is read: what was in it so far.
    listing: Option<BTreeSet<ObjectName>>,
    synced: bool,
    /// Whatever its watch still says was said before it was ended.
    unserved: bool,
}

/// Everything the watches said.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) world: World,
    listed: Vec<Listed>,
    crds_known: bool,
    unreadable: BTreeMap<Origin, Problem>,
    /// Statuses that were seen since [`Store::take_standings`].
    standings: Vec<Standings>,
    changed: bool,
}

impl Store {
    pub(crate) fn new() -> Self {
        Self {
            world: World::default(),
            listed: SOURCES.iter().map(|_| Listed::default()).collect(),
            crds_known: false,
            unreadable: BTreeMap::new(),
            standings: Vec::new(),
            changed: false,
        }
    }

    /// Sources that have not been read to their end yet. Before that there is no world to speak of.
    pub(crate) fn waiting_for(&self) -> Vec<String> {
        let sources = SOURCES.iter().zip(&self.listed);
        let waiting = sources.filter(|(_, listed)| !listed.synced);
        let mut waiting: Vec<String> = waiting.map(|(source, _)| source.label()).collect();
        if !self.crds_known {
            waiting.push("CustomResourceDefinition".into());
        }
        waiting
    }

    pub(crate) fn is_synced(&self) -> bool {
        self.crds_known && self.listed.iter().all(|listed| listed.synced)
    }

    /// Whether the world changed since the last call.
    pub(crate) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    pub(crate) fn take_standings(&mut self) -> Vec<Standings> {
        std::mem::take(&mut self.standings)
    }

    /// What is wrong with objects that cannot be read at all.
    pub(crate) fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.unreadable.values()
    }

    pub(crate) fn len(&self) -> usize {
        self.listed.iter().map(|listed| listed.names.len()).sum()
    }

    pub(crate) fn apply(&mut self, change: Change) {
        match change {
            Change::Begin(source) => {
                self.listed[source].listing = Some(BTreeSet::new());
                self.listed[source].unserved = false;
                self.know_trust_bundles(source);
            }
            Change::Seen(source, _) | Change::Complete(source) if self.listed[source].unserved => {}
            Change::Seen(source, object) => self.see(source, *object),
            Change::Gone(source, name) => {
                if self.listed[source].names.remove(&name) {
                    self.forget(source, &name);
                }
            }
            Change::Complete(source) => {
                let listed = &mut self.listed[source];
                let present = listed.listing.take().unwrap_or_default();
                let gone: Vec<ObjectName> = listed.names.difference(&present).cloned().collect();
                listed.names = present;
                self.settle(source);
                for name in gone {
                    self.forget(source, &name);
                }
            }
            Change::Unserved(source) => {
                let listed = &mut self.listed[source];
                listed.listing = None;
                listed.unserved = true;
                let gone = std::mem::take(&mut listed.names);
                self.know_trust_bundles(source);
                self.settle(source);
                for name in gone {
                    self.forget(source, &name);
                }
            }
            Change::Crds(crds) => {
                if !self.crds_known || self.world.bundles != crds {
                    self.changed = true;
                    self.crds_known = true;
                    self.world.bundles = crds;
                }
            }
        }
    }

    /// A reference to a kind that the API server does not have is another mistake than one to an object that is not there.
    fn know_trust_bundles(&mut self, source: usize) {
        let without = self.listed[source].unserved;
        if SOURCES[source].kind == "ClusterTrustBundle" && self.world.without_cluster_trust_bundles != without {
            self.world.without_cluster_trust_bundles = without;
            self.changed = true;
        }
    }

    fn settle(&mut self, source: usize) {
        // The first list may be empty; that it was read is news.
        self.changed |= !self.listed[source].synced;
        self.listed[source].synced = true;
    }

    fn see(&mut self, source: usize, object: Object) {
        let Object {
            kind,
            name,
            typed,
            standing,
        } = object;
        let listed = &mut self.listed[source];
        listed.names.insert(name.clone());
        if let Some(listing) = &mut listed.listing {
            listing.insert(name.clone());
        }
        let origin = Origin::new(kind, &name.namespace, &name.name);
        match typed {
            Ok(typed) => {
                self.changed |= typed.replace(&name.namespace, &name.name, &mut self.world);
                self.changed |= self.unreadable.remove(&origin).is_some();
            }
            // Whatever it said before stays in force: its author may mend it, traffic must not wait for that.
            Err(message) => {
                let problem = Problem {
                    origin: origin.clone(),
                    field: String::new(),
                    severity: Severity::Error,
                    message: format!("cannot be read: {message}"),
                    fix: "correct the object; its last readable state stays in force".into(),
                };
                self.changed |= self.unreadable.get(&origin) != Some(&problem);
                self.unreadable.insert(origin, problem);
            }
        }
        if standing.is_some() {
            self.standings.push(Standings { kind, name, standing });
        }
    }

    fn forget(&mut self, source: usize, name: &ObjectName) {
        let kind = SOURCES[source].kind;
        // A Secret whose type changed is gone from one watch and there in the other, in any order.
        let elsewhere = SOURCES
            .iter()
            .zip(&self.listed)
            .enumerate()
            .any(|(index, (other, listed))| index != source && other.kind == kind && listed.names.contains(name));
        if elsewhere {
            return;
        }
        self.changed |= Typed::remove(kind, &name.namespace, &name.name, &mut self.world);
        let origin = Origin::new(kind, &name.namespace, &name.name);
        self.changed |= self.unreadable.remove(&origin).is_some();
        if super::object::has_status(kind) {
            self.standings.push(Standings {
                kind,
                name: name.clone(),
                standing: None,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::api::DynamicObject;
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::object;

    fn source(kind: &str) -> usize {
        SOURCES.iter().position(|source| source.kind == kind).unwrap()
    }

    fn seen(source: usize, body: Value) -> Change {
        let object: DynamicObject = serde_json::from_value(body).unwrap();
        Change::Seen(source, object::read(&SOURCES[source], "v1", object).into())
    }

    fn route(name: &str, version: &str, hostnames: Value, status: Value) -> Change {
        let body = json!({
            "metadata": {"name": name, "namespace": "ns", "resourceVersion": version, "uid": "u", "generation": 1},
            "spec": {"hostnames": hostnames}, "status": status
        });
        seen(source("HTTPRoute"), body)
    }

    fn secret(source: usize, kind: &str) -> Change {
        let body = json!({"metadata": {"name": "s", "namespace": "ns", "resourceVersion": "1"}, "type": kind});
        seen(source, body)
    }

    fn synced() -> Store {
        let mut store = Store::new();
        for source in 0..SOURCES.len() {
            store.apply(Change::Begin(source));
            store.apply(Change::Complete(source));
        }
        store.apply(Change::Crds(BTreeMap::new()));
        assert!(store.is_synced() && store.take_changed());
        store
    }

    #[test]
    fn nothing_is_known_before_every_kind_was_read() {
        let mut store = Store::new();
        for source in 1..SOURCES.len() {
            store.apply(Change::Begin(source));
            store.apply(Change::Complete(source));
        }
        store.apply(Change::Begin(0));
        assert_eq!(
            store.waiting_for(),
            [SOURCES[0].label(), "CustomResourceDefinition".into()]
        );
        store.apply(Change::Crds(BTreeMap::new()));
        assert!(!store.is_synced());
        store.apply(Change::Unserved(0));
        assert!(store.is_synced());
    }

    #[test]
    fn a_write_of_a_status_is_no_change_of_the_world() {
        let mut store = synced();
        store.apply(route("r", "1", json!(["a"]), json!({})));
        assert!(store.take_changed());
        let before = store.world.http_routes.get("ns", "r").cloned().unwrap();
        store.take_standings();
        store.apply(route("r", "2", json!(["a"]), json!({"parents": []})));
        assert!(!store.take_changed());
        let after = store.world.http_routes.get("ns", "r").unwrap();
        assert!(
            std::sync::Arc::ptr_eq(&before, after),
            "translate knows what it has seen by its address"
        );
        let standings = store.take_standings();
        assert_eq!(&*standings[0].standing.as_ref().unwrap().resource_version, "2");
    }

    #[test]
    fn what_is_not_in_a_new_list_is_gone_and_the_rest_is_what_it_was() {
        let mut store = synced();
        store.apply(route("kept", "1", json!(["a"]), json!({})));
        store.apply(route("gone", "2", json!(["b"]), json!({})));
        let kept = store.world.http_routes.get("ns", "kept").cloned().unwrap();
        store.take_changed();
        store.take_standings();
        let routes = source("HTTPRoute");
        store.apply(Change::Begin(routes));
        store.apply(route("kept", "1", json!(["a"]), json!({})));
        assert!(!store.take_changed(), "an unfinished list removes nothing");
        store.apply(Change::Complete(routes));
        assert!(store.take_changed());
        assert!(std::sync::Arc::ptr_eq(
            &kept,
            store.world.http_routes.get("ns", "kept").unwrap()
        ));
        assert_eq!((store.world.http_routes.len(), store.len()), (1, 1));
        let gone: Vec<_> = store.take_standings();
        assert!(
            gone.iter()
                .any(|one| *one.name.name == *"gone" && one.standing.is_none())
        );
    }

    #[test]
    fn what_becomes_unreadable_keeps_its_last_good_state_and_says_so() {
        let mut store = synced();
        store.apply(route("r", "1", json!(["a"]), json!({})));
        store.apply(route("r", "2", json!(7), json!({})));
        assert_eq!(store.world.http_routes.get("ns", "r").unwrap().spec.hostnames, ["a"]);
        let problem = store.problems().next().unwrap();
        assert_eq!(problem.origin, Origin::new("HTTPRoute", "ns", "r"));
        store.take_changed();
        store.apply(route("r", "3", json!(7), json!({})));
        assert!(!store.take_changed());
        store.apply(route("r", "4", json!(["a"]), json!({})));
        assert!(store.take_changed());
        assert_eq!(store.problems().count(), 0);
        store.apply(route("new", "5", json!(7), json!({})));
        store.apply(Change::Gone(source("HTTPRoute"), ObjectName::new("ns", "new")));
        assert_eq!(store.problems().count(), 0);
    }

    #[test]
    fn a_secret_that_changed_its_type_stays() {
        let mut store = synced();
        let tls = source("Secret");
        let opaque = tls + 1;
        assert_eq!(SOURCES[opaque].kind, "Secret");
        store.apply(secret(tls, "kubernetes.io/tls"));
        store.apply(secret(opaque, "Opaque"));
        store.apply(Change::Gone(tls, ObjectName::new("ns", "s")));
        assert_eq!(
            store.world.secrets.get("ns", "s").unwrap().type_.as_deref(),
            Some("Opaque")
        );
        store.apply(Change::Gone(opaque, ObjectName::new("ns", "s")));
        assert!(store.world.secrets.is_empty());
    }

    #[test]
    fn bundles_are_known_and_trust_bundles_are_there_or_not() {
        let mut store = synced();
        let crds = BTreeMap::from([("gateways.gateway.networking.k8s.io".to_owned(), Bundle::default())]);
        store.apply(Change::Crds(crds.clone()));
        assert!(store.take_changed());
        assert_eq!(store.world.bundles, crds);
        store.apply(Change::Crds(crds));
        assert!(!store.take_changed());
        let trust = source("ClusterTrustBundle");
        store.apply(Change::Unserved(trust));
        assert!(store.world.without_cluster_trust_bundles && store.take_changed());
        store.apply(Change::Begin(trust));
        assert!(!store.world.without_cluster_trust_bundles && store.take_changed());
    }

    #[test]
    fn a_kind_that_is_no_longer_served_has_no_objects() {
        let mut store = synced();
        store.apply(route("r", "1", json!(["a"]), json!({})));
        store.take_changed();
        store.apply(Change::Unserved(source("HTTPRoute")));
        assert!(store.take_changed() && store.world.http_routes.is_empty());
        store.apply(route("late", "2", json!(["a"]), json!({})));
        assert!(store.world.http_routes.is_empty());
        store.apply(Change::Begin(source("HTTPRoute")));
        store.apply(route("new", "3", json!(["a"]), json!({})));
        assert_eq!(store.world.http_routes.len(), 1);
    }
}
