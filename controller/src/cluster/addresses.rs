//! Which addresses the machines have by which clients reach us, steady across restarts of node programs. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::nodes::Nodes;

/// For so long the addresses of a node that left still count: a restart must not go through every status of the cluster.
const LINGER: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct Addresses {
    present: BTreeSet<IpAddr>,
    /// Until when.
    left: BTreeMap<IpAddr, Instant>,
}

impl Addresses {
    pub(super) fn update(&mut self, nodes: &Nodes, now: Instant) {
        let present: BTreeSet<IpAddr> = nodes
            .connected()
            .flat_map(|(_, node)| &node.addresses)
            .copied()
            .collect();
        for address in self.present.difference(&present) {
            self.left.insert(*address, now + LINGER);
        }
        self.left.retain(|address, _| !present.contains(address));
        self.present = present;
    }

    /// Sorted.
    pub(super) fn at(&mut self, now: Instant) -> Vec<IpAddr> {
        self.left.retain(|_, until| *until > now);
        let all: BTreeSet<IpAddr> = self.present.iter().chain(self.left.keys()).copied().collect();
        all.into_iter().collect()
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
        addresses.update(&nodes(&["192.0.2.1", "192.0.2.2"]), start);
        addresses.update(&nodes(&["192.0.2.2"]), start + second);
        assert_eq!(shown(&mut addresses, start + 2 * second), ["192.0.2.1", "192.0.2.2"]);
        assert_eq!(addresses.next_change(), Some(start + second + LINGER));
        addresses.update(&nodes(&["192.0.2.1", "192.0.2.2"]), start + 3 * second);
        assert_eq!(shown(&mut addresses, start + 100 * second), ["192.0.2.1", "192.0.2.2"]);
        addresses.update(&nodes(&["192.0.2.2"]), start + 100 * second);
        assert_eq!(shown(&mut addresses, start + 111 * second), ["192.0.2.2"]);
        assert_eq!(addresses.next_change(), None);
    }
}
