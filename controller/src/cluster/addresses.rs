//! Which addresses the machines have by which clients reach us, steady across restarts of node programs. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::hosts::Hosts;
use crate::nodes::{NodeState, Nodes};

/// For so long the addresses of a node that left still count: a restart must not go through every status of the cluster.
const LINGER: Duration = Duration::from_secs(10);

/// How well an address is known; the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// The cluster calls it external.
    External,
    /// The machine has it.
    Own,
}

type Ranked = BTreeSet<(Rank, IpAddr)>;

/// What the machines themselves have.
pub(super) fn own(nodes: &Nodes) -> Ranked {
    let all = nodes.connected().flat_map(|(_, node)| &node.addresses);
    all.map(|address| (Rank::Own, *address)).collect()
}

/// What is shown to users: of each node its external addresses, and its own where it has none, as users of other products
/// are used to.
pub(super) fn shown(nodes: &Nodes, hosts: &Hosts) -> Ranked {
    let of = |(name, node): (&Arc<str>, &NodeState)| -> Vec<(Rank, IpAddr)> {
        match hosts.get(name) {
            Some(external) => external.iter().map(|address| (Rank::External, *address)).collect(),
            None => node.addresses.iter().map(|address| (Rank::Own, *address)).collect(),
        }
    };
    nodes.connected().flat_map(of).collect()
}

#[derive(Debug, Default)]
pub(super) struct Addresses {
    present: Ranked,
    /// Until when.
    left: BTreeMap<(Rank, IpAddr), Instant>,
}

impl Addresses {
    pub(super) fn update(&mut self, present: Ranked, now: Instant) {
        for address in self.present.difference(&present) {
            self.left.insert(*address, now + LINGER);
        }
        self.left.retain(|address, _| !present.contains(address));
        self.present = present;
    }

    /// The best first, each once, and sorted.
    pub(super) fn at(&mut self, now: Instant) -> Vec<IpAddr> {
        self.left.retain(|_, until| *until > now);
        let all: Ranked = self.present.iter().chain(self.left.keys()).copied().collect();
        let mut seen = BTreeSet::new();
        let all = all.into_iter().map(|(_, address)| address);
        all.filter(|address| seen.insert(*address)).collect()
    }

    /// When the next one is given up.
    pub(super) fn next_change(&self) -> Option<Instant> {
        self.left.values().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::nodes::Registry;

    fn nodes(addresses: &[&str]) -> Nodes {
        let registry = Registry::default();
        let now = Timestamp::UNIX_EPOCH;
        let join = |address: &&str| {
            let node = registry.join(address, now);
            node.update(now, |state| state.addresses = vec![address.parse().unwrap()]);
            node
        };
        let _members: Vec<_> = addresses.iter().map(join).collect();
        Nodes::clone(&registry.nodes().borrow())
    }

    #[test]
    fn a_node_that_comes_back_soon_was_never_gone() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let shown = |addresses: &mut Addresses, now| -> Vec<String> {
            addresses.at(now).iter().map(ToString::to_string).collect()
        };
        let mut addresses = Addresses::default();
        addresses.update(own(&nodes(&["192.0.2.1", "192.0.2.2"])), start);
        addresses.update(own(&nodes(&["192.0.2.2"])), start + second);
        assert_eq!(shown(&mut addresses, start + 2 * second), ["192.0.2.1", "192.0.2.2"]);
        assert_eq!(addresses.next_change(), Some(start + second + LINGER));
        addresses.update(own(&nodes(&["192.0.2.1", "192.0.2.2"])), start + 3 * second);
        assert_eq!(shown(&mut addresses, start + 100 * second), ["192.0.2.1", "192.0.2.2"]);
        addresses.update(own(&nodes(&["192.0.2.2"])), start + 100 * second);
        assert_eq!(shown(&mut addresses, start + 111 * second), ["192.0.2.2"]);
        assert_eq!(addresses.next_change(), None);
    }

    #[test]
    fn the_world_is_shown_what_it_can_reach_first() {
        let now = Instant::now();
        // The nodes of this test are named by their addresses.
        let nodes = nodes(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        let external = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let hosts = Hosts::from([
            ("10.0.0.2".into(), external(&["203.0.113.2", "2001:db8::2"])),
            ("gone".into(), external(&["203.0.113.9"])),
        ]);
        let told = |present| -> Vec<String> {
            let mut addresses = Addresses::default();
            addresses.update(present, now);
            addresses.at(now).iter().map(ToString::to_string).collect()
        };
        assert_eq!(
            told(shown(&nodes, &hosts)),
            ["203.0.113.2", "2001:db8::2", "10.0.0.1", "10.0.0.3"]
        );
        assert_eq!(told(shown(&nodes, &Hosts::new())), told(own(&nodes)));
        assert_eq!(told(own(&nodes)), ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    }
}
