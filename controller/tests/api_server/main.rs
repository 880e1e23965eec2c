//! The control plane against a real API server: part of the cluster tier, which tells where the programs of
//! `cargo xtask cluster` and the CRDs of the Gateway API are.

mod bad_input;
mod controller;
mod pace;
mod rotation;
mod server;
mod services;
mod terms;
mod trust;

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use controller::{BASE, Controller, SOON, gateway_is_programmed, is_told, route, route_is_accepted};
use server::{ApiServer, eventually};

#[test]
fn statuses_are_written_and_what_others_wrote_stays() {
    let server = ApiServer::start();
    server.install_crds(&[]);
    server.apply(&format!("{BASE}{}", route("r", "a.example")));
    let foreign = json!({
        "controllerName": "example.com/other", "parentRef": {"name": "elsewhere"},
        "conditions": [{"type": "x/Odd", "status": "Unknown", "reason": "Odd", "message": "m", "observedGeneration": 1,
            "lastTransitionTime": "2020-01-01T00:00:00Z"}],
    });
    server.patch_status("httproute", "default", "r", &json!({"status": {"parents": [foreign]}}));
    let stale = json!({"type": "x/Stale", "status": "True", "reason": "Stale", "message": "m", "observedGeneration": 1,
        "lastTransitionTime": "2020-01-01T00:00:00Z"});
    server.patch_status("gateway", "default", "gw", &json!({"status": {"conditions": [stale]}}));

    let controller = Controller::start(&server, "a");
    controller.wait_until_it_leads();
    eventually(SOON, "the Gateway is programmed", || gateway_is_programmed(&server));
    eventually(SOON, "the route is accepted", || route_is_accepted(&server, "r"));
    let stored = server.get("httproute", "default", "r").unwrap();
    // The API server adds what the CRD defaults.
    let kept = json!({
        "controllerName": "example.com/other",
        "parentRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "elsewhere"},
        "conditions": foreign["conditions"],
    });
    assert_eq!(stored["status"]["parents"][0], kept);
    let gateway = server.get("gateway", "default", "gw").unwrap();
    let conditions = gateway["status"]["conditions"].as_array().unwrap();
    assert!(conditions.contains(&stale), "{conditions:?}");
    assert_eq!(
        gateway["status"]["addresses"],
        json!([{"type": "IPAddress", "value": "10.200.0.1"}])
    );

    // Nothing changes: nothing is written, however often what others write is seen.
    eventually(SOON, "everything is written", || {
        controller.values().status_pending == 0
    });
    thread::sleep(Duration::from_secs(1));
    let before = controller.values();
    server.kubectl(&["annotate", "httproute", "-n", "default", "r", "a=b"]);
    eventually(SOON, "the change was seen", || {
        controller.values().watch_events > before.watch_events
    });
    thread::sleep(Duration::from_secs(1));
    assert_eq!(controller.values().status_writes, before.status_writes);

    // It leaves the Gateway: our entry goes, theirs stays.
    server.patch(
        "httproute",
        "default",
        "r",
        &json!({"spec":{"parentRefs":[{"name":"elsewhere"}]}}),
    );
    eventually(SOON, "our entry is gone", || {
        let route = server.get("httproute", "default", "r").unwrap_or_default();
        route["status"]["parents"] == json!([kept])
    });
}

#[test]
fn an_ingress_has_addresses_for_as_long_as_it_is_ours() {
    let server = ApiServer::start();
    server.apply(
        "
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: pierhead}
spec: {controller: pierhead.dev/ingress-controller}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: other}
spec: {controller: example.com/other}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: ours, namespace: default}
spec:
  ingressClassName: pierhead
  defaultBackend: {service: {name: web, port: {number: 80}}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: foreign, namespace: default}
spec:
  ingressClassName: other
  defaultBackend: {service: {name: web, port: {number: 80}}}
",
    );
    let theirs = json!({"status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.9"}]}}});
    server.patch_status("ingress", "default", "foreign", &theirs);
    // Without any CRD of the Gateway API.
    let controller = Controller::start(&server, "a");
    controller.wait_until_it_leads();
    let addresses = |name: &str| {
        let ingress = server.get("ingress", "default", name).unwrap_or_default();
        ingress["status"]["loadBalancer"].clone()
    };
    let has_some = |name: &str| {
        addresses(name)["ingress"]
            .as_array()
            .is_some_and(|list| !list.is_empty())
    };
    eventually(SOON, "it has an address", || has_some("ours"));
    server.patch(
        "ingress",
        "default",
        "ours",
        &json!({"spec":{"ingressClassName":"other"}}),
    );
    eventually(SOON, "it has none any more", || !has_some("ours"));
    server.patch(
        "ingress",
        "default",
        "ours",
        &json!({"spec":{"ingressClassName":"pierhead"}}),
    );
    eventually(SOON, "it has an address again", || has_some("ours"));
    server.kubectl(&["delete", "ingressclass", "pierhead"]);
    eventually(SOON, "its class is gone, and so is the address", || !has_some("ours"));
    assert_eq!(addresses("foreign"), theirs["status"]["loadBalancer"]);
}

