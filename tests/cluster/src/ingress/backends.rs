//! The backends that all cases share: pods that echo what they got.

use serde_json::{Value, json};

use super::expand::NAMESPACE;

/// A namespace beside the one of the cases.
pub const OTHER: &str = "ingress-suite-other";

/// Brought by the cluster, with the behaviour of the official suite's backends.
const IMAGE: &str = "registry.k8s.io/gateway-api/conformance/echo-basic:v0.2.0";

/// Namespace, name, pods.
const DEPLOYMENTS: &[(&str, &str, u32)] = &[
    (NAMESPACE, "red", 1),
    (NAMESPACE, "green", 1),
    (NAMESPACE, "blue", 1),
    (NAMESPACE, "many", 10),
    (OTHER, "stranger", 1),
];

/// Services beside the one that each Deployment has: name, Deployment, ports (name, port, target, what it speaks).
type Extra = (
    &'static str,
    &'static str,
    &'static [(&'static str, u16, u16, &'static str)],
);

const EXTRA: &[Extra] = &[
    // The number of the Service's port is not the number of the pod's.
    (
        "ports",
        "red",
        &[("first", 81, 3000, ""), ("second", 3000, 3001, "kubernetes.io/h2c")],
    ),
    ("h2c", "green", &[("http", 8080, 3001, "kubernetes.io/h2c")]),
    ("ws", "green", &[("http", 8080, 3000, "kubernetes.io/ws")]),
    // Selects nothing.
    ("nobody", "nobody", &[("http", 8080, 3000, "")]),
];

/// All of them, namespaces first.
pub fn objects() -> Vec<Value> {
    let mut objects: Vec<Value> = [NAMESPACE, OTHER]
        .iter()
        .map(|name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))
        .collect();
    for &(namespace, name, replicas) in DEPLOYMENTS {
        objects.push(deployment(namespace, name, replicas));
        objects.push(service(namespace, name, name, &[("http", 8080, 3000, "")]));
    }
    for &(name, deployment, ports) in EXTRA {
        objects.push(service(NAMESPACE, name, deployment, ports));
    }
    objects.push(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": NAMESPACE, "name": "headless"},
        "spec": {
            "clusterIP": "None", "selector": {"app": "blue"},
            "ports": [{"name": "http", "port": 8080, "targetPort": 3000}],
        },
    }));
    objects
}

/// Namespace and name of each Deployment, to wait for.
pub fn deployments() -> impl Iterator<Item = (&'static str, &'static str)> {
    DEPLOYMENTS.iter().map(|&(namespace, name, _)| (namespace, name))
}

/// A Deployment that echoes.
pub fn deployment(namespace: &str, name: &str, replicas: u32) -> Value {
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "containers": [{
                        "name": "echo", "image": IMAGE,
                        "env": [
                            field("POD_NAME", "metadata.name"),
                            field("NAMESPACE", "metadata.namespace"),
                            {"name": "SERVICE_NAME", "value": name},
                        ],
                        "readinessProbe": {
                            "httpGet": {"path": "/health", "port": 3000}, "periodSeconds": 1,
                        },
                    }],
                    // A Service called `h2c` would be an environment variable that the program reads as its own.
                    "enableServiceLinks": false,
                    "terminationGracePeriodSeconds": 5,
                },
            },
        },
    })
}

fn service(namespace: &str, name: &str, app: &str, ports: &[(&str, u16, u16, &str)]) -> Value {
    let ports: Vec<Value> = ports
        .iter()
        .map(|&(name, port, target, speaks)| {
            let mut value = json!({"name": name, "port": port, "targetPort": target});
            if !speaks.is_empty() {
                value["appProtocol"] = json!(speaks);
            }
            value
        })
        .collect();
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"selector": {"app": app}, "ports": ports},
    })
}
