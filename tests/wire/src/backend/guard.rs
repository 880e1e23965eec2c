//! An authorization service: over HTTP/1, and over gRPC as `envoy.service.auth.v3.Authorization`, on one port.
//!
//! The word after `token:` or in `x-token` decides: `good` may pass as `alice`, `slow` waits for longer than anybody should,
//! anything else may not pass. Whether it was told [`BODY`] is said too.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};

/// What a request may hold, for the service to see.
pub const BODY: &str = "the whole body";

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

enum Verdict {
    Good,
    Bad,
}

async fn judge(token: &[u8]) -> Verdict {
    if has(token, b"slow") {
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    match has(token, b"good") {
        true => Verdict::Good,
        false => Verdict::Bad,
    }
}

fn has(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|part| part == word)
}

pub(super) async fn serve(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        // What goes wrong here shows at the client.
        tokio::spawn(async move { drop(connection(stream).await) });
    }
}

async fn connection(stream: TcpStream) -> Result<()> {
    let mut start = [0; 3];
    while stream.peek(&mut start).await? < start.len() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    if &start == b"PRI" {
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        server
            .serve_connection(TokioIo::new(stream), service_fn(over_grpc))
            .await?;
    } else {
        let server = hyper::server::conn::http1::Builder::new();
        server
            .serve_connection(TokioIo::new(stream), service_fn(over_http))
            .await?;
    }
    Ok(())
}

fn saw(message: &[u8]) -> &'static str {
    if has(message, BODY.as_bytes()) {
        "body"
    } else {
        "no body"
    }
}

async fn over_http(request: Request<Incoming>) -> Result<Answer> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let token = head.headers.get("x-token").map(HeaderValue::as_bytes);
    let (status, name, value, content) = match judge(token.unwrap_or_default()).await {
        Verdict::Good => (200, "x-user", "alice", ""),
        Verdict::Bad => (403, "x-why", "token", "no entry"),
    };
    let response = Response::builder()
        .status(status)
        .header(name, value)
        .header("x-guard-saw", saw(&body));
    Ok(response.body(Full::new(Bytes::from_static(content.as_bytes())).boxed_unsync())?)
}

async fn over_grpc(request: Request<Incoming>) -> Result<Answer> {
    let message = request.into_body().collect().await?.to_bytes();
    let answer = match judge(&message).await {
        Verdict::Good => {
            let fields = [option("x-user", "alice"), option("x-guard-saw", saw(&message))].concat();
            [field(1, &[]), field(3, &fields)].concat()
        }
        Verdict::Bad => {
            // `PERMISSION_DENIED`, and 403 in a varint.
            let denied = [
                field(1, &[1 << 3, 0x93, 3]),
                option("x-why", "token"),
                field(3, b"no entry"),
            ];
            [field(1, &[1 << 3, 7]), field(2, &denied.concat())].concat()
        }
    };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let length = u32::try_from(answer.len())?.to_be_bytes();
    let framed = [&[0], &length[..], &answer].concat();
    let frames = [Frame::data(Bytes::from(framed)), Frame::trailers(trailers)];
    let body = StreamBody::new(futures_util::stream::iter(frames.map(Ok)));
    let response = Response::builder().header("content-type", "application/grpc");
    Ok(response.body(BodyExt::boxed_unsync(body))?)
}

/// A field of a protobuf message that has a length, of at most 127 bytes.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).unwrap_or(u8::MAX);
    [&[number << 3 | 2, length][..], content].concat()
}

/// `HeaderValueOption` as the second field of a message.
fn option(name: &str, value: &str) -> Vec<u8> {
    let header = [field(1, name.as_bytes()), field(2, value.as_bytes())].concat();
    field(2, &field(1, &header))
}
