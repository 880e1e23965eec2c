//! What the control plane did, counted for metrics, and what it waits for.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Shared by all parts; reading costs nobody anything.
#[derive(Debug, Default)]
pub struct Counters {
    pub(crate) watch_events: AtomicU64,
    pub(crate) watch_errors: AtomicU64,
    pub(crate) translations: AtomicU64,
    pub(crate) translation_microseconds: AtomicU64,
    pub(crate) published: AtomicU64,
    pub(crate) status_writes: AtomicU64,
    pub(crate) status_conflicts: AtomicU64,
    pub(crate) status_errors: AtomicU64,
    pub(crate) status_pending: AtomicU64,
    pub(crate) service_writes: AtomicU64,
    pub(crate) service_errors: AtomicU64,
    pub(crate) events_sent: AtomicU64,
    pub(crate) events_dropped: AtomicU64,
    pub(crate) lease_renewals: AtomicU64,
    pub(crate) lease_errors: AtomicU64,
    pub(crate) leader: AtomicBool,
    waiting_for: Mutex<Vec<String>>,
    failing: Mutex<BTreeSet<String>>,
}

/// The counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CounterValues {
    /// Objects and deletions received from watches.
    pub watch_events: u64,
    pub watch_errors: u64,
    pub translations: u64,
    /// Spent in all translations.
    pub translation_microseconds: u64,
    /// Configurations that differed from the one before.
    pub published: u64,
    pub status_writes: u64,
    /// Writes that met a newer object and were made again.
    pub status_conflicts: u64,
    pub status_errors: u64,
    /// Objects whose status is known to be out of date now.
    pub status_pending: u64,
    pub service_writes: u64,
    pub service_errors: u64,
    pub events_sent: u64,
    /// Events not sent because there were too many.
    pub events_dropped: u64,
    pub lease_renewals: u64,
    pub lease_errors: u64,
    pub leader: bool,
    /// Kinds that were not read yet, for a message about readiness. Empty once there is a world.
    pub waiting_for: Vec<String>,
    /// Kinds whose watch fails at present: what is known of them may be old.
    pub failing: Vec<String>,
}

impl Counters {
    pub fn values(&self) -> CounterValues {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CounterValues {
            watch_events: of(&self.watch_events),
            watch_errors: of(&self.watch_errors),
            translations: of(&self.translations),
            translation_microseconds: of(&self.translation_microseconds),
            published: of(&self.published),
            status_writes: of(&self.status_writes),
            status_conflicts: of(&self.status_conflicts),
            status_errors: of(&self.status_errors),
            status_pending: of(&self.status_pending),
            service_writes: of(&self.service_writes),
            service_errors: of(&self.service_errors),
            events_sent: of(&self.events_sent),
            events_dropped: of(&self.events_dropped),
            lease_renewals: of(&self.lease_renewals),
            lease_errors: of(&self.lease_errors),
            leader: self.leader.load(Ordering::Relaxed),
            waiting_for: self.waiting_for.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            failing: {
                let failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
                failing.iter().cloned().collect()
            },
        }
    }

    pub(crate) fn set_waiting_for(&self, kinds: Vec<String>) {
        *self.waiting_for.lock().unwrap_or_else(PoisonError::into_inner) = kinds;
    }

    pub(crate) fn set_failing(&self, kind: &str, fails: bool) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        if fails {
            failing.insert(kind.to_owned());
        } else {
            failing.remove(kind);
        }
    }
}

/// One more.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
