use std::{net::IpAddr, sync::Arc};

use serde::Serialize;

use crate::FleetId;

/// Nodes that have the same snapshot and may be given each other's packets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fleet {
    pub id: FleetId,
    /// Of the hash by which each of them chooses the same endpoint for the same flow. Not known to clients, who could choose
    /// flows by it.
    pub seed: u64,
    /// Sorted by name, distinct.
    pub nodes: Vec<FleetNode>,
}

/// A node that serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FleetNode {
    /// As [`Endpoint::node`](crate::Endpoint::node) calls it.
    pub name: Arc<str>,
    /// By which the other nodes reach it. Sorted, distinct.
    pub addresses: Vec<IpAddr>,
}
