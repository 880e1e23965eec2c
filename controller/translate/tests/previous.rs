//! A translation that knows the previous one says the same as one that does not, whatever changed in between.

use std::{collections::BTreeSet, sync::Arc};

use fastrand::Rng;
use pierhead_translate::{Objects, Settings, World, translate, translate_from};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn one<T: Clone>(dice: &mut Rng, of: &[T]) -> T {
    of[dice.usize(..of.len())].clone()
}

const NAMESPACES: [&str; 2] = ["a", "b"];

fn put<T: DeserializeOwned>(objects: &mut Objects<T>, namespace: &str, name: &str, mut object: Value) {
    object["metadata"]["namespace"] = namespace.into();
    object["metadata"]["name"] = name.into();
    let object = serde_json::from_value(object).expect("an object");
    objects.insert(namespace, name, Arc::new(object));
}

#[allow(clippy::too_many_lines, reason = "one list of what can happen")]
fn edit(world: &mut World, dice: &mut Rng) -> String {
    let ns = one(dice, &NAMESPACES);
    let other = one(dice, &NAMESPACES);
    let name = one(dice, &["x", "y", "z"]);
    let service = one(dice, &["x", "y", "z", "absent"]);
    let kind = dice.usize(..14);
    if dice.usize(..4) == 0 {
        match kind {
            0 => drop(world.services.remove(ns, name)),
            1 => drop(world.endpoint_slices.remove(ns, name)),
            2 | 3 => drop(world.http_routes.remove(ns, name)),
            4 => drop(world.grpc_routes.remove(ns, name)),
            5 => drop(world.gateways.remove(ns, name)),
            6 => drop(world.reference_grants.remove(ns, name)),
            7 => drop(world.backend_tls_policies.remove(ns, name)),
            8 => drop(world.config_maps.remove(ns, name)),
            9 => drop(world.namespaces.remove("", ns)),
            10 => drop(world.listener_sets.remove(ns, name)),
            11 => drop(world.tcp_routes.remove(ns, name)),
            12 => drop(world.cluster_trust_bundles.remove("", name)),
            _ => drop(world.ingresses.remove(ns, name)),
        }
        return format!("remove {kind} {ns}/{name}");
    }
    let backend = || json!({"name": service, "namespace": other, "port": 80});
    let auth =
        || json!({"type": "ExternalAuth", "externalAuth": {"protocol": "HTTP", "backendRef": backend(), "http": {}}});
    let parent = json!({"name": one(dice, &["x", "y"]), "namespace": one(dice, &NAMESPACES)});
    let parent = match dice.usize(..4) {
        0 => json!({"kind": "ListenerSet", "name": "x", "namespace": ns}),
        _ => parent,
    };
    match kind {
        0 => {
            let spec = match dice.usize(..4) {
                0 => json!({"type": "ExternalName", "externalName": "out.example", "ports": [{"port": 80}]}),
                1 => json!({"ports": [{"port": 80, "appProtocol": "kubernetes.io/h2c"}]}),
                2 => json!({"ports": [{"port": 81}]}),
                _ => json!({"ports": [{"port": 80}]}),
            };
            put(&mut world.services, ns, name, json!({"metadata": {}, "spec": spec}));
        }
        1 => {
            let address = one(dice, &["10.0.0.1", "10.0.0.2", "224.0.0.1"]);
            let slice = json!({
                "metadata": {"labels": {"kubernetes.io/service-name": service}}, "addressType": "IPv4",
                "ports": [{"port": 8080}], "endpoints": [{"addresses": [address]}],
            });
            put(&mut world.endpoint_slices, ns, name, slice);
        }
        2 | 3 => {
            let mirror = json!({"type": "RequestMirror", "requestMirror": {"backendRef": backend()}});
            let odd = json!({"type": "Unknown"});
            let filters = one(dice, &[vec![], vec![mirror], vec![odd], vec![auth()]]);
            let hosts = one(
                dice,
                &[vec![], vec!["a.example"], vec!["*.example"], vec!["not a host"]],
            );
            let route = json!({"metadata": {}, "spec": {
                "parentRefs": [parent], "hostnames": hosts,
                "rules": [{"filters": filters, "backendRefs": [backend(), {"name": one(dice, &["x", "y"]), "port": 80}]}],
            }});
            put(&mut world.http_routes, ns, name, route);
        }
        4 => {
            let route =
                json!({"metadata": {}, "spec": {"parentRefs": [parent], "rules": [{"backendRefs": [backend()]}]}});
            put(&mut world.grpc_routes, ns, name, route);
        }
        5 => {
            let from = one(dice, &["All", "Same", "None"]);
            let selector = json!({"namespaces": {"from": "Selector", "selector": {"matchLabels": {"team": "blue"}}}});
            let allowed = one(dice, &[json!({"namespaces": {"from": from}}), selector]);
            let mut listener =
                json!({"name": "l", "port": one(dice, &[80, 81]), "protocol": "HTTP", "allowedRoutes": allowed});
            if dice.usize(..2) == 0 {
                listener["hostname"] = one(dice, &["a.example", "*.example"]).into();
            }
            if dice.usize(..5) == 0 {
                listener["protocol"] = "TCP".into();
            }
            if dice.usize(..3) == 0 {
                listener["filters"] = json!({"requests": [auth()]});
            }
            let gateway = json!({"metadata": {}, "spec": {
                "gatewayClassName": one(dice, &["pierhead", "pierhead", "other"]), "listeners": [listener],
                "allowedListeners": {"namespaces": {"from": from}},
            }});
            put(&mut world.gateways, ns, name, gateway);
        }
        6 => {
            let from = one(dice, &["HTTPRoute", "GRPCRoute"]);
            let grant = json!({"metadata": {}, "spec": {
                "from": [{"group": "gateway.networking.k8s.io", "kind": from, "namespace": other}],
                "to": [{"group": "", "kind": "Service"}],
            }});
            put(&mut world.reference_grants, ns, name, grant);
        }
        7 => {
            let validation = one(
                dice,
                &[
                    json!({"hostname": "s.example", "wellKnownCACertificates": "System"}),
                    json!({"hostname": "s.example", "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "x"}]}),
                    json!({"hostname": "s.example", "caCertificateRefs": [
                        {"group": "certificates.k8s.io", "kind": "ClusterTrustBundle", "name": "x"},
                    ]}),
                ],
            );
            let policy = json!({"metadata": {}, "spec": {
                "targetRefs": [{"group": "", "kind": "Service", "name": service}], "validation": validation,
            }});
            put(&mut world.backend_tls_policies, ns, name, policy);
        }
        8 => {
            let text = one(dice, &[pem(), "nothing".to_owned()]);
            put(
                &mut world.config_maps,
                ns,
                name,
                json!({"metadata": {}, "data": {"ca.crt": text}}),
            );
        }
        9 => {
            let labels = json!({"team": one(dice, &["blue", "green"])});
            let object = serde_json::from_value(json!({"metadata": {"name": ns, "labels": labels}}));
            world.namespaces.insert("", ns, Arc::new(object.expect("a Namespace")));
        }
        10 => {
            let set = json!({"metadata": {}, "spec": {
                "parentRef": {"name": "x", "namespace": other},
                "listeners": [{"name": "s", "port": 82, "protocol": "HTTP"}],
            }});
            put(&mut world.listener_sets, ns, name, set);
        }
        11 => {
            let route =
                json!({"metadata": {}, "spec": {"parentRefs": [parent], "rules": [{"backendRefs": [backend()]}]}});
            put(&mut world.tcp_routes, ns, name, route);
        }
        12 => {
            let text = one(dice, &[pem(), "nothing".to_owned()]);
            put_cluster_trust_bundle(world, name, &text);
        }
        _ => {
            let backend = json!({"service": {"name": service, "port": {"number": 80}}});
            let host = one(dice, &["a.example", "b.example"]);
            let ingress = json!({"metadata": {}, "spec": {"ingressClassName": "pierhead", "rules": [{
                "host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]},
            }]}});
            put(&mut world.ingresses, ns, name, ingress);
        }
    }
    format!("put {kind} {ns}/{name}")
}

fn pem() -> String {
    let ca = include_str!("../testdata/lib/ca.yaml");
    let lines = ca.lines().skip_while(|line| !line.contains("-----BEGIN"));
    lines.map(str::trim).collect::<Vec<_>>().join("\n")
}

fn put_cluster_trust_bundle(world: &mut World, name: &str, pem: &str) {
    let bundle = serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"trustBundle": pem}}));
    let bundle = Arc::new(bundle.expect("a ClusterTrustBundle"));
    world.cluster_trust_bundles.insert("", name, bundle);
}

