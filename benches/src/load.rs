//! A closed-loop client: as many requests as the proxy answers, each answer checked.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    task::spawn_local,
};
use tokio_rustls::TlsConnector;

/// What to ask, and what must come back.
#[derive(Clone)]
pub(crate) struct Work {
    pub(crate) address: SocketAddr,
    pub(crate) connections: usize,
    /// Whole requests, asked in turn.
    pub(crate) requests: Rc<[Vec<u8>]>,
    pub(crate) body_bytes: usize,
    pub(crate) tls: Option<Arc<rustls::ClientConfig>>,
}

/// What one run gave.
#[derive(Debug, Default)]
pub(crate) struct Yield {
    pub(crate) answers: u64,
    /// Sorted.
    pub(crate) latencies: Vec<Duration>,
}

/// Runs `work` for `time`.
///
/// # Errors
/// At the first wrong answer or broken connection.
pub(crate) async fn run(work: &Work, time: Duration) -> Result<Yield> {
    let stop = Rc::new(Cell::new(false));
    let total = Rc::new(RefCell::new(Yield::default()));
    let clients: Vec<_> = (0..work.connections)
        .map(|n| spawn_local(client(work.clone(), n, Rc::clone(&stop), Rc::clone(&total))))
        .collect();
    tokio::time::sleep(time).await;
    stop.set(true);
    for client in clients {
        client.await??;
    }
    let mut total = total.take();
    total.latencies.sort_unstable();
    Ok(total)
}

async fn client(work: Work, number: usize, stop: Rc<Cell<bool>>, total: Rc<RefCell<Yield>>) -> Result<()> {
    let stream = TcpStream::connect(work.address)
        .await
        .with_context(|| format!("connect to {}", work.address))?;
    stream.set_nodelay(true)?;
    match &work.tls {
        None => ask(stream, &work, number, &stop, &total).await,
        Some(config) => {
            let name = ServerName::try_from("bench.example.com").context("server name")?;
            let stream = TlsConnector::from(Arc::clone(config))
                .connect(name, stream)
                .await
                .context("TLS handshake")?;
            ask(stream, &work, number, &stop, &total).await
        }
    }
}

async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    work: &Work,
    number: usize,
    stop: &Cell<bool>,
    total: &RefCell<Yield>,
) -> Result<()> {
    let mut buffer = Vec::with_capacity(64 * 1024);
    for request in work.requests.iter().cycle().skip(number * 7) {
        if stop.get() {
            break;
        }
        let started = Instant::now();
        stream.write_all(request).await.context("send a request")?;
        stream.flush().await?;
        let head = loop {
            if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break end + 4;
            }
            ensure!(
                stream.read_buf(&mut buffer).await? > 0,
                "the proxy closed the connection before an answer"
            );
        };
        ensure!(
            buffer.starts_with(b"HTTP/1.1 200"),
            "wrong answer: {}",
            String::from_utf8_lossy(buffer.get(..head).unwrap_or_default())
        );
        while buffer.len() < head + work.body_bytes {
            ensure!(
                stream.read_buf(&mut buffer).await? > 0,
                "the proxy closed the connection inside an answer"
            );
        }
        ensure!(
            buffer.len() == head + work.body_bytes,
            "{} bytes too many after an answer",
            buffer.len() - head - work.body_bytes
        );
        buffer.clear();
        let mut total = total.borrow_mut();
        total.answers += 1;
        total.latencies.push(started.elapsed());
    }
    Ok(())
}
