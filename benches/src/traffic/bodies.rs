//! Bodies that can be checked wherever they are cut: a pattern whose period divides nothing.

use std::sync::OnceLock;

use anyhow::{Result, ensure};

const PERIOD: usize = 251;
/// Longest piece that is checked or sent at once.
pub(crate) const PIECE: usize = 256 * 1024;

fn pattern() -> &'static [u8] {
    static PATTERN: OnceLock<Vec<u8>> = OnceLock::new();
    PATTERN.get_or_init(|| (0..PIECE + PERIOD).map(|n| b'!' + (n % PERIOD % 90) as u8).collect())
}

/// `count` bytes of a body from `offset` on, at most [`PIECE`].
pub(crate) fn piece(offset: usize, count: usize) -> &'static [u8] {
    let start = offset % PERIOD;
    &pattern()[start..start + count.min(PIECE)]
}

/// Whether `bytes` are those of a body from `offset` on.
///
/// # Errors
/// When they are not.
pub(crate) fn check(offset: usize, bytes: &[u8]) -> Result<()> {
    let mut at = offset;
    for part in bytes.chunks(PIECE) {
        ensure!(part == piece(at, part.len()), "wrong bytes in a body, after byte {at}");
        at += part.len();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{PIECE, check, piece};

    #[test]
    fn a_body_is_known_wherever_it_is_cut_and_by_its_place() {
        let mut whole = Vec::new();
        while whole.len() < 3 * PIECE {
            let count = (7 * PIECE / 10).min(3 * PIECE - whole.len());
            whole.extend_from_slice(piece(whole.len(), count));
        }
        for cut in [1, 250, 251, 4096, PIECE, 2 * PIECE + 1] {
            check(0, &whole[..cut]).unwrap();
            check(cut, &whole[cut..]).unwrap();
            check(cut + 1, &whole[cut..]).unwrap_err();
        }
    }
}
