//! Statuses meet what other controllers wrote (gateway-api.md §3.4, the three `*PreserveForeign*` tests of the suite).

use k8s_openapi::jiff::Timestamp;
use pierhead_gateway_api::{
    Condition, ConditionStatus, GatewayStatus, ListenerStatus, ParentReference, RouteParentStatus, RouteStatus, merge,
};
use serde_json::{Value, json};

const OURS: &str = "pierhead.dev/gateway-controller";

fn now() -> Timestamp {
    "2026-11-23T12:00:00Z".parse().expect("a timestamp")
}

fn condition(kind: &str, status: ConditionStatus, generation: i64) -> Condition {
    Condition {
        kind: kind.to_owned(),
        status,
        reason: kind.to_owned(),
        message: String::new(),
        observed_generation: Some(generation),
        last_transition_time: None,
    }
}

fn parent(name: &str) -> ParentReference {
    serde_json::from_value(json!({ "name": name })).expect("a reference")
}

fn stale() -> Value {
    json!({
        "type": "conformance.gateway.networking.k8s.io/StaleCondition", "status": "True", "reason": "Stale",
        "message": "left alone", "observedGeneration": 1, "lastTransitionTime": "2020-01-01T00:00:00Z", "extra": [1, 2]
    })
}

#[test]
fn entries_of_other_controllers_survive_byte_for_byte_and_ours_are_replaced() {
    let foreign = json!({
        "controllerName": "gateway.networking.k8s.io/stale-controller", "parentRef": {"name": "gone", "odd": {"b": 1, "a": 2}},
        "conditions": [stale()]
    });
    let old = json!({ "parents": [
        {"controllerName": OURS, "parentRef": {"name": "left"}, "conditions": []},
        foreign,
        {"controllerName": OURS, "parentRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "web"},
         "conditions": [{"type": "Accepted", "status": "True", "reason": "x", "message": "", "lastTransitionTime": "2021-01-01T00:00:00Z"}]},
    ]});
    let ours = RouteStatus {
        parents: vec![RouteParentStatus {
            parent_ref: parent("web"),
            controller_name: OURS.to_owned(),
            conditions: vec![
                condition("Accepted", ConditionStatus::True, 4),
                condition("ResolvedRefs", ConditionStatus::False, 4),
            ],
        }],
    };
    let merged = merge::route(Some(&old), &ours, OURS, now());
    let parents = merged["parents"].as_array().expect("a list");
    assert_eq!(parents.len(), 2, "{merged}");
    assert_eq!(parents[0].to_string(), foreign.to_string());
    let conditions = &parents[1]["conditions"];
    assert_eq!(
        conditions[0]["lastTransitionTime"], "2021-01-01T00:00:00Z",
        "the status did not change"
    );
    assert_eq!(conditions[0]["observedGeneration"], 4);
    assert_eq!(conditions[1]["lastTransitionTime"], "2026-11-23T12:00:00Z");
    assert_eq!(
        merge::route(
            Some(&merged),
            &ours,
            OURS,
            "2027-01-01T00:00:00Z".parse().expect("a time")
        ),
        merged
    );
}

#[test]
fn a_route_that_left_keeps_only_what_others_wrote() {
    let old = json!({ "parents": [{"controllerName": OURS, "parentRef": {"name": "web"}, "conditions": []}] });
    assert_eq!(
        merge::route(Some(&old), &RouteStatus::default(), OURS, now()),
        json!({ "parents": [] })
    );
}

#[test]
fn foreign_conditions_stay_and_ours_that_are_gone_go() {
    let old = json!({
        "conditions": [stale(), {"type": "InsecureFrontendValidationMode", "status": "True"}],
        "listeners": [{"name": "http", "conditions": [stale(), {"type": "Conflicted", "status": "True"}]}, {"name": "gone", "conditions": [stale()]}],
    });
    let ours = GatewayStatus {
        conditions: vec![condition("Accepted", ConditionStatus::True, 2)],
        listeners: vec![ListenerStatus {
            name: "http".to_owned(),
            supported_kinds: Vec::new(),
            attached_routes: 0,
            conditions: vec![condition("Accepted", ConditionStatus::True, 2)],
        }],
        ..GatewayStatus::default()
    };
    let merged = merge::gateway(Some(&old), &ours, now());
    for conditions in [&merged["conditions"], &merged["listeners"][0]["conditions"]] {
        let conditions = conditions.as_array().expect("a list");
        assert_eq!(conditions.len(), 2, "{merged}");
        assert_eq!(conditions[0].to_string(), stale().to_string());
        assert_eq!(conditions[1]["type"], "Accepted");
    }
    assert_eq!(merged["listeners"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        merged["listeners"][0]["supportedKinds"],
        json!([]),
        "written also when empty"
    );
}

#[test]
fn a_newer_generation_is_never_lowered() {
    let newer = json!([{"type": "Accepted", "status": "False", "reason": "Newer", "observedGeneration": 9}]);
    let merged = merge::conditions(
        Some(&newer),
        &[condition("Accepted", ConditionStatus::True, 8)],
        &[],
        now(),
    );
    assert_eq!(merged, newer);
}
