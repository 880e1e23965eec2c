//! One object of the API server: what `translate` reads of it, and what its status is now.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::DynamicObject;
use pierhead_translate::ObjectName;
use serde_json::{Map, Value, json};

use super::kinds::Source;
use crate::files::typed::Typed;

/// The name under which we write, in `metadata.managedFields`.
pub(crate) const FIELD_MANAGER: &str = "pierhead-controller";

/// What an object is to us.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) kind: &'static str,
    pub(crate) name: ObjectName,
    /// What it says, or why it cannot be read.
    pub(crate) typed: Result<Typed, String>,
    /// Only of kinds we write the status of.
    pub(crate) standing: Option<Standing>,
}

/// The state of an object that a write of its status starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Of the API, in which it was read.
    pub(crate) version: &'static str,
    pub(crate) uid: Arc<str>,
    pub(crate) resource_version: Arc<str>,
    pub(crate) generation: Option<i64>,
    /// JSON as read; a string is a fifth of the same as values.
    status: Option<Box<str>>,
    /// Something in its status was last written by us.
    pub(crate) ours: bool,
}

impl Standing {
    pub(crate) fn of(version: &'static str, metadata: &ObjectMeta, status: Option<&Value>) -> Self {
        let fields = metadata.managed_fields.iter().flatten();
        let ours = |entry: &&k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry| {
            entry.manager.as_deref() == Some(FIELD_MANAGER) && entry.subresource.as_deref() == Some("status")
        };
        Self {
            version,
            uid: metadata.uid.as_deref().unwrap_or_default().into(),
            resource_version: metadata.resource_version.as_deref().unwrap_or_default().into(),
            generation: metadata.generation,
            status: status
                .filter(|status| !status.is_null())
                .map(|status| status.to_string().into()),
            ours: fields.clone().any(|entry| ours(&entry)),
        }
    }

    pub(crate) fn status(&self) -> Option<Value> {
        // It was made of a value.
        serde_json::from_str(self.status.as_deref()?).ok()
    }

    /// Whether this is of a later write than `other`. Resource versions are ordered numbers (KEP-5504); where they are not,
    /// whatever arrived last counts.
    pub(crate) fn is_newer(&self, other: &Self) -> bool {
        match (
            self.resource_version.parse::<u64>(),
            other.resource_version.parse::<u64>(),
        ) {
            (Ok(own), Ok(other)) => own > other,
            _ => true,
        }
    }
}

