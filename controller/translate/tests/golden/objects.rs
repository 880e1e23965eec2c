//! Documents of YAML as objects of a world.

use std::sync::Arc;

use k8s_openapi::Resource;
use pierhead_translate::World;
use saphyr::{LoadableYamlNode as _, Scalar, Yaml};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

pub(crate) fn documents(text: &str) -> Result<Vec<Value>, String> {
    let parsed = Yaml::load_from_str(text).map_err(|e| e.to_string())?;
    parsed.iter().filter(|d| !d.is_null()).map(json).collect()
}

fn json(yaml: &Yaml<'_>) -> Result<Value, String> {
    Ok(match yaml {
        Yaml::Value(Scalar::Null) => Value::Null,
        Yaml::Value(Scalar::Boolean(value)) => (*value).into(),
        Yaml::Value(Scalar::Integer(value)) => (*value).into(),
        Yaml::Value(Scalar::FloatingPoint(value)) => value.into_inner().into(),
        Yaml::Value(Scalar::String(value)) => value.as_ref().into(),
        Yaml::Sequence(items) => Value::Array(items.iter().map(json).collect::<Result<_, _>>()?),
        Yaml::Mapping(entries) => {
            let mut map = Map::new();
            for (key, value) in entries {
                let key = match json(key)? {
                    Value::String(text) => text,
                    other => other.to_string(),
                };
                map.insert(key, json(value)?);
            }
            Value::Object(map)
        }
        Yaml::Tagged(_, inner) => json(inner)?,
        other => return Err(format!("unexpected YAML: {other:?}")),
    })
}

/// Puts one document into the world; a namespaced one without namespace is in `default`.
pub(crate) fn put(world: &mut World, document: Value) -> Result<(), String> {
    let kind = document
        .get("kind")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let named = |field: &str| {
        document
            .pointer(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let (namespace, name) = (named("/metadata/namespace"), named("/metadata/name"));
    macro_rules! kinds {
        ($($field:ident $scope:ident),* $(,)?) => {
            $(if kind == kind_of(&world.$field) {
                let namespace = if stringify!($scope) == "namespaced" && namespace.is_empty() { "default" } else { &namespace };
                let object = Arc::new(read(&kind, namespace, document)?);
                world.$field.insert(namespace, &name, object);
                return Ok(());
            })*
        };
    }
    kinds!(
        backend_tls_policies namespaced,
        cluster_trust_bundles cluster,
        config_maps namespaced,
        endpoint_slices namespaced,
        gateway_classes cluster,
        gateway_parameters namespaced,
        gateways namespaced,
        grpc_routes namespaced,
        http_routes namespaced,
        ingress_classes cluster,
        ingresses namespaced,
        listener_sets namespaced,
        namespaces cluster,
        reference_grants namespaced,
        secrets namespaced,
        services namespaced,
        tcp_routes namespaced,
        tls_routes namespaced,
        udp_routes namespaced,
    );
    Err(format!("a document of kind {kind:?}"))
}

fn kind_of<T: Resource>(_: &pierhead_translate::Objects<T>) -> &'static str {
    T::KIND
}

fn read<T: Resource + DeserializeOwned>(kind: &str, namespace: &str, mut document: Value) -> Result<T, String> {
    if !document["metadata"].is_object() {
        return Err(format!("{kind} without metadata"));
    }
    document["apiVersion"] = T::API_VERSION.into();
    if !namespace.is_empty() {
        document["metadata"]["namespace"] = namespace.into();
    }
    let name = document["metadata"]["name"].clone();
    serde_json::from_value(document).map_err(|e| format!("{kind} {name}: {e}"))
}
