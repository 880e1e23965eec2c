//! Watches an API server, translates what changed, publishes what is new.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use kube::Client;
use pierhead_translate::{Settings, Translation, translate_from};
use tokio::sync::{mpsc as async_mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::addresses::{self, Addresses};
use super::connect::{StartError, connect};
use super::discovery::Discovery;
use super::holders::Holders;
use super::hosts::{self, Hosts};
use super::same::{same_snapshot, same_statuses};
use super::store::{Change, Standings, Store};
use crate::counters::{Counters, count};
use crate::nodes::Nodes;
use crate::publish::Numbered;
use crate::published::Published;

/// A burst of events ends when nothing comes for so long …
const QUIET: Duration = Duration::from_millis(5);
/// … or for so long, when the burst is the first after a time of rest: most changes are one object, and somebody waits.
const QUIET_AFTER_REST: Duration = Duration::from_millis(1);
/// … but is not waited for longer than this.
const BURST: Duration = Duration::from_millis(50);
/// Nothing was translated for as long as a burst may take: whatever comes as often as that is no burst.
const REST: Duration = BURST;
/// How often to translate again without a change, so that certificates are seen to expire.
const REFRESH: Duration = Duration::from_secs(3600);
/// How often at most a replica translates that does not lead: nobody reads it, until it leads.
const STANDBY: Duration = Duration::from_secs(1);
/// What a source is started with.
pub struct SourceOptions {
    /// A file as kubectl uses it; `None`: the cluster this pod runs in, or the user's own kubeconfig.
    pub kubeconfig: Option<PathBuf>,
    /// Called before each translation. Allocations and the machines' addresses are the source's own business.
    pub settings: Box<dyn FnMut() -> Settings + Send>,
    /// Whose addresses are shown where a bind is on every machine.
    pub nodes: watch::Receiver<Arc<Nodes>>,
    pub counters: Arc<Counters>,
}

/// A watched cluster. Dropping it ends the watching.
#[derive(Debug)]
pub struct ClusterSource {
    published: watch::Receiver<Arc<Published>>,
    snapshots: watch::Receiver<Option<Numbered>>,
    decides: watch::Receiver<bool>,
    turn: watch::Receiver<Turn>,
    _engine: Engine,
}

/// What the loop hears.
#[derive(Debug)]
pub(crate) enum Signal {
    Watch(Change),
    Nodes(Arc<Nodes>),
    /// By which the world reaches the nodes.
    Hosts(Hosts),
    /// Whether this replica has the Lease.
    Elected(bool),
    /// Whether it decides too.
    Leader(bool),
    Stop,
}

/// What a replica may write of what it published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Turn {
    Nothing,
    /// It has the Lease, and does not know the nodes yet: what does not speak of them.
    WithoutNodes,
    Everything,
}

impl Turn {
    pub(crate) fn of(elected: bool, decides: bool) -> Self {
        match (elected, decides) {
            (false, _) => Self::Nothing,
            (true, false) => Self::WithoutNodes,
            (true, true) => Self::Everything,
        }
    }
}

/// Taken while objects that were seen and what they came to are passed on, and while both are received: whoever has one of them
/// has the other. A status that is newer than the object it is written to would be refused as a conflict.
#[derive(Debug, Default)]
pub(crate) struct Handover(Mutex<()>);

impl Handover {
    pub(crate) fn take(&self) -> MutexGuard<'_, ()> {
        // Nothing is guarded that a panic could leave half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a source needs besides its options when it is a part of a controller.
pub(crate) struct Part {
    pub(crate) client: Client,
    /// Nodes in other places announce addresses; `false`: the one node is in this process.
    pub(crate) elects: bool,
    /// Whether this replica has the Lease.
    pub(crate) elected: watch::Receiver<bool>,
    /// Whether it decides too.
    pub(crate) leader: watch::Receiver<bool>,
    pub(crate) standings: async_mpsc::UnboundedSender<Vec<Standings>>,
    pub(crate) handover: Arc<Handover>,
    /// Where snapshots go, as long as this replica leads. `None` otherwise: what it last gave as a leader may be long untrue when
    /// it leads again.
    pub(crate) snapshots: watch::Sender<Option<Numbered>>,
}

impl ClusterSource {
    /// Returns when everything there is was read and translated; waits for an API server that does not answer.
    ///
    /// # Errors
    /// When it is not known where the API server is.
    pub async fn start(options: SourceOptions) -> Result<Self, StartError> {
        let client = connect(options.kubeconfig.as_deref()).await?;
        let part = Part {
            client,
            elects: false,
            elected: watch::channel(true).1,
            leader: watch::channel(true).1,
            standings: async_mpsc::unbounded_channel().0,
            handover: Arc::default(),
            snapshots: watch::Sender::new(None),
        };
        Self::start_part(options, part).await
    }

