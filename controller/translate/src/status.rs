//! What is to be written into the objects' `status`.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::IngressStatus;
use serde::Serialize;

use crate::ObjectName;

/// One entry for each object that is ours; the status of an object that stopped being ours is the writer's to clear.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Statuses {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub ingresses: BTreeMap<ObjectName, IngressStatus>,
}
