//! A tiny HTTP/1.1 backend: keep-alive, an answer of the size the query asks for, and a check of what the proxy added and
//! of what the client sent.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::bodies;

/// What was wrong with requests: they did not carry what a gateway must add, or not the body that was sent.
static WRONG: AtomicU64 = AtomicU64::new(0);
/// Requests seen.
static SEEN: AtomicU64 = AtomicU64::new(0);

/// The size of answers where the query names none.
pub(crate) const SMALL: usize = 200;

/// Fails when any request was not as a gateway must send it.
pub(crate) fn verdict() -> Result<()> {
    let (wrong, seen) = (WRONG.load(Ordering::Relaxed), SEEN.load(Ordering::Relaxed));
    ensure!(
        wrong == 0,
        "{wrong} of {seen} requests reached the backend without forwarded headers or damaged"
    );
    Ok(())
}

/// Serves on a loopback port of the system's choice, on the current local set.
pub(crate) async fn serve() -> Result<SocketAddr> {
    serve_with(true).await
}

/// The same, for who forwards only: requests come as the client sent them.
pub(crate) async fn serve_plain() -> Result<SocketAddr> {
    serve_with(false).await
}

async fn serve_with(forwarded: bool) -> Result<SocketAddr> {
    super::serve(move |stream| async move {
        if let Err(error) = connection(stream, forwarded).await {
            WRONG.fetch_add(1, Ordering::Relaxed);
            eprintln!("backend: {error:#}");
        }
    })
    .await
}

/// Fails only for what a proxy did wrong, not when it closes.
async fn connection(mut stream: TcpStream, forwarded: bool) -> Result<()> {
    let mut buffer = Vec::with_capacity(64 * 1024);
    let mut out = Vec::with_capacity(4096);
    loop {
        let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") else {
            match stream.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => return Ok(()),
                Ok(_) => continue,
            }
        };
        let asked = Asked::read(buffer.get(..end).unwrap_or_default())?;
        let seen = SEEN.fetch_add(1, Ordering::Relaxed);
        // A sample, so that the check does not become the load.
        if forwarded && seen.is_multiple_of(256) {
            check_forwarded(buffer.get(..end).unwrap_or_default())?;
        }
        buffer.drain(..end + 4);
        if !swallow(&mut stream, &mut buffer, asked.body).await? {
            return Ok(());
        }
        out.clear();
        out.extend_from_slice(
            b"HTTP/1.1 200 OK\r\nServer: bench\r\nDate: Mon, 23 Nov 2026 12:00:00 GMT\r\nContent-Type: application/json\r\nContent-Length: ",
        );
        out.extend_from_slice(asked.answer.to_string().as_bytes());
        out.extend_from_slice(b"\r\n\r\n");
        let mut sent = asked.answer.min(16 * 1024);
        out.extend_from_slice(bodies::piece(0, sent));
        if stream.write_all(&out).await.is_err() {
            return Ok(());
        }
        while sent < asked.answer {
            let piece = bodies::piece(sent, asked.answer - sent);
            if stream.write_all(piece).await.is_err() {
                return Ok(());
            }
            sent += piece.len();
        }
    }
}

/// What a head says that matters here.
struct Asked {
    /// Bytes of the request's body.
    body: Body,
    /// Bytes to answer with.
    answer: usize,
}

#[derive(Clone, Copy)]
enum Body {
    Length(usize),
    Chunked,
}

impl Asked {
    fn read(head: &[u8]) -> Result<Self> {
        let line = head.split(|b| *b == b'\r').next().unwrap_or_default();
        let answer = match number_after(line, b"?size=") {
            Some(size) => size,
            None => SMALL,
        };
        if line.starts_with(b"GET ") {
            return Ok(Self {
                body: Body::Length(0),
                answer,
            });
        }
        // HAProxy writes field names in lower case, others as they came.
        let head = head.to_ascii_lowercase();
        let body = if let Some(length) = number_after(&head, b"\r\ncontent-length: ") {
            Body::Length(length)
        } else if head.windows(28).any(|w| w == b"\r\ntransfer-encoding: chunked") {
            Body::Chunked
        } else {
            bail!(
                "a request with a body of unknown length: {}",
                String::from_utf8_lossy(&head)
            )
        };
        Ok(Self { body, answer })
    }
}

fn number_after(text: &[u8], mark: &[u8]) -> Option<usize> {
    let at = text.windows(mark.len()).position(|w| w == mark)?;
    let digits = text.get(at + mark.len()..)?;
    let end = digits.iter().position(|b| !b.is_ascii_digit()).unwrap_or(digits.len());
    str::from_utf8(digits.get(..end)?).ok()?.parse().ok()
}

/// Reads a body of the pattern and checks it. `false`: the proxy closed.
async fn swallow(stream: &mut TcpStream, buffer: &mut Vec<u8>, body: Body) -> Result<bool> {
    match body {
        Body::Length(length) => {
            let mut at = 0;
            swallow_piece(stream, buffer, length, &mut at).await
        }
        Body::Chunked => {
            let mut at = 0;
            loop {
                let line = loop {
                    if let Some(end) = buffer.windows(2).position(|w| w == b"\r\n") {
                        break end;
                    }
                    if stream.read_buf(buffer).await.unwrap_or(0) == 0 {
                        return Ok(false);
                    }
                };
                let digits = str::from_utf8(&buffer[..line])?.trim().to_owned();
                let size = usize::from_str_radix(&digits, 16).context("a chunk without a size")?;
                buffer.drain(..line + 2);
                if !swallow_piece(stream, buffer, size, &mut at).await? {
                    return Ok(false);
                }
                while buffer.len() < 2 {
                    if stream.read_buf(buffer).await.unwrap_or(0) == 0 {
                        return Ok(false);
                    }
                }
                ensure!(buffer.starts_with(b"\r\n"), "a chunk without an end");
                buffer.drain(..2);
                if size == 0 {
                    return Ok(true);
                }
            }
        }
    }
}

async fn swallow_piece(stream: &mut TcpStream, buffer: &mut Vec<u8>, length: usize, at: &mut usize) -> Result<bool> {
    let end = *at + length;
    while *at < end {
        if buffer.is_empty() && stream.read_buf(buffer).await.unwrap_or(0) == 0 {
            return Ok(false);
        }
        let count = buffer.len().min(end - *at);
        bodies::check(*at, &buffer[..count])?;
        *at += count;
        if count == buffer.len() {
            buffer.clear();
        } else {
            buffer.drain(..count);
        }
    }
    Ok(true)
}

/// The head carries the forwarded headers, and no hop-by-hop header of the client.
fn check_forwarded(head: &[u8]) -> Result<()> {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    for name in [
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-request-id",
    ] {
        ensure!(head.contains(&format!("\r\n{name}: ")), "no {name} in {head}");
    }
    ensure!(!head.contains("\r\nkeep-alive:"), "a hop-by-hop header in {head}");
    Ok(())
}