    pub(crate) async fn start_part(options: SourceOptions, part: Part) -> Result<Self, StartError> {
        let (first, published) = oneshot::channel();
        let snapshots = part.snapshots.subscribe();
        let (decided, decides) = watch::channel(false);
        let (turns, turn) = watch::channel(Turn::Nothing);
        let engine = Engine::start(options, part, first, (decided, turns))?;
        let published = published.await.map_err(|_| StartError::Ended)?;
        Ok(Self {
            published,
            snapshots,
            decides,
            turn,
            _engine: engine,
        })
    }

    /// Whether what is published was made by a replica that leads: only then may it be written to the cluster.
    pub(crate) fn decides(&self) -> watch::Receiver<bool> {
        self.decides.clone()
    }

    /// What of it may be written.
    pub(crate) fn turn(&self) -> watch::Receiver<Turn> {
        self.turn.clone()
    }

    /// The latest configuration, and every later one.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Published>> {
        self.published.clone()
    }

    /// What nodes are to serve, with numbers that grow when it changes.
    pub fn snapshots(&self) -> watch::Receiver<Option<Numbered>> {
        self.snapshots.clone()
    }
}

/// The watches and the thread that translates. Ends with its owner.
#[derive(Debug)]
struct Engine {
    signal: mpsc::Sender<Signal>,
    thread: Option<thread::JoinHandle<()>>,
    _tasks: JoinSet<()>,
}

