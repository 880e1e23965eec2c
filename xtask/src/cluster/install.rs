//! Installs Pierhead on the cluster, the way a person does: with the chart.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::api::kubectl;
use super::images;
use super::place::{Place, source};
use crate::sh::{self, say};
use crate::{helm, image};

/// The release, and the namespace it is in.
pub(crate) const RELEASE: &str = "pierhead";
pub(crate) const NAMESPACE: &str = "pierhead-system";

/// Installs or upgrades to the image that is loaded, and waits until all of it is ready. `more` are words for Helm.
///
/// # Errors
/// No image is loaded, Helm refuses the chart, or something is not ready in time.
pub(crate) fn pierhead(place: &Place, ebpf: &str, more: &[String]) -> Result<()> {
    // The tag stays the same: what changes is the content, and a pod that is not new keeps the old one.
    let content = images::content(place, image::NAME)?;
    let content = format!("node.podAnnotations.content={content},controller.podAnnotations.content={content}");
    let mut command = helm(place)?;
    command
        .args(["upgrade", "--install", RELEASE])
        .arg(helm::chart())
        .args(["--create-namespace", "--wait", "--timeout", "3m"])
        .arg("--values")
        .arg(source("values.yaml"))
        .args(["--set", &format!("node.ebpf={ebpf}"), "--set-string", &content])
        .args(more);
    // Helm installs the kinds of a chart once, and never again.
    let crds = helm::chart().join("crds");
    sh::output(
        kubectl(place)
            .args(["apply", "--server-side", "--force-conflicts", "-f"])
            .arg(crds),
    )?;
    say("cluster: installing Pierhead");
    let done = sh::output(&mut command);
    if done.is_err() {
        // What a person would look at next.
        let _ = sh::run(kubectl(place).args(["get", "pods", "--namespace", NAMESPACE, "--output", "wide"]));
    }
    done.map(|_said| ())
}

/// How much of the kernel the installed nodes were told to use, as in `--ebpf`.
///
/// # Errors
/// Pierhead is not installed.
pub(crate) fn ebpf(place: &Place) -> Result<String> {
    let nodes = ["get", "daemonset", "pierhead-node", "--namespace", NAMESPACE, "-o"];
    let words = "jsonpath={.spec.template.spec.containers[0].args[*]}";
    let words = sh::output(kubectl(place).args(nodes).arg(words))?;
    let mode = words
        .split_whitespace()
        .find_map(|word| word.strip_prefix("--ebpf="))
        .with_context(|| format!("the nodes are told no --ebpf: {words}"))?;
    Ok(mode.to_owned())
}

/// Removes Pierhead; its kinds and what is of them stay.
///
/// # Errors
/// Helm refuses.
pub(crate) fn remove(place: &Place) -> Result<()> {
    sh::output(helm(place)?.args(["uninstall", RELEASE, "--ignore-not-found", "--wait"])).map(|_said| ())
}

fn helm(place: &Place) -> Result<Command> {
    let mut command = helm::helm()?;
    command
        .args(["--namespace", NAMESPACE])
        .env("KUBECONFIG", place.kubeconfig("admin"));
    Ok(command)
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
        let condition = sh::output(kubectl(place).args(get).arg(accepted)).context(
            "is there a GatewayClass `pierhead`? A change of CRDs removes it, and only an installation makes it again: \
             leave out `--installed`",
        )?;
        if condition == "True" {
            return Ok(());
        }
        if started.elapsed() > Duration::from_secs(60) {
            let status = sh::output(kubectl(place).args(get).arg("jsonpath={.status}"))?;
            bail!("the GatewayClass `pierhead` is not accepted: {status}");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}
