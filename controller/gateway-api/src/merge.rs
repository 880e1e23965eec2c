//! Brings a status we computed together with the status an object has.
//!
//! Conditions of types we do not write, and `parents` or `ancestors` of other controllers, survive byte for byte. Those
//! lists are atomic to the API server, so they are read, modified and written as a whole. Pure: the time is an argument.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{Condition, GatewayClassStatus, GatewayStatus, ListenerSetStatus, PolicyStatus, RouteStatus};

/// Conditions that exist, with ours replaced or added. An unchanged status keeps its time (Kubernetes API conventions:
/// `lastTransitionTime` changes with `status` only). `sometimes` lists types of ours that are absent at times.
pub fn conditions(old: Option<&Value>, ours: &[Condition], sometimes: &[&str], now: Timestamp) -> Value {
    let old = old.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let kind = |value: &Value| value.get("type").and_then(Value::as_str).map(str::to_owned);
    let mut merged: Vec<Value> = Vec::with_capacity(old.len() + ours.len());
    for existing in old {
        let name = kind(existing);
        match ours.iter().find(|c| Some(&c.kind) == name.as_ref()) {
            Some(new) => merged.push(stamped(Some(existing), new, now)),
            None if name.as_deref().is_some_and(|n| sometimes.contains(&n)) => {}
            None => merged.push(existing.clone()),
        }
    }
    for new in ours {
        if !old.iter().any(|existing| kind(existing).as_ref() == Some(&new.kind)) {
            merged.push(stamped(None, new, now));
        }
    }
    Value::Array(merged)
}

fn stamped(old: Option<&Value>, new: &Condition, now: Timestamp) -> Value {
    if let Some(old) = old {
        // "Never lower an observedGeneration greater than the one we know" (§6.3, Gateway conditions).
        let seen = old.get("observedGeneration").and_then(Value::as_i64).unwrap_or(0);
        if seen > new.observed_generation.unwrap_or(0) {
            return old.clone();
        }
    }
    let kept = old
        .filter(|o| o.get("status").and_then(Value::as_str) == Some(new.status.as_str()))
        .and_then(|o| o.get("lastTransitionTime"));
    let mut value = json(&Condition {
        last_transition_time: Some(Time(now)),
        ..new.clone()
    });
    if let (Some(kept), Some(fields)) = (kept, value.as_object_mut()) {
        fields.insert("lastTransitionTime".to_owned(), kept.clone());
    }
    value
}

/// The typed statuses serialise into JSON without exception: their keys are strings.
fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// Condition types that we write at some times only: one that we no longer say is removed.
const SOMETIMES: &[&str] = &[
    "InsecureFrontendValidationMode",
    "OverlappingTLSConfig",
    "PartiallyInvalid",
    "Conflicted",
    "AddressesAssigned",
    "ResolvedRefs",
];

/// The `status` to write for a Gateway.
pub fn gateway(old: Option<&Value>, ours: &GatewayStatus, now: Timestamp) -> Value {
    let mut status = json(ours);
    set(
        &mut status,
        "conditions",
        conditions(old.and_then(|o| o.get("conditions")), &ours.conditions, SOMETIMES, now),
    );
    listeners(
        old,
        &mut status,
        ours.listeners
            .iter()
            .map(|l| (l.name.as_str(), l.conditions.as_slice())),
        now,
    );
    status
}

/// The `status` to write for a ListenerSet.
pub fn listener_set(old: Option<&Value>, ours: &ListenerSetStatus, now: Timestamp) -> Value {
    let mut status = json(ours);
    set(
        &mut status,
        "conditions",
        conditions(old.and_then(|o| o.get("conditions")), &ours.conditions, SOMETIMES, now),
    );
    listeners(
        old,
        &mut status,
        ours.listeners
            .iter()
            .map(|l| (l.name.as_str(), l.conditions.as_slice())),
        now,
    );
    status
}

/// The `status` to write for a GatewayClass.
pub fn gateway_class(old: Option<&Value>, ours: &GatewayClassStatus, now: Timestamp) -> Value {
    let mut status = json(ours);
    set(
        &mut status,
        "conditions",
        conditions(old.and_then(|o| o.get("conditions")), &ours.conditions, SOMETIMES, now),
    );
    status
}

fn set(status: &mut Value, key: &str, value: Value) {
    if let Some(fields) = status.as_object_mut() {
        fields.insert(key.to_owned(), value);
    }
}

fn listeners<'a>(
    old: Option<&Value>,
    status: &mut Value,
    ours: impl Iterator<Item = (&'a str, &'a [Condition])>,
    now: Timestamp,
) {
    let known = old.and_then(|o| o.get("listeners")).and_then(Value::as_array);
    let Some(list) = status.get_mut("listeners").and_then(Value::as_array_mut) else {
        return;
    };
    for (entry, (name, new)) in list.iter_mut().zip(ours) {
        let before = known
            .and_then(|l| l.iter().find(|e| e.get("name").and_then(Value::as_str) == Some(name)))
            .and_then(|e| e.get("conditions"));
        set(entry, "conditions", conditions(before, new, SOMETIMES, now));
    }
}

/// The `status` to write for a route of any kind: entries of other controllers first, as they are, then ours.
pub fn route(old: Option<&Value>, ours: &RouteStatus, controller: &str, now: Timestamp) -> Value {
    entries(
        old,
        ("parents", "parentRef"),
        ours.parents
            .iter()
            .map(|p| (json(p), p.conditions.as_slice()))
            .collect(),
        controller,
        now,
    )
}

/// The `status` to write for a policy.
pub fn policy(old: Option<&Value>, ours: &PolicyStatus, controller: &str, now: Timestamp) -> Value {
    entries(
        old,
        ("ancestors", "ancestorRef"),
        ours.ancestors
            .iter()
            .map(|p| (json(p), p.conditions.as_slice()))
            .collect(),
        controller,
        now,
    )
}

fn entries(
    old: Option<&Value>,
    (list, reference): (&str, &str),
    ours: Vec<(Value, &[Condition])>,
    controller: &str,
    now: Timestamp,
) -> Value {
    let before = old
        .and_then(|o| o.get(list))
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    let is_ours = |entry: &&Value| entry.get("controllerName").and_then(Value::as_str) == Some(controller);
    let mut merged: Vec<Value> = before.iter().filter(|e| !is_ours(e)).cloned().collect();
    for (mut entry, new) in ours {
        let previous = before
            .iter()
            .filter(is_ours)
            .find(|e| e.get(reference) == entry.get(reference))
            .and_then(|e| e.get("conditions"));
        set(&mut entry, "conditions", conditions(previous, new, SOMETIMES, now));
        merged.push(entry);
    }
    Value::Object(Map::from_iter([(list.to_owned(), Value::Array(merged))]))
}