impl Engine {
    fn start(
        options: SourceOptions,
        part: Part,
        first: First,
        (decided, turns): (watch::Sender<bool>, watch::Sender<Turn>),
    ) -> Result<Self, StartError> {
        let (signal, signals) = mpsc::channel();
        let mut nodes = options.nodes;
        let mut elected = part.elected;
        let mut leader = part.leader;
        let present = Arc::clone(&nodes.borrow_and_update());
        let leads = *leader.borrow_and_update();
        let mut translator = Translator {
            store: Store::new(),
            settings: options.settings,
            counters: Arc::clone(&options.counters),
            nodes: present,
            hosts: None,
            holders: Holders::default(),
            elects: part.elects,
            elected: *elected.borrow_and_update(),
            addresses: Addresses::default(),
            shown: Addresses::default(),
            leads,
            sent: false,
            decided,
            turns,
            standings: part.standings,
            handover: part.handover,
            first: Some(first),
            published: None,
            snapshots: part.snapshots,
            numbered: 0,
            refresh: Instant::now() + REFRESH,
            ended: Instant::now(),
            dirty: false,
        };
        translator.count_addresses();
        let thread = thread::Builder::new()
            .name("translate".into())
            .spawn(move || translator.run(&signals))
            .map_err(|error| StartError::Client {
                reason: error.to_string(),
            })?;
        let mut tasks = JoinSet::new();
        tasks.spawn(tell(nodes, signal.clone(), Signal::Nodes));
        tasks.spawn(tell(elected, signal.clone(), Signal::Elected));
        tasks.spawn(tell(leader, signal.clone(), Signal::Leader));
        tasks.spawn(hosts::follow(
            part.client.clone(),
            signal.clone(),
            Arc::clone(&options.counters),
        ));
        tasks.spawn(Discovery::new(part.client, signal.clone(), options.counters).run());
        Ok(Self {
            signal,
            thread: Some(thread),
            _tasks: tasks,
        })
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // The thread may be gone already; then there is nothing to stop.
        let _ = self.signal.send(Signal::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Of the connected nodes.
fn names(nodes: &Nodes) -> BTreeSet<Arc<str>> {
    nodes.connected().map(|(name, _)| Arc::clone(name)).collect()
}

async fn tell<T: Clone>(mut values: watch::Receiver<T>, signal: mpsc::Sender<Signal>, of: fn(T) -> Signal) {
    while values.changed().await.is_ok() {
        let value = values.borrow_and_update().clone();
        if signal.send(of(value)).is_err() {
            return;
        }
    }
}

/// Told once, where to read what is published.
type First = oneshot::Sender<watch::Receiver<Arc<Published>>>;

struct Translator {
    store: Store,
    settings: Box<dyn FnMut() -> Settings + Send>,
    counters: Arc<Counters>,
    nodes: Arc<Nodes>,
    /// `None` until they were read, or could not be.
    hosts: Option<Hosts>,
    /// What the machines have, and what of it or instead of it is shown.
    addresses: Addresses,
    shown: Addresses,
    holders: Holders,
    elects: bool,
    elected: bool,
    leads: bool,
    /// Since it leads, a snapshot has gone to the nodes.
    sent: bool,
    decided: watch::Sender<bool>,
    turns: watch::Sender<Turn>,
    standings: async_mpsc::UnboundedSender<Vec<Standings>>,
    handover: Arc<Handover>,
    first: Option<First>,
    /// There is one from the first translation on.
    published: Option<watch::Sender<Arc<Published>>>,
    snapshots: watch::Sender<Option<Numbered>>,
    /// The last snapshot's number.
    numbered: u64,
    refresh: Instant,
    /// When the last translation ended.
    ended: Instant,
    /// Something changed that is not in the world.
    dirty: bool,
}

impl Translator {
    fn run(mut self, signals: &mpsc::Receiver<Signal>) {
        self.counters.set_waiting_for(self.store.waiting_for());
        loop {
            match signals.recv_timeout(self.wait()) {
                Ok(signal) => {
                    if self.note(signal) {
                        return;
                    }
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
                Err(mpsc::RecvTimeoutError::Timeout) => self.look_at_the_clock(),
            }
            if !self.store.is_synced() || self.hosts.is_none() {
                continue;
            }
            // What it has seen is kept for the next translation: neither is of use without the other.
            if self.rests() {
                continue;
            }
            if self.dirty && self.collect(signals) {
                return;
            }
            // Not before a burst is over: a status is compared with what the object came to, not with what it was.
            let standings = self.store.take_standings();
            if self.dirty {
                self.dirty = false;
                self.translate(standings);
            } else {
                self.tell(standings);
            }
        }
    }

    fn tell(&self, standings: Vec<Standings>) {
        if !standings.is_empty() {
            // The writer ends before us only when everything ends.
            let _ = self.standings.send(standings);
        }
    }

    fn wait(&self) -> Duration {
        let now = Instant::now();
        let mut next = self.next_address().map_or(self.refresh, |at| at.min(self.refresh));
        if self.rests() {
            next = next.min(self.ended + STANDBY);
        }
        next.saturating_duration_since(now)
    }

    /// Whether something changed that can wait, since somebody else leads.
    fn rests(&self) -> bool {
        let stands_by = self.elects && !self.elected;
        self.dirty && stands_by && self.published.is_some() && self.ended.elapsed() < STANDBY
    }

    fn look_at_the_clock(&mut self) {
        let now = Instant::now();
        self.dirty |= now >= self.refresh;
        self.dirty |= self.next_address().is_some_and(|at| now >= at);
    }

    /// When the next address is given up.
    fn next_address(&self) -> Option<Instant> {
        let both = [self.addresses.next_change(), self.shown.next_change()];
        both.into_iter().flatten().min()
    }

    /// Whose addresses there are has changed.
    fn count_addresses(&mut self) {
        let now = Instant::now();
        let none = Hosts::new();
        let hosts = self.hosts.as_ref().unwrap_or(&none);
        let before = (self.addresses.at(now), self.shown.at(now));
        self.addresses.update(addresses::own(&self.nodes), now);
        self.shown.update(addresses::shown(&self.nodes, hosts), now);
        self.dirty |= (self.addresses.at(now), self.shown.at(now)) != before;
    }

    /// True: stop.
    fn note(&mut self, signal: Signal) -> bool {
        match signal {
            Signal::Stop => return true,
            Signal::Watch(change) => {
                let list_ended = matches!(change, Change::Complete(_) | Change::Unserved(_) | Change::Crds(_));
                self.store.apply(change);
                self.dirty |= self.store.take_changed();
                if list_ended && self.published.is_none() {
                    self.counters.set_waiting_for(self.store.waiting_for());
                }
            }
            Signal::Nodes(nodes) => {
                self.dirty |= self.elects && names(&nodes) != names(&self.nodes);
                self.dirty |= self.elects && self.holders.hear(&self.nodes, &nodes);
                self.nodes = nodes;
                self.count_addresses();
            }
            Signal::Hosts(hosts) => {
                // Before anything was shown nothing is to linger.
                if self.hosts.replace(hosts).is_none() {
                    self.shown = Addresses::default();
                }
                self.count_addresses();
            }
            Signal::Elected(elected) => {
                self.dirty |= self.elected != elected;
                self.elected = elected;
                if !elected {
                    self.turns.send_replace(Turn::Nothing);
                }
            }
            Signal::Leader(leads) => {
                self.dirty |= self.leads != leads;
                self.leads = leads;
                self.sent &= leads || !self.elects;
                if !leads {
                    self.decided.send_replace(false);
                    self.turns.send_if_modified(|turn| {
                        let left = Turn::WithoutNodes.min(*turn);
                        std::mem::replace(turn, left) != left
                    });
                    self.holders.forget();
                }
                if !leads && self.elects {
                    self.snapshots.send_if_modified(|last| last.take().is_some());
                }
            }
        }
        false
    }

    /// Waits for the end of a burst of changes. True: stop.
    fn collect(&mut self, signals: &mpsc::Receiver<Signal>) -> bool {
        let start = Instant::now();
        let quiet = match start.duration_since(self.ended) > REST {
            true => QUIET_AFTER_REST,
            false => QUIET,
        };
        loop {
            let left = (start + BURST).saturating_duration_since(Instant::now());
            match signals.recv_timeout(left.min(quiet)) {
                Ok(signal) => {
                    if self.note(signal) {
                        return true;
                    }
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return true,
                Err(mpsc::RecvTimeoutError::Timeout) => return false,
            }
            if left.is_zero() {
                return false;
            }
        }
    }

    /// `standings`: what was seen since the last time.
    fn translate(&mut self, standings: Vec<Standings>) {
        let started = Instant::now();
        self.refresh = started + REFRESH;
        let last = self.published.as_ref().map(|published| Arc::clone(&published.borrow()));
        let before = last.as_ref().map(|last| &last.translation);
        let mut settings = (self.settings)();
        settings.machine_addresses = self.addresses.at(started);
        settings.shown_addresses = Some(self.shown.at(started));
        if self.elects {
            settings.nodes = Some(names(&self.nodes));
            settings.held = self.holders.held(&self.nodes);
        }
        // What a replica that does not lead would give, the leader may give to another.
        settings.allocate = self.leads;
        settings.allocations = before.map(|before| before.allocations.clone()).unwrap_or_default();
        let mut translation = translate_from(&self.store.world, &settings, before);
        translation.problems.extend(self.store.problems().cloned());
        translation.problems.sort();
        translation.problems.dedup();
        if self.leads && self.elects {
            self.holders.remember(&translation.snapshot);
        }
        self.ended = Instant::now();
        let took = self.ended.duration_since(started);
        count(&self.counters.translations);
        let microseconds = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.counters
            .translation_microseconds
            .fetch_add(microseconds, Ordering::Relaxed);
        {
            let handover = Arc::clone(&self.handover);
            let _both = handover.take();
            self.tell(standings);
            self.publish(translation, last.as_deref(), took);
        }
        let leads = self.leads;
        self.decided
            .send_if_modified(|decided| std::mem::replace(decided, leads) != leads);
        let turn = Turn::of(self.elected, leads);
        self.turns
            .send_if_modified(|before| std::mem::replace(before, turn) != turn);
    }

    fn publish(&mut self, translation: Translation, last: Option<&Published>, took: Duration) {
        let before = last.map(|last| &last.translation);
        let new_snapshot = before.is_none_or(|last| !same_snapshot(&last.snapshot, &translation.snapshot));
        // First what the statuses speak of. A replica that does not lead knows nothing of the nodes, unless the one is here.
        if (self.leads || !self.elects) && (new_snapshot || !self.sent) {
            self.sent = true;
            self.numbered += 1;
            let (version, snapshot) = (self.numbered, Arc::new(translation.snapshot.clone()));
            self.snapshots.send_replace(Some(Numbered { version, snapshot }));
        }
        let same = !new_snapshot
            && before.is_some_and(|last| {
                last.problems == translation.problems
                    && last.allocations == translation.allocations
                    && last.services == translation.services
                    && same_statuses(&last.statuses, &translation.statuses)
            });
        if same {
            return;
        }
        count(&self.counters.published);
        let published = Arc::new(Published {
            translation,
            file_problems: Vec::new(),
            ignored: Vec::new(),
            objects: self.store.len(),
            version: last.map_or(1, |last| last.version + 1),
            took,
        });
        match &self.published {
            Some(sender) => _ = sender.send_replace(published),
            None => {
                let (sender, receiver) = watch::channel(published);
                self.published = Some(sender);
                if let Some(first) = self.first.take() {
                    // Whoever waited may have given up; then we are about to be stopped.
                    let _ = first.send(receiver);
                }
            }
        }
    }
}
