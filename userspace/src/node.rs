//! The node process: what executes snapshots here, and in which order its parts learn of a new one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use ipnet::IpNet;
use pierhead_dataplane::{AcceptMode, AccessLog, Config, Dataplane, WorkerSockets};
use pierhead_kernel::{Announcements, KernelError};
use pierhead_model::{BackendTarget, BindKey, CertificateId, DataPath, DataPathReport, Ownership, Snapshot};

use crate::cli::NodeOptions;
use crate::steering::{self, Mode, Steering};

/// How long a successor waits for the names of backends before it takes over: its predecessor knows them already.
const NAMES: Duration = Duration::from_secs(2);
/// How long sockets stay open after a successor has taken over: a client may be in the middle of its handshake, and its
/// first retransmission must find them.
const HANDSHAKES: Duration = Duration::from_secs(3);
/// What is left to idle connections at the end.
const LAST: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(20);

/// Workers, and the kernel programs that bring them their connections.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) mode: Mode,
    pub(crate) dataplane: Dataplane,
    pub(crate) steering: Option<Steering>,
    /// A predecessor serves beside it until it has taken charge.
    beside: bool,
    /// As the controller knows it.
    name: Option<Box<str>>,
    announcements: Mutex<Announcements>,
    speaks: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    in_force: Arc<Snapshot>,
    /// What carries each bind of it.
    paths: Vec<DataPathReport>,
    /// Certificates of it that cannot be used, and why.
    unusable: Vec<(CertificateId, String)>,
    applied: Applied,
    /// The kernel did not take all of the snapshot: it is tried again.
    is_partial: bool,
    /// The kernel was not asked about the last snapshot, which is the same to it. It is soon: what is around it, interfaces and
    /// where endpoints are, may be another.
    is_unasked: bool,
    /// Binds of it for whose address another node was elected.
    elsewhere: BTreeSet<BindKey>,
    /// Those of them that are not served here, of which nothing was said.
    unsaid: BTreeSet<BindKey>,
    /// When a successor took over.
    left: Option<Instant>,
}

/// What putting snapshots in force has come to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Applied {
    /// How many.
    pub(crate) count: u64,
    /// When the last one was, and how long that took.
    pub(crate) last: Option<(Instant, Duration)>,
    /// How often the kernel refused something.
    pub(crate) refused: u64,
}

