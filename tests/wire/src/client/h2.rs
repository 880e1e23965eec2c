//! HTTP/2 by hyper: one connection per batch of requests.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Body;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::TIMEOUT;
use super::h1::Response;
use crate::netns::Netns;

/// A place to send HTTP/2 requests to.
pub struct H2 {
    namespace: Arc<Netns>,
    to: SocketAddr,
    tls: Option<(String, Arc<ClientConfig>)>,
}

impl H2 {
    pub(super) fn new(namespace: Arc<Netns>, to: SocketAddr, tls: Option<(String, Arc<ClientConfig>)>) -> Self {
        Self { namespace, to, tls }
    }

    /// One `GET` of an absolute URL.
    pub fn get(&self, url: &str) -> Result<Response> {
        let mut responses = self.batch(vec![Request::get(url).body(Full::default())?])?;
        responses.pop().context("no response")
    }

    /// Sends the requests one after the other on one connection.
    pub fn batch(&self, requests: Vec<Request<Full<Bytes>>>) -> Result<Vec<Response>> {
        self.with(async |sender| {
            let mut responses = Vec::new();
            for request in requests {
                responses.push(exchange(sender, request).await?);
            }
            Ok(responses)
        })
    }

    /// Connects and runs `talk` with the connection.
    pub(super) fn with<B, T>(&self, talk: impl AsyncFnOnce(&mut SendRequest<B>) -> Result<T> + Send) -> Result<T>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        T: Send,
    {
        self.namespace.enter(|| {
            crate::netns::runtime()?.block_on(async {
                let stream = tokio::time::timeout(TIMEOUT, TcpStream::connect(self.to)).await??;
                let mut sender = match &self.tls {
                    None => connected(stream).await?,
                    Some((name, config)) => {
                        let name = ServerName::try_from(name.clone())?;
                        let stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await?;
                        let chosen = stream.get_ref().1.alpn_protocol();
                        ensure!(chosen == Some(b"h2"), "ALPN chose {chosen:?}");
                        connected(stream).await?
                    }
                };
                tokio::time::timeout(TIMEOUT, talk(&mut sender))
                    .await
                    .context("no answer in time")?
            })
        })?
    }
}

async fn connected<S, B>(stream: S) -> Result<SendRequest<B>>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    // Its end shows at the sender.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

async fn exchange(sender: &mut SendRequest<Full<Bytes>>, request: Request<Full<Bytes>>) -> Result<Response> {
    sender.ready().await?;
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = body.collect().await?;
    Ok(Response {
        status: head.status.as_u16(),
        version: format!("{:?}", head.version),
        trailers: body.trailers().map(fields).unwrap_or_default(),
        headers: fields(&head.headers),
        body: body.to_bytes().to_vec(),
    })
}

pub(super) fn fields(headers: &http::HeaderMap) -> Vec<(String, String)> {
    let shown = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers
        .iter()
        .map(|(name, value)| (name.to_string(), shown(value)))
        .collect()
}
