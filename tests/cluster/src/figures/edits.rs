//! Edits of routes that carry traffic: none of it may fail, and it should not become slower.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::crowd::{self, Crowd, MARK, PATH};
use super::report::Report;
use super::{Order, quantile};
use crate::lab::eventually;
use crate::load::{Load, Plan, Tally};

/// Connections that are kept; none waits for an answer when its next request is due, unless something stalls.
const CONNECTIONS: u32 = 50;

/// Before anything counts.
const WARM_UP: Duration = Duration::from_secs(2);

/// Edits that are near each other are of routes that are far from each other.
const STRIDE: usize = 131;

pub(super) fn measure(crowd: &Crowd<'_>, order: &Order, report: &mut Report) -> Result<()> {
    let time = Duration::from_secs(order.seconds);
    let plan = Plan {
        to: crowd.front,
        hosts: crowd.hosts(),
        path: PATH.to_owned(),
        keeping: CONNECTIONS as usize,
        fresh: 0,
        pace: Duration::from_secs(1) * CONNECTIONS / order.rate.max(1),
        catches_up: true,
    };
    let quiet = |time| {
        under_load(crowd, &plan, || {
            thread::sleep(time);
            Ok(())
        })
    };
    quiet(WARM_UP)?;
    // Half before and half after, so that a machine that becomes slower meanwhile does not count.
    let before = quiet(time / 2)?;
    let edited = under_load(crowd, &plan, || edit(crowd, order.edits, time))?;
    let after = quiet(time / 2)?;

    let mut without = [&before.latencies[..], &after.latencies[..]].concat();
    let mut with = edited.latencies.clone();
    let p99 = |values: &mut Vec<Duration>| {
        let value = quantile(values, 0.99).context("no request was answered")?;
        anyhow::Ok(value.as_secs_f64() * 1e3)
    };
    let (without, with) = (p99(&mut without)?, p99(&mut with)?);
    let failed = before.lost() + edited.lost() + after.lost();
    for (when, tally) in [("before", &before), ("under", &edited), ("after", &after)] {
        if tally.lost() > 0 {
            report.wrong.push(format!("load {when} edits: {tally}"));
        }
    }
    let size = crowd.size;
    report.add(
        size,
        "requests failed while routes were edited",
        "",
        Some(0.0),
        failed as f64,
    );
    report.add(
        size,
        "requests answered meanwhile",
        "/s",
        None,
        edited.good as f64 / time.as_secs_f64(),
    );
    report.add(size, "p99 with edits ÷ without", "×", Some(1.5), with / without);
    report.add(size, "p99 with edits", "ms", None, with);
    report.add(size, "p99 without", "ms", None, without);
    Ok(())
}

fn under_load(crowd: &Crowd<'_>, plan: &Plan, work: impl FnOnce() -> Result<()>) -> Result<Tally> {
    let load = Load::start(&crowd.lab.client, plan);
    let worked = work();
    let tally = load.end()?;
    worked.map(|()| tally)
}

/// Edits at a steady pace; the last one must be seen at the end.
fn edit(crowd: &Crowd<'_>, edits: usize, time: Duration) -> Result<()> {
    ensure!(edits > 0, "no edits");
    let started = Instant::now();
    let pace = time.div_f64(edits as f64);
    let mut due = started;
    for edit in 0..edits {
        let number = edit * STRIDE % crowd.size;
        let patch = json!({"spec": {"rules": crowd::rules(Some(&edit.to_string()))}});
        crowd.lab.api.merge(&crowd::id(&crowd::name(number)), "", &patch)?;
        due += pace;
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    let last = edits - 1;
    let host = crowd::host(last * STRIDE % crowd.size);
    eventually("the last edit is seen", Duration::from_secs(10), || {
        let response = crowd.lab.client.get(crowd.front, &host, PATH)?;
        let seen = response.header(MARK).unwrap_or_default();
        ensure!(seen == last.to_string(), "{seen:?} instead of {last}");
        Ok(())
    })
}
