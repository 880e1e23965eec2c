//! A gRPC backend over HTTP/2 with prior knowledge: `Echo` gives the message back, `Stream` gives many for one.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, anyhow, ensure};
use bytes::{BufMut as _, Bytes, BytesMut};
use h2::{RecvStream, SendStream, server};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::task::spawn_local;

use super::bodies;

/// Messages of one `Stream` call.
pub(crate) const STREAMED: usize = 64;
/// Bytes of each.
pub(crate) const STREAMED_BYTES: usize = 1024;

/// A message with its prefix: not compressed, length.
pub(crate) fn framed(payload: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(payload.len() + 5);
    message.put_u8(0);
    message.put_u32(payload.len() as u32);
    message.put_slice(payload);
    message.freeze()
}

/// Serves on a loopback port of the system's choice, on the current local set.
pub(crate) async fn serve() -> Result<SocketAddr> {
    serve_with(true).await
}

/// The same, for who forwards only: calls come as the client sent them.
pub(crate) async fn serve_plain() -> Result<SocketAddr> {
    serve_with(false).await
}

async fn serve_with(forwarded: bool) -> Result<SocketAddr> {
    super::serve(move |stream| async move {
        // A candidate that closes is no fault; a wrong request is seen by the client, as a reset.
        let Ok(mut connection) = server::Builder::new()
            .initial_window_size(1 << 20)
            .initial_connection_window_size(8 << 20)
            .max_concurrent_streams(1024)
            .handshake::<_, Bytes>(stream)
            .await
        else {
            return;
        };
        while let Some(Ok((request, respond))) = connection.accept().await {
            spawn_local(answer(request, respond, forwarded));
        }
    })
    .await
}

async fn answer(request: Request<RecvStream>, mut respond: server::SendResponse<Bytes>, forwarded: bool) {
    let (parts, body) = request.into_parts();
    let added = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"];
    let missing = added.iter().find(|name| !parts.headers.contains_key(**name));
    let said = match missing.filter(|_| forwarded) {
        Some(name) => Err(anyhow!("a call without {name}")),
        None => call(&parts, body).await,
    };
    let Ok((messages, message)) = said.inspect_err(|error| eprintln!("gRPC backend: {error:#}")) else {
        respond.send_reset(h2::Reason::INTERNAL_ERROR);
        return;
    };
    let mut head = Response::new(());
    head.headers_mut()
        .insert("content-type", HeaderValue::from_static("application/grpc"));
    let Ok(mut stream) = respond.send_response(head, false) else {
        return;
    };
    for _ in 0..messages {
        if send(&mut stream, message.clone()).await.is_none() {
            return;
        }
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let _ = stream.send_trailers(trailers);
}

/// What to answer: how many times which message.
async fn call(parts: &http::request::Parts, mut body: RecvStream) -> Result<(usize, Bytes)> {
    let mut message = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        message.extend_from_slice(&data);
    }
    if parts.uri.path().ends_with("/Stream") {
        return Ok((STREAMED, framed(bodies::piece(0, STREAMED_BYTES))));
    }
    Ok((1, message.freeze()))
}

/// Sends within the peer's window; `None` when the stream is gone.
pub(crate) async fn send(stream: &mut SendStream<Bytes>, mut data: Bytes) -> Option<()> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        while stream.capacity() == 0 {
            std::future::poll_fn(|cx| stream.poll_capacity(cx)).await?.ok()?;
        }
        let part = data.split_to(stream.capacity().min(data.len()));
        stream.send_data(part, false).ok()?;
    }
    Some(())
}

/// Whether `bytes` are `count` messages with this payload.
///
/// # Errors
/// When they are not.
pub(crate) fn check(bytes: &[u8], count: usize, payload: &[u8]) -> Result<()> {
    let message = framed(payload);
    ensure!(
        bytes.len() == count * message.len(),
        "{} bytes of messages, not {count} of {}",
        bytes.len(),
        message.len()
    );
    for (number, part) in bytes.chunks(message.len()).enumerate() {
        ensure!(part == message, "message {number} is damaged");
    }
    Ok(())
}

/// Whether trailers say that a call went well.
///
/// # Errors
/// When they do not.
pub(crate) fn check_status(trailers: Option<&HeaderMap>) -> Result<()> {
    let trailers = trailers.context("an answer without trailers")?;
    let status = trailers.get("grpc-status").map(HeaderValue::as_bytes);
    ensure!(status == Some(b"0"), "trailers say {trailers:?}");
    Ok(())
}
