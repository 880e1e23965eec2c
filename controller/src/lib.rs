//! The control plane as a library: read or watch objects, translate them, publish what changed.
//!
//! Knows Kubernetes; knows nothing of sockets, packets or requests. It meets the data plane only in
//! `pierhead_model`.

mod allocations;
mod backoff;
mod cel;
pub mod cluster;
mod counters;
mod events;
pub mod files;
mod gather;
pub mod identity;
mod lease;
pub mod nodes;
pub mod publish;
mod published;
pub mod run;
mod schema;
mod services;
mod status;
mod yaml;

pub use counters::{CounterValues, Counters};
pub use published::Published;

pub use pierhead_translate::{ObjectName, Settings, Statuses, Translation, World, translate};
