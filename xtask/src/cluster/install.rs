//! Installs Pierhead on the cluster, the way a person does: with the chart.

use std::fs;
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use super::api::kubectl;
use super::place::{Place, source};
use crate::helm;
use crate::image::Order;
use crate::sh::{self, say};

/// The release, and the namespace it is in.
pub(crate) const RELEASE: &str = "pierhead";
pub(crate) const NAMESPACE: &str = "pierhead-system";

/// Installs or upgrades to the image that is loaded, and waits until all of it is ready.
///
/// # Errors
/// Helm refuses the chart, or something is not ready in time.
pub(crate) fn pierhead(place: &Place, ebpf: &str) -> Result<()> {
    let archive = Order::default().out;
    // The tag stays the same: what changes is the content, and a pod that is not new keeps the old one.
    let content = fs::metadata(&archive)
        .and_then(|meta| meta.modified())
        .with_context(|| format!("no image in {}", archive.display()))?
        .duration_since(UNIX_EPOCH)?
        .as_millis();
    let mut command = helm::helm()?;
    command
        .args(["upgrade", "--install", RELEASE])
        .arg(helm::chart())
        .args([
            "--namespace",
            NAMESPACE,
            "--create-namespace",
            "--wait",
            "--timeout",
            "3m",
        ])
        .arg("--values")
        .arg(source("values.yaml"))
        .args(["--set", &format!("node.ebpf={ebpf}")])
        .args([
            "--set-string",
            &format!("node.podAnnotations.content=t{content},controller.podAnnotations.content=t{content}"),
        ])
        .env("KUBECONFIG", place.kubeconfig("admin"));
    say("cluster: installing Pierhead");
    sh::output(&mut command).map(|_said| ())
}

/// Waits until the GatewayClass is accepted.
///
/// # Errors
/// It is not within a minute; the message holds its conditions.
pub(crate) fn wait_accepted(place: &Place) -> Result<()> {
    let accepted = "jsonpath={.status.conditions[?(@.type==\"Accepted\")].status}";
    let started = Instant::now();
    loop {
        let get = ["get", "gatewayclass", "pierhead", "-o"];
        if sh::output(kubectl(place).args(get).arg(accepted))? == "True" {
            return Ok(());
        }
        if started.elapsed() > Duration::from_secs(60) {
            let status = sh::output(kubectl(place).args(get).arg("jsonpath={.status}"))?;
            bail!("the GatewayClass `pierhead` is not accepted: {status}");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}
