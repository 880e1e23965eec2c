//! What a translation leaves for the next one: what each HTTP route came to, so that one whose object and whose Services did
//! not change need not be translated again. It changes what a translation costs, never what it says: whatever a route's
//! translation reads is either compared here or makes it not remembered.

use std::{
    any::Any,
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
};

use k8s_openapi::api::{
    core::v1::{Namespace, Service},
    discovery::v1::EndpointSlice,
};
use pierhead_gateway_api::{ReferenceGrant, RouteStatus};
use pierhead_model::{Backend, Endpoints, HttpRoute, Problem};

use crate::{ObjectName, World, border::service_of, gateway, world::Objects};

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

/// A route that is remembered.
pub(crate) struct Remembered {
    pub(crate) name: ObjectName,
    pub(crate) recording: Recording,
    /// Kept so that its address names no other object.
    _object: Arc<dyn Any + Send + Sync>,
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
    services: Objects<Service>,
    endpoint_slices: Objects<EndpointSlice>,
    /// By address of the object.
    routes: HashMap<usize, Arc<Remembered>>,
}

impl fmt::Debug for Memo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memo")
            .field("routes", &self.routes.len())
            .finish_non_exhaustive()
    }
}

/// The last translation's memo as this one may use it, and this one's in the making.
pub(crate) struct Recall<'p> {
    previous: Option<&'p Memo>,
    changed: HashSet<(&'p str, &'p str)>,
    next: Memo,
}

impl<'p> Recall<'p> {
    pub(crate) fn new(world: &'p World, context: Context, previous: Option<&'p Memo>) -> Self {
        let previous = previous.filter(|memo| memo.context == context);
        let mut changed = HashSet::new();
        if let Some(memo) = previous {
            changed.extend(world.services.changes(&memo.services).map(|(name, _)| name));
            for (_, slices) in world.endpoint_slices.changes(&memo.endpoint_slices) {
                changed.extend(slices.into_iter().flatten().filter_map(|slice| service_of(slice)));
            }
        }
        Self {
            previous,
            changed,
            next: Memo {
                context,
                services: world.services.clone(),
                endpoint_slices: world.endpoint_slices.clone(),
                routes: HashMap::with_capacity(previous.map_or(0, |memo| memo.routes.len())),
            },
        }
    }

    /// What `object` came to last time, if it would come to the same now.
    pub(crate) fn recall<T>(&mut self, object: &Arc<T>) -> Option<&'p Remembered> {
        let address = Arc::as_ptr(object).addr();
        let remembered = self.previous?.routes.get(&address)?;
        let changed = |name: &ObjectName| self.changed.contains(&(&*name.namespace, &*name.name));
        if !self.changed.is_empty() && remembered.recording.services.iter().any(changed) {
            return None;
        }
        self.next.routes.insert(address, Arc::clone(remembered));
        Some(remembered)
    }

    pub(crate) fn remember<T: Send + Sync + 'static>(
        &mut self,
        object: &Arc<T>,
        name: ObjectName,
        recording: Recording,
    ) {
        if !recording.unrepeatable {
            let remembered = Remembered {
                name,
                recording,
                _object: Arc::<T>::clone(object),
            };
            self.next.routes.insert(Arc::as_ptr(object).addr(), remembered.into());
        }
    }

    pub(crate) fn finish(self) -> Memo {
        self.next
    }
}
