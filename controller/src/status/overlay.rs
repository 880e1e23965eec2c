//! What the nodes make of a Gateway: `Programmed` is true only when they serve it. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use pierhead_gateway_api::{Condition, ConditionStatus, GatewayStatus, ListenerSetStatus, ListenerStatus};
use pierhead_model::{BindAddress, DataPath, ListenerId, ListenerKind, Origin, OwnedPrefix, Snapshot};
use pierhead_protocol::{ResourceId, ResourceName};

use crate::nodes::Nodes;

/// What keeps listeners from being served, as nodes say it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Truth {
    /// Nobody serves anything.
    nobody: bool,
    faults: BTreeMap<ListenerId, String>,
    /// By Gateway or ListenerSet: a fault of any of its listeners.
    owners: BTreeMap<Origin, String>,
}

impl Truth {
    /// What `nodes` say about `snapshot`.
    pub(super) fn of(snapshot: &Snapshot, nodes: &Nodes) -> Self {
        let mut truth = Self {
            nobody: nodes.connected().next().is_none(),
            ..Self::default()
        };
        for (name, node) in nodes.connected() {
            let unserved = node.paths.values().any(|(path, _)| *path == DataPath::None);
            if node.nacks.is_empty() && node.rejected.is_none() && !unserved {
                continue;
            }
            for (key, bind) in &snapshot.binds {
                let refused = node.nacks.get(&ResourceId::Bind(*key).name()).cloned();
                let unserved = || match node.paths.get(key) {
                    // Not to be served there: sockets can be bound only where the address is.
                    Some((DataPath::None, _)) if snapshot.is_elsewhere(key, Some(name)) => None,
                    Some((DataPath::None, why)) => Some(format!("{key} is not served: {why}")),
                    _ => None,
                };
                let no_address = || match key.address {
                    BindAddress::Ip(ip) => node
                        .nacks
                        .get(&ResourceId::Owned(OwnedPrefix(ip.into())).name())
                        .cloned(),
                    BindAddress::Any | BindAddress::Prefix(_) => None,
                };
                let nothing = || {
                    node.rejected
                        .as_ref()
                        .map(|why| format!("it could not apply the configuration: {why}"))
                };
                let of_bind = refused.or_else(unserved).or_else(no_address).or_else(nothing);
                for listener in &bind.listeners {
                    let of_certificate = || {
                        let refused = |id: &ResourceName| node.nacks.get(id).cloned();
                        certificates(&listener.kind).iter().find_map(refused)
                    };
                    if let Some(why) = of_bind.clone().or_else(of_certificate) {
                        let says = format!("node {name}: {why}");
                        truth
                            .owners
                            .entry(listener.id.owner.clone())
                            .or_insert_with(|| says.clone());
                        truth.faults.entry(listener.id.clone()).or_insert(says);
                    }
                }
            }
        }
        truth
    }

    /// What is wrong with listeners on nodes, for those who look after them.
    pub(super) fn faults(&self) -> impl Iterator<Item = (&ListenerId, &str)> {
        self.faults.iter().map(|(listener, why)| (listener, why.as_str()))
    }

    pub(super) fn gateway(&self, owner: &Origin, status: &mut GatewayStatus) {
        self.mend(owner, &mut status.conditions, &mut status.listeners);
    }

    pub(super) fn listener_set(&self, owner: &Origin, status: &mut ListenerSetStatus) {
        self.mend(owner, &mut status.conditions, &mut status.listeners);
    }

    fn mend(&self, owner: &Origin, conditions: &mut [Condition], listeners: &mut [ListenerStatus]) {
        let nobody = || self.nobody.then_some("no node is connected: nobody serves it yet");
        for listener in listeners {
            let id = ListenerId {
                owner: owner.clone(),
                name: Arc::from(listener.name.as_str()),
            };
            let fault = self.faults.get(&id).map(String::as_str);
            if let Some(why) = fault.or_else(nobody) {
                deny(&mut listener.conditions, why);
            }
        }
        let fault = self.owners.get(owner).map(String::as_str);
        if let Some(why) = fault.or_else(nobody) {
            deny(conditions, why);
        }
    }
}

/// A bad certificate is refused by its own name.
fn certificates(kind: &ListenerKind) -> Vec<ResourceName> {
    match kind {
        ListenerKind::Https { tls, .. } | ListenerKind::TlsTerminate { tls, .. } => {
            let uses = tls.certificates.iter();
            uses.map(|used| ResourceId::Certificate(used.certificate.clone()).name())
                .collect()
        }
        ListenerKind::Http(_)
        | ListenerKind::TlsPassthrough { .. }
        | ListenerKind::Tcp { .. }
        | ListenerKind::Udp { .. } => Vec::new(),
    }
}

