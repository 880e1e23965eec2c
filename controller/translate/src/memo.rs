//! What a translation leaves for the next one: what each HTTP route came to, and the sum of that. The next one takes out of the
//! sum whatever changed, translates that again and adds it, so that a change costs what it touches and not what there is.
//!
//! It changes what a translation costs, never what it says: whatever a route's translation reads is either compared here or
//! makes it translated again each time.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use k8s_openapi::api::{
    core::v1::{Namespace, Service},
    discovery::v1::EndpointSlice,
};
use pierhead_gateway_api::{GRPCRoute, HTTPRoute, ReferenceGrant, RouteStatus};
use pierhead_model::{Backend, BackendId, Endpoints, EndpointsId, HttpRoute, ListenerId, Map, Problem, RouteId};

use crate::{
    ObjectName, World,
    border::{BySlices, SliceIndex},
    gateway,
    world::Objects,
};

/// What one route came to, and the Services it was read from.
#[derive(Debug, Default)]
pub(crate) struct Recording {
    pub(crate) routes: Vec<Arc<HttpRoute>>,
    pub(crate) backends: Vec<Arc<Backend>>,
    pub(crate) endpoints: Vec<Arc<Endpoints>>,
    pub(crate) problems: Vec<Problem>,
    /// Listeners it counts as attached to.
    pub(crate) listeners: Vec<usize>,
    pub(crate) status: Option<Arc<RouteStatus>>,
    /// Services it looked for, whether they are there or not; with them go their EndpointSlices.
    pub(crate) services: Vec<ObjectName>,
    /// It read more than is compared.
    pub(crate) unrepeatable: bool,
}

impl Recording {
    /// Gives back what its lists have room for and do not hold.
    fn shrink_to_fit(&mut self) {
        self.routes.shrink_to_fit();
        self.backends.shrink_to_fit();
        self.endpoints.shrink_to_fit();
        self.problems.shrink_to_fit();
        self.listeners.shrink_to_fit();
        self.services.shrink_to_fit();
    }
}

/// A route by kind and name, in the order of translation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RouteKey {
    pub(crate) kind: RouteKind,
    pub(crate) name: ObjectName,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RouteKind {
    Http,
    Grpc,
}

/// Whatever routes read besides themselves and Services.
#[derive(Clone, PartialEq)]
pub(crate) struct Context {
    gateways: gateway::Context,
    namespaces: Objects<Namespace>,
    reference_grants: Objects<ReferenceGrant>,
    controller: Arc<str>,
}

impl Context {
    pub(crate) fn new(world: &World, controller: &Arc<str>, gateways: gateway::Context) -> Self {
        Self {
            gateways,
            namespaces: world.namespaces.clone(),
            reference_grants: world.reference_grants.clone(),
            controller: Arc::clone(controller),
        }
    }
}

/// All remembered routes, and the world they were read from.
pub(crate) struct Memo {
    context: Context,
    http_routes: Objects<HTTPRoute>,
    grpc_routes: Objects<GRPCRoute>,
    services: Objects<Service>,
    pub(crate) endpoint_slices: Objects<EndpointSlice>,
    pub(crate) slices: BySlices,
    pub(crate) sum: Sum,
}

impl fmt::Debug for Memo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memo")
            .field("routes", &self.sum.recordings.len())
            .finish_non_exhaustive()
    }
}

