//! What is to be had, and since when. Pure.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use pierhead_protocol::{Changes, Encoder, Resource, ResourceName, Version};

use super::Numbered;

/// How many changed names are remembered. A node that lags further behind is told to connect anew: it then says itself
/// what it has.
const REMEMBERED_MAX: usize = 100_000;

#[derive(Debug, Default)]
pub(super) struct Catalog {
    encoder: Encoder,
    /// Number of the current snapshot; 0: there is none yet.
    version: u64,
    /// It is not to be had until there is a newer one.
    withdrawn: bool,
    /// What each snapshot changed, the oldest first.
    journal: VecDeque<(u64, Vec<ResourceName>)>,
    /// Names in the journal.
    remembered: usize,
    /// The journal knows what changed after this snapshot.
    forgotten: u64,
}

/// A node has fallen so far behind that nobody remembers what it lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooFarBehind;

impl Catalog {
    /// Of what is to be had; 0: nothing is.
    pub(super) fn version(&self) -> u64 {
        match self.withdrawn {
            true => 0,
            false => self.version,
        }
    }

    /// Nothing is to be had until the next snapshot. What was encoded is kept: most of it comes again.
    pub(super) fn withdraw(&mut self) {
        self.withdrawn = true;
    }

    /// Takes a snapshot in; one that is not newer is ignored.
    pub(super) fn publish(&mut self, numbered: &Numbered) {
        if numbered.version <= self.version {
            return;
        }
        let Changes { changed, removed } = self.encoder.encode(&numbered.snapshot);
        self.version = numbered.version;
        self.withdrawn = false;
        let changed = changed.into_iter().map(|resource| resource.name);
        let names: Vec<_> = changed.chain(removed).collect();
        if names.is_empty() {
            return;
        }
        self.remembered += names.len();
        self.journal.push_back((self.version, names));
        while self.remembered > REMEMBERED_MAX
            && let Some((version, names)) = self.journal.pop_front()
        {
            self.remembered -= names.len();
            self.forgotten = version;
        }
    }

    /// What changed after this snapshot, up to now.
    pub(super) fn since(&self, version: u64) -> Result<Changes, TooFarBehind> {
        if version < self.forgotten {
            return Err(TooFarBehind);
        }
        let newer = self.journal.iter().rev().take_while(|(number, _)| *number > version);
        let names: BTreeSet<&ResourceName> = newer.flat_map(|(_, names)| names).collect();
        let mut changes = Changes::default();
        for name in names {
            match self.encoder.resources().get(name) {
                Some(resource) => changes.changed.push(resource.clone()),
                None => changes.removed.push(name.clone()),
            }
        }
        Ok(changes)
    }

    /// What somebody lacks who holds this.
    pub(super) fn against(&self, held: &BTreeMap<ResourceName, Version>) -> Changes {
        let resources = self.encoder.resources();
        let lacks = |resource: &&Resource| held.get(&resource.name) != Some(&resource.version);
        Changes {
            changed: resources.values().filter(lacks).cloned().collect(),
            removed: held
                .keys()
                .filter(|name| !resources.contains_key(*name))
                .cloned()
                .collect(),
        }
    }
}
