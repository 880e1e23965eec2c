//! Where both APIs put what they make: everything once, by its name.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use pierhead_model::{
    Announcer, Backend, BackendId, Endpoints, EndpointsId, HttpRoute, Map, Origin, OwnedPrefix, Ownership, Problem,
    RouteId, Severity, Snapshot, Transport,
};

use crate::{
    Settings, Statuses, Translation, World,
    address::{self, Allocations, Assigned, Demand},
    bind::{self, Claim, Refused},
    border::SliceIndex,
    election, fleet,
    memo::{Memo, Recording},
    service::{self, DesiredService, PortWish, PortWishes},
    share::shared,
    world::ObjectName,
};

/// A translation in the making. What is added twice under one name is kept once.
pub struct Builder<'w> {
    pub world: &'w World,
    pub settings: &'w Settings,
    pub statuses: Statuses,
    pub(crate) snapshot: Snapshot,
    pub(crate) slices: SliceIndex,
    /// What was made last time: saves work, changes nothing.
    pub(crate) previous: Option<&'w Snapshot>,
    pub(crate) previous_memo: Option<&'w Memo>,
    memo: Option<Memo>,
    /// While one route is translated.
    recording: Option<Recording>,
    /// What does not come from routes that are remembered. The first of a name counts.
    routes: Vec<Arc<HttpRoute>>,
    backends: Vec<Arc<Backend>>,
    /// Backends of this translation: routes that send to the same one share it.
    made_backends: BTreeMap<BackendId, Arc<Backend>>,
    endpoints: Vec<Arc<Endpoints>>,
    /// How many backends and endpoints there were before those of remembered routes.
    before: (usize, usize),
    /// Remembered routes that name listeners which are not there, without those; `None` where nothing is left.
    lessened: Vec<(RouteId, Option<Arc<HttpRoute>>)>,
    /// Endpoints that were made in this translation, with what is wrong with them.
    pub(crate) made: BTreeMap<EndpointsId, (Arc<Endpoints>, Vec<Problem>)>,
    problems: BTreeSet<Problem>,
    claims: Vec<Claim>,
    demands: Vec<Demand>,
    assigned: BTreeMap<ObjectName, Assigned>,
    ports: BTreeMap<PortWish, u16>,
    allocations: Allocations,
    pub(crate) services: BTreeMap<ObjectName, DesiredService>,
}

impl<'w> Builder<'w> {
    pub(crate) fn new(world: &'w World, settings: &'w Settings, previous: Option<&'w Translation>) -> Self {
        let previous_memo = previous.and_then(|translation| translation.memo.as_deref());
        let before = previous_memo.map(|memo| (&memo.endpoint_slices, &memo.slices));
        Self {
            world,
            settings,
            statuses: Statuses::default(),
            snapshot: Snapshot::default(),
            slices: SliceIndex::new(&world.endpoint_slices, before),
            previous: previous.map(|translation| &translation.snapshot),
            previous_memo,
            memo: None,
            recording: None,
            routes: Vec::new(),
            backends: Vec::new(),
            made_backends: BTreeMap::new(),
            endpoints: Vec::new(),
            before: (0, 0),
            lessened: Vec::new(),
            made: BTreeMap::new(),
            problems: BTreeSet::new(),
            claims: Vec::new(),
            demands: Vec::new(),
            assigned: BTreeMap::new(),
            ports: BTreeMap::new(),
            allocations: Allocations::new(),
            services: BTreeMap::new(),
        }
    }

    pub fn problem(&mut self, problem: Problem) {
        match &mut self.recording {
            Some(recording) => recording.problems.push(problem),
            None => _ = self.problems.insert(problem),
        }
    }

    /// From now on until [`Builder::recorded`], what is added is one route's.
    pub(crate) fn record(&mut self) {
        self.recording = Some(Recording::default());
    }

    pub(crate) fn recorded(&mut self) -> Recording {
        self.recording.take().unwrap_or_default()
    }

    /// Something about the recording, if there is one.
    pub(crate) fn note<R>(&mut self, note: impl FnOnce(&mut Recording) -> R) -> Option<R> {
        self.recording.as_mut().map(note)
    }

    /// Takes what all remembered routes came to.
    pub(crate) fn memo(&mut self, memo: Memo) {
        self.before = (self.backends.len(), self.endpoints.len());
        self.memo = Some(memo);
    }

    /// Something its author asked for does not work.
    pub fn error(&mut self, origin: &Origin, field: impl Into<String>, message: impl Into<String>, fix: &str) {
        self.say(Severity::Error, origin, field.into(), message.into(), fix);
    }

    /// Something works differently from what its author may expect.
    pub fn warning(&mut self, origin: &Origin, field: impl Into<String>, message: impl Into<String>, fix: &str) {
        self.say(Severity::Warning, origin, field.into(), message.into(), fix);
    }

    fn say(&mut self, severity: Severity, origin: &Origin, field: String, message: String, fix: &str) {
        self.problem(Problem {
            origin: origin.clone(),
            field,
            severity,
            message,
            fix: fix.to_owned(),
        });
    }

