//! The control plane as a library: read or watch objects, translate them, publish what changed.
//!
//! Knows Kubernetes; knows nothing of sockets, packets or requests. It meets the data plane only in
//! `pierhead_model`.

mod allocations;
mod cel;
pub mod files;
pub mod identity;
pub mod nodes;
pub mod publish;
mod schema;
mod yaml;

pub use pierhead_translate::{ObjectName, Settings, Statuses, Translation, World, translate};
