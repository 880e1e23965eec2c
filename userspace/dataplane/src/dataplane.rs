use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    net::{TcpListener, UdpSocket},
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use pierhead_model::{
    BackendTarget, BindAddress, BindKey, DataPath, DataPathReport, EndpointState, Hostname, Snapshot, Transport,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::Socket;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::{
    AcceptMode, ApplyReport, BackendStatus, BindError, BindStatus, Config, DrainReport, EndpointStatus, ListenerStatus,
    StartError, Status, WorkerSockets,
    accept::sockets,
    control,
    dns::Answer,
    observe::{self, Counter, LogSender, Registry},
    runtime::{Compiler, Runtime},
    tls::TlsStore,
    upstream::Resolved,
    worker::{self, Command, Shared, Thread},
};

/// How long closing the sockets of a bind may take: their queues are served first.
const CLOSING: Duration = Duration::from_secs(1);
/// How often a drain looks whether it is done.
const DRAIN_POLL: Duration = Duration::from_millis(10);

/// A running data plane: worker threads, their sockets, and the snapshot they execute.
///
/// All methods may be called from any thread, inside or outside an async runtime; `apply` compiles and opens sockets on
/// the calling thread (milliseconds). Dropping it stops the workers at once; `drain` first ends gracefully.
pub struct Dataplane {
    inner: Arc<Inner>,
    threads: Mutex<Vec<Thread>>,
}

impl fmt::Debug for Dataplane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dataplane")
            .field("config", &self.inner.config)
            .finish_non_exhaustive()
    }
}

impl Dataplane {
    /// Starts the workers. They serve nothing before the first [`Self::apply`].
    ///
    /// # Errors
    /// When threads, steered sockets or the access log cannot be had.
    pub fn start(config: Config) -> Result<Self, StartError> {
        Self::start_with(config, Vec::new())
    }

    /// The same with steered sockets that another process had, as of [`Self::steered_sockets`]: what waits there is served
    /// too. What is missing is opened.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(config: Config, kept: Vec<WorkerSockets>) -> Result<Self, StartError> {
        raise_descriptor_limit();
        let workers = config.workers.get();
        let registry = Arc::new(Registry::new(workers));
        let tls = TlsStore::new().map_err(|error| StartError::Tickets(error.to_string()))?;
        let shared = Shared {
            runtime: Arc::new(ArcSwap::from_pointee(Runtime::default())),
            cells: registry.worker(),
            log: LogSender::start(&config.access_log)?,
            loads: config.loads.clone(),
        };
        let mut threads = Vec::with_capacity(workers);
        for number in 0..workers {
            let thread = worker::start(number, shared.clone())
                .map_err(|source| StartError::Thread { worker: number, source })?;
            threads.push(thread);
        }
        let beside = config.beside;
        let commands: Vec<_> = threads.iter().map(|thread| thread.commands.clone()).collect();
        let steered = match config.accept {
            AcceptMode::Bound => Vec::new(),
            AcceptMode::Steered => Steered::open_all(workers, kept).map_err(|source| StartError::Socket {
                source,
                fix: "allow more open files (ulimit -n)",
            })?,
        };
        let (wanted, names) = unbounded_channel();
        let inner = Arc::new(Inner {
            config,
            state: Mutex::new(State {
                commands,
                compiler: Compiler::new(Arc::clone(&registry), tls),
                resolved: Resolved::default(),
                open: BTreeSet::new(),
                failed: BTreeMap::new(),
                draining: false,
                listening: false,
                beside,
                wanted: BTreeSet::new(),
                retired: Vec::new(),
            }),
            registry,
            runtime: shared.runtime,
            steered,
            wanted,
        });
        control::start(Arc::downgrade(&inner), names).map_err(|source| StartError::Thread {
            worker: workers,
            source,
        })?;
        Ok(Self {
            inner,
            threads: Mutex::new(threads),
        })
    }

    /// Compiles `snapshot`, opens and closes sockets (bound mode), and puts it in force at once for all workers. Parts
    /// that did not change are taken over, and so are the connections they serve.
    pub fn apply(&self, snapshot: Arc<Snapshot>) -> ApplyReport {
        self.inner.apply(snapshot)
    }

    /// The sockets to register for steering, one entry per worker; empty in bound mode.
    pub fn steered_sockets(&self) -> Vec<WorkerSockets> {
        let sockets = self.inner.steered.iter().enumerate();
        sockets.map(|(worker, sockets)| sockets.duplicate(worker)).collect()
    }

    /// All metrics in the Prometheus text format (`text/plain; version=0.0.4`).
    pub fn metrics(&self) -> String {
        observe::text(&self.inner.registry, self.inner.runtime.load().generation)
    }

    /// What is served now; a bind that was reported as failed appears healthy here once a retry succeeds.
    pub fn status(&self) -> Status {
        self.inner.status()
    }

    /// For when a successor serves beside this one: closes the sockets of binds (steered ones stay open, for what is on
    /// its way to them) and lets each connection go with its next answer, HTTP/2 with GOAWAY. Idle connections stay; so do
    /// streams. Returns at once; [`Self::drain`] is the end.
    pub fn leave(&self) {
        let mut state = self.inner.lock();
        state.stop_opening();
        for commands in &state.commands {
            // Fails for a worker that has ended.
            let _ = commands.send(Command::Leave);
        }
    }

    /// Connections and UDP sessions that are open now.
    pub fn open_connections(&self) -> u64 {
        self.inner.open_connections()
    }

    /// From now on no other process may have the ports of new binds. Ends what [`Config::beside`] began.
    pub fn alone(&self) {
        self.inner.lock().beside = false;
    }

    /// Stops accepting, lets what is in flight finish (HTTP/1 `connection: close`, HTTP/2 GOAWAY), and cuts what is left
    /// after `deadline`. Blocks the calling thread. Steered sockets stay open to the end: unregister them before.
    pub fn drain(&self, deadline: Duration) -> DrainReport {
        let began = Instant::now();
        {
            let mut state = self.inner.lock();
            state.stop_opening();
            for commands in &state.commands {
                // Fails for a worker that has ended.
                let _ = commands.send(Command::Drain);
            }
        }
        while self.inner.open_connections() > 0 && began.elapsed() < deadline {
            thread::sleep(DRAIN_POLL.min(deadline.saturating_sub(began.elapsed())));
        }
        let cut = self.inner.open_connections();
        self.stop();
        DrainReport {
            cut,
            took: began.elapsed(),
        }
    }

    fn stop(&self) {
        self.inner.lock().commands.clear();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for Thread { commands, handle } in threads {
            drop(commands);
            // A worker that panicked has said so.
            let _ = handle.join();
        }
    }
}

