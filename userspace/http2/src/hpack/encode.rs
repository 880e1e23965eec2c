//! From fields to a block of bytes (RFC 7541 §6).

use super::{DEFAULT_TABLE, hash, huffman, int, statics, table::Table};

/// What becomes of a field beyond this message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// It will come again: kept in the table, and then sent as its number.
    Index,
    /// It will not come again with this value: keeping it would drive out what does.
    Once,
    /// It must not be kept by anybody on the way, so that nobody who can add fields beside it can guess it by their compressed
    /// size (RFC 7541 §7.1.3).
    Secret,
}

/// Places where a number is remembered by hash; what falls into the same place is forgotten, which costs bytes only.
const PLACES: usize = 128;

/// The sending end of a connection's fields. Memory: the table, at most twice its size, and 1 kB.
#[derive(Debug)]
pub struct Encoder {
    table: Table,
    /// Numbers of entries by hash of the field, and by hash of the name.
    fields: Box<[u32; PLACES]>,
    names: Box<[u32; PLACES]>,
    /// The smallest and the last size since the last block, to be said first in the next.
    resized: Option<(usize, usize)>,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

const fn place(hash: u32) -> usize {
    (hash >> 16) as usize % PLACES
}

impl Encoder {
    pub fn new() -> Self {
        Self {
            table: Table::new(DEFAULT_TABLE),
            fields: Box::new([u32::MAX; PLACES]),
            names: Box::new([u32::MAX; PLACES]),
            resized: None,
        }
    }

    /// The peer's SETTINGS_HEADER_TABLE_SIZE. We never use more than the default.
    pub fn resize(&mut self, granted: usize) {
        let size = granted.min(DEFAULT_TABLE);
        if size == self.table.max() && self.resized.is_none() {
            return;
        }
        self.table.resize(size);
        let smallest = self.resized.map_or(size, |(smallest, _)| smallest.min(size));
        self.resized = Some((smallest, size));
    }

    /// To be called before the first field of each block.
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        if let Some((smallest, last)) = self.resized.take() {
            // RFC 7541 §4.2: the smallest, if it came up again since.
            if smallest < last {
                int::write(0x20, 5, smallest, out);
            }
            int::write(0x20, 5, last, out);
        }
    }

    /// Appends a field. `name` is in lower case.
    pub fn field(&mut self, name: &[u8], value: &[u8], policy: Policy, out: &mut Vec<u8>) {
        let of_name = hash(0, name);
        let standing = statics::find(name, of_name);
        if policy != Policy::Secret
            && let Some(first) = standing
            && let Some(index) = statics::find_value(first, value)
        {
            int::write(0x80, 7, index, out);
            return;
        }
        if policy != Policy::Index {
            let index = standing.or_else(|| self.named(name, of_name)).unwrap_or(0);
            let flags = if policy == Policy::Secret { 0x10 } else { 0 };
            int::write(flags, 4, index, out);
            if index == 0 {
                literal(name, true, out);
            }
            literal(value, false, out);
            return;
        }
        let of_field = hash(of_name, value);
        let number = self.fields[place(of_field)];
        if let Some(age) = self.table.age(number)
            && self
                .table
                .at(age)
                .is_some_and(|(has, with, hash)| hash == of_field && has == name && with == value)
        {
            int::write(0x80, 7, statics::STATIC.len() + 1 + age, out);
            return;
        }
        let index = standing.or_else(|| self.named(name, of_name)).unwrap_or(0);
        int::write(0x40, 6, index, out);
        if index == 0 {
            literal(name, true, out);
        }
        literal(value, true, out);
        let number = self.table.next();
        self.table.insert(name, value, of_field);
        self.fields[place(of_field)] = number;
        self.names[place(of_name)] = number;
    }

    /// The index of an entry of the table with this name.
    fn named(&self, name: &[u8], of_name: u32) -> Option<usize> {
        let age = self.table.age(self.names[place(of_name)])?;
        let (has, ..) = self.table.at(age)?;
        (has == name).then_some(statics::STATIC.len() + 1 + age)
    }

    #[cfg(test)]
    pub(super) fn table(&self) -> &Table {
        &self.table
    }
}

/// Appends a string literal, by its Huffman code where that is wanted and shorter: it costs both sides time, which pays for
/// what is sent once and then known.
fn literal(text: &[u8], squeeze: bool, out: &mut Vec<u8>) {
    if squeeze {
        let length = huffman::encoded_len(text);
        if length < text.len() {
            int::write(0x80, 7, length, out);
            huffman::encode(text, out);
            return;
        }
    }
    int::write(0, 7, text.len(), out);
    out.extend_from_slice(text);
}
