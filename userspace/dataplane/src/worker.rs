//! One worker: a thread with a current-thread runtime. What lives here is never shared with another thread.

use std::{
    cell::{Cell, RefCell},
    ops::Deref,
    rc::Rc,
    sync::Arc,
};

use arc_swap::{ArcSwap, Cache};
use tokio::sync::Notify;

use crate::{http, runtime::Runtime};

/// The compiled snapshot, held without touching a counter that another core touches.
#[derive(Clone)]
pub(crate) struct Current(Rc<Arc<Runtime>>);

impl Deref for Current {
    type Target = Runtime;

    fn deref(&self) -> &Runtime {
        &self.0
    }
}

impl Current {
    /// Whether both are the same snapshot.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

/// What every task of a worker may use.
pub(crate) struct Worker {
    /// Its number, from 0: the index of its metric cells.
    pub(crate) number: usize,
    pub(crate) drain: Drain,
    pub(crate) http: Rc<http::Local>,
    source: RefCell<Cache<Arc<ArcSwap<Runtime>>, Arc<Runtime>>>,
    current: RefCell<Current>,
}

impl Worker {
    pub(crate) fn new(number: usize, source: Arc<ArcSwap<Runtime>>) -> Self {
        let mut source = Cache::new(source);
        let current = Current(Rc::new(Arc::clone(source.load())));
        Self {
            number,
            drain: Drain::default(),
            http: Rc::default(),
            source: RefCell::new(source),
            current: RefCell::new(current),
        }
    }

    /// The snapshot in force. A request takes one and keeps it to its end.
    pub(crate) fn runtime(&self) -> Current {
        let mut source = self.source.borrow_mut();
        let latest = source.load();
        let mut current = self.current.borrow_mut();
        if !Arc::ptr_eq(latest, &current.0) {
            *current = Current(Rc::new(Arc::clone(latest)));
        }
        current.clone()
    }
}

/// Tells the connections of a worker to finish what they do and take nothing new.
#[derive(Default)]
pub(crate) struct Drain {
    started: Cell<bool>,
    wake: Notify,
}

impl Drain {
    pub(crate) fn start(&self) {
        self.started.set(true);
        self.wake.notify_waiters();
    }

    pub(crate) fn is_started(&self) -> bool {
        self.started.get()
    }

    /// Ends when the drain starts.
    pub(crate) async fn started(&self) {
        let wake = self.wake.notified();
        if !self.started.get() {
            wake.await;
        }
    }
}
