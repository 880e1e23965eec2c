//! What the API server does to an object it is given: converts its version, drops nulls, sets defaults, rejects what
//! the schema or a rule forbids.
//!
//! The schemas are data (`schema/`); what the built-in kinds check in code is in [`core`]. Knows single
//! objects only: whether a name that is referred to exists is for `translate`.

mod compile;
mod core;
mod names;
mod validate;

use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value};

use crate::yaml::Step;

pub(crate) use self::compile::Schema;
pub(crate) use self::names::is_dns1123_subdomain;

/// Why the API server would refuse an object, where, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) path: Vec<Step>,
    /// What is wrong, without the place.
    pub(crate) what: String,
    /// What to write instead. Empty where `what` says it already.
    pub(crate) fix: String,
}

/// One kind with all its served versions.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) group: String,
    pub(crate) name: String,
    pub(crate) namespaced: bool,
    versions: Vec<(String, Arc<Schema>)>,
}

struct Vendored {
    group: &'static str,
    kind: &'static str,
    text: &'static str,
    loaded: OnceLock<Kind>,
}

/// Kinds of ours: their schemas are Rust values, the same that the API server gets.
static OWN: OnceLock<Vec<Kind>> = OnceLock::new();

fn own() -> &'static [Kind] {
    OWN.get_or_init(|| {
        let kind = |crd: &Value| match compile::definition(crd) {
            Ok(kind) => kind,
            // A test compiles every one of them.
            Err(error) => unreachable!("schema of {}: {error}", crd["metadata"]["name"]),
        };
        pierhead_api::crds().iter().map(kind).collect()
    })
}

/// A kind of any origin. Its schema is compiled when first asked for.
fn known(group: &str, name: &str) -> Option<&'static Kind> {
    let vendored = VENDORED.iter().find(|v| v.group == group && v.kind == name);
    vendored
        .map(Vendored::kind)
        .or_else(|| own().iter().find(|kind| kind.group == group && kind.name == name))
}

macro_rules! vendored {
    ($($group:literal $kind:literal $file:literal,)*) => {
        /// Every kind we read. A schema is compiled when its first object comes.
        static VENDORED: [Vendored; 18] = [$(Vendored {
            group: $group,
            kind: $kind,
            text: include_str!(concat!("../../schema/", $file, ".json")),
            loaded: OnceLock::new(),
        },)*];
    };
}

vendored! {
    "gateway.networking.k8s.io" "GatewayClass" "gatewayclass",
    "gateway.networking.k8s.io" "Gateway" "gateway",
    "gateway.networking.k8s.io" "ListenerSet" "listenerset",
    "gateway.networking.k8s.io" "HTTPRoute" "httproute",
    "gateway.networking.k8s.io" "GRPCRoute" "grpcroute",
    "gateway.networking.k8s.io" "TLSRoute" "tlsroute",
    "gateway.networking.k8s.io" "TCPRoute" "tcproute",
    "gateway.networking.k8s.io" "UDPRoute" "udproute",
    "gateway.networking.k8s.io" "ReferenceGrant" "referencegrant",
    "gateway.networking.k8s.io" "BackendTLSPolicy" "backendtlspolicy",
    "certificates.k8s.io" "ClusterTrustBundle" "clustertrustbundle",
    "networking.k8s.io" "Ingress" "ingress",
    "networking.k8s.io" "IngressClass" "ingressclass",
    "discovery.k8s.io" "EndpointSlice" "endpointslice",
    "" "Service" "service",
    "" "Secret" "secret",
    "" "ConfigMap" "configmap",
    "" "Namespace" "namespace",
}

static OBJECT_META: Vendored = Vendored {
    group: "",
    kind: "ObjectMeta",
    text: include_str!("../../schema/objectmeta.json"),
    loaded: OnceLock::new(),
};

impl Vendored {
    fn kind(&self) -> &Kind {
        self.loaded.get_or_init(|| match compile::kind(self.text) {
            Ok(kind) => kind,
            // The files are part of the program, and a test compiles every one of them.
            Err(error) => unreachable!("vendored schema of {}: {error}", self.kind),
        })
    }
}

/// What `apiVersion` and `kind` name.
pub(crate) enum Found {
    /// Ours, in a served version.
    Kind(&'static Kind, Arc<Schema>),
    /// Ours, but that version is not served; those that are.
    Version(Vec<String>),
    /// Not ours: another group or kind.
    Other,
}

/// Looks a kind up by `apiVersion` (`group/version`, or `version` alone for the core group) and `kind`.
pub(crate) fn find(api_version: &str, kind: &str) -> Found {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let Some(kind) = known(group, kind) else {
        return Found::Other;
    };
    match kind.versions.iter().find(|(name, _)| name == version) {
        Some((_, schema)) => Found::Kind(kind, Arc::clone(schema)),
        None => Found::Version(
            kind.versions
                .iter()
                .map(|(name, _)| format!("{group}/{name}"))
                .collect(),
        ),
    }
}

/// The group a kind of ours has, for those who name the kind with another group.
pub(crate) fn group_of(kind: &str) -> Option<&'static str> {
    let vendored = VENDORED.iter().find(|v| v.kind == kind).map(|v| v.group);
    vendored.or_else(|| own().iter().find(|own| own.name == kind).map(|own| &*own.group))
}

impl Kind {
    /// The version that objects are read in: `v1`, or the newest where there is none yet.
    fn version(&self) -> &str {
        let v1 = self.versions.iter().find(|(name, _)| name == "v1");
        v1.or_else(|| self.versions.last()).map_or("v1", |(name, _)| name)
    }

    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version().to_owned()
        } else {
            format!("{}/{}", self.group, self.version())
        }
    }
}

/// Makes `object` what the API server would store in version `v1`, or says everything it would refuse it for.
///
/// `status` is dropped: it is written by controllers, not by users.
pub(crate) fn admit(kind: &Kind, schema: &Schema, object: &mut Map<String, Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    object.shift_remove("status");
    object.insert("apiVersion".into(), Value::String(kind.api_version()));
    let kind_value = object.shift_remove("kind");
    let api_version = object.shift_remove("apiVersion");
    let mut metadata = object
        .shift_remove("metadata")
        .unwrap_or_else(|| Value::Object(Map::new()));

    names::metadata(kind, &mut metadata, meta_schema(), &mut found);
    let mut body = Value::Object(std::mem::take(object));
    validate::visit(schema, &mut body, &mut Vec::new(), &mut found);
    if found.is_empty() {
        core::check(&kind.name, &metadata, &mut body, &mut found);
    }
    if kind.name == "Namespace" {
        names::label_namespace(&mut metadata);
    }
    // Kubernetes' order, for people who read a dump.
    let mut whole = Map::new();
    whole.extend(api_version.map(|value| ("apiVersion".to_owned(), value)));
    whole.extend(kind_value.map(|value| ("kind".to_owned(), value)));
    whole.insert("metadata".into(), metadata);
    if let Value::Object(body) = body {
        whole.extend(body);
    }
    *object = whole;
    found
}

/// How `apiVersion` is written for a kind that [`group_of`] knows.
pub(crate) fn api_version(group: &str, kind: &str) -> String {
    known(group, kind).map_or_else(|| group.to_owned(), Kind::api_version)
}

fn meta_schema() -> &'static Schema {
    &OBJECT_META.kind().versions[0].1
}

/// `spec.rules[0].matches`, as people write places.
pub(crate) fn path_text(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Field(name) if name.contains(['.', '/', '[']) => text.push_str(&format!("[{name:?}]")),
            Step::Field(name) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(name);
            }
            Step::Item(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

#[cfg(test)]
mod tests;
