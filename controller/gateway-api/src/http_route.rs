//! HTTPRoute.

use serde::{Deserialize, Serialize};

use crate::{
    BackendRef, Duration, GatewayDefaultScope, HTTPRouteFilter, ParentReference, SessionPersistence,
    open_enum::open_enum, resource::resource,
};

resource! {
    HTTPRoute { HTTPRouteSpec, "httproutes", NamespaceResourceScope }
}

open_enum! {
    PathMatchType {
        Exact = "Exact",
        PathPrefix = "PathPrefix",
        RegularExpression = "RegularExpression",
    }
    /// How a header, a query parameter or a gRPC method is compared.
    MatchType {
        Exact = "Exact",
        RegularExpression = "RegularExpression",
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HTTPRouteSpec {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parent_refs: Vec<ParentReference>,
    /// GEP-3793, experimental.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub use_default_gateways: Option<GatewayDefaultScope>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<String>,
    /// Absent: one rule that matches every path.
    #[serde(default = "one_rule")]
    pub rules: Vec<HTTPRouteRule>,
}

fn one_rule() -> Vec<HTTPRouteRule> {
    vec![HTTPRouteRule {
        matches: one_match(),
        ..HTTPRouteRule::default()
    }]
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HTTPRouteRule {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Alternatives. Absent: every path.
    #[serde(default = "one_match")]
    pub matches: Vec<HTTPRouteMatch>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<HTTPRouteFilter>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backend_refs: Vec<HTTPBackendRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<HTTPRouteTimeouts>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<HTTPRouteRetry>,
    /// GEP-1619, experimental, deprecated in favour of XBackend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_persistence: Option<SessionPersistence>,
}

fn one_match() -> Vec<HTTPRouteMatch> {
    vec![HTTPRouteMatch::default()]
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HTTPRouteMatch {
    #[serde(default)]
    pub path: HTTPPathMatch,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HTTPHeaderMatch>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub query_params: Vec<HTTPQueryParamMatch>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HTTPPathMatch {
    #[serde(rename = "type", default = "path_prefix")]
    pub kind: PathMatchType,
    #[serde(default = "root")]
    pub value: String,
}

fn path_prefix() -> PathMatchType {
    PathMatchType::PathPrefix
}

fn root() -> String {
    "/".to_owned()
}

impl Default for HTTPPathMatch {
    fn default() -> Self {
        Self {
            kind: path_prefix(),
            value: root(),
        }
    }
}

pub(crate) fn exact() -> MatchType {
    MatchType::Exact
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HTTPHeaderMatch {
    #[serde(rename = "type", default = "exact")]
    pub kind: MatchType,
    pub name: String,
    pub value: String,
}

/// The same fields as a header match; names are case-sensitive.
pub type HTTPQueryParamMatch = HTTPHeaderMatch;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HTTPBackendRef {
    #[serde(flatten)]
    pub backend: BackendRef,
    /// Run when this backend was chosen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<HTTPRouteFilter>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HTTPRouteTimeouts {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Duration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_request: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HTTPRouteRetry {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub codes: Vec<u16>,
    /// Further attempts after the first.
    #[serde(default = "one_attempt")]
    pub attempts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Duration>,
}

fn one_attempt() -> u32 {
    1
}
