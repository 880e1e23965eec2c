//! Memory: started, with routes, and per idle connection.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use http::Request as Head;
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinSet,
};
use tokio_rustls::TlsConnector;

use crate::{
    cpu,
    peers::{Peer, Shape, Site},
    plan::Plan,
    report::{Book, Sample, Scenario},
    rigs::stage,
    traffic::{
        backend,
        closed::connect,
        exchange::{self, Request},
        grpc,
        h2::{self, Call, Work},
        pki::{self, Pki},
    },
};

/// Idle connections that are held open.
const CONNECTIONS: usize = 10_000;
/// Opened at a time.
const BATCH: usize = 100;
/// Route objects of the large configuration, one rule each.
const ROUTES: usize = 5_000;
/// How long everything is left alone before it is weighed.
const REST: Duration = Duration::from_secs(3);

const FEW: Shape = Shape {
    hosts: 1,
    prefixes: &["/health"],
    grpc_hosts: 0,
};

pub(crate) fn run(plan: &Plan) -> Result<()> {
    stage::on_core(async {
        let directory = tempfile::tempdir()?;
        let rig = Rig {
            pki: Pki::make(directory.path())?,
            backend: backend::serve().await?,
            grpc: grpc::serve().await?,
            envoy: &plan.envoy,
            directory,
        };
        let mut book = Book::new("memory", "Memory (proportional set size)");
        let names = &plan.candidates;
        let mut idle = Scenario::new("started, one route", "process");
        let mut routes = Scenario::new("with 5,000 routes", "process");
        let kinds = [
            ("HTTP/1.1, clear", Kind::Clear),
            ("HTTP/1.1, TLS 1.3", Kind::Tls),
            ("HTTP/2, clear", Kind::H2c),
            ("HTTP/2, TLS 1.3", Kind::H2),
        ];
        let mut held: Vec<_> = kinds
            .iter()
            .map(|(title, _)| Scenario::new(&format!("{CONNECTIONS} idle connections, {title}"), "connection"))
            .collect();
        for _ in 0..plan.rounds {
            for name in names {
                let few = rig.idle(name, FEW).await.context(*name)?;
                idle.add(name, Sample(vec![("MB", few / 1e6)]));
                let many = Shape { hosts: ROUTES, ..FEW };
                let many = rig.idle(name, many).await.context(*name)?;
                let per_route = (many - few) / ROUTES as f64;
                routes.add(name, Sample(vec![("MB", many / 1e6), ("bytes per route", per_route)]));
                for ((title, kind), scenario) in kinds.iter().zip(&mut held) {
                    let bytes = rig
                        .connections(name, *kind)
                        .await
                        .with_context(|| format!("{name}, {title}"))?;
                    scenario.add(name, Sample(vec![("bytes", bytes)]));
                }
            }
        }
        book.add(idle);
        book.add(routes);
        for scenario in held {
            book.add(scenario);
        }
        backend::verdict()?;
        book.write(plan)
    })
}

#[derive(Clone, Copy)]
enum Kind {
    Clear,
    Tls,
    H2c,
    H2,
}

struct Rig<'a> {
    pki: Pki,
    backend: SocketAddr,
    grpc: SocketAddr,
    envoy: &'a Path,
    directory: TempDir,
}

impl Rig<'_> {
    fn start(&self, name: &'static str, shape: Shape) -> Result<Peer> {
        let mut site = Site::new(self.directory.path(), self.backend, self.grpc, self.envoy);
        site.shape = shape;
        site.start(&[name])?.pop().context("a candidate")
    }

    /// Bytes of a process that has answered one request.
    async fn idle(&self, name: &'static str, shape: Shape) -> Result<f64> {
        let peer = self.start(name, shape)?;
        let mut stream = connect(peer.clear).await?;
        ask(&mut stream).await?;
        drop(stream);
        tokio::time::sleep(REST).await;
        Ok(cpu::resident(peer.pid())? as f64)
    }

    /// Bytes per connection that has carried one request and is idle now.
    async fn connections(&self, name: &'static str, kind: Kind) -> Result<f64> {
        let peer = self.start(name, FEW)?;
        // What is made once is made.
        let first = self.hold(&peer, kind, BATCH).await?;
        tokio::time::sleep(REST).await;
        let before = cpu::resident(peer.pid())?;
        let mut held = Vec::new();
        for _ in 0..CONNECTIONS / BATCH {
            held.push(self.hold(&peer, kind, BATCH).await?);
        }
        tokio::time::sleep(REST).await;
        let after = cpu::resident(peer.pid())?;
        ensure!(held.len() * BATCH == CONNECTIONS, "all connections are open");
        drop((first, held));
        Ok((after as f64 - before as f64) / CONNECTIONS as f64)
    }

    /// Opens connections at the same time, and has one request answered on each.
    async fn hold(&self, peer: &Peer, kind: Kind, count: usize) -> Result<Held> {
        let protocol: &[u8] = if matches!(kind, Kind::H2) { b"h2" } else { b"http/1.1" };
        let tls = self.pki.client(&[protocol], false)?;
        let mut opening = JoinSet::new();
        for _ in 0..count {
            let (clear, secure, h2c, tls) = (peer.clear, peer.tls, peer.h2c, tls.clone());
            opening.spawn_local(async move {
                anyhow::Ok(match kind {
                    Kind::Clear => {
                        let mut stream = connect(clear).await?;
                        ask(&mut stream).await?;
                        Open::Clear(stream)
                    }
                    Kind::Tls => {
                        let stream = connect(secure).await?;
                        let mut stream = TlsConnector::from(tls).connect(pki::server_name(), stream).await?;
                        ask(&mut stream).await?;
                        Open::Tls(Box::new(stream))
                    }
                    Kind::H2c => Open::H2(open_h2(h2c, None).await?),
                    Kind::H2 => Open::H2(open_h2(secure, Some(tls)).await?),
                })
            });
        }
        let mut held = Vec::new();
        while let Some(opened) = opening.join_next().await {
            held.push(opened??);
        }
        Ok(Held { _open: held })
    }
}

/// Connections that stay open as long as this lives.
struct Held {
    _open: Vec<Open>,
}

#[allow(dead_code, reason = "held, not used")]
enum Open {
    Clear(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
    H2(::h2::client::SendRequest<bytes::Bytes>),
}

async fn ask<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> Result<()> {
    let request = Request {
        head: b"GET /health/x HTTP/1.1\r\nHost: h0.example.com\r\n\r\n".to_vec(),
        body_bytes: 0,
        answer_bytes: backend::SMALL,
    };
    let mut buffer = Vec::with_capacity(4096);
    exchange::ask(stream, &request, &mut buffer).await.map(drop)
}

async fn open_h2(
    address: SocketAddr,
    tls: Option<Arc<rustls::ClientConfig>>,
) -> Result<::h2::client::SendRequest<bytes::Bytes>> {
    let call = Call::Get {
        answer_bytes: backend::SMALL,
    };
    let work = Work {
        address,
        connections: 1,
        streams: 1,
        heads: [].into(),
        call: call.clone(),
        tls,
    };
    let send = h2::open(&work).await?;
    let scheme = if work.tls.is_some() { "https" } else { "http" };
    let head = Head::builder()
        .uri(format!("{scheme}://h0.example.com/health/x"))
        .body(())?;
    h2::ask(send.clone(), head, &call).await?;
    Ok(send)
}