fn settings() -> Settings {
    let mut settings = Settings::new("2026-11-23T12:00:00Z".parse().expect("a timestamp"));
    settings.implied_class = Some("pierhead".into());
    settings.machine_addresses = vec!["192.0.2.1".parse().expect("an address")];
    settings
}

#[test]
fn the_previous_translation_changes_nothing() {
    let settings = settings();
    let (mut kept, mut reached) = (0, BTreeSet::new());
    for seed in 0..25 {
        let mut dice = Rng::with_seed(seed);
        let mut world = World::default();
        for _ in 0..60 {
            edit(&mut world, &mut dice);
        }
        let mut previous = translate(&world, &settings);
        let mut edits = Vec::new();
        for _ in 0..60 {
            for _ in 0..=dice.usize(..2) {
                edits.push(edit(&mut world, &mut dice));
            }
            let expected = translate(&world, &settings);
            let actual = translate_from(&world, &settings, Some(&previous));
            assert!(
                actual == expected,
                "seed {seed}, after {edits:?}:\n{:#?}\n{:#?}",
                (&actual.snapshot, &actual.statuses, &actual.problems),
                (&expected.snapshot, &expected.statuses, &expected.problems),
            );
            for (name, status) in &actual.statuses.http_routes {
                let before = previous.statuses.http_routes.get(name);
                kept += usize::from(before.is_some_and(|before| Arc::ptr_eq(before, status)));
                let reasons = status.parents.iter().flat_map(|p| &p.conditions);
                reached.extend(reasons.map(|c| c.reason.clone()));
            }
            previous = actual;
        }
    }
    // The edits are no test if they reach nothing, or if nothing is ever remembered.
    for reason in [
        "Accepted",
        "ResolvedRefs",
        "RefNotPermitted",
        "BackendNotFound",
        "NotAllowedByListeners",
    ] {
        assert!(reached.contains(reason), "{reason} is not among {reached:?}");
    }
    assert!(kept > 500, "{kept} routes were remembered");
}

