//! The flat header block: one buffer of field lines, and an index.

#![allow(
    single_use_lifetimes,
    reason = "an elided lifetime in an `impl Trait` argument is not stable"
)]

use std::fmt;
use std::ops::Range;

use crate::{Known, KnownSet, Name, Value, chars, known};

/// Set when the line was removed.
const DEAD: u8 = 1;
/// Set when the line can be written as it stands: `name ":" [SP] value CRLF`.
const PLAIN: u8 = 2;

const UNKNOWN: u8 = u8::MAX;

/// One line in the buffer. Offsets are into the buffer of the block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    start: u32,
    value_start: u32,
    value_end: u32,
    name_len: u16,
    known: u8,
    flags: u8,
}

impl Field {
    const fn live(&self) -> bool {
        self.flags & DEAD == 0
    }

    const fn known(&self) -> Option<Known> {
        if self.known == UNKNOWN {
            None
        } else {
            Some(Known::ALL[self.known as usize])
        }
    }

    const fn bit(&self) -> u128 {
        // Cheaper than a shift of 128 bits.
        let bit = 1_u64 << (self.known & 63);
        match self.known {
            0..64 => bit as u128,
            64..128 => (bit as u128) << 64,
            _ => 0,
        }
    }

    /// With its CRLF; only meaningful for a `PLAIN` line.
    const fn line(&self) -> Range<usize> {
        self.start as usize..self.value_end as usize + 2
    }
}

/// Field lines in order, each with the case it came in. See the crate for an example.
///
/// Sizes are bounded by whoever fills the block: the parser by its limits, and nothing can be added beyond
/// [`Headers::MAX_BYTES`].
#[derive(Clone, Default)]
pub struct Headers {
    buf: Vec<u8>,
    fields: Vec<Field>,
    /// Bits of known names that may be present; a clear bit means absent.
    present: u128,
    /// Bits of known names that may be there more than once; a clear bit means at most once.
    repeated: u128,
    live: u32,
    /// Set when the buffer holds anything but the lines as they are to be written.
    scattered: bool,
}

/// One field of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldRef<'a> {
    pub name: Name<'a>,
    pub value: Value<'a>,
}

/// Values of the fields of one name: see [`Headers::all`].
#[derive(Debug, Clone)]
pub struct Values<'s, 'n> {
    headers: &'s Headers,
    name: Name<'n>,
    from: usize,
}

impl<'s> Iterator for Values<'s, '_> {
    type Item = &'s [u8];

    #[inline]
    fn next(&mut self) -> Option<&'s [u8]> {
        let at = self.headers.find(self.name, self.from)?;
        // Spares the look through the rest for a name that stands there once.
        self.from = if self.headers.may_repeat(self.name) {
            at + 1
        } else {
            usize::MAX
        };
        Some(self.headers.value(&self.headers.fields[at]))
    }
}

/// Members of a list: see [`Headers::members`].
#[derive(Debug, Clone)]
pub struct Members<'s, 'n> {
    values: Values<'s, 'n>,
    rest: Option<&'s [u8]>,
}

impl<'s> Iterator for Members<'s, '_> {
    type Item = &'s [u8];

    #[inline]
    fn next(&mut self) -> Option<&'s [u8]> {
        loop {
            let text = match self.rest.take() {
                Some(text) => text,
                None => self.values.next()?,
            };
            let member = match text.iter().position(|&byte| byte == b',') {
                Some(comma) => {
                    self.rest = Some(&text[comma + 1..]);
                    &text[..comma]
                }
                None => text,
            };
            let member = chars::trim(member);
            if !member.is_empty() {
                return Some(member);
            }
        }
    }
}

impl Headers {
    /// Most bytes that a block can hold, removed lines included. Adding more panics: a proxy that lets one message
    /// grow to this has no limits.
    pub const MAX_BYTES: usize = u32::MAX as usize;

    /// An empty block; allocates nothing.
    pub const fn new() -> Self {
        Self {
            buf: Vec::new(),
            fields: Vec::new(),
            present: 0,
            repeated: 0,
            live: 0,
            scattered: false,
        }
    }

