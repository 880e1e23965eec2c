//! Backends that outlive a snapshot as long as they mean the same; only their endpoints change in place.

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use arc_swap::{ArcSwap, Guard};
use foldhash::fast::RandomState;
use pierhead_model::{
    Backend as Model, BackendId, BackendProtocol, BackendTarget, BackendTls, Certificate, CertificateId, EndpointState,
    Endpoints, EndpointsId, Hostname, InvalidReason, Map, Snapshot, TrustAnchors, TrustId,
};

use super::tls::TlsIdentity;
use crate::observe::{BackendCells, PerWorker, Registry};

/// Addresses of the names of DNS backends, as last resolved; without a port.
pub(crate) type Resolved = HashMap<Hostname, Arc<[IpAddr]>, RandomState>;

/// All backends of a snapshot. They stay from one snapshot to the next, so that a change costs what it touches and not what
/// there is.
#[derive(Debug, Default)]
pub(crate) struct Backends {
    all: HashMap<BackendId, Arc<Backend>, RandomState>,
    source: Source,
    /// Who follows which endpoints.
    followers: BTreeSet<(EndpointsId, BackendId)>,
    /// Those whose addresses the name service has.
    named: BTreeSet<BackendId>,
    /// Those that speak TLS.
    secured: BTreeSet<BackendId>,
}

/// What backends were compiled from.
#[derive(Debug, Default)]
struct Source {
    backends: Map<BackendId, Arc<Model>>,
    endpoints: Map<EndpointsId, Arc<Endpoints>>,
    certificates: Map<CertificateId, Arc<Certificate>>,
    trust: Map<TrustId, Arc<TrustAnchors>>,
}

/// Backends that are not what they were.
#[derive(Debug, Default)]
pub(crate) struct BackendChanges {
    /// New, gone, or another `Arc` than before.
    pub(crate) touched: BTreeSet<BackendId>,
    /// Whether one that was there before is among them.
    pub(crate) retired: bool,
}

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
    /// Follows `snapshot`. Those that mean the same as before are the same `Arc`, with their state; their endpoints change in
    /// place, at once.
    pub(crate) fn update(&mut self, snapshot: &Snapshot, resolved: &Resolved, registry: &Registry) -> BackendChanges {
        let before = std::mem::replace(&mut self.source, Source::of(snapshot));
        let mut look = BTreeSet::new();
        for (id, now, old) in snapshot.backends.changes(&before.backends) {
            if now != old {
                self.note(id, now.map(Arc::as_ref), old.map(Arc::as_ref));
                look.insert(id.clone());
            }
        }
        if snapshot.trust != before.trust || snapshot.certificates != before.certificates {
            look.extend(self.secured.iter().cloned());
        }
        let mut changes = BackendChanges::default();
        for id in look {
            let model = snapshot.backends.get(&id);
            let next = model.map(|model| self.compile(&id, model, snapshot, registry));
            let old = match &next {
                Some(next) => {
                    next.follow(snapshot, resolved);
                    self.all.insert(id.clone(), Arc::clone(next))
                }
                None => self.all.remove(&id),
            };
            if !matches!((&old, &next), (Some(old), Some(next)) if Arc::ptr_eq(old, next)) {
                changes.retired |= old.is_some();
                changes.touched.insert(id);
            }
        }
        let first = BackendId::new("");
        for (id, ..) in snapshot.endpoints.changes(&before.endpoints) {
            let followers = self.followers.range((id.clone(), first.clone())..);
            for (_, follower) in followers.take_while(|(followed, _)| followed == id) {
                if let Some(backend) = self.all.get(follower) {
                    backend.follow(snapshot, resolved);
                }
            }
        }
        for backend in self.named.iter().filter_map(|id| self.all.get(id)) {
            backend.follow(snapshot, resolved);
        }
        changes
    }

    /// Files a backend where it is looked for.
    fn note(&mut self, id: &BackendId, now: Option<&Model>, old: Option<&Model>) {
        match old.map(|model| &model.target) {
            Some(BackendTarget::Endpoints(endpoints)) => {
                self.followers.remove(&(endpoints.clone(), id.clone()));
            }
            Some(BackendTarget::Dns { .. }) => {
                self.named.remove(id);
            }
            Some(BackendTarget::Invalid { .. }) | None => {}
        }
        match now.map(|model| &model.target) {
            Some(BackendTarget::Endpoints(endpoints)) => {
                self.followers.insert((endpoints.clone(), id.clone()));
            }
            Some(BackendTarget::Dns { .. }) => {
                self.named.insert(id.clone());
            }
            Some(BackendTarget::Invalid { .. }) | None => {}
        }
        if now.is_some_and(|model| model.tls.is_some()) {
            self.secured.insert(id.clone());
        } else {
            self.secured.remove(id);
        }
    }

    /// The one that is there if it means the same.
    fn compile(&self, id: &BackendId, model: &Arc<Model>, snapshot: &Snapshot, registry: &Registry) -> Arc<Backend> {
        let inputs = model.tls.as_ref().map(|tls| TlsInputs {
            tls: tls.clone(),
            trust: tls.trust.as_ref().and_then(|id| snapshot.trust.get(id)).cloned(),
            certificate: tls
                .client_certificate
                .as_ref()
                .and_then(|id| snapshot.certificates.get(id))
                .cloned(),
        });
        let old = self.all.get(id);
        old.filter(|old| old.model == *model && old.tls_inputs == inputs)
            .cloned()
            .unwrap_or_else(|| {
                let cells = registry.backend(id);
                Arc::new(Backend::new(Arc::clone(model), cells, inputs, old.map(Arc::as_ref)))
            })
    }

    /// Names whose addresses are wanted.
    pub(crate) fn names(&self) -> BTreeSet<Hostname> {
        let named = self.named.iter().filter_map(|id| self.all.get(id));
        named
            .filter_map(|backend| match &backend.model.target {
                BackendTarget::Dns { name, .. } => Some(name.clone()),
                BackendTarget::Endpoints(_) | BackendTarget::Invalid { .. } => None,
            })
            .collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn find(&self, id: &BackendId) -> Option<&Arc<Backend>> {
        self.all.get(id)
    }
}

