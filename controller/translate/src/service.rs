//! Services that are made for Gateways and IngressClasses.

use k8s_openapi::api::core::v1::Service;
use pierhead_model::Origin;
use serde::Serialize;

/// Label and value of every Service that we make.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "pierhead");

/// A Service that is to be in the cluster: all of the fields that are ours, to be written by server-side apply.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DesiredService {
    /// What it is made for: a Gateway or an IngressClass. Owner references stand in the Service where they are possible (an
    /// owner is cluster-scoped or in the same namespace).
    pub owner: Origin,
    pub service: Service,
}
