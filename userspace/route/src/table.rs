use std::{
    cmp::Ordering,
    collections::{HashMap, HashSet},
    sync::Arc,
};

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
    /// Everything it was compiled from, in the order of route ids.
    sources: Vec<Source<T>>,
    hosts: HostMap<Arc<HostRules<T>>>,
}

/// A route and its handle.
#[derive(Clone, Debug)]
struct Source<T> {
    route: Arc<HttpRoute>,
    handle: T,
}

#[derive(Debug)]
struct HostRules<T> {
    /// The routes with rules under this host, in the order of route ids.
    sources: Vec<Source<T>>,
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
    /// Compiles those of `routes` that are attached to `listener`.
    ///
    /// Work is proportional to what changed since `previous` (same `Arc` and equal handle is unchanged), but for one
    /// comparison per route and one copy of the map of hosts.
    #[allow(single_use_lifetimes, reason = "`impl Trait` in argument position cannot elide it")]
    pub fn compile<'a>(
        listener: &ListenerId,
        selection: HostSelection,
        routes: impl IntoIterator<Item = (&'a Arc<HttpRoute>, T)>,
        previous: Option<&Self>,
    ) -> Self {
        let mut sources: Vec<_> = routes
            .into_iter()
            .filter(|(route, _)| route.attachments.iter().any(|a| a.listener == *listener))
            .map(|(route, handle)| Source {
                route: Arc::clone(route),
                handle,
            })
            .collect();
        sources.sort_by(|a, b| a.route.id.cmp(&b.route.id));
        let change = Change::between(previous.map_or(&[], |p| &p.sources), &sources);
        let gone: HashSet<_, RandomState> = change.gone.iter().map(|s| Arc::as_ptr(&s.route)).collect();
        let mut by_host = HashMap::<&HostPattern, Vec<&Source<T>>, RandomState>::default();
        for host in change.gone.iter().flat_map(|source| hosts_of(&source.route, listener)) {
            by_host.entry(host).or_default();
        }
        for source in &change.come {
            for host in hosts_of(&source.route, listener) {
                by_host.entry(host).or_default().push(source);
            }
        }
        let mut hosts = previous.map_or_else(HostMap::default, |p| p.hosts.clone());
        for (host, come) in by_host {
            let old = hosts.remove(host);
            let stay = old
                .iter()
                .flat_map(|rules| &rules.sources)
                .filter(|s| !gone.contains(&Arc::as_ptr(&s.route)));
            let mut now: Vec<_> = stay.chain(come).cloned().collect();
            now.sort_by(|a, b| a.route.id.cmp(&b.route.id));
            if !now.is_empty() {
                hosts.insert(host, Arc::new(compile_host(listener, host, now)));
            }
        }
        Self {
            selection,
            sources,
            hosts,
        }
    }
}

/// What differs between two lists in the order of route ids. A changed route is in both.
struct Change<'a, T> {
    gone: Vec<&'a Source<T>>,
    come: Vec<&'a Source<T>>,
}

impl<'a, T: PartialEq> Change<'a, T> {
    fn between(old: &'a [Source<T>], new: &'a [Source<T>]) -> Self {
        let mut change = Self {
            gone: Vec::new(),
            come: Vec::new(),
        };
        let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => return change,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(a), Some(b)) if Arc::ptr_eq(&a.route, &b.route) && a.handle == b.handle => {
                    old.next();
                    new.next();
                    continue;
                }
                (Some(a), Some(b)) => a.route.id.cmp(&b.route.id),
            };
            if order.is_le() {
                change.gone.extend(old.next());
            }
            if order.is_ge() {
                change.come.extend(new.next());
            }
        }
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

/// The hosts under which some rule of `route` stands at `listener`, each once.
fn hosts_of<'a>(route: &'a HttpRoute, listener: &ListenerId) -> Vec<&'a HostPattern> {
    let inherits = route.rules.iter().any(|rule| rule.hosts.is_none());
    let attached = route
        .attachments
        .iter()
        .filter(|a| inherits && a.listener == *listener)
        .flat_map(|a| &a.hosts);
    let own = route.rules.iter().flat_map(|rule| rule.hosts.iter().flatten());
    let mut hosts: Vec<_> = attached.chain(own).collect();
    hosts.sort_unstable();
    hosts.dedup();
    hosts
}

fn compile_host<T: Clone>(listener: &ListenerId, host: &HostPattern, sources: Vec<Source<T>>) -> HostRules<T> {
    let mut candidates = Vec::new();
    for Source { route, handle } in &sources {
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
        paths: PathIndex::new(candidates),
        sources,
    }
}
