//! What changes all the time in a cluster at work.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;

use super::stage::{self, Stage};
use crate::api::Id;
use crate::lab::eventually;

const ROLLS: usize = 10;
const EDITS: usize = 1000;
const ROUTES: usize = 500;

/// Between two edits of routes.
const PACE: Duration = Duration::from_millis(30);

const CROWD: &str = "faults-crowd";

pub(super) fn backend_rolled(stage: &Stage<'_>) -> Result<()> {
    let id = Id::new("apps/v1", "Deployment", stage::NAMESPACE, stage::BACKEND);
    for roll in 0..ROLLS {
        let stamp = format!("{}-{roll}", std::process::id());
        let patch = json!({"spec": {"template": {"metadata": {"annotations": {"pierhead.dev/rolled": stamp}}}}});
        stage.lab.api.merge(&id, "", &patch)?;
        stage
            .lab
            .rolled_out("Deployment", stage::NAMESPACE, stage::BACKEND, Duration::from_secs(60))
            .with_context(|| format!("roll {}", roll + 1))?;
    }
    Ok(())
}

/// The route that carries the load is edited as much as one beside it.
pub(super) fn route_edits(stage: &Stage<'_>) -> Result<()> {
    let mut due = Instant::now();
    for edit in 0..EDITS {
        let number = edit.to_string();
        let mut carrying = stage::route(stage::NAMESPACE, stage::ROUTE, "load.example.com", "/");
        carrying["spec"]["rules"][0]["filters"] = json!([{
            "type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "x-edit", "value": number}]},
        }]);
        let mut beside = stage::route(stage::NAMESPACE, "beside", "beside.example.com", &format!("/{edit}"));
        beside["metadata"]["labels"] = json!({"edit": number});
        stage.lab.api.apply(if edit % 2 == 0 { &carrying } else { &beside })?;
        due += PACE;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

pub(super) fn namespace_deleted(stage: &Stage<'_>) -> Result<()> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": CROWD}});
    stage.lab.api.apply(&namespace)?;
    for number in 0..ROUTES {
        let host = format!("crowd-{number}.example.com");
        stage
            .lab
            .api
            .apply(&stage::route(CROWD, &format!("crowd-{number}"), &host, "/"))?;
    }
    let id = Id::of(&namespace)?;
    stage.lab.api.delete(&id)?;
    eventually("the namespace is gone", Duration::from_secs(120), || {
        match stage.lab.api.get(&id)? {
            None => Ok(()),
            Some(_) => anyhow::bail!("it is still there"),
        }
    })
}
