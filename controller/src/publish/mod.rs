//! Snapshots on their way to the nodes.
//!
//! One [`Catalog`] holds the resources of the current snapshot, encoded once for all nodes, and remembers what changed
//! when. A [`Session`] is one node's stream, as a value: what it has, what it has not answered yet. A node that is slow is
//! sent, once it has answered, whatever changed meanwhile as one response. The rest of this room does the I/O.

mod catalog;
mod server;
mod session;
mod stream;
mod tls;

use std::sync::Arc;

use pierhead_model::Snapshot;

pub use server::{Publisher, PublisherError};

/// A snapshot with the number by which nodes acknowledge it. Numbers grow; they mean something at this controller only.
#[derive(Clone, Debug)]
pub struct Numbered {
    /// From 1.
    pub version: u64,
    pub snapshot: Arc<Snapshot>,
}
