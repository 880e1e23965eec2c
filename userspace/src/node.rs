//! The node process: what executes snapshots here, and in which order its parts learn of a new one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use pierhead_dataplane::{AcceptMode, AccessLog, Config, Dataplane};
use pierhead_model::{DataPath, DataPathReport, Snapshot};

use crate::cli::{Ebpf, Standalone};
use crate::machine;

/// How much the kernel does, and why that much.
#[derive(Clone, Debug)]
pub(crate) struct Mode {
    pub(crate) asked: Ebpf,
    pub(crate) chosen: Ebpf,
    pub(crate) why: String,
}

/// Workers, and the kernel programs that bring them their connections.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) mode: Mode,
    pub(crate) dataplane: Dataplane,
    /// What carries each bind of the snapshot in force.
    paths: Mutex<Vec<DataPathReport>>,
}

impl Node {
    pub(crate) fn start(options: &Standalone) -> Result<Self> {
        let mode = choose(options.ebpf)?;
        let config = Config {
            accept: AcceptMode::Bound,
            access_log: match &*options.access_log {
                "off" => AccessLog::Off,
                "-" => AccessLog::Stdout,
                path => AccessLog::File(path.into()),
            },
            workers: options.workers.unwrap_or_else(|| Config::default().workers),
        };
        let dataplane = Dataplane::start(config)?;
        Ok(Self {
            mode,
            dataplane,
            paths: Mutex::default(),
        })
    }

    /// Puts a snapshot in force. Blocks for the milliseconds it takes.
    pub(crate) fn apply(&self, snapshot: &Arc<Snapshot>) {
        let report = self.dataplane.apply(Arc::clone(snapshot));
        for bind in report.binds.iter().filter(|bind| bind.path == DataPath::None) {
            tracing::error!("{} is not served: {}", bind.bind, bind.why);
        }
        *self.paths.lock().unwrap_or_else(PoisonError::into_inner) = report.binds;
    }

    /// What carries each bind, and why nothing better does.
    pub(crate) fn paths(&self) -> Vec<DataPathReport> {
        let status = self.dataplane.status();
        let mut paths = self.paths.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // A bind that failed is tried again: what the workers say now is newer.
        for path in &mut paths {
            if let Some(now) = status.binds.iter().find(|now| now.bind == path.bind)
                && path.path == DataPath::None
            {
                path.path = now.path;
                path.why.clone_from(&now.why);
            }
        }
        paths
    }

    /// Ends gracefully: nothing new, then what is in flight.
    pub(crate) fn drain(&self, deadline: Duration) {
        let report = self.dataplane.drain(deadline);
        if report.cut > 0 {
            tracing::warn!("{} connections were cut after {:?}", report.cut, report.took);
        }
    }
}

fn choose(asked: Ebpf) -> Result<Mode> {
    let why = if machine::is_root() {
        "asked for".to_owned()
    } else {
        "not root: as root, the kernel would steer any address and port here, ports below 1024 and \
         address pools included, and balance TCP and UDP by itself"
            .to_owned()
    };
    Ok(Mode {
        asked,
        chosen: Ebpf::Off,
        why,
    })
}
