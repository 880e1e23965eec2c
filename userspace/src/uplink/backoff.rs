//! Pauses between attempts: they double, within bounds, and are never the same on two nodes.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use pierhead_protocol::pace;

const FIRST: Duration = pace::RETRY;
const LAST: Duration = pace::LAST_RETRY;

#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Backoff {
    /// The pause before the next attempt: between half of it and one and a half.
    pub(super) fn pause(&mut self) -> Duration {
        let base = self.next;
        self.next = (base * 2).min(LAST);
        // 0 to 1023.
        let random = u32::try_from(RandomState::new().hash_one(0_u8) >> 54).unwrap_or_default();
        base / 2 + base * random / 1024
    }

    pub(super) fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_differ_and_are_bounded() {
        let mut backoff = Backoff::default();
        let mut expected = FIRST;
        for _ in 0..20 {
            let pause = backoff.pause();
            assert!(
                pause >= expected / 2 && pause <= expected * 3 / 2,
                "{pause:?} of {expected:?}"
            );
            expected = (expected * 2).min(LAST);
        }
        backoff.reset();
        assert!(backoff.pause() <= FIRST * 3 / 2);
        let different: std::collections::BTreeSet<_> = (0..16).map(|_| Backoff::default().pause()).collect();
        assert!(different.len() > 1);
    }
}
