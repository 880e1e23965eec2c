//! A case file: options, settings and objects.

use std::{collections::BTreeMap, fs, net::IpAddr, path::Path, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::Resource;
use pierhead_translate::{ObjectName, Settings, World};
use saphyr::{LoadableYamlNode as _, Scalar, Yaml};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};

/// The document `kind: Settings`. What it leaves out is as in a cluster, on a machine with the address 192.0.2.10.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Options {
    kind: String,
    /// What the expectation shows; all that is not empty, if not given.
    pub(crate) show: Vec<String>,
    /// Files of `testdata/lib/` whose documents belong to the input.
    include: Vec<String>,
    now: Option<Timestamp>,
    implied_class: Option<String>,
    inject_default_class: bool,
    watch_ingress_without_class: bool,
    ingress_http_port: Option<u16>,
    ingress_https_port: Option<u16>,
    default_certificate: Option<String>,
    address_pools: Vec<String>,
    machine_addresses: Option<Vec<IpAddr>>,
    allocations: BTreeMap<String, IpAddr>,
}

pub(crate) struct Case {
    pub(crate) options: Options,
    pub(crate) settings: Settings,
    pub(crate) world: World,
}

fn object_name(text: &str) -> ObjectName {
    let (namespace, name) = text.split_once('/').unwrap_or(("", text));
    ObjectName::new(namespace, name)
}

impl Options {
    fn settings(&self) -> Settings {
        let now = self
            .now
            .unwrap_or_else(|| "2026-11-23T12:00:00Z".parse().expect("a timestamp"));
        let defaults = Settings::new(now);
        Settings {
            implied_class: self.implied_class.as_deref().map(Into::into),
            inject_default_class: self.inject_default_class,
            watch_ingress_without_class: self.watch_ingress_without_class,
            ingress_http_port: self.ingress_http_port.unwrap_or(defaults.ingress_http_port),
            ingress_https_port: self.ingress_https_port.unwrap_or(defaults.ingress_https_port),
            default_certificate: self.default_certificate.as_deref().map(object_name),
            address_pools: self
                .address_pools
                .iter()
                .map(|pool| pool.parse().expect("a CIDR"))
                .collect(),
            machine_addresses: self
                .machine_addresses
                .clone()
                .unwrap_or_else(|| vec![IpAddr::from([192, 0, 2, 10])]),
            allocations: self
                .allocations
                .iter()
                .map(|(name, ip)| (object_name(name), *ip))
                .collect(),
            ..defaults
        }
    }
}

impl Case {
    pub(crate) fn parse(input: &str, lib: &Path) -> Result<Self, String> {
        let mut documents = documents(input)?;
        let has_settings = documents
            .first()
            .is_some_and(|d| d.get("kind").is_some_and(|k| k == "Settings"));
        let options: Options = if has_settings {
            serde_json::from_value(documents.remove(0)).map_err(|e| format!("Settings: {e}"))?
        } else {
            Options::default()
        };
        let mut world = World::default();
        for file in &options.include {
            let path = lib.join(file);
            let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            for document in self::documents(&text)? {
                put(&mut world, document)?;
            }
        }
        for document in documents {
            put(&mut world, document)?;
        }
        Ok(Self {
            settings: options.settings(),
            options,
            world,
        })
    }
}

fn documents(text: &str) -> Result<Vec<Value>, String> {
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
fn put(world: &mut World, document: Value) -> Result<(), String> {
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
    document["apiVersion"] = T::API_VERSION.into();
    if !namespace.is_empty() {
        document["metadata"]["namespace"] = namespace.into();
    }
    let name = document["metadata"]["name"].clone();
    serde_json::from_value(document).map_err(|e| format!("{kind} {name}: {e}"))
}
