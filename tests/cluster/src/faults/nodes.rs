//! What goes wrong on nodes.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::stage::Stage;
use crate::api::Id;
use crate::lab::NAMESPACE;
use crate::machine::Which;

/// How long the node is away.
const CUT: Duration = Duration::from_secs(15);

pub(super) fn rolled(stage: &Stage<'_>) -> Result<()> {
    let id = Id::new("apps/v1", "DaemonSet", NAMESPACE, "pierhead-node");
    let now = std::process::id().to_string();
    let stamp = json!({"spec": {"template": {"metadata": {"annotations": {"pierhead.dev/rolled": now}}}}});
    stage.lab.api.merge(&id, "", &stamp)?;
    stage
        .lab
        .rolled_out("DaemonSet", NAMESPACE, "pierhead-node", Duration::from_secs(180))
}

/// The container goes on: its first process starts another one that serves.
pub(super) fn killed(stage: &Stage<'_>) -> Result<()> {
    let before = restarts(stage)?;
    kill(stage, Which::Serving)?;
    std::thread::sleep(Duration::from_secs(5));
    stage.lab.running()?;
    let after = restarts(stage)?;
    ensure!(after == before, "{} containers were started again", after - before);
    Ok(())
}

pub(super) fn container_killed(stage: &Stage<'_>) -> Result<()> {
    kill(stage, Which::First)?;
    std::thread::sleep(Duration::from_secs(10));
    stage.lab.running()
}

/// Kills a process on the node that has the address.
fn kill(stage: &Stage<'_>, which: Which) -> Result<()> {
    let node = stage.lab.announcer(stage.address)?;
    let killed = stage.lab.kill_processes("node", &node, which)?;
    ensure!(killed == 1, "{killed} processes were killed on {node}, not one");
    Ok(())
}

/// How often containers of nodes were started again.
fn restarts(stage: &Stage<'_>) -> Result<i64> {
    let pods = stage.lab.api.list(&format!("/api/v1/namespaces/{NAMESPACE}/pods"))?;
    let nodes = pods.iter().filter(|pod| {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        name.starts_with("pierhead-node-")
    });
    Ok(nodes
        .filter_map(|pod| pod["status"]["containerStatuses"][0]["restartCount"].as_i64())
        .sum())
}

/// The node that announces the address; the leading controller is on the other one.
pub(super) fn cut_off(stage: &Stage<'_>) -> Result<()> {
    let node = stage.lab.announcer(stage.address)?;
    stage.lab.lead_elsewhere(&node)?;
    cut(stage, &node)
}

/// The same, and the leading controller is on it.
pub(super) fn cut_off_with_leader(stage: &Stage<'_>) -> Result<()> {
    let node = stage.lab.announcer(stage.address)?;
    stage.lab.lead_on(&node)?;
    cut(stage, &node)
}

/// Another node has the address then, and keeps it when this one is back.
fn cut(stage: &Stage<'_>, node: &str) -> Result<()> {
    stage.lab.link(node, false)?;
    std::thread::sleep(CUT);
    let moved = stage.lab.announcer(stage.address);
    stage.lab.link(node, true)?;
    let moved = moved.context("nobody announces the address while the node is away")?;
    ensure!(
        moved != node,
        "{node} still announces the address, though it is cut off"
    );
    std::thread::sleep(CUT);
    let answers = stage.lab.answers(stage.address)?;
    ensure!(
        answers == [stage.lab.mac(&moved)?].into(),
        "{moved} had the address while {node} was away, and now {answers:02x?} answer for it"
    );
    Ok(())
}
