//! A closed-loop HTTP/2 client: connections with many streams each, every answer checked.

use std::{cell::RefCell, net::SocketAddr, rc::Rc, sync::Arc, time::Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use h2::client::{self, SendRequest};
use http::Request;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::{JoinSet, spawn_local},
};
use tokio_rustls::TlsConnector;

use super::{Until, Yield, bodies, closed::connect, grpc, pki};

/// What is asked, and what must come back.
#[derive(Clone)]
pub(crate) enum Call {
    /// An answer of the pattern.
    Get { answer_bytes: usize },
    /// One gRPC message, and so many with this payload back.
    Grpc {
        message: Bytes,
        answers: usize,
        payload: &'static [u8],
    },
}

/// Who asks what.
#[derive(Clone)]
pub(crate) struct Work {
    pub(crate) address: SocketAddr,
    pub(crate) connections: usize,
    /// Per connection.
    pub(crate) streams: usize,
    /// Heads, asked in turn.
    pub(crate) heads: Rc<[Request<()>]>,
    pub(crate) call: Call,
    pub(crate) tls: Option<Arc<rustls::ClientConfig>>,
}

/// Runs `work`, each stream with its next request as soon as it has the answer.
///
/// # Errors
/// At the first wrong answer or broken connection.
pub(crate) async fn run(work: &Work, until: Until) -> Result<Yield> {
    let began = Instant::now();
    let total = Rc::new(RefCell::new(Yield::default()));
    let mut clients = JoinSet::new();
    for connection in 0..work.connections {
        let send = open(work).await?;
        for stream in 0..work.streams {
            let number = connection * work.streams + stream;
            clients.spawn_local(client(
                send.clone(),
                work.clone(),
                number,
                (began, until),
                Rc::clone(&total),
            ));
        }
    }
    while let Some(ended) = clients.join_next().await {
        ended??;
    }
    Ok(total.take().sorted())
}

/// A connection, served in the background.
pub(crate) async fn open(work: &Work) -> Result<SendRequest<Bytes>> {
    let stream = connect(work.address).await?;
    let Some(config) = &work.tls else {
        return handshake(stream).await;
    };
    let stream = TlsConnector::from(Arc::clone(config))
        .connect(pki::server_name(), stream)
        .await
        .context("TLS handshake")?;
    ensure!(
        stream.get_ref().1.alpn_protocol() == Some(b"h2"),
        "the proxy did not choose h2"
    );
    handshake(stream).await
}

async fn handshake<S: AsyncRead + AsyncWrite + Unpin + 'static>(stream: S) -> Result<SendRequest<Bytes>> {
    let (send, connection) = client::Builder::new()
        .initial_window_size(1 << 20)
        .initial_connection_window_size(8 << 20)
        .handshake::<_, Bytes>(stream)
        .await?;
    spawn_local(async move {
        // Whoever waits for an answer on it sees the error.
        let _ = connection.await;
    });
    Ok(send)
}

async fn client(
    send: SendRequest<Bytes>,
    work: Work,
    number: usize,
    (began, until): (Instant, Until),
    total: Rc<RefCell<Yield>>,
) -> Result<()> {
    for head in work.heads.iter().cycle().skip(number * 7) {
        if until.is_over(began, total.borrow().count) {
            break;
        }
        let started = Instant::now();
        ask(send.clone(), head.clone(), &work.call).await?;
        total.borrow_mut().add(started.elapsed());
    }
    Ok(())
}

/// One request and its answer.
///
/// # Errors
/// When the answer is not what it must be.
pub(crate) async fn ask(send: SendRequest<Bytes>, head: Request<()>, call: &Call) -> Result<()> {
    let mut send = send.ready().await?;
    let ended = matches!(call, Call::Get { .. });
    let (response, mut stream) = send.send_request(head, ended)?;
    if let Call::Grpc { message, .. } = call {
        stream.send_data(message.clone(), true)?;
    }
    let (parts, mut body) = response.await.context("no answer")?.into_parts();
    ensure!(parts.status == 200, "wrong answer: {parts:?}");
    let mut at = 0;
    let mut messages = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        match call {
            Call::Get { .. } => bodies::check(at, &data)?,
            Call::Grpc { .. } => messages.extend_from_slice(&data),
        }
        at += data.len();
    }
    match call {
        Call::Get { answer_bytes } => ensure!(at == *answer_bytes, "{at} bytes instead of {answer_bytes}"),
        Call::Grpc { answers, payload, .. } => {
            let trailers = body.trailers().await?;
            grpc::check(&messages, *answers, payload)?;
            grpc::check_status(trailers.as_ref())?;
        }
    }
    Ok(())
}
