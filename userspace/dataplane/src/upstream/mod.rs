//! Where requests go: compiled backends, the choice of an endpoint, pooled connections, TLS towards backends.
//!
//! Knows nothing of routes and policies: whoever asks has chosen a backend already.

mod backends;
mod connect;
mod exchange;
mod heard;
mod http1;
mod http2;
mod pool;
mod tls;
mod weighted;

pub(crate) use backends::{Backend, Backends, Resolved};
pub(crate) use connect::{ConnectError, Connected, connect};
pub(crate) use exchange::Upstream;
pub(crate) use http1::{Came, Http1Exchange};
pub(crate) use http2::{Http2Exchange, OpenError};
pub(crate) use pool::{Lease, Pool};
pub(crate) use weighted::Weighted;
