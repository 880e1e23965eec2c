use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Weak},
};

use foldhash::fast::RandomState;
use pierhead_model::{
    CertificateId, Hostname, HttpOptions, L4Route, Listener, ListenerId, ListenerKind, Origin, Snapshot, SniRoute,
};
use pierhead_route::{RouteTable, Routes};

use super::attached::Attached;
use super::{BindRuntime, BindTable, Gauge, HttpSite, L4Target, ListenerRuntime, Protocol, Runtime, SniTargets};
use crate::{
    http::{Filters, RouteHandle},
    observe::Registry,
    tls::TlsStore,
    upstream::{Backends, Resolved},
};

/// ALPN of HTTPS listeners, in our order of preference.
const HTTP_ALPN: &[&[u8]] = &[b"h2", b"http/1.1"];

/// Turns snapshots into runtimes, and keeps what the next one can take over.
#[derive(Debug)]
pub(crate) struct Compiler {
    registry: Arc<Registry>,
    tls: TlsStore,
    gauges: HashMap<Origin, Weak<Gauge>, RandomState>,
    listeners: HashMap<ListenerId, Kept, RandomState>,
    backends: Backends,
    routes: Attached,
    /// There may be series of backends that are gone.
    retired: bool,
}

#[derive(Debug)]
struct Kept {
    runtime: Arc<ListenerRuntime>,
    /// What its route table was compiled from.
    routes: Arc<Routes<RouteHandle>>,
}

/// Route tables of this pass, by the owner of their listener.
type Siblings = HashMap<Origin, Vec<Arc<RouteTable<RouteHandle>>>, RandomState>;

/// Among how many listeners of one owner equal hosts are looked for.
const SIBLINGS: usize = 16;

impl Compiler {
    pub(crate) fn new(registry: Arc<Registry>, tls: TlsStore) -> Self {
        Self {
            registry,
            tls,
            gauges: HashMap::default(),
            listeners: HashMap::default(),
            backends: Backends::default(),
            routes: Attached::default(),
            retired: false,
        }
    }

    /// Compiles `snapshot`; parts equal to those of `previous` are the same `Arc`s.
    pub(crate) fn compile(&mut self, snapshot: Arc<Snapshot>, resolved: &Resolved, previous: &Runtime) -> Runtime {
        let changes = self.backends.update(&snapshot, resolved, &self.registry);
        self.retired |= changes.retired;
        self.tls.update(&snapshot);
        self.routes.update(&snapshot.routes, &self.backends, &changes.touched);
        let mut kept = HashMap::default();
        let mut siblings = Siblings::default();
        let mut binds = BindTable::default();
        for (key, bind) in &snapshot.binds {
            let listeners: Vec<_> = bind
                .listeners
                .iter()
                .map(|listener| {
                    // One listener may stand on several binds (several addresses): compiled once.
                    if let Some(done) = kept.get(&listener.id).filter(|k: &&Kept| k.runtime.model == *listener) {
                        return Arc::clone(&done.runtime);
                    }
                    let routes = self.routes.of(&listener.id);
                    let tables = siblings.entry(listener.id.owner.clone()).or_default();
                    let next = self.listener(listener, &routes, tables);
                    if let Some(site) = next.http().filter(|_| tables.len() < SIBLINGS) {
                        tables.push(Arc::clone(&site.table));
                    }
                    let runtime = Arc::clone(&next);
                    kept.insert(listener.id.clone(), Kept { runtime, routes });
                    next
                })
                .collect();
            let unchanged = previous.binds.get(*key).filter(|old| {
                old.model == *bind
                    && old.listeners.len() == listeners.len()
                    && old.listeners.iter().zip(&listeners).all(|(a, b)| Arc::ptr_eq(a, b))
            });
            let next = unchanged
                .cloned()
                .unwrap_or_else(|| Arc::new(BindRuntime::new(Arc::clone(bind), listeners)));
            binds.insert(&next);
        }
        self.listeners = kept;
        self.gauges.retain(|_, gauge| gauge.strong_count() > 0);
        Runtime {
            generation: previous.generation + 1,
            version: previous.version + 1,
            snapshot,
            binds,
        }
    }

    /// Names of backends whose addresses are wanted.
    pub(crate) fn names(&self) -> BTreeSet<Hostname> {
        self.backends.names()
    }

