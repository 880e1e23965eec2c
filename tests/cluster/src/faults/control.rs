//! What goes wrong in the control plane: nobody's traffic may notice.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::stage::Stage;
use crate::api::Id;
use crate::lab::{NAMESPACE, eventually};
use crate::machine::Which;

/// How long the API server is away.
const OUTAGE: Duration = Duration::from_secs(60);

/// How long another may take to lead, and controllers to come back.
const RECOVERY: Duration = Duration::from_secs(90);

pub(super) fn api_server_down(stage: &Stage<'_>) -> Result<()> {
    stage.lab.kill_daemon("kube-apiserver")?;
    std::thread::sleep(OUTAGE);
    stage.lab.restart_daemons()?;
    eventually("the API server is back", RECOVERY, || {
        stage.lab.api.list("/api/v1/nodes").map(drop)
    })
}

pub(super) fn controllers_killed(stage: &Stage<'_>) -> Result<()> {
    let killed = stage.lab.kill_processes("controller", "", Which::First)?;
    ensure!(killed > 0, "no controller ran");
    // Containers that die at once are started again after ten seconds.
    std::thread::sleep(Duration::from_secs(15));
    stage.lab.running()
}

pub(super) fn leader_change(stage: &Stage<'_>) -> Result<()> {
    let leader = stage.lab.leader()?;
    stage.lab.api.delete(&Id::new("v1", "Pod", NAMESPACE, &leader))?;
    eventually("another leads", RECOVERY, || {
        let now = stage.lab.leader()?;
        ensure!(now != leader, "{leader} still leads");
        Ok(())
    })
}
