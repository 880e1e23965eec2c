use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;

use crate::{
    Backend, BackendId, Bind, BindKey, Certificate, CertificateId, Endpoints, EndpointsId, HttpRoute, OwnedPrefix,
    Ownership, RouteId, TrustAnchors, TrustId,
};

/// One complete configuration of a node.
///
/// Invariants (kept by `translate`): every id that is named exists here; a backend that cannot be used is present as
/// `Invalid`; a certificate that cannot be used is not referenced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    pub binds: BTreeMap<BindKey, Arc<Bind>>,
    pub routes: BTreeMap<RouteId, Arc<HttpRoute>>,
    pub backends: BTreeMap<BackendId, Arc<Backend>>,
    pub endpoints: BTreeMap<EndpointsId, Arc<Endpoints>>,
    pub certificates: BTreeMap<CertificateId, Arc<Certificate>>,
    pub trust: BTreeMap<TrustId, Arc<TrustAnchors>>,
    /// Addresses made local by a route while they stand here.
    pub owned: BTreeMap<OwnedPrefix, Ownership>,
}
