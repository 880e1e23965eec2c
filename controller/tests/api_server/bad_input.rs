//! What clusters throw at a controller: each thing hurts what names it, is told, and the rest is served.

use std::fmt::Write as _;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::controller::{
    BASE, Controller, OURS, SOON, condition, gateway_is_programmed, is_told, message, route, route_is_accepted,
};
use crate::server::{ApiServer, eventually};

/// As many as a Gateway may have.
const MOST_LISTENERS: usize = 64;

fn large_gateway() -> String {
    let mut text = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n\
                    metadata: {name: large, namespace: default}\nspec:\n  gatewayClassName: pierhead\n  listeners:\n"
        .to_owned();
    for index in 0..MOST_LISTENERS {
        let listener = format!("  - {{name: l{index}, port: 8000, protocol: HTTP, hostname: h{index}.example}}");
        writeln!(text, "{listener}").expect("a string takes it");
    }
    text
}

/// `tls.crt` is a megabyte of noise: about as large as the API server lets a Secret be.
fn large_secret() -> String {
    format!(
        "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: large, namespace: default}}\ntype: kubernetes.io/tls\n\
         stringData: {{tls.key: x}}\n\
         data: {{tls.crt: {}}}\n",
        "QUFB".repeat(349_000)
    )
}

/// Schemas have nothing against it.
const NONSENSE: &str = "
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: tls, namespace: default}
spec:
  gatewayClassName: pierhead
  listeners: [{name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: large}]}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: nonsense, namespace: default}
