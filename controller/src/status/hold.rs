//! How long the status of a Gateway waits for what the nodes say, so that `Programmed` says it once and does not flap.
//! Pure: time is an argument.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pierhead_gateway_api::{GatewayStatus, ListenerSetStatus};
use pierhead_translate::Statuses;

use super::Key;
use crate::nodes::Nodes;

/// A node that has said nothing about a snapshot for so long is not waited for.
const ANSWER: Duration = Duration::from_secs(2);
/// For so long after the beginning nodes may take to find us, …
const ARRIVAL: Duration = Duration::from_secs(10);
/// … and the others to follow the first.
const COMPANY: Duration = Duration::from_millis(500);

/// Whether nodes have a say in the status of the object: what they serve of it, and where.
pub(super) fn depends_on_nodes(key: &Key) -> bool {
    matches!(key.kind, "Gateway" | "ListenerSet" | "Ingress")
}

/// What is waited for.
#[derive(Debug)]
pub(super) struct Hold {
    began: Instant,
    first_node: Option<Instant>,
    /// By object: the version of the snapshot its status speaks of, and since when.
    awaited: BTreeMap<Key, (u64, Instant)>,
}

impl Hold {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            began: now,
            first_node: None,
            awaited: BTreeMap::new(),
        }
    }

    /// Whether this is the first time that a node is there.
    pub(super) fn see(&mut self, nodes: &Nodes, now: Instant) -> bool {
        let first = self.first_node.is_none() && nodes.connected().next().is_some();
        if first {
            self.first_node = Some(now);
        }
        first
    }

    /// What waits for answers of nodes.
    pub(super) fn awaiting(&self) -> Vec<Key> {
        self.awaited.keys().cloned().collect()
    }

    /// The status of `key` changed with the snapshot `version`. More or fewer attached routes are nothing nodes are asked for.
    pub(super) fn expect(&mut self, key: &Key, before: &Statuses, after: &Statuses, version: u64, now: Instant) {
        let name = &key.name;
        let same = match key.kind {
            "Gateway" => before.gateways.get(name).map(essence) == after.gateways.get(name).map(essence),
            "ListenerSet" => before.listener_sets.get(name).map(gist) == after.listener_sets.get(name).map(gist),
            _ => return,
        };
        if !same {
            self.awaited.insert(key.clone(), (version, now));
        }
    }

    /// Until when the object is held back; `None`: it may be written.
    pub(super) fn until(&mut self, key: &Key, nodes: &Nodes, now: Instant) -> Option<Instant> {
        if !depends_on_nodes(key) {
            return None;
        }
        let settled = match self.first_node {
            Some(first) => first + COMPANY,
            None => self.began + ARRIVAL,
        };
        if now < settled {
            return Some(settled);
        }
        let (version, since) = self.awaited.get(key)?;
        let answered = nodes.have_answered(*version);
        let until = *since + ANSWER;
        if !answered && now < until {
            return Some(until);
        }
        self.awaited.remove(key);
        None
    }
}

/// Without the numbers of attached routes and sets.
fn essence(status: &GatewayStatus) -> GatewayStatus {
    let mut status = status.clone();
    status.attached_listener_sets = None;
    for listener in &mut status.listeners {
        listener.attached_routes = 0;
    }
    status
}

fn gist(status: &ListenerSetStatus) -> ListenerSetStatus {
    let mut status = status.clone();
    for listener in &mut status.listeners {
        listener.attached_routes = 0;
    }
    status
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use pierhead_gateway_api::ListenerStatus;
    use pierhead_translate::ObjectName;

    use super::*;
    use crate::nodes::Registry;

    fn key(kind: &'static str) -> Key {
        Key {
            kind,
            name: ObjectName::new("ns", "x"),
        }
    }

    fn nodes(acked: &[u64]) -> Nodes {
        let registry = Registry::default();
        let now = Timestamp::UNIX_EPOCH;
        let join = |(index, acked): (usize, &u64)| {
            let node = registry.join(&index.to_string(), now);
            node.update(now, |state| state.acked = *acked);
            node
        };
        let _members: Vec<_> = acked.iter().enumerate().map(join).collect();
        Nodes::clone(&registry.nodes().borrow())
    }

    fn statuses(attached: u32, name: &str) -> Statuses {
        let listener = ListenerStatus {
            name: name.into(),
            supported_kinds: Vec::new(),
            attached_routes: attached,
            conditions: Vec::new(),
        };
        let status = GatewayStatus {
            listeners: vec![listener],
            ..GatewayStatus::default()
        };
        let mut statuses = Statuses::default();
        statuses.gateways.insert(key("Gateway").name, status);
        statuses
    }

    #[test]
    fn at_the_beginning_nodes_are_waited_for() {
        let start = Instant::now();
        let mut hold = Hold::new(start);
        assert_eq!(hold.until(&key("HTTPRoute"), &nodes(&[]), start), None);
        assert_eq!(hold.until(&key("Ingress"), &nodes(&[]), start), Some(start + ARRIVAL));
        let later = start + Duration::from_secs(1);
        hold.see(&nodes(&[0]), later);
        assert_eq!(hold.until(&key("Ingress"), &nodes(&[0]), later), Some(later + COMPANY));
        assert_eq!(hold.until(&key("Ingress"), &nodes(&[0]), later + COMPANY), None);
        let mut alone = Hold::new(start);
        assert_eq!(alone.until(&key("Gateway"), &nodes(&[]), start + ARRIVAL), None);
    }

    #[test]
    fn a_gateway_waits_until_every_node_answered_or_took_too_long() {
        let start = Instant::now();
        let now = start + Duration::from_secs(60);
        let mut hold = Hold::new(start);
        let gateway = key("Gateway");
        hold.expect(&gateway, &Statuses::default(), &statuses(0, "http"), 7, now);
        assert_eq!(hold.until(&gateway, &nodes(&[7, 6]), now), Some(now + ANSWER));
        assert_eq!(hold.until(&gateway, &nodes(&[7, 7]), now), None);
        hold.expect(&gateway, &statuses(0, "http"), &statuses(5, "http"), 8, now);
        assert_eq!(
            hold.until(&gateway, &nodes(&[7, 7]), now),
            None,
            "routes are not asked about"
        );
        hold.expect(&gateway, &statuses(5, "http"), &statuses(5, "https"), 9, now);
        assert_eq!(hold.until(&gateway, &nodes(&[9, 8]), now), Some(now + ANSWER));
        assert_eq!(hold.until(&gateway, &nodes(&[9, 8]), now + ANSWER), None);
    }
}
