//! The control plane's own threads: they never run on a worker's.

use anyhow::{Context, Result};
use tokio::runtime::{Builder, Runtime};

/// One thread for what waits, beside the main one, which may block for as long as a change takes to apply.
pub(crate) fn runtime() -> Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("control")
        .max_blocking_threads(4)
        .enable_all()
        .build()
        .context("cannot start the control runtime")
}
