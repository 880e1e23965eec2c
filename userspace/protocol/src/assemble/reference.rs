//! Who names whom in a snapshot.

use std::{collections::HashSet, sync::Arc};

use pierhead_model::{
    Backend, BackendId, BackendTarget, BackendTls, Bind, CertificateId, ClientAuth, EndpointsId, ExternalAuthFilter,
    Filter, HttpOptions, HttpRoute, HttpRule, L4Route, ListenerKind, Map, MirrorFilter, Snapshot, TlsTermination,
    TrustId, WeightedBackend,
};

use crate::ResourceId;

/// A resource that is named by another.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Reference<'a> {
    Backend(&'a BackendId),
    Endpoints(&'a EndpointsId),
    Certificate(&'a CertificateId),
    Trust(&'a TrustId),
}

impl<'a> Reference<'a> {
    /// `None`: nobody names such a resource.
    fn to(id: &'a ResourceId) -> Option<Self> {
        match id {
            ResourceId::Bind(_) | ResourceId::Route(_) | ResourceId::Owned(_) | ResourceId::Fleet(_) => None,
            ResourceId::Backend(id) => Some(Self::Backend(id)),
            ResourceId::Endpoints(id) => Some(Self::Endpoints(id)),
            ResourceId::Certificate(id) => Some(Self::Certificate(id)),
            ResourceId::Trust(id) => Some(Self::Trust(id)),
        }
    }

    fn id(self) -> ResourceId {
        match self {
            Self::Backend(id) => ResourceId::Backend(id.clone()),
            Self::Endpoints(id) => ResourceId::Endpoints(id.clone()),
            Self::Certificate(id) => ResourceId::Certificate(id.clone()),
            Self::Trust(id) => ResourceId::Trust(id.clone()),
        }
    }

    fn is_in(self, snapshot: &Snapshot) -> bool {
        match self {
            Self::Backend(id) => snapshot.backends.contains_key(id),
            Self::Endpoints(id) => snapshot.endpoints.contains_key(id),
            Self::Certificate(id) => snapshot.certificates.contains_key(id),
            Self::Trust(id) => snapshot.trust.contains_key(id),
        }
    }
}

/// Something that names others.
trait Names {
    /// The first reference for which `is_wanted` says so.
    fn find<'a>(&'a self, is_wanted: &dyn Fn(Reference<'a>) -> bool) -> Option<Reference<'a>>;
}

impl Names for Bind {
    fn find<'a>(&'a self, is_wanted: &dyn Fn(Reference<'a>) -> bool) -> Option<Reference<'a>> {
        self.listeners.iter().find_map(|listener| match &listener.kind {
            ListenerKind::Http(http) => http.find(is_wanted),
            ListenerKind::Https { tls, http } => tls.find(is_wanted).or_else(|| http.find(is_wanted)),
            ListenerKind::TlsPassthrough { routes } => routes.iter().find_map(|sni| sni.route.find(is_wanted)),
            ListenerKind::TlsTerminate { tls, routes } => tls
                .find(is_wanted)
                .or_else(|| routes.iter().find_map(|sni| sni.route.find(is_wanted))),
            ListenerKind::Tcp { route } | ListenerKind::Udp { route } => route.as_ref()?.find(is_wanted),
        })
    }
}

impl Names for HttpOptions {
    fn find<'a>(&'a self, is_wanted: &dyn Fn(Reference<'a>) -> bool) -> Option<Reference<'a>> {
        let Self {
            host_selection: _,
            detect_misdirected: _,
            filters,
        } = self;
        filters.iter().find_map(|filter| filter.find(is_wanted))
    }
}

impl Names for TlsTermination {
    fn find<'a>(&'a self, is_wanted: &dyn Fn(Reference<'a>) -> bool) -> Option<Reference<'a>> {
        let Self {
            certificates,
            client_auth,
        } = self;
        let certificates = certificates
            .iter()
            .map(|used| Reference::Certificate(&used.certificate));
        let trust = client_auth
            .iter()
            .map(|ClientAuth { trust, mode: _ }| Reference::Trust(trust));
        certificates.chain(trust).find(|reference| is_wanted(*reference))
    }
}

impl Names for L4Route {
    fn find<'a>(&'a self, is_wanted: &dyn Fn(Reference<'a>) -> bool) -> Option<Reference<'a>> {
        let Self { origin: _, backends } = self;
        backends.iter().find_map(|backend| backend.find(is_wanted))
    }
}

impl Names for WeightedBackend {
    fn find<'a>(&'a self, is_wanted: &dyn Fn(Reference<'a>) -> bool) -> Option<Reference<'a>> {
        let Self {
            backend,
            weight: _,
            filters,
        } = self;
        let backend = Reference::Backend(backend);
        if is_wanted(backend) {
            return Some(backend);
        }
        filters.iter().find_map(|filter| filter.find(is_wanted))
    }
}

impl Names for Filter {
    fn find<'a>(&'a self, is_wanted: &dyn Fn(Reference<'a>) -> bool) -> Option<Reference<'a>> {
        match self {
            Self::Mirror(MirrorFilter { backend, fraction: _ }) => {
                Some(Reference::Backend(backend)).filter(|reference| is_wanted(*reference))
            }
            Self::ExternalAuth(ExternalAuthFilter {
                backend,
                protocol: _,
                body_bytes: _,
            }) => Some(Reference::Backend(backend)).filter(|reference| is_wanted(*reference)),
            Self::RequestHeaders(_)
            | Self::ResponseHeaders(_)
            | Self::Redirect(_)
            | Self::UrlRewrite(_)
            | Self::Cors(_)
            | Self::Unsupported { what: _ } => None,
        }
    }
}

impl Names for HttpRoute {
    fn find<'a>(&'a self, is_wanted: &dyn Fn(Reference<'a>) -> bool) -> Option<Reference<'a>> {
        self.rules.iter().find_map(|rule| {
            let HttpRule {
                name: _,
                hosts: _,
                matches: _,
                filters,
                backends,
                timeouts: _,
                retry: _,
                fallback: _,
            } = rule;
            let in_backends = backends.iter().find_map(|backend| backend.find(is_wanted));
            in_backends.or_else(|| filters.iter().find_map(|filter| filter.find(is_wanted)))
        })
    }
}

impl Names for Backend {
    fn find<'a>(&'a self, is_wanted: &dyn Fn(Reference<'a>) -> bool) -> Option<Reference<'a>> {
        let Self {
            id: _,
            origin: _,
            target,
            protocol: _,
            tls,
        } = self;
        let target = match target {
            BackendTarget::Endpoints(id) => Some(Reference::Endpoints(id)),
            BackendTarget::Dns { .. } | BackendTarget::Invalid { .. } => None,
        };
        let tls = tls.iter().flat_map(|tls| {
            let BackendTls {
                sni: _,
                identities: _,
                trust,
                client_certificate,
            } = tls;
            let trust = trust.as_ref().map(Reference::Trust);
            trust
                .into_iter()
                .chain(client_certificate.as_ref().map(Reference::Certificate))
        });
        target.into_iter().chain(tls).find(|reference| is_wanted(*reference))
    }
}

/// Something that this resource names and the snapshot has not.
pub(super) fn missing_from(id: &ResourceId, snapshot: &Snapshot) -> Option<ResourceId> {
    let is_missing = |reference: Reference<'_>| !reference.is_in(snapshot);
    let missing = match id {
        ResourceId::Bind(key) => snapshot.binds.get(key)?.find(&is_missing),
        ResourceId::Route(id) => snapshot.routes.get(id)?.find(&is_missing),
        ResourceId::Backend(id) => snapshot.backends.get(id)?.find(&is_missing),
        ResourceId::Endpoints(_)
        | ResourceId::Certificate(_)
        | ResourceId::Trust(_)
        | ResourceId::Owned(_)
        | ResourceId::Fleet(_) => None,
    };
    missing.map(Reference::id)
}

/// Whether anything in the snapshot names one of these.
pub(super) fn is_any_named(ids: &[ResourceId], snapshot: &Snapshot) -> bool {
    let ids: HashSet<Reference<'_>> = ids
        .iter()
        .filter_map(Reference::to)
        // What went and came again is there.
        .filter(|reference| !reference.is_in(snapshot))
        .collect();
    if ids.is_empty() {
        return false;
    }
    snapshot.binds.values().any(|bind| names_one_of(&**bind, &ids))
        || snapshot.routes.values().any(|route| names_one_of(&**route, &ids))
        || snapshot.backends.values().any(|backend| names_one_of(&**backend, &ids))
}

fn names_one_of(value: &impl Names, ids: &HashSet<Reference<'_>>) -> bool {
    value.find(&|reference| ids.contains(&reference)).is_some()
}

/// Everything that names something missing, with the first such thing.
pub(super) fn dangling(snapshot: &Snapshot) -> Vec<(ResourceId, ResourceId)> {
    let is_missing = |reference: Reference<'_>| !reference.is_in(snapshot);
    let mut found = Vec::new();
    for (key, bind) in &snapshot.binds {
        let missing = bind.find(&is_missing);
        found.extend(missing.map(|missing| (ResourceId::Bind(*key), missing.id())));
    }
    for (id, route) in &snapshot.routes {
        let missing = route.find(&is_missing);
        found.extend(missing.map(|missing| (ResourceId::Route(id.clone()), missing.id())));
    }
    for (id, backend) in &snapshot.backends {
        let missing = backend.find(&is_missing);
        found.extend(missing.map(|missing| (ResourceId::Backend(id.clone()), missing.id())));
    }
    found
}

/// Gives a resource its good value, or takes it out when it has none. Whether that changed anything.
pub(super) fn fall_back(id: &ResourceId, snapshot: &mut Snapshot, good: &Snapshot) -> bool {
    match id {
        ResourceId::Bind(key) => fall_back_in(&mut snapshot.binds, &good.binds, key),
        ResourceId::Route(id) => fall_back_in(&mut snapshot.routes, &good.routes, id),
        ResourceId::Backend(id) => fall_back_in(&mut snapshot.backends, &good.backends, id),
        ResourceId::Endpoints(id) => fall_back_in(&mut snapshot.endpoints, &good.endpoints, id),
        ResourceId::Certificate(id) => fall_back_in(&mut snapshot.certificates, &good.certificates, id),
        ResourceId::Trust(id) => fall_back_in(&mut snapshot.trust, &good.trust, id),
        ResourceId::Fleet(id) => fall_back_in(&mut snapshot.fleet, &good.fleet, id),
        ResourceId::Owned(prefix) => match good.owned.get(prefix) {
            Some(good) => snapshot.owned.insert(*prefix, good.clone()).as_ref() != Some(good),
            None => snapshot.owned.remove(prefix).is_some(),
        },
    }
}

fn fall_back_in<K: Ord + Clone, V>(map: &mut Map<K, Arc<V>>, good: &Map<K, Arc<V>>, key: &K) -> bool {
    match good.get(key) {
        Some(good) => {
            let old = map.insert(key.clone(), Arc::clone(good));
            !old.is_some_and(|old| Arc::ptr_eq(&old, good))
        }
        None => map.remove(key).is_some(),
    }
}
