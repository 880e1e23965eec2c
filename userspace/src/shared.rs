//! What the parts of a process know of each other: where its configuration comes from, what is in force, whether it is
//! ready.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use pierhead_controller::files::Published;
use pierhead_model::Snapshot;
use tokio::sync::watch;

use crate::node::Node;

/// One per process. Each part is set once, by the one that starts up.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) started: Instant,
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
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            started: Instant::now(),
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
        self.not_ready.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