impl Drop for Dataplane {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What the control thread uses too.
pub(crate) struct Inner {
    config: Config,
    registry: Arc<Registry>,
    runtime: Arc<ArcSwap<Runtime>>,
    steered: Vec<Steered>,
    state: Mutex<State>,
    /// Names to resolve, for the control thread.
    wanted: UnboundedSender<BTreeSet<Hostname>>,
}

struct State {
    commands: Vec<UnboundedSender<Command>>,
    compiler: Compiler,
    resolved: Resolved,
    open: BTreeSet<BindKey>,
    failed: BTreeMap<BindKey, String>,
    draining: bool,
    /// Steered sockets are served: not before it is known what is served there.
    listening: bool,
    /// Another process has the same sockets open, and will close them.
    beside: bool,
    wanted: BTreeSet<Hostname>,
    /// No longer in force. To drop one takes as long as it is large, which is not a worker's time to spend: a worker is never
    /// the last to hold it.
    retired: Vec<Arc<Runtime>>,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, snapshot: Arc<Snapshot>) -> ApplyReport {
        let mut state = self.lock();
        // Sockets go before what they lead to, and come after it.
        state.close(|key| !snapshot.binds.contains_key(key));
        self.swap(&mut state, snapshot);
        self.follow_names(&mut state);
        self.open_missing(&mut state);
        if !std::mem::replace(&mut state.listening, true) {
            for (steered, commands) in self.steered.iter().zip(&state.commands) {
                steered.listen(commands);
            }
        }
        let runtime = self.runtime.load();
        ApplyReport {
            generation: runtime.generation,
            binds: runtime
                .snapshot
                .binds
                .keys()
                .map(|key| self.path(&state, *key))
                .collect(),
            unusable: state.compiler.unusable(),
        }
    }

    /// Compiles `snapshot` and puts it in force.
    fn swap(&self, state: &mut State, snapshot: Arc<Snapshot>) {
        let previous = self.runtime.load_full();
        let State { compiler, resolved, .. } = state;
        let mut next = compiler.compile(Arc::clone(&snapshot), resolved, &previous);
        if previous.generation > 0 && *previous.snapshot == *snapshot {
            next.generation = previous.generation;
        }
        state.retired.push(self.runtime.swap(Arc::new(next)));
        drop(previous);
        state.drop_retired();
        state.compiler.prune();
    }

    fn follow_names(&self, state: &mut State) {
        let wanted = state.compiler.names();
        state.resolved.retain(|name, _| wanted.contains(name));
        if wanted != state.wanted {
            state.wanted.clone_from(&wanted);
            // The control thread lives as long as this.
            let _ = self.wanted.send(wanted);
        }
    }

