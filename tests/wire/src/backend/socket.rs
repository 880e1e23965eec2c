//! Echo over TCP, UDP and WebSocket.

use std::net::TcpStream as BlockingStream;

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tungstenite::Message;

pub(super) async fn serve_tcp(listener: TcpListener, name: String) {
    while let Ok((stream, _)) = listener.accept().await {
        let name = name.clone();
        // What goes wrong here shows at the client.
        tokio::spawn(async move { drop(echo(stream, &name).await) });
    }
}

async fn echo(mut stream: TcpStream, name: &str) -> Result<()> {
    let peer = stream.peer_addr()?.ip();
    stream
        .write_all(format!("hello from {name} to {peer}\n").as_bytes())
        .await?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            break;
        }
        stream.write_all(&buffer[..count]).await?;
    }
    stream.write_all(b"bye\n").await?;
    stream.shutdown().await?;
    Ok(())
}

pub(super) async fn serve_udp(socket: UdpSocket, name: String) {
    let mut buffer = vec![0; 65_536];
    while let Ok((count, peer)) = socket.recv_from(&mut buffer).await {
        let mut answer = format!("{name} {peer}: ").into_bytes();
        answer.extend_from_slice(&buffer[..count]);
        let _ = socket.send_to(&answer, peer).await;
    }
}

pub(super) fn serve_websocket(stream: BlockingStream, name: &str) -> Result<()> {
    let mut socket = tungstenite::accept(stream).map_err(|error| anyhow::anyhow!("{error}"))?;
    loop {
        match socket.read()? {
            Message::Text(text) => socket.send(Message::text(format!("{name}: {text}")))?,
            Message::Binary(bytes) => socket.send(Message::Binary(bytes))?,
            Message::Close(_) => {
                socket.flush()?;
                return Ok(());
            }
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    }
}
