use std::sync::Arc;

use serde::Serialize;

use crate::{HostPattern, Origin, WeightedBackend};

/// The one rule of a TCPRoute, UDPRoute or TLSRoute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct L4Route {
    pub origin: Origin,
    /// Weights decide per connection (TCP, TLS) or per flow (UDP). All weights zero, or empty: refuse.
    pub backends: Vec<WeightedBackend>,
}

/// A TLSRoute's claim on server names. In a listener they are sorted, best first (original hostname's specificity,
/// then age, then namespace/name): the first that matches wins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SniRoute {
    pub host: HostPattern,
    pub route: Arc<L4Route>,
}