    /// An empty block with room for `fields` lines of `bytes` in all.
    pub fn with_capacity(fields: usize, bytes: usize) -> Self {
        Self {
            buf: Vec::with_capacity(bytes),
            fields: Vec::with_capacity(fields),
            present: 0,
            repeated: 0,
            live: 0,
            scattered: false,
        }
    }

    /// Forgets all fields and keeps the memory.
    pub fn clear(&mut self) {
        self.buf.clear();
        self.fields.clear();
        self.present = 0;
        self.repeated = 0;
        self.live = 0;
        self.scattered = false;
    }

    /// Number of fields.
    pub const fn len(&self) -> usize {
        self.live as usize
    }

    /// Whether there are no fields.
    pub const fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Bytes of memory held for reuse, so that a pool can let go of a block that grew too large.
    pub fn capacity_bytes(&self) -> usize {
        self.buf.capacity() + self.fields.capacity() * size_of::<Field>()
    }

    /// Whether a field of that name is present.
    pub fn contains<'n>(&self, name: impl Into<Name<'n>>) -> bool {
        self.first(name).is_some()
    }

    /// The value of the first field of that name.
    pub fn first<'n>(&self, name: impl Into<Name<'n>>) -> Option<&[u8]> {
        let name = name.into();
        self.find(name, 0).map(|at| self.value(&self.fields[at]))
    }

    /// The value of the only field of that name; `None` when absent or repeated.
    pub fn only<'n>(&self, name: impl Into<Name<'n>>) -> Option<&[u8]> {
        let name = name.into();
        let at = self.find(name, 0)?;
        let repeated = self.may_repeat(name) && self.find(name, at + 1).is_some();
        (!repeated).then(|| self.value(&self.fields[at]))
    }

    /// The values of all fields of that name, in order.
    pub fn all<'s, 'n>(&'s self, name: impl Into<Name<'n>>) -> Values<'s, 'n> {
        Values {
            headers: self,
            name: name.into(),
            from: 0,
        }
    }

    /// The comma-separated members of all fields of that name, trimmed, without empty ones. Knows nothing of quoted
    /// strings: for lists of tokens.
    #[inline]
    pub fn members<'s, 'n>(&'s self, name: impl Into<Name<'n>>) -> Members<'s, 'n> {
        Members {
            values: self.all(name),
            rest: None,
        }
    }

    /// Whether `token` is a member of the list in any case.
    pub fn has_member<'n>(&self, name: impl Into<Name<'n>>, token: &str) -> bool {
        let name = name.into();
        self.may_hold(name)
            && self
                .members(name)
                .any(|member| member.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// All fields, in order.
    pub fn iter(&self) -> impl Iterator<Item = FieldRef<'_>> {
        self.fields
            .iter()
            .filter(|field| field.live())
            .map(|field| self.field(field))
    }

    /// Adds a field after all others. Never joins it to one of the same name.
    pub fn append<'n>(&mut self, name: impl Into<Name<'n>>, value: Value<'_>) {
        let field = self.push_line(name.into(), value.as_bytes());
        self.push_field(field);
    }

    /// Adds a field with the value of the first field of the name `from`; nothing where there is none.
    pub fn append_copy<'n>(&mut self, name: impl Into<Name<'n>>, from: Known) {
        let Some(at) = self.find(from.into(), 0) else {
            return;
        };
        let Field {
            value_start, value_end, ..
        } = self.fields[at];
        let field = self.push_line_of(name.into(), |buf| {
            buf.extend_from_within(value_start as usize..value_end as usize);
        });
        self.push_field(field);
    }

    /// Adds a field whose value is `number` in decimal.
    pub fn append_decimal<'n>(&mut self, name: impl Into<Name<'n>>, number: u64) {
        let mut digits = Vec::with_capacity(20);
        chars::push_decimal(&mut digits, number);
        self.append(name, Value::checked(&digits));
    }

    /// Adds all fields of `other` after the own ones. Constant lines are made once and added in one copy.
    pub fn append_all(&mut self, other: &Self) {
        let shift = offset(self.buf.len());
        self.buf.extend_from_slice(&other.buf);
        offset(self.buf.len());
        let shifted = |field: &Field| Field {
            start: field.start + shift,
            value_start: field.value_start + shift,
            value_end: field.value_end + shift,
            ..*field
        };
        if other.scattered {
            let live = other.fields.iter().filter(|field| field.live());
            self.fields.extend(live.map(shifted));
        } else {
            self.fields.extend(other.fields.iter().map(shifted));
        }
        self.repeated |= other.repeated | self.present & other.present;
        self.present |= other.present;
        self.live += other.live;
        self.scattered |= other.scattered;
    }

    /// Makes `value` the only value of that name: at the place of the first field of that name, else at the end.
    pub fn set<'n>(&mut self, name: impl Into<Name<'n>>, value: Value<'_>) {
        let name = name.into();
        let Some(at) = self.find(name, 0) else {
            self.append(name, value);
            return;
        };
        let field = self.push_line(name, value.as_bytes());
        self.fields[at] = field;
        self.scattered = true;
        self.remove_from(name, at + 1);
        self.present |= field.bit();
    }

    /// Removes all fields of that name; returns how many there were.
    #[inline]
    pub fn remove<'n>(&mut self, name: impl Into<Name<'n>>) -> usize {
        let name = name.into();
        if self.may_hold(name) {
            self.remove_from(name, 0)
        } else {
            0
        }
    }

    /// Keeps only the fields for which `keep` says yes.
    pub fn retain(&mut self, mut keep: impl FnMut(FieldRef<'_>) -> bool) {
        for at in 0..self.fields.len() {
            let field = self.fields[at];
            if field.live() && !keep(self.field(&field)) {
                self.fields[at].flags |= DEAD;
                self.live -= 1;
                self.scattered = true;
            }
        }
    }

    /// Removes all fields of a set of names.
    pub fn remove_all(&mut self, names: KnownSet) {
        self.remove_set(names.bits());
    }

    /// Removes all fields in a set of known names.
    pub(crate) fn remove_set(&mut self, names: u128) {
        if self.present & names == 0 {
            return;
        }
        for field in &mut self.fields {
            if field.live() && field.bit() & names != 0 {
                field.flags |= DEAD;
                self.live -= 1;
                self.scattered = true;
            }
        }
        self.present &= !names;
        self.repeated &= !names;
    }

    /// Appends all lines but those of known names in `skip`; no empty line. Neighbours in the buffer go in one copy.
    pub(crate) fn write(&self, skip: u128, out: &mut Vec<u8>) {
        if !self.scattered && self.present & skip == 0 {
            out.extend_from_slice(&self.buf);
            return;
        }
        let mut run = 0..0;
        for field in &self.fields {
            if !field.live() || field.bit() & skip != 0 {
                continue;
            }
            if field.flags & PLAIN != 0 {
                let line = field.line();
                if line.start != run.end {
                    out.extend_from_slice(&self.buf[run]);
                    run = line;
                } else {
                    run.end = line.end;
                }
                continue;
            }
            out.extend_from_slice(&self.buf[run]);
            run = 0..0;
            out.extend_from_slice(self.name_text(field));
            out.extend_from_slice(b": ");
            out.extend_from_slice(self.value(field));
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(&self.buf[run]);
    }

    /// Whether a known name may be present; `true` for any other.
    #[inline]
    fn may_hold(&self, name: Name<'_>) -> bool {
        name.known().is_none_or(|known| self.present & known.bit() != 0)
    }

    fn may_repeat(&self, name: Name<'_>) -> bool {
        name.known().is_none_or(|known| self.repeated & known.bit() != 0)
    }

    /// Most that is asked for is not there: that much is for the caller to have in place.
    #[inline]
    fn find(&self, name: Name<'_>, from: usize) -> Option<usize> {
        if self.may_hold(name) {
            self.look_for(name, from)
        } else {
            None
        }
    }

    #[inline(never)]
    fn look_for(&self, name: Name<'_>, from: usize) -> Option<usize> {
        let rest = self.fields.get(from..)?;
        let at = match name.known() {
            Some(known) => rest.iter().position(|field| field.known == known as u8 && field.live()),
            None => rest.iter().position(|field| {
                field.known == UNKNOWN
                    && usize::from(field.name_len) == name.as_bytes().len()
                    && field.live()
                    && self.name_text(field).eq_ignore_ascii_case(name.as_bytes())
            }),
        }?;
        Some(from + at)
    }

    /// The caller says anew that the name is present when it left one before `from`.
    fn remove_from(&mut self, name: Name<'_>, mut from: usize) -> usize {
        let mut removed = 0;
        while let Some(at) = self.find(name, from) {
            self.fields[at].flags |= DEAD;
            self.scattered = true;
            self.live -= 1;
            removed += 1;
            from = at + 1;
        }
        if let Some(known) = name.known() {
            self.present &= !known.bit();
            self.repeated &= !known.bit();
        }
        removed
    }

    fn name_text(&self, field: &Field) -> &[u8] {
        let start = field.start as usize;
        &self.buf[start..start + usize::from(field.name_len)]
    }

    fn value(&self, field: &Field) -> &[u8] {
        &self.buf[field.value_start as usize..field.value_end as usize]
    }

    fn field(&self, field: &Field) -> FieldRef<'_> {
        FieldRef {
            name: Name::indexed(self.name_text(field), field.known()),
            value: Value::checked(self.value(field)),
        }
    }

    fn push_line(&mut self, name: Name<'_>, value: &[u8]) -> Field {
        self.buf.reserve(name.as_bytes().len() + value.len() + 4);
        self.push_line_of(name, |buf| buf.extend_from_slice(value))
    }

    /// `push_value` adds the value to the buffer.
    fn push_line_of(&mut self, name: Name<'_>, push_value: impl FnOnce(&mut Vec<u8>)) -> Field {
        let text = name.as_bytes();
        let start = self.buf.len();
        self.buf.extend_from_slice(text);
        self.buf.extend_from_slice(b": ");
        let value_start = offset(self.buf.len());
        push_value(&mut self.buf);
        let value_end = offset(self.buf.len());
        self.buf.extend_from_slice(b"\r\n");
        Field {
            start: offset(start),
            value_start,
            value_end,
            // A `Name` is never longer.
            name_len: text.len() as u16,
            known: name.known().map_or(UNKNOWN, |known| known as u8),
            flags: PLAIN,
        }
    }

    fn push_field(&mut self, field: Field) {
        let bit = field.bit();
        self.repeated |= self.present & bit;
        self.present |= bit;
        self.live += 1;
        self.fields.push(field);
    }

    /// Indexes a parsed line: `name` and `value` are ranges of a buffer that [`Headers::fill`] will bring.
    pub(crate) fn index(&mut self, name: Range<usize>, known: Option<Known>, value: Range<usize>, plain: bool) {
        self.scattered |= !plain;
        self.push_field(Field {
            start: name.start as u32,
            value_start: value.start as u32,
            value_end: value.end as u32,
            name_len: name.len() as u16,
            known: known.map_or(UNKNOWN, |known| known as u8),
            flags: if plain { PLAIN } else { 0 },
        });
    }

    /// Brings the lines that were indexed.
    pub(crate) fn fill(&mut self, lines: &[u8]) {
        self.buf.clear();
        self.buf.extend_from_slice(lines);
    }

    /// Whether any of a set of known names may be present.
    pub(crate) const fn may_hold_any(&self, names: u128) -> bool {
        self.present & names != 0
    }

    /// How many lines were indexed, removed ones included.
    pub(crate) const fn indexed(&self) -> usize {
        self.fields.len()
    }
}

fn offset(at: usize) -> u32 {
    u32::try_from(at).expect("a header block stays below MAX_BYTES")
}

/// Same fields in the same order; names in any case.
impl PartialEq for Headers {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Headers {}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.iter().map(|field| {
                (
                    String::from_utf8_lossy(field.name.as_bytes()).into_owned(),
                    String::from_utf8_lossy(field.value.as_bytes()).into_owned(),
                )
            }))
            .finish()
    }
}

/// Known names that only the encoder writes.
pub(crate) const FRAMING: u128 = known::set(&[Known::Connection, Known::ContentLength, Known::TransferEncoding]);
