//! A compiled snapshot: everything a connection must look up, ready to be asked.

mod attached;
mod binds;
mod compile;
mod gauge;
mod listener;

pub(crate) use binds::BindTable;
pub(crate) use compile::Compiler;
pub(crate) use gauge::{Gauge, Slot};
pub(crate) use listener::{BindRuntime, HttpSite, L4Target, ListenerRuntime, Protocol, SniTargets};

use std::sync::Arc;

use pierhead_model::Snapshot;

/// Compiled off the hot path, shared by all workers, never changed.
#[derive(Debug, Default)]
pub(crate) struct Runtime {
    pub(crate) generation: u64,
    /// Another for each that was compiled, also when only addresses of backends changed.
    pub(crate) version: u64,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) binds: BindTable,
}
