//! HTTP/1.1 keep-alive through each candidate: small and 100 kB answers, clear and TLS 1.3.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustls::{ClientConfig, RootCertStore};
use tokio::task::LocalSet;

use crate::{
    Plan, backend, cpu,
    load::{self, Work},
    peers::{self, HOSTS, PREFIXES, Peer, Site},
    report::{self, Sample, Samples},
};

const CONNECTIONS: usize = 48;

pub(crate) fn run(plan: &Plan) -> Result<()> {
    cpu::pin(1)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, all(plan))
}

async fn all(plan: &Plan) -> Result<()> {
    let mut results = BTreeMap::new();
    for (size, bytes) in [("200 B", 200), ("100 kB", 100_000)] {
        let directory = tempfile::tempdir()?;
        let tls = certificate(&directory)?;
        let backend = backend::serve(vec![b'x'; bytes]).await?;
        let site = Site {
            directory: directory.path(),
            backend,
            pierhead: binary()?,
        };
        let names = if plan.peers.is_empty() {
            ["pierhead", "nginx", "haproxy"].map(str::to_owned).to_vec()
        } else {
            plan.peers.clone()
        };
        let peers = names
            .iter()
            .zip(0..)
            .map(|(name, number)| peers::start(name, number, &site))
            .collect::<Result<Vec<_>>>()?;
        for (kind, config) in [("clear", None), ("TLS 1.3", Some(&tls))] {
            let title = format!("HTTP/1.1 keep-alive, GET, {size} answers, {kind}");
            let samples = scenario(plan, &peers, bytes, config)
                .await
                .with_context(|| title.clone())?;
            report::print(&title, &samples);
            results.insert(title, samples);
        }
    }
    ensure!(
        backend::WRONG.load(Ordering::Relaxed) == 0,
        "requests reached the backend without forwarded headers"
    );
    if let Some(path) = &plan.json {
        report::write(path, &results)?;
    }
    Ok(())
}

async fn scenario(plan: &Plan, peers: &[Peer], body_bytes: usize, tls: Option<&Arc<ClientConfig>>) -> Result<Samples> {
    let requests: Rc<[Vec<u8>]> = (0..HOSTS * PREFIXES.len())
        .map(|n| {
            let (host, prefix) = (n * 7 % HOSTS, PREFIXES.get(n % PREFIXES.len()).copied().unwrap_or("/"));
            format!(
                "GET {prefix}/item-{n} HTTP/1.1\r\nHost: h{host}.example.com\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\n\
                 Accept-Encoding: gzip\r\nAccept-Language: en\r\nCookie: session=0123456789abcdef\r\nX-Client: rig\r\n\r\n"
            )
            .into_bytes()
        })
        .collect();
    let mut samples = Samples::new();
    for round in 0..=plan.rounds {
        for peer in peers {
            let address = if tls.is_some() { peer.tls } else { peer.clear };
            let work = Work {
                address,
                connections: CONNECTIONS,
                requests: Rc::clone(&requests),
                body_bytes,
                tls: tls.cloned(),
            };
            // Round 0 warms up.
            let time = if round == 0 {
                plan.seconds.min(Duration::from_secs(1))
            } else {
                plan.seconds
            };
            let before = cpu::run_time(peer.pid())?;
            let gave = load::run(&work, time).await.with_context(|| peer.name.clone())?;
            let spent = cpu::run_time(peer.pid())?.saturating_sub(before);
            ensure!(gave.answers > 0, "{} answered nothing", peer.name);
            if round > 0 {
                let at = |share: f64| {
                    let place = (gave.latencies.len() as f64 * share) as usize;
                    gave.latencies.get(place).copied().unwrap_or_default()
                };
                samples.entry(peer.name.clone()).or_default().push(Sample {
                    cpu_per_request: spent.as_secs_f64() * 1e6 / gave.answers as f64,
                    requests_per_second: gave.answers as f64 / time.as_secs_f64(),
                    p50: at(0.5),
                    p99: at(0.99),
                    resident: cpu::resident(peer.pid())?,
                });
            }
        }
    }
    Ok(samples)
}

/// Writes `tls.crt`, `tls.key` and both in `tls.pem`; returns a client that trusts them.
fn certificate(directory: &tempfile::TempDir) -> Result<Arc<ClientConfig>> {
    let made = rcgen::generate_simple_self_signed(["bench.example.com".to_owned(), "*.example.com".to_owned()])?;
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    fs::write(directory.path().join("tls.crt"), &certificate)?;
    fs::write(directory.path().join("tls.key"), &key)?;
    fs::write(directory.path().join("tls.pem"), certificate + &key)?;
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone())?;
    Ok(Arc::new(
        ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth(),
    ))
}

/// The release binary beside this one.
fn binary() -> Result<PathBuf> {
    let beside = std::env::current_exe()?.with_file_name("pierhead");
    ensure!(
        beside.exists(),
        "{} is missing: build it with `cargo xtask build`",
        beside.display()
    );
    Ok(beside)
}
