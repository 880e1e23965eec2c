//! Compiled routes, sorted by the listeners they are attached to. They stay from one snapshot to the next, so that a change
//! costs what it touches and not what there is.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use foldhash::fast::RandomState;
use pierhead_model::{BackendId, HttpRoute, ListenerId, Map, Origin, RouteId};
use pierhead_route::Routes;

use crate::{http::RouteHandle, upstream::Backends};

type Entry = (Arc<HttpRoute>, RouteHandle);

#[derive(Debug, Default)]
pub(super) struct Attached {
    /// What it was compiled from.
    routes: Map<RouteId, Arc<HttpRoute>>,
    entries: Routes<RouteHandle>,
    /// Who leads to which backend.
    users: BTreeSet<(BackendId, RouteId)>,
    /// The same `Arc` as long as nothing of it changes.
    by_listener: HashMap<ListenerId, Arc<Routes<RouteHandle>>, RandomState>,
    /// Of listeners without any.
    none: Arc<Routes<RouteHandle>>,
}

impl Attached {
    /// Compiles what is new or changed, or leads to a backend that is. `touched`: the backends that are not what they were the
    /// last time.
    pub(super) fn update(
        &mut self,
        routes: &Map<RouteId, Arc<HttpRoute>>,
        backends: &Backends,
        touched: &BTreeSet<BackendId>,
    ) {
        let changed = self.changed(routes, backends, touched);
        self.routes = routes.clone();
        for (id, next) in changed {
            let before = match &next {
                Some(entry) => self.entries.insert(id.clone(), entry.clone()),
                None => self.entries.remove(&id),
            };
            for backend in before.iter().flat_map(|(route, _)| route.backends()) {
                self.users.remove(&(backend.clone(), id.clone()));
            }
            for backend in next.iter().flat_map(|(route, _)| route.backends()) {
                self.users.insert((backend.clone(), id.clone()));
            }
            for attachment in before.iter().flat_map(|(route, _)| &route.attachments) {
                let stays = |(route, _): &Entry| route.attachments.iter().any(|a| a.listener == attachment.listener);
                if !next.as_ref().is_some_and(stays) {
                    self.take(&attachment.listener, &id);
                }
            }
            if let Some((route, handle)) = next {
                for attachment in &route.attachments {
                    let routes = self.by_listener.entry(attachment.listener.clone()).or_default();
                    Arc::make_mut(routes).insert(id.clone(), (Arc::clone(&route), handle.clone()));
                }
            }
        }
    }

    /// Takes a route from a listener.
    fn take(&mut self, listener: &ListenerId, id: &RouteId) {
        let Some(routes) = self.by_listener.get_mut(listener) else {
            return;
        };
        Arc::make_mut(routes).remove(id);
        if routes.is_empty() {
            self.by_listener.remove(listener);
        }
    }

    /// The routes of a listener.
    pub(super) fn of(&self, listener: &ListenerId) -> Arc<Routes<RouteHandle>> {
        Arc::clone(self.by_listener.get(listener).unwrap_or(&self.none))
    }

