//! The cluster that `cargo xtask cluster up` made: its API server, its client outside, and waiting for things in it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use pierhead_wire::client::Client;
use pierhead_wire::netns::Netns;
use serde_json::Value;

use crate::api::{Api, Id};

/// Where Pierhead is installed.
pub const NAMESPACE: &str = "pierhead-system";

/// The host outside the nodes, which knows no pod and no Service.
const CLIENT: &str = "pierhead-lab-client";
/// By which it is wired.
pub(crate) const CLIENT_LINK: &str = "eth0";

/// Between two looks.
const STEP: Duration = Duration::from_millis(50);

/// The running cluster.
pub struct Lab {
    pub api: Api,
    /// Connects from outside the nodes.
    pub client: Client,
    /// Where that one is.
    pub(crate) host: Arc<Netns>,
    dir: PathBuf,
}

impl Lab {
    /// The one that runs on this machine.
    ///
    /// # Errors
    /// None runs.
    pub fn here() -> Result<Self> {
        let dir = dir();
        let api = Api::new(&dir.join("state/kubeconfig"))?;
        let host = Arc::new(Netns::of(CLIENT).context("`cargo xtask cluster up` makes the cluster")?);
        Ok(Self {
            api,
            client: Client::new(&host),
            host,
            dir,
        })
    }

    /// A program of the cluster: `kubectl`, `helm`.
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join("bin").join(name)
    }

    /// A file that the running cluster wrote.
    pub fn state(&self, path: &str) -> PathBuf {
        self.dir.join("state").join(path)
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("state/kubeconfig")
    }

    /// Waits until every pod of a DaemonSet or Deployment is the newest, available, and alone.
    ///
    /// # Errors
    /// It is not in time.
    pub fn rolled_out(&self, kind: &str, namespace: &str, name: &str, patience: Duration) -> Result<()> {
        let id = Id::new("apps/v1", kind, namespace, name);
        eventually(&format!("roll-out of {id}"), patience, || {
            let object = self.api.get(&id)?.with_context(|| format!("there is no {id}"))?;
            is_rolled_out(&object)
        })
    }
}

/// Whether a DaemonSet or Deployment has all it wants of its newest generation and nothing else.
fn is_rolled_out(object: &Value) -> Result<()> {
    let status = &object["status"];
    let number = |name: &str| status[name].as_i64().unwrap_or_default();
    ensure!(
        status["observedGeneration"] == object["metadata"]["generation"],
        "its controller has not seen it"
    );
    let is_daemon_set = object["kind"] == "DaemonSet";
    let (wanted, all, updated, available) = if is_daemon_set {
        let wanted = number("desiredNumberScheduled");
        (
            wanted,
            wanted,
            number("updatedNumberScheduled"),
            number("numberAvailable"),
        )
    } else {
        let wanted = object["spec"]["replicas"].as_i64().unwrap_or(1);
        (
            wanted,
            number("replicas"),
            number("updatedReplicas"),
            number("availableReplicas"),
        )
    };
    ensure!(
        (wanted > 0 || !is_daemon_set) && all == wanted && updated == wanted && available == wanted,
        "of {wanted} wanted {all} exist, {updated} are new, {available} available"
    );
    Ok(())
}

/// Tries until it succeeds.
///
/// # Errors
/// The last one, when it does not in time.
pub fn eventually<T>(what: &str, patience: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= deadline => bail!("{what}: not within {patience:?}: {error:#}"),
            Err(_) => thread::sleep(STEP),
        }
    }
}

/// As `cargo xtask cluster` finds it: `PIERHEAD_CLUSTER_DIR`, or `cluster` in cargo's target folder.
fn dir() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    if let Some(dir) = std::env::var_os("PIERHEAD_CLUSTER_DIR") {
        return root.join(dir);
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir));
    target.join("cluster")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_roll_out_is_over_when_only_new_pods_are_left_and_all_are_available() {
        let deployment = |replicas: i64, updated: i64, available: i64, seen: i64| {
            json!({
                "kind": "Deployment", "metadata": {"generation": 2}, "spec": {"replicas": 2},
                "status": {
                    "observedGeneration": seen, "replicas": replicas, "updatedReplicas": updated,
                    "availableReplicas": available,
                },
            })
        };
        assert!(is_rolled_out(&deployment(2, 2, 2, 2)).is_ok());
        for other in [
            deployment(3, 2, 2, 2),
            deployment(2, 1, 2, 2),
            deployment(2, 2, 1, 2),
            deployment(2, 2, 2, 1),
        ] {
            assert!(is_rolled_out(&other).is_err(), "{other}");
        }
    }

    #[test]
    fn a_daemon_set_without_a_node_is_not_rolled_out() {
        let daemon_set = |wanted: i64| {
            json!({
                "kind": "DaemonSet", "metadata": {"generation": 1},
                "status": {
                    "observedGeneration": 1, "desiredNumberScheduled": wanted, "updatedNumberScheduled": wanted,
                    "numberAvailable": wanted,
                },
            })
        };
        assert!(is_rolled_out(&daemon_set(2)).is_ok());
        assert!(is_rolled_out(&daemon_set(0)).is_err());
    }
}
