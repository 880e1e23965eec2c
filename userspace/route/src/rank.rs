use std::cmp::Reverse;

use pierhead_model::{Age, HttpMatch, HttpRule, PathMatch};

/// Where a match stands among all matches of one host: the smallest wins.
///
/// The fields are compared in this order (HTTPRouteMatch, GRPCRouteMatch, IngressRule of the APIs):
/// 1. an Ingress `defaultBackend` after everything else;
/// 2. `Exact` path, then regular expressions (our choice: the API leaves it open), then `Prefix`, then gRPC methods of any
///    service, then `Prefix /`;
/// 3. most characters in the path; 4. a method; 5. most headers; 6. most query parameters;
/// 7. the oldest route, then `namespace/name`; 8. the first rule; 9. the first match.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    fallback: bool,
    path: PathClass,
    characters: Reverse<usize>,
    method: Reverse<bool>,
    headers: Reverse<usize>,
    query: Reverse<usize>,
    age: Age,
    rule: usize,
    alternative: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PathClass {
    Exact,
    Regex,
    Prefix,
    GrpcMethod,
    Root,
}

impl Rank {
    pub(crate) fn is_fallback(&self) -> bool {
        self.fallback
    }

    /// The rank of `rule.matches[alternative]`, `rule` being the route's rule number `number`.
    pub fn of(age: &Age, rule: &HttpRule, number: usize, wanted: &HttpMatch, alternative: usize) -> Self {
        let (path, characters) = match &wanted.path {
            PathMatch::Exact(text) => (PathClass::Exact, text.len()),
            PathMatch::Regex(pattern) => (PathClass::Regex, pattern.as_str().len()),
            PathMatch::Prefix(text) if text.trim_end_matches('/').is_empty() => (PathClass::Root, 0),
            PathMatch::Prefix(text) => (PathClass::Prefix, text.len()),
            PathMatch::GrpcMethod(text) => (PathClass::GrpcMethod, text.len()),
        };
        Self {
            fallback: rule.fallback,
            path,
            characters: Reverse(characters),
            method: Reverse(wanted.method.is_some()),
            headers: Reverse(wanted.headers.len()),
            query: Reverse(wanted.query.len()),
            age: age.clone(),
            rule: number,
            alternative,
        }
    }
}
