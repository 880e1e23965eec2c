//! One worker: a thread with a current-thread runtime. What lives here is never shared with another thread.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    net::{TcpListener as StdTcpListener, UdpSocket as StdUdpSocket},
    ops::Deref,
    rc::Rc,
    sync::{Arc, mpsc as std_mpsc},
    thread::JoinHandle,
};

use arc_swap::{ArcSwap, Cache};
use foldhash::fast::RandomState;
use pierhead_model::BindKey;
use tokio::{
    net::{TcpListener, UdpSocket},
    runtime::{Builder, LocalOptions},
    sync::{Notify, mpsc, oneshot},
    task::spawn_local,
};

use crate::{
    WorkerLoads, accept, http,
    observe::{LogBuffer, LogSender, PerWorker, WorkerCells},
    runtime::Runtime,
    tcp::Pipes,
    udp,
};

/// The compiled snapshot, held without touching a counter that another core touches.
#[derive(Clone)]
#[expect(clippy::redundant_allocation, reason = "the outer counter is this worker's own")]
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
    pub(crate) pipes: Pipes,
    pub(crate) log: LogBuffer,
    pub(crate) loads: Option<Arc<dyn WorkerLoads>>,
    cells: Arc<PerWorker<WorkerCells>>,
    source: RefCell<Cache<Arc<ArcSwap<Runtime>>, Arc<Runtime>>>,
    current: RefCell<Current>,
}

/// What all workers are given.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) runtime: Arc<ArcSwap<Runtime>>,
    pub(crate) cells: Arc<PerWorker<WorkerCells>>,
    pub(crate) log: Option<LogSender>,
    pub(crate) loads: Option<Arc<dyn WorkerLoads>>,
}

