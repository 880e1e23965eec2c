//! The whole control plane of a cluster, wired: watch and translate, serve the nodes, and, while this replica leads, write
//! statuses, Services and events.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use pierhead_translate::Settings;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::cluster::{ClusterSource, Handover, Part, SourceOptions, StartError, connect};
use crate::counters::Counters;
use crate::identity::{ApiReviewer, ApiVault, Identity, Keeper};
use crate::nodes::{Nodes, Registry};
use crate::publish::{Numbered, Publisher, PublisherError};
use crate::published::Published;
use crate::{events, gather, lease, services, status};

/// What a controller is started with.
pub struct Options {
    /// A file as kubectl uses it; `None`: the cluster this pod runs in, or the user's own kubeconfig.
    pub kubeconfig: Option<PathBuf>,
    /// The namespace of this program: of its Lease, and of its CA.
    pub namespace: String,
    /// The name of this replica, different from that of every other.
    pub identity: String,
    /// The Lease that the leader holds.
    pub lease: String,
    /// Where other replicas may ask whether this one is alive: of one that holds the Lease and dies, they then need not wait
    /// until it has run out.
    pub address: Option<SocketAddr>,
    /// Called before each translation. Allocations and the machines' addresses are the controller's own business.
    pub settings: Box<dyn FnMut() -> Settings + Send>,
    pub serving: Serving,
    /// Readable from before the start, for readiness and metrics.
    pub counters: Arc<Counters>,
}

/// Who is served.
pub enum Serving {
    /// A node in this process: it joins this registry, and says there what became of the snapshots.
    Local(Registry),
    /// The nodes of the cluster, while this replica leads.
    Nodes {
        /// Bound, of the port for nodes.
        listener: TcpListener,
        /// The Service by which nodes find us.
        service_name: String,
    },
}

/// A control plane at work. Dropped, it stops without giving the Lease back; see [`Running::stop`].
pub struct Running {
    published: watch::Receiver<Arc<Published>>,
    snapshots: watch::Receiver<Option<Numbered>>,
    nodes: watch::Receiver<Arc<Nodes>>,
    leader: watch::Receiver<bool>,
    election: Election,
    _tasks: JoinSet<()>,
    _source: ClusterSource,
    _publisher: Option<Publisher>,
}

/// Why a controller did not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Publisher(#[from] PublisherError),
}

/// Starts everything. Returns when everything there is was read and translated, and what came of it is to be had; waits for an
/// API server that does not answer.
///
/// # Errors
/// When it is not known where the API server is, or the port for nodes is none.
pub async fn run(options: Options) -> Result<Running, RunError> {
    let client = connect(options.kubeconfig.as_deref()).await?;
    let counters = options.counters;
    let mut settings = options.settings;
    let controller = settings().gateway_controller;

    let (leads, leader) = watch::channel(false);
    let candidacy = lease::Candidacy {
        client: client.clone(),
        namespace: options.namespace.clone(),
        lease: options.lease,
        identity: options.identity.clone(),
        address: options.address,
        counters: Arc::clone(&counters),
    };
    let (orphans, orphaned) = watch::channel(None);
    let leads = lease::Leads {
        leads,
        orphaned: orphans,
    };
    // Elected while the first lists are read: there is time enough.
    let election = Election::start(candidacy, leads);

    let mut tasks = JoinSet::new();
    let snapshots = watch::Sender::new(None);
    let (registry, publisher) = match options.serving {
        Serving::Local(registry) => (registry, None),
        Serving::Nodes { listener, service_name } => {
            let registry = Registry::default();
            let vault = ApiVault::new(&client, &options.namespace);
            let (keeper, authority) = Keeper::new(vault, leader.clone());
            tasks.spawn(keeper.run());
            let identity = Identity {
                authority,
                reviewer: Arc::new(ApiReviewer::new(&client)),
                node_user: Identity::node_user(&options.namespace),
                server_names: Identity::server_names(&service_name, &options.namespace),
            };
            let publisher = Publisher::start(
                listener,
                snapshots.subscribe(),
                leader.clone(),
                identity,
                registry.clone(),
            )?;
            (registry, Some(publisher))
        }
    };
    let nodes = registry.nodes();

    let is_local = publisher.is_none();
    let signs = gather::Signs {
        leader: leader.clone(),
        orphaned,
        nodes: (!is_local).then(|| nodes.clone()),
    };
    let decides = gather::decides(&mut tasks, signs);

    let (seen, standings) = mpsc::unbounded_channel();
    let handover = Arc::<Handover>::default();
    let source = SourceOptions {
        kubeconfig: options.kubeconfig,
        settings,
        nodes: nodes.clone(),
        counters: Arc::clone(&counters),
    };
    let part = Part {
        client: client.clone(),
        elects: !is_local,
        elected: leader.clone(),
        leader: decides,
        standings: seen,
        handover: Arc::clone(&handover),
        snapshots,
    };
    let source = ClusterSource::start_part(source, part).await?;

    let (problems, of_statuses) = watch::channel(Arc::default());
    tasks.spawn(status::run(status::Inputs {
        client: client.clone(),
        published: source.subscribe(),
        snapshots: source.snapshots(),
        nodes: nodes.clone(),
        turn: source.turn(),
        standings,
        handover,
        controller,
        counters: Arc::clone(&counters),
        problems,
    }));
    let (problems, of_services) = watch::channel(Arc::default());
    tasks.spawn(services::run(services::Inputs {
        client: client.clone(),
        published: source.subscribe(),
        leader: source.decides(),
        counters: Arc::clone(&counters),
        problems,
    }));
    tasks.spawn(events::run(events::Inputs {
        client,
        published: source.subscribe(),
        others: vec![of_statuses, of_services],
        leader: source.decides(),
        identity: options.identity,
        counters,
    }));
    Ok(Running {
        published: source.subscribe(),
        snapshots: source.snapshots(),
        nodes,
        leader,
        election,
        _tasks: tasks,
        _source: source,
        _publisher: publisher,
    })
}

impl Running {
    /// The latest configuration, and every later one.
    pub fn published(&self) -> watch::Receiver<Arc<Published>> {
        self.published.clone()
    }

    /// What nodes are to serve, with numbers that grow when it changes.
    pub fn snapshots(&self) -> watch::Receiver<Option<Numbered>> {
        self.snapshots.clone()
    }

    pub fn nodes(&self) -> watch::Receiver<Arc<Nodes>> {
        self.nodes.clone()
    }

    /// Whether this replica leads.
    pub fn leader(&self) -> watch::Receiver<bool> {
        self.leader.clone()
    }

    /// Stops leading, gives the Lease back, and stops everything. Statuses stay as they are: the nodes go on.
    pub async fn stop(self) {
        self.election.stop().await;
    }
}

/// The task that competes for the Lease. Dropped, it ends as if this process had died.
#[derive(Debug)]
struct Election {
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Election {
    fn start(candidacy: lease::Candidacy, leads: lease::Leads) -> Self {
        let (stop, stopped) = oneshot::channel();
        Self {
            stop: Some(stop),
            task: tokio::spawn(lease::run(candidacy, leads, stopped)),
        }
    }

    async fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            // It may have ended by itself; then there is nothing to give back.
            let _ = stop.send(());
        }
        // A task that panicked gives nothing back either.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Election {
    fn drop(&mut self) {
        self.task.abort();
    }
}