/// "Programmed … False with reason Pending": accepted, and not there yet.
fn deny(conditions: &mut [Condition], why: &str) {
    let programmed = conditions.iter_mut().find(|one| one.kind == "Programmed");
    if let Some(condition) = programmed.filter(|one| one.status == ConditionStatus::True) {
        condition.status = ConditionStatus::False;
        condition.reason = "Pending".into();
        condition.message = why.into();
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use pierhead_model::{
        Announcer, Bind, BindKey, BindPort, HostPattern, HostSelection, HttpOptions, Limits, Listener, OnMiss,
        Ownership, Transport,
    };

    use super::*;
    use crate::nodes::{NodeState, Registry};

    fn snapshot() -> Snapshot {
        let listener = |name: &str| {
            Arc::new(Listener {
                id: ListenerId {
                    owner: Origin::new("Gateway", "ns", "gw"),
                    name: name.into(),
                },
                hosts: vec![HostPattern::Any],
                port: 80,
                kind: ListenerKind::Http(HttpOptions {
                    host_selection: HostSelection::FallThrough,
                    detect_misdirected: false,
                    filters: Vec::new(),
                }),
                limits: Limits::default(),
                client_address: pierhead_model::ClientAddress::default(),
            })
        };
        let mut snapshot = Snapshot::default();
        for (name, port) in [("a", 80), ("b", 81)] {
            let key = key(port);
            let listeners = vec![listener(name)];
            snapshot.binds.insert(key, Arc::new(Bind { key, listeners }));
        }
        snapshot
    }

    fn key(port: u16) -> BindKey {
        BindKey {
            transport: Transport::Tcp,
            address: BindAddress::Ip("10.0.0.1".parse().unwrap()),
            port: BindPort::Port(port),
        }
    }

    fn nodes(change: impl FnOnce(&mut NodeState)) -> Nodes {
        let registry = Registry::default();
        let node = registry.join("n1", Timestamp::UNIX_EPOCH);
        node.update(Timestamp::UNIX_EPOCH, change);
        Nodes::clone(&registry.nodes().borrow())
    }

    fn serves_not(port: u16, why: &str) -> Arc<BTreeMap<BindKey, (DataPath, String)>> {
        BTreeMap::from([(key(port), (DataPath::None, why.to_owned()))]).into()
    }

    /// `Programmed` of the Gateway and its listeners, as `status reason message`.
    fn check(nodes: &Nodes, expected: [&str; 3]) {
        let programmed = || Condition {
            kind: "Programmed".into(),
            status: ConditionStatus::True,
            reason: "Programmed".into(),
            message: String::new(),
            observed_generation: Some(1),
            last_transition_time: None,
        };
        let listener = |name: &str| ListenerStatus {
            name: name.into(),
            supported_kinds: Vec::new(),
            attached_routes: 0,
            conditions: vec![programmed()],
        };
        let mut status = GatewayStatus {
            conditions: vec![programmed()],
            listeners: vec![listener("a"), listener("b")],
            ..GatewayStatus::default()
        };
        Truth::of(&snapshot(), nodes).gateway(&Origin::new("Gateway", "ns", "gw"), &mut status);
        let told = |conditions: &[Condition]| {
            let one = &conditions[0];
            format!("{} {} {}", one.status.as_str(), one.reason, one.message)
        };
        let actual = [
            told(&status.conditions),
            told(&status.listeners[0].conditions),
            told(&status.listeners[1].conditions),
        ];
        assert_eq!(actual, expected);
    }

    #[test]
    fn a_gateway_is_programmed_when_every_node_serves_it() {
        let owned = ResourceId::Owned(OwnedPrefix("10.0.0.1/32".parse().unwrap()));
        check(&nodes(|_| {}), ["True Programmed "; 3]);
        check(
            &Nodes::default(),
            ["False Pending no node is connected: nobody serves it yet"; 3],
        );
        check(
            &nodes(|node| {
                _ = node
                    .nacks
                    .insert(ResourceId::Bind(key(81)).name(), "port in use".into())
            }),
            [
                "False Pending node n1: port in use",
                "True Programmed ",
                "False Pending node n1: port in use",
            ],
        );
        check(
            &nodes(|node| node.paths = serves_not(80, "no such address")),
            [
                "False Pending node n1: tcp 10.0.0.1:80 is not served: no such address",
                "False Pending node n1: tcp 10.0.0.1:80 is not served: no such address",
                "True Programmed ",
            ],
        );
        check(
            &nodes(|node| _ = node.nacks.insert(owned.name(), "no permission".into())),
            ["False Pending node n1: no permission"; 3],
        );
        check(
            &nodes(|node| node.rejected = Some("too large".into())),
            ["False Pending node n1: it could not apply the configuration: too large"; 3],
        );
        check(
            &nodes(|node| {
                node.connected = false;
                node.nacks
                    .insert(ResourceId::Bind(key(81)).name(), "port in use".into());
            }),
            ["False Pending no node is connected: nobody serves it yet"; 3],
        );
    }

    #[test]
    fn a_node_need_not_serve_an_address_that_another_was_elected_for() {
        let nodes = nodes(|node| node.paths = serves_not(80, "no such address"));
        let faults = |elected: &str| {
            let mut snapshot = snapshot();
            let ownership = Ownership {
                on_miss: OnMiss::Drop,
                announcer: Some(Announcer::Node(elected.into())),
                round: 0,
            };
            let prefix = OwnedPrefix("10.0.0.1/32".parse().unwrap());
            snapshot.owned = [(prefix, ownership)].into_iter().collect();
            Truth::of(&snapshot, &nodes).faults().count()
        };
        assert_eq!((faults("n1"), faults("n2")), (1, 0));
    }
}
