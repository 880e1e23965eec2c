//! A sorted map that shares what did not change with its clones.
//!
//! A snapshot has tens of thousands of entries and differs from the one before in a few: to clone it and change one entry costs
//! a chunk, not the map, and two that come of each other are compared without looking into the chunks they share.

use std::{borrow::Borrow, cmp::Ordering, fmt, ops::Index, sync::Arc};

use serde::{Serialize, Serializer};

/// Entries a chunk has at most; a full one is halved.
const FULL: usize = 128;

type Chunk<K, V> = Arc<Vec<(K, V)>>;

/// Like a `BTreeMap`, with cheap clones.
#[derive(Clone)]
pub struct Map<K, V> {
    /// None is empty; keys ascend within and across.
    chunks: Vec<Chunk<K, V>>,
    len: usize,
}

impl<K, V> Default for Map<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K, V> Map<K, V> {
    pub const fn new() -> Self {
        Self {
            chunks: Vec::new(),
            len: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn clear(&mut self) {
        self.chunks.clear();
        self.len = 0;
    }

    pub fn iter(&self) -> Iter<'_, K, V> {
        Iter {
            chunks: &self.chunks,
            at: 0,
        }
    }

    pub fn keys(&self) -> impl Iterator<Item = &K> + Clone {
        self.iter().map(|(key, _)| key)
    }

    pub fn values(&self) -> impl Iterator<Item = &V> + Clone {
        self.iter().map(|(_, value)| value)
    }

    pub fn first_key_value(&self) -> Option<(&K, &V)> {
        self.iter().next()
    }
}

impl<K: Ord, V> Map<K, V> {
    /// The chunk that has `key`, or should have it.
    fn chunk<Q: Ord + ?Sized>(&self, key: &Q) -> usize
    where
        K: Borrow<Q>,
    {
        let after = self.chunks.partition_point(|chunk| chunk[0].0.borrow() <= key);
        after.saturating_sub(1)
    }

    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let chunk = self.chunks.get(self.chunk(key))?;
        let at = chunk.binary_search_by(|(other, _)| other.borrow().cmp(key)).ok()?;
        Some(&chunk[at].1)
    }

    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// Entries from `key` on.
    pub fn starting_at<Q: Ord + ?Sized>(&self, key: &Q) -> Iter<'_, K, V>
    where
        K: Borrow<Q>,
    {
        let index = self.chunk(key);
        let chunks = self.chunks.get(index..).unwrap_or_default();
        let at = chunks
            .first()
            .map_or(0, |chunk| chunk.partition_point(|(other, _)| other.borrow() < key));
        Iter { chunks, at }.settled()
    }

    /// Where `self` and `before` differ: the key, and the value now and before. Values that are equal may be among them where
    /// the two do not share a chunk.
    pub fn changes<'a>(&'a self, before: &'a Self) -> Changes<'a, K, V> {
        Changes {
            now: self.iter(),
            before: before.iter(),
        }
    }
}

impl<K: Ord + Clone, V: Clone> Map<K, V> {
    /// Returns what stood there before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let index = self.chunk(&key);
        let is_last = index + 1 == self.chunks.len();
        let Some(chunk) = self.chunks.get_mut(index) else {
            self.chunks.push(Arc::new(vec![(key, value)]));
            self.len = 1;
            return None;
        };
        let at = match chunk.binary_search_by(|(other, _)| other.cmp(&key)) {
            Ok(at) => return Some(std::mem::replace(&mut Arc::make_mut(chunk)[at].1, value)),
            Err(at) => at,
        };
        self.len += 1;
        if chunk.len() < FULL {
            let chunk = Arc::make_mut(chunk);
            make_room(chunk);
            chunk.insert(at, (key, value));
        } else if at == FULL && is_last {
            // Keys that come in order fill one chunk after the other.
            self.chunks.push(Arc::new(vec![(key, value)]));
        } else {
            let chunk = Arc::make_mut(chunk);
            let mut upper = chunk.split_off(FULL / 2);
            chunk.shrink_to_fit();
            let (half, at) = match at.checked_sub(FULL / 2) {
                Some(at) => (&mut upper, at),
                None => (chunk, at),
            };
            make_room(half);
            half.insert(at, (key, value));
            self.chunks.insert(index + 1, Arc::new(upper));
        }
        None
    }

    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let index = self.chunk(key);
        let at = self
            .chunks
            .get(index)?
            .binary_search_by(|(other, _)| other.borrow().cmp(key))
            .ok()?;
        let chunk = Arc::make_mut(&mut self.chunks[index]);
        let (_, value) = chunk.remove(at);
        self.len -= 1;
        self.join(index);
        Some(value)
    }

    /// Keeps chunks from crumbling: a small one is joined with the next if both fit into half of one.
    fn join(&mut self, index: usize) {
        if self.chunks[index].is_empty() {
            self.chunks.remove(index);
        } else if let Some(next) = self.chunks.get(index + 1)
            && self.chunks[index].len() + next.len() <= FULL / 2
        {
            let next = self.chunks.remove(index + 1);
            Arc::make_mut(&mut self.chunks[index]).extend(next.iter().cloned());
        }
    }

    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let index = self.chunk(key);
        let at = self
            .chunks
            .get(index)?
            .binary_search_by(|(other, _)| other.borrow().cmp(key))
            .ok()?;
        Some(&mut Arc::make_mut(&mut self.chunks[index])[at].1)
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        let chunks = self.chunks.iter_mut();
        chunks.flat_map(|chunk| Arc::make_mut(chunk).iter_mut().map(|(_, value)| value))
    }

    pub fn pop_first(&mut self) -> Option<(K, V)> {
        let chunk = Arc::make_mut(self.chunks.first_mut()?);
        let first = chunk.remove(0);
        if chunk.is_empty() {
            self.chunks.remove(0);
        }
        self.len -= 1;
        Some(first)
    }

    /// Keeps the entries for which `keep` holds. Chunks that stay whole stay shared.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, &V) -> bool) {
        for chunk in &mut self.chunks {
            if !chunk.iter().all(|(key, value)| keep(key, value)) {
                Arc::make_mut(chunk).retain(|(key, value)| keep(key, value));
            }
        }
        self.chunks.retain(|chunk| !chunk.is_empty());
        self.len = self.chunks.iter().map(|chunk| chunk.len()).sum();
    }
}

