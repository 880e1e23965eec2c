//! ClusterTrustBundles: a kind that an API server has or has not, in this version or that.

use serde_json::Value;

use crate::controller::{BASE, Controller, SOON, message, route, route_is_accepted};
use crate::server::{ApiServer, eventually};

const WITHOUT: &str = "--runtime-config=certificates.k8s.io/v1=false";
const BETA: &str = "--runtime-config=certificates.k8s.io/v1=false,certificates.k8s.io/v1beta1=true";

fn policy() -> String {
    "
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: trusting, namespace: default}
spec:
  targetRefs: [{group: '', kind: Service, name: web}]
  validation:
    hostname: web.example
    caCertificateRefs: [{group: certificates.k8s.io, kind: ClusterTrustBundle, name: roots}]
"
    .to_owned()
}

fn bundle(version: &str) -> String {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).expect("a certificate").pem();
    let pem: String = pem.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "apiVersion: certificates.k8s.io/{version}\nkind: ClusterTrustBundle\nmetadata: {{name: roots}}\n\
         spec:\n  trustBundle: |\n{pem}"
    )
}

/// Status and message of `ResolvedRefs` of the policy.
fn resolved(server: &ApiServer) -> (Option<String>, String) {
    let policy = server
        .get("backendtlspolicy", "default", "trusting")
        .unwrap_or_default();
    let conditions = &policy["status"]["ancestors"][0]["conditions"];
    let status = |one: &Value| one["status"].as_str().unwrap_or_default().to_owned();
    let all = conditions.as_array().cloned().unwrap_or_default();
    let found = all.iter().find(|one| one["type"] == "ResolvedRefs").map(status);
    (found, message(conditions, "ResolvedRefs"))
}

fn is_resolved(server: &ApiServer) -> bool {
    resolved(server).0.as_deref() == Some("True")
}

#[test]
fn trust_bundles_are_read_as_this_kubernetes_serves_them() {
    let server = ApiServer::start();
    server.install_crds(&[]);
    server.apply(&format!("{BASE}{}{}", route("r", "a.example"), policy()));
    let controller = Controller::start(&server, "a");
    controller.wait_until_it_leads();
    eventually(SOON, "the bundle is missed", || {
        let (status, message) = resolved(&server);
        status.as_deref() == Some("False") && message.contains("roots")
    });
    server.apply(&bundle("v1"));
    eventually(SOON, "the bundle is found", || is_resolved(&server));
    server.kubectl(&["delete", "clustertrustbundle", "roots"]);
    eventually(SOON, "the bundle is missed again", || !is_resolved(&server));
}

/// Features come and go with a restart of the API server.
#[test]
fn without_trust_bundles_the_rest_is_served_and_they_are_found_when_they_come() {
    let mut server = ApiServer::start_with(&[WITHOUT]);
    server.install_crds(&[]);
    server.apply(&format!("{BASE}{}{}", route("r", "a.example"), policy()));
    let controller = Controller::start(&server, "a");
    controller.wait_until_it_leads();
    eventually(SOON, "the route is accepted", || route_is_accepted(&server, "r"));
    eventually(SOON, "the kind is missed", || {
        let (status, message) = resolved(&server);
        status.as_deref() == Some("False") && message.contains("ClusterTrustBundle")
    });
    let kind_is_missed = resolved(&server);

    server.down();
    server.set_flags(&[BETA]);
    server.up();
    server.apply(&bundle("v1beta1"));
    eventually(SOON * 2, "the bundle is found", || is_resolved(&server));

    server.down();
    server.set_flags(&[WITHOUT]);
    server.up();
    eventually(SOON * 2, "the kind is missed again", || {
        resolved(&server) == kind_is_missed
    });
    assert!(route_is_accepted(&server, "r"));
}
