//! Which node announces which address, from one election to the next. Pure.
//!
//! Who leads remembers what it decided. Who has just begun to lead takes the nodes' word: they say what they announce when they
//! come. After that a node's word counts for nothing: one that was cut off comes back with what it had then, which another has
//! by now. It hears so with its first answer; and because neighbours may have asked in between, the other one tells them again.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use pierhead_model::{Announcer, OwnedPrefix, Snapshot};
use pierhead_translate::Held;

use crate::nodes::{NodeState, Nodes};

#[derive(Debug, Default)]
pub(super) struct Holders {
    known: BTreeMap<OwnedPrefix, Known>,
}

#[derive(Debug)]
struct Known {
    node: Arc<str>,
    round: u32,
}

impl Holders {
    /// This replica does not decide any more: by the time it does again, all may be different.
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }

    /// The nodes have changed. Whether one has come that announces what is another's.
    pub(super) fn hear(&mut self, before: &Nodes, now: &Nodes) -> bool {
        let mut is_rival = false;
        for (name, state) in now.connected().filter(|(name, state)| has_come(before, name, state)) {
            for address in &state.announced {
                match self.known.get_mut(&prefix(*address)) {
                    Some(known) if known.node != *name => {
                        tracing::info!(
                            node = &**name,
                            "{address} was its own once, and is that of {} now",
                            known.node
                        );
                        known.round = known.round.wrapping_add(1);
                        is_rival = true;
                    }
                    Some(_) | None => {}
                }
            }
        }
        is_rival
    }

    /// For the next election.
    pub(super) fn held(&self, nodes: &Nodes) -> BTreeMap<OwnedPrefix, Held> {
        let mut held: BTreeMap<OwnedPrefix, Held> = BTreeMap::new();
        for (name, state) in nodes.connected() {
            for address in &state.announced {
                held.entry(prefix(*address)).or_default().by.insert(Arc::clone(name));
            }
        }
        for claimed in held.values_mut() {
            claimed.round = u32::from(claimed.by.len() > 1);
        }
        let known = self.known.iter().map(|(address, known)| {
            let held = Held {
                by: [Arc::clone(&known.node)].into(),
                round: known.round,
            };
            (*address, held)
        });
        held.extend(known);
        held
    }

    /// What an election came to.
    pub(super) fn remember(&mut self, snapshot: &Snapshot) {
        let elected = snapshot
            .owned
            .iter()
            .filter_map(|(address, owned)| match &owned.announcer {
                Some(Announcer::Node(node)) if !node.is_empty() => {
                    let node = Arc::clone(node);
                    let round = owned.round;
                    Some((*address, Known { node, round }))
                }
                Some(Announcer::Node(_) | Announcer::Here) | None => None,
            });
        self.known = elected.collect();
    }
}

fn prefix(address: std::net::IpAddr) -> OwnedPrefix {
    OwnedPrefix(IpNet::from(address))
}

/// Whether a node has another stream than before, or has now said what it announces.
fn has_come(before: &Nodes, name: &Arc<str>, state: &NodeState) -> bool {
    before.by_name.get(name).is_none_or(|before| {
        (before.connected, before.since, &before.announced) != (state.connected, state.since, &state.announced)
    })
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use jiff::Timestamp;
    use pierhead_model::{OnMiss, Ownership};

    use super::*;
    use crate::nodes::{Membership, Registry};

    const ADDRESS: &str = "10.200.0.1";

    fn join(registry: &Registry, name: &str, second: i64, announced: &[&str]) -> Membership {
        let now = Timestamp::from_second(second).unwrap();
        let node = registry.join(name, now);
        let announced: Vec<IpAddr> = announced.iter().map(|text| text.parse().unwrap()).collect();
        node.update(now, |state| state.announced = announced);
        node
    }

    fn nodes(registry: &Registry) -> Arc<Nodes> {
        Arc::clone(&registry.nodes().borrow())
    }

    fn elected(node: &str, round: u32) -> Snapshot {
        let ownership = Ownership {
            on_miss: OnMiss::Drop,
            announcer: Some(Announcer::Node(node.into())),
            round,
        };
        Snapshot {
            owned: [(prefix(ADDRESS.parse().unwrap()), ownership)].into(),
            ..Snapshot::default()
        }
    }

    fn held(holders: &Holders, registry: &Registry) -> Vec<(String, u32)> {
        let all = holders.held(&nodes(registry)).into_values();
        all.map(|held| (held.by.into_iter().collect::<Vec<_>>().join(" "), held.round))
            .collect()
    }

    #[test]
    fn who_has_just_begun_to_lead_takes_the_nodes_word() {
        let registry = Registry::default();
        let _one = join(&registry, "node-1", 1, &[ADDRESS]);
        let _two = join(&registry, "node-2", 1, &[]);
        let holders = Holders::default();
        assert_eq!(held(&holders, &registry), [("node-1".to_owned(), 0)]);
        // Of two, one will keep it and tell the neighbours.
        let _three = join(&registry, "node-3", 1, &[ADDRESS]);
        assert_eq!(held(&holders, &registry), [("node-1 node-3".to_owned(), 1)]);
    }

    #[test]
    fn who_leads_remembers_and_has_the_neighbours_told_when_a_rival_has_come() {
        let registry = Registry::default();
        let mut holders = Holders::default();
        let _two = join(&registry, "node-2", 1, &[ADDRESS]);
        holders.remember(&elected("node-2", 4));
        let before = nodes(&registry);
        let _one = join(&registry, "node-1", 2, &[ADDRESS, "10.200.0.9"]);
        let now = nodes(&registry);
        assert!(holders.hear(&before, &now));
        assert!(held(&holders, &registry).contains(&("node-2".to_owned(), 5)));
        // It is told once for each time that it comes.
        assert!(!holders.hear(&now, &now));
        assert!(held(&holders, &registry).contains(&("node-2".to_owned(), 5)));
        let again = join(&registry, "node-1", 3, &[ADDRESS]);
        assert!(holders.hear(&now, &nodes(&registry)));
        drop(again);
        // The holder itself may come again.
        let before = nodes(&registry);
        let _again = join(&registry, "node-2", 4, &[ADDRESS]);
        assert!(!holders.hear(&before, &nodes(&registry)));
    }

    #[test]
    fn nobody_is_no_holder_and_who_no_longer_leads_remembers_nothing() {
        let registry = Registry::default();
        let mut holders = Holders::default();
        holders.remember(&elected("", 0));
        assert!(held(&holders, &registry).is_empty());
        holders.remember(&elected("node-1", 0));
        assert_eq!(held(&holders, &registry), [("node-1".to_owned(), 0)]);
        holders.forget();
        assert!(held(&holders, &registry).is_empty());
    }
}
