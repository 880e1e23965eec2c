use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use foldhash::fast::RandomState;
use pierhead_model::{
    Attachment, HostPattern, HostSelection, HttpRoute, HttpRule, ListenerId, Map, PathMatch, RouteId,
};

use crate::{
    HostMap, Rank,
    condition::{Condition, Request},
    paths::{Candidate, Entry, PathIndex},
};

/// A route, and what the caller keeps of it (compiled backends, metric cells): a cheap handle, such as an `Arc`.
type Source<T> = (Arc<HttpRoute>, T);

/// Routes and their handles.
pub type Routes<T> = Map<RouteId, Source<T>>;

/// The routes of one listener, ready to be asked. `T` is the handle of [`Routes`].
#[derive(Debug)]
pub struct RouteTable<T> {
    listener: ListenerId,
    selection: HostSelection,
    /// Everything it was compiled from.
    sources: Routes<T>,
    hosts: HostMap<Arc<HostRules<T>>>,
}

#[derive(Debug)]
struct HostRules<T> {
    /// The routes with rules under this host, in the order of route ids.
    sources: Box<[Source<T>]>,
    paths: PathIndex<Target<T>>,
}

#[derive(Debug)]
struct Target<T> {
    route: Arc<HttpRoute>,
    handle: T,
    rule: u32,
    alternative: u32,
}

/// The rule that serves a request.
#[derive(Debug)]
pub struct Found<'t, T> {
    pub route: &'t Arc<HttpRoute>,
    /// What the caller gave for the route.
    pub handle: &'t T,
    /// Index into `route.rules`.
    pub rule_number: usize,
    /// Index into the rule's `matches`.
    alternative: usize,
}

impl<'t, T> Found<'t, T> {
    pub fn rule(&self) -> Option<&'t HttpRule> {
        self.route.rules.get(self.rule_number)
    }

    /// The path match that held: a prefix rewrite replaces what it matched.
    pub fn path(&self) -> Option<&'t PathMatch> {
        Some(&self.rule()?.matches.get(self.alternative)?.path)
    }
}

impl<T: Clone + PartialEq> RouteTable<T> {
    /// Compiles those of `routes` that are attached to `listener`.
    ///
    /// Work is proportional to what changed since `previous` (same `Arc` and equal handle is unchanged) where `routes` came of
    /// those it was compiled from. Hosts that mean the same in one of `siblings` share its memory: the listeners of a
    /// Gateway often have the same routes.
    pub fn compile(
        listener: &ListenerId,
        selection: HostSelection,
        routes: &Routes<T>,
        previous: Option<&Self>,
        siblings: &[&Self],
    ) -> Self {
        let none = Routes::new();
        let mut gone = HashSet::<_, RandomState>::default();
        let mut by_host = HashMap::<&HostPattern, Vec<Source<T>>, RandomState>::default();
        for (_, now, before) in routes.changes(previous.map_or(&none, |p| &p.sources)) {
            if now.zip(before).is_some_and(|(now, before)| is_same(now, before)) {
                continue;
            }
            if let Some((route, _)) = before {
                gone.insert(Arc::as_ptr(route));
                for host in hosts_of(route, listener) {
                    by_host.entry(host).or_default();
                }
            }
            if let Some(source) = now {
                for host in hosts_of(&source.0, listener) {
                    by_host.entry(host).or_default().push(source.clone());
                }
            }
        }
        let mut hosts = previous.map_or_else(HostMap::default, |p| p.hosts.clone());
        for (host, come) in by_host {
            let old = hosts.remove(host);
            let stay = old
                .iter()
                .flat_map(|rules| &rules.sources)
                .filter(|(route, _)| !gone.contains(&Arc::as_ptr(route)));
            let mut now: Vec<_> = stay.cloned().chain(come).collect();
            now.sort_by(|(a, _), (b, _)| a.id.cmp(&b.id));
            if !now.is_empty() {
                let same = siblings
                    .iter()
                    .find_map(|sibling| sibling.same_host(host, &now, listener));
                let rules = same.unwrap_or_else(|| Arc::new(compile_host(listener, host, now)));
                hosts.insert(host, rules);
            }
        }
        Self {
            listener: listener.clone(),
            selection,
            sources: routes.clone(),
            hosts,
        }
    }

    /// The rules of `host`, if they are what `sources` would come to for `listener`.
    fn same_host(&self, host: &HostPattern, sources: &[Source<T>], listener: &ListenerId) -> Option<Arc<HostRules<T>>> {
        let rules = self.hosts.get(host)?;
        let same = |(a, b): (&Source<T>, &Source<T>)| {
            is_same(a, b) && inherits(&a.0, &self.listener, host) == inherits(&b.0, listener, host)
        };
        let all = rules.sources.len() == sources.len() && rules.sources.iter().zip(sources).all(same);
        all.then(|| Arc::clone(rules))
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
        found.map(|Candidate { rule: target, .. }| Found {
            route: &target.route,
            handle: &target.handle,
            rule_number: target.rule as usize,
            alternative: target.alternative as usize,
        })
    }

    /// Number of host patterns with rules.
    pub fn host_count(&self) -> usize {
        self.hosts.len()
    }
}

fn is_same<T: PartialEq>(a: &Source<T>, b: &Source<T>) -> bool {
    Arc::ptr_eq(&a.0, &b.0) && a.1 == b.1
}

/// The hosts under which some rule of `route` stands at `listener`, each once. None when it is not attached there.
fn hosts_of<'a>(route: &'a HttpRoute, listener: &ListenerId) -> Vec<&'a HostPattern> {
    if !route.attachments.iter().any(|a| a.listener == *listener) {
        return Vec::new();
    }
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

/// Whether rules of `route` that name no hosts of their own stand under `host`.
fn inherits(route: &HttpRoute, listener: &ListenerId, host: &HostPattern) -> bool {
    let attached = |a: &Attachment| a.listener == *listener && a.hosts.contains(host);
    route.attachments.iter().any(attached)
}

fn compile_host<T: Clone>(listener: &ListenerId, host: &HostPattern, sources: Vec<Source<T>>) -> HostRules<T> {
    let mut entries = Vec::new();
    for (route, handle) in &sources {
        let inherited = inherits(route, listener, host);
        for (number, rule) in route.rules.iter().enumerate() {
            let stands_here = rule.hosts.as_ref().map_or(inherited, |own| own.contains(host));
            if !stands_here {
                continue;
            }
            for (alternative, wanted) in rule.matches.iter().enumerate() {
                // `translate` lets no pattern through that does not compile, nor so many of anything.
                let (Some(condition), Ok(rule_number), Ok(alternative_number)) = (
                    Condition::compile(wanted),
                    u32::try_from(number),
                    u32::try_from(alternative),
                ) else {
                    continue;
                };
                entries.push(Entry {
                    rank: Rank::of(&route.age, rule, number, wanted, alternative),
                    path: &wanted.path,
                    candidate: Candidate {
                        condition: (!condition.is_empty()).then(|| Box::new(condition)),
                        rule: Target {
                            route: Arc::clone(route),
                            handle: handle.clone(),
                            rule: rule_number,
                            alternative: alternative_number,
                        },
                    },
                });
            }
        }
    }
    HostRules {
        paths: PathIndex::new(entries),
        sources: sources.into(),
    }
}
