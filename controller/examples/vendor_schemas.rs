//! Writes `controller/schema/*.json`: what the API server knows of each kind, without descriptions and status.
//!
//! ```text
//! cargo run -p pierhead-controller --example vendor_schemas -- GATEWAY_API KUBERNETES
//! ```
//!
//! Both arguments are unpacked sources; `controller/schema/README.md` says how to get them.

#![allow(clippy::print_stdout, reason = "a command for developers")]

#[allow(dead_code, reason = "the reader of the crate, used by one more program")]
#[path = "../src/yaml.rs"]
mod yaml;

use std::error::Error;
use std::fs;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value, json};

/// Group, version, kind and scope of the core kinds we read; the file and the name of their schema.
const CORE: [(&str, &str, &str, &str, &str); 9] = [
    (
        "",
        "Service",
        "Namespaced",
        "api__v1_openapi.json",
        "io.k8s.api.core.v1.Service",
    ),
    (
        "",
        "Secret",
        "Namespaced",
        "api__v1_openapi.json",
        "io.k8s.api.core.v1.Secret",
    ),
    (
        "",
        "ConfigMap",
        "Namespaced",
        "api__v1_openapi.json",
        "io.k8s.api.core.v1.ConfigMap",
    ),
    (
        "",
        "Namespace",
        "Cluster",
        "api__v1_openapi.json",
        "io.k8s.api.core.v1.Namespace",
    ),
    (
        "",
        "ObjectMeta",
        "Cluster",
        "api__v1_openapi.json",
        "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta",
    ),
    (
        "certificates.k8s.io",
        "ClusterTrustBundle",
        "Cluster",
        "apis__certificates.k8s.io__v1_openapi.json",
        "io.k8s.api.certificates.v1.ClusterTrustBundle",
    ),
    (
        "discovery.k8s.io",
        "EndpointSlice",
        "Namespaced",
        "apis__discovery.k8s.io__v1_openapi.json",
        "io.k8s.api.discovery.v1.EndpointSlice",
    ),
    (
        "networking.k8s.io",
        "Ingress",
        "Namespaced",
        "apis__networking.k8s.io__v1_openapi.json",
        "io.k8s.api.networking.v1.Ingress",
    ),
    (
        "networking.k8s.io",
        "IngressClass",
        "Cluster",
        "apis__networking.k8s.io__v1_openapi.json",
        "io.k8s.api.networking.v1.IngressClass",
    ),
];

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(gateway_api), Some(kubernetes)) = (arguments.next(), arguments.next()) else {
        return Err("usage: vendor_schemas GATEWAY_API KUBERNETES".into());
    };
    let out = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema");
    crds(&Path::new(&gateway_api).join("config/crd/experimental"), &out)?;
    core(&Path::new(&kubernetes).join("api/openapi-spec/v3"), &out)
}

fn crds(from: &Path, out: &Path) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if !entry
            .file_name()
            .to_string_lossy()
            .starts_with("gateway.networking.k8s.io_")
        {
            continue;
        }
        for document in yaml::read(&fs::read_to_string(entry.path())?, 1, &mut yaml::Budget::default())? {
            let crd = document.value;
            if crd["kind"] != "CustomResourceDefinition" {
                continue;
            }
            let mut versions = Map::new();
            for version in crd["spec"]["versions"].as_array().ok_or("no versions")? {
                if version["served"] != true {
                    continue;
                }
                let name = version["name"].as_str().ok_or("no version name")?;
                let mut schema = version["schema"]["openAPIV3Schema"].clone();
                strip(&mut schema);
                drop_common(&mut schema);
                // Most served versions are the same schema under another name: the name of the first says so.
                let same = versions
                    .iter()
                    .find(|(_, other)| **other == schema)
                    .map(|(name, _)| name.clone());
                versions.insert(name.to_owned(), same.map_or(schema, Value::String));
            }
            let kind = crd["spec"]["names"]["kind"].as_str().ok_or("no kind")?;
            write(
                out,
                kind,
                &json!({
                    "group": crd["spec"]["group"],
                    "kind": kind,
                    "scope": crd["spec"]["scope"],
                    "versions": versions,
                }),
            )?;
        }
    }
    Ok(())
}