    /// A name has new addresses.
    pub(crate) fn resolved(&self, answer: Answer) {
        let mut state = self.lock();
        if state.wanted.contains(&answer.name) {
            state.resolved.insert(answer.name, answer.addresses);
            let snapshot = Arc::clone(&self.runtime.load().snapshot);
            self.swap(&mut state, snapshot);
        }
    }

    /// Does what can wait a second: drops what nobody uses any more, tries again to open what could not be opened.
    pub(crate) fn retry(&self) {
        let mut state = self.lock();
        state.drop_retired();
        state.compiler.prune();
        if !state.failed.is_empty() {
            self.open_missing(&mut state);
        }
    }

    fn open_missing(&self, state: &mut State) {
        if self.config.accept == AcceptMode::Steered || state.draining {
            return;
        }
        let runtime = self.runtime.load();
        let before = std::mem::take(&mut state.failed);
        for key in runtime.snapshot.binds.keys().copied() {
            if state.open.contains(&key) {
                continue;
            }
            match state.open(key) {
                Ok(()) => {
                    if before.contains_key(&key) {
                        tracing::info!(bind = %key, "the bind is served now");
                    }
                    state.open.insert(key);
                }
                Err(error) => {
                    let why = error.to_string();
                    match before.get(&key) {
                        // Whoever applied the snapshot is told, and knows whether the bind is to be served here at all.
                        None => {
                            tracing::debug!(bind = %key, why, "a bind is not served; it is tried again every second")
                        }
                        Some(before) if *before == why => {}
                        Some(_) => {
                            tracing::error!(bind = %key, why, "a bind is still not served, now for another reason")
                        }
                    }
                    state.failed.insert(key, why);
                }
            }
        }
    }

    fn path(&self, state: &State, bind: BindKey) -> DataPathReport {
        let (path, why) = match (self.config.accept, state.failed.get(&bind)) {
            (AcceptMode::Steered, _) => (DataPath::Steered, ""),
            (AcceptMode::Bound, Some(why)) => (DataPath::None, why.as_str()),
            (AcceptMode::Bound, None) if state.draining => (DataPath::None, "the data plane is being drained"),
            (AcceptMode::Bound, None) => (DataPath::Bound, ""),
        };
        DataPathReport {
            bind,
            path,
            why: why.to_owned(),
        }
    }

    fn open_connections(&self) -> u64 {
        let cells = self.registry.worker();
        let closed: u64 = cells.iter().map(|cell| cell.closed.value()).sum();
        let opened: u64 = cells.iter().map(|cell| cell.opened.value()).sum();
        opened.saturating_sub(closed)
    }

    fn status(&self) -> Status {
        let state = self.lock();
        let runtime = self.runtime.load();
        let binds = runtime.snapshot.binds.keys().map(|key| {
            let DataPathReport { bind, path, why } = self.path(&state, *key);
            let listeners = runtime.binds.get(*key).map_or(&[][..], |bind| &bind.listeners);
            BindStatus {
                bind,
                path,
                why,
                listeners: listeners
                    .iter()
                    .map(|listener| ListenerStatus {
                        listener: listener.model.id.clone(),
                        connections: listener.open_now(),
                        requests: listener
                            .cells
                            .iter()
                            .flat_map(|cells| &cells.requests)
                            .map(Counter::value)
                            .sum(),
                    })
                    .collect(),
            }
        });
        let backends = runtime.snapshot.backends.iter().map(|(id, model)| {
            let (problem, endpoints) = match &model.target {
                BackendTarget::Invalid { message, .. } => (message.clone(), Vec::new()),
                BackendTarget::Endpoints(id) => {
                    let set = runtime.snapshot.endpoints.get(id).map_or(&[][..], |set| &set.endpoints);
                    let endpoints = set.iter().map(|endpoint| EndpointStatus {
                        address: endpoint.address,
                        ready: endpoint.state == EndpointState::Ready,
                    });
                    (String::new(), endpoints.collect())
                }
                BackendTarget::Dns { name, port } => match state.resolved.get(name) {
                    None => (format!("{name} is not resolved yet"), Vec::new()),
                    Some(addresses) => {
                        let endpoints = addresses.iter().map(|address| EndpointStatus {
                            address: (*address, *port).into(),
                            ready: true,
                        });
                        (String::new(), endpoints.collect())
                    }
                },
            };
            BackendStatus {
                backend: id.clone(),
                problem,
                endpoints,
            }
        });
        Status {
            generation: runtime.generation,
            workers: self.config.workers.get(),
            draining: state.draining,
            binds: binds.collect(),
            backends: backends.collect(),
        }
    }
}