#[test]
fn kinds_that_are_missing_are_picked_up_when_they_come_and_let_go_when_they_go() {
    let server = ApiServer::start();
    server.install_crds(&["_httproutes", "_tcproutes"]);
    server.apply(BASE);
    let controller = Controller::start(&server, "a");
    controller.wait_until_it_leads();
    eventually(SOON, "the Gateway is programmed", || gateway_is_programmed(&server));
    server.install_crd_of("httproutes");
    server.apply(&route("r", "a.example"));
    eventually(SOON, "the route is accepted", || route_is_accepted(&server, "r"));
    server.kubectl(&["delete", "crd", "httproutes.gateway.networking.k8s.io"]);
    eventually(SOON, "no route is attached", || {
        let gateway = server.get("gateway", "default", "gw").unwrap_or_default();
        gateway["status"]["listeners"][0]["attachedRoutes"] == 0
    });
    server.install_crd_of("httproutes");
    server.apply(&route("again", "a.example"));
    eventually(SOON, "the new route is accepted", || {
        route_is_accepted(&server, "again")
    });
}

#[test]
fn one_leads_and_the_next_takes_over_at_once_or_after_the_lease_if_it_may_be_alive() {
    let server = ApiServer::start();
    server.install_crds(&[]);
    server.apply(BASE);
    let first = Controller::start(&server, "a");
    first.wait_until_it_leads();
    let second = Controller::start(&server, "b");
    eventually(SOON, "the second has read everything", || second.values().published > 0);
    eventually(SOON, "the Gateway is programmed", || gateway_is_programmed(&server));
    assert!(!second.values().leader);
    assert_eq!(second.values().status_writes, 0);
    let start = Instant::now();
    drop(first);
    eventually(Duration::from_secs(3), "the second leads", || second.values().leader);
    server.apply(&route("r", "a.example"));
    eventually(SOON, "the second writes", || route_is_accepted(&server, "r"));
    println!("led after {:?}", start.elapsed());

    let third = Controller::start(&server, "c");
    eventually(SOON, "the third has read everything", || third.values().published > 0);
    let start = Instant::now();
    second.die();
    eventually(Duration::from_secs(3), "the third leads", || third.values().leader);
    println!("led after {:?}", start.elapsed());

    // Who still answers may lead, as far as others know.
    let fourth = Controller::start(&server, "d");
    eventually(SOON, "the fourth has read everything", || fourth.values().published > 0);
    let start = Instant::now();
    let _answers = third.freeze();
    eventually(Duration::from_secs(18), "the fourth leads", || fourth.values().leader);
    assert!(
        start.elapsed() > Duration::from_secs(10),
        "not before the lease has ended"
    );
}

/// One that another has replaced, for whatever reason, learns so when it next looks.
#[test]
fn a_leader_whose_lease_is_taken_stops_at_its_next_renewal() {
    let server = ApiServer::start();
    server.install_crds(&[]);
    server.apply(BASE);
    let first = Controller::start(&server, "a");
    first.wait_until_it_leads();
    let taken = json!({"spec": {"holderIdentity": "somebody", "leaseDurationSeconds": 600}});
    let start = Instant::now();
    server.patch("lease", "pierhead-system", "pierhead-controller", &taken);
    eventually(Duration::from_secs(3), "it does not lead any more", || {
        !first.values().leader
    });
    println!("stopped after {:?}", start.elapsed());
    // It has no way to ask the other one.
    thread::sleep(Duration::from_secs(4));
    assert!(!first.values().leader);
}

#[test]
fn a_status_that_is_refused_neither_spins_nor_blocks_and_is_told() {
    let server = ApiServer::start();
    server.install_crds(&[]);
    server.apply(
        "
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: refuse}
spec:
  matchConstraints:
    resourceRules:
    - {apiGroups: [gateway.networking.k8s.io], apiVersions: ['*'], operations: [UPDATE], resources: [httproutes/status]}
  validations:
  - {expression: \"object.metadata.name != 'refused'\", message: this one never}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: refuse}
spec: {policyName: refuse, validationActions: [Deny]}
",
    );
    server.apply(BASE);
    // A policy takes effect a moment after it is there.
    thread::sleep(Duration::from_secs(2));
    let controller = Controller::start(&server, "a");
    controller.wait_until_it_leads();
    server.apply(&format!(
        "{}{}",
        route("refused", "a.example"),
        route("fine", "b.example")
    ));
    eventually(SOON, "the other is written", || route_is_accepted(&server, "fine"));
    eventually(SOON, "it is told in an event", || {
        is_told(&server, "default", "refused", "this one never")
    });
    let before = controller.values().status_errors;
    thread::sleep(Duration::from_secs(5));
    let errors = controller.values().status_errors - before;
    assert!(errors <= 5, "{errors} attempts in 5 s");
    server.kubectl(&["delete", "validatingadmissionpolicybinding", "refuse"]);
    eventually(Duration::from_secs(70), "it is written when it may be", || {
        route_is_accepted(&server, "refused")
    });
}

#[test]
fn an_api_server_that_goes_away_and_comes_back_is_followed_on() {
    let mut server = ApiServer::start();
    server.install_crds(&[]);
    server.apply(BASE);
    let controller = Controller::start(&server, "a");
    controller.wait_until_it_leads();
    eventually(SOON, "the Gateway is programmed", || gateway_is_programmed(&server));
    let before = controller.values();
    server.down();
    thread::sleep(Duration::from_secs(15));
    let during = controller.values();
    assert!(!during.leader, "it cannot renew");
    assert!(!during.failing.is_empty());
    assert_eq!(during.published, before.published, "what was known stays in force");
    assert_eq!(controller.registry.nodes().borrow().connected().count(), 1);
    server.up();
    server.apply(&route("r", "a.example"));
    eventually(SOON, "it leads again", || controller.values().leader);
    eventually(SOON, "the new route is accepted", || route_is_accepted(&server, "r"));
    eventually(SOON, "every watch works", || controller.values().failing.is_empty());
}
