use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use foldhash::fast::RandomState;
use pierhead_model::{
    Backend as Model, BackendId, BackendTarget, Endpoint, EndpointState, Hostname, InvalidReason, Snapshot,
};

use crate::observe::{BackendCells, PerWorker, Registry};

/// Addresses of the names of DNS backends, as last resolved; without a port.
pub(crate) type Resolved = HashMap<Hostname, Arc<[std::net::IpAddr]>, RandomState>;

/// All backends of a snapshot.
#[derive(Debug, Default)]
pub(crate) struct Backends {
    by_id: HashMap<BackendId, Arc<Backend>, RandomState>,
}

impl Backends {
    /// Backends that did not change are the same `Arc` as in `previous`.
    pub(crate) fn compile(snapshot: &Snapshot, resolved: &Resolved, registry: &Registry, previous: &Self) -> Self {
        let by_id = snapshot
            .backends
            .iter()
            .map(|(id, model)| {
                let endpoints = endpoints(model, snapshot, resolved);
                let unchanged = previous
                    .by_id
                    .get(id)
                    .filter(|old| old.model == *model && old.endpoints == endpoints);
                let backend = unchanged.cloned().unwrap_or_else(|| {
                    Arc::new(Backend {
                        model: Arc::clone(model),
                        endpoints,
                        cells: registry.backend(id),
                        turn: AtomicUsize::new(0),
                    })
                });
                (id.clone(), backend)
            })
            .collect();
        Self { by_id }
    }

    pub(crate) fn find(&self, id: &BackendId) -> Option<&Arc<Backend>> {
        self.by_id.get(id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Backend>> {
        self.by_id.values()
    }
}

fn endpoints(model: &Model, snapshot: &Snapshot, resolved: &Resolved) -> Vec<Endpoint> {
    match &model.target {
        BackendTarget::Endpoints(id) => snapshot
            .endpoints
            .get(id)
            .map_or_else(Vec::new, |set| set.endpoints.clone()),
        BackendTarget::Dns { name, port } => resolved.get(name).map_or_else(Vec::new, |addresses| {
            addresses
                .iter()
                .map(|address| Endpoint {
                    address: SocketAddr::new(*address, *port),
                    state: EndpointState::Ready,
                    node: None,
                    zone: None,
                })
                .collect()
        }),
        BackendTarget::Invalid { .. } => Vec::new(),
    }
}

/// One backend with its endpoints.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) model: Arc<Model>,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) cells: Arc<PerWorker<BackendCells>>,
    turn: AtomicUsize,
}

impl Backend {
    /// Why its share must fail.
    pub(crate) fn invalid(&self) -> Option<InvalidReason> {
        match &self.model.target {
            BackendTarget::Invalid { reason, .. } => Some(*reason),
            BackendTarget::Endpoints(_) | BackendTarget::Dns { .. } => None,
        }
    }

    /// The next endpoint that is not among `tried`: ready ones first, draining ones only when none is ready.
    pub(crate) fn pick(&self, tried: &[SocketAddr]) -> Option<SocketAddr> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let in_state = |state| {
            let usable = || {
                self.endpoints
                    .iter()
                    .filter(move |endpoint| endpoint.state == state && !tried.contains(&endpoint.address))
            };
            let count = usable().count();
            (count > 0).then(|| usable().nth(turn % count)).flatten()
        };
        let ready_exists = self.endpoints.iter().any(|endpoint| endpoint.state == EndpointState::Ready);
        let chosen = if ready_exists {
            in_state(EndpointState::Ready)
        } else {
            in_state(EndpointState::Draining)
        };
        chosen.map(|endpoint| endpoint.address)
    }
}
