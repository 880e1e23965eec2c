//! The data plane: executes a [`pierhead_model::Snapshot`] on real connections.
//!
//! Thread per core: every worker owns its sockets, tasks, pools and metric cells; what they share is one `Arc<Runtime>` (a
//! compiled snapshot), swapped as a whole. This crate knows nothing of Kubernetes and nothing of eBPF: how connections
//! reach its sockets ([`AcceptMode`]) is decided by whoever starts it.

mod accept;
mod config;
mod conn;
mod control;
mod dataplane;
mod dns;
mod error;
mod http;
mod observe;
mod report;
mod runtime;
mod steer;
mod tcp;
mod tls;
mod udp;
mod upstream;
mod worker;

pub use config::{AcceptMode, AccessLog, Config, WorkerLoads};
pub use dataplane::Dataplane;
pub use error::{BindError, StartError};
pub use report::{ApplyReport, BackendStatus, BindStatus, DrainReport, EndpointStatus, ListenerStatus, Status};
pub use steer::WorkerSockets;
