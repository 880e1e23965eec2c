//! What traffic goes through: a Gateway with an address of its own, and Services in front of pods that echo.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::api::Id;
use crate::lab::{Lab, eventually};

/// The Gateway's name, in whichever namespace it is.
pub(crate) const GATEWAY: &str = "front";

/// How long it may take until it has an address.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

/// Port 80 in the clear, for routes of every namespace.
pub(crate) fn gateway(namespace: &str) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"namespace": namespace, "name": GATEWAY},
        "spec": {
            "gatewayClassName": "pierhead",
            "listeners": [{
                "name": "http", "protocol": "HTTP", "port": 80, "allowedRoutes": {"namespaces": {"from": "All"}},
            }],
        },
    })
}

/// Port 80 of the pods of a Deployment that echoes, under the same name.
pub(crate) fn service(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": namespace, "name": name},
        "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": 3000}]},
    })
}

/// Waits for the Gateway's address.
///
/// # Errors
/// It gets none in time.
pub(crate) fn address(lab: &Lab, namespace: &str) -> Result<IpAddr> {
    let gateway = Id::new("gateway.networking.k8s.io/v1", "Gateway", namespace, GATEWAY);
    eventually("the Gateway has an address", PATIENCE, || {
        let object = lab.api.get(&gateway)?.context("no Gateway")?;
        let text = object["status"]["addresses"][0]["value"]
            .as_str()
            .context("no address")?;
        text.parse::<IpAddr>().context("no IP address")
    })
}
