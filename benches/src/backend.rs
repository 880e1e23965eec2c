//! A tiny HTTP/1.1 backend: the same answer to everything, keep-alive, and a check of what the proxy added.

use std::{
    net::SocketAddr,
    rc::Rc,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::spawn_local,
};

/// Requests that did not carry what a gateway must add.
pub(crate) static WRONG: AtomicU64 = AtomicU64::new(0);
/// Requests seen.
pub(crate) static SEEN: AtomicU64 = AtomicU64::new(0);

/// Serves `body` on a loopback port of the system's choice, on the current local set.
pub(crate) async fn serve(body: Vec<u8>) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let mut answer = format!(
        "HTTP/1.1 200 OK\r\nServer: bench\r\nDate: Mon, 23 Nov 2026 12:00:00 GMT\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend_from_slice(&body);
    let answer: Rc<[u8]> = answer.into();
    spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            spawn_local(connection(stream, Rc::clone(&answer)));
        }
    });
    Ok(address)
}

async fn connection(mut stream: TcpStream, answer: Rc<[u8]>) {
    let mut buffer = Vec::with_capacity(16 * 1024);
    loop {
        let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") else {
            match stream.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(_) => continue,
            }
        };
        let seen = SEEN.fetch_add(1, Ordering::Relaxed);
        // A sample, so that the check does not become the load.
        if seen.is_multiple_of(256) && !is_forwarded(buffer.get(..end).unwrap_or_default()) {
            WRONG.fetch_add(1, Ordering::Relaxed);
        }
        buffer.drain(..end + 4);
        if stream.write_all(&answer).await.is_err() {
            return;
        }
    }
}

/// Whether the head carries the forwarded headers, and no hop-by-hop header of the client.
fn is_forwarded(head: &[u8]) -> bool {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    ["x-forwarded-for: ", "x-forwarded-proto: ", "x-forwarded-host: "]
        .iter()
        .all(|name| head.contains(&format!("\r\n{name}")))
        && !head.contains("\r\nkeep-alive:")
}
