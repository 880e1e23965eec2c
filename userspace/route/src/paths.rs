use std::collections::HashMap;

use foldhash::fast::RandomState;
use pierhead_model::PathMatch;
use regex::bytes::{Regex, RegexSet};

use crate::{
    condition::{Condition, Request, compile_pattern},
    rank::Rank,
};

/// One match of one rule.
#[derive(Clone, Debug)]
pub(crate) struct Candidate<T> {
    pub(crate) rank: Rank,
    pub(crate) path: PathMatch,
    pub(crate) condition: Condition,
    pub(crate) rule: T,
}

/// Candidates by path. Each list is in order of rank; the places are visited in the order of [`Rank`]'s path classes, so
/// the first candidate whose condition holds is the best.
#[derive(Debug)]
pub(crate) struct PathIndex<T> {
    exact: HashMap<Box<str>, Vec<Candidate<T>>, RandomState>,
    regexes: Option<Regexes<T>>,
    /// A segment trie; node 0 is the root, `Prefix /`.
    nodes: Vec<Node<T>>,
    grpc_methods: HashMap<Box<str>, Vec<Candidate<T>>, RandomState>,
    fallback: Vec<Candidate<T>>,
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
    candidates: Vec<Candidate<T>>,
}

/// Nodes by segment: a short list is faster to look through than to hash.
#[derive(Debug)]
enum Children {
    Few(Vec<(Box<str>, usize)>),
    Many(HashMap<Box<str>, usize, RandomState>),
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
            Self::Few(list) if list.len() < Self::FEW => list.push((segment.into(), node)),
            Self::Few(list) => {
                let mut map: HashMap<_, _, RandomState> = std::mem::take(list).into_iter().collect();
                map.insert(segment.into(), node);
                *self = Self::Many(map);
            }
            Self::Many(map) => {
                map.insert(segment.into(), node);
            }
        }
    }
}

impl<T> Node<T> {
    fn new() -> Self {
        Self {
            children: Children::Few(Vec::new()),
            candidates: Vec::new(),
        }
    }
}

/// Nodes of the trie that a request path can visit without a heap allocation.
const SHALLOW: usize = 24;

impl<T> PathIndex<T> {
    pub(crate) fn new(mut candidates: Vec<Candidate<T>>) -> Self {
        candidates.sort_by(|a, b| a.rank.cmp(&b.rank));
        let mut index = Self {
            exact: HashMap::default(),
            regexes: None,
            nodes: vec![Node::new()],
            grpc_methods: HashMap::default(),
            fallback: Vec::new(),
        };
        let mut patterns = Vec::new();
        let mut by_regex = Vec::new();
        for candidate in candidates {
            if candidate.rank.is_fallback() {
                index.fallback.push(candidate);
                continue;
            }
            match &candidate.path {
                PathMatch::Exact(path) => index.exact.entry(path.as_ref().into()).or_default().push(candidate),
                PathMatch::GrpcMethod(name) => {
                    index
                        .grpc_methods
                        .entry(name.as_ref().into())
                        .or_default()
                        .push(candidate);
                }
                PathMatch::Regex(pattern) => {
                    // `translate` lets no pattern through that does not compile.
                    if let Some(regex) = compile_pattern(pattern) {
                        patterns.push(regex);
                        by_regex.push(candidate);
                    }
                }
                PathMatch::Prefix(prefix) => {
                    let node = index.node_of(&prefix.clone());
                    if let Some(node) = index.nodes.get_mut(node) {
                        node.candidates.push(candidate);
                    }
                }
            }
        }
        index.regexes = (!patterns.is_empty()).then(|| Regexes {
            set: RegexSet::new(patterns.iter().map(Regex::as_str)).ok(),
            each: patterns,
            candidates: by_regex,
        });
        index
    }

    /// The node of a prefix, made where missing. A trailing slash is ignored.
    fn node_of(&mut self, prefix: &str) -> usize {
        let mut at = 0;
        let trimmed = prefix.trim_end_matches('/');
        for segment in trimmed.strip_prefix('/').into_iter().flat_map(|p| p.split('/')) {
            let next = self.nodes.len();
            let Some(node) = self.nodes.get_mut(at) else { return 0 };
            at = node.children.get(segment).unwrap_or_else(|| {
                node.children.insert(segment, next);
                next
            });
            if at == next {
                self.nodes.push(Node::new());
            }
        }
        at
    }

    /// The best candidate for the request.
    pub(crate) fn find<R: Request + ?Sized>(&self, request: &R) -> Option<&Candidate<T>> {
        let path = request.path();
        let first = |list: &'_ [Candidate<T>]| list.iter().position(|c| c.condition.holds(request));
        if let Some(list) = self.exact.get(path)
            && let Some(found) = first(list)
        {
            return list.get(found);
        }
        if let Some(regexes) = &self.regexes {
            let holds = |n: &usize| regexes.candidates.get(*n).filter(|c| c.condition.holds(request));
            let found = match &regexes.set {
                Some(set) => set.matches(path.as_bytes()).iter().find_map(|n| holds(&n)),
                None => (0..regexes.each.len()).find_map(|n| {
                    regexes
                        .each
                        .get(n)
                        .filter(|r| r.is_match(path.as_bytes()))
                        .and_then(|_| holds(&n))
                }),
            };
            if found.is_some() {
                return found;
            }
        }
        let mut visited = smallvec::SmallVec::<[usize; SHALLOW]>::new();
        let mut at = 0;
        for segment in path.strip_prefix('/').into_iter().flat_map(|p| p.split('/')) {
            let Some(node) = self.nodes.get(at) else { break };
            let Some(next) = node.children.get(segment) else { break };
            at = next;
            visited.push(at);
        }
        let deep = visited.iter().rev().filter_map(|n| self.nodes.get(*n));
        let deepest = deep
            .flat_map(|node| &node.candidates)
            .find(|c| c.condition.holds(request));
        deepest
            .or_else(|| self.find_grpc(path, request))
            .or_else(|| {
                self.nodes
                    .first()?
                    .candidates
                    .iter()
                    .find(|c| c.condition.holds(request))
            })
            .or_else(|| self.fallback.iter().find(|c| c.condition.holds(request)))
    }

    fn find_grpc<R: Request + ?Sized>(&self, path: &str, request: &R) -> Option<&Candidate<T>> {
        if self.grpc_methods.is_empty() {
            return None;
        }
        let (service, method) = path.strip_prefix('/')?.split_once('/')?;
        if service.is_empty() {
            return None;
        }
        self.grpc_methods
            .get(method)?
            .iter()
            .find(|c| c.condition.holds(request))
    }
}
