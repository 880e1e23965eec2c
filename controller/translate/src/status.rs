//! What is to be written into the objects' `status`.

use std::sync::Arc;

use k8s_openapi::api::networking::v1::IngressStatus;
use pierhead_gateway_api::{GatewayClassStatus, GatewayStatus, ListenerSetStatus, PolicyStatus, RouteStatus};
use pierhead_model::Map;
use serde::Serialize;

use crate::ObjectName;

/// One entry for each object that is ours; the status of an object that stopped being ours is the writer's to clear.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Statuses {
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub ingresses: Map<ObjectName, IngressStatus>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub gateway_classes: Map<ObjectName, GatewayClassStatus>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub gateways: Map<ObjectName, GatewayStatus>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub listener_sets: Map<ObjectName, ListenerSetStatus>,
    /// Of the routes' parents only ours are here; `pierhead_gateway_api::merge` keeps those of other controllers. A route
    /// that has entries of ours in its present status and none any more is here with none.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub http_routes: Map<ObjectName, Arc<RouteStatus>>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub grpc_routes: Map<ObjectName, Arc<RouteStatus>>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub tls_routes: Map<ObjectName, Arc<RouteStatus>>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub tcp_routes: Map<ObjectName, Arc<RouteStatus>>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub udp_routes: Map<ObjectName, Arc<RouteStatus>>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub backend_tls_policies: Map<ObjectName, PolicyStatus>,
}
