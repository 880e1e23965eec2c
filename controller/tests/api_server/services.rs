//! Addresses that a load balancer gives: the Service of a Gateway from its birth to its end, and what is somebody else's.

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::controller::{Controller, SOON, condition, is_told, message};
use crate::server::{ApiServer, eventually};

const CLASS: &str = "
apiVersion: pierhead.dev/v1alpha1
kind: GatewayParameters
metadata: {name: balancer, namespace: pierhead-system}
spec:
  addresses:
    type: Service
    service:
      labels: {team: platform, tier: edge}
      annotations: {cloud.example/scheme: internal}
      externalTrafficPolicy: Cluster
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: balanced}
spec:
  controllerName: pierhead.dev/gateway-controller
  parametersRef: {group: pierhead.dev, kind: GatewayParameters, name: balancer, namespace: pierhead-system}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
";

fn gateway(name: &str) -> String {
    format!(
        "
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: {name}, namespace: shop}}
spec:
  gatewayClassName: balanced
  infrastructure:
    labels: {{team: shop}}
    annotations: {{cloud.example/idle: '30'}}
  listeners: [{{name: http, port: 80, protocol: HTTP}}]
"
    )
}

fn started() -> (ApiServer, Controller) {
    let server = ApiServer::start();
    server.install_crds(&[]);
    server.install_our_crds();
    server.apply(CLASS);
    let controller = Controller::start(&server, "a");
    controller.wait_until_it_leads();
    (server, controller)
}

/// The Service that is made for a Gateway.
fn service_of(server: &ApiServer, gateway: &str) -> Option<Value> {
    let all = server.list("service", "pierhead-system");
    let of = |service: &Value| service["metadata"]["labels"]["gateway.networking.k8s.io/gateway-name"] == gateway;
    all.into_iter().find(of)
}

fn made(server: &ApiServer, gateway: &str) -> (String, Value) {
    let mut found = None;
    eventually(SOON, "there is a Service for it", || {
        found = service_of(server, gateway);
        found.is_some()
    });
    let service = found.expect("it was found");
    (
        service["metadata"]["name"].as_str().expect("a name").to_owned(),
        service,
    )
}

/// As the controller of a cloud does.
fn give(server: &ApiServer, service: &str, ingress: &Value) {
    let status = json!({"status": {"loadBalancer": {"ingress": ingress}}});
    server.patch_status("service", "pierhead-system", service, &status);
}

fn status_of(server: &ApiServer, gateway: &str) -> (Value, Option<String>, String) {
    let gateway = server.get("gateway", "shop", gateway).unwrap_or_default();
    let conditions = &gateway["status"]["conditions"];
    (
        gateway["status"]["addresses"].clone(),
        condition(&gateway, conditions, "Programmed"),
        message(conditions, "Programmed"),
    )
}

#[test]
fn a_gateway_has_the_addresses_that_the_cloud_gives_its_service() {
    let (server, _controller) = started();
    server.apply(&gateway("web"));
    let (name, service) = made(&server, "web");
    assert_eq!(service["spec"]["type"], "LoadBalancer");
    assert_eq!(service["spec"]["externalTrafficPolicy"], "Cluster");
    assert_eq!(service["spec"]["ports"][0]["port"], 80);
    let metadata = &service["metadata"];
    assert_eq!(
        (&metadata["labels"]["team"], &metadata["labels"]["tier"]),
        (&json!("shop"), &json!("edge")),
        "the Gateway's own beat those of the class"
    );
    assert_eq!(metadata["annotations"]["cloud.example/scheme"], "internal");
    assert_eq!(metadata["annotations"]["cloud.example/idle"], "30");
    eventually(SOON, "it is told to wait", || {
        let (addresses, programmed, message) = status_of(&server, "web");
        addresses.is_null() && programmed.as_deref() == Some("False") && message.contains("no address yet")
    });

    give(&server, &name, &json!([{"ip": "203.0.113.7"}]));
    eventually(SOON, "it has the address, and is programmed", || {
        let (addresses, programmed, _) = status_of(&server, "web");
        addresses == json!([{"type": "IPAddress", "value": "203.0.113.7"}]) && programmed.as_deref() == Some("True")
    });
    give(&server, &name, &json!([{"hostname": "lb.cloud.example"}]));
    eventually(SOON, "it has the name", || {
        status_of(&server, "web").0 == json!([{"type": "Hostname", "value": "lb.cloud.example"}])
    });

    // What others add stays; what they change in our fields does not.
    let theirs = json!({"metadata": {"annotations": {"cloud.example/id": "7"}}, "spec": {"selector": {"app": "x"}}});
    server.patch("service", "pierhead-system", &name, &theirs);
    let selector = service["spec"]["selector"].clone();
    eventually(SOON, "the selector is as it was", || {
        let service = service_of(&server, "web").unwrap_or_default();
        service["spec"]["selector"] == selector && service["metadata"]["annotations"]["cloud.example/id"] == "7"
    });

    // What the Gateway no longer says, the Service no longer says.
    let less = json!({"spec": {
        "infrastructure": {"labels": {"team": null}, "annotations": null},
        "listeners": [{"name": "alt", "port": 8080, "protocol": "HTTP"}],
    }});
    server.patch("gateway", "shop", "web", &less);
    eventually(SOON, "the Service follows", || {
        let service = service_of(&server, "web").unwrap_or_default();
        let ports = service["spec"]["ports"].as_array().cloned().unwrap_or_default();
        ports.len() == 1
            && ports[0]["port"] == 8080
            && service["metadata"]["labels"]["team"] == "platform"
            && service["metadata"]["annotations"]["cloud.example/idle"].is_null()
            && service["metadata"]["annotations"]["cloud.example/id"] == "7"
    });

    server.kubectl(&["delete", "service", "-n", "pierhead-system", &name]);
    let again = || service_of(&server, "web").is_some_and(|now| now["metadata"]["uid"] != metadata["uid"]);
    eventually(SOON, "one that was deleted is made again", again);
    server.kubectl(&["delete", "gateway", "-n", "shop", "web"]);
    eventually(SOON, "the Service goes with its Gateway", || {
        server.get("service", "pierhead-system", &name).is_none()
    });
}

