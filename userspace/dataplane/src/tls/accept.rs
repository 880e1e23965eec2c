use std::{io, rc::Rc, sync::Arc};

use rustls::{ServerConfig, server::Acceptor};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::spawn_local,
    time::{Instant, timeout_at},
};
use tokio_rustls::{StartHandshake, server::TlsStream};

use super::{Hello, MAX_HELLO_BYTES};
use crate::{
    conn::{Conn, TlsFacts, reset},
    http::{self, Ahead},
    observe::Reason,
    runtime::{L4Target, ListenerRuntime, Protocol},
    tcp::{self, StreamGuard},
};

/// What is read at once while the ClientHello is awaited: most fit in.
const HELLO_CHUNK: usize = 2048;

/// A connection of a TLS bind: reads the ClientHello, finds the listener by its server name, and does what that listener
/// does. A name nobody listens for gets a reset and never an alert: it must look as if nothing were there.
pub(crate) async fn serve(stream: TcpStream, conn: Conn) {
    // The handshake's state is large and short-lived: it is not kept while the connection is served.
    match Box::pin(open(stream, conn)).await {
        None => {}
        // A task of its own, which needs no room for what others turn out to be.
        Some(Opened::Http(stream, conn)) => {
            spawn_local(http::serve(stream, conn));
        }
        Some(Opened::Decrypted(stream, mut guard, target)) => {
            Box::pin(tcp::carry_decrypted(stream, &mut guard, Some(&target))).await;
        }
        Some(Opened::Passed(stream, mut guard, target, ahead)) => {
            tcp::carry(stream, &mut guard, Some(&target), &ahead).await;
        }
    }
}

/// What a connection turned out to be.
enum Opened {
    Http(Box<TlsStream<Ahead<TcpStream>>>, Conn),
    Decrypted(Box<TlsStream<Ahead<TcpStream>>>, Box<StreamGuard>, L4Target),
    /// With what was read ahead.
    Passed(TcpStream, Box<StreamGuard>, L4Target, Vec<u8>),
}

/// Finds the listener and ends TLS if it does. `None`: the connection was refused.
async fn open(mut stream: TcpStream, mut conn: Conn) -> Option<Opened> {
    let first = conn.bind.first().map(Arc::clone)?;
    let deadline = Instant::from_std(conn.accepted) + first.limits().handshake_timeout;
    let (sni, ahead) = match timeout_at(deadline, hello(&mut stream)).await {
        Ok(Ok(greeted)) => greeted,
        Ok(Err(_)) => return refuse(stream, &conn, &first, Reason::HandshakeFailed),
        Err(_) => return refuse(stream, &conn, &first, Reason::HandshakeTimeout),
    };
    let Some(listener) = conn.bind.listener(sni.as_deref().unwrap_or_default()).map(Arc::clone) else {
        conn.worker.cells().unmatched_sni.add(1);
        return refuse(stream, &conn, &first, Reason::NoSuchHost);
    };
    // Counted where it belongs, now that this is known.
    if !Arc::ptr_eq(&listener.gauge, &first.gauge) {
        match listener.gauge.enter(listener.limits().connections) {
            Some(slot) => conn.slot = slot,
            None => return refuse(stream, &conn, &listener, Reason::LimitReached),
        }
    }
    let name = sni.as_deref().unwrap_or_default();
    match &listener.protocol {
        Protocol::TlsPassthrough(targets) => {
            let Some(target) = targets.find(name).cloned() else {
                return refuse(stream, &conn, &listener, Reason::NoRoute);
            };
            let mut guard = StreamGuard::new("tls", conn, listener);
            guard.sni = sni;
            Some(Opened::Passed(stream, Box::new(guard), target, ahead))
        }
        Protocol::TlsTerminate { tls, targets } => {
            let Some(target) = targets.find(name).cloned() else {
                return refuse(stream, &conn, &listener, Reason::NoRoute);
            };
            let Some(config) = tls.config.clone() else {
                return refuse(stream, &conn, &listener, Reason::HandshakeFailed);
            };
            let stream = terminate(stream, &ahead, config, &conn, &listener, deadline).await?;
            let mut guard = StreamGuard::new("tls", conn, listener);
            guard.sni = sni;
            Some(Opened::Decrypted(Box::new(stream), Box::new(guard), target))
        }
        Protocol::Https { tls, .. } => {
            let Some(config) = tls.config.clone() else {
                return refuse(stream, &conn, &listener, Reason::HandshakeFailed);
            };
            let stream = terminate(stream, &ahead, config, &conn, &listener, deadline).await?;
            let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            conn.tls = Some(TlsFacts { listener, sni, h2 });
            Some(Opened::Http(Box::new(stream), conn))
        }
        Protocol::Http(_) | Protocol::Tcp(_) | Protocol::Udp(_) => refuse(stream, &conn, &listener, Reason::Internal),
    }
}

fn refuse(stream: TcpStream, conn: &Conn, listener: &ListenerRuntime, reason: Reason) -> Option<Opened> {
    listener.cells.of(conn.worker.number).refuse(reason);
    reset(stream);
    None
}

/// Reads the ClientHello; gives the server name and all bytes read.
async fn hello(stream: &mut TcpStream) -> io::Result<(Option<Box<str>>, Vec<u8>)> {
    let mut bytes = Vec::with_capacity(HELLO_CHUNK);
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match Hello::parse(&bytes) {
            Hello::Whole { sni } => return Ok((sni, bytes)),
            Hello::Partial if bytes.len() < MAX_HELLO_BYTES => bytes.reserve(HELLO_CHUNK),
            Hello::Partial | Hello::Invalid => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// Ends TLS here. `None`: it failed, and the client was told as TLS prescribes.
async fn terminate(
    mut stream: TcpStream,
    ahead: &[u8],
    config: Arc<ServerConfig>,
    conn: &Conn,
    listener: &ListenerRuntime,
    deadline: Instant,
) -> Option<TlsStream<Ahead<TcpStream>>> {
    let worker = Rc::clone(&conn.worker);
    let cells = listener.cells.of(worker.number);
    let Some(_slot) = listener.gauge.handshake(worker.number, listener.limits().handshakes) else {
        refuse(stream, conn, listener, Reason::LimitReached);
        return None;
    };
    let handshake = async {
        let mut acceptor = Acceptor::default();
        let mut rest = ahead;
        while !rest.is_empty() {
            acceptor.read_tls(&mut rest)?;
        }
        let accepted = match acceptor.accept() {
            Ok(Some(accepted)) => accepted,
            Ok(None) => return Err(io::ErrorKind::InvalidData.into()),
            Err((error, mut alert)) => {
                let mut bytes = Vec::new();
                alert.write_all(&mut bytes)?;
                stream.write_all(&bytes).await?;
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        };
        let stream = Ahead::new(stream, Rc::clone(&worker.http.buffers));
        StartHandshake::from_parts(accepted, stream).into_stream(config).await
    };
    match timeout_at(deadline, handshake).await {
        Ok(Ok(stream)) => {
            cells.handshakes.add(1);
            Some(stream)
        }
        Ok(Err(error)) => {
            tracing::debug!(peer = %conn.peer, listener = %listener.model.id, %error, "TLS handshake failed");
            cells.handshakes_failed.add(1);
            cells.refuse(Reason::HandshakeFailed);
            None
        }
        Err(_) => {
            cells.handshakes_failed.add(1);
            cells.refuse(Reason::HandshakeTimeout);
            None
        }
    }
}
