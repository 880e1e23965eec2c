use std::sync::Arc;

use serde::Serialize;

use crate::{
    Backend, BackendId, Bind, BindKey, Certificate, CertificateId, Endpoints, EndpointsId, Fleet, FleetId, HttpRoute,
    Map, OwnedPrefix, Ownership, RouteId, TrustAnchors, TrustId,
};

/// One complete configuration of a node.
///
/// Invariants (kept by `translate`): every id that is named exists here; a backend that cannot be used is present as
/// `Invalid`; a certificate that cannot be used is not referenced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    pub binds: Map<BindKey, Arc<Bind>>,
    pub routes: Map<RouteId, Arc<HttpRoute>>,
    pub backends: Map<BackendId, Arc<Backend>>,
    pub endpoints: Map<EndpointsId, Arc<Endpoints>>,
    pub certificates: Map<CertificateId, Arc<Certificate>>,
    pub trust: Map<TrustId, Arc<TrustAnchors>>,
    /// Addresses made local by a route while they stand here.
    pub owned: Map<OwnedPrefix, Ownership>,
    /// All nodes, where there are several: one entry, or none.
    pub fleet: Map<FleetId, Arc<Fleet>>,
}
