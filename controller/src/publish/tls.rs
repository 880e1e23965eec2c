//! TLS of the controller's port: the serving certificate, renewed; clients' certificates, asked for.

use std::{io, sync::Arc, time::Duration};

use jiff::Timestamp;
use rustls::{ServerConfig, server::NoServerSessionStorage};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc, watch},
    time,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tracing::{debug, error, warn};

use crate::identity::{Authority, AuthorityError, Identity};

/// The serving certificate is good for 30 days.
const RENEWAL: Duration = Duration::from_hours(10 * 24);
const RETRY: Duration = Duration::from_mins(1);
/// Handshakes in flight, and how long one may take.
const HANDSHAKES_MAX: usize = 64;
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);

pub(super) type Connection = io::Result<TlsStream<TcpStream>>;

/// Makes a configuration for each CA, and a new one before its certificate ends.
pub(super) async fn configure(identity: Identity, configs: watch::Sender<Option<Arc<ServerConfig>>>) {
    let mut authority = identity.authority;
    loop {
        let current = authority.borrow_and_update().clone();
        let mut pause = RENEWAL;
        if let Some(current) = current {
            match config(&current, &identity.server_names, Timestamp::now()) {
                Ok(config) => drop(configs.send_replace(Some(config.into()))),
                Err(error) => {
                    error!(%error, "the controller's serving certificate");
                    pause = RETRY;
                }
            }
        }
        tokio::select! {
            changed = authority.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = time::sleep(pause) => {}
            () = configs.closed() => return,
        }
    }
}

fn config(authority: &Authority, names: &[String], now: Timestamp) -> Result<ServerConfig, AuthorityError> {
    let (certificate, key) = authority.serving(names, now)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let malformed = |error: rustls::Error| AuthorityError::Certificate(error.to_string());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(malformed)?
        .with_client_cert_verifier(authority.verifier())
        .with_single_cert(vec![certificate], key)
        .map_err(malformed)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would bring a certificate that nobody looked at again.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Accepts connections and hands on those whose handshake is done.
pub(super) async fn accept(
    listener: TcpListener,
    configs: watch::Receiver<Option<Arc<ServerConfig>>>,
    connections: mpsc::Sender<Connection>,
) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await else {
            return;
        };
        let (stream, peer) = tokio::select! {
            () = connections.closed() => return,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely: those that end make room.
                    warn!(%error, "accepting a node's connection");
                    time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            }
        };
        // Without a CA there is nothing to show; who comes tries again.
        let Some(config) = configs.borrow().clone() else {
            continue;
        };
        let connections = connections.clone();
        tokio::spawn(async move {
            let _permit = permit;
            // Small messages must not wait for one another.
            let _ = stream.set_nodelay(true);
            let handshake = TlsAcceptor::from(config).accept(stream);
            match time::timeout(HANDSHAKE_TIME, handshake).await {
                Ok(Ok(stream)) => drop(connections.send(Ok(stream)).await),
                Ok(Err(error)) => debug!(%peer, %error, "a TLS handshake"),
                Err(_) => debug!(%peer, "a TLS handshake took too long"),
            }
        });
    }
}
