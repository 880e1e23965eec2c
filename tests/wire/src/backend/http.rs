//! An HTTP server that answers with what it was asked, as JSON.
//!
//! The query steers it: `status=503`, `delay_ms=200`, `size=100000` (so many bytes instead of the JSON), `chunked=1` (no
//! Content-Length), `trailer=name:value`, `header=name:value` (may be repeated), `close=1`.
//! A request with the content type `application/grpc` gets each of its messages back, and `grpc-status: 0` in trailers.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, TRAILER};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// What HTTP/2 starts with when there is no TLS to say so.
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0";

pub(super) async fn serve(listener: TcpListener, name: String, tls: Option<Arc<rustls::ServerConfig>>) {
    let name: Arc<str> = name.into();
    let tls = tls.map(TlsAcceptor::from);
    while let Ok((stream, _)) = listener.accept().await {
        let name = Arc::clone(&name);
        let tls = tls.clone();
        tokio::spawn(async move {
            // A connection that breaks is the peer's business: the test sees it at its own end.
            let _ = match tls {
                Some(tls) => secured(stream, &tls, name).await,
                None => clear(stream, name).await,
            };
        });
    }
}

async fn clear(stream: TcpStream, name: Arc<str>) -> Result<()> {
    let mut start = [0; H2_PREFACE.len()];
    loop {
        let seen = stream.peek(&mut start).await?;
        if seen == 0 {
            return Ok(());
        }
        if !H2_PREFACE.starts_with(&start[..seen]) {
            return http1(stream, name).await;
        }
        if seen == H2_PREFACE.len() {
            return http2(stream, name).await;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn secured(stream: TcpStream, tls: &TlsAcceptor, name: Arc<str>) -> Result<()> {
    let stream = tls.accept(stream).await?;
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        http2(stream, name).await
    } else {
        http1(stream, name).await
    }
}

async fn http1(stream: impl AsyncRead + AsyncWrite + Unpin, name: Arc<str>) -> Result<()> {
    let service = service_fn(move |request| answer(request, Arc::clone(&name)));
    Ok(hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await?)
}

async fn http2(stream: impl AsyncRead + AsyncWrite + Unpin, name: Arc<str>) -> Result<()> {
    let service = service_fn(move |request| answer(request, Arc::clone(&name)));
    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    Ok(server.serve_connection(TokioIo::new(stream), service).await?)
}

async fn answer(request: Request<Incoming>, name: Arc<str>) -> Result<Answer> {
    let (head, body) = request.into_parts();
    let grpc = head
        .headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if grpc {
        return Ok(grpc_echo(&head, body, &name));
    }
    let wish = Wish::of(head.uri.query().unwrap_or_default());
    let body = body.collect().await?;
    let trailers = body.trailers().cloned();
    let body = body.to_bytes();
    tokio::time::sleep(wish.delay).await;

    let content = match wish.size {
        Some(size) => Bytes::from(vec![b'x'; size]),
        None => serde_json::json!({
            "backend": *name,
            "method": head.method.as_str(),
            "target": head.uri.to_string(),
            "path": head.uri.path_and_query().map(http::uri::PathAndQuery::as_str),
            "version": format!("{:?}", head.version),
            "headers": shown(&head.headers),
            "body_bytes": body.len(),
            "body_sum": sum(&body),
            "trailers": trailers.as_ref().map(shown),
        })
        .to_string()
        .into(),
    };
    // Without being announced, hyper sends none over HTTP/1.
    let announced = wish
        .trailers
        .keys()
        .map(HeaderName::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    let mut response = Response::new(if wish.chunked || !wish.trailers.is_empty() {
        pieces(content, wish.trailers)
    } else {
        Full::new(content).boxed_unsync()
    });
    *response.status_mut() = wish.status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().extend(wish.headers);
    if let Ok(announced) = HeaderValue::try_from(announced)
        && !announced.is_empty()
    {
        response.headers_mut().insert(TRAILER, announced);
    }
    if wish.close {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// What the query asks for.
struct Wish {
    status: StatusCode,
    delay: Duration,
    size: Option<usize>,
    chunked: bool,
    close: bool,
    headers: HeaderMap,
    trailers: HeaderMap,
}

impl Wish {
    fn of(query: &str) -> Self {
        let mut wish = Self {
            status: StatusCode::OK,
            delay: Duration::ZERO,
            size: None,
            chunked: false,
            close: false,
            headers: HeaderMap::new(),
            trailers: HeaderMap::new(),
        };
        for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match key {
                "status" => wish.status = value.parse().unwrap_or(StatusCode::BAD_REQUEST),
                "delay_ms" => wish.delay = Duration::from_millis(value.parse().unwrap_or_default()),
                "size" => wish.size = value.parse().ok(),
                "chunked" => wish.chunked = true,
                "close" => wish.close = true,
                "header" => wish.headers.extend(field(value)),
                "trailer" => wish.trailers.extend(field(value)),
                _ => {}
            }
        }
        wish
    }
}

fn field(text: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = text.split_once(':')?;
    Some((name.parse().ok()?, value.parse().ok()?))
}

/// The content in pieces of 16 kB, its length unsaid, then trailers if any.
fn pieces(content: Bytes, trailers: HeaderMap) -> UnsyncBoxBody<Bytes, Infallible> {
    let data: Vec<Bytes> = content
        .chunks(16 * 1024)
        .map(|piece| content.slice_ref(piece))
        .collect();
    let last = (!trailers.is_empty()).then(|| Frame::trailers(trailers));
    let frames = data.into_iter().map(Frame::data).chain(last).map(Ok);
    BodyExt::boxed_unsync(StreamBody::new(futures_util::stream::iter(frames)))
}

fn shown(headers: &HeaderMap) -> Vec<[String; 2]> {
    headers
        .iter()
        .map(|(name, value)| [name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()])
        .collect()
}

/// A checksum, so that a large body need not travel twice.
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Sends every frame back as it comes, so a stream may be answered before it ends.
fn grpc_echo(head: &http::request::Parts, body: Incoming, name: &str) -> Answer {
    let mut trailers = HeaderMap::new();
    let fails = head.uri.path().ends_with("/Fail");
    trailers.insert("grpc-status", HeaderValue::from_static(if fails { "7" } else { "0" }));
    let frames = futures_util::stream::unfold((body, Some(trailers)), |(mut body, mut trailers)| async move {
        match body.frame().await {
            Some(Ok(frame)) if frame.is_data() => Some((Ok(frame), (body, trailers))),
            _ => trailers.take().map(|last| (Ok(Frame::trailers(last)), (body, None))),
        }
    });
    let mut response = Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    if let Ok(name) = HeaderValue::from_str(name) {
        headers.insert("x-backend", name);
    }
    response
}