#[test]
fn only_what_reads_the_changed_service_is_translated_again() {
    let mut world = World::default();
    let gateway = json!({"metadata": {}, "spec": {"gatewayClassName": "pierhead", "listeners": [
        {"name": "http", "port": 80, "protocol": "HTTP"},
    ]}});
    put(&mut world.gateways, "a", "gateway", gateway);
    for name in ["x", "y"] {
        put(
            &mut world.services,
            "a",
            name,
            json!({"metadata": {}, "spec": {"ports": [{"port": 80}]}}),
        );
        let route = json!({"metadata": {}, "spec": {
            "parentRefs": [{"name": "gateway"}], "rules": [{"backendRefs": [{"name": name, "port": 80}]}],
        }});
        put(&mut world.http_routes, "a", name, route);
    }
    let first = translate(&world, &settings());
    let slice = json!({
        "metadata": {"labels": {"kubernetes.io/service-name": "x"}}, "addressType": "IPv4",
        "ports": [{"port": 8080}], "endpoints": [{"addresses": ["10.0.0.1"]}],
    });
    put(&mut world.endpoint_slices, "a", "slice", slice);
    let second = translate_from(&world, &settings(), Some(&first));
    let statuses = [&first, &second].map(|t| t.statuses.http_routes.values().cloned().collect::<Vec<_>>());
    assert_eq!(statuses[0], statuses[1]);
    assert!(!Arc::ptr_eq(&statuses[0][0], &statuses[1][0]), "x reads the slice");
    assert!(Arc::ptr_eq(&statuses[0][1], &statuses[1][1]), "y does not");
    let endpoints: Vec<usize> = second.snapshot.endpoints.values().map(|e| e.endpoints.len()).collect();
    assert_eq!(endpoints, [1, 0]);
}

/// "Follow updates, deletion (drop cached anchors at once) and recreation" (GEP-5075).
#[test]
fn trust_follows_a_cluster_trust_bundle() {
    let mut world = World::default();
    let gateway = json!({"metadata": {}, "spec": {"gatewayClassName": "pierhead", "listeners": [
        {"name": "http", "port": 80, "protocol": "HTTP"},
    ]}});
    put(&mut world.gateways, "a", "gateway", gateway);
    let service = json!({"metadata": {}, "spec": {"ports": [{"port": 80}]}});
    put(&mut world.services, "a", "x", service);
    let route = json!({"metadata": {}, "spec": {
        "parentRefs": [{"name": "gateway"}], "rules": [{"backendRefs": [{"name": "x", "port": 80}]}],
    }});
    put(&mut world.http_routes, "a", "x", route);
    let reference = json!({"group": "certificates.k8s.io", "kind": "ClusterTrustBundle", "name": "roots"});
    let policy = json!({"metadata": {}, "spec": {
        "targetRefs": [{"group": "", "kind": "Service", "name": "x"}],
        "validation": {"hostname": "s.example", "caCertificateRefs": [reference]},
    }});
    put(&mut world.backend_tls_policies, "a", "x", policy);
    let both = pem();
    let one = both
        .split_inclusive("-----END CERTIFICATE-----")
        .next()
        .expect("a certificate");

    let mut previous = translate(&world, &settings());
    for (text, expected) in [
        (None, 0),
        (Some(one), 1),
        (Some(&both), 2),
        (None, 0),
        (Some("x"), 0),
        (Some(one), 1),
    ] {
        match text {
            Some(text) => put_cluster_trust_bundle(&mut world, "roots", text),
            None => drop(world.cluster_trust_bundles.remove("", "roots")),
        }
        let next = translate_from(&world, &settings(), Some(&previous));
        let anchors: Vec<usize> = next
            .snapshot
            .trust
            .values()
            .map(|trust| trust.certificates.len())
            .collect();
        assert_eq!(anchors, if expected == 0 { vec![] } else { vec![expected] }, "{text:?}");
        let protected = next.snapshot.backends.values().all(|backend| {
            backend.tls.is_some() || matches!(backend.target, pierhead_model::BackendTarget::Invalid { .. })
        });
        assert!(protected, "never in plaintext");
        previous = next;
    }
}
