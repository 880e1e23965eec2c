//! How long to wait before trying again. Pure but for its jitter.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Doubles from `first` to `most`; each wait is shortened by up to a half at random, so that what failed together does not
/// come back together.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) const fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most,
            failures: 0,
        }
    }

    /// The wait after one more failure.
    pub(crate) fn fail(&mut self) -> Duration {
        let whole = self.first.saturating_mul(1 << self.failures.min(20)).min(self.most);
        self.failures = self.failures.saturating_add(1);
        whole.mul_f64(1.0 - random() / 2.0)
    }

    pub(crate) fn succeed(&mut self) {
        self.failures = 0;
    }

    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }
}

/// From 0 to below 1: a fresh hasher has a key that nobody knows.
fn random() -> f64 {
    let bits = u32::try_from(RandomState::new().hash_one(0_u8) >> 32).unwrap_or(0);
    f64::from(bits) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_most_and_start_over_after_a_success() {
        let (first, most) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut backoff = Backoff::new(first, most);
        for whole in [100, 200, 400, 800, 1000, 1000] {
            let whole = Duration::from_millis(whole);
            let wait = backoff.fail();
            assert!(
                wait > whole / 2 - Duration::from_millis(1) && wait <= whole,
                "{wait:?} of {whole:?}"
            );
        }
        assert_eq!(backoff.failures(), 6);
        for _ in 0..100 {
            assert!(backoff.fail() <= most);
        }
        backoff.succeed();
        assert!(backoff.fail() <= first);
    }
}
