//! Latency in open loop: every candidate gets the same requests at the same times.

use std::{rc::Rc, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rustls::ClientConfig;

use super::http::{CONNECTIONS, KINDS, requests};
use crate::{
    cpu,
    peers::{HOSTS, Peer},
    plan::Plan,
    report::{Book, Sample, Scenario, latencies},
    rigs::stage,
    traffic::{
        Until, backend,
        closed::{self, Work},
        exchange::Request,
        open,
    },
};

pub(crate) fn run(plan: &Plan) -> Result<()> {
    stage::with(plan, async |stage| {
        let mut book = Book::new("latency", "Latency of small HTTP/1.1 requests in open loop");
        let tls = stage.pki.client(&[b"http/1.1"], true)?;
        let small = requests(KINDS.first().context("a kind")?, HOSTS);
        for (how, config) in [("clear", None), ("TLS 1.3", Some(&tls))] {
            let peers: Vec<&Peer> = stage.able(config.is_some()).collect();
            let capacities = capacities(plan, &peers, &small, config).await?;
            // Half of what the slowest manages; then, without it, half of what the next manages.
            let mut sorted: Vec<f64> = capacities.iter().map(|(_, capacity)| *capacity).collect();
            sorted.sort_by(f64::total_cmp);
            for slowest in sorted.iter().take(2) {
                let rate = slowest / 2.0;
                let able: Vec<&Peer> = peers
                    .iter()
                    .zip(&capacities)
                    .filter(|(_, (_, capacity))| capacity >= slowest)
                    .map(|(peer, _)| *peer)
                    .collect();
                let title = format!("{how}, {rate:.0} requests/s");
                if plan.wants(&title) {
                    let work = |peer: &Peer| work(peer, &small, config);
                    book.add(
                        scenario(plan, &able, &title, rate, work)
                            .await
                            .with_context(|| title.clone())?,
                    );
                }
            }
        }
        backend::verdict()?;
        book.write(plan)
    })
}

fn work(peer: &Peer, requests: &Rc<[Request]>, tls: Option<&Arc<ClientConfig>>) -> Work {
    Work {
        address: if tls.is_some() { peer.tls } else { peer.clear },
        connections: CONNECTIONS,
        requests: Rc::clone(requests),
        tls: tls.cloned(),
    }
}

/// What each candidate answers in a second, in closed loop.
async fn capacities(
    plan: &Plan,
    peers: &[&Peer],
    requests: &Rc<[Request]>,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<Vec<(&'static str, f64)>> {
    let mut found = Vec::new();
    for peer in peers {
        let work = work(peer, requests, tls);
        // The first run warms up.
        closed::run(&work, Until::Passed(Duration::from_millis(500)))
            .await
            .context(peer.name)?;
        let gave = closed::run(&work, Until::Passed(plan.seconds))
            .await
            .context(peer.name)?;
        found.push((peer.name, gave.count as f64 / plan.seconds.as_secs_f64()));
    }
    Ok(found)
}

async fn scenario(
    plan: &Plan,
    peers: &[&Peer],
    title: &str,
    rate: f64,
    work: impl Fn(&Peer) -> Work,
) -> Result<Scenario> {
    let mut scenario = Scenario::new(title, "request");
    for round in 0..=plan.rounds {
        for peer in peers {
            let before = peer.run_time()?;
            let paced = open::run(&work(peer), rate, plan.time_of(round))
                .await
                .context(peer.name)?;
            let spent = peer.run_time()?.saturating_sub(before);
            ensure!(
                paced.failed == 0,
                "{}: {} failed: {:?}",
                peer.name,
                paced.failed,
                paced.why
            );
            if round > 0 {
                let mut values = latencies(&paced.gave);
                // What is compared comes first.
                values.rotate_left(1);
                values.push(("CPU-µs", spent.as_secs_f64() * 1e6 / paced.gave.count.max(1) as f64));
                values.push(("MB", cpu::resident(peer.pid())? as f64 / 1e6));
                scenario.add(peer.name, Sample(values));
            }
        }
    }
    Ok(scenario)
}
