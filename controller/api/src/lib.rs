//! Our own custom resources (group `pierhead.dev`), one kind per file, and the schemas that the API server checks them by.
//!
//! A kind's file holds its types, its defaults, its schema and what the schema cannot say: [`gateway_parameters::Addresses`] is
//! a parsed value that cannot be wrong. Knows Kubernetes' envelope (metadata, resource constants) and nothing of ours.

mod cidr;
pub mod client_address;
pub mod gateway_parameters;

pub use gateway_parameters::GatewayParameters;
use serde_json::{Value, json};

/// API group of every type here.
pub const GROUP: &str = "pierhead.dev";

/// Every CustomResourceDefinition of ours, as `kubectl apply` takes it. A release writes them to `controller/deploy/`.
pub fn crds() -> Vec<Value> {
    vec![gateway_parameters::crd()]
}

/// A namespaced kind with one version and a status that we do not use.
fn definition((kind, plural, short): (&str, &str, &str), version: &str, schema: Value, columns: Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{GROUP}")},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": format!("{kind}List"),
                "plural": plural,
                "singular": kind.to_ascii_lowercase(),
                "shortNames": [short],
                "categories": ["gateway-api"],
            },
            "versions": [{
                "name": version,
                "served": true,
                "storage": true,
                "additionalPrinterColumns": columns,
                "schema": {"openAPIV3Schema": schema},
            }],
        },
    })
}
