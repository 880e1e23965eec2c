//! The control plane's own threads: they never run on a worker's.

use anyhow::{Context, Result};
use tokio::runtime::{Builder, Runtime};

/// How much the threads of the control plane let others go first, as in `nice(2)`. A worker that wakes beside one of them
/// runs at once; alone on a core they lose nothing.
const NICE: i32 = 10;

/// One thread for what waits, beside the main one, which may block for as long as a change takes to apply. Neither keeps others
/// from its core for as long.
pub(crate) fn runtime() -> Result<Runtime> {
    shorten_slices();
    start(&mut builder())
}

/// The same in a process with workers, which go first.
pub(crate) fn runtime_beside_workers() -> Result<Runtime> {
    start(builder().on_thread_start(step_back))
}

fn start(builder: &mut Builder) -> Result<Runtime> {
    builder.build().context("cannot start the control runtime")
}

fn builder() -> Builder {
    let mut builder = Builder::new_multi_thread();
    builder
        .worker_threads(1)
        .thread_name("control")
        .max_blocking_threads(4)
        .enable_all();
    builder
}

/// Lets the threads that serve go before the calling one, and before those that it starts from now on.
pub(crate) fn step_back() {
    shorten_slices();
    let process = rustix::process::getpriority_process(None);
    if process.is_ok_and(|nice| nice < NICE) {
        // Without it everything works, only not as evenly.
        let _ = rustix::process::setpriority_process(None, NICE);
    }
}

/// Lets others on this core not wait for a translation, or whatever else takes milliseconds, to come to an end.
fn shorten_slices() {
    // Without it everything works, as before Linux 6.12.
    let _ = pierhead_kernel::shorten_slices();
}
