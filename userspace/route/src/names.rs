use std::{hash::BuildHasher as _, sync::Arc};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use pierhead_model::Hostname;

/// Names that a part has at most, on average.
const FULL: usize = 64;

/// Values by name. Clones share what did not change: to clone it and change one entry costs a part, not the map, of which a table
/// of routes has tens of thousands.
#[derive(Clone, Debug)]
pub(crate) struct Names<V> {
    hasher: RandomState,
    /// A power of two of them. The upper half of a name's hash says which one it is in.
    parts: Vec<Part<V>>,
    len: usize,
}

type Part<V> = Arc<HashTable<(Hostname, V)>>;

impl<V> Default for Names<V> {
    fn default() -> Self {
        Self {
            hasher: RandomState::default(),
            parts: vec![Arc::default()],
            len: 0,
        }
    }
}

/// Where a hash belongs. `HashTable` looks at the lowest and the highest bits.
fn part_of(hash: u64, parts: usize) -> usize {
    (hash >> 32) as usize & (parts - 1)
}

impl<V> Names<V> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn get(&self, name: &str) -> Option<&V> {
        let hash = self.hasher.hash_one(name);
        let part = self.parts.get(part_of(hash, self.parts.len()))?;
        let (_, value) = part.find(hash, |(known, _)| known.as_str() == name)?;
        Some(value)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.parts.iter().flat_map(|part| part.iter().map(|(_, value)| value))
    }
}

impl<V: Clone> Names<V> {
    /// Puts `value` at `name`; returns what was there.
    pub(crate) fn insert(&mut self, name: &Hostname, value: V) -> Option<V> {
        let hash = self.hasher.hash_one(name.as_str());
        if let Some(known) = self.find_mut(hash, name.as_str()) {
            return Some(std::mem::replace(known, value));
        }
        if self.len >= self.parts.len() * FULL {
            self.double();
        }
        let at = part_of(hash, self.parts.len());
        put(&mut self.parts[at], &self.hasher, hash, (name.clone(), value));
        self.len += 1;
        None
    }

    pub(crate) fn remove(&mut self, name: &str) -> Option<V> {
        let hash = self.hasher.hash_one(name);
        let at = part_of(hash, self.parts.len());
        let is_it = |(known, _): &(Hostname, V)| known.as_str() == name;
        // Looked for first: a part without it stays shared.
        self.parts[at].find(hash, is_it)?;
        let entry = Arc::make_mut(&mut self.parts[at]).find_entry(hash, is_it).ok()?;
        let ((_, value), _) = entry.remove();
        self.len -= 1;
        Some(value)
    }

    pub(crate) fn get_mut(&mut self, name: &str) -> Option<&mut V> {
        let hash = self.hasher.hash_one(name);
        self.find_mut(hash, name)
    }

    fn find_mut(&mut self, hash: u64, name: &str) -> Option<&mut V> {
        let at = part_of(hash, self.parts.len());
        let is_it = |(known, _): &(Hostname, V)| known.as_str() == name;
        self.parts[at].find(hash, is_it)?;
        let (_, value) = Arc::make_mut(&mut self.parts[at]).find_mut(hash, is_it)?;
        Some(value)
    }

    fn double(&mut self) {
        let mut parts = vec![Part::default(); self.parts.len() * 2];
        for (name, value) in self.parts.iter().flat_map(|part| part.iter()) {
            let hash = self.hasher.hash_one(name.as_str());
            let at = part_of(hash, parts.len());
            put(&mut parts[at], &self.hasher, hash, (name.clone(), value.clone()));
        }
        self.parts = parts;
    }
}

/// Puts an entry where there is none of its name.
fn put<V: Clone>(part: &mut Part<V>, hasher: &RandomState, hash: u64, entry: (Hostname, V)) {
    let again = |(name, _): &(Hostname, V)| hasher.hash_one(name.as_str());
    Arc::make_mut(part).insert_unique(hash, entry, again);
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use fastrand::Rng;

    use super::*;

    fn name(number: u64) -> Hostname {
        Hostname::parse(&format!("h{number}.example.com")).unwrap()
    }

    #[test]
    fn it_is_a_map_whose_clones_stay_as_they_are() {
        let mut dice = Rng::with_seed(7);
        let (mut names, mut model) = (Names::default(), HashMap::new());
        let mut kept = Vec::new();
        for step in 0..20_000 {
            let key = dice.u64(..3_000);
            match dice.u64(..4) {
                0 => assert_eq!(names.remove(name(key).as_str()), model.remove(&key)),
                1 => {
                    let (a, b) = (names.get_mut(name(key).as_str()), model.get_mut(&key));
                    assert_eq!(a.map(|value| *value += 1), b.map(|value| *value += 1));
                }
                _ => assert_eq!(names.insert(&name(key), step), model.insert(key, step)),
            }
            let probe = dice.u64(..3_000);
            assert_eq!(names.get(name(probe).as_str()), model.get(&probe));
            assert_eq!((names.len(), names.is_empty()), (model.len(), model.is_empty()));
            if step % 4_000 == 0 {
                kept.push((names.clone(), model.clone()));
            }
        }
        kept.push((names, model));
        for (names, model) in kept {
            let mut found: Vec<_> = names.values().copied().collect();
            let mut expected: Vec<_> = model.values().copied().collect();
            found.sort_unstable();
            expected.sort_unstable();
            assert_eq!(found, expected);
            assert!((0..3_000).all(|key| names.get(name(key).as_str()) == model.get(&key)));
        }
    }

    #[test]
    fn a_change_leaves_all_but_a_part_shared() {
        let mut names = Names::default();
        for number in 0..10_000 {
            names.insert(&name(number), number);
        }
        let before = names.clone();
        names.insert(&name(77), 0);
        names.remove(name(99_999).as_str());
        let shared = |(a, b): (&Part<_>, &Part<_>)| Arc::ptr_eq(a, b);
        let same = names
            .parts
            .iter()
            .zip(&before.parts)
            .filter(|pair| shared(*pair))
            .count();
        assert_eq!((names.parts.len(), same), (256, 255));
        assert_eq!(before.get(name(77).as_str()), Some(&77));
    }
}
