//! What goes wrong on nodes.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::stage::Stage;
use crate::api::Id;
use crate::lab::NAMESPACE;

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

pub(super) fn killed(stage: &Stage<'_>) -> Result<()> {
    let node = stage.lab.announcer(stage.address)?;
    let killed = stage.lab.kill_processes("node", &node)?;
    ensure!(killed > 0, "no node process ran on {node}");
    std::thread::sleep(Duration::from_secs(5));
    stage.lab.running()
}

pub(super) fn cut_off(stage: &Stage<'_>) -> Result<()> {
    let node = stage.lab.announcer(stage.address)?;
    stage.lab.link(&node, false)?;
    std::thread::sleep(CUT);
    let moved = stage.lab.announcer(stage.address);
    stage.lab.link(&node, true)?;
    let moved = moved.context("nobody announces the address while the node is away")?;
    ensure!(
        moved != node,
        "{node} still announces the address, though it is cut off"
    );
    std::thread::sleep(CUT);
    Ok(())
}
