//! What the parts of a process know of each other: where its configuration comes from, what is in force, whether it is
//! ready.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use pierhead_controller::nodes::Nodes;
use pierhead_controller::run::Running;
use pierhead_controller::{Counters, Published};
use pierhead_model::Snapshot;
use tokio::sync::watch;

use crate::node::Node;
use crate::uplink::Link;

/// One per process. Each part is set once, by the one that starts up.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) started: Instant,
    /// How often one before this process died in its place.
    pub(crate) deaths: OnceLock<u32>,
    /// `None`: ready.
    not_ready: Mutex<Option<Cow<'static, str>>>,
    node: OnceLock<Arc<Node>>,
    source: OnceLock<Source>,
}

/// Where the configuration comes from.
#[derive(Debug)]
pub(crate) enum Source {
    Folder {
        path: PathBuf,
        published: watch::Receiver<Arc<Published>>,
    },
    /// What an API server holds.
    Cluster(Arc<Cluster>),
    /// Of a node: what its controller says.
    Controller(watch::Receiver<Link>),
}

/// A cluster that is watched.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) counters: Arc<Counters>,
    /// What is there once everything was read.
    read: OnceLock<Read>,
}

#[derive(Debug)]
struct Read {
    published: watch::Receiver<Arc<Published>>,
    nodes: watch::Receiver<Arc<Nodes>>,
}

impl Cluster {
    pub(crate) fn new(counters: Arc<Counters>) -> Self {
        Self {
            counters,
            read: OnceLock::new(),
        }
    }

    pub(crate) fn set(&self, running: &Running) {
        let _ = self.read.set(Read {
            published: running.published(),
            nodes: running.nodes(),
        });
    }

    /// The nodes that are served.
    pub(crate) fn nodes(&self) -> Option<Arc<Nodes>> {
        Some(self.read.get()?.nodes.borrow().clone())
    }
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            deaths: OnceLock::new(),
            not_ready: Mutex::new(Some("no configuration is in force".into())),
            node: OnceLock::new(),
            source: OnceLock::new(),
        }
    }
}

impl Shared {
    pub(crate) fn set_node(&self, node: Arc<Node>) {
        let _ = self.node.set(node);
    }

    pub(crate) fn set_source(&self, source: Source) {
        let _ = self.source.set(source);
    }

    /// Ready: the configuration is in force, and the process is not about to end.
    pub(crate) fn set_ready(&self) {
        *self.not_ready.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(crate) fn set_not_ready(&self, why: impl Into<Cow<'static, str>>) {
        *self.not_ready.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.into());
    }

    /// Why it is not ready; `None` when it is.
    pub(crate) fn not_ready(&self) -> Option<Cow<'static, str>> {
        let why = self.not_ready.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        if let Some(Source::Cluster(cluster)) = self.source()
            && cluster.read.get().is_none()
        {
            let kinds = cluster.counters.values().waiting_for;
            if !kinds.is_empty() {
                return Some(format!("{why}; not read yet: {}", kinds.join(", ")).into());
            }
        }
        Some(why)
    }

    /// What carries traffic here; `None` in a controller, and before it has started.
    pub(crate) fn node(&self) -> Option<&Arc<Node>> {
        self.node.get()
    }

    pub(crate) fn source(&self) -> Option<&Source> {
        self.source.get()
    }

    /// The latest translation, where one is made.
    pub(crate) fn published(&self) -> Option<Arc<Published>> {
        match self.source()? {
            Source::Folder { published, .. } => Some(published.borrow().clone()),
            Source::Cluster(cluster) => Some(cluster.read.get()?.published.borrow().clone()),
            Source::Controller(_) => None,
        }
    }

    /// What is in force here, or in a controller what is to be.
    pub(crate) fn snapshot(&self) -> Option<Arc<Snapshot>> {
        let made = || {
            let published = self.published()?;
            Some(Arc::new(published.translation.snapshot.clone()))
        };
        self.node().map(|node| node.snapshot()).or_else(made)
    }
}
