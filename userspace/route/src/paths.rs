use std::collections::HashMap;

use foldhash::fast::RandomState;
use pierhead_model::PathMatch;
use regex::bytes::{Regex, RegexSet};

use crate::{
    condition::{Condition, Request, compile_pattern},
    rank::Rank,
};

/// One match of one rule.
#[derive(Debug)]
pub(crate) struct Candidate<T> {
    /// `None` holds for every request.
    pub(crate) condition: Option<Box<Condition>>,
    pub(crate) rule: T,
}

impl<T> Candidate<T> {
    fn holds<R: Request + ?Sized>(&self, request: &R) -> bool {
        self.condition.as_ref().is_none_or(|condition| condition.holds(request))
    }
}

/// A candidate with what decides where it goes. That is needed once: there are many candidates, and a table lives long.
#[derive(Debug)]
pub(crate) struct Entry<'r, T> {
    pub(crate) rank: Rank,
    pub(crate) path: &'r PathMatch,
    pub(crate) candidate: Candidate<T>,
}

/// Candidates by path. Each list is in order of rank; the places are visited in the order of [`Rank`]'s path classes, so
/// the first candidate whose condition holds is the best.
#[derive(Debug)]
pub(crate) struct PathIndex<T> {
    /// A segment trie; node 0 is the root, `Prefix /`.
    nodes: Box<[Node<T>]>,
    /// Whatever is no prefix: most hosts have prefixes only.
    others: Option<Box<Others<T>>>,
}

type ByText<T> = HashMap<Box<str>, Box<[Candidate<T>]>, RandomState>;

#[derive(Debug)]
struct Others<T> {
    exact: ByText<T>,
    regexes: Option<Regexes<T>>,
    grpc_methods: ByText<T>,
    fallback: Box<[Candidate<T>]>,
}

#[derive(Debug)]
struct Regexes<T> {
    /// Finds all that match in one pass; `None` where together they exceed the engine's size limit.
    set: Option<RegexSet>,
    each: Vec<Regex>,
    /// In the order of `set` and `each`, which is the order of rank.
    candidates: Vec<Candidate<T>>,
}

#[derive(Debug)]
struct Node<T> {
    children: Children,
    candidates: Box<[Candidate<T>]>,
}

/// Nodes by segment: a short list is faster to look through than to hash.
#[derive(Debug)]
enum Children {
    Few(Vec<(Box<str>, usize)>),
    #[expect(
        clippy::box_collection,
        reason = "seldom there, and most nodes have no children: each is as large as this"
    )]
    Many(Box<HashMap<Box<str>, usize, RandomState>>),
}

impl Children {
    const FEW: usize = 4;

    fn get(&self, segment: &str) -> Option<usize> {
        match self {
            Self::Few(list) => list.iter().find(|(name, _)| **name == *segment).map(|(_, node)| *node),
            Self::Many(map) => map.get(segment).copied(),
        }
    }

    fn insert(&mut self, segment: &str, node: usize) {
        match self {
            Self::Few(list) if list.len() < Self::FEW => {
                list.reserve_exact(1);
                list.push((segment.into(), node));
            }
            Self::Few(list) => {
                let mut map: HashMap<_, _, RandomState> = std::mem::take(list).into_iter().collect();
                map.insert(segment.into(), node);
                *self = Self::Many(Box::new(map));
            }
            Self::Many(map) => {
                map.insert(segment.into(), node);
            }
        }
    }
}

/// An index in the making: lists that still grow.
struct Draft<T> {
    nodes: Vec<(Children, Vec<Candidate<T>>)>,
    exact: HashMap<Box<str>, Vec<Candidate<T>>, RandomState>,
    patterns: Vec<Regex>,
    by_regex: Vec<Candidate<T>>,
    grpc_methods: HashMap<Box<str>, Vec<Candidate<T>>, RandomState>,
    fallback: Vec<Candidate<T>>,
}

impl<T> Draft<T> {
    fn new() -> Self {
        Self {
            nodes: vec![(Children::Few(Vec::new()), Vec::new())],
            exact: HashMap::default(),
            patterns: Vec::new(),
            by_regex: Vec::new(),
            grpc_methods: HashMap::default(),
            fallback: Vec::new(),
        }
    }

    fn add(&mut self, Entry { rank, path, candidate }: Entry<'_, T>) {
        if rank.is_fallback() {
            self.fallback.push(candidate);
            return;
        }
        match path {
            PathMatch::Exact(path) => self.exact.entry(path.as_ref().into()).or_default().push(candidate),
            PathMatch::GrpcMethod(name) => {
                self.grpc_methods
                    .entry(name.as_ref().into())
                    .or_default()
                    .push(candidate);
            }
            PathMatch::Regex(pattern) => {
                // `translate` lets no pattern through that does not compile.
                if let Some(regex) = compile_pattern(pattern) {
                    self.patterns.push(regex);
                    self.by_regex.push(candidate);
                }
            }
            PathMatch::Prefix(prefix) => {
                let node = self.node_of(prefix);
                if let Some((_, candidates)) = self.nodes.get_mut(node) {
                    candidates.push(candidate);
                }
            }
        }
    }

