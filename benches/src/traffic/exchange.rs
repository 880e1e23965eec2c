//! One HTTP/1.1 request and its answer on any stream, checked to the last byte.

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::bodies;

/// A request, and how long its answer must be.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Head, with whatever body fits; longer bodies follow from the pattern.
    pub(crate) head: Vec<u8>,
    /// Bytes of body that follow the head.
    pub(crate) body_bytes: usize,
    pub(crate) answer_bytes: usize,
}

/// Small reads are enough for small answers; large ones need fewer calls.
pub(crate) const BUFFER: usize = 128 * 1024;

/// Sends a request and reads its answer. Returns the length of its head, which for a small answer is at the start of
/// `buffer`.
///
/// # Errors
/// At the first byte that is not what it should be.
pub(crate) async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    request: &Request,
    buffer: &mut Vec<u8>,
) -> Result<usize> {
    if request.body_bytes == 0 {
        stream.write_all(&request.head).await.context("send a request")?;
    } else {
        send_with_body(stream, request).await?;
    }
    stream.flush().await?;
    buffer.clear();
    let head = loop {
        if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            break end + 4;
        }
        ensure!(
            stream.read_buf(buffer).await? > 0,
            "the proxy closed the connection before an answer"
        );
    };
    check_head(&buffer[..head], request.answer_bytes)?;
    let mut at = buffer.len() - head;
    ensure!(
        at <= request.answer_bytes,
        "{} bytes too many after an answer",
        at - request.answer_bytes
    );
    bodies::check(0, &buffer[head..])?;
    while at < request.answer_bytes {
        buffer.clear();
        ensure!(
            stream.read_buf(buffer).await? > 0,
            "the proxy closed the connection inside an answer"
        );
        bodies::check(at, buffer)?;
        at += buffer.len();
    }
    ensure!(
        at == request.answer_bytes,
        "{} bytes too many after an answer",
        at - request.answer_bytes
    );
    Ok(head)
}

async fn send_with_body<S: AsyncWrite + Unpin>(stream: &mut S, request: &Request) -> Result<()> {
    let first = request.body_bytes.min(16 * 1024);
    let start = [&request.head, bodies::piece(0, first)].concat();
    stream.write_all(&start).await.context("send a request")?;
    let mut at = first;
    while at < request.body_bytes {
        let piece = bodies::piece(at, request.body_bytes - at);
        stream.write_all(piece).await.context("send a body")?;
        at += piece.len();
    }
    Ok(())
}

fn check_head(head: &[u8], body_bytes: usize) -> Result<()> {
    let said = || String::from_utf8_lossy(head).into_owned();
    ensure!(head.starts_with(b"HTTP/1.1 200"), "wrong answer: {}", said());
    let length = header(head, "content-length").with_context(|| format!("an answer without a length: {}", said()))?;
    ensure!(
        length == body_bytes.to_string(),
        "an answer of another length: {}",
        said()
    );
    Ok(())
}

/// The value of a field.
pub(crate) fn header(head: &[u8], name: &str) -> Option<String> {
    str::from_utf8(head).ok()?.split("\r\n").skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}
