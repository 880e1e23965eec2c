//! Ways to other nodes, remembered for a while. Pure.
//!
//! A node whose pod is replaced may be in no list for a moment. Its programs go on meanwhile, and so must what is sent to it:
//! to take a bind out of the kernel cuts the flows of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use pierhead_abi::l4::Hop;

/// For so long, in nanoseconds: as new flows are taken without the process that looks after them.
const LINGER_NS: u64 = 60_000_000_000;

pub(crate) type Ways = BTreeMap<Arc<str>, Vec<Hop>>;

#[derive(Debug, Default)]
pub(crate) struct Remembered(BTreeMap<Arc<str>, (Vec<Hop>, Lost)>);

/// When a node was missed first; `None`: it is there.
type Lost = Option<u64>;

impl Remembered {
    /// Adds those that were lost a short while ago to those that were found now.
    pub(crate) fn fill(&mut self, found: &mut Ways, now: u64) {
        for (_, lost) in self.0.values_mut() {
            lost.get_or_insert(now);
        }
        for (name, hops) in found.iter() {
            self.0.insert(Arc::clone(name), (hops.clone(), None));
        }
        self.0
            .retain(|_, (_, lost)| lost.is_none_or(|lost| now < lost + LINGER_NS));
        for (name, (hops, _)) in &self.0 {
            found.entry(Arc::clone(name)).or_insert_with(|| hops.clone());
        }
    }

    /// Whether one is to be forgotten.
    pub(crate) fn is_due(&self, now: u64) -> bool {
        self.0
            .values()
            .any(|(_, lost)| lost.is_some_and(|lost| now >= lost + LINGER_NS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ways(links: &[(&str, u32)]) -> Ways {
        let hop = |link| vec![Hop { addr: [1; 4], link }];
        links.iter().map(|(name, link)| ((*name).into(), hop(*link))).collect()
    }

    #[test]
    fn a_node_that_comes_back_soon_was_never_gone() {
        let mut remembered = Remembered::default();
        let mut at = |now, found: &[(&str, u32)]| {
            let due = remembered.is_due(now);
            let mut found = ways(found);
            remembered.fill(&mut found, now);
            (found, due)
        };
        let both = [("a", 2), ("b", 2)];
        assert_eq!(at(5, &both), (ways(&both), false));
        assert_eq!(at(7, &[("b", 2)]), (ways(&both), false));
        // What is found counts, not what was.
        assert_eq!(at(LINGER_NS + 6, &[("b", 3)]), (ways(&[("a", 2), ("b", 3)]), false));
        assert_eq!(at(LINGER_NS + 7, &[("b", 3)]), (ways(&[("b", 3)]), true));
        assert_eq!(at(LINGER_NS + 8, &[]), (ways(&[("b", 3)]), false));
        assert_eq!(at(2 * LINGER_NS, &both), (ways(&both), false));
        assert_eq!(at(9 * LINGER_NS, &both), (ways(&both), false));
    }
}
