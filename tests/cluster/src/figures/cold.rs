//! A controller that starts: how long until every route has its status, when none had one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use super::crowd::{self, Crowd, each};
use super::report::Report;
use crate::api::Id;
use crate::lab::{NAMESPACE, eventually};
use crate::machine::Which;

/// As many writes at a time as the controller has.
const WRITES: usize = 24;

const PATIENCE: Duration = Duration::from_secs(180);

/// As much of a route as is needed to know whether it has its status.
#[derive(Clone, Deserialize)]
struct Seen {
    metadata: Named,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Deserialize)]
struct Named {
    name: String,
}

#[derive(Clone, Default, Deserialize)]
struct Status {
    #[serde(default)]
    parents: Vec<Parent>,
}

#[derive(Clone, Deserialize)]
struct Parent {
    conditions: Vec<Condition>,
}

#[derive(Clone, Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl Seen {
    fn is_done(&self) -> bool {
        let holds = |parent: &Parent, kind: &str| {
            let mut conditions = parent.conditions.iter();
            conditions.any(|one| one.kind == kind && one.status == "True")
        };
        let mut parents = self.status.parents.iter();
        parents.any(|parent| holds(parent, "Accepted") && holds(parent, "ResolvedRefs"))
    }
}

/// Waits until each route that stands there has its status; when that was so. `began` is called when all were seen once.
pub(super) fn await_statuses(crowd: &Crowd<'_>, patience: Duration, began: impl FnOnce()) -> Result<Instant> {
    let mut unseen: BTreeSet<String> = (0..crowd.size).map(crowd::name).collect();
    let mut missing = unseen.clone();
    let mut began = Some(began);
    let mut done = None;
    let path = crowd::id("").collection();
    let watched = crowd.lab.api.watch(&path, patience, |route: Seen| {
        let name = &route.metadata.name;
        unseen.remove(name);
        if route.is_done() {
            missing.remove(name);
        }
        if unseen.is_empty()
            && let Some(began) = began.take()
        {
            began();
        }
        if missing.is_empty() && unseen.is_empty() {
            done = Some(Instant::now());
        }
        done.is_some()
    });
    watched.with_context(|| format!("{} of {} routes have no status", missing.len(), crowd.size))?;
    done.context("the watch ended early")
}

pub(super) fn measure(crowd: &Crowd<'_>, report: &mut Report) -> Result<()> {
    let deployment = Id::new("apps/v1", "Deployment", NAMESPACE, "pierhead-controller");
    let scale = |replicas: u64| {
        let patch = json!({"spec": {"replicas": replicas}});
        crowd.lab.api.merge(&deployment, "/scale", &patch).map(drop)
    };
    let object = crowd.lab.api.get(&deployment)?.context("no controller is installed")?;
    let replicas = object["spec"]["replicas"].as_u64().unwrap_or(1);
    scale(0)?;
    let measured = without_controller(crowd, || scale(replicas));
    // Whatever came of it.
    scale(replicas)?;
    let took = measured?;
    crowd.lab.running()?;
    let mut add = |name, unit, target, value| report.add(crowd.size, name, unit, target, value);
    let (started, alone) = (took.started.as_secs_f64(), took.alone.as_secs_f64());
    add(
        "controller started → every route has its status",
        "s",
        Some(10.0),
        started,
    );
    let scaled = took.scaled.as_secs_f64();
    add("the same, from the order to Kubernetes to start it", "s", None, scaled);
    add(
        "the API server alone: the same statuses, by a client that knows them",
        "s",
        None,
        alone,
    );
    add("the first ÷ the last", "×", None, started / alone);
    Ok(())
}

/// What a cold start took.
struct Took {
    /// From the start of a controller's process.
    started: Duration,
    /// From the order to start one.
    scaled: Duration,
    /// The API server, for the same statuses and without a controller.
    alone: Duration,
}

/// Empties every status and waits until all are there again: first by patches of what they were, then by a controller.
fn without_controller(crowd: &Crowd<'_>, start: impl FnOnce() -> Result<()>) -> Result<Took> {
    let controllers = || crowd.lab.processes("controller", "", Which::First);
    eventually("no controller runs", Duration::from_secs(60), || {
        let left = controllers()?.len();
        ensure!(left == 0, "{left} do");
        Ok(())
    })?;
    let statuses = statuses(crowd)?;
    let write = |status: &(dyn Fn(usize) -> Value + Sync)| {
        each(0..crowd.size, WRITES, |number| {
            let id = crowd::id(&crowd::name(number));
            let patch = json!({"status": status(number)});
            crowd.lab.api.merge(&id, "/status", &patch).map(drop)
        })
    };
    let empty = || write(&|_| json!({"parents": []}));
    empty()?;
    let began = Instant::now();
    write(&|number| statuses[number].clone())?;
    let alone = began.elapsed();
    empty()?;
    thread::scope(|scope| {
        let (begun, begins) = mpsc::channel();
        let waiting = scope.spawn(move || {
            await_statuses(crowd, PATIENCE, || {
                // Whoever listens waits for it.
                let _ = begun.send(());
            })
        });
        begins.recv().context("the routes cannot be watched")?;
        let ordered = Instant::now();
        start()?;
        let started = loop {
            if !controllers()?.is_empty() {
                break Instant::now();
            }
            ensure!(ordered.elapsed() < PATIENCE, "no controller starts");
            thread::sleep(Duration::from_millis(10));
        };
        let done = waiting.join().map_err(|_panic| anyhow!("the watch panicked"))??;
        Ok(Took {
            started: done - started,
            scaled: done - ordered,
            alone,
        })
    })
}

/// The status of each route, by its number.
fn statuses(crowd: &Crowd<'_>) -> Result<Vec<Value>> {
    let mut routes = crowd.lab.api.list(&crowd::id("").collection())?;
    let mut by_name: BTreeMap<String, Value> = BTreeMap::new();
    for route in &mut routes {
        let name = route["metadata"]["name"].as_str().context("a route without a name")?;
        by_name.insert(name.to_owned(), route["status"].take());
    }
    let of = |number| {
        by_name
            .remove(&crowd::name(number))
            .with_context(|| format!("route {number} is gone"))
    };
    (0..crowd.size).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_has_its_status_when_both_conditions_hold() {
        let seen = |status: Value| {
            let route = json!({"metadata": {"name": "a"}, "spec": {"rules": []}, "status": status});
            serde_json::from_value::<Seen>(route).unwrap().is_done()
        };
        let condition = |kind: &str, status: &str| json!({"type": kind, "status": status, "reason": "R"});
        let (accepted, resolved) = (condition("Accepted", "True"), condition("ResolvedRefs", "True"));
        assert!(seen(json!({"parents": [{"conditions": [accepted, resolved]}]})));
        assert!(!seen(json!({"parents": [{"conditions": [accepted]}]})));
        assert!(!seen(
            json!({"parents": [{"conditions": [accepted, condition("ResolvedRefs", "False")]}]})
        ));
        assert!(!seen(json!({"parents": []})));
        assert!(
            !serde_json::from_value::<Seen>(json!({"metadata": {"name": "a"}}))
                .unwrap()
                .is_done()
        );
    }
}
