use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use crate::observe::PerWorker;

/// Connections open at once for one Gateway, on all workers. The same gauge as long as the Gateway exists, so a changed
/// limit counts what is open already.
#[derive(Debug)]
pub(crate) struct Gauge {
    open: AtomicU32,
    handshakes: PerWorker<AtomicU32>,
}

impl Gauge {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            open: AtomicU32::new(0),
            handshakes: PerWorker::new(workers),
        }
    }

    /// One more TLS handshake in flight on a worker, unless there are `limit` already.
    pub(crate) fn handshake(self: &Arc<Self>, worker: usize, limit: u32) -> Option<Handshake> {
        let before = self.handshakes.of(worker).fetch_add(1, Ordering::Relaxed);
        let slot = Handshake(Arc::clone(self), worker);
        (before < limit).then_some(slot)
    }

    pub(crate) fn open(&self) -> u32 {
        self.open.load(Ordering::Relaxed)
    }

    /// One more, unless there are `limit` already.
    pub(crate) fn enter(self: &Arc<Self>, limit: u32) -> Option<Slot> {
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        // Made before the comparison, so that a refusal gives back what was added.
        let slot = Slot(Arc::clone(self));
        (before < limit).then_some(slot)
    }
}

/// One open connection; leaving scope counts it out.
#[derive(Debug)]
pub(crate) struct Slot(Arc<Gauge>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One handshake in flight; leaving scope counts it out.
#[derive(Debug)]
pub(crate) struct Handshake(Arc<Gauge>, usize);

impl Drop for Handshake {
    fn drop(&mut self) {
        self.0.handshakes.of(self.1).fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_given_back_also_by_a_refusal() {
        let gauge = Arc::new(Gauge::new(1));
        let first = gauge.enter(2);
        let second = gauge.enter(2);
        assert!(first.is_some() && second.is_some());
        assert!(gauge.enter(2).is_none());
        assert_eq!(gauge.open(), 2);
        drop(first);
        assert!(gauge.enter(2).is_some());
        assert_eq!(gauge.open(), 1);
    }
}
