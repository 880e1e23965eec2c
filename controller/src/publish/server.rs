//! The controller's port for nodes.

use std::{io, net::SocketAddr, sync::Arc, thread};

use pierhead_protocol::{IdentityServer, SnapshotsServer, pace::CONTROLLER_PING};
use tokio::{
    net::TcpListener,
    runtime,
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tracing::error;

use super::{
    Numbered,
    stream::{Service, Streams},
    tls,
};
use crate::{
    identity::{Identity, Signer},
    nodes::{Nodes, Registry},
};

/// A node has one stream, and asks for a certificate now and then.
const STREAMS_MAX: u32 = 8;

/// Serves nodes for as long as it lives, on a thread of its own: while another one translates, pings are answered, and no
/// node is taken for dead.
pub struct Publisher {
    registry: Registry,
    address: SocketAddr,
    /// Dropped, it ends the thread.
    _stop: oneshot::Sender<()>,
}

#[derive(Debug, thiserror::Error)]
pub enum PublisherError {
    #[error("the port for nodes: {0}")]
    Io(#[from] io::Error),
}

impl Publisher {
    /// Serves the snapshots that come, on a bound listener. Nothing is sent while there is none: a node keeps what it has.
    ///
    /// Only the leader serves streams; who does not lead signs certificates all the same. Leading that ends, ends all streams.
    ///
    /// # Errors
    /// When the listener is none, or no thread can be had.
    pub fn start(
        listener: std::net::TcpListener,
        snapshots: watch::Receiver<Option<Numbered>>,
        is_leader: watch::Receiver<bool>,
        identity: Identity,
        registry: Registry,
    ) -> Result<Self, PublisherError> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _context = runtime.enter();
            TcpListener::from_std(listener)?
        };
        let (version, versions) = watch::channel(0);
        let streams = Streams::new(identity.clone(), registry.clone(), versions, is_leader);
        let (stop, stopped) = oneshot::channel();
        thread::Builder::new().name("publish".to_owned()).spawn(move || {
            runtime.block_on(async {
                let _tasks = spawn(listener, snapshots, version, streams.into(), identity);
                // An error is the other end, dropped.
                let _ = stopped.await;
            });
        })?;
        Ok(Self {
            registry,
            address,
            _stop: stop,
        })
    }

    /// What the nodes say of themselves.
    pub fn nodes(&self) -> watch::Receiver<Arc<Nodes>> {
        self.registry.nodes()
    }

    /// Where nodes connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

fn spawn(
    listener: TcpListener,
    snapshots: watch::Receiver<Option<Numbered>>,
    version: watch::Sender<u64>,
    streams: Arc<Streams>,
    identity: Identity,
) -> JoinSet<()> {
    let (configs, configs_receiver) = watch::channel(None);
    let (connections, incoming) = mpsc::channel(16);
    let mut tasks = JoinSet::new();
    tasks.spawn(feed(snapshots, Arc::clone(&streams), version));
    tasks.spawn(tls::configure(identity.clone(), configs));
    tasks.spawn(tls::accept(listener, configs_receiver, connections));
    tasks.spawn(serve(streams, identity, incoming));
    tasks
}

/// Encodes each snapshot once, for all.
async fn feed(mut snapshots: watch::Receiver<Option<Numbered>>, streams: Arc<Streams>, version: watch::Sender<u64>) {
    loop {
        let current = snapshots.borrow_and_update().clone();
        {
            let mut catalog = streams.catalog();
            match current {
                Some(current) => catalog.publish(&current),
                // By the time there is one again, this one may be long untrue.
                None => catalog.withdraw(),
            }
            version.send_replace(catalog.version());
        }
        if snapshots.changed().await.is_err() {
            // Nobody makes snapshots any more; what there is stays to be had.
            std::future::pending::<()>().await;
        }
    }
}

async fn serve(streams: Arc<Streams>, identity: Identity, incoming: mpsc::Receiver<tls::Connection>) {
    let served = Server::builder()
        .http2_keepalive_interval(Some(CONTROLLER_PING.every))
        .http2_keepalive_timeout(Some(CONTROLLER_PING.patience))
        .max_concurrent_streams(STREAMS_MAX)
        .add_service(SnapshotsServer::new(Service(streams).into()))
        .add_service(IdentityServer::new(Signer::new(identity).into()))
        .serve_with_incoming(ReceiverStream::new(incoming));
    if let Err(error) = served.await {
        error!(%error, "the port for nodes");
    }
}
