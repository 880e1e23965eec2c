use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use pierhead_model::{DataPath, DataPathReport, Snapshot};

use crate::{ApplyReport, Config, DrainReport, StartError, Status, WorkerSockets};

/// A running data plane: worker threads, their sockets, and the snapshot they execute.
///
/// All methods may be called from any thread, inside or outside an async runtime; `apply` compiles and opens sockets on
/// the calling thread (milliseconds). Dropping it stops the workers at once; `drain` first ends gracefully.
#[derive(Debug)]
pub struct Dataplane {
    config: Config,
    generation: AtomicU64,
    snapshot: ArcSwap<Snapshot>,
}

impl Dataplane {
    /// Starts the workers. They serve nothing before the first [`Self::apply`].
    ///
    /// # Errors
    /// When threads, steered sockets or the access log cannot be had.
    pub fn start(config: Config) -> Result<Self, StartError> {
        Ok(Self {
            config,
            generation: AtomicU64::new(0),
            snapshot: ArcSwap::default(),
        })
    }

    /// Compiles `snapshot`, opens and closes sockets (bound mode), and puts it in force at once for all workers. Parts
    /// that did not change are taken over, and so are the connections they serve.
    pub fn apply(&self, snapshot: Arc<Snapshot>) -> ApplyReport {
        let binds = snapshot
            .binds
            .keys()
            .map(|bind| DataPathReport {
                bind: *bind,
                path: DataPath::None,
                why: "not written yet".to_owned(),
            })
            .collect();
        self.snapshot.store(snapshot);
        ApplyReport {
            generation: self.generation.fetch_add(1, Ordering::Relaxed) + 1,
            binds,
        }
    }

    /// The sockets to register for steering, one entry per worker; empty in bound mode.
    pub fn steered_sockets(&self) -> Vec<WorkerSockets> {
        Vec::new()
    }

    /// All metrics in the Prometheus text format (`text/plain; version=0.0.4`).
    pub fn metrics(&self) -> String {
        String::new()
    }

    /// What is served now; a bind that was reported as failed appears healthy here once a retry succeeds.
    pub fn status(&self) -> Status {
        Status {
            generation: self.generation.load(Ordering::Relaxed),
            workers: self.config.workers.get(),
            ..Status::default()
        }
    }

    /// Stops accepting, lets what is in flight finish (HTTP/1 `connection: close`, HTTP/2 GOAWAY), and cuts what is left
    /// after `deadline`. Blocks the calling thread.
    pub fn drain(&self, deadline: Duration) -> DrainReport {
        DrainReport {
            cut: 0,
            took: deadline.min(Duration::ZERO),
        }
    }
}