impl State {
    fn drop_retired(&mut self) {
        self.retired.retain(|runtime| Arc::strong_count(runtime) > 1);
    }

    fn stop_opening(&mut self) {
        self.draining = true;
        self.open.clear();
        self.failed.clear();
    }

    /// Opens the sockets of a bind and gives each worker its own.
    fn open(&self, key: BindKey) -> Result<(), BindError> {
        // Our own sockets on an overlapping address share the port by intent.
        let exclusive = !self.beside && !self.open.iter().any(|other| overlap(*other, key));
        let sets = sockets::open(key, self.commands.len(), exclusive)?;
        for (commands, set) in self.commands.iter().zip(sets) {
            for socket in set {
                // Fails for a worker that has ended: its socket closes, the others take its share.
                let _ = commands.send(match key.transport {
                    Transport::Tcp => Command::Listen {
                        key,
                        socket: TcpListener::from(OwnedFd::from(socket)),
                    },
                    Transport::Udp => Command::Receive {
                        key,
                        socket: UdpSocket::from(OwnedFd::from(socket)),
                    },
                });
            }
        }
        Ok(())
    }

    /// Closes the sockets of the binds that are `gone`, and waits until their queues are served.
    fn close(&mut self, gone: impl Fn(&BindKey) -> bool) {
        let closing: Vec<_> = self.open.iter().filter(|key| gone(key)).copied().collect();
        if closing.is_empty() {
            return;
        }
        let (done, all_done) = mpsc::channel();
        for key in closing {
            self.open.remove(&key);
            for commands in &self.commands {
                let done = done.clone();
                let _ = commands.send(Command::Close { key, done });
            }
        }
        drop(done);
        let deadline = Instant::now() + CLOSING;
        while all_done
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            .is_ok()
        {}
    }
}

fn overlap(a: BindKey, b: BindKey) -> bool {
    let any = |key: BindKey| key.address == BindAddress::Any;
    a.transport == b.transport && a.port == b.port && (any(a) || any(b) || a.address == b.address)
}

/// The steered sockets of one worker: duplicates of what it listens on.
struct Steered {
    tcp4: Option<Socket>,
    tcp6: Option<Socket>,
    udp4: Option<Socket>,
    udp6: Option<Socket>,
}

impl Steered {
    /// For so many workers; what was kept stays with the worker of its number.
    fn open_all(workers: usize, kept: Vec<WorkerSockets>) -> io::Result<Vec<Self>> {
        let mut kept: BTreeMap<usize, WorkerSockets> = kept.into_iter().map(|one| (one.worker, one)).collect();
        (0..workers).map(|worker| Self::open(kept.remove(&worker))).collect()
    }

    fn open(kept: Option<WorkerSockets>) -> io::Result<Self> {
        let open = |kept: Option<OwnedFd>, transport, v6| match kept {
            Some(kept) => Ok(Some(Socket::from(kept))),
            None => sockets::steered(transport, v6),
        };
        let (tcp4, tcp6, udp4, udp6) = match kept {
            Some(kept) => (kept.tcp4, kept.tcp6, kept.udp4, kept.udp6),
            None => (None, None, None, None),
        };
        Ok(Self {
            tcp4: open(tcp4, Transport::Tcp, false)?,
            tcp6: open(tcp6, Transport::Tcp, true)?,
            udp4: open(udp4, Transport::Udp, false)?,
            udp6: open(udp6, Transport::Udp, true)?,
        })
    }

    /// Has the worker serve what comes in by them.
    fn listen(&self, commands: &UnboundedSender<Command>) {
        let duplicates = self.duplicate(0);
        for socket in [duplicates.tcp4, duplicates.tcp6].into_iter().flatten() {
            // Fails for a worker that has ended.
            let _ = commands.send(Command::ListenSteered(socket.into()));
        }
        for socket in [duplicates.udp4, duplicates.udp6].into_iter().flatten() {
            let _ = commands.send(Command::ReceiveSteered(socket.into()));
        }
    }

    fn duplicate(&self, worker: usize) -> WorkerSockets {
        let duplicate = |socket: &Option<Socket>| socket.as_ref().and_then(|s| s.try_clone().ok()).map(OwnedFd::from);
        WorkerSockets {
            worker,
            tcp4: duplicate(&self.tcp4),
            tcp6: duplicate(&self.tcp6),
            udp4: duplicate(&self.udp4),
            udp6: duplicate(&self.udp6),
        }
    }
}

/// As many open files as this process may have: the soft limit is made for programs that use select(2).
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the number of open files stays limited");
    }
}