    /// The node of a prefix, made where missing. A trailing slash is ignored.
    fn node_of(&mut self, prefix: &str) -> usize {
        let mut at = 0;
        let trimmed = prefix.trim_end_matches('/');
        for segment in trimmed.strip_prefix('/').into_iter().flat_map(|p| p.split('/')) {
            let next = self.nodes.len();
            let Some((children, _)) = self.nodes.get_mut(at) else {
                return 0;
            };
            at = children.get(segment).unwrap_or_else(|| {
                children.insert(segment, next);
                next
            });
            if at == next {
                self.nodes.push((Children::Few(Vec::new()), Vec::new()));
            }
        }
        at
    }

    fn done(self) -> PathIndex<T> {
        let boxed = |map: HashMap<Box<str>, Vec<_>, RandomState>| -> ByText<T> {
            map.into_iter().map(|(text, list)| (text, list.into())).collect()
        };
        let regexes = (!self.patterns.is_empty()).then(|| Regexes {
            set: RegexSet::new(self.patterns.iter().map(Regex::as_str)).ok(),
            each: self.patterns,
            candidates: self.by_regex,
        });
        let only_prefixes =
            self.exact.is_empty() && regexes.is_none() && self.grpc_methods.is_empty() && self.fallback.is_empty();
        let nodes = self.nodes.into_iter().map(|(children, candidates)| Node {
            children,
            candidates: candidates.into(),
        });
        PathIndex {
            nodes: nodes.collect(),
            others: (!only_prefixes).then(|| {
                Box::new(Others {
                    exact: boxed(self.exact),
                    regexes,
                    grpc_methods: boxed(self.grpc_methods),
                    fallback: self.fallback.into(),
                })
            }),
        }
    }
}

/// Nodes of the trie that a request path can visit without a heap allocation.
const SHALLOW: usize = 24;

impl<T> PathIndex<T> {
    pub(crate) fn new(mut entries: Vec<Entry<'_, T>>) -> Self {
        entries.sort_by(|a, b| a.rank.cmp(&b.rank));
        let mut draft = Draft::new();
        for entry in entries {
            draft.add(entry);
        }
        draft.done()
    }

    /// The best candidate for the request.
    pub(crate) fn find<R: Request + ?Sized>(&self, request: &R) -> Option<&Candidate<T>> {
        let path = request.path();
        let others = self.others.as_deref();
        if let Some(found) = others.and_then(|others| others.before_prefixes(path, request)) {
            return Some(found);
        }
        let mut visited = smallvec::SmallVec::<[usize; SHALLOW]>::new();
        let mut at = 0;
        let mut rest = path.strip_prefix('/');
        while let Some(from) = rest {
            // Segments are a few bytes long: to set up a search as `split` does takes longer than to search.
            let slash = from.bytes().position(|byte| byte == b'/');
            let parts = slash.and_then(|slash| from.split_at_checked(slash));
            let (segment, after) = parts.map_or((from, None), |(segment, after)| (segment, after.strip_prefix('/')));
            rest = after;
            let Some(node) = self.nodes.get(at) else { break };
            let Some(next) = node.children.get(segment) else { break };
            at = next;
            visited.push(at);
        }
        let deep = visited.iter().rev().filter_map(|n| self.nodes.get(*n));
        let deepest = deep.flat_map(|node| &node.candidates).find(|c| c.holds(request));
        deepest
            .or_else(|| others.and_then(|others| others.grpc(path, request)))
            .or_else(|| first(&self.nodes.first()?.candidates, request))
            .or_else(|| first(&others?.fallback, request))
    }
}

fn first<'c, T, R: Request + ?Sized>(list: &'c [Candidate<T>], request: &R) -> Option<&'c Candidate<T>> {
    list.iter().find(|candidate| candidate.holds(request))
}

impl<T> Others<T> {
    /// What is better than any prefix.
    fn before_prefixes<R: Request + ?Sized>(&self, path: &str, request: &R) -> Option<&Candidate<T>> {
        if let Some(list) = self.exact.get(path)
            && let Some(found) = first(list, request)
        {
            return Some(found);
        }
        let regexes = self.regexes.as_ref()?;
        let holds = |n: usize| regexes.candidates.get(n).filter(|c| c.holds(request));
        match &regexes.set {
            Some(set) => set.matches(path.as_bytes()).iter().find_map(holds),
            None => (0..regexes.each.len()).find_map(|n| {
                let regex = regexes.each.get(n)?;
                regex.is_match(path.as_bytes()).then(|| holds(n))?
            }),
        }
    }

    fn grpc<R: Request + ?Sized>(&self, path: &str, request: &R) -> Option<&Candidate<T>> {
        if self.grpc_methods.is_empty() {
            return None;
        }
        let (service, method) = path.strip_prefix('/')?.split_once('/')?;
        if service.is_empty() {
            return None;
        }
        first(self.grpc_methods.get(method)?, request)
    }
}
