//! HTTP/2 from the client to HTTP/1.1 at the backend.

use std::{rc::Rc, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use http::Request;
use rustls::ClientConfig;

use crate::{
    peers::{HOSTS, PREFIXES, Peer},
    plan::Plan,
    report::{Book, Sample, Scenario},
    rigs::stage::{self, Stage},
    traffic::{
        Until, backend,
        h2::{self, Call, Work},
    },
};

pub(super) const CONNECTIONS: usize = 4;
pub(super) const STREAMS: usize = 12;

pub(crate) fn run(plan: &Plan) -> Result<()> {
    stage::with(plan, async |stage| {
        let mut book = Book::new("h2", "HTTP/2 to HTTP/1.1");
        let tls = stage.pki.client(&[b"h2"], true)?;
        for (size, answer_bytes) in [("200 B", backend::SMALL), ("100 kB", 100_000)] {
            for (how, config) in [("clear", None), ("TLS 1.3", Some(&tls))] {
                let title = format!("GET, {size} answers, {how}");
                if plan.wants(&title) {
                    let call = Call::Get { answer_bytes };
                    let heads = heads(answer_bytes, config.is_some(), HOSTS)?;
                    let samples = scenario(plan, &stage, &title, &heads, &call, config);
                    book.add(samples.await.with_context(|| title.clone())?);
                }
            }
        }
        backend::verdict()?;
        book.write(plan)
    })
}

/// All candidates, interleaved.
pub(super) async fn scenario(
    plan: &Plan,
    stage: &Stage,
    title: &str,
    heads: &Rc<[Request<()>]>,
    call: &Call,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<Scenario> {
    let mut scenario = Scenario::new(title, "request");
    for round in 0..=plan.rounds {
        // HTTP/2 on both sides needs none.
        let for_proxies = tls.is_some() || !matches!(call, Call::Grpc { .. });
        for peer in stage.able(for_proxies) {
            let work = Work {
                address: if tls.is_some() { peer.tls } else { peer.h2c },
                connections: CONNECTIONS,
                streams: STREAMS,
                heads: Rc::clone(heads),
                call: call.clone(),
                tls: tls.cloned(),
            };
            let sample = sample(peer, plan, round, &work).await.with_context(|| peer.name)?;
            if round > 0 {
                scenario.add(peer.name, sample);
            }
        }
    }
    Ok(scenario)
}

async fn sample(peer: &Peer, plan: &Plan, round: usize, work: &Work) -> Result<Sample> {
    let time = plan.time_of(round);
    let before = peer.run_time()?;
    let gave = h2::run(work, Until::Passed(time)).await?;
    let spent = peer.run_time()?.saturating_sub(before);
    ensure!(gave.count > 0, "it answered nothing");
    Sample::of(&gave, spent, time, peer)
}

pub(super) fn heads(size: usize, https: bool, hosts: usize) -> Result<Rc<[Request<()>]>> {
    (0..hosts * PREFIXES.len())
        .map(|n| {
            let (host, prefix) = (n * 7 % hosts, PREFIXES[n % PREFIXES.len()]);
            let scheme = if https { "https" } else { "http" };
            Ok(Request::builder()
                .uri(format!("{scheme}://h{host}.example.com{prefix}/item-{n}?size={size}"))
                .header("user-agent", "bench/1.0")
                .header("accept", "*/*")
                .header("accept-encoding", "gzip")
                .header("accept-language", "en")
                .header("cookie", "session=0123456789abcdef")
                .header("x-client", "rig")
                .body(())?)
        })
        .collect()
}
