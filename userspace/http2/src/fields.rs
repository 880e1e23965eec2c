//! The fields of one message as they came.

use std::ops::Range;

/// Pseudo-header fields (RFC 9113 §8.3, RFC 8441 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pseudo {
    Method,
    Scheme,
    Authority,
    Path,
    Protocol,
    Status,
}

impl Pseudo {
    const COUNT: usize = 6;

    const fn of(name: &[u8]) -> Option<Self> {
        match name {
            b":method" => Some(Self::Method),
            b":scheme" => Some(Self::Scheme),
            b":authority" => Some(Self::Authority),
            b":path" => Some(Self::Path),
            b":protocol" => Some(Self::Protocol),
            b":status" => Some(Self::Status),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Field {
    start: u32,
    name: u32,
    value: u32,
}

/// What a field counts beyond its text (RFC 9113 §6.5.2).
const OVERHEAD: usize = 32;

/// Names and values in one buffer, in order; made to be used again.
#[derive(Debug, Default)]
pub struct Fields {
    text: Vec<u8>,
    all: Vec<Field>,
    /// Where pseudo-header fields stand in `all`, plus one.
    pseudo: [u32; Pseudo::COUNT],
    size: usize,
    over: bool,
}

/// A field whose text is being written.
pub(crate) struct Draft<'f> {
    fields: &'f mut Fields,
    start: usize,
    name: usize,
}

impl Draft<'_> {
    pub(crate) fn text(&mut self) -> &mut Vec<u8> {
        &mut self.fields.text
    }

    pub(crate) fn end_name(&mut self) {
        self.name = self.fields.text.len() - self.start;
    }

    pub(crate) fn both(&self) -> (&[u8], &[u8]) {
        self.fields.text[self.start..].split_at(self.name)
    }

    pub(crate) fn finish(self, limit: usize) {
        let length = self.fields.text.len() - self.start;
        if self.fields.count(length, limit) {
            self.fields.all.push(Field {
                start: self.start as u32,
                name: self.name as u32,
                value: (length - self.name) as u32,
            });
        } else {
            self.fields.text.truncate(self.start);
        }
    }
}

impl Fields {
    pub const fn new() -> Self {
        Self {
            text: Vec::new(),
            all: Vec::new(),
            pseudo: [0; Pseudo::COUNT],
            size: 0,
            over: false,
        }
    }

    /// Forgets all fields, keeps the memory.
    pub fn clear(&mut self) {
        self.text.clear();
        self.all.clear();
        self.pseudo = [0; Pseudo::COUNT];
        self.size = 0;
        self.over = false;
    }

    /// Whether fields were left out, for there were more than the limit allows.
    pub const fn is_over(&self) -> bool {
        self.over
    }

    /// Bytes as SETTINGS_MAX_HEADER_LIST_SIZE counts them, those left out included.
    pub const fn size(&self) -> usize {
        self.size
    }

    /// All fields in order, pseudo-header fields too: name and value.
    pub fn all(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.all.iter().map(|field| self.text_of(field))
    }

    /// The fields that are no pseudo-header fields.
    pub fn regular(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let before = self.pseudo.iter().max().copied().unwrap_or(0) as usize;
        self.all[before..].iter().map(|field| self.text_of(field))
    }

    /// The number of fields that are no pseudo-header fields.
    pub fn len(&self) -> usize {
        self.all.len() - self.pseudo.iter().filter(|at| **at > 0).count()
    }

    /// Whether there is no field at all.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The value of a pseudo-header field.
    pub fn pseudo(&self, which: Pseudo) -> Option<&[u8]> {
        let at = self.pseudo[which as usize].checked_sub(1)?;
        Some(self.text_of(&self.all[at as usize]).1)
    }

    fn text_of(&self, field: &Field) -> (&[u8], &[u8]) {
        let start = field.start as usize;
        let range: Range<usize> = start..start + (field.name + field.value) as usize;
        self.text[range].split_at(field.name as usize)
    }

    /// Counts a field; whether it is to be kept.
    const fn count(&mut self, length: usize, limit: usize) -> bool {
        self.size = self.size.saturating_add(length + OVERHEAD);
        self.over |= self.size > limit;
        !self.over
    }

    pub(crate) fn put(&mut self, name: &[u8], value: &[u8], limit: usize) {
        if self.count(name.len() + value.len(), limit) {
            self.all.push(Field {
                start: self.text.len() as u32,
                name: name.len() as u32,
                value: value.len() as u32,
            });
            self.text.extend_from_slice(name);
            self.text.extend_from_slice(value);
        }
    }

    pub(crate) const fn begin(&mut self) -> Draft<'_> {
        let start = self.text.len();
        Draft {
            fields: self,
            start,
            name: 0,
        }
    }

    /// Finds the pseudo-header fields, which come first and once (RFC 9113 §8.3). Whether that holds.
    pub(crate) fn sort_out(&mut self) -> bool {
        let mut regular = false;
        for at in 0..self.all.len() {
            let field = self.all[at];
            if self.text.get(field.start as usize) != Some(&b':') || field.name == 0 {
                regular = true;
                continue;
            }
            let Some(which) = Pseudo::of(self.text_of(&field).0) else {
                return false;
            };
            if regular || self.pseudo[which as usize] != 0 {
                return false;
            }
            self.pseudo[which as usize] = at as u32 + 1;
        }
        true
    }
}
