//! HPACK: the compression of fields (RFC 7541).

mod decode;
mod encode;
mod huffman;
mod int;
mod statics;
mod table;
#[cfg(test)]
mod tests;

pub use decode::{Decoder, HpackError};
pub use encode::{Encoder, Policy};

/// Size that both tables have until something else is agreed (RFC 9113 §6.5.2), in bytes as HPACK counts them.
pub(crate) const DEFAULT_TABLE: usize = 4096;

/// Eight bytes at a time. Decides only how well the encoder compresses, so it needs no secret.
const fn hash(seed: u32, text: &[u8]) -> u32 {
    const K: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut state = seed as u64 ^ text.len() as u64;
    let mut rest = text;
    while let Some((word, after)) = rest.split_first_chunk::<8>() {
        state = (state.rotate_left(5) ^ u64::from_le_bytes(*word)).wrapping_mul(K);
        rest = after;
    }
    let mut last = 0u64;
    let mut at = 0;
    while at < rest.len() {
        last = last << 8 | rest[at] as u64;
        at += 1;
    }
    state = (state.rotate_left(5) ^ last).wrapping_mul(K);
    (state >> 32) as u32
}
