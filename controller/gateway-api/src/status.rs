//! What we write into objects. [`Condition`]s compare without their time.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};

use crate::{ParentReference, open_enum::open_enum};

open_enum! {
    ConditionStatus {
        True = "True",
        False = "False",
        Undecided = "Unknown",
    }
}

/// `metav1.Condition`. Equality ignores `last_transition_time`, which only the moment of writing knows.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: ConditionStatus,
    pub reason: String,
    #[serde(default)]
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
}

impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        (
            &self.kind,
            &self.status,
            &self.reason,
            &self.message,
            self.observed_generation,
        ) == (
            &other.kind,
            &other.status,
            &other.reason,
            &other.message,
            other.observed_generation,
        )
    }
}

impl Eq for Condition {}

/// What one controller says about one parent of a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteParentStatus {
    pub parent_ref: ParentReference,
    pub controller_name: String,
    pub conditions: Vec<Condition>,
}

/// Status of every route kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteStatus {
    pub parents: Vec<RouteParentStatus>,
}

/// What one controller says about one ancestor (a Gateway, for us) of a policy's target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyAncestorStatus {
    pub ancestor_ref: ParentReference,
    pub controller_name: String,
    pub conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStatus {
    pub ancestors: Vec<PolicyAncestorStatus>,
}
