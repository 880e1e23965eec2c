use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use pierhead_model::{BackendId, ListenerId};

use super::{BackendCells, ListenerCells, PerWorker, WorkerCells};

/// Owns every cell. Asked when a snapshot is compiled and when metrics are scraped, never by a request.
#[derive(Debug)]
pub(crate) struct Registry {
    workers: usize,
    worker: Arc<PerWorker<WorkerCells>>,
    series: Mutex<Series>,
}

#[derive(Debug, Default)]
struct Series {
    listeners: BTreeMap<ListenerId, Arc<PerWorker<ListenerCells>>>,
    backends: BTreeMap<BackendId, Arc<PerWorker<BackendCells>>>,
}

impl Registry {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            workers,
            worker: Arc::new(PerWorker::new(workers)),
            series: Mutex::default(),
        }
    }

    pub(crate) fn workers(&self) -> usize {
        self.workers
    }

    pub(crate) fn worker(&self) -> Arc<PerWorker<WorkerCells>> {
        Arc::clone(&self.worker)
    }

    /// The cells of a listener: the same ones as long as it exists.
    pub(crate) fn listener(&self, id: &ListenerId) -> Arc<PerWorker<ListenerCells>> {
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let cells = series.listeners.entry(id.clone());
        Arc::clone(cells.or_insert_with(|| Arc::new(PerWorker::new(self.workers))))
    }

    /// The cells of a backend: the same ones as long as it exists.
    pub(crate) fn backend(&self, id: &BackendId) -> Arc<PerWorker<BackendCells>> {
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let cells = series.backends.entry(id.clone());
        Arc::clone(cells.or_insert_with(|| Arc::new(PerWorker::new(self.workers))))
    }

    pub(crate) fn listeners(&self) -> Vec<(ListenerId, Arc<PerWorker<ListenerCells>>)> {
        let series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        series
            .listeners
            .iter()
            .map(|(id, cells)| (id.clone(), Arc::clone(cells)))
            .collect()
    }

    pub(crate) fn backends(&self) -> Vec<(BackendId, Arc<PerWorker<BackendCells>>)> {
        let series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        series
            .backends
            .iter()
            .map(|(id, cells)| (id.clone(), Arc::clone(cells)))
            .collect()
    }

    /// Forgets the listeners that nobody holds any more.
    pub(crate) fn prune_listeners(&self) {
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        series.listeners.retain(|_, cells| Arc::strong_count(cells) > 1);
    }

    /// The same for backends, which are many: worth it only where one was let go. How many are left.
    pub(crate) fn prune_backends(&self) -> usize {
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        series.backends.retain(|_, cells| Arc::strong_count(cells) > 1);
        series.backends.len()
    }
}