    /// What differs from the last time; `None`: gone.
    fn changed(
        &self,
        routes: &Map<RouteId, Arc<HttpRoute>>,
        backends: &Backends,
        touched: &BTreeSet<BackendId>,
    ) -> BTreeMap<RouteId, Option<Entry>> {
        let compiled = |route: &Arc<HttpRoute>| Some((Arc::clone(route), RouteHandle::compile(route, backends)));
        let mut changed = BTreeMap::new();
        for (id, now, _) in routes.changes(&self.routes) {
            let Some(route) = now else {
                changed.insert(id.clone(), None);
                continue;
            };
            // An equal route stays the same `Arc`, so that its hosts are recognised as unchanged.
            let known = self.entries.get(id);
            if known.is_none_or(|(known, _)| !Arc::ptr_eq(known, route) && known != route) {
                changed.insert(id.clone(), compiled(route));
            }
        }
        let first = RouteId(Origin::new("", "", ""));
        for backend in touched {
            let users = self.users.range((backend.clone(), first.clone())..);
            for (_, id) in users.take_while(|(of, _)| of == backend) {
                if let Some((route, handle)) = self.entries.get(id)
                    && !changed.contains_key(id)
                    && !handle.is_current(backends)
                {
                    changed.insert(id.clone(), compiled(route));
                }
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use pierhead_model::{
        Age, Attachment, Backend, BackendProtocol, BackendTarget, Filter, HostPattern, HttpRule, InvalidReason,
        MirrorFilter, MirrorFraction, RouteFlavor, Snapshot, Timeouts, WeightedBackend,
    };

    use super::*;
    use crate::{observe::Registry, upstream::Resolved};

    fn listener(number: u64) -> ListenerId {
        ListenerId {
            owner: Origin::new("Gateway", "ns", "gw"),
            name: number.to_string().into(),
        }
    }

    /// A route of some of three listeners; another age makes it another route of that id.
    fn route(number: u64, listeners: u64, age: i64) -> Arc<HttpRoute> {
        let name = format!("r{number}");
        let attached = (0..3).filter(|bit| listeners >> bit & 1 == 1).map(|bit| Attachment {
            listener: listener(bit),
            hosts: vec![HostPattern::Any],
        });
        Arc::new(HttpRoute {
            id: RouteId(Origin::new("HTTPRoute", "ns", &name)),
            flavor: RouteFlavor::Http,
            age: Age {
                created: age,
                namespace: "ns".into(),
                name: name.as_str().into(),
            },
            attachments: attached.collect(),
            rules: Vec::new(),
        })
    }

    #[test]
    fn a_thousand_changes_come_to_what_one_look_at_the_end_does() {
        let backends = Backends::default();
        let mut random = 7_u64;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % below
        };
        let mut attached = Attached::default();
        let mut routes = Map::<RouteId, Arc<HttpRoute>>::new();
        for step in 0..1000 {
            let before = [0, 1, 2].map(|number| attached.of(&listener(number)));
            let (number, listeners) = (next(60), next(8));
            let old = routes.remove(&route(number, 0, 0).id);
            let touched = match next(4) {
                0 => old.iter().cloned().collect::<Vec<_>>(),
                // The same again, at another place in memory.
                1 if old.is_some() => {
                    let same: Arc<HttpRoute> = old.map(|old| HttpRoute::clone(&old).into()).unwrap();
                    routes.insert(same.id.clone(), same);
                    Vec::new()
                }
                _ => {
                    let new = route(number, listeners, step);
                    routes.insert(new.id.clone(), Arc::clone(&new));
                    old.into_iter().chain([new]).collect()
                }
            };
            attached.update(&routes, &backends, &BTreeSet::new());
            for (number, before) in (0..).zip(&before) {
                let now = attached.of(&listener(number));
                let names = |route: &HttpRoute| route.attachments.iter().any(|a| a.listener == listener(number));
                let expected: Vec<_> = routes.values().filter(|route| names(route)).collect();
                let found: Vec<_> = now.iter().map(|(_, (route, _))| route).collect();
                assert_eq!(found, expected, "step {step}");
                let is_same = Arc::ptr_eq(before, &now);
                let is_touched = touched.iter().any(|route| names(route));
                assert!(is_same || is_touched, "step {step}: nobody touched listener {number}");
            }
        }
    }

    #[test]
    fn a_route_follows_the_backends_that_it_names_and_no_others() {
        let (registry, resolved) = (Registry::new(1), Resolved::default());
        let named = |number: u64| BackendId::new(&format!("b{number}"));
        let mut snapshot = Snapshot::default();
        for number in 0..6 {
            let mut route = HttpRoute::clone(&route(number, 1, 0));
            // The share, the mirror of the rule, and the one of the share's reference.
            let [share, copy, second] = [number, number + 1, number + 2].map(named);
            let mirror = |backend: BackendId| {
                let fraction = MirrorFraction {
                    numerator: 1,
                    denominator: 1,
                };
                Filter::Mirror(MirrorFilter { backend, fraction })
            };
            route.rules.push(HttpRule {
                name: None,
                hosts: None,
                matches: Vec::new(),
                filters: vec![mirror(copy)],
                backends: vec![WeightedBackend {
                    backend: share,
                    weight: 1,
                    filters: vec![mirror(second)],
                }],
                timeouts: Timeouts::default(),
                retry: None,
                fallback: false,
            });
            snapshot.routes.insert(route.id.clone(), Arc::new(route));
        }
        let (mut backends, mut attached) = (Backends::default(), Attached::default());
        // There, another, gone, there again; first all are missing.
        for step in 0..40_u64 {
            let id = named(step % 8);
            let message = (step / 8).to_string();
            match step / 8 {
                0 => None,
                2 => snapshot.backends.remove(&id),
                _ => snapshot.backends.insert(
                    id.clone(),
                    Arc::new(Backend {
                        id: id.clone(),
                        origin: Origin::new("Service", "ns", "s"),
                        target: BackendTarget::Invalid {
                            reason: InvalidReason::BackendNotFound,
                            message,
                        },
                        protocol: BackendProtocol::Http1,
                        tls: None,
                    }),
                ),
            };
            let before = attached.entries.clone();
            let touched = backends.update(&snapshot, &resolved, &registry).touched;
            attached.update(&snapshot.routes, &backends, &touched);
            for (id, (route, handle)) in &attached.entries {
                assert!(handle.is_current(&backends), "step {step}: {id}");
                let names = route.backends().any(|backend| touched.contains(backend));
                let kept = before.get(id).is_some_and(|(_, old)| old == handle);
                assert_eq!(kept, step > 0 && !names, "step {step}: {id}");
            }
        }
    }
}