impl Memo {
    /// What `previous` remembers without what changed since, and the routes that are to be translated: those that changed, those
    /// that read something that changed, and those that are translated each time.
    pub(crate) fn new(
        world: &World,
        context: Context,
        slices: &SliceIndex,
        previous: Option<&Self>,
    ) -> (Self, BTreeSet<RouteKey>) {
        let mut dirty = BTreeSet::new();
        let mut sum = Sum::default();
        if let Some(memo) = previous.filter(|memo| memo.context == context) {
            sum = memo.sum.clone();
            let http = world
                .http_routes
                .changes(&memo.http_routes)
                .map(|(name, _)| (RouteKind::Http, name));
            let grpc = world
                .grpc_routes
                .changes(&memo.grpc_routes)
                .map(|(name, _)| (RouteKind::Grpc, name));
            dirty.extend(http.chain(grpc).map(|(kind, (namespace, name))| RouteKey {
                kind,
                name: ObjectName::new(namespace, name),
            }));
            for ((namespace, name), _) in world.services.changes(&memo.services) {
                dirty.extend(sum.readers(&ObjectName::new(namespace, name)).cloned());
            }
            for service in &slices.changed {
                dirty.extend(sum.readers(service).cloned());
            }
            dirty.extend(sum.unrepeatable.iter().cloned());
            for key in &dirty {
                sum.forget(key);
            }
        } else {
            let http = world.http_routes.iter().map(|route| (RouteKind::Http, &route.metadata));
            let grpc = world.grpc_routes.iter().map(|route| (RouteKind::Grpc, &route.metadata));
            dirty.extend(http.chain(grpc).map(|(kind, meta)| RouteKey {
                kind,
                name: ObjectName::of(meta),
            }));
        }
        let memo = Self {
            context,
            http_routes: world.http_routes.clone(),
            grpc_routes: world.grpc_routes.clone(),
            services: world.services.clone(),
            endpoint_slices: world.endpoint_slices.clone(),
            slices: slices.by_service.clone(),
            sum,
        };
        (memo, dirty)
    }
}

/// What all routes came to together. A clone shares what does not change.
#[derive(Clone, Default)]
pub(crate) struct Sum {
    recordings: Map<RouteKey, Arc<Recording>>,
    pub(crate) routes: Map<RouteId, Arc<HttpRoute>>,
    pub(crate) backends: Shared<BackendId, Backend>,
    pub(crate) endpoints: Shared<EndpointsId, Endpoints>,
    pub(crate) http_statuses: Map<ObjectName, Arc<RouteStatus>>,
    pub(crate) grpc_statuses: Map<ObjectName, Arc<RouteStatus>>,
    /// How many routes have each problem.
    problems: Map<Problem, u32>,
    /// How many routes count as attached to each listener.
    attached: BTreeMap<usize, u32>,
    /// The routes that name each listener, attached or not.
    naming: BTreeMap<ListenerId, Map<RouteId, ()>>,
    by_service: Map<(ObjectName, RouteKey), ()>,
    unrepeatable: BTreeSet<RouteKey>,
}