impl Source {
    fn of(snapshot: &Snapshot) -> Self {
        Self {
            backends: snapshot.backends.clone(),
            endpoints: snapshot.endpoints.clone(),
            certificates: snapshot.certificates.clone(),
            trust: snapshot.trust.clone(),
        }
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

#[cfg(test)]
mod tests {
    use fastrand::Rng;
    use pierhead_model::{Endpoint, Origin};

    use super::*;

    fn name(number: u64) -> Hostname {
        Hostname::parse(&format!("h{number}.test")).unwrap()
    }

    fn trust(dice: &mut Rng) -> TrustId {
        TrustId(format!("t{}", dice.u64(..2)).into())
    }

    fn backend(number: u64, dice: &mut Rng) -> Arc<Model> {
        let target = match dice.u64(..5) {
            0 => BackendTarget::Dns {
                name: name(dice.u64(..3)),
                port: 80,
            },
            1 => BackendTarget::Invalid {
                reason: InvalidReason::BackendNotFound,
                message: "gone".to_owned(),
            },
            _ => BackendTarget::Endpoints(EndpointsId::new(&format!("e{}", dice.u64(..6)))),
        };
        let tls = (dice.u64(..3) == 0).then(|| BackendTls {
            sni: name(0),
            identities: Vec::new(),
            trust: Some(trust(dice)),
            client_certificate: None,
        });
        Arc::new(Model {
            id: BackendId::new(&format!("b{number}")),
            origin: Origin::new("Service", "ns", "s"),
            target,
            protocol: BackendProtocol::Http1,
            tls,
        })
    }

    /// One thing of a snapshot becomes another, appears or goes.
    fn step(snapshot: &mut Snapshot, resolved: &mut Resolved, dice: &mut Rng) {
        let there = dice.u64(..3) > 0;
        match dice.u64(..8) {
            0..=2 => {
                let new = backend(dice.u64(..20), dice);
                snapshot.backends.remove(&new.id);
                if there {
                    snapshot.backends.insert(new.id.clone(), new);
                }
            }
            // The same again, at another place in memory.
            3 => {
                let all: Map<_, _> = snapshot
                    .backends
                    .iter()
                    .map(|(id, model)| (id.clone(), Arc::new(Model::clone(model))))
                    .collect();
                snapshot.backends = all;
            }
            4..=5 => {
                let id = EndpointsId::new(&format!("e{}", dice.u64(..6)));
                snapshot.endpoints.remove(&id);
                if there {
                    let endpoint = |port: u64| Endpoint {
                        address: ([127, 0, 0, 1], u16::try_from(port).unwrap()).into(),
                        state: if port.is_multiple_of(2) {
                            EndpointState::Ready
                        } else {
                            EndpointState::Draining
                        },
                        node: None,
                        zone: None,
                    };
                    let endpoints = (0..dice.u64(..4)).map(|port| endpoint(port * 7 + 1)).collect();
                    snapshot
                        .endpoints
                        .insert(id.clone(), Arc::new(Endpoints { id, endpoints }));
                }
            }
            6 => {
                let id = trust(dice);
                snapshot.trust.remove(&id);
                if there {
                    let certificates = (0..dice.u64(..2)).map(|_| Arc::from(&b"no certificate"[..])).collect();
                    snapshot
                        .trust
                        .insert(id.clone(), Arc::new(TrustAnchors { id, certificates }));
                }
            }
            _ => {
                let address = IpAddr::from([127, 0, 0, u8::try_from(dice.u64(..200)).unwrap()]);
                resolved.remove(&name(dice.u64(..3)));
                resolved.insert(name(dice.u64(..3)), [address].into());
            }
        }
    }

    #[test]
    fn a_thousand_changes_come_to_what_one_look_at_the_end_does() {
        for seed in 0..5 {
            let mut dice = Rng::with_seed(seed);
            let registry = Registry::new(1);
            let (mut snapshot, mut resolved) = (Snapshot::default(), Resolved::default());
            let mut backends = Backends::default();
            for number in 0..1_000 {
                let before = (snapshot.clone(), backends.all.clone());
                step(&mut snapshot, &mut resolved, &mut dice);
                let changes = backends.update(&snapshot, &resolved, &registry);
                let at = format!("seed {seed}, step {number}");

                let mut fresh = Backends::default();
                fresh.update(&snapshot, &resolved, &registry);
                assert_eq!(backends.len(), snapshot.backends.len(), "{at}");
                for (id, model) in &snapshot.backends {
                    let [now, fresh] = [&backends, &fresh].map(|all| all.find(id).unwrap());
                    assert_eq!(now.model, *model, "{at}: {id}");
                    assert_eq!(now.usable(), fresh.usable(), "{at}: {id}");
                    let [a, b] = [now, fresh].map(|backend| backend.endpoints());
                    assert_eq!((&a.ready, &a.draining), (&b.ready, &b.draining), "{at}: {id}");
                    // Only what decides about it makes it another.
                    let trust = |of: &Snapshot| {
                        let trust = model.tls.as_ref().and_then(|tls| tls.trust.clone());
                        trust.and_then(|id| of.trust.get(&id).cloned())
                    };
                    let stays = before.0.backends.get(id) == Some(model) && trust(&before.0) == trust(&snapshot);
                    assert_eq!(
                        before.1.get(id).is_some_and(|old| Arc::ptr_eq(old, now)),
                        stays,
                        "{at}: {id}"
                    );
                }
                assert_eq!(backends.names(), fresh.names(), "{at}");

                let differs = |id: &&BackendId| match (before.1.get(*id), backends.find(id)) {
                    (Some(old), Some(new)) => !Arc::ptr_eq(old, new),
                    (old, new) => old.is_some() || new.is_some(),
                };
                let ids: BTreeSet<_> = before.1.keys().chain(backends.all.keys()).collect();
                let touched: BTreeSet<_> = ids.into_iter().filter(differs).cloned().collect();
                let retired = touched.iter().any(|id| before.1.contains_key(id));
                assert_eq!((changes.touched, changes.retired), (touched, retired), "{at}");
            }
        }
    }
}
