//! What one write of one object's status is, if any is needed. Pure: the time is an argument.

use std::hash::{DefaultHasher, Hash, Hasher};

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::IngressStatus;
use pierhead_gateway_api::{
    Condition, ConditionStatus, GatewayStatus, ListenerSetStatus, PolicyStatus, RouteStatus, merge,
};
use pierhead_model::Origin;
use pierhead_translate::Statuses;
use serde_json::{Map, Value, json};

use super::Key;
use super::overlay::Truth;
use crate::cluster::Standing;

/// A request on the subresource `status`.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Write {
    /// A merge patch that fails when the object changed since it was read.
    Merge(Value),
    /// A server-side apply: fields that only we own go when they are not in it, those of others stay.
    Apply(Value),
}

impl Write {
    /// Of what it says, apart from the version it starts from and from times, which differ in every attempt.
    pub(super) fn fingerprint(&self) -> u64 {
        let (Self::Merge(body) | Self::Apply(body)) = self;
        let mut hasher = DefaultHasher::new();
        hash(&body["status"], &mut hasher);
        hasher.finish()
    }
}

fn hash(value: &Value, hasher: &mut DefaultHasher) {
    match value {
        Value::Object(fields) => {
            fields.len().hash(hasher);
            for (name, value) in fields.iter().filter(|(name, _)| *name != "lastTransitionTime") {
                name.hash(hasher);
                hash(value, hasher);
            }
        }
        Value::Array(values) => {
            values.len().hash(hasher);
            for value in values {
                hash(value, hasher);
            }
        }
        other => other.hash(hasher),
    }
}

/// What a plan is made from, besides the object.
pub(super) struct Context<'a> {
    pub(super) statuses: &'a Statuses,
    pub(super) truth: &'a Truth,
    /// Our `controllerName`.
    pub(super) controller: &'a str,
    pub(super) now: Timestamp,
}

/// "max 32 parents / 16 ancestors" (`RouteStatus`, `PolicyStatus`); with more the API server refuses all of them.
const MOST_PARENTS: usize = 32;
const MOST_ANCESTORS: usize = 16;

/// `None`: the object says what it should.
pub(super) fn plan(key: &Key, standing: &Standing, context: &Context<'_>) -> Option<Write> {
    let statuses = context.statuses;
    let old = standing.status();
    let old = old.as_ref();
    let origin = || Origin::new(key.kind, &key.name.namespace, &key.name.name);
    let now = context.now;
    let merged = match key.kind {
        "Ingress" => return ingress(key, standing, old, statuses.ingresses.get(&key.name)),
        "GatewayClass" => merge::gateway_class(old, statuses.gateway_classes.get(&key.name)?, now),
        "Gateway" => match statuses.gateways.get(&key.name) {
            Some(status) => {
                let mut status = status.clone();
                context.truth.gateway(&origin(), &mut status);
                with_cleared(
                    merge::gateway(old, &status, now),
                    old,
                    &["addresses", "listeners", "attachedListenerSets"],
                )
            }
            None => {
                let conditions = left(standing, old)?;
                let status = GatewayStatus {
                    conditions,
                    ..GatewayStatus::default()
                };
                with_cleared(
                    merge::gateway(old, &status, now),
                    old,
                    &["addresses", "listeners", "attachedListenerSets"],
                )
            }
        },
        "ListenerSet" => match statuses.listener_sets.get(&key.name) {
            Some(status) => {
                let mut status = status.clone();
                context.truth.listener_set(&origin(), &mut status);
                with_cleared(merge::listener_set(old, &status, now), old, &["listeners"])
            }
            None => {
                let conditions = left(standing, old)?;
                let status = ListenerSetStatus {
                    conditions,
                    ..ListenerSetStatus::default()
                };
                with_cleared(merge::listener_set(old, &status, now), old, &["listeners"])
            }
        },
        "BackendTLSPolicy" => {
            let none = PolicyStatus::default();
            let ours = statuses.backend_tls_policies.get(&key.name).unwrap_or(&none);
            bounded(
                merge::policy(old, ours, context.controller, now),
                "ancestors",
                MOST_ANCESTORS,
            )
        }
        kind => {
            let routes = match kind {
                "GRPCRoute" => &statuses.grpc_routes,
                "HTTPRoute" => &statuses.http_routes,
                "TCPRoute" => &statuses.tcp_routes,
                "TLSRoute" => &statuses.tls_routes,
                "UDPRoute" => &statuses.udp_routes,
                _ => return None,
            };
            let none = RouteStatus::default();
            let ours = routes.get(&key.name).map_or(&none, |status| status);
            bounded(
                merge::route(old, ours, context.controller, now),
                "parents",
                MOST_PARENTS,
            )
        }
    };
    let changed = difference(old, merged)?;
    Some(Write::Merge(json!({
        "metadata": {"resourceVersion": &*standing.resource_version, "uid": &*standing.uid},
        "status": changed,
    })))
}