impl Worker {
    pub(crate) fn new(number: usize, shared: Shared) -> Self {
        let mut source = Cache::new(shared.runtime);
        let current = Current(Rc::new(Arc::clone(source.load())));
        Self {
            number,
            drain: Drain::default(),
            http: Rc::default(),
            pipes: Pipes::default(),
            log: LogBuffer::new(shared.log),
            loads: shared.loads,
            cells: shared.cells,
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

    pub(crate) fn cells(&self) -> &WorkerCells {
        self.cells.of(self.number)
    }
}

/// Tells the connections of a worker to go: first each with its next answer, in the end those too that are idle.
#[derive(Default)]
pub(crate) struct Drain {
    leaving: Cell<bool>,
    started: Cell<bool>,
    wake_leaving: Notify,
    wake_started: Notify,
}

impl Drain {
    /// A connection goes with its next answer, which says so. An idle one waits: closing it could cross a request that is
    /// on its way.
    pub(crate) fn leave(&self) {
        self.leaving.set(true);
        self.wake_leaving.notify_waiters();
    }

    /// Finish what is being done, take nothing new.
    pub(crate) fn start(&self) {
        self.leave();
        self.started.set(true);
        self.wake_started.notify_waiters();
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.get()
    }

    pub(crate) fn is_started(&self) -> bool {
        self.started.get()
    }

    /// Ends when connections are to go, by one way or the other.
    pub(crate) async fn leaving(&self) {
        let wake = self.wake_leaving.notified();
        if !self.leaving.get() {
            wake.await;
        }
    }

    /// Ends when the drain starts.
    pub(crate) async fn started(&self) {
        let wake = self.wake_started.notified();
        if !self.started.get() {
            wake.await;
        }
    }
}

/// What a worker can be told. When the channel closes it stops, and cuts what is open.
pub(crate) enum Command {
    Listen {
        key: BindKey,
        socket: StdTcpListener,
    },
    Receive {
        key: BindKey,
        socket: StdUdpSocket,
    },
    /// Serve what is queued, then close the sockets of a bind.
    Close {
        key: BindKey,
        done: std_mpsc::Sender<()>,
    },
    /// Sockets that stay to the end: steered connections.
    ListenSteered(StdTcpListener),
    ReceiveSteered(StdUdpSocket),
    /// Close the sockets of binds, and let connections go with their next answer.
    Leave,
    Drain,
}

/// A running worker thread, as seen from outside.
#[derive(Debug)]
pub(crate) struct Thread {
    pub(crate) commands: mpsc::UnboundedSender<Command>,
    pub(crate) handle: JoinHandle<()>,
}

/// Starts worker `number`.
///
/// # Errors
/// When the thread or its event loop cannot be made.
pub(crate) fn start(number: usize, shared: Shared) -> io::Result<Thread> {
    let (commands, receiver) = mpsc::unbounded_channel();
    let (ready, started) = std_mpsc::channel();
    let handle = std::thread::Builder::new()
        .name(format!("worker-{number}"))
        .spawn(move || {
            let runtime = Builder::new_current_thread()
                .enable_all()
                .build_local(LocalOptions::default());
            match runtime {
                Ok(runtime) => {
                    let _ = ready.send(Ok(()));
                    runtime.block_on(run(Rc::new(Worker::new(number, shared)), receiver));
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            }
        })?;
    started
        .recv()
        .unwrap_or_else(|_| Err(io::Error::other("the thread ended at once")))?;
    Ok(Thread { commands, handle })
}

/// How to stop the tasks that listen for each bind.
type Open = HashMap<BindKey, Vec<oneshot::Sender<std_mpsc::Sender<()>>>, RandomState>;

fn stop_all(open: &mut Open) {
    for (_, stops) in open.drain() {
        for stop in stops {
            let _ = stop.send(std_mpsc::channel().0);
        }
    }
}

async fn run(worker: Rc<Worker>, mut commands: mpsc::UnboundedReceiver<Command>) {
    let mut open = Open::default();
    spawn_local(LogBuffer::flush_regularly(Rc::clone(&worker)));
    while let Some(command) = commands.recv().await {
        match command {
            Command::Listen { key, socket } => {
                let (stop, stopped) = oneshot::channel();
                if let Some(listener) = adopt(TcpListener::from_std(socket)) {
                    open.entry(key).or_default().push(stop);
                    spawn_local(accept::listen(Rc::clone(&worker), listener, stopped));
                }
            }
            Command::Receive { key, socket } => {
                let (stop, stopped) = oneshot::channel();
                if let Some(socket) = adopt(UdpSocket::from_std(socket)) {
                    open.entry(key).or_default().push(stop);
                    spawn_local(udp::receive(
                        Rc::clone(&worker),
                        socket,
                        udp::Replies::SameSocket,
                        stopped,
                    ));
                }
            }
            Command::ListenSteered(socket) => {
                if let Some(listener) = adopt(TcpListener::from_std(socket)) {
                    let worker = Rc::clone(&worker);
                    spawn_local(async move {
                        let (_stop, stopped) = oneshot::channel();
                        accept::listen(worker, listener, stopped).await;
                    });
                }
            }
            Command::ReceiveSteered(socket) => {
                if let Some(socket) = adopt(UdpSocket::from_std(socket)) {
                    let worker = Rc::clone(&worker);
                    spawn_local(async move {
                        let (_stop, stopped) = oneshot::channel();
                        udp::receive(worker, socket, udp::Replies::OwnSockets, stopped).await;
                    });
                }
            }
            Command::Close { key, done } => {
                for stop in open.remove(&key).unwrap_or_default() {
                    let _ = stop.send(done.clone());
                }
            }
            Command::Leave => {
                stop_all(&mut open);
                worker.drain.leave();
            }
            Command::Drain => {
                stop_all(&mut open);
                worker.drain.start();
            }
        }
    }
    worker.log.flush();
}

fn adopt<S>(socket: io::Result<S>) -> Option<S> {
    socket
        .inspect_err(|error| tracing::error!(%error, "a socket cannot be watched by its worker"))
        .ok()
}
