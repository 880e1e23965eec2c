use std::{net::SocketAddr, time::Duration};

use pierhead_model::{BackendId, BindKey, CertificateId, DataPath, DataPathReport, ListenerId};
use serde::Serialize;

/// What became of a snapshot. It is in force when this is returned, except for the binds reported with `DataPath::None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ApplyReport {
    /// Counts applied snapshots that differ, from 1.
    pub generation: u64,
    /// One per bind of the snapshot, in its order.
    pub binds: Vec<DataPathReport>,
    /// Certificates that cannot be used, and why. What they were before is used in their place, if there was something.
    pub unusable: Vec<(CertificateId, String)>,
}

impl ApplyReport {
    /// Whether every bind is served.
    pub fn is_complete(&self) -> bool {
        self.binds.iter().all(|bind| bind.path != DataPath::None)
    }
}

/// The data plane as it is now, for people and for `pierhead status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    pub generation: u64,
    pub workers: usize,
    pub draining: bool,
    pub binds: Vec<BindStatus>,
    pub backends: Vec<BackendStatus>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BindStatus {
    pub bind: BindKey,
    pub path: DataPath,
    /// Empty when all is well.
    pub why: String,
    pub listeners: Vec<ListenerStatus>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListenerStatus {
    pub listener: ListenerId,
    /// Streams or UDP sessions open now. HTTP: the connections of the whole Gateway, which belong to no one listener.
    pub connections: u64,
    /// Requests since the start of the process.
    pub requests: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackendStatus {
    pub backend: BackendId,
    /// Why it cannot be used; empty when it can.
    pub problem: String,
    pub endpoints: Vec<EndpointStatus>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EndpointStatus {
    pub address: SocketAddr,
    /// False while it drains: it keeps what it has and gets nothing new unless nothing else is ready.
    pub ready: bool,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct DrainReport {
    /// Connections that were still open at the deadline and were cut.
    pub cut: u64,
    pub took: Duration,
}
