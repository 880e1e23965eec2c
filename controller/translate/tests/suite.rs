//! Every object of the official conformance suite (v1.7.0) in one world: nothing is forgotten in status, and what the
//! suite asserts about Gateways and ListenerSets without traffic holds.

use std::{fs, path::Path, sync::Arc};

use pierhead_gateway_api::{Condition, ListenerStatus};
use pierhead_translate::{ObjectName, Settings, Translation, World, translate};
use serde::de::DeserializeOwned;
use serde_json::Value;

const INFRA: &str = "gateway-conformance-infra";

/// The objects of one test, or of all at once.
fn suite(file: Option<&str>) -> Translation {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gateway-api/testdata/conformance.jsonl");
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut world = World::default();
    for line in text.replace("{GATEWAY_CLASS_NAME}", "pierhead").lines() {
        let mut object: Value = serde_json::from_str(line).expect("JSON");
        if file.is_none_or(|file| object["file"] == format!("tests/{file}.yaml")) {
            put(&mut world, object["object"].take());
        }
    }
    let mut settings = Settings::new("2026-11-23T12:00:00Z".parse().expect("a timestamp"));
    settings.implied_class = Some("pierhead".into());
    settings.address_pools = vec!["198.18.0.0/22".parse().expect("a prefix")];
    translate(&world, &settings)
}

fn put(world: &mut World, object: Value) {
    let text = |pointer: &str| {
        object
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let (kind, namespace, name) = (text("/kind"), text("/metadata/namespace"), text("/metadata/name"));
    fn read<T: DeserializeOwned>(object: Value) -> Arc<T> {
        Arc::new(serde_json::from_value(object).expect("an object of the suite"))
    }
    macro_rules! kinds {
        ($($text:literal $field:ident,)*) => {
            match kind.as_str() {
                $($text => { world.$field.insert(&namespace, &name, read(object)); })*
                other => panic!("kind {other}"),
            }
        };
    }
    kinds! {
        "BackendTLSPolicy" backend_tls_policies,
        "GRPCRoute" grpc_routes,
        "Gateway" gateways,
        "GatewayClass" gateway_classes,
        "HTTPRoute" http_routes,
        "ListenerSet" listener_sets,
        "ReferenceGrant" reference_grants,
        "TCPRoute" tcp_routes,
        "TLSRoute" tls_routes,
        "UDPRoute" udp_routes,
    }
}

fn says(conditions: &[Condition], kind: &str) -> String {
    let found = conditions.iter().find(|c| c.kind == kind);
    found.map_or_else(|| "absent".to_owned(), |c| format!("{} {}", c.status, c.reason))
}

fn listener<'s>(listeners: &'s [ListenerStatus], name: &str) -> &'s ListenerStatus {
    listeners
        .iter()
        .find(|l| l.name == name)
        .unwrap_or_else(|| panic!("listener {name}"))
}

fn infra(name: &str) -> ObjectName {
    ObjectName::new(INFRA, name)
}

#[test]
fn every_object_of_ours_has_all_its_conditions() {
    let statuses = suite(None).statuses;
    assert!(statuses.gateways.len() > 90, "{}", statuses.gateways.len());
    for (name, status) in &statuses.gateways {
        for kind in ["Accepted", "Programmed", "ResolvedRefs"] {
            assert_ne!(says(&status.conditions, kind), "absent", "{name} {kind}");
        }
    }
    let sets = statuses.listener_sets.values().flat_map(|s| &s.listeners);
    for listener in statuses.gateways.values().flat_map(|s| &s.listeners).chain(sets) {
        for kind in ["Accepted", "Programmed", "ResolvedRefs"] {
            assert_ne!(says(&listener.conditions, kind), "absent", "{} {kind}", listener.name);
        }
    }
    let routes = [
        &statuses.http_routes,
        &statuses.grpc_routes,
        &statuses.tls_routes,
        &statuses.tcp_routes,
        &statuses.udp_routes,
    ];
    assert!(routes.iter().map(|r| r.len()).sum::<usize>() > 150);
    for (name, status) in routes.into_iter().flatten() {
        for parent in &status.parents {
            assert_eq!(parent.controller_name, "pierhead.dev/gateway-controller");
            for kind in ["Accepted", "ResolvedRefs"] {
                assert_ne!(says(&parent.conditions, kind), "absent", "{name} {kind}");
            }
        }
    }
}