/// Reads an object, and lets go of everything in it that nothing depends on.
pub(crate) fn read(source: &Source, version: &'static str, mut object: DynamicObject) -> Object {
    let name = ObjectName::of(&object.metadata);
    let mut fields = match object.data.take() {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    let standing = has_status(source.kind).then(|| {
        let status = fields.remove("status");
        if let Some(kept) = read_back(source.kind, status.as_ref()) {
            fields.insert("status".into(), kept);
        }
        Standing::of(version, &object.metadata, status.as_ref())
    });
    trim(source.kind, &mut fields);
    let typed = match serde_json::to_value(trimmed(source.kind, object.metadata)) {
        Ok(metadata) => {
            fields.insert("metadata".into(), metadata);
            Typed::parse(source.kind, Value::Object(fields)).map_err(|error| error.to_string())
        }
        Err(error) => Err(error.to_string()),
    };
    Object {
        kind: source.kind,
        name,
        typed,
        standing,
    }
}

/// Of a status that is ours to write, the part that is also read: addresses once given are kept.
fn read_back(kind: &str, status: Option<&Value>) -> Option<Value> {
    let field = match kind {
        "Gateway" => "addresses",
        "Ingress" => "loadBalancer",
        _ => return None,
    };
    Some(json!({field: status?.get(field)?}))
}

/// Whether the status of a kind is ours to write.
pub(crate) fn has_status(kind: &str) -> bool {
    matches!(
        kind,
        "BackendTLSPolicy" | "Gateway" | "GatewayClass" | "Ingress" | "ListenerSet"
    ) || kind.ends_with("Route")
}

fn trimmed(kind: &str, metadata: ObjectMeta) -> ObjectMeta {
    let annotations = metadata.annotations.filter(|_| !is_bulk(kind)).map(|mut annotations| {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        annotations
    });
    ObjectMeta {
        name: metadata.name,
        namespace: metadata.namespace,
        uid: metadata.uid,
        generation: metadata.generation,
        creation_timestamp: metadata.creation_timestamp,
        labels: metadata.labels,
        annotations: annotations.filter(|annotations| !annotations.is_empty()),
        ..ObjectMeta::default()
    }
}

/// Kinds of which there are many, and whose annotations say nothing to us; those of EndpointSlices change with every write.
fn is_bulk(kind: &str) -> bool {
    matches!(kind, "ConfigMap" | "EndpointSlice" | "Namespace" | "Secret")
}

/// The entries of Secrets and ConfigMaps that a certificate or trust can be in.
fn trim(kind: &str, fields: &mut Map<String, Value>) {
    let used: &[&str] = match kind {
        "ConfigMap" => &["ca.crt"],
        "Secret" => &["ca.crt", "tls.crt", "tls.key"],
        "Namespace" => {
            fields.remove("spec");
            fields.remove("status");
            return;
        }
        _ => return,
    };
    for field in ["data", "binaryData", "stringData"] {
        if let Some(Value::Object(entries)) = fields.get_mut(field) {
            entries.retain(|name, _| used.contains(&name.as_str()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> DynamicObject {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_nothing_depends_on_is_let_go_of() {
        let secret = object(json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": {"name": "s", "namespace": "n", "resourceVersion": "7", "annotations": {"a": "b"},
                "managedFields": [{"manager": "x"}], "ownerReferences": []},
            "data": {"password": "aHVudGVyMg==", "ca.crt": "AA=="}
        }));
        let read = read(Source::of("Secret").unwrap(), "v1", secret);
        let Ok(Typed::Secret(secret)) = read.typed else {
            panic!("{read:?}")
        };
        let keys: Vec<_> = secret.data.iter().flatten().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["ca.crt"]);
        assert_eq!(
            secret.metadata,
            ObjectMeta {
                name: Some("s".into()),
                namespace: Some("n".into()),
                ..ObjectMeta::default()
            }
        );
        assert!(read.standing.is_none());
    }

    #[test]
    fn a_status_is_kept_beside_the_object_as_it_came() {
        let status = json!({"parents": [{"controllerName": "x", "odd": [1.50, null]}]});
        let route = object(json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": "r", "namespace": "n", "uid": "u", "resourceVersion": "12", "generation": 3,
                "managedFields": [{"manager": FIELD_MANAGER, "operation": "Update", "subresource": "status"}]},
            "spec": {}, "status": status
        }));
        let read = read(Source::of("HTTPRoute").unwrap(), "v1", route);
        let Ok(Typed::HTTPRoute(route)) = &read.typed else {
            panic!("{read:?}")
        };
        assert_eq!(route.status, None);
        let standing = read.standing.unwrap();
        assert_eq!(standing.status(), Some(status));
        assert_eq!(
            (&*standing.resource_version, standing.generation, standing.ours),
            ("12", Some(3), true)
        );
    }

    #[test]
    fn of_a_gateways_status_its_addresses_are_read_back() {
        let gateway = object(json!({
            "metadata": {"name": "g", "namespace": "n", "resourceVersion": "12"},
            "spec": {"gatewayClassName": "c", "listeners": []},
            "status": {"addresses": [{"type": "IPAddress", "value": "10.0.0.1"}], "conditions": [{"type": "Programmed"}]}
        }));
        let Ok(Typed::Gateway(gateway)) = read(Source::of("Gateway").unwrap(), "v1", gateway).typed else {
            panic!("not read")
        };
        let kept = json!({"addresses": [{"type": "IPAddress", "value": "10.0.0.1"}]});
        assert_eq!(gateway.status, Some(kept));
    }

    #[test]
    fn a_malformed_object_is_a_message_not_an_error_of_the_list() {
        let route = object(json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": "r", "namespace": "n", "resourceVersion": "12"}, "spec": {"hostnames": 5}
        }));
        let read = read(Source::of("HTTPRoute").unwrap(), "v1", route);
        assert_eq!(read.name, ObjectName::new("n", "r"));
        assert!(read.typed.unwrap_err().contains("invalid type"));
    }

    #[test]
    fn versions_compare_as_numbers() {
        let standing = |version: &str| Standing {
            version: "v1",
            uid: "u".into(),
            resource_version: version.into(),
            generation: None,
            status: None,
            ours: false,
        };
        assert!(standing("10").is_newer(&standing("9")));
        assert!(!standing("10").is_newer(&standing("10")));
        assert!(standing("b").is_newer(&standing("a")) && standing("a").is_newer(&standing("b")));
    }
}