impl Sum {
    pub(crate) fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.keys()
    }

    pub(crate) fn attached(&self, listener: usize) -> u32 {
        self.attached.get(&listener).copied().unwrap_or_default()
    }

    /// Listeners that routes name.
    pub(crate) fn listeners(&self) -> impl Iterator<Item = &ListenerId> {
        self.naming.keys()
    }

    /// Routes that name `listener`.
    pub(crate) fn naming(&self, listener: &ListenerId) -> impl Iterator<Item = &RouteId> {
        self.naming.get(listener).into_iter().flat_map(Map::keys)
    }

    /// Routes that read `service`.
    fn readers(&self, service: &ObjectName) -> impl Iterator<Item = &RouteKey> {
        let first = (service.clone(), RouteKey::first());
        let from = self.by_service.starting_at(&first);
        let own = from.take_while(move |((other, _), ())| *other == first.0);
        own.map(|((_, route), ())| route)
    }

    /// Adds what a route came to, which is not part of it.
    pub(crate) fn add(&mut self, key: RouteKey, mut recording: Recording) {
        recording.shrink_to_fit();
        for route in &recording.routes {
            for attachment in &route.attachments {
                let naming = self.naming.entry(attachment.listener.clone()).or_default();
                naming.insert(route.id.clone(), ());
            }
            self.routes.insert(route.id.clone(), Arc::clone(route));
        }
        for backend in &recording.backends {
            self.backends.add(&backend.id, &key, backend);
        }
        for endpoints in &recording.endpoints {
            self.endpoints.add(&endpoints.id, &key, endpoints);
        }
        for problem in &recording.problems {
            match self.problems.get_mut(problem) {
                Some(count) => *count += 1,
                None => drop(self.problems.insert(problem.clone(), 1)),
            }
        }
        for listener in &recording.listeners {
            *self.attached.entry(*listener).or_default() += 1;
        }
        for service in &recording.services {
            self.by_service.insert((service.clone(), key.clone()), ());
        }
        if let Some(status) = &recording.status {
            self.statuses(key.kind).insert(key.name.clone(), Arc::clone(status));
        }
        if recording.unrepeatable {
            self.unrepeatable.insert(key.clone());
        }
        self.recordings.insert(key, Arc::new(recording));
    }

    fn forget(&mut self, key: &RouteKey) {
        let Some(recording) = self.recordings.remove(key) else {
            return;
        };
        for route in &recording.routes {
            for attachment in &route.attachments {
                if let Some(naming) = self.naming.get_mut(&attachment.listener) {
                    naming.remove(&route.id);
                    if naming.is_empty() {
                        self.naming.remove(&attachment.listener);
                    }
                }
            }
            self.routes.remove(&route.id);
        }
        for backend in &recording.backends {
            self.backends.remove(&backend.id, key);
        }
        for endpoints in &recording.endpoints {
            self.endpoints.remove(&endpoints.id, key);
        }
        for problem in &recording.problems {
            match self.problems.get_mut(problem) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(self.problems.remove(problem)),
            }
        }
        for listener in &recording.listeners {
            less(&mut self.attached, listener);
        }
        for service in &recording.services {
            self.by_service.remove(&(service.clone(), key.clone()));
        }
        self.statuses(key.kind).remove(&key.name);
        self.unrepeatable.remove(key);
    }

    fn statuses(&mut self, kind: RouteKind) -> &mut Map<ObjectName, Arc<RouteStatus>> {
        match kind {
            RouteKind::Http => &mut self.http_statuses,
            RouteKind::Grpc => &mut self.grpc_statuses,
        }
    }
}

fn less<K: Ord>(counts: &mut BTreeMap<K, u32>, key: &K) {
    match counts.get_mut(key) {
        Some(count) if *count > 1 => *count -= 1,
        _ => drop(counts.remove(key)),
    }
}

/// Values that several routes bring. Of those of one name the first route's counts.
#[derive(Clone)]
pub(crate) struct Shared<I, V> {
    pub(crate) values: Map<I, Arc<V>>,
    users: Map<(I, RouteKey), Arc<V>>,
}

impl<I, V> Default for Shared<I, V> {
    fn default() -> Self {
        Self {
            values: Map::new(),
            users: Map::new(),
        }
    }
}

impl<I: Ord + Clone, V> Shared<I, V> {
    fn add(&mut self, id: &I, user: &RouteKey, value: &Arc<V>) {
        self.users.insert((id.clone(), user.clone()), Arc::clone(value));
        self.settle(id);
    }

    fn remove(&mut self, id: &I, user: &RouteKey) {
        self.users.remove(&(id.clone(), user.clone()));
        self.settle(id);
    }

    fn settle(&mut self, id: &I) {
        let first = self.users.starting_at(&(id.clone(), RouteKey::first())).next();
        match first.filter(|((other, _), _)| other == id) {
            Some((_, value)) if self.values.get(id).is_some_and(|known| Arc::ptr_eq(known, value)) => {}
            Some((_, value)) => drop(self.values.insert(id.clone(), Arc::clone(value))),
            None => drop(self.values.remove(id)),
        }
    }
}

impl RouteKey {
    /// No route is before it.
    fn first() -> Self {
        Self {
            kind: RouteKind::Http,
            name: ObjectName::new("", ""),
        }
    }
}