impl Node {
    /// Starts the workers. `beside`: a predecessor serves here, and is to be taken over from. `doors`: those of one that
    /// died here, with what waits at them.
    pub(crate) fn start(options: &NodeOptions, beside: bool, doors: Vec<WorkerSockets>) -> Result<Self> {
        let (mode, steering) = steering::open(options, beside)?;
        let config = Config {
            accept: if steering.is_some() {
                AcceptMode::Steered
            } else {
                AcceptMode::Bound
            },
            access_log: match &*options.access_log {
                "off" => AccessLog::Off,
                "-" => AccessLog::Stdout,
                path => AccessLog::File(path.into()),
            },
            workers: options.workers.unwrap_or_else(|| Config::default().workers),
            beside,
            loads: steering.as_ref().map(Steering::loads).transpose()?,
        };
        let dataplane = Dataplane::start_with(config, doors)?;
        tracing::info!(
            "ebpf mode {} (asked for {}): {}",
            mode.chosen.as_str(),
            mode.asked.as_str(),
            mode.why
        );
        Ok(Self {
            mode,
            dataplane,
            steering,
            beside,
            name: options.node_name.as_deref().map(Into::into),
            announcements: Mutex::new(Announcements::new(options.nic.clone())),
            speaks: AtomicBool::new(true),
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the first snapshot in force; from then on connections come here, and no longer to a predecessor. Blocks for the
    /// milliseconds it takes; beside a predecessor also until names of backends are resolved, within bounds.
    ///
    /// # Errors
    /// When the kernel refuses it. A predecessor goes on then.
    pub(crate) fn take_charge(&self, snapshot: &Arc<Snapshot>) -> Result<(), KernelError> {
        let (snapshot, elsewhere) = &self.here(snapshot);
        let mut state = self.state();
        state.elsewhere.clone_from(elsewhere);
        let started = Instant::now();
        if self.steering.is_none() {
            let owned = owned_by(snapshot);
            make_local(&owned, self.beside);
        }
        let report = self.dataplane.apply(Arc::clone(snapshot));
        let mut paths = report.binds;
        state.unusable = report.unusable;
        if self.beside {
            self.await_names(snapshot);
        }
        if let Some(steering) = &self.steering {
            merge(&mut paths, steering.take_charge(&self.dataplane, snapshot)?);
        }
        state.done(snapshot, paths, started);
        self.announce(snapshot);
        Ok(())
    }

    /// Without the addresses that another node was elected for; and the binds of those.
    fn here(&self, snapshot: &Arc<Snapshot>) -> (Arc<Snapshot>, BTreeSet<BindKey>) {
        let node = self.name.as_deref();
        let is_elsewhere = |one: &Ownership| one.announcer.as_ref().is_some_and(|by| by.is_elsewhere(node));
        if !snapshot.owned.values().any(is_elsewhere) {
            return (Arc::clone(snapshot), BTreeSet::new());
        }
        let mut here = Snapshot::clone(snapshot);
        here.owned.retain(|_, one| !is_elsewhere(one));
        let binds = snapshot.binds.keys();
        let elsewhere = binds
            .filter(|bind| snapshot.is_elsewhere(bind, node))
            .copied()
            .collect();
        (here.into(), elsewhere)
    }

    /// Whether neighbours are told of addresses unasked: only while it is known that they are here.
    pub(crate) fn speak(&self, speaks: bool) {
        self.speaks.store(speaks, Ordering::Relaxed);
    }

    /// Tells the neighbours which addresses are here.
    fn announce(&self, here: &Snapshot) {
        let announced = here.owned.iter().filter(|(_, one)| one.announcer.is_some());
        let addresses = announced.map(|(prefix, one)| (prefix.0.addr(), one.round)).collect();
        let speaks = self.speaks.load(Ordering::Relaxed);
        if let Err(error) = self.announcements().set(&addresses, speaks) {
            tracing::error!("neighbours may not know of addresses of this node: {error}");
        }
    }

    fn announcements(&self) -> MutexGuard<'_, Announcements> {
        self.announcements.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a later snapshot in force. Blocks for the milliseconds it takes. What cannot be applied keeps its old state:
    /// [`Self::paths`] says what and why.
    ///
    /// The workers know endpoints, routes and listeners before the kernel sends them a connection for a new bind; and the
    /// kernel stops sending for a bind before they forget it.
    pub(crate) fn apply(&self, snapshot: &Arc<Snapshot>) {
        let (snapshot, elsewhere) = self.here(snapshot);
        let mut state = self.state();
        state.elsewhere = elsewhere;
        let asks_kernel = self.steering.is_none() || state.is_partial || !is_same_to_kernel(&state.in_force, &snapshot);
        self.put(&mut state, &snapshot, asks_kernel);
    }

    fn put(&self, state: &mut State, snapshot: &Arc<Snapshot>, asks_kernel: bool) {
        if state.left.is_some() {
            return;
        }
        let started = Instant::now();
        if let Some(steering) = &self.steering {
            let mut remaining = Snapshot::clone(&state.in_force);
            remaining.binds.retain(|bind, _| snapshot.binds.contains_key(bind));
            if remaining.binds.len() < state.in_force.binds.len()
                && let Err(error) = steering.apply(&remaining)
            {
                tracing::error!("the kernel keeps binds that are gone: {error}");
            }
        }
        let owned = owned_by(snapshot);
        if self.steering.is_none() {
            // Before sockets are bound to them; those that go stay until nothing is bound to them any more.
            make_local(&owned.union(&owned_by(&state.in_force)).copied().collect(), false);
        }
        let report = self.dataplane.apply(Arc::clone(snapshot));
        let mut paths = report.binds;
        state.unusable = report.unusable;
        if self.steering.is_none() && owned_by(&state.in_force) != owned {
            make_local(&owned, false);
        }
        state.is_partial = false;
        state.is_unasked = !asks_kernel;
        if !asks_kernel {
            merge(&mut paths, state.paths.clone());
        } else if let Some(steering) = &self.steering {
            match steering.apply(snapshot) {
                Ok(reports) => merge(&mut paths, reports),
                // It is the successor's business now.
                Err(KernelError::Superseded) => return,
                Err(error) => {
                    tracing::error!("the kernel keeps the configuration it had, and is asked again: {error}");
                    state.refused(snapshot, &mut paths, &error);
                }
            }
        }
        state.done(snapshot, paths, started);
        self.announce(snapshot);
    }

    /// Waits until each name of a backend has an address, but not for long.
    fn await_names(&self, snapshot: &Snapshot) {
        let by_name = |target: &BackendTarget| matches!(target, BackendTarget::Dns { .. });
        if !snapshot.backends.values().any(|backend| by_name(&backend.target)) {
            return;
        }
        let deadline = Instant::now() + NAMES;
        let is_open = |status: pierhead_dataplane::Status| {
            status.backends.iter().any(|backend| {
                let model = snapshot.backends.get(&backend.backend);
                model.is_some_and(|model| by_name(&model.target)) && backend.endpoints.is_empty()
            })
        };
        while is_open(self.dataplane.status()) && Instant::now() < deadline {
            thread::sleep(POLL);
        }
    }

    /// What is in force.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.state().in_force)
    }

    /// Certificates of it that cannot be used, and why; what they were before is used instead.
    pub(crate) fn unusable(&self) -> Vec<(CertificateId, String)> {
        self.state().unusable.clone()
    }

    /// What putting snapshots in force has come to.
    pub(crate) fn applied(&self) -> Applied {
        self.state().applied
    }

    /// What carries each bind, and why nothing better does.
    pub(crate) fn paths(&self) -> Vec<DataPathReport> {
        let mut paths = self.state().paths.clone();
        if self.steering.is_some() {
            // The workers serve whatever is steered to them: only the kernel's word counts.
            return paths;
        }
        let status = self.dataplane.status();
        // A bind that failed is tried again: what the workers say now is newer.
        for path in paths.iter_mut().filter(|path| path.path == DataPath::None) {
            if let Some(now) = status.binds.iter().find(|now| now.bind == path.bind) {
                path.path = now.path;
                path.why.clone_from(&now.why);
            }
        }
        paths
    }

    /// Housekeeping, every second.
    pub(crate) fn tick(&self) {
        if self.state().left.is_none()
            && let Err(error) = self.announcements().tick(self.speaks.load(Ordering::Relaxed))
        {
            tracing::warn!("neighbours may not know of addresses of this node: {error}");
        }
        let Some(steering) = &self.steering else { return };
        steering.tick();
        let mut state = self.state();
        if state.is_partial || state.is_unasked || steering.is_due() {
            let snapshot = Arc::clone(&state.in_force);
            self.put(&mut state, &snapshot, true);
        }
    }

    /// Whether a successor has taken over, where the kernel knows that.
    pub(crate) fn is_superseded(&self) -> bool {
        self.steering.as_ref().is_some_and(Steering::is_superseded)
    }

    /// From now on no other process may have the ports of new binds: the predecessor has let go of them.
    pub(crate) fn alone(&self) {
        self.dataplane.alone();
    }

    /// A successor has taken over: leaves it the kernel, and lets connections go with their next answer.
    pub(crate) fn leave(&self) {
        self.state().left.get_or_insert_with(Instant::now);
        self.dataplane.leave();
        if let Some(steering) = &self.steering {
            steering.release();
        }
    }

    /// Others are to take the traffic of this node, and it ends soon: no address is announced any more, and connections go
    /// with their next answer. New ones are still served: it takes a moment until nobody sends any.
    pub(crate) fn retreat(&self) {
        self.withdraw();
        if self.steering.is_some() {
            self.dataplane.leave();
        }
    }

    /// Another node is elected when this one is gone; two must not answer for one address.
    fn withdraw(&self) {
        if let Err(error) = self.announcements().set(&BTreeMap::new(), false) {
            tracing::warn!("announced addresses stay on the interfaces: {error}");
        }
    }

    /// Waits until every connection has gone after [`Self::leave`], and none can be on its way here any more.
    pub(crate) fn is_left(&self) -> bool {
        let left = self.state().left;
        left.is_some_and(|since| since.elapsed() >= HANDSHAKES) && self.dataplane.open_connections() == 0
    }

    /// Ends gracefully: nothing new, then what is in flight. A successor that has taken over has the kernel already; then
    /// connections go with their next answer, and only at the end those that are idle.
    pub(crate) fn drain(&self, deadline: Duration) {
        let started = Instant::now();
        if self.state().left.is_some() {
            while !self.is_left() && started.elapsed() + LAST < deadline {
                thread::sleep(POLL);
            }
        } else {
            self.stop_steering();
            self.withdraw();
        }
        let report = self.dataplane.drain(deadline.saturating_sub(started.elapsed()));
        if report.cut > 0 {
            tracing::warn!("{} connections were cut after {:?}", report.cut, started.elapsed());
        }
    }

    /// Nothing new comes here any more.
    fn stop_steering(&self) {
        let Some(steering) = &self.steering else { return };
        // Addresses stay, for what is in flight; so do flows that the kernel carries by itself.
        let state = self.state();
        let mut rest = Snapshot::clone(&state.in_force);
        let kernel = |bind: &BindKey| {
            let mut paths = state.paths.iter();
            paths.any(|one| one.bind == *bind && one.path == DataPath::Kernel)
        };
        rest.binds.retain(|bind, _| kernel(bind));
        match steering.apply(&rest) {
            Ok(_) | Err(KernelError::Superseded) => {}
            Err(error) => tracing::warn!("the kernel goes on sending connections here: {error}"),
        }
    }
}

impl State {
    fn done(&mut self, snapshot: &Arc<Snapshot>, paths: Vec<DataPathReport>, started: Instant) {
        for path in self.news(&paths) {
            tracing::error!("{} is not served: {}", path.bind, path.why);
        }
        self.paths = paths;
        // What the kernel is asked again is in force already.
        if self.applied.count == 0 || !Arc::ptr_eq(&self.in_force, snapshot) {
            self.applied.count += 1;
            self.applied.last = Some((Instant::now(), started.elapsed()));
        }
        self.in_force = Arc::clone(snapshot);
    }

    /// What is newly not served. Sockets can be bound only where an address is, so a bind of another node is none of it until its
    /// address comes here.
    fn news<'p>(&mut self, paths: &'p [DataPathReport]) -> Vec<&'p DataPathReport> {
        let unserved = paths.iter().filter(|path| path.path == DataPath::None);
        let (elsewhere, mut news): (Vec<_>, Vec<_>) = unserved.partition(|path| self.elsewhere.contains(&path.bind));
        news.retain(|path| !self.paths.contains(path) || self.unsaid.contains(&path.bind));
        self.unsaid = elsewhere.into_iter().map(|path| path.bind).collect();
        news
    }

