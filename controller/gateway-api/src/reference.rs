//! References from one object to another.

use serde::{Deserialize, Serialize};

use crate::open_enum::open_enum;

open_enum! {
    /// Whether a Gateway takes routes that name no Gateway, and whether a route wants one (GEP-3793, experimental).
    GatewayDefaultScope {
        All = "All",
        None = "None",
    }
}

pub(crate) fn group() -> String {
    crate::GROUP.to_owned()
}

pub(crate) fn gateway() -> String {
    "Gateway".to_owned()
}

fn service() -> String {
    "Service".to_owned()
}

fn secret() -> String {
    "Secret".to_owned()
}

fn one() -> u32 {
    1
}

/// Where a route wants to attach: a Gateway, a ListenerSet, or a section of one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentReference {
    #[serde(default = "group")]
    pub group: String,
    #[serde(default = "gateway")]
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// The Gateway a ListenerSet belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ParentGatewayReference {
    #[serde(default = "group")]
    pub group: String,
    #[serde(default = "gateway")]
    pub kind: String,
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// Something that traffic can be sent to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BackendObjectReference {
    #[serde(default)]
    pub group: String,
    #[serde(default = "service")]
    pub kind: String,
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// A [`BackendObjectReference`] with its share of the traffic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BackendRef {
    #[serde(flatten)]
    pub object: BackendObjectReference,
    #[serde(default = "one")]
    pub weight: u32,
}

/// A Secret, in most cases.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SecretObjectReference {
    #[serde(default)]
    pub group: String,
    #[serde(default = "secret")]
    pub kind: String,
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ObjectReference {
    pub group: String,
    pub kind: String,
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LocalObjectReference {
    pub group: String,
    pub kind: String,
    pub name: String,
}

/// Parameters of a GatewayClass.
pub type ParametersReference = ObjectReference;

/// Parameters of a Gateway.
pub type LocalParametersReference = LocalObjectReference;
