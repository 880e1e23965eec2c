//! What the load goes through: a Gateway with an address of its own, a route, two pods.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::front::{self, GATEWAY};
use crate::ingress::backends;
use crate::lab::{Lab, eventually};
use crate::load::Plan;

pub(super) const NAMESPACE: &str = "faults";
pub(super) const BACKEND: &str = "echo";
pub(super) const ROUTE: &str = "load";
const HOST: &str = "load.example.com";

/// Workers of the load: no more requests can be in flight at once.
const KEEPING: usize = 6;
const FRESH: usize = 6;
pub(super) const IN_FLIGHT: u64 = (KEEPING + FRESH) as u64;

/// Some 240 requests a second in all.
const PACE: Duration = Duration::from_millis(50);

/// The stage, set.
pub struct Stage<'a> {
    pub lab: &'a Lab,
    pub address: IpAddr,
}

impl<'a> Stage<'a> {
    /// Sets it, and waits until a request gets through.
    ///
    /// # Errors
    /// None does.
    pub fn set(lab: &'a Lab) -> Result<Self> {
        for object in objects() {
            lab.api.apply(&object)?;
        }
        lab.rolled_out("Deployment", NAMESPACE, BACKEND, Duration::from_secs(60))?;
        let address = front::address(lab, NAMESPACE)?;
        eventually("a request gets through", Duration::from_secs(30), || {
            let response = lab.client.get(SocketAddr::new(address, 80), HOST, "/")?;
            ensure!(response.status == 200, "status {}", response.status);
            Ok(())
        })?;
        Ok(Self { lab, address })
    }

    /// The load that goes through it.
    pub fn plan(&self) -> Plan {
        Plan {
            to: SocketAddr::new(self.address, 80),
            hosts: vec![HOST.to_owned()],
            path: "/load".to_owned(),
            keeping: KEEPING,
            fresh: FRESH,
            pace: PACE,
            catches_up: false,
        }
    }
}

fn objects() -> Vec<Value> {
    let mut backend = backends::deployment(NAMESPACE, BACKEND, 2);
    let pod = &mut backend["spec"]["template"]["spec"];
    // As every Deployment that must not lose requests: pods go on a little while after they have left the endpoints.
    pod["containers"][0]["lifecycle"] = json!({"preStop": {"sleep": {"seconds": 2}}});
    pod["topologySpreadConstraints"] = json!([{
        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {"app": BACKEND}}, "matchLabelKeys": ["pod-template-hash"],
    }]);
    backend["spec"]["strategy"] = json!({"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
    vec![
        front::namespace(NAMESPACE),
        backend,
        front::service(NAMESPACE, BACKEND),
        front::gateway(NAMESPACE),
        route(NAMESPACE, ROUTE, HOST, "/"),
    ]
}

/// A route of the stage's Gateway to its backend.
pub(super) fn route(namespace: &str, name: &str, host: &str, path: &str) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "parentRefs": [{"name": GATEWAY, "namespace": NAMESPACE}],
            "hostnames": [host],
            "rules": [{
                "matches": [{"path": {"type": "PathPrefix", "value": path}}],
                "backendRefs": [{"name": BACKEND, "port": 80}],
            }],
        },
    })
}
