//! GatewayParameters: what a platform team chooses for Gateways and Ingresses of a class, or for one Gateway.
//!
//! Referenced by `GatewayClass.spec.parametersRef`, by `Gateway.spec.infrastructure.parametersRef` (which beats the class) and
//! by `IngressClass.spec.parameters`.

use std::{collections::BTreeMap, fmt};

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    GROUP, cidr,
    client_address::{self, ClientAddressSpec},
};

pub const VERSION: &str = "v1alpha1";
pub const PLURAL: &str = "gatewayparameters";

/// How many prefixes a pool may have.
const MAX_CIDRS: usize = 64;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GatewayParameters {
    #[serde(default)]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: GatewayParametersSpec,
}

impl k8s_openapi::Resource for GatewayParameters {
    const API_VERSION: &'static str = "pierhead.dev/v1alpha1";
    const GROUP: &'static str = GROUP;
    const KIND: &'static str = "GatewayParameters";
    const VERSION: &'static str = VERSION;
    const URL_PATH_SEGMENT: &'static str = PLURAL;
    type Scope = k8s_openapi::NamespaceResourceScope;
}

impl k8s_openapi::Metadata for GatewayParameters {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &Self::Ty {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut Self::Ty {
        &mut self.metadata
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayParametersSpec {
    #[serde(default)]
    pub addresses: AddressesSpec,
    /// See [`crate::client_address`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_address: Option<ClientAddressSpec>,
}

/// Where addresses come from, as written. [`GatewayParametersSpec::addresses`](GatewayParametersSpec::addresses()) reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressesSpec {
    #[serde(rename = "type", default)]
    pub kind: AddressesType,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolSpec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceSpec>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AddressesType {
    /// Addresses of its own for each Gateway, out of prefixes.
    Pool,
    /// The nodes' addresses.
    #[default]
    Node,
    /// Those that a load balancer gives a Service that is made for each Gateway.
    Service,
    /// A value newer than this program.
    #[serde(untagged)]
    Unknown(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolSpec {
    #[serde(default)]
    pub cidrs: Vec<String>,
    #[serde(default)]
    pub announce: AnnounceType,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AnnounceType {
    /// One elected node answers ARP and NDP.
    #[default]
    L2,
    /// Nobody announces: routers are told in another way, and reach every node (ECMP).
    #[serde(rename = "none")]
    Nobody,
    /// A value newer than this program.
    #[serde(untagged)]
    Unknown(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceSpec {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancer_class: Option<String>,
    #[serde(default)]
    pub external_traffic_policy: ExternalTrafficPolicy,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExternalTrafficPolicy {
    /// The load balancer sends to nodes that have a proxy, which sees the client's address.
    #[default]
    Local,
    /// The load balancer sends to any node, which hides the client's address.
    Cluster,
    /// A value newer than this program.
    #[serde(untagged)]
    Unknown(String),
}

impl ExternalTrafficPolicy {
    pub fn as_str(&self) -> &str {
        match self {
            Self::Local => "Local",
            Self::Cluster => "Cluster",
            Self::Unknown(text) => text,
        }
    }
}

/// Where addresses come from, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addresses {
    Node,
    Pool(Pool),
    Service(ServiceSpec),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Not empty, truncated, none inside another; in the order in which they are to be used.
    pub prefixes: Vec<IpNet>,
    /// One node at a time answers ARP and NDP for its addresses.
    pub announced: bool,
}

/// What in a GatewayParameters makes no sense: where, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// Path inside the object.
    pub field: String,
    pub message: String,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

pub(crate) fn invalid(field: impl Into<String>, message: impl Into<String>) -> Invalid {
    Invalid {
        field: field.into(),
        message: message.into(),
    }
}

impl GatewayParametersSpec {
    /// # Errors
    /// On what the schema refuses too (an object can be older than its schema), and on prefixes that overlap.
    pub fn addresses(&self) -> Result<Addresses, Invalid> {
        let spec = &self.addresses;
        let unneeded = |field: &str| {
            Err(invalid(
                format!("spec.addresses.{field}"),
                format!("has no meaning with type {}", spec.kind.as_str()),
            ))
        };
        match (&spec.kind, &spec.pool, &spec.service) {
            (AddressesType::Unknown(text), _, _) => Err(invalid(
                "spec.addresses.type",
                format!("{text:?} is not known: Pool, Node and Service are"),
            )),
            (AddressesType::Pool, _, Some(_)) | (AddressesType::Node, _, Some(_)) => unneeded("service"),
            (AddressesType::Node | AddressesType::Service, Some(_), _) => unneeded("pool"),
            (AddressesType::Node, None, None) => Ok(Addresses::Node),
            (AddressesType::Pool, None, None) => Err(invalid("spec.addresses.pool", "is needed with type Pool")),
            (AddressesType::Pool, Some(pool), None) => Ok(Addresses::Pool(pool.parse()?)),
            (AddressesType::Service, None, service) => {
                let service = service.clone().unwrap_or_default();
                match &service.external_traffic_policy {
                    ExternalTrafficPolicy::Unknown(text) => Err(invalid(
                        "spec.addresses.service.externalTrafficPolicy",
                        format!("{text:?} is not known: Local and Cluster are"),
                    )),
                    ExternalTrafficPolicy::Local | ExternalTrafficPolicy::Cluster => Ok(Addresses::Service(service)),
                }
            }
        }
    }
}

impl AddressesType {
    pub fn as_str(&self) -> &str {
        match self {
            Self::Pool => "Pool",
            Self::Node => "Node",
            Self::Service => "Service",
            Self::Unknown(text) => text,
        }
    }
}

impl PoolSpec {
    fn parse(&self) -> Result<Pool, Invalid> {
        const FIELD: &str = "spec.addresses.pool";
        let parsed = cidr::parse(&format!("{FIELD}.cidrs"), &self.cidrs, MAX_CIDRS)?;
        let announced = match &self.announce {
            AnnounceType::L2 => true,
            AnnounceType::Nobody => false,
            AnnounceType::Unknown(text) => {
                let message = format!("{text:?} is not known: L2 and none are");
                return Err(invalid(format!("{FIELD}.announce"), message));
            }
        };
        let mut prefixes: Vec<IpNet> = Vec::with_capacity(parsed.len());
        for (index, prefix) in parsed.into_iter().enumerate() {
            let field = || format!("{FIELD}.cidrs[{index}]");
            if let Some(other) = prefixes.iter().find(|p| p.contains(&prefix) || prefix.contains(*p)) {
                return Err(invalid(field(), format!("{prefix} overlaps {other}")));
            }
            if !assignable(&prefix) {
                return Err(invalid(
                    field(),
                    format!("{prefix} holds addresses that no host can have"),
                ));
            }
            prefixes.push(prefix);
        }
        Ok(Pool { prefixes, announced })
    }
}

/// Not loopback, multicast, unspecified, reserved or link-local, whole or in part.
fn assignable(prefix: &IpNet) -> bool {
    const NEVER: [&str; 9] = [
        "0.0.0.0/8",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "224.0.0.0/3",
        "::/127",
        "::ffff:0:0/96",
        "fe80::/10",
        "ff00::/8",
        "fec0::/10",
    ];
    let overlaps = |text: &str| {
        let never: Option<IpNet> = text.parse().ok();
        never.is_some_and(|never| never.contains(prefix) || prefix.contains(&never))
    };
    !NEVER.iter().any(|text| overlaps(text))
}

/// The CustomResourceDefinition.
pub fn crd() -> Value {
    let columns = json!([
        {"name": "Addresses", "type": "string", "jsonPath": ".spec.addresses.type"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]);
    crate::definition(("GatewayParameters", PLURAL, "gwparams"), VERSION, schema(), columns)
}

/// The structural schema (OpenAPI v3) of the whole object, with the rules that the API server evaluates (CEL).
pub fn schema() -> Value {
    json!({
        "type": "object",
        "description": "What Gateways and Ingresses of a class, or one Gateway, get that the Gateway API has no field for. \
            Referenced by GatewayClass.spec.parametersRef, Gateway.spec.infrastructure.parametersRef and IngressClass.spec.parameters.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": {
                "type": "object",
                "properties": {"addresses": addresses_schema(), "clientAddress": client_address::schema()},
            },
        },
    })
}

fn addresses_schema() -> Value {
    let description =
        "Prefixes, used in this order; one address of each family for each Gateway. None may overlap another.";
    let mut cidrs = cidr::schema(description, MAX_CIDRS);
    cidrs["x-kubernetes-validations"] = json!([{
        "rule": "self.all(a, self.exists_one(b, a == b))",
        "message": "prefixes must be distinct",
    }]);
    json!({
        "type": "object",
        "description": "Where the addresses come from. The nodes' own by default.",
        "default": {"type": "Node"},
        "properties": {
            "type": {
                "type": "string",
                "description": "Pool: addresses of its own for each Gateway, out of prefixes. Node: the nodes' addresses. \
                    Service: those that a load balancer gives a Service of type LoadBalancer that is made for each Gateway.",
                "enum": ["Pool", "Node", "Service"],
                "default": "Node",
            },
            "pool": {
                "type": "object",
                "required": ["cidrs"],
                "properties": {
                    "cidrs": cidrs,
                    "announce": {
                        "type": "string",
                        "description": "L2: one elected node answers ARP and NDP for an address. none: nobody does; routers are \
                            told in another way and may use every node at once (ECMP).",
                        "enum": ["L2", "none"],
                        "default": "L2",
                    },
                },
            },
            "service": {
                "type": "object",
                "properties": {
                    "annotations": {
                        "type": "object",
                        "description": "Annotations of the Service, under those of the Gateway's spec.infrastructure.",
                        "additionalProperties": {"type": "string", "maxLength": 4096},
                        "maxProperties": 64,
                    },
                    "labels": {
                        "type": "object",
                        "description": "Labels of the Service, under those of the Gateway's spec.infrastructure.",
                        "additionalProperties": {"type": "string", "maxLength": 63},
                        "maxProperties": 64,
                    },
                    "loadBalancerClass": {
                        "type": "string",
                        "description": "Which load balancer is to serve it, where the cluster has several. Cannot be changed on \
                            Services that exist.",
                        "minLength": 1,
                        "maxLength": 253,
                    },
                    "externalTrafficPolicy": {
                        "type": "string",
                        "description": "Local: the load balancer sends to nodes that run a proxy, which then sees the client's \
                            address. Cluster: to any node, which hides it.",
                        "enum": ["Local", "Cluster"],
                        "default": "Local",
                    },
                },
            },
        },
        "x-kubernetes-validations": [
            {"rule": "self.type == 'Pool' ? has(self.pool) : !has(self.pool)", "message": "pool goes with type Pool, and only with it"},
            {"rule": "self.type == 'Service' || !has(self.service)", "message": "service goes with type Service only"},
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(spec: Value) -> Result<Addresses, String> {
        let object: GatewayParameters =
            serde_json::from_value(json!({"metadata": {"name": "x"}, "spec": spec})).unwrap();
        object.spec.addresses().map_err(|why| why.to_string())
    }

    #[track_caller]
    fn refuse(spec: Value, why: &str) {
        let message = parse(spec).unwrap_err();
        assert!(message.contains(why), "{why:?} in {message:?}");
    }

    #[test]
    fn the_nodes_own_by_default() {
        assert_eq!(parse(json!({})), Ok(Addresses::Node));
        assert_eq!(parse(json!({"addresses": {}})), Ok(Addresses::Node));
        assert_eq!(parse(json!({"addresses": {"type": "Node"}})), Ok(Addresses::Node));
    }

    #[test]
    fn a_pool_is_parsed_and_truncated() {
        let pool = |announce: Value| json!({"addresses": {"type": "Pool", "pool": {"cidrs": ["10.1.2.3/24", "2001:db8::/64"], "announce": announce}}});
        for (text, announced) in [("L2", true), ("none", false)] {
            let expected = Pool {
                prefixes: vec!["10.1.2.0/24".parse().unwrap(), "2001:db8::/64".parse().unwrap()],
                announced,
            };
            assert_eq!(parse(pool(text.into())), Ok(Addresses::Pool(expected)));
        }
        refuse(pool("BGP".into()), "spec.addresses.pool.announce");
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let pool = |cidrs: Value| json!({"addresses": {"type": "Pool", "pool": {"cidrs": cidrs}}});
        refuse(pool(json!([])), "1 to 64");
        refuse(pool(json!(["10.0.0.0/24", "ten"])), "cidrs[1]: \"ten\" is no prefix");
        refuse(pool(json!(["10.0.0.0/33"])), "is no prefix");
        refuse(
            pool(json!(["10.0.0.0/24", "10.0.0.128/25"])),
            "10.0.0.128/25 overlaps 10.0.0.0/24",
        );
        refuse(pool(json!(["10.0.0.128/25", "10.0.0.0/24"])), "overlaps");
        for never in [
            "127.0.0.0/30",
            "224.0.0.0/24",
            "0.0.0.0/0",
            "::1/128",
            "fe80::/64",
            "::ffff:10.0.0.0/120",
        ] {
            refuse(pool(json!([never])), "no host can have");
        }
        refuse(json!({"addresses": {"type": "Pool"}}), "spec.addresses.pool: is needed");
        refuse(
            json!({"addresses": {"type": "Node", "pool": {"cidrs": ["10.0.0.0/24"]}}}),
            "no meaning with type Node",
        );
        refuse(
            json!({"addresses": {"type": "Node", "service": {}}}),
            "no meaning with type Node",
        );
        refuse(json!({"addresses": {"type": "Dhcp"}}), "\"Dhcp\" is not known");
        refuse(
            json!({"addresses": {"type": "Service", "service": {"externalTrafficPolicy": "Some"}}}),
            "externalTrafficPolicy",
        );
    }

    #[test]
    fn a_service_needs_nothing_said() {
        assert_eq!(
            parse(json!({"addresses": {"type": "Service"}})),
            Ok(Addresses::Service(ServiceSpec::default()))
        );
        assert_eq!(ServiceSpec::default().external_traffic_policy.as_str(), "Local");
    }

    /// The defaults of the schema are those of the types, and every field is in both.
    #[test]
    fn schema_and_types_agree() {
        let schema = schema();
        let addresses = &schema["properties"]["spec"]["properties"]["addresses"]["properties"];
        assert_eq!(addresses["type"]["default"], AddressesType::default().as_str());
        let full = json!({
            "type": "Pool",
            "pool": {"cidrs": ["10.0.0.0/24"], "announce": "L2"},
            "service": {"annotations": {"a": "b"}, "labels": {"a": "b"}, "loadBalancerClass": "x", "externalTrafficPolicy": "Local"},
        });
        let typed: AddressesSpec = serde_json::from_value(full.clone()).unwrap();
        assert_eq!(serde_json::to_value(&typed).unwrap(), full);
        let keys = |value: &Value| {
            value
                .as_object()
                .unwrap()
                .keys()
                .cloned()
                .collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(keys(addresses), keys(&full));
        for part in ["pool", "service"] {
            assert_eq!(keys(&addresses[part]["properties"]), keys(&full[part]));
        }
        let empty = serde_json::to_value(PoolSpec::default()).unwrap();
        assert_eq!(
            addresses["pool"]["properties"]["announce"]["default"],
            empty["announce"]
        );
        let empty = serde_json::to_value(ServiceSpec::default()).unwrap();
        assert_eq!(
            addresses["service"]["properties"]["externalTrafficPolicy"]["default"],
            empty["externalTrafficPolicy"]
        );
    }
}
