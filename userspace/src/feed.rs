//! Where `standalone` has its configuration from: a folder, or an API server that is told what became of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use pierhead_controller::files::{self, FileSource};
use pierhead_controller::nodes::{Membership, Registry};
use pierhead_controller::publish::Numbered;
use pierhead_controller::run::{self, Running, Serving};
use pierhead_controller::{Counters, Published, Settings};
use pierhead_model::Snapshot;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::check::{cluster_settings, settings};
use crate::cli::Standalone;
use crate::node::Node;
use crate::shared::{Cluster, Shared, Source};
use crate::{machine, state};

/// How long giving the Lease back may take.
const FAREWELL: Duration = Duration::from_secs(5);

pub(crate) enum Feed {
    Folder {
        path: PathBuf,
        published: watch::Receiver<Arc<Published>>,
        _source: FileSource,
    },
    Cluster(Box<OfCluster>),
}

/// A control plane whose only node is this process.
pub(crate) struct OfCluster {
    running: Running,
    published: watch::Receiver<Arc<Published>>,
    snapshots: watch::Receiver<Option<Numbered>>,
    own: Membership,
    version: u64,
}

/// What is to be in force.
pub(crate) struct Latest {
    pub(crate) snapshot: Arc<Snapshot>,
    /// What it was made of.
    pub(crate) published: Arc<Published>,
    version: u64,
}

impl Feed {
    /// Returns when there is a first configuration; waits for an API server that does not answer.
    ///
    /// # Errors
    /// When the folder cannot be read, or it is not known where the API server is.
    pub(crate) async fn open(options: &Standalone, state_dir: &Path, shared: &Shared) -> Result<Self> {
        let (meaning, pools) = (options.meaning.clone(), options.pools.clone());
        let Some(path) = &options.from.config else {
            return Self::of_cluster(options, shared).await;
        };
        let source = FileSource::start(files::Options {
            folder: path.clone(),
            settings: Box::new(move || settings(&meaning, &pools)),
            allocations: Some(state::allocations(state_dir)),
        })?;
        shared.set_source(Source::Folder {
            path: path.clone(),
            published: source.subscribe(),
        });
        Ok(Self::Folder {
            path: path.clone(),
            published: source.subscribe(),
            _source: source,
        })
    }

    async fn of_cluster(options: &Standalone, shared: &Shared) -> Result<Self> {
        let (meaning, pools, namespace) = (
            options.meaning.clone(),
            options.pools.clone(),
            options.namespace.clone(),
        );
        let counters = Arc::new(Counters::default());
        let cluster = Arc::new(Cluster::new(Arc::clone(&counters)));
        shared.set_source(Source::Cluster(Arc::clone(&cluster)));
        let registry = Registry::default();
        let identity = machine::identity();
        let running = run::run(run::Options {
            kubeconfig: options.from.kubeconfig.clone(),
            namespace: options.namespace.clone(),
            identity: identity.clone(),
            lease: "pierhead-standalone".to_owned(),
            address: None,
            settings: Box::new(move || Settings {
                address_pools: pools.address_pool.clone(),
                namespace: namespace.as_str().into(),
                ..cluster_settings(&meaning)
            }),
            serving: Serving::Local(registry.clone()),
            counters,
        })
        .await?;
        cluster.set(&running);
        let name = options.node.node_name.clone().unwrap_or(identity);
        Ok(Self::Cluster(Box::new(OfCluster {
            published: running.published(),
            snapshots: running.snapshots(),
            running,
            own: registry.join(&name, Timestamp::now()),
            version: 0,
        })))
    }

    /// Ends when there is something new.
    ///
    /// # Errors
    /// When there never will be.
    pub(crate) async fn changed(&mut self) -> Result<()> {
        match self {
            Self::Folder { path, published, .. } => published
                .changed()
                .await
                .with_context(|| format!("the watching of {} ended", path.display())),
            Self::Cluster(cluster) => tokio::select! {
                changed = cluster.snapshots.changed() => changed,
                changed = cluster.published.changed() => changed,
            }
            .context("the watching of the cluster ended"),
        }
    }

    /// What is to be in force now; `None`: nothing yet.
    pub(crate) fn latest(&mut self) -> Option<Latest> {
        match self {
            Self::Folder { published, .. } => {
                let published = published.borrow_and_update().clone();
                Some(Latest {
                    snapshot: Arc::new(published.translation.snapshot.clone()),
                    version: published.version,
                    published,
                })
            }
            Self::Cluster(cluster) => {
                let Numbered { version, snapshot } = cluster.snapshots.borrow_and_update().clone()?;
                Some(Latest {
                    snapshot,
                    version,
                    published: cluster.published.borrow_and_update().clone(),
                })
            }
        }
    }

    pub(crate) fn name(&self) -> String {
        match self {
            Self::Folder { path, .. } => path.display().to_string(),
            Self::Cluster(_) => "the cluster".to_owned(),
        }
    }

    /// This is in force.
    pub(crate) fn tell(&mut self, node: &Node, latest: &Latest) {
        if let Self::Cluster(cluster) = self {
            cluster.version = latest.version;
            cluster.tell(node);
        }
    }

    /// What the node does may have changed by itself.
    pub(crate) fn tell_again(&self, node: &Node) {
        if let Self::Cluster(cluster) = self {
            cluster.tell(node);
        }
    }

    /// Stops writing statuses, so that another one can.
    pub(crate) async fn close(self) {
        if let Self::Cluster(cluster) = self
            && timeout(FAREWELL, cluster.running.stop()).await.is_err()
        {
            tracing::warn!("the lease was not given back in time; it expires");
        }
    }
}

impl OfCluster {
    fn tell(&self, node: &Node) {
        let paths = node.paths().into_iter();
        let paths = Arc::new(paths.map(|one| (one.bind, (one.path, one.why))).collect());
        self.own.update(Timestamp::now(), |state| {
            state.addresses = machine::own_addresses(&node.snapshot());
            state.acked = self.version;
            state.paths = paths;
        });
    }
}
