//! The dynamic table (RFC 7541 §2.3.2, §4): a queue of fields in one buffer.

use std::collections::VecDeque;

/// What an entry counts beyond its text (RFC 7541 §4.1).
pub(super) const OVERHEAD: usize = 32;

#[derive(Debug, Clone, Copy)]
struct Entry {
    start: u32,
    name: u32,
    value: u32,
    hash: u32,
}

impl Entry {
    const fn size(&self) -> usize {
        (self.name + self.value) as usize + OVERHEAD
    }
}

/// Bounded by the size it is given: at most twice that many bytes of text, and an index entry for each 32.
#[derive(Debug, Default)]
pub(super) struct Table {
    text: Vec<u8>,
    /// Oldest first.
    entries: VecDeque<Entry>,
    size: usize,
    max: usize,
    /// How many entries there ever were: the number of the next.
    inserted: u32,
}

impl Table {
    pub(super) fn new(max: usize) -> Self {
        Self { max, ..Self::default() }
    }

    pub(super) const fn max(&self) -> usize {
        self.max
    }

    #[cfg(test)]
    pub(super) const fn size(&self) -> usize {
        self.size
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The number that the next entry will have.
    pub(super) const fn next(&self) -> u32 {
        self.inserted
    }

    /// Evicts what does not fit any more.
    pub(super) fn resize(&mut self, max: usize) {
        self.max = max;
        self.make_room(0);
    }

    /// The entry of this age, the newest being 0: name, value and hash.
    pub(super) fn at(&self, age: usize) -> Option<(&[u8], &[u8], u32)> {
        let place = self.entries.len().checked_sub(age + 1)?;
        let entry = self.entries.get(place)?;
        let (start, name, value) = (entry.start as usize, entry.name as usize, entry.value as usize);
        let text = &self.text[start..start + name + value];
        let (name, value) = text.split_at(name);
        Some((name, value, entry.hash))
    }

    /// The age of the entry of this number, if it is still there.
    pub(super) fn age(&self, number: u32) -> Option<usize> {
        let age = self.inserted.wrapping_sub(number).wrapping_sub(1) as usize;
        (age < self.entries.len()).then_some(age)
    }

    fn make_room(&mut self, wanted: usize) {
        while self.size + wanted > self.max {
            let Some(oldest) = self.entries.pop_front() else {
                return;
            };
            self.size -= oldest.size();
        }
    }

    /// Adds an entry; one that is larger than the table empties it (RFC 7541 §4.4).
    pub(super) fn insert(&mut self, name: &[u8], value: &[u8], hash: u32) {
        let wanted = name.len() + value.len() + OVERHEAD;
        self.make_room(wanted);
        if wanted > self.max {
            return;
        }
        self.compact(name.len() + value.len());
        let start = self.text.len();
        self.text.extend_from_slice(name);
        self.text.extend_from_slice(value);
        self.size += wanted;
        self.entries.push_back(Entry {
            start: start as u32,
            name: name.len() as u32,
            value: value.len() as u32,
            hash,
        });
        self.inserted = self.inserted.wrapping_add(1);
    }

    /// Moves the text of live entries to the front when the buffer would grow beyond twice the table.
    fn compact(&mut self, wanted: usize) {
        if self.text.len() + wanted <= self.max * 2 {
            return;
        }
        let from = self
            .entries
            .front()
            .map_or(self.text.len(), |oldest| oldest.start as usize);
        self.text.drain(..from);
        for entry in &mut self.entries {
            entry.start -= from as u32;
        }
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> Vec<(String, String)> {
        (0..self.len())
            .map(|age| {
                let (name, value, _) = self.at(age).unwrap();
                (
                    String::from_utf8(name.to_vec()).unwrap(),
                    String::from_utf8(value.to_vec()).unwrap(),
                )
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_leave_and_the_text_stays_bounded() {
        let mut table = Table::new(200);
        for number in 0..10_000u32 {
            let value = number.to_string();
            table.insert(b"name", value.as_bytes(), number);
            assert!(table.size() <= 200 && table.text.len() <= 400);
            assert_eq!(table.at(0).unwrap().1, value.as_bytes());
            assert_eq!(table.age(table.next() - 1), Some(0));
        }
        assert_eq!(table.len(), 5);
        assert_eq!(table.at(4).unwrap().1, b"9995");
        assert!(table.at(5).is_none());
        assert_eq!(table.age(table.next()), None);
        assert_eq!(table.age(table.next() - 6), None);
        table.insert(&[b'n'; 300], b"", 0);
        assert_eq!((table.len(), table.size()), (0, 0));
        table.insert(b"a", b"b", 0);
        table.resize(33);
        assert_eq!(table.len(), 0);
    }
}
