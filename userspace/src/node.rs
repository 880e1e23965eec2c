//! The node process: what executes snapshots here, and in which order its parts learn of a new one.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use ipnet::IpNet;
use pierhead_dataplane::{AcceptMode, AccessLog, Config, Dataplane};
use pierhead_model::{BindKey, DataPath, DataPathReport, Snapshot};

use crate::cli::Standalone;
use crate::steering::{self, Mode, Steering};

/// Workers, and the kernel programs that bring them their connections.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) mode: Mode,
    pub(crate) dataplane: Dataplane,
    pub(crate) steering: Option<Steering>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    in_force: Arc<Snapshot>,
    /// What carries each bind of it.
    paths: Vec<DataPathReport>,
    active: bool,
}

impl Node {
    pub(crate) fn start(options: &Standalone) -> Result<Self> {
        let (mode, steering) = steering::open(options)?;
        let dataplane = Dataplane::start(Config {
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
            loads: steering.as_ref().map(Steering::loads).transpose()?,
        })?;
        if let Some(steering) = &steering {
            steering.register(&dataplane)?;
        }
        Ok(Self {
            mode,
            dataplane,
            steering,
            state: Mutex::default(),
        })
    }

    /// Puts a snapshot in force. Blocks for the milliseconds it takes.
    ///
    /// The workers know endpoints, routes and listeners before the kernel sends them a connection for a new bind; and the
    /// kernel stops sending for a bind before they forget it.
    ///
    /// # Errors
    /// When the kernel refuses the very first one. Later it keeps what it had, and that is said.
    pub(crate) fn apply(&self, snapshot: &Arc<Snapshot>) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
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
            make_local(&owned.union(&owned_by(&state.in_force)).copied().collect());
        }
        let mut paths = self.dataplane.apply(Arc::clone(snapshot)).binds;
        if self.steering.is_none() && owned_by(&state.in_force) != owned {
            make_local(&owned);
        }
        if let Some(steering) = &self.steering {
            match steering.apply(snapshot) {
                Ok(reports) => {
                    for report in reports {
                        let own = paths.iter_mut().find(|path| path.bind == report.bind);
                        // What the workers cannot serve the kernel does not make good, unless it serves it itself.
                        if let Some(own) =
                            own.filter(|own| own.path != DataPath::None || report.path == DataPath::Kernel)
                        {
                            *own = report;
                        }
                    }
                }
                Err(error) if !state.active => return Err(error.into()),
                Err(error) => tracing::error!("the kernel keeps the configuration it had: {error}"),
            }
            if !state.active {
                steering.activate()?;
                state.active = true;
            }
        }
        for path in paths
            .iter()
            .filter(|path| path.path == DataPath::None && !state.paths.contains(path))
        {
            tracing::error!("{} is not served: {}", path.bind, path.why);
        }
        state.paths = paths;
        state.in_force = Arc::clone(snapshot);
        Ok(())
    }

    /// What carries each bind, and why nothing better does.
    pub(crate) fn paths(&self) -> Vec<DataPathReport> {
        let status = self.dataplane.status();
        let mut paths = self.state.lock().unwrap_or_else(PoisonError::into_inner).paths.clone();
        // A bind that failed is tried again: what the workers say now is newer.
        for path in paths.iter_mut().filter(|path| path.path == DataPath::None) {
            if let Some(now) = status.binds.iter().find(|now| now.bind == path.bind) {
                path.path = now.path;
                path.why.clone_from(&now.why);
            }
        }
        paths
    }

    /// Housekeeping, every second. True: a successor has taken over, it is time to end.
    pub(crate) fn tick(&self) -> bool {
        self.steering.as_ref().is_some_and(Steering::tick)
    }

    /// Ends gracefully: nothing new, then what is in flight. A successor that has taken over has the kernel already.
    pub(crate) fn drain(&self, deadline: Duration, superseded: bool) {
        if let Some(steering) = self.steering.as_ref().filter(|_| !superseded) {
            // Addresses stay, for what is in flight; so do flows that the kernel carries by itself.
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let mut rest = Snapshot::clone(&state.in_force);
            let kernel = |bind: &BindKey| {
                state
                    .paths
                    .iter()
                    .any(|one| one.bind == *bind && one.path == DataPath::Kernel)
            };
            rest.binds.retain(|bind, _| kernel(bind));
            if let Err(error) = steering.apply(&rest) {
                tracing::warn!("the kernel goes on sending connections here: {error}");
            }
        }
        let report = self.dataplane.drain(deadline);
        if report.cut > 0 {
            tracing::warn!("{} connections were cut after {:?}", report.cut, report.took);
        }
    }
}

/// The prefixes a snapshot owns.
fn owned_by(snapshot: &Snapshot) -> BTreeSet<IpNet> {
    snapshot.owned.keys().map(|prefix| prefix.0).collect()
}

/// Makes addresses local where no kernel program does it with the rest.
fn make_local(owned: &BTreeSet<IpNet>) {
    match pierhead_kernel::make_local(owned) {
        Ok(failed) => {
            for (net, error) in failed {
                tracing::error!("{net} cannot be made local: {error}; fix: run as root, or with CAP_NET_ADMIN");
            }
        }
        Err(error) => tracing::error!("addresses cannot be made local: {error}"),
    }
}