    /// Forgets the series of what is gone, but for those that something under way still counts in.
    pub(crate) fn prune(&mut self) {
        self.registry.prune_listeners();
        if self.retired {
            self.retired = self.registry.prune_backends() > self.backends.len();
        }
    }

    /// Certificates of the last snapshot that the TLS library cannot use, and why.
    pub(crate) fn unusable(&self) -> Vec<(CertificateId, String)> {
        self.tls.unusable()
    }

    fn listener(
        &mut self,
        listener: &Arc<Listener>,
        routes: &Arc<Routes<RouteHandle>>,
        siblings: &[Arc<RouteTable<RouteHandle>>],
    ) -> Arc<ListenerRuntime> {
        let old = self.listeners.get(&listener.id);
        let same_routes = |kept: &Kept| Arc::ptr_eq(&kept.routes, routes);
        let protocol = self.protocol(listener, routes, siblings, old, same_routes);
        if let Some(old) = old.filter(|old| old.runtime.model == *listener && same_routes(old))
            && same_protocol(&old.runtime.protocol, &protocol)
        {
            return Arc::clone(&old.runtime);
        }
        let gauge = self.gauge(&listener.id.owner);
        Arc::new(ListenerRuntime {
            model: Arc::clone(listener),
            protocol,
            cells: self.registry.listener(&listener.id),
            gauge,
        })
    }

    fn protocol(
        &self,
        listener: &Listener,
        routes: &Arc<Routes<RouteHandle>>,
        siblings: &[Arc<RouteTable<RouteHandle>>],
        old: Option<&Kept>,
        same_routes: impl Fn(&Kept) -> bool,
    ) -> Protocol {
        let backends = &self.backends;
        let old_site = old.and_then(|kept| kept.runtime.http());
        let site = |options: &HttpOptions| {
            let reusable = old_site
                .filter(|site| site.options.host_selection == options.host_selection && old.is_some_and(&same_routes));
            let table = reusable.map_or_else(
                || {
                    let siblings: Vec<_> = siblings.iter().map(|table| &**table).collect();
                    Arc::new(RouteTable::compile(
                        &listener.id,
                        options.host_selection,
                        routes,
                        old_site.map(|site| &*site.table),
                        &siblings,
                    ))
                },
                |site| Arc::clone(&site.table),
            );
            let kept =
                old_site.filter(|site| site.options.filters == options.filters && site.filters.is_current(backends));
            let filters = kept.map_or_else(
                || Arc::new(Filters::compile(&options.filters, backends)),
                |site| Arc::clone(&site.filters),
            );
            HttpSite {
                options: options.clone(),
                filters,
                table,
            }
        };
        let old_protocol = old.map(|kept| &kept.runtime.protocol);
        let old_tls = old_protocol.and_then(|protocol| match protocol {
            Protocol::Https { tls, .. } | Protocol::TlsTerminate { tls, .. } => Some(tls),
            _ => None,
        });
        match &listener.kind {
            ListenerKind::Http(options) => Protocol::Http(site(options)),
            ListenerKind::Https { tls, http } => Protocol::Https {
                tls: self.tls.server(tls, HTTP_ALPN, old_tls),
                http: site(http),
            },
            ListenerKind::TlsPassthrough { routes } => {
                Protocol::TlsPassthrough(targets(routes, backends, old_protocol))
            }
            ListenerKind::TlsTerminate { tls, routes } => Protocol::TlsTerminate {
                tls: self.tls.server(tls, &[], old_tls),
                targets: targets(routes, backends, old_protocol),
            },
            ListenerKind::Tcp { route } => Protocol::Tcp(target(route.as_ref(), backends, old_protocol)),
            ListenerKind::Udp { route } => Protocol::Udp(target(route.as_ref(), backends, old_protocol)),
        }
    }

    fn gauge(&mut self, owner: &Origin) -> Arc<Gauge> {
        if let Some(gauge) = self.gauges.get(owner).and_then(Weak::upgrade) {
            return gauge;
        }
        let gauge = Arc::new(Gauge::new(self.registry.workers()));
        self.gauges.insert(owner.clone(), Arc::downgrade(&gauge));
        gauge
    }
}

fn target(route: Option<&Arc<L4Route>>, backends: &Backends, old: Option<&Protocol>) -> Option<L4Target> {
    let old = match old {
        Some(Protocol::Tcp(old) | Protocol::Udp(old)) => old.as_ref(),
        _ => None,
    };
    route.map(|route| L4Target::compile(route, backends, old))
}