fn core(from: &Path, out: &Path) -> Result<(), Box<dyn Error>> {
    for (group, kind, scope, file, name) in CORE {
        let openapi: Value = serde_json::from_str(&fs::read_to_string(from.join(file))?)?;
        let all = &openapi["components"]["schemas"];
        let mut schema = all[name].clone();
        inline(&mut schema, all);
        strip(&mut schema);
        drop_core_noise(&mut schema);
        if kind != "ObjectMeta" {
            drop_common(&mut schema);
        }
        write(
            out,
            kind,
            &json!({"group": group, "kind": kind, "scope": scope, "versions": {"v1": schema}}),
        )?;
    }
    Ok(())
}

fn write(out: &Path, kind: &str, value: &Value) -> Result<(), Box<dyn Error>> {
    let path = out.join(format!("{}.json", kind.to_lowercase()));
    let mut text = Vec::new();
    let narrow = serde_json::ser::PrettyFormatter::with_indent(b" ");
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut text, narrow))?;
    text.push(b'\n');
    fs::write(&path, text)?;
    println!("{}", path.display());
    Ok(())
}

/// What every kind has is checked once, by itself; status is not ours to read.
fn drop_common(schema: &mut Value) {
    if let Some(properties) = schema["properties"].as_object_mut() {
        for name in ["apiVersion", "kind", "metadata", "status"] {
            properties.shift_remove(name);
        }
    }
    if let Some(required) = schema.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|name| name != "metadata" && name != "status");
    }
}

/// Removes the text for people, but no property that happens to be called `description`.
fn strip(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    map.shift_remove("description");
    for (keyword, value) in map {
        match (keyword.as_str(), value) {
            ("properties", Value::Object(properties)) => properties.values_mut().for_each(strip),
            ("items" | "additionalProperties" | "not", value) => strip(value),
            ("allOf" | "anyOf" | "oneOf", Value::Array(list)) => list.iter_mut().for_each(strip),
            _ => {}
        }
    }
}

/// Puts what `$ref` names in its place. The kinds we read do not recurse.
fn inline(schema: &mut Value, all: &Value) {
    match schema {
        Value::Object(map) => {
            let single = map
                .get("allOf")
                .and_then(Value::as_array)
                .filter(|list| list.len() == 1)
                .cloned();
            let named = single
                .as_ref()
                .map_or_else(|| map.get("$ref").cloned(), |list| list[0].get("$ref").cloned());
            if let Some(name) = named
                .as_ref()
                .and_then(Value::as_str)
                .and_then(|name| name.rsplit('/').next())
            {
                let mut target = all[name].clone();
                inline(&mut target, all);
                *schema = target;
                return;
            }
            map.values_mut().for_each(|value| inline(value, all));
        }
        Value::Array(list) => list.iter_mut().for_each(|value| inline(value, all)),
        _ => {}
    }
}

/// The published OpenAPI gives Go's zero values as defaults, which the API server does not mean, and wraps unions in
/// `oneOf`.
fn drop_core_noise(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    let zero = map.get("default").is_some_and(|default| {
        matches!(default, Value::Object(map) if map.is_empty()) || default == "" || *default == json!(0)
    });
    if zero {
        map.shift_remove("default");
    }
    if map.get("format").is_some_and(|format| format == "int-or-string") {
        *schema = json!({"x-kubernetes-int-or-string": true});
        return;
    }
    for name in [
        "x-kubernetes-group-version-kind",
        "x-kubernetes-patch-merge-key",
        "x-kubernetes-patch-strategy",
    ] {
        map.shift_remove(name);
    }
    for (keyword, value) in map {
        match (keyword.as_str(), value) {
            ("properties", Value::Object(properties)) => properties.values_mut().for_each(drop_core_noise),
            ("items" | "additionalProperties", value) => drop_core_noise(value),
            _ => {}
        }
    }
}
