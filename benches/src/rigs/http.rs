//! HTTP/1.1 keep-alive through each candidate.

use std::{rc::Rc, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rustls::ClientConfig;

use crate::{
    peers::{HOSTS, PREFIXES, Peer},
    plan::Plan,
    report::{Book, Sample, Scenario},
    rigs::stage::{self, Stage},
    traffic::{
        Until, backend,
        closed::{self, Work},
        exchange::Request,
    },
};

pub(super) const CONNECTIONS: usize = 48;

/// A kind of request.
pub(super) struct Kind {
    title: &'static str,
    pub(super) short: &'static str,
    method: &'static str,
    body_bytes: usize,
    pub(super) answer_bytes: usize,
    connections: usize,
}

pub(super) const KINDS: &[Kind] = &[
    Kind {
        title: "GET, 200 B answers",
        short: "GET 200 B",
        method: "GET",
        body_bytes: 0,
        answer_bytes: backend::SMALL,
        connections: CONNECTIONS,
    },
    Kind {
        title: "GET, 100 kB answers",
        short: "GET 100 kB",
        method: "GET",
        body_bytes: 0,
        answer_bytes: 100_000,
        connections: CONNECTIONS,
    },
    Kind {
        title: "POST, 100 kB bodies",
        short: "POST 100 kB",
        method: "POST",
        body_bytes: 100_000,
        answer_bytes: backend::SMALL,
        connections: CONNECTIONS,
    },
    Kind {
        title: "GET, 10 MB answers",
        short: "GET 10 MB",
        method: "GET",
        body_bytes: 0,
        answer_bytes: 10_000_000,
        connections: 8,
    },
];

pub(crate) fn run(plan: &Plan) -> Result<()> {
    stage::with(plan, async |stage| {
        let mut book = Book::new("http", "HTTP/1.1 keep-alive");
        let tls = stage.pki.client(&[b"http/1.1"], true)?;
        for kind in KINDS {
            for (how, config) in [("clear", None), ("TLS 1.3", Some(&tls))] {
                let title = format!("{}, {how}", kind.title);
                if plan.wants(&title) {
                    let samples = scenario(plan, &stage, kind, config, &title);
                    book.add(samples.await.with_context(|| title.clone())?);
                }
            }
        }
        backend::verdict()?;
        book.write(plan)
    })
}

async fn scenario(
    plan: &Plan,
    stage: &Stage,
    kind: &Kind,
    tls: Option<&Arc<ClientConfig>>,
    title: &str,
) -> Result<Scenario> {
    let requests = requests(kind, HOSTS);
    let mut scenario = Scenario::new(title, "request");
    for round in 0..=plan.rounds {
        for peer in stage.able(tls.is_some()) {
            let work = Work {
                address: if tls.is_some() { peer.tls } else { peer.clear },
                connections: kind.connections,
                requests: Rc::clone(&requests),
                tls: tls.cloned(),
            };
            let sample = sample(peer, plan.time_of(round), &work).await;
            let sample = sample.with_context(|| peer.name)?;
            // Round 0 warms up.
            if round > 0 {
                scenario.add(peer.name, sample);
            }
        }
    }
    Ok(scenario)
}

/// One candidate in one round.
async fn sample(peer: &Peer, time: Duration, work: &Work) -> Result<Sample> {
    let before = peer.run_time()?;
    let gave = closed::run(work, Until::Passed(time)).await?;
    let spent = peer.run_time()?.saturating_sub(before);
    ensure!(gave.count > 0, "it answered nothing");
    Sample::of(&gave, spent, time, peer)
}

/// All routes in turn, with the fields a browser sends.
pub(super) fn requests(kind: &Kind, hosts: usize) -> Rc<[Request]> {
    (0..hosts * PREFIXES.len())
        .map(|n| {
            let (host, prefix) = (n * 7 % hosts, PREFIXES[n % PREFIXES.len()]);
            let (method, size) = (kind.method, kind.answer_bytes);
            let length = if kind.body_bytes > 0 {
                format!("Content-Length: {}\r\n", kind.body_bytes)
            } else {
                String::new()
            };
            let head = format!(
                "{method} {prefix}/item-{n}?size={size} HTTP/1.1\r\nHost: h{host}.example.com\r\nUser-Agent: bench/1.0\r\n\
                 Accept: */*\r\nAccept-Encoding: gzip\r\nAccept-Language: en\r\nCookie: session=0123456789abcdef\r\n\
                 X-Client: rig\r\n{length}\r\n"
            );
            Request {
                head: head.into_bytes(),
                body_bytes: kind.body_bytes,
                answer_bytes: size,
            }
        })
        .collect()
}