/// Room for one more entry and a few: doubling would leave half of it empty for good.
fn make_room<T>(chunk: &mut Vec<T>) {
    if chunk.len() == chunk.capacity() {
        chunk.reserve_exact(4 + chunk.len() / 8);
    }
}

/// By key.
#[derive(Debug)]
pub struct Iter<'a, K, V> {
    /// The first of them is being read.
    chunks: &'a [Chunk<K, V>],
    at: usize,
}

impl<K, V> Clone for Iter<'_, K, V> {
    fn clone(&self) -> Self {
        Self {
            chunks: self.chunks,
            at: self.at,
        }
    }
}

impl<K, V> Iter<'_, K, V> {
    /// Past the end of a chunk is the start of the next.
    fn settled(mut self) -> Self {
        if self.chunks.first().is_some_and(|chunk| self.at >= chunk.len()) {
            self.chunks = &self.chunks[1..];
            self.at = 0;
        }
        self
    }
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        let (chunk, rest) = self.chunks.split_first()?;
        let (key, value) = &chunk[self.at];
        self.at += 1;
        if self.at == chunk.len() {
            self.chunks = rest;
            self.at = 0;
        }
        Some((key, value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let all: usize = self.chunks.iter().map(|chunk| chunk.len()).sum();
        (all - self.at, Some(all - self.at))
    }
}

impl<K, V> ExactSizeIterator for Iter<'_, K, V> {}

/// See [`Map::changes`].
pub struct Changes<'a, K, V> {
    now: Iter<'a, K, V>,
    before: Iter<'a, K, V>,
}

impl<'a, K: Ord, V> Iterator for Changes<'a, K, V> {
    type Item = (&'a K, Option<&'a V>, Option<&'a V>);

    fn next(&mut self) -> Option<Self::Item> {
        // What both share at the start of a chunk is the same to its end.
        while self.now.at == 0
            && self.before.at == 0
            && let (Some((a, now)), Some((b, before))) =
                (self.now.chunks.split_first(), self.before.chunks.split_first())
            && Arc::ptr_eq(a, b)
        {
            self.now.chunks = now;
            self.before.chunks = before;
        }
        let now = self.now.clone().next();
        let before = self.before.clone().next();
        let order = match (now, before) {
            (None, None) => return None,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        let now = if order.is_le() { self.now.next() } else { None };
        let before = if order.is_ge() { self.before.next() } else { None };
        let (key, _) = now.or(before)?;
        Some((key, now.map(|(_, value)| value), before.map(|(_, value)| value)))
    }
}

impl<K: Ord, V: PartialEq> PartialEq for Map<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.changes(other).all(|(_, a, b)| a == b)
    }
}

impl<K: Ord, V: Eq> Eq for Map<K, V> {}

impl<K: Ord, V> FromIterator<(K, V)> for Map<K, V> {
    /// Of several values of one key the last counts.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut entries: Vec<(K, V)> = entries.into_iter().collect();
        // Stable, so the last of a key is the last of its run.
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        entries.reverse();
        entries.dedup_by(|b, a| a.0 == b.0);
        let len = entries.len();
        let mut chunks = Vec::with_capacity(len / FULL * 2 + 1);
        while !entries.is_empty() {
            // Half full, so that additions do not split at once.
            let rest = entries.len().saturating_sub(FULL / 2);
            let mut chunk = entries.split_off(rest);
            chunk.reverse();
            chunks.push(Arc::new(chunk));
        }
        Self { chunks, len }
    }
}

impl<K: Ord + Clone, V: Clone> Extend<(K, V)> for Map<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        for (key, value) in entries {
            self.insert(key, value);
        }
    }
}

impl<K: Ord, V, const N: usize> From<[(K, V); N]> for Map<K, V> {
    fn from(entries: [(K, V); N]) -> Self {
        entries.into_iter().collect()
    }
}