#[test]
fn somebody_elses_service_is_left_alone_and_named() {
    let (server, controller) = started();
    server.apply(&gateway("web"));
    let (name, _) = made(&server, "web");
    server.kubectl(&["delete", "gateway", "-n", "shop", "web"]);
    eventually(SOON, "the name is free", || {
        server.get("service", "pierhead-system", &name).is_none()
    });
    let theirs = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: pierhead-system, labels: {{app: theirs}}}}\n\
         spec: {{selector: {{app: theirs}}, ports: [{{name: odd, port: 4711}}]}}\n"
    );
    server.apply(&theirs);
    let before = server.get("service", "pierhead-system", &name).expect("it is there");

    server.apply(&format!("{}{}", gateway("web"), gateway("other")));
    let (other, _) = made(&server, "other");
    give(&server, &other, &json!([{"ip": "203.0.113.8"}]));
    eventually(SOON, "the other Gateway is served", || {
        status_of(&server, "other").1.as_deref() == Some("True")
    });
    eventually(SOON, "the Gateway says why it is not", || {
        let (addresses, programmed, message) = status_of(&server, "web");
        addresses.is_null() && programmed.as_deref() == Some("False") && message.contains(&name)
    });
    eventually(SOON, "and so does an event", || {
        is_told(&server, "shop", "web", "another one of that name")
    });
    assert_eq!(server.get("service", "pierhead-system", &name), Some(before.clone()));

    // Nor does it go with the Gateway, nor when we stop or start.
    server.kubectl(&["delete", "gateway", "-n", "shop", "web"]);
    drop(controller);
    let controller = Controller::start(&server, "b");
    controller.wait_until_it_leads();
    thread::sleep(Duration::from_secs(2));
    assert_eq!(server.get("service", "pierhead-system", &name), Some(before));

    server.apply(&gateway("web"));
    eventually(SOON, "the Gateway says why it is not", || {
        status_of(&server, "web").2.contains(&name)
    });
    server.kubectl(&["delete", "service", "-n", "pierhead-system", &name]);
    eventually(SOON, "with the name free, its own is made", || {
        service_of(&server, "web").is_some()
    });
    assert!(status_of(&server, "other").1.as_deref() == Some("True"));
}

/// What our writes rest on: one for an object of a version that never was makes a new object, and changes none.
#[test]
fn an_apply_for_a_version_that_never_was_only_creates() {
    let server = ApiServer::start();
    let service = |port: u16| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: one, namespace: default, resourceVersion: '1'}}\n\
             spec: {{ports: [{{port: {port}}}]}}\n"
        )
    };
    server.apply(&service(80));
    let before = server.get("service", "default", "one").expect("it was made");
    let why = server.apply_refused(&service(81));
    assert!(why.contains("modified") || why.contains("conflict"), "{why}");
    assert_eq!(server.get("service", "default", "one"), Some(before));
}