fn targets(routes: &[SniRoute], backends: &Backends, old: Option<&Protocol>) -> SniTargets {
    let old = match old {
        Some(Protocol::TlsPassthrough(old) | Protocol::TlsTerminate { targets: old, .. }) => Some(old),
        _ => None,
    };
    let before = |route: &Arc<L4Route>| old.and_then(|old| old.iter().map(|(_, t)| t).find(|t| t.route == *route));
    SniTargets::new(
        routes
            .iter()
            .map(|sni| {
                (
                    sni.host.clone(),
                    L4Target::compile(&sni.route, backends, before(&sni.route)),
                )
            })
            .collect(),
    )
}

/// Whether two protocols compiled from one model are the same in what the model does not hold.
fn same_protocol(a: &Protocol, b: &Protocol) -> bool {
    let same_targets = |a: &SniTargets, b: &SniTargets| {
        a.iter().count() == b.iter().count()
            && a.iter()
                .zip(b.iter())
                .all(|((_, a), (_, b))| Arc::ptr_eq(&a.backends, &b.backends))
    };
    let same_target = |a: &Option<L4Target>, b: &Option<L4Target>| match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(&a.backends, &b.backends),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    };
    let same_site = |a: &HttpSite, b: &HttpSite| Arc::ptr_eq(&a.table, &b.table) && Arc::ptr_eq(&a.filters, &b.filters);
    match (a, b) {
        (Protocol::Http(a), Protocol::Http(b)) => same_site(a, b),
        (Protocol::Https { tls: ta, http: a }, Protocol::Https { tls: tb, http: b }) => {
            ta.is_same(tb) && same_site(a, b)
        }
        (Protocol::TlsPassthrough(a), Protocol::TlsPassthrough(b)) => same_targets(a, b),
        (Protocol::TlsTerminate { tls: ta, targets: a }, Protocol::TlsTerminate { tls: tb, targets: b }) => {
            ta.is_same(tb) && same_targets(a, b)
        }
        (Protocol::Tcp(a), Protocol::Tcp(b)) | (Protocol::Udp(a), Protocol::Udp(b)) => same_target(a, b),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use pierhead_model::{Backend, BackendId, BackendProtocol, BackendTarget, InvalidReason};

    use super::*;

    /// Open connections tell by it that the bind they came to is not the one in force.
    #[test]
    fn whatever_is_compiled_has_a_version_of_its_own() {
        let mut compiler = Compiler::new(Arc::new(Registry::new(1)), TlsStore::new().unwrap());
        let mut compile = |previous: &Runtime| compiler.compile(Arc::default(), &Resolved::default(), previous);
        let first = compile(&Runtime::default());
        let second = compile(&first);
        assert!(Runtime::default().version < first.version && first.version < second.version);
    }

    #[test]
    fn series_of_a_backend_stay_until_nothing_counts_in_them() {
        let registry = Arc::new(Registry::new(1));
        let mut compiler = Compiler::new(Arc::clone(&registry), TlsStore::new().unwrap());
        let mut snapshot = Snapshot::default();
        for name in ["stays", "goes"] {
            let id = BackendId::new(name);
            let backend = Backend {
                id: id.clone(),
                origin: Origin::new("Service", "ns", name),
                target: BackendTarget::Invalid {
                    reason: InvalidReason::BackendNotFound,
                    message: String::new(),
                },
                protocol: BackendProtocol::Http1,
                tls: None,
            };
            snapshot.backends.insert(id, Arc::new(backend));
        }
        let mut compile = |snapshot: &Snapshot| {
            compiler.compile(Arc::new(snapshot.clone()), &Resolved::default(), &Runtime::default());
            compiler.prune();
            let series = registry.backends();
            series.into_iter().map(|(id, _)| id.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(compile(&snapshot), ["goes", "stays"]);
        let goes = BackendId::new("goes");
        let under_way = registry.backend(&goes);
        snapshot.backends.remove(&goes);
        assert_eq!(compile(&snapshot), ["goes", "stays"]);
        assert_eq!(compile(&snapshot), ["goes", "stays"]);
        drop(under_way);
        assert_eq!(compile(&snapshot), ["stays"]);
    }
}