impl<'a, K, V> IntoIterator for &'a Map<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Iter<'a, K, V> {
        self.iter()
    }
}

impl<K: Ord + Borrow<Q>, V, Q: Ord + ?Sized> Index<&Q> for Map<K, V> {
    type Output = V;

    fn index(&self, key: &Q) -> &V {
        match self.get(key) {
            Some(value) => value,
            None => panic!("there is no such key"),
        }
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Map<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Serialize, V: Serialize> Serialize for Map<K, V> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_map(self.iter())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fastrand::Rng;

    use super::*;

    fn sound(map: &Map<u64, u64>, model: &BTreeMap<u64, u64>) {
        assert!(map.iter().eq(model.iter()));
        assert_eq!((map.len(), map.iter().len()), (model.len(), model.len()));
        assert!(map.chunks.iter().all(|chunk| !chunk.is_empty() && chunk.len() <= FULL));
    }

    #[test]
    fn it_is_a_sorted_map() {
        for seed in 0..20 {
            let mut dice = Rng::with_seed(seed);
            let keys = [10, 300, 5_000][usize::try_from(seed % 3).unwrap()];
            let (mut map, mut model) = (Map::new(), BTreeMap::new());
            for step in 0..3_000 {
                let key = dice.u64(..keys);
                match dice.u64(..5) {
                    0 => assert_eq!(map.remove(&key), model.remove(&key)),
                    1 if dice.u64(..50) == 0 => {
                        let odd = dice.u64(..2);
                        map.retain(|key, _| key % 2 == odd);
                        model.retain(|key, _| key % 2 == odd);
                    }
                    2 => assert_eq!(map.get_mut(&key).map(|v| *v += 1), model.get_mut(&key).map(|v| *v += 1)),
                    3 if dice.u64(..20) == 0 => assert_eq!(map.pop_first(), model.pop_first()),
                    _ => assert_eq!(map.insert(key, step), model.insert(key, step)),
                }
                let probe = dice.u64(..keys + 1);
                assert_eq!(map.get(&probe), model.get(&probe));
                assert_eq!(map.starting_at(&probe).next(), model.range(probe..).next());
            }
            sound(&map, &model);
            let collected: Map<u64, u64> = model.iter().rev().map(|(k, v)| (*k, *v)).collect();
            sound(&collected, &model);
            assert_eq!(collected, map);
        }
    }

    #[test]
    fn little_room_is_left_over() {
        let room = |map: &Map<u64, u64>| map.chunks.iter().map(|chunk| chunk.capacity()).sum::<usize>();
        let in_order: Map<u64, u64> = {
            let mut map = Map::new();
            map.extend((0..10_000).map(|key| (key, key)));
            map
        };
        assert!(room(&in_order) < 10_500, "{}", room(&in_order));
        let mut dice = Rng::with_seed(7);
        let mut map = Map::new();
        while map.len() < 10_000 {
            map.insert(dice.u64(..1 << 40), 0);
        }
        let chunks = map.chunks.len();
        assert!(room(&map) < 12_000 && chunks < 160, "{} in {chunks}", room(&map));
        // A clone that is changed is not twice as large as before.
        let mut clone = map.clone();
        for key in 0..1_000 {
            clone.insert(key << 30, 0);
        }
        assert!(room(&clone) < 13_500, "{}", room(&clone));
    }

    #[test]
    fn of_one_key_the_last_value_counts() {
        let map: Map<u8, u8> = [(1, 1), (0, 2), (1, 3), (1, 4)].into();
        assert_eq!(map.iter().collect::<Vec<_>>(), [(&0, &2), (&1, &4)]);
    }

    #[test]
    fn changes_are_what_differs_and_what_is_shared_is_not_looked_at() {
        for seed in 0..30 {
            let mut dice = Rng::with_seed(seed);
            let before: Map<u64, u64> = (0..2_000).filter(|_| dice.u64(..3) > 0).map(|key| (key, key)).collect();
            let mut now = before.clone();
            for _ in 0..dice.u64(..40) {
                let key = dice.u64(..2_000);
                if dice.u64(..2) == 0 {
                    now.remove(&key);
                } else {
                    now.insert(key, dice.u64(..3_000));
                }
            }
            let (a, b): (BTreeMap<_, _>, BTreeMap<_, _>) = (now.iter().collect(), before.iter().collect());
            let keys: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
            let expected: Vec<_> = keys
                .into_iter()
                .map(|key| (*key, a.get(key).copied(), b.get(key).copied()))
                .filter(|(_, a, b)| a != b)
                .collect();
            let changes: Vec<_> = now.changes(&before).collect();
            let real: Vec<_> = changes.iter().copied().filter(|(_, a, b)| a != b).collect();
            assert_eq!(real, expected, "seed {seed}");
            assert!(
                changes.len() < 42 * FULL,
                "seed {seed}: {} were looked at",
                changes.len()
            );
            assert_eq!(now == before, expected.is_empty());
        }
        let map: Map<u64, u64> = (0..2_000).map(|key| (key, key)).collect();
        assert_eq!(map.changes(&map.clone()).count(), 0);
    }
}