/// The fields of `merged` that are not in `old` as they are there; `null` and an empty list are as good as none.
fn difference(old: Option<&Value>, merged: Value) -> Option<Map<String, Value>> {
    let Value::Object(merged) = merged else { return None };
    let nothing = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    let same = |field: &str, value: &Value| match old.and_then(|old| old.get(field)) {
        None => nothing(value),
        Some(old) => old == value || (nothing(old) && nothing(value)),
    };
    let changed: Map<String, Value> = merged
        .into_iter()
        .filter(|(field, value)| !same(field, value))
        .collect();
    (!changed.is_empty()).then_some(changed)
}

/// A merge patch removes a field only when told so.
fn with_cleared(mut merged: Value, old: Option<&Value>, fields: &[&str]) -> Value {
    if let Value::Object(merged) = &mut merged {
        for field in fields {
            if !merged.contains_key(*field) && old.is_some_and(|old| old.get(field).is_some()) {
                merged.insert((*field).into(), Value::Null);
            }
        }
    }
    merged
}

/// Entries of others come first and stay; of ours those that find no room are left out.
fn bounded(mut merged: Value, list: &str, most: usize) -> Value {
    if let Some(entries) = merged.get_mut(list).and_then(Value::as_array_mut) {
        entries.truncate(most);
    }
    merged
}

/// The conditions of a Gateway or ListenerSet that was ours and no longer is, if nobody else has said anything since.
fn left(standing: &Standing, old: Option<&Value>) -> Option<Vec<Condition>> {
    // Whoever has it now writes its own conditions over ours, and then none of them is ours any more.
    if !standing.ours {
        return None;
    }
    let programmed = |one: &&Value| one["type"] == "Programmed" && one["status"] == "True";
    let conditions = old.and_then(|old| old.get("conditions")?.as_array());
    conditions.into_iter().flatten().find(programmed)?;
    let pending = |kind: &str| Condition {
        kind: kind.into(),
        status: ConditionStatus::Undecided,
        reason: "Pending".into(),
        message: "Waiting for controller".into(),
        observed_generation: standing.generation,
        last_transition_time: None,
    };
    Some(vec![pending("Accepted"), pending("Programmed")])
}