    pub fn add_route(&mut self, mut route: HttpRoute) {
        route.shrink_to_fit();
        let route = shared(&route.id.clone(), route, self.previous.map(|p| &p.routes));
        match &mut self.recording {
            Some(recording) => recording.routes.push(route),
            None => self.routes.push(route),
        }
    }

    pub(crate) fn add_backend(&mut self, backend: Backend) {
        let known = self.made_backends.get(&backend.id).filter(|known| ***known == backend);
        let backend = match known {
            Some(known) => Arc::clone(known),
            None => {
                let backend = shared(&backend.id.clone(), backend, self.previous.map(|p| &p.backends));
                self.made_backends.insert(backend.id.clone(), Arc::clone(&backend));
                backend
            }
        };
        match &mut self.recording {
            Some(recording) if recording.backends.iter().any(|known| known.id == backend.id) => {}
            Some(recording) => recording.backends.push(backend),
            None => self.backends.push(backend),
        }
    }

    pub(crate) fn add_endpoints(&mut self, endpoints: Arc<Endpoints>) {
        match &mut self.recording {
            Some(recording) if recording.endpoints.iter().any(|known| known.id == endpoints.id) => {}
            Some(recording) => recording.endpoints.push(endpoints),
            None => self.endpoints.push(endpoints),
        }
    }

    /// Asks for a bind. Whether it is granted is known after [`Builder::settle_binds`].
    pub fn claim(&mut self, claim: Claim) {
        self.claims.push(claim);
    }

    /// Asks for addresses.
    pub(crate) fn demand(&mut self, demand: Demand) {
        self.demands.push(demand);
    }

    /// Gives everybody who asked the addresses to be had.
    pub(crate) fn assign_addresses(&mut self) {
        let (assigned, allocations) = address::assign(self.settings, &std::mem::take(&mut self.demands));
        self.allocations = allocations;
        // Whoever wants it announced has it announced.
        let mut owned: BTreeMap<OwnedPrefix, bool> = BTreeMap::new();
        for (prefix, announce) in assigned.values().flat_map(|a| &a.owned) {
            *owned.entry(OwnedPrefix(*prefix)).or_default() |= announce;
        }
        self.snapshot.owned = self.ownerships(&owned).into_iter().collect();
        self.assigned = assigned;
    }

    /// With who announces them, if somebody is to.
    fn ownerships(&self, owned: &BTreeMap<OwnedPrefix, bool>) -> Vec<(OwnedPrefix, Ownership)> {
        let Settings { nodes, held, .. } = self.settings;
        let announced = owned.iter().filter(|(_, announce)| **announce);
        let announced = announced.map(|(prefix, _)| *prefix).collect();
        let elected = nodes.as_ref().map(|nodes| election::elect(nodes, &announced, held));
        let each = owned.iter().map(|(prefix, announce)| {
            let announcer = announce.then(|| match &elected {
                None => Announcer::Here,
                // Nobody there to announce it: nobody has an empty name.
                Some(elected) => Announcer::Node(elected.get(prefix).map_or_else(|| "".into(), Arc::clone)),
            });
            let round = held.get(prefix).filter(|_| *announce).map_or(0, |held| held.round);
            let ownership = Ownership {
                on_miss: self.settings.on_miss,
                announcer,
                round,
            };
            (*prefix, ownership)
        });
        each.collect()
    }

    /// What came of a demand.
    pub(crate) fn assigned(&mut self, owner: &ObjectName) -> Assigned {
        self.assigned.remove(owner).unwrap_or_default()
    }

    /// Whether the addresses of `owner` lead through a Service.
    pub(crate) fn wants_service(&self, owner: &ObjectName) -> bool {
        self.assigned
            .get(owner)
            .is_some_and(|assigned| assigned.service.is_some())
    }

    /// Gives each wish a port of the nodes, or says that there is none left.
    pub(crate) fn assign_ports(&mut self, wishes: &PortWishes) {
        self.ports = service::ports(self.world, self.settings, wishes);
        if self.settings.allocate {
            for wish in &wishes.wanted {
                if self.ports.contains_key(wish) {
                    continue;
                }
                self.error(
                    &wish.owner,
                    "",
                    format!(
                        "port {} of its Service leads nowhere: every port kept for that is taken",
                        wish.port
                    ),
                    "widen the range of ports for Services",
                );
            }
        }
    }

    pub(crate) fn port(&self, wish: &PortWish) -> Option<u16> {
        self.ports.get(wish).copied()
    }

    /// Ports of the Service of `owner`, and those of the nodes that they lead to.
    pub(crate) fn targets(&self, owner: &Origin) -> Vec<(Transport, u16, u16)> {
        let first = PortWish {
            owner: owner.clone(),
            transport: Transport::Tcp,
            port: 0,
        };
        let own = self.ports.range(first..).take_while(|(wish, _)| wish.owner == *owner);
        own.map(|(wish, target)| (wish.transport, wish.port, *target)).collect()
    }

