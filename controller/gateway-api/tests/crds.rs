//! Holds the types to the CRDs of v1.7.0 (experimental channel, a superset of the standard one) and to every manifest of
//! the official conformance suite. An upgrade is new data and the properties this test then names.

use std::{fs, path::Path};

use k8s_openapi::Resource;
use pierhead_gateway_api::{
    BackendTLSPolicy, GRPCRoute, Gateway, GatewayClass, GatewayClassStatus, GatewayStatus, HTTPRoute, ListenerSet,
    ListenerSetStatus, PolicyStatus, ReferenceGrant, RouteStatus, TCPRoute, TLSRoute, UDPRoute,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

/// Property paths (`Kind.path`, lists as `[]`) that we leave out on purpose, with the reason beside each.
const IGNORED: &[&str] = &[];

fn data(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// An object with every property of the schema. Texts are as the schema's type and format demand; rules between fields
/// (unions, patterns) are not our business here.
fn probe(schema: &Value) -> Value {
    if let Some(first) = schema["enum"].as_array().and_then(|values| values.first()) {
        return first.clone();
    }
    match schema["type"].as_str() {
        Some("object") => {
            if let Some(properties) = schema["properties"].as_object() {
                return properties.iter().map(|(k, v)| (k.clone(), probe(v))).collect();
            }
            assert!(
                schema["additionalProperties"].is_object(),
                "an object without form: {schema}"
            );
            json!({ "key": probe(&schema["additionalProperties"]) })
        }
        Some("array") => json!([probe(&schema["items"])]),
        Some("string") if schema["format"] == "date-time" => json!("2026-11-23T12:00:00Z"),
        Some("string") => json!("text"),
        Some("integer") => json!(schema["maximum"].as_i64().unwrap_or(7).min(7)),
        Some("boolean") => json!(true),
        other => panic!("a schema of type {other:?}: {schema}"),
    }
}

/// Paths of `given` that are missing or different in `kept`.
fn lost(given: &Value, kept: &Value, path: &str, found: &mut Vec<String>) {
    match (given, kept) {
        (Value::Object(given), Value::Object(kept)) => {
            for (key, value) in given {
                lost(
                    value,
                    kept.get(key).unwrap_or(&Value::Null),
                    &format!("{path}.{key}"),
                    found,
                );
            }
        }
        (Value::Array(given), Value::Array(kept)) if given.len() == kept.len() => {
            for (given, kept) in given.iter().zip(kept) {
                lost(given, kept, &format!("{path}[]"), found);
            }
        }
        _ if given == kept => {}
        // An empty list and none are the same to every reader.
        (Value::Array(given), Value::Null) if given.is_empty() => {}
        _ => found.push(path.to_owned()),
    }
}

fn round_trip<T: Serialize + DeserializeOwned>(value: &Value) -> Result<Value, String> {
    let typed: T = serde_json::from_value(value.clone()).map_err(|e| e.to_string())?;
    serde_json::to_value(typed).map_err(|e| e.to_string())
}

/// Properties of `schema` that `T` does not keep.
fn unknown<T: Serialize + DeserializeOwned>(name: &str, schema: &Value) -> Vec<String> {
    let given = probe(schema);
    let mut found = Vec::new();
    match round_trip::<T>(&given) {
        Ok(kept) => lost(&given, &kept, name, &mut found),
        Err(why) => found.push(format!("{name}: {why}")),
    }
    found.retain(|path| !IGNORED.contains(&path.as_str()));
    found
}

/// JSON pointers of all properties that have a default, with the default.
fn defaults(schema: &Value, pointer: &str, found: &mut Vec<(String, Value)>) {
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        let pointer = format!("{pointer}/{key}");
        if let Some(default) = property.get("default") {
            found.push((pointer.clone(), default.clone()));
        }
        defaults(property, &pointer, found);
    }
    if schema["items"].is_object() {
        defaults(&schema["items"], &format!("{pointer}/0"), found);
    }
}

/// Defaults of the schema that `T` does not have where the property is left out.
fn undefaulted<T: Serialize + DeserializeOwned>(name: &str, schema: &Value) -> Vec<String> {
    let mut all = Vec::new();
    defaults(schema, "", &mut all);
    let mut wrong = Vec::new();
    for (pointer, default) in all {
        let mut given = probe(schema);
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        let parent = given
            .pointer_mut(parent)
            .and_then(Value::as_object_mut)
            .expect("an object");
        parent.remove(key);
        match round_trip::<T>(&given) {
            Ok(kept) => lost(
                &default,
                kept.pointer(&pointer).unwrap_or(&Value::Null),
                &format!("{name}{pointer}"),
                &mut wrong,
            ),
            Err(why) => wrong.push(format!("{name}{pointer}: {why}")),
        }
    }
    wrong
}

fn spec_schema<T: Resource>() -> Value {
    let file = format!("../schema/{}.json", T::KIND.to_ascii_lowercase());
    let schema: Value = serde_json::from_str(&data(&file)).expect("JSON");
    assert_eq!(schema["kind"], T::KIND);
    assert_eq!(schema["group"], T::GROUP);
    let spec = schema["versions"]["v1"]["properties"]["spec"].clone();
    assert!(spec.is_object(), "{file} has no spec of v1");
    json!({ "type": "object", "properties": { "spec": spec } })
}

#[test]
fn every_property_of_every_spec_is_known_and_defaulted() {
    let mut wrong = Vec::new();
    let mut count = 0;
    macro_rules! kinds {
        ($($kind:ident)*) => {$({
            let schema = spec_schema::<$kind>();
            wrong.extend(unknown::<$kind>($kind::KIND, &schema));
            wrong.extend(undefaulted::<$kind>($kind::KIND, &schema));
            count += properties(&schema);
        })*};
    }
    kinds!(BackendTLSPolicy GRPCRoute Gateway GatewayClass HTTPRoute ListenerSet ReferenceGrant TCPRoute TLSRoute UDPRoute);
    assert!(wrong.is_empty(), "not as in the CRDs: {wrong:#?}");
    // The vendored schemas were really walked.
    assert!(count > 400, "only {count} properties");
}

fn properties(schema: &Value) -> usize {
    let own = schema["properties"].as_object();
    own.map_or(0, |p| p.len() + p.values().map(properties).sum::<usize>()) + schema.get("items").map_or(0, properties)
}

#[test]
fn every_property_of_every_status_is_known() {
    let schemas: Value = serde_json::from_str(&data("testdata/status.json")).expect("JSON");
    let mut wrong = Vec::new();
    for (kind, schema) in schemas.as_object().expect("an object") {
        wrong.extend(match kind.as_str() {
            "Gateway" => unknown::<GatewayStatus>(kind, schema),
            "GatewayClass" => unknown::<GatewayClassStatus>(kind, schema),
            "ListenerSet" => unknown::<ListenerSetStatus>(kind, schema),
            "BackendTLSPolicy" => unknown::<PolicyStatus>(kind, schema),
            "HTTPRoute" | "GRPCRoute" | "TLSRoute" | "TCPRoute" | "UDPRoute" => unknown::<RouteStatus>(kind, schema),
            other => vec![format!("{other} has a status")],
        });
    }
    assert_eq!(schemas.as_object().map(Map::len), Some(9));
    assert!(wrong.is_empty(), "not as in the CRDs: {wrong:#?}");
}

#[test]
fn every_manifest_of_the_official_suite_survives() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for line in data("testdata/conformance.jsonl").lines() {
        let entry: Value = serde_json::from_str(line).expect("JSON");
        let mut object = entry["object"].clone();
        let fields = object.as_object_mut().expect("an object");
        let kind = fields.remove("kind").expect("a kind");
        assert_eq!(fields.remove("apiVersion"), Some(json!("gateway.networking.k8s.io/v1")));
        let kept = match kind.as_str().expect("a text") {
            "BackendTLSPolicy" => round_trip::<BackendTLSPolicy>(&object),
            "GRPCRoute" => round_trip::<GRPCRoute>(&object),
            "Gateway" => round_trip::<Gateway>(&object),
            "GatewayClass" => round_trip::<GatewayClass>(&object),
            "HTTPRoute" => round_trip::<HTTPRoute>(&object),
            "ListenerSet" => round_trip::<ListenerSet>(&object),
            "ReferenceGrant" => round_trip::<ReferenceGrant>(&object),
            "TCPRoute" => round_trip::<TCPRoute>(&object),
            "TLSRoute" => round_trip::<TLSRoute>(&object),
            "UDPRoute" => round_trip::<UDPRoute>(&object),
            other => Err(format!("kind {other}")),
        };
        let name = format!("{} {kind} {}", entry["file"], object["metadata"]["name"]);
        match kept {
            Ok(kept) => lost(&object, &kept, &name, &mut wrong),
            Err(why) => wrong.push(format!("{name}: {why}")),
        }
        count += 1;
    }
    assert!(wrong.is_empty(), "changed on the way: {wrong:#?}");
    assert!(count > 300, "only {count} objects");
}

/// The guard can fail: on a property nobody knows, on a value that is changed, on a default that is another.
#[test]
fn a_property_nobody_knows_is_found() {
    let mut schema = spec_schema::<HTTPRoute>();
    schema["properties"]["spec"]["properties"]["rules"]["items"]["properties"]["novelty"] = json!({ "type": "string" });
    assert_eq!(
        unknown::<HTTPRoute>("HTTPRoute", &schema),
        ["HTTPRoute.spec.rules[].novelty"]
    );
    let mut schema = spec_schema::<TCPRoute>();
    let parent = &mut schema["properties"]["spec"]["properties"]["parentRefs"]["items"]["properties"];
    parent["kind"]["default"] = json!("Service");
    assert_eq!(
        undefaulted::<TCPRoute>("TCPRoute", &schema),
        ["TCPRoute/spec/parentRefs/0/kind"]
    );
}