spec:
  parentRefs: [{name: gw}]
  rules: [{matches: [{path: {type: RegularExpression, value: '/(((a'}}], backendRefs: [{name: web, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: nowhere, namespace: default}
spec:
  parentRefs: [{name: gw}]
  hostnames: [nowhere.example]
  rules: [{backendRefs: [{name: missing, port: 80}]}]
";

/// Created by one call in the same second: of two for one port of one address, the first by name has it.
const SAME_SECOND: &str = "
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: shared-b, namespace: default}
spec:
  gatewayClassName: pierhead
  addresses: [{type: IPAddress, value: 10.200.0.77}]
  listeners: [{name: tcp, port: 9000, protocol: TCP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: shared-a, namespace: default}
spec:
  gatewayClassName: pierhead
  addresses: [{type: IPAddress, value: 10.200.0.77}]
  listeners: [{name: tcp, port: 9000, protocol: TCP}]
";

fn gateway(server: &ApiServer, name: &str) -> Value {
    server.get("gateway", "default", name).unwrap_or_default()
}

fn programmed(server: &ApiServer, name: &str) -> Option<String> {
    let gateway = gateway(server, name);
    condition(&gateway, &gateway["status"]["conditions"], "Programmed")
}

fn parent_condition(server: &ApiServer, route: &str, kind: &str) -> (Option<String>, String) {
    let route = server.get("httproute", "default", route).unwrap_or_default();
    let conditions = &route["status"]["parents"][0]["conditions"];
    (condition(&route, conditions, kind), message(conditions, kind))
}

#[test]
fn objects_that_make_no_sense_or_are_huge_hurt_only_themselves() {
    let server = ApiServer::start();
    server.install_crds(&[]);
    server.apply(BASE);
    let controller = Controller::start(&server, "a");
    controller.wait_until_it_leads();
    server.apply(&format!("{}{NONSENSE}{SAME_SECOND}{}", large_secret(), large_gateway()));
    server.apply(&route("good", "good.example"));
    eventually(SOON, "a good route is accepted all the same", || {
        route_is_accepted(&server, "good")
    });
    eventually(SOON, "every listener of a large Gateway is programmed", || {
        let large = gateway(&server, "large");
        let listeners = large["status"]["listeners"].as_array().cloned().unwrap_or_default();
        let programmed = |one: &&Value| condition(&large, &one["conditions"], "Programmed").as_deref() == Some("True");
        listeners.iter().filter(programmed).count() == MOST_LISTENERS
    });
    eventually(SOON, "a certificate of a megabyte of noise is refused", || {
        let tls = gateway(&server, "tls");
        let conditions = &tls["status"]["listeners"][0]["conditions"];
        condition(&tls, conditions, "ResolvedRefs").as_deref() == Some("False")
            && message(conditions, "ResolvedRefs").contains("large")
    });
    eventually(SOON, "and told", || is_told(&server, "default", "tls", "large"));
    eventually(SOON, "a pattern that is none is refused", || {
        let (status, _) = parent_condition(&server, "nonsense", "Accepted");
        status.as_deref() == Some("False")
    });
    eventually(SOON, "and told", || is_told(&server, "default", "nonsense", "(((a"));
    eventually(SOON, "a Service that is not there is named", || {
        let (status, message) = parent_condition(&server, "nowhere", "ResolvedRefs");
        status.as_deref() == Some("False") && message.contains("missing")
    });
    eventually(SOON, "the first by name has what both want", || {
        programmed(&server, "shared-a").as_deref() == Some("True")
            && programmed(&server, "shared-b").as_deref() == Some("False")
    });
    assert!(gateway_is_programmed(&server));
    eventually(SOON, "everything is written", || {
        controller.values().status_pending == 0
    });
    let writes = controller.values().status_writes;
    thread::sleep(Duration::from_secs(2));
    assert_eq!(controller.values().status_writes, writes, "and nothing over and over");
    assert_eq!(controller.values().status_errors, 0);
}

#[test]
fn objects_that_go_while_they_are_translated_and_written_leave_nothing_behind() {
    let server = ApiServer::start();
    server.install_crds(&[]);
    server.apply(&format!("{BASE}{}", route("stays", "stays.example")));
    let controller = Controller::start(&server, "a");
    controller.wait_until_it_leads();
    eventually(SOON, "the route is accepted", || route_is_accepted(&server, "stays"));
    let rest = [
        "delete",
        "httproute",
        "-n",
        "default",
        "--field-selector=metadata.name!=stays",
    ];
    for round in 0..4 {
        let routes: String = (0..80)
            .map(|index| route(&format!("goes-{round}-{index}"), &format!("h{round}-{index}.example")))
            .collect();
        thread::scope(|scope| {
            scope.spawn(|| server.apply(&routes));
            for _ in 0..3 {
                thread::sleep(Duration::from_millis(150));
                server.kubectl(&[&rest[..], &["--wait=false"]].concat());
            }
        });
    }
    server.kubectl(&rest);
    eventually(SOON, "one route is attached", || {
        gateway(&server, "gw")["status"]["listeners"][0]["attachedRoutes"] == 1
    });
    eventually(SOON, "nothing is left to write", || {
        controller.values().status_pending == 0
    });
    assert_eq!(controller.values().status_errors, 0, "to be gone is no error");
    let events = server.list("events", "default");
    let about = |event: &&Value| {
        event["involvedObject"]["name"]
            .as_str()
            .is_some_and(|name| name.starts_with("goes"))
    };
    assert_eq!(events.iter().filter(about).count(), 0);
    server.apply(&route("new", "new.example"));
    eventually(SOON, "a new one is accepted", || route_is_accepted(&server, "new"));
}

/// The API server no longer has the history since the last event that was seen: it says 410, and everything is read anew.
#[test]
fn what_happened_while_history_was_lost_is_found_out() {
    let mut server = ApiServer::start();
    server.install_crds(&[]);
    server.apply(&format!(
        "{BASE}{}{}",
        route("goes", "goes.example"),
        route("stays", "stays.example")
    ));
    let controller = Controller::start(&server, "a");
    controller.wait_until_it_leads();
    eventually(SOON, "both are attached", || {
        gateway(&server, "gw")["status"]["listeners"][0]["attachedRoutes"] == 2
    });
    eventually(SOON, "nothing is left to write", || {
        controller.values().status_pending == 0
    });
    let seen = server.get("httproute", "default", "goes").expect("it is there");
    let seen = seen["metadata"]["resourceVersion"]
        .as_str()
        .expect("a version")
        .to_owned();

    // Elsewhere, where the controller does not find it.
    let port = server.move_to(None);
    server.up();
    server.kubectl(&["delete", "httproute", "-n", "default", "goes"]);
    server.apply(&route("new", "new.example"));
    server.move_to(Some(port));
    server.up();
    // As the controller asks.
    let path =
        format!("/apis/gateway.networking.k8s.io/v1/httproutes?watch=true&timeoutSeconds=1&resourceVersion={seen}");
    let said = server.raw(&path);
    assert!(said.contains("410") || said.contains("too old"), "{said}");

    eventually(SOON, "the new one is accepted", || route_is_accepted(&server, "new"));
    eventually(SOON, "the other is forgotten", || {
        let gateway = gateway(&server, "gw");
        gateway["status"]["listeners"][0]["attachedRoutes"] == 2
    });
    eventually(SOON, "every watch works", || controller.values().failing.is_empty());
    assert!(route_is_accepted(&server, "stays"));
}

/// The usual fault of a webhook: it is registered, and nobody answers.
#[test]
fn a_webhook_that_nobody_answers_stops_only_the_statuses_it_is_for() {
    let server = ApiServer::start();
    server.install_crds(&[]);
    server.apply(
        "
apiVersion: v1
kind: Namespace
metadata: {name: guarded}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: down}
webhooks:
- name: down.example.com
  clientConfig: {url: 'https://127.0.0.1:1/validate'}
  admissionReviewVersions: [v1]
  sideEffects: None
  failurePolicy: Fail
  timeoutSeconds: 1
  namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: guarded}}
  rules: [{apiGroups: [gateway.networking.k8s.io], apiVersions: ['*'], operations: [UPDATE], resources: ['*/status']}]
",
    );
    server.apply(BASE);
    server.apply(&route("refused", "a.example").replace("default}", "guarded}").replace(
        "parentRefs: [{name: gw}]",
        "parentRefs: [{name: gw, namespace: default}]",
    ));
    server.patch(
        "gateway",
        "default",
        "gw",
        &serde_json::json!({"spec": {"listeners": [
            {"name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}}},
        ]}}),
    );
    // A configuration takes effect a moment after it is there.
    thread::sleep(Duration::from_secs(2));
    let controller = Controller::start(&server, "a");
    controller.wait_until_it_leads();
    server.apply(&route("fine", "b.example"));
    eventually(SOON, "the other is written", || route_is_accepted(&server, "fine"));
    eventually(SOON, "it is told in an event", || {
        is_told(&server, "guarded", "refused", "down.example.com")
    });
    assert!(gateway_is_programmed(&server));
    server.kubectl(&["delete", "validatingwebhookconfiguration", "down"]);
    eventually(Duration::from_secs(70), "it is written when it may be", || {
        let route = server.get("httproute", "guarded", "refused").unwrap_or_default();
        route["status"]["parents"][0]["controllerName"] == OURS
    });
}