fn ingress(key: &Key, standing: &Standing, old: Option<&Value>, wanted: Option<&IngressStatus>) -> Option<Write> {
    let body = |status: Value| {
        Write::Apply(json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": {"name": &*key.name.name, "namespace": &*key.name.namespace, "uid": &*standing.uid},
            "status": status,
        }))
    };
    let Some(wanted) = wanted else {
        // Not ours, or no longer: what we wrote goes, what others wrote is theirs.
        return standing.ours.then(|| body(json!({})));
    };
    let points = wanted
        .load_balancer
        .as_ref()
        .and_then(|balancer| balancer.ingress.as_deref());
    let points = serde_json::to_value(points.unwrap_or_default()).unwrap_or_default();
    let present = old.and_then(|old| old.pointer("/loadBalancer/ingress"));
    let same = match present {
        Some(present) => *present == points,
        None => points.as_array().is_some_and(Vec::is_empty),
    };
    (!same).then(|| body(json!({"loadBalancer": {"ingress": points}})))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::networking::v1::{IngressLoadBalancerIngress, IngressLoadBalancerStatus};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
    use pierhead_gateway_api::{GatewayStatusAddress, RouteParentStatus};
    use pierhead_model::Snapshot;
    use pierhead_translate::ObjectName;

    use super::*;
    use crate::cluster::FIELD_MANAGER;
    use crate::nodes::Registry;

    const OURS: &str = "pierhead.dev/gateway-controller";

    fn now() -> Timestamp {
        "2026-11-26T12:00:00Z".parse().unwrap()
    }

    fn key(kind: &'static str) -> Key {
        Key {
            kind,
            name: ObjectName::new("ns", "x"),
        }
    }

    fn standing(status: &Value, ours: bool) -> Standing {
        let entry = ManagedFieldsEntry {
            manager: Some(FIELD_MANAGER.into()),
            subresource: Some("status".into()),
            ..ManagedFieldsEntry::default()
        };
        let metadata = ObjectMeta {
            uid: Some("u".into()),
            resource_version: Some("7".into()),
            generation: Some(2),
            managed_fields: ours.then(|| vec![entry]),
            ..ObjectMeta::default()
        };
        Standing::of("v1", &metadata, Some(status))
    }

    fn check(key: &Key, statuses: &Statuses, standing: &Standing) -> Option<Write> {
        let registry = Registry::default();
        let _node = registry.join("n", now());
        let context = Context {
            statuses,
            truth: &Truth::of(&Snapshot::default(), &registry.nodes().borrow()),
            controller: OURS,
            now: now(),
        };
        plan(key, standing, &context)
    }

    fn condition(kind: &str) -> Condition {
        Condition {
            kind: kind.into(),
            status: ConditionStatus::True,
            reason: kind.into(),
            message: String::new(),
            observed_generation: Some(2),
            last_transition_time: None,
        }
    }

    fn route_statuses(parents: usize) -> Statuses {
        let parent = |index: usize| RouteParentStatus {
            parent_ref: serde_json::from_value(json!({"name": format!("gw{index}")})).unwrap(),
            controller_name: OURS.into(),
            conditions: vec![condition("Accepted")],
        };
        let status = RouteStatus {
            parents: (0..parents).map(parent).collect(),
        };
        let mut statuses = Statuses::default();
        statuses.http_routes.insert(key("HTTPRoute").name, Arc::new(status));
        statuses
    }

    fn merged(write: Option<Write>) -> Value {
        match write {
            Some(Write::Merge(value)) => value,
            other => panic!("no merge patch: {other:?}"),
        }
    }

    /// The object after a merge patch, as the API server makes it.
    fn patched(old: &Value, patch: &Value) -> Value {
        let mut new = old.clone();
        for (field, value) in patch["status"].as_object().unwrap() {
            if value.is_null() {
                new.as_object_mut().unwrap().remove(field);
            } else {
                new[field] = value.clone();
            }
        }
        new
    }

    #[test]
    fn a_route_is_written_once_with_the_version_it_was_read_at() {
        let key = key("HTTPRoute");
        let statuses = route_statuses(1);
        let patch = merged(check(&key, &statuses, &standing(&json!({"parents": []}), false)));
        assert_eq!(patch["metadata"], json!({"resourceVersion": "7", "uid": "u"}));
        let written = patched(&json!({}), &patch);
        assert_eq!(check(&key, &statuses, &standing(&written, true)), None);
        let gone = merged(check(&key, &Statuses::default(), &standing(&written, true)));
        assert_eq!(gone["status"], json!({"parents": []}));
        assert_eq!(
            check(&key, &Statuses::default(), &standing(&json!({"parents": []}), true)),
            None
        );
        assert_eq!(check(&key, &Statuses::default(), &standing(&Value::Null, false)), None);
    }

    #[test]
    fn entries_of_others_stay_and_leave_room_for_so_many_of_ours() {
        let foreign: Vec<Value> = (0..31)
            .map(|index| json!({"controllerName": "other", "parentRef": {"name": index.to_string()}, "conditions": []}))
            .collect();
        let patch = merged(check(
            &key("HTTPRoute"),
            &route_statuses(3),
            &standing(&json!({"parents": foreign}), false),
        ));
        let parents = patch["status"]["parents"].as_array().unwrap();
        assert_eq!(parents.len(), 32);
        assert_eq!(parents[..31], foreign);
        assert_eq!(parents[31]["parentRef"]["name"], "gw0");
    }

    #[test]
    fn a_gateway_loses_the_addresses_it_no_longer_has() {
        let key = key("Gateway");
        let status = |addresses: &[&str]| GatewayStatus {
            addresses: addresses
                .iter()
                .map(|value| GatewayStatusAddress {
                    kind: "IPAddress".into(),
                    value: (*value).into(),
                    routability: None,
                })
                .collect(),
            conditions: vec![condition("Accepted"), condition("Programmed")],
            ..GatewayStatus::default()
        };
        let mut statuses = Statuses::default();
        statuses.gateways.insert(key.name.clone(), status(&["10.0.0.1"]));
        let default = json!({"conditions": [
            {"type": "Accepted", "status": "Unknown", "reason": "Pending", "message": "Waiting for controller", "lastTransitionTime": "1970-01-01T00:00:00Z"},
            {"type": "x/Foreign", "status": "True"},
        ]});
        let patch = merged(check(&key, &statuses, &standing(&default, false)));
        let conditions = patch["status"]["conditions"].as_array().unwrap();
        assert_eq!(
            conditions
                .iter()
                .map(|one| one["type"].as_str().unwrap())
                .collect::<Vec<_>>(),
            ["Accepted", "x/Foreign", "Programmed"]
        );
        assert_eq!(conditions[1], default["conditions"][1]);
        let written = patched(&default, &patch);
        assert_eq!(check(&key, &statuses, &standing(&written, true)), None);
        statuses.gateways.insert(key.name.clone(), status(&[]));
        let patch = merged(check(&key, &statuses, &standing(&written, true)));
        assert_eq!(patch["status"], json!({"addresses": null}));
        assert_eq!(
            check(&key, &statuses, &standing(&patched(&written, &patch), true)),
            None
        );
    }

    #[test]
    fn a_gateway_that_left_us_no_longer_claims_to_be_programmed() {
        let key = key("Gateway");
        let old = json!({
            "addresses": [{"type": "IPAddress", "value": "10.0.0.1"}],
            "conditions": [{"type": "Programmed", "status": "True", "observedGeneration": 1}, {"type": "x/Foreign", "status": "True"}],
            "listeners": [{"name": "http"}]
        });
        let none = Statuses::default();
        assert_eq!(check(&key, &none, &standing(&old, false)), None, "never ours");
        let patch = merged(check(&key, &none, &standing(&old, true)));
        let new = patched(&old, &patch);
        assert!(
            new.get("addresses").is_none() && new.get("listeners").is_none(),
            "{new}"
        );
        assert_eq!(new["conditions"][0]["status"], "Unknown");
        assert_eq!(new["conditions"][1], old["conditions"][1]);
        assert_eq!(check(&key, &none, &standing(&new, true)), None);
    }

    #[test]
    fn an_ingress_is_cleared_only_of_what_we_wrote() {
        let key = key("Ingress");
        let points = |ips: &[&str]| IngressStatus {
            load_balancer: Some(IngressLoadBalancerStatus {
                ingress: Some(
                    ips.iter()
                        .map(|ip| IngressLoadBalancerIngress {
                            ip: Some((*ip).into()),
                            ..IngressLoadBalancerIngress::default()
                        })
                        .collect(),
                ),
            }),
        };
        let mut statuses = Statuses::default();
        statuses.ingresses.insert(key.name.clone(), points(&["192.0.2.1"]));
        let stale = json!({"loadBalancer": {"ingress": [{"ip": "198.51.100.1"}]}});
        let Some(Write::Apply(body)) = check(&key, &statuses, &standing(&stale, false)) else {
            panic!("not written")
        };
        assert_eq!(
            body["status"],
            json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}})
        );
        assert_eq!(check(&key, &statuses, &standing(&body["status"], true)), None);
        let none = Statuses::default();
        assert_eq!(check(&key, &none, &standing(&stale, false)), None, "another's");
        let Some(Write::Apply(cleared)) = check(&key, &none, &standing(&body["status"], true)) else {
            panic!("not cleared")
        };
        assert_eq!(cleared["status"], json!({}));
        statuses.ingresses.insert(key.name.clone(), points(&[]));
        assert_eq!(
            check(&key, &statuses, &standing(&json!({"loadBalancer": {}}), false)),
            None
        );
    }
}
