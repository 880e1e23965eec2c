//! Route changes under load: none may fail, and the others should not notice.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::edits::{self, Edited, Services};
use crate::{
    plan::Plan,
    report::{Book, Sample, Scenario, latencies},
    rigs::stage,
    traffic::{closed::Work, open},
};

const ROUTES: usize = 3_000;
/// Changes a second.
const EDITS: f64 = 50.0;
/// Requests a second.
const RATE: f64 = 2_000.0;

pub(crate) fn run(plan: &Plan) -> Result<()> {
    stage::on_core(async {
        let edited = Edited::start(plan, ROUTES, Services::Shared).await?;
        let mut book = Book::new("churn", "Route changes under load");
        let title = format!("{RATE} requests/s among {ROUTES} HTTPRoutes, {EDITS} edits/s or none");
        let mut scenario = Scenario::new(&title, "request");
        let mut edits = 0;
        for round in 0..=plan.rounds {
            for (name, edited_meanwhile) in [("without edits", false), ("pierhead", true)] {
                let (sample, made) = sample(plan, &edited, round, edited_meanwhile).await.context(name)?;
                edits += made;
                if round > 0 {
                    scenario.add(name, sample);
                }
            }
        }
        book.add(scenario);
        book.note(format!("{edits} edits, no failed request."));
        book.write(plan)
    })
}

async fn sample(plan: &Plan, edited: &Edited, round: usize, meanwhile: bool) -> Result<(Sample, u64)> {
    let work = Work {
        address: edited.peer.clear,
        connections: 32,
        requests: edits::requests(ROUTES),
        tls: None,
    };
    let stop = Arc::new(AtomicBool::new(!meanwhile));
    let editor = {
        let (stop, edit) = (Arc::clone(&stop), edited.editor());
        std::thread::spawn(move || churn(&stop, edit))
    };
    let before = edited.peer.run_time()?;
    let paced = open::run(&work, RATE, plan.time_of(round)).await?;
    let spent = edited.peer.run_time()?.saturating_sub(before);
    stop.store(true, Ordering::Relaxed);
    let made = editor.join().map_err(|_| anyhow::anyhow!("the editor panicked"))??;
    ensure!(paced.failed == 0, "{} requests failed: {:?}", paced.failed, paced.why);
    let count = paced.gave.count.max(1);
    let mut values = latencies(&paced.gave);
    // The 99th percentile is compared.
    values.rotate_left(1);
    values.push(("CPU-µs", spent.as_secs_f64() * 1e6 / count as f64));
    values.push(("requests", count as f64));
    values.push(("edits", made as f64));
    values.push(("failed", paced.failed as f64));
    Ok((Sample(values), made))
}

/// Edits routes until told to stop; how many.
fn churn(stop: &AtomicBool, edit: impl Fn(usize, u64) -> Result<()>) -> Result<u64> {
    let mut made = 0;
    let mut next = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        made += 1;
        edit(made as usize * 131 % ROUTES, made)?;
        next += Duration::from_secs_f64(1.0 / EDITS);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(made)
}