#[test]
fn listeners_and_sets_say_what_the_suite_asserts() {
    let protocols = suite(Some("gateway-invalid-listeners-unsupported-protocol"))
        .statuses
        .gateways;
    for (name, accepted) in [
        ("gateway-only-unsupported-protocols", "False ListenersNotValid"),
        ("gateway-supported-and-unsupported-protocols", "True ListenersNotValid"),
    ] {
        assert_eq!(says(&protocols[&infra(name)].conditions, "Accepted"), accepted);
    }

    let kinds = suite(Some("gateway-invalid-route-kind")).statuses.gateways;
    let http = listener(&kinds[&infra("gateway-only-invalid-route-kind")].listeners, "http");
    assert_eq!(says(&http.conditions, "ResolvedRefs"), "False InvalidRouteKinds");
    assert!(http.supported_kinds.is_empty());

    for (name, listeners) in [
        (
            "gateway-secret-missing-reference-grant",
            &["https", "https-nonexistent-secret"][..],
        ),
        ("gateway-secret-invalid-reference-grant", &["https"][..]),
    ] {
        let gateways = suite(Some(name)).statuses.gateways;
        for l in listeners {
            let listener = listener(&gateways[&infra(name)].listeners, l);
            assert_eq!(
                says(&listener.conditions, "ResolvedRefs"),
                "False RefNotPermitted",
                "{name}"
            );
        }
    }

    for (kind, reason) in [("protocol", "ProtocolConflict"), ("hostname", "HostnameConflict")] {
        let statuses = suite(Some(&format!("listenerset-{kind}-conflict"))).statuses;
        let gateway = &statuses.gateways[&infra(&format!("gateway-with-listenerset-{kind}-conflict"))];
        assert_eq!(says(&gateway.conditions, "Accepted"), "True Accepted");
        assert_eq!(gateway.attached_listener_sets, Some(2));
        let set =
            |name: &str| &statuses.listener_sets[&infra(&format!("listenerset-with-{kind}-conflict-with-{name}"))];
        for (good, listeners) in [
            ("gateway-1", ["listener-set-1-listener", "gateway-listener"]),
            ("listener-set-1", ["listener-set-2-listener", "listener-set-listener"]),
        ] {
            let set = set(good);
            assert!(says(&set.conditions, "Accepted").starts_with("True"), "{kind} {good}");
            assert_eq!(says(&set.conditions, "Programmed"), "True Programmed");
            let fine = listener(&set.listeners, listeners[0]);
            assert_eq!(says(&fine.conditions, "Accepted"), "True Accepted", "{kind} {good}");
            assert_eq!(says(&fine.conditions, "Programmed"), "True Programmed");
            let lost = listener(&set.listeners, &format!("{kind}-conflict-with-{}", listeners[1]));
            assert_eq!(says(&lost.conditions, "Accepted"), format!("False {reason}"));
            assert_eq!(says(&lost.conditions, "Programmed"), format!("False {reason}"));
            assert_eq!(says(&lost.conditions, "Conflicted"), format!("True {reason}"));
        }
        for bad in ["gateway-2", "listener-set-2"] {
            assert_eq!(
                says(&set(bad).conditions, "Accepted"),
                "False ListenersNotValid",
                "{kind} {bad}"
            );
            assert_eq!(
                says(&set(bad).conditions, "Programmed"),
                "False ListenersNotValid",
                "{kind} {bad}"
            );
        }
    }
}