    /// Adds a Service that is to be made. Of two of one name the first counts.
    ///
    /// # Errors
    /// When a Service of that name is somebody else's: it is left alone. What to say about that, and the fix.
    pub(crate) fn add_service(
        &mut self,
        name: ObjectName,
        service: DesiredService,
    ) -> Result<(), (String, &'static str)> {
        let present = self.world.services.get(&name.namespace, &name.name);
        let foreign = present.is_some_and(|present| service::is_foreign(present, &service.owner));
        if foreign || self.services.contains_key(&name) {
            return Err(service::taken(&name));
        }
        self.services.insert(name, service);
        Ok(())
    }

    /// Decides who has which bind, puts the binds into the snapshot, and takes refused listeners out of the routes.
    pub(crate) fn settle_binds(&mut self) -> Refused {
        let settled = bind::settle(std::mem::take(&mut self.claims), &self.settings.machine_addresses);
        self.snapshot.binds = settled.binds.into_iter().collect();
        for problem in settled.problems {
            self.problem(problem);
        }
        // A listener that was refused everywhere no longer exists, so nothing may name it.
        let listening: BTreeSet<_> = self
            .snapshot
            .binds
            .values()
            .flat_map(|bind| bind.listeners.iter().map(|listener| &listener.id))
            .collect();
        let previous = self.previous.map(|p| &p.routes);
        let whole = |route: &HttpRoute| route.attachments.iter().all(|a| listening.contains(&a.listener));
        let lessen = |route: &Arc<HttpRoute>| {
            let mut less = HttpRoute::clone(route);
            less.attachments.retain(|a| listening.contains(&a.listener));
            (!less.attachments.is_empty()).then(|| shared(&less.id.clone(), less, previous))
        };
        self.routes = std::mem::take(&mut self.routes)
            .into_iter()
            .filter_map(|route| if whole(&route) { Some(route) } else { lessen(&route) })
            .collect();
        let sum = self.memo.as_ref().map(|memo| &memo.sum);
        let absent = sum.into_iter().flat_map(|sum| {
            let absent = sum.listeners().filter(|listener| !listening.contains(listener));
            absent
                .flat_map(|listener| sum.naming(listener))
                .map(move |id| (id, sum))
        });
        let lessened: BTreeMap<&RouteId, Option<Arc<HttpRoute>>> = absent
            .map(|(id, sum)| (id, sum.routes.get(id).and_then(&lessen)))
            .collect();
        self.lessened = lessened.into_iter().map(|(id, route)| (id.clone(), route)).collect();
        settled.refused
    }

    pub(crate) fn finish(mut self) -> Translation {
        let sum = self.memo.as_ref().map(|memo| memo.sum.clone()).unwrap_or_default();
        self.problems.extend(sum.problems().cloned());
        self.snapshot.routes = sum.routes;
        for (id, route) in self.lessened {
            match route {
                Some(route) => self.snapshot.routes.insert(id, route),
                None => self.snapshot.routes.remove(&id),
            };
        }
        add(&mut self.snapshot.routes, (0, self.routes), |route| &route.id);
        self.snapshot.backends = sum.backends.values;
        add(&mut self.snapshot.backends, (self.before.0, self.backends), |backend| {
            &backend.id
        });
        self.snapshot.endpoints = sum.endpoints.values;
        add(
            &mut self.snapshot.endpoints,
            (self.before.1, self.endpoints),
            |endpoints| &endpoints.id,
        );
        let fleet = fleet::fleet(self.world, self.settings, &self.slices.by_service);
        self.snapshot.fleet = fleet
            .map(|fleet| (fleet.id.clone(), fleet.into()))
            .into_iter()
            .collect();
        Translation {
            memo: self.memo.map(Arc::new),
            snapshot: self.snapshot,
            statuses: self.statuses,
            problems: self.problems.into_iter().collect(),
            allocations: self.allocations,
            services: self.services,
        }
    }
}

/// Adds values to those of remembered routes. The first of a name counts, and the first `before` of `values` come before the
/// routes.
fn add<K: Ord + Clone, V: PartialEq>(
    known: &mut Map<K, Arc<V>>,
    (before, values): (usize, Vec<Arc<V>>),
    name: impl Fn(&V) -> &K,
) {
    if known.is_empty() {
        // The last of a name counts there.
        *known = values
            .into_iter()
            .rev()
            .map(|value| (name(&value).clone(), value))
            .collect();
        return;
    }
    let mut values = values;
    let after = values.split_off(before);
    // From the last to the first, so that the first stays.
    for value in values.into_iter().rev() {
        let same = known.get(name(&value)).is_some_and(|known| Arc::ptr_eq(known, &value));
        if !same {
            known.insert(name(&value).clone(), value);
        }
    }
    for value in after {
        if !known.contains_key(name(&value)) {
            known.insert(name(&value).clone(), value);
        }
    }
}
