//! Memory that was needed for a moment, given back: what was read before it became what is kept is free, but lies between what is
//! not, where the allocator keeps it; and most code that a start touches is not touched again.

use std::time::{Duration, Instant};

use pierhead_kernel::{trim_heap, unmap_code};

/// How long after a change it is given back: others may follow.
const REST: Duration = Duration::from_secs(1);
/// How often it is given back at most.
const EVERY: Duration = Duration::from_secs(30);

/// Gives it back some time after a change.
#[derive(Debug, Default)]
pub(crate) struct Heap {
    used: Option<Instant>,
    trimmed: Option<Instant>,
}

impl Heap {
    /// A change was applied.
    pub(crate) fn used(&mut self) {
        self.used.get_or_insert_with(Instant::now);
    }

    /// To be called now and then.
    pub(crate) fn tick(&mut self) {
        let rests = self.used.is_some_and(|used| used.elapsed() >= REST);
        if rests && self.trimmed.is_none_or(|last| last.elapsed() >= EVERY) {
            self.used = None;
            if self.trimmed.replace(Instant::now()).is_none() {
                unmap_code();
            }
            trim_heap();
        }
    }
}
