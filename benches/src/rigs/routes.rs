//! From a changed file to the first answer that shows it, and what a change costs.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::edits::{self, Edited, MARK, Services};
use crate::{
    cpu,
    plan::Plan,
    report::{Book, Sample, Scenario, latencies},
    rigs::stage,
    traffic::{
        Yield,
        closed::connect,
        exchange::{self, header},
    },
};

/// HTTPRoutes in the folder.
const SIZES: [usize; 4] = [100, 3_000, 5_000, 40_000];
/// HTTPRoutes with a Service each.
const OWN: [usize; 2] = [3_000, 40_000];
/// Changes per round of each kind.
const CHANGES: u64 = 50;
/// A change that is not seen by then is lost.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn run(plan: &Plan) -> Result<()> {
    stage::on_core(async {
        let mut book = Book::new("routes", "One changed route file");
        let shared = SIZES.map(|routes| (routes, Services::Shared, ""));
        let own = OWN.map(|routes| (routes, Services::Own, ", a Service each"));
        for (routes, services, beside) in shared.into_iter().chain(own) {
            let title = format!("one change among {routes} HTTPRoutes{beside}");
            if plan.wants(&title) {
                let scenario = scenario(plan, (routes, services), &title).await;
                book.add(scenario.with_context(|| title.clone())?);
            }
        }
        book.write(plan)
    })
}

async fn scenario(plan: &Plan, (routes, services): (usize, Services), title: &str) -> Result<Scenario> {
    let edited = Edited::start(plan, routes, services).await?;
    let mut scenario = Scenario::new(title, "change");
    let mut version = 0;
    for round in 0..=plan.rounds {
        let spent = cost(&edited, routes, &mut version).await?;
        let seen = seen(&edited, routes, &mut version).await?;
        if round > 0 {
            let mut values = vec![("CPU-ms", spent.as_secs_f64() * 1e3)];
            values.extend(latencies(&seen));
            values.push(("MB", cpu::resident(edited.peer.pid())? as f64 / 1e6));
            scenario.add("pierhead", Sample(values));
        }
    }
    Ok(scenario)
}

/// CPU of a change that nobody waits for.
async fn cost(edited: &Edited, routes: usize, version: &mut u64) -> Result<Duration> {
    let before = edited.peer.run_time()?;
    for _ in 0..CHANGES {
        *version += 1;
        edited.edit(*version as usize * 7 % routes, *version)?;
        // Each is a change of its own.
        tokio::time::sleep(Duration::from_millis(120)).await;
    }
    Ok((edited.peer.run_time()?.saturating_sub(before)) / CHANGES as u32)
}

/// From before a file is written to the end of the first answer that shows it.
async fn seen(edited: &Edited, routes: usize, version: &mut u64) -> Result<Yield> {
    let mut stream = connect(edited.peer.clear).await?;
    let mut buffer = Vec::with_capacity(4096);
    let mut gave = Yield::default();
    for _ in 0..CHANGES {
        *version += 1;
        let number = *version as usize * 7 % routes;
        let request = edits::request(number);
        let started = Instant::now();
        edited.edit(number, *version)?;
        loop {
            let head = exchange::ask(&mut stream, &request, &mut buffer).await?;
            if header(&buffer[..head], MARK) == Some(version.to_string()) {
                break;
            }
            ensure!(
                started.elapsed() < PATIENCE,
                "a change was not seen within {PATIENCE:?}"
            );
            // Not in lock step, and not so often that the asking is the load.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        gave.add(started.elapsed());
        tokio::time::sleep(Duration::from_millis(37)).await;
    }
    Ok(gave.sorted())
}