    /// The kernel has what it had: binds that did not change are carried as before, others are not served as they should.
    fn refused(&mut self, snapshot: &Snapshot, paths: &mut [DataPathReport], error: &KernelError) {
        self.is_partial = true;
        self.applied.refused += 1;
        let before: BTreeMap<BindKey, &DataPathReport> = self.paths.iter().map(|path| (path.bind, path)).collect();
        for path in paths {
            let is_same = self.in_force.binds.get(&path.bind) == snapshot.binds.get(&path.bind);
            match before.get(&path.bind).filter(|_| is_same) {
                Some(old) => path.clone_from(old),
                None => {
                    path.path = DataPath::None;
                    path.why = format!("the kernel keeps what it had: {error}");
                }
            }
        }
    }
}

/// Whether all that the kernel is told of two snapshots is the same: most changes are of routes, which are the workers' business.
fn is_same_to_kernel(a: &Snapshot, b: &Snapshot) -> bool {
    // Destructured, so that a new part cannot be forgotten.
    let Snapshot {
        binds,
        routes: _,
        backends,
        endpoints,
        certificates: _,
        trust: _,
        owned,
        fleet,
    } = a;
    *binds == b.binds && *owned == b.owned && *fleet == b.fleet && *backends == b.backends && *endpoints == b.endpoints
}

