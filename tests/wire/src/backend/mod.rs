//! Real servers, to be run in a host's namespace. Each knows its own name and says it, so that a test can tell who
//! answered.

mod guard;
mod http;
mod raw;
mod socket;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::netns::{self, Netns};

pub use guard::BODY;
pub use raw::{read_head, serve as raw};

/// A thread inside a host's namespace on which its servers run, until dropped.
pub struct Host {
    namespace: Arc<Netns>,
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Host {
    /// Starts the thread.
    pub fn start(namespace: &Arc<Netns>) -> Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (said, heard) = std::sync::mpsc::channel();
        let thread = namespace.spawn(move || {
            let Ok(runtime) = netns::runtime() else { return };
            // The other end waits below.
            let _ = said.send(runtime.handle().clone());
            let _ = runtime.block_on(stopped);
            runtime.shutdown_background();
        })?;
        let handle = heard.recv().context("a host without a runtime")?;
        Ok(Self {
            namespace: Arc::clone(namespace),
            handle,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Echoes requests as JSON: HTTP/1.1, HTTP/2 with prior knowledge and gRPC on one port. See [`http`](self).
    pub fn http(&self, name: &str, at: SocketAddr) -> Result<()> {
        self.listen(at, |listener| http::serve(listener, name.to_owned(), None))
    }

    /// The same behind TLS.
    pub fn https(&self, name: &str, at: SocketAddr, tls: Arc<rustls::ServerConfig>) -> Result<()> {
        self.listen(at, |listener| http::serve(listener, name.to_owned(), Some(tls)))
    }

    /// Decides who may pass. See [`guard`](self).
    pub fn guard(&self, at: SocketAddr) -> Result<()> {
        self.listen(at, guard::serve)
    }

    /// Speaks first (`hello from <name> to <peer address>\n`), then echoes every byte. A half-close is answered by `bye\n`.
    pub fn tcp(&self, name: &str, at: SocketAddr) -> Result<()> {
        self.listen(at, |listener| socket::serve_tcp(listener, name.to_owned()))
    }

    /// Answers every datagram with `<name> <peer address>: ` and the datagram.
    pub fn udp(&self, name: &str, at: SocketAddr) -> Result<()> {
        let socket = self
            .namespace
            .enter(|| std::net::UdpSocket::bind(at))?
            .with_context(|| format!("bind {at}"))?;
        socket.set_nonblocking(true)?;
        let _inside = self.handle.enter();
        self.handle.spawn(socket::serve_udp(
            tokio::net::UdpSocket::from_std(socket)?,
            name.to_owned(),
        ));
        Ok(())
    }

    /// Echoes WebSocket messages, each after `<name>: `.
    pub fn websocket(&self, name: &str, at: SocketAddr) -> Result<()> {
        let name = name.to_owned();
        raw(&self.namespace, at, move |stream| {
            socket::serve_websocket(stream, &name)
        })
    }

    /// Runs `conversation` on a thread for each connection: for backends that misbehave.
    pub fn raw(
        &self,
        at: SocketAddr,
        conversation: impl Fn(std::net::TcpStream) -> Result<()> + Send + Sync + 'static,
    ) -> Result<()> {
        raw(&self.namespace, at, conversation)
    }

    fn listen<F: Future<Output = ()> + Send + 'static>(
        &self,
        at: SocketAddr,
        serve: impl FnOnce(tokio::net::TcpListener) -> F,
    ) -> Result<()> {
        let listener = self
            .namespace
            .enter(|| std::net::TcpListener::bind(at))?
            .with_context(|| format!("bind {at}"))?;
        listener.set_nonblocking(true)?;
        let _inside = self.handle.enter();
        self.handle.spawn(serve(tokio::net::TcpListener::from_std(listener)?));
        Ok(())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
