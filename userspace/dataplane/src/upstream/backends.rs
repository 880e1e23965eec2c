//! Backends that outlive a snapshot as long as they mean the same; only their endpoints change in place.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use arc_swap::{ArcSwap, Guard};
use foldhash::fast::RandomState;
use pierhead_model::{
    Backend as Model, BackendId, BackendProtocol, BackendTarget, BackendTls, Certificate, EndpointState, Endpoints,
    Hostname, InvalidReason, Snapshot, TrustAnchors,
};

use super::tls::TlsIdentity;
use crate::observe::{BackendCells, PerWorker, Registry};

/// Addresses of the names of DNS backends, as last resolved; without a port.
pub(crate) type Resolved = HashMap<Hostname, Arc<[IpAddr]>, RandomState>;

/// All backends of a snapshot.
#[derive(Debug, Default)]
pub(crate) struct Backends(HashMap<BackendId, Arc<Backend>, RandomState>);

/// A backend, ready to be used. It stays the same `Arc` while only its endpoints change.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) model: Arc<Model>,
    pub(crate) cells: Arc<PerWorker<BackendCells>>,
    tls: Option<Result<Arc<TlsIdentity>, String>>,
    tls_inputs: Option<TlsInputs>,
    endpoints: ArcSwap<EndpointSet>,
    turn: AtomicUsize,
}

/// What decides how a backend is authenticated, and who we are towards it.
#[derive(Clone, Debug, PartialEq)]
struct TlsInputs {
    tls: BackendTls,
    trust: Option<Arc<TrustAnchors>>,
    certificate: Option<Arc<Certificate>>,
}

/// Where a backend can be reached now.
#[derive(Debug, Default)]
pub(crate) struct EndpointSet {
    source: Option<Arc<Endpoints>>,
    pub(crate) ready: Vec<SocketAddr>,
    /// Used only while none is ready.
    pub(crate) draining: Vec<SocketAddr>,
}

/// Why a backend cannot be used at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unusable {
    Invalid(InvalidReason),
    /// Its TLS configuration does not work; never plaintext instead.
    Tls(String),
}

impl Backends {
    /// Compiles the backends of `snapshot`. Those that mean the same as before are the same `Arc`, with their state; their
    /// endpoints change in place, at once.
    pub(crate) fn compile(snapshot: &Snapshot, resolved: &Resolved, registry: &Registry, previous: &Self) -> Self {
        let compiled = snapshot.backends.iter().map(|(id, model)| {
            let inputs = model.tls.as_ref().map(|tls| TlsInputs {
                tls: tls.clone(),
                trust: tls.trust.as_ref().and_then(|id| snapshot.trust.get(id)).cloned(),
                certificate: tls
                    .client_certificate
                    .as_ref()
                    .and_then(|id| snapshot.certificates.get(id))
                    .cloned(),
            });
            let old = previous.0.get(id);
            let backend = old
                .filter(|old| old.model == *model && old.tls_inputs == inputs)
                .cloned()
                .unwrap_or_else(|| {
                    let cells = registry.backend(id);
                    Arc::new(Backend::new(Arc::clone(model), cells, inputs, old.map(Arc::as_ref)))
                });
            backend.follow(snapshot, resolved);
            (id.clone(), backend)
        });
        Self(compiled.collect())
    }

    /// Whether both hold the very same backends.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let same = |(id, backend)| other.find(id).is_some_and(|other| Arc::ptr_eq(other, backend));
        self.0.len() == other.0.len() && self.0.iter().all(same)
    }

    pub(crate) fn find(&self, id: &BackendId) -> Option<&Arc<Backend>> {
        self.0.get(id)
    }
}

