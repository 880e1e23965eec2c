//! Installing Pierhead the way its users do.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::api::Id;
use crate::lab::{Lab, NAMESPACE, eventually};

/// The release.
pub const RELEASE: &str = "pierhead";

/// How long the pods may take to be there.
const PATIENCE: Duration = Duration::from_secs(120);

impl Lab {
    /// Runs helm with these words; what it says.
    ///
    /// # Errors
    /// It fails.
    pub fn helm(&self, words: &[&str]) -> Result<String> {
        let home = self.program("helm-home");
        let mut command = Command::new(self.program("helm"));
        command
            .args(words)
            .env("KUBECONFIG", self.kubeconfig())
            .env("HELM_CACHE_HOME", home.join("cache"))
            .env("HELM_CONFIG_HOME", home.join("config"))
            .env("HELM_DATA_HOME", home.join("data"));
        said(&mut command)
    }

    /// Runs kubectl with these words; what it says.
    ///
    /// # Errors
    /// It fails.
    pub fn kubectl(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new(self.program("kubectl"));
        command.args(words).env("KUBECONFIG", self.kubeconfig());
        said(&mut command)
    }

    /// Installs Pierhead, or brings it to what the chart and the values of the cluster say, and waits until it runs.
    /// `more` are words for helm: `--set node.ebpf=off`.
    ///
    /// # Errors
    /// It does not come up.
    pub fn install(&self, more: &[&str]) -> Result<()> {
        self.namespace()?;
        let (chart, values) = (shown(&chart())?, shown(&values())?);
        let mut words = vec![
            "upgrade",
            "--install",
            RELEASE,
            &chart,
            "--namespace",
            NAMESPACE,
            "--values",
            &values,
        ];
        words.extend(more);
        self.helm(&words)?;
        self.running()
    }

    /// Waits until controller and nodes run as they should.
    ///
    /// # Errors
    /// They do not in time.
    pub fn running(&self) -> Result<()> {
        self.rolled_out("Deployment", NAMESPACE, "pierhead-controller", PATIENCE)?;
        self.rolled_out("DaemonSet", NAMESPACE, "pierhead-node", PATIENCE)
    }

    /// The pod of the controller that leads.
    ///
    /// # Errors
    /// None does.
    pub fn leader(&self) -> Result<String> {
        let id = Id::new("coordination.k8s.io/v1", "Lease", NAMESPACE, "pierhead-controller");
        let lease = self.api.get(&id)?.context("there is no lease")?;
        let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
        ensure!(!holder.is_empty(), "nobody leads");
        Ok(holder.to_owned())
    }

    /// Has a controller lead that is not on this node.
    ///
    /// # Errors
    /// None does in time.
    pub fn lead_elsewhere(&self, node: &str) -> Result<()> {
        self.lead_where(&format!("not on {node}"), |leader| leader != node)
    }

    /// Has a controller lead that is on this node.
    ///
    /// # Errors
    /// None does in time.
    pub fn lead_on(&self, node: &str) -> Result<()> {
        self.lead_where(&format!("on {node}"), |leader| leader == node)
    }

    /// Deletes leaders until one is on such a node, and waits until all replicas are there.
    fn lead_where(&self, wanted: &str, is_such: impl Fn(&str) -> bool) -> Result<()> {
        eventually(&format!("a controller leads that is {wanted}"), PATIENCE, || {
            let pod = Id::new("v1", "Pod", NAMESPACE, &self.leader()?);
            let leader = self.api.get(&pod)?.context("the leader has no pod")?;
            if !is_such(leader["spec"]["nodeName"].as_str().unwrap_or_default()) {
                // Whoever comes in its place must be there to be the next.
                self.running()?;
                self.api.delete(&pod)?;
                bail!("{pod} leads");
            }
            Ok(())
        })?;
        self.running()
    }

    /// Makes the namespace as README says to: host networking must be admitted there.
    fn namespace(&self) -> Result<Value> {
        self.api.apply(&json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "privileged"}},
        }))
    }

    /// Removes Pierhead as helm does, and waits until its pods are gone.
    ///
    /// # Errors
    /// Something stays.
    pub fn uninstall(&self) -> Result<()> {
        self.helm(&[
            "uninstall",
            RELEASE,
            "--namespace",
            NAMESPACE,
            "--wait",
            "--timeout",
            "120s",
        ])
        .map(drop)
    }

    /// Whether a release is there.
    ///
    /// # Errors
    /// The API server does not answer.
    pub fn is_installed(&self) -> Result<bool> {
        let id = Id::new("apps/v1", "DaemonSet", NAMESPACE, "pierhead-node");
        Ok(self.api.get(&id)?.is_some())
    }
}

/// The chart.
pub fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../controller/deploy/chart")
}

/// How it is installed in the cluster of the tests.
pub fn values() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("values.yaml")
}

/// A path as a word.
///
/// # Errors
/// It is not UTF-8.
pub fn shown(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).context("a path that is not UTF-8")
}

fn said(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {name}"))?;
    if !output.status.success() {
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
        bail!(
            "{name} {}: {}",
            words.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
