//! From a block of bytes to fields (RFC 7541 §3, §6).

use super::{DEFAULT_TABLE, huffman, int, statics::STATIC, table::Table};
use crate::Fields;

/// A block that cannot be decoded. The tables of both ends differ from now on, so the connection is lost
/// (COMPRESSION_ERROR, RFC 9113 §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum HpackError {
    #[error("cut short")]
    CutShort,
    #[error("an integer that is too large")]
    Integer,
    #[error("an index that no entry has")]
    Index,
    #[error("malformed Huffman code")]
    Huffman,
    #[error("a change of the table's size that is not at the beginning, or beyond what was granted")]
    Resize,
}

/// The receiving end of a connection's fields. Memory: the table, at most twice the size it was granted.
#[derive(Debug)]
pub struct Decoder {
    table: Table,
    granted: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new(DEFAULT_TABLE)
    }
}

impl Decoder {
    /// `granted` is the size that the peer's encoder may use: our SETTINGS_HEADER_TABLE_SIZE.
    pub fn new(granted: usize) -> Self {
        Self {
            table: Table::new(granted),
            granted,
        }
    }

    /// Appends the fields of `block`. Beyond `limit` bytes, counted as SETTINGS_MAX_HEADER_LIST_SIZE does, fields are decoded and
    /// forgotten, and [`Fields::is_over`] says so: the tables must stay equal.
    ///
    /// # Errors
    /// See [`HpackError`]; the decoder cannot be used any more.
    pub fn decode(&mut self, block: &[u8], limit: usize, fields: &mut Fields) -> Result<(), HpackError> {
        let mut rest = block;
        let mut resizable = true;
        while let Some((first, after)) = rest.split_first() {
            rest = after;
            let first = *first;
            if first & 0x80 != 0 {
                let index = int::read(first, 7, &mut rest).ok_or(HpackError::Integer)?;
                let (name, value) = self.entry(index)?;
                fields.put(name, value, limit);
            } else if first & 0xe0 == 0x20 {
                let size = int::read(first, 5, &mut rest).ok_or(HpackError::Integer)?;
                // RFC 7541 §4.2: only first in a block, and no more than was granted.
                if !resizable || size > self.granted {
                    return Err(HpackError::Resize);
                }
                self.table.resize(size);
                continue;
            } else {
                let stored = first & 0x40 != 0;
                let bits = if stored { 6 } else { 4 };
                let index = int::read(first, bits, &mut rest).ok_or(HpackError::Integer)?;
                let mut draft = fields.begin();
                if index == 0 {
                    text(&mut rest, draft.text())?;
                } else {
                    let (name, _) = self.entry(index)?;
                    draft.text().extend_from_slice(name);
                }
                draft.end_name();
                text(&mut rest, draft.text())?;
                if stored {
                    let (name, value) = draft.both();
                    self.table.insert(name, value, 0);
                }
                draft.finish(limit);
            }
            resizable = false;
        }
        Ok(())
    }

    fn entry(&self, index: usize) -> Result<(&[u8], &[u8]), HpackError> {
        match index.checked_sub(1).ok_or(HpackError::Index)? {
            index if index < STATIC.len() => Ok(STATIC[index]),
            index => {
                let entry = self.table.at(index - STATIC.len()).ok_or(HpackError::Index)?;
                Ok((entry.0, entry.1))
            }
        }
    }

    #[cfg(test)]
    pub(super) fn table(&self) -> &Table {
        &self.table
    }
}

/// Appends a string literal (RFC 7541 §5.2).
fn text(rest: &mut &[u8], out: &mut Vec<u8>) -> Result<(), HpackError> {
    let (first, after) = rest.split_first().ok_or(HpackError::CutShort)?;
    *rest = after;
    let length = int::read(*first, 7, rest).ok_or(HpackError::Integer)?;
    let (coded, after) = rest.split_at_checked(length).ok_or(HpackError::CutShort)?;
    *rest = after;
    if first & 0x80 == 0 {
        out.extend_from_slice(coded);
        return Ok(());
    }
    huffman::decode(coded, out).map_err(|_| HpackError::Huffman)
}