/// What the workers cannot serve the kernel does not make good, unless it serves it itself.
fn merge(paths: &mut [DataPathReport], reports: Vec<DataPathReport>) {
    for report in reports {
        let own = paths.iter_mut().find(|path| path.bind == report.bind);
        if let Some(own) = own.filter(|own| own.path != DataPath::None || report.path == DataPath::Kernel) {
            *own = report;
        }
    }
}

/// The prefixes a snapshot owns.
fn owned_by(snapshot: &Snapshot) -> BTreeSet<IpNet> {
    snapshot.owned.keys().map(|prefix| prefix.0).collect()
}

/// Makes addresses local where no kernel program does it with the rest. Beside a predecessor its own stay too.
fn make_local(owned: &BTreeSet<IpNet>, beside: bool) {
    match pierhead_kernel::make_local(owned, beside) {
        Ok(failed) => {
            for (net, error) in failed {
                tracing::error!("{net} cannot be made local: {error}; fix: run as root, or with CAP_NET_ADMIN");
            }
        }
        Err(error) => tracing::error!("addresses cannot be made local: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use pierhead_model::{BindAddress, BindPort, Transport};

    use super::*;

    #[test]
    fn a_bind_that_fails_is_said_once_and_only_where_its_address_is() {
        let bind = BindKey {
            transport: Transport::Tcp,
            address: BindAddress::Ip("10.0.0.1".parse().unwrap()),
            port: BindPort::Port(80),
        };
        let failed = vec![DataPathReport {
            bind,
            path: DataPath::None,
            why: "no address of this machine".to_owned(),
        }];
        let mut state = State::default();
        let mut said = |elsewhere: bool| {
            state.elsewhere = elsewhere.then_some(bind).into_iter().collect();
            let news = state.news(&failed).len();
            state.paths.clone_from(&failed);
            news
        };
        assert_eq!([said(true), said(true)], [0, 0], "another node has it");
        assert_eq!(
            [said(false), said(false)],
            [1, 0],
            "it came here, and still fails for the same reason"
        );
        assert_eq!([said(true), said(false)], [0, 1], "it came again");
    }
}
