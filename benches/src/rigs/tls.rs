//! TLS 1.3 handshakes, full and resumed: one connection, one request, the end.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Instant};

use anyhow::{Context as _, Result, ensure};
use rustls::{ClientConfig, HandshakeKind};
use tokio::{io::AsyncWriteExt as _, task::JoinSet};
use tokio_rustls::TlsConnector;

use crate::{
    peers::Peer,
    plan::Plan,
    report::{Book, Sample, Scenario},
    rigs::stage::{self, Stage},
    traffic::{
        Yield, backend,
        closed::connect,
        exchange::{self, Request},
        pki,
    },
};

/// Handshakes under way at a time.
const CLIENTS: usize = 16;

pub(crate) fn run(plan: &Plan) -> Result<()> {
    stage::with(plan, async |stage| {
        let mut book = Book::new("tls", "TLS 1.3 handshakes (ECDSA P-256, X25519), one request each");
        for (title, kind) in [("full", HandshakeKind::Full), ("resumed", HandshakeKind::Resumed)] {
            if plan.wants(title) {
                book.add(scenario(plan, &stage, title, kind).await.context(title)?);
            }
        }
        backend::verdict()?;
        book.write(plan)
    })
}

async fn scenario(plan: &Plan, stage: &Stage, title: &str, kind: HandshakeKind) -> Result<Scenario> {
    let mut scenario = Scenario::new(title, "handshake");
    for round in 0..=plan.rounds {
        for peer in &stage.peers {
            let sample = sample(peer, plan, stage, round, kind)
                .await
                .with_context(|| peer.name)?;
            if round > 0 {
                scenario.add(peer.name, sample);
            }
        }
    }
    Ok(scenario)
}

async fn sample(peer: &Peer, plan: &Plan, stage: &Stage, round: usize, kind: HandshakeKind) -> Result<Sample> {
    // Tickets are good for one candidate only, and each client keeps its own.
    let configs: Vec<_> = (0..CLIENTS)
        .map(|_| stage.pki.client(&[b"http/1.1"], kind == HandshakeKind::Resumed))
        .collect::<Result<_>>()?;
    if kind == HandshakeKind::Resumed {
        for config in &configs {
            once(peer, config, HandshakeKind::Full)
                .await
                .context("the first, full handshake")?;
        }
    }
    let time = plan.time_of(round);
    let until = Instant::now() + time;
    let total = Rc::new(RefCell::new(Yield::default()));
    let before = peer.run_time()?;
    let mut clients = JoinSet::new();
    for config in configs {
        let (address, total) = (peer.tls, Rc::clone(&total));
        clients.spawn_local(async move {
            while Instant::now() < until {
                let started = Instant::now();
                once_at(address, &config, kind).await?;
                total.borrow_mut().add(started.elapsed());
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended??;
    }
    let spent = peer.run_time()?.saturating_sub(before);
    let gave = total.take().sorted();
    ensure!(gave.count > 0, "no handshake was completed");
    Sample::of(&gave, spent, time, peer)
}

async fn once(peer: &Peer, config: &Arc<ClientConfig>, kind: HandshakeKind) -> Result<()> {
    once_at(peer.tls, config, kind).await
}

async fn once_at(address: std::net::SocketAddr, config: &Arc<ClientConfig>, kind: HandshakeKind) -> Result<()> {
    let stream = connect(address).await?;
    let mut stream = TlsConnector::from(Arc::clone(config))
        .connect(pki::server_name(), stream)
        .await
        .context("TLS handshake")?;
    let request = Request {
        head: b"GET /health/x HTTP/1.1\r\nHost: h1.example.com\r\nConnection: close\r\n\r\n".to_vec(),
        body_bytes: 0,
        answer_bytes: backend::SMALL,
    };
    let mut buffer = Vec::with_capacity(4096);
    exchange::ask(&mut stream, &request, &mut buffer).await?;
    let was = stream.get_ref().1.handshake_kind();
    ensure!(was == Some(kind), "the handshake was {was:?}, not {kind:?}");
    let _ = stream.shutdown().await;
    Ok(())
}
