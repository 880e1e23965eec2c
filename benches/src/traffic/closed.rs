//! A closed-loop client: as many requests as the proxy answers, each answer checked.

use std::{cell::RefCell, net::SocketAddr, rc::Rc, sync::Arc, time::Instant};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::spawn_local,
};
use tokio_rustls::TlsConnector;

use super::{
    Until, Yield,
    exchange::{self, Request},
    pki,
};

/// Who asks what.
#[derive(Clone)]
pub(crate) struct Work {
    pub(crate) address: SocketAddr,
    pub(crate) connections: usize,
    /// Asked in turn.
    pub(crate) requests: Rc<[Request]>,
    pub(crate) tls: Option<Arc<rustls::ClientConfig>>,
}

/// Runs `work`, each connection with its next request as soon as it has the answer.
///
/// # Errors
/// At the first wrong answer or broken connection.
pub(crate) async fn run(work: &Work, until: Until) -> Result<Yield> {
    let began = Instant::now();
    let total = Rc::new(RefCell::new(Yield::default()));
    let clients: Vec<_> = (0..work.connections)
        .map(|n| spawn_local(client(work.clone(), n, (began, until), Rc::clone(&total))))
        .collect();
    for client in clients {
        client.await??;
    }
    Ok(total.take().sorted())
}

async fn client(work: Work, number: usize, end: (Instant, Until), total: Rc<RefCell<Yield>>) -> Result<()> {
    let stream = connect(work.address).await?;
    match &work.tls {
        None => ask(stream, &work, number, end, &total).await,
        Some(config) => {
            let stream = TlsConnector::from(Arc::clone(config))
                .connect(pki::server_name(), stream)
                .await
                .context("TLS handshake")?;
            ask(stream, &work, number, end, &total).await
        }
    }
}

/// A connection without delays.
pub(crate) async fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address)
        .await
        .with_context(|| format!("connect to {address}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    work: &Work,
    number: usize,
    (began, until): (Instant, Until),
    total: &RefCell<Yield>,
) -> Result<()> {
    let mut buffer = Vec::with_capacity(exchange::BUFFER);
    for request in work.requests.iter().cycle().skip(number * 7) {
        if until.is_over(began, total.borrow().count) {
            break;
        }
        let started = Instant::now();
        exchange::ask(&mut stream, request, &mut buffer).await?;
        total.borrow_mut().add(started.elapsed());
    }
    Ok(())
}
