use std::{collections::HashMap, sync::Arc};

use foldhash::fast::RandomState;
use pierhead_model::{HostPattern, HostSelection, HttpRoute, HttpRule, ListenerId, PathMatch};

use crate::{
    HostMap, Rank,
    condition::{Condition, Request},
    paths::{Candidate, PathIndex},
};

/// The routes of one listener, ready to be asked.
///
/// `T` is what the caller keeps per route (compiled backends, metric cells): a cheap handle, such as an `Arc`.
#[derive(Debug)]
pub struct RouteTable<T> {
    selection: HostSelection,
    hosts: HostMap<Arc<HostRules<T>>>,
}

#[derive(Debug)]
struct HostRules<T> {
    /// What it was compiled from, to recognise an unchanged host.
    sources: Vec<(Arc<HttpRoute>, T)>,
    paths: PathIndex<Target<T>>,
}

#[derive(Clone, Debug)]
struct Target<T> {
    route: Arc<HttpRoute>,
    handle: T,
    rule: usize,
}

/// The rule that serves a request.
#[derive(Debug)]
pub struct Found<'t, T> {
    pub route: &'t Arc<HttpRoute>,
    /// What the caller gave for the route.
    pub handle: &'t T,
    /// Index into `route.rules`.
    pub rule_number: usize,
    /// The path match that held: a prefix rewrite replaces what it matched.
    pub path: &'t PathMatch,
}

impl<T> Found<'_, T> {
    pub fn rule(&self) -> Option<&HttpRule> {
        self.route.rules.get(self.rule_number)
    }
}

impl<T: Clone + PartialEq> RouteTable<T> {
    /// Compiles those of `routes` that are attached to `listener`. Hosts whose routes did not change (same `Arc`, equal
    /// handle) are taken over from `previous`.
    pub fn compile<'a>(
        listener: &ListenerId,
        selection: HostSelection,
        routes: impl IntoIterator<Item = (&'a Arc<HttpRoute>, T)>,
        previous: Option<&Self>,
    ) -> Self {
        let mut by_host = HashMap::<&'a HostPattern, Vec<(&'a Arc<HttpRoute>, T)>, RandomState>::default();
        for (route, handle) in routes {
            let mut seen: Vec<&HostPattern> = Vec::new();
            let attached = route.attachments.iter().filter(|a| a.listener == *listener);
            for host in attached.flat_map(|attachment| hosts_of(route, &attachment.hosts)) {
                if !seen.contains(&host) {
                    seen.push(host);
                    by_host.entry(host).or_default().push((route, handle.clone()));
                }
            }
        }
        let mut hosts = HostMap::default();
        for (host, sources) in by_host {
            let unchanged = previous.and_then(|p| p.hosts.get(host)).filter(|old| {
                old.sources.len() == sources.len()
                    && old
                        .sources
                        .iter()
                        .zip(&sources)
                        .all(|(a, b)| Arc::ptr_eq(&a.0, b.0) && a.1 == b.1)
            });
            let rules = unchanged
                .cloned()
                .unwrap_or_else(|| Arc::new(compile_host(listener, host, &sources)));
            hosts.insert(host, rules);
        }
        Self { selection, hosts }
    }
}

impl<T> RouteTable<T> {
    /// The best match for `request`, by host specificity and then by [`Rank`].
    pub fn find<R: Request + ?Sized>(&self, request: &R) -> Option<Found<'_, T>> {
        // Bound to the table, not to the request.
        let hosts = &self.hosts;
        let found = match self.selection {
            HostSelection::FallThrough => hosts
                .matching(request.host())
                .find_map(|rules| rules.paths.find(request)),
            HostSelection::BestOnly => hosts.best(request.host()).and_then(|rules| rules.paths.find(request)),
        };
        found.map(|candidate| Found {
            route: &candidate.rule.route,
            handle: &candidate.rule.handle,
            rule_number: candidate.rule.rule,
            path: &candidate.path,
        })
    }

    /// Number of host patterns with rules.
    pub fn host_count(&self) -> usize {
        self.hosts.len()
    }
}

/// The hosts under which some rule of `route` stands, given those of its attachment.
fn hosts_of<'a>(route: &'a HttpRoute, attached: &'a [HostPattern]) -> impl Iterator<Item = &'a HostPattern> {
    let inherits = route.rules.iter().any(|rule| rule.hosts.is_none());
    let own = route.rules.iter().flat_map(|rule| rule.hosts.iter().flatten());
    attached.iter().filter(move |_| inherits).chain(own)
}

fn compile_host<T: Clone>(listener: &ListenerId, host: &HostPattern, sources: &[(&Arc<HttpRoute>, T)]) -> HostRules<T> {
    let mut candidates = Vec::new();
    for (route, handle) in sources {
        let inherited = route
            .attachments
            .iter()
            .any(|a| a.listener == *listener && a.hosts.contains(host));
        for (number, rule) in route.rules.iter().enumerate() {
            let stands_here = rule.hosts.as_ref().map_or(inherited, |own| own.contains(host));
            if !stands_here {
                continue;
            }
            for (alternative, wanted) in rule.matches.iter().enumerate() {
                // `translate` lets no pattern through that does not compile.
                if let Some(condition) = Condition::compile(wanted) {
                    candidates.push(Candidate {
                        rank: Rank::of(&route.age, rule, number, wanted, alternative),
                        path: wanted.path.clone(),
                        condition,
                        rule: Target {
                            route: Arc::clone(route),
                            handle: handle.clone(),
                            rule: number,
                        },
                    });
                }
            }
        }
    }
    HostRules {
        sources: sources
            .iter()
            .map(|(route, handle)| (Arc::clone(route), handle.clone()))
            .collect(),
        paths: PathIndex::new(candidates),
    }
}
