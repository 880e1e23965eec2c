use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::Reason;

/// A number that one thread adds to and any thread may read.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// For the owning worker only: two writers would lose counts (a locked addition would cost every request).
    pub(crate) fn add(&self, amount: u64) {
        let before = self.0.load(Ordering::Relaxed);
        self.0.store(before.wrapping_add(amount), Ordering::Relaxed);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of the latency buckets in microseconds; one more bucket takes the rest.
pub(crate) const LATENCY_BOUNDS_US: [u64; 16] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000, 60_000_000,
];

/// Durations by bucket.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    buckets: [Counter; LATENCY_BOUNDS_US.len() + 1],
    sum_us: Counter,
}

impl Histogram {
    pub(crate) fn record(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = LATENCY_BOUNDS_US.partition_point(|bound| *bound < us);
        if let Some(counter) = self.buckets.get(bucket) {
            counter.add(1);
        }
        self.sum_us.add(us);
    }

    /// Counts per bucket, not cumulated.
    pub(crate) fn counts(&self) -> impl Iterator<Item = u64> {
        self.buckets.iter().map(Counter::value)
    }

    pub(crate) fn sum_us(&self) -> u64 {
        self.sum_us.value()
    }
}

/// One value per worker, each on cache lines of its own.
#[derive(Debug)]
pub(crate) struct PerWorker<T>(Box<[Padded<T>]>);

/// Two lines: the adjacent-line prefetcher fetches pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded<T>(T);

impl<T: Default> PerWorker<T> {
    pub(crate) fn new(workers: usize) -> Self {
        Self((0..workers.max(1)).map(|_| Padded::default()).collect())
    }

    /// The cell of a worker.
    pub(crate) fn of(&self, worker: usize) -> &T {
        // Worker numbers are below the number of workers; to divide, to be sure of it, would take longer than to count.
        let cell = self.0.get(worker).unwrap_or(&self.0[0]);
        &cell.0
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|padded| &padded.0)
    }
}

/// Counts of one listener on one worker.
#[derive(Debug, Default)]
pub(crate) struct ListenerCells {
    /// Accepted; UDP: sessions begun.
    pub(crate) opened: Counter,
    pub(crate) closed: Counter,
    pub(crate) refused: [Counter; Reason::COUNT],
    pub(crate) handshakes: Counter,
    pub(crate) handshakes_failed: Counter,
    /// By first digit of the status; 0 is "none was sent".
    pub(crate) requests: [Counter; 6],
    /// How exchanges and streams ended, other than well.
    pub(crate) ended: [Counter; Reason::COUNT],
    pub(crate) latency: Histogram,
    /// From clients.
    pub(crate) bytes_in: Counter,
    /// To clients.
    pub(crate) bytes_out: Counter,
    pub(crate) datagrams_in: Counter,
    pub(crate) datagrams_out: Counter,
    pub(crate) datagrams_dropped: Counter,
}

impl ListenerCells {
    pub(crate) fn refuse(&self, reason: Reason) {
        count(&self.refused, reason);
    }

    pub(crate) fn end(&self, reason: Reason) {
        count(&self.ended, reason);
    }
}

fn count(cells: &[Counter; Reason::COUNT], reason: Reason) {
    if let Some(cell) = cells.get(reason.index()) {
        cell.add(1);
    }
}

/// Counts of one backend on one worker.
#[derive(Debug, Default)]
pub(crate) struct BackendCells {
    /// Requests, connections or flows sent there; each attempt counts.
    pub(crate) attempts: Counter,
    pub(crate) connects: Counter,
    pub(crate) errors: [Counter; Reason::COUNT],
    /// From the choice of an endpoint to the head of its answer.
    pub(crate) latency: Histogram,
}

impl BackendCells {
    pub(crate) fn fail(&self, reason: Reason) {
        count(&self.errors, reason);
    }
}

/// Counts of one worker that belong to no listener.
#[derive(Debug, Default)]
pub(crate) struct WorkerCells {
    /// Connections admitted, of all binds; the difference is what is open now.
    pub(crate) opened: Counter,
    pub(crate) closed: Counter,
    pub(crate) accept_errors: Counter,
    /// Connections and datagrams to an address and port without a bind.
    pub(crate) strays: Counter,
    pub(crate) unmatched_sni: Counter,
    pub(crate) log_lines: Counter,
    pub(crate) log_lines_dropped: Counter,
}