impl Backend {
    fn new(
        model: Arc<Model>,
        cells: Arc<PerWorker<BackendCells>>,
        inputs: Option<TlsInputs>,
        old: Option<&Self>,
    ) -> Self {
        let kept = old.filter(|old| old.tls_inputs == inputs && old.model.protocol == model.protocol);
        let tls = match kept {
            Some(old) => old.tls.clone(),
            None => inputs.as_ref().map(|inputs| {
                if inputs.tls.trust.is_some() && inputs.trust.is_none() {
                    return Err("its trust anchors are missing".to_owned());
                }
                if inputs.tls.client_certificate.is_some() && inputs.certificate.is_none() {
                    return Err("its client certificate is missing".to_owned());
                }
                let h2 = model.protocol == BackendProtocol::Http2;
                let alpn: &[&[u8]] = match model.protocol {
                    BackendProtocol::Http1 => &[b"http/1.1"],
                    BackendProtocol::Http2 => &[b"h2"],
                    BackendProtocol::Tcp | BackendProtocol::Udp => &[],
                };
                TlsIdentity::build(
                    &inputs.tls,
                    inputs.trust.as_deref(),
                    inputs.certificate.as_deref(),
                    alpn,
                    h2,
                )
                .map(Arc::new)
            }),
        };
        let endpoints = old.filter(|old| old.model.target == model.target).map_or_else(
            || ArcSwap::from_pointee(EndpointSet::default()),
            |old| ArcSwap::new(old.endpoints.load_full()),
        );
        Self {
            model,
            cells,
            tls,
            tls_inputs: inputs,
            endpoints,
            turn: AtomicUsize::new(0),
        }
    }

    /// Takes the endpoints that `snapshot`, or the name service, has for this backend.
    fn follow(&self, snapshot: &Snapshot, resolved: &Resolved) {
        let id = match &self.model.target {
            BackendTarget::Endpoints(id) => id,
            BackendTarget::Dns { name, port } => {
                let literal = name.as_str().parse::<IpAddr>().ok();
                let known = resolved.get(name).map_or(&[][..], AsRef::as_ref);
                let addresses = literal.iter().chain(known);
                self.publish(addresses.map(|ip| SocketAddr::new(*ip, *port)).collect());
                return;
            }
            BackendTarget::Invalid { .. } => return,
        };
        let source = snapshot.endpoints.get(id);
        let known = self.endpoints.load();
        let same = match (&known.source, source) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            (None, None) => true,
            _ => false,
        };
        if !same {
            self.endpoints
                .store(Arc::new(source.map(EndpointSet::from_model).unwrap_or_default()));
        }
    }

    /// Puts what a name resolved to in force.
    fn publish(&self, addresses: Vec<SocketAddr>) {
        if self.endpoints.load().ready != addresses {
            self.endpoints.store(Arc::new(EndpointSet {
                source: None,
                ready: addresses,
                draining: Vec::new(),
            }));
        }
    }

    pub(crate) fn endpoints(&self) -> Guard<Arc<EndpointSet>> {
        self.endpoints.load()
    }

    /// The next endpoint in turn that is not among `tried`: ready ones first, draining ones only when none is ready.
    pub(crate) fn pick(&self, tried: &[SocketAddr]) -> Option<SocketAddr> {
        let endpoints = self.endpoints();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let choice = endpoints.choice();
        let from = turn.checked_rem(choice.len())?;
        let mut all = choice.iter().cycle().skip(from).take(choice.len());
        all.find(|address| !tried.contains(address)).copied()
    }

    /// # Errors
    /// When this backend must not be used.
    pub(crate) fn usable(&self) -> Result<(), Unusable> {
        if let BackendTarget::Invalid { reason, .. } = &self.model.target {
            return Err(Unusable::Invalid(*reason));
        }
        match &self.tls {
            Some(Err(why)) => Err(Unusable::Tls(why.clone())),
            _ => Ok(()),
        }
    }

    /// `None`: cleartext. Ask [`Backend::usable`] first.
    pub(crate) fn tls(&self) -> Option<&Arc<TlsIdentity>> {
        self.tls.as_ref()?.as_ref().ok()
    }

    pub(crate) fn protocol(&self) -> BackendProtocol {
        self.model.protocol
    }
}

impl EndpointSet {
    fn from_model(model: &Arc<Endpoints>) -> Self {
        let of = |state| {
            let wanted = model.endpoints.iter().filter(move |e| e.state == state);
            wanted.map(|e| e.address).collect::<Vec<_>>()
        };
        Self {
            source: Some(Arc::clone(model)),
            ready: of(EndpointState::Ready),
            draining: of(EndpointState::Draining),
        }
    }

    /// The addresses to choose from.
    pub(crate) fn choice(&self) -> &[SocketAddr] {
        if self.ready.is_empty() {
            &self.draining
        } else {
            &self.ready
        }
    }
}
