//! Real clients, inside the client's namespace.

mod grpc;
mod h1;
mod h2;

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::netns::Netns;

pub use grpc::{Call, Reply};
pub use h1::{Exchange, H1, Response};
pub use h2::H2;

/// How long a client waits for bytes that do not come.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// A TLS connection of a blocking client.
pub type Tls = StreamOwned<ClientConnection, TcpStream>;

/// A WebSocket of a blocking client.
pub type WebSocket<S> = tungstenite::WebSocket<S>;

/// Makes connections from one namespace.
#[derive(Clone)]
pub struct Client {
    namespace: Arc<Netns>,
}

impl Client {
    /// Connects from here.
    pub fn new(namespace: &Arc<Netns>) -> Self {
        Self {
            namespace: Arc::clone(namespace),
        }
    }

    /// A TCP connection.
    pub fn tcp(&self, to: SocketAddr) -> Result<TcpStream> {
        self.tcp_within(to, TIMEOUT)
    }

    /// A TCP connection, or an error after this time.
    pub fn tcp_within(&self, to: SocketAddr, patience: Duration) -> Result<TcpStream> {
        let stream = self
            .namespace
            .enter(|| TcpStream::connect_timeout(&to, patience))?
            .with_context(|| format!("cannot connect to {to}"))?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// A TLS connection, its handshake done. Without a name there is no SNI, and the certificate is not looked at by name.
    pub fn tls(&self, to: SocketAddr, name: &str, config: &Arc<ClientConfig>) -> Result<Tls> {
        let mut stream = self.tcp(to)?;
        let name = ServerName::try_from(name.to_owned())?;
        let mut connection = ClientConnection::new(Arc::clone(config), name)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut stream).context("TLS handshake")?;
        }
        Ok(StreamOwned::new(connection, stream))
    }

    /// HTTP/1 in the clear.
    pub fn h1(&self, to: SocketAddr) -> Result<H1<TcpStream>> {
        Ok(H1::new(self.tcp(to)?))
    }

    /// HTTP/1 over TLS.
    pub fn h1_tls(&self, to: SocketAddr, name: &str, config: &Arc<ClientConfig>) -> Result<H1<Tls>> {
        Ok(H1::new(self.tls(to, name, config)?))
    }

    /// One `GET` on a connection of its own.
    pub fn get(&self, to: SocketAddr, host: &str, path: &str) -> Result<Response> {
        self.h1(to)?.get(host, path)
    }

    /// HTTP/2 with prior knowledge.
    pub fn h2(&self, to: SocketAddr) -> H2 {
        H2::new(Arc::clone(&self.namespace), to, None)
    }

    /// HTTP/2 by ALPN.
    pub fn h2_tls(&self, to: SocketAddr, name: &str, config: &Arc<ClientConfig>) -> H2 {
        H2::new(
            Arc::clone(&self.namespace),
            to,
            Some((name.to_owned(), Arc::clone(config))),
        )
    }

    /// A WebSocket through HTTP/1.
    pub fn websocket(&self, to: SocketAddr, host: &str, path: &str) -> Result<WebSocket<TcpStream>> {
        let stream = self.tcp(to)?;
        let (socket, _) = tungstenite::client(format!("ws://{host}{path}"), stream)
            .map_err(|error| anyhow::anyhow!("WebSocket handshake: {error}"))?;
        Ok(socket)
    }

    /// A UDP socket that talks to one address only, so an answer from another is not seen.
    pub fn udp(&self, to: SocketAddr) -> Result<UdpSocket> {
        let socket = self.namespace.enter(|| {
            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            UdpSocket::bind(any)
        })??;
        socket.connect(to)?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        Ok(socket)
    }
}
