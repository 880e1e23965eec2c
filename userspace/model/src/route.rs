use std::{fmt, sync::Arc, time::Duration};

use serde::{Serialize, Serializer};

use crate::{BackendId, Filter, HeaderName, HostPattern, ListenerId, Method, Origin, WeightedBackend};

/// Name of a route: its object. One HTTPRoute, GRPCRoute or Ingress is one route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteId(pub Origin);

impl fmt::Display for RouteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for RouteId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// A route with everything one must know to execute it. It names its listeners (not the other way round), so that a
/// changed route is one changed resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HttpRoute {
    pub id: RouteId,
    pub flavor: RouteFlavor,
    pub age: Age,
    pub attachments: Vec<Attachment>,
    pub rules: Vec<HttpRule>,
}

impl HttpRoute {
    /// Every backend that it names, those of its filters too; one may come several times.
    pub fn backends(&self) -> impl Iterator<Item = &BackendId> {
        self.rules.iter().flat_map(|rule| {
            let shares = rule.backends.iter().map(|share| &share.backend);
            let filters = rule
                .backends
                .iter()
                .flat_map(|share| &share.filters)
                .chain(&rule.filters);
            shares.chain(filters.filter_map(Filter::backend))
        })
    }

    /// Gives back what its lists have room for and do not hold: there are many routes, and they stay.
    pub fn shrink_to_fit(&mut self) {
        for attachment in &mut self.attachments {
            attachment.hosts.shrink_to_fit();
        }
        for rule in &mut self.rules {
            for wanted in &mut rule.matches {
                wanted.headers.shrink_to_fit();
                wanted.query.shrink_to_fit();
            }
            if let Some(hosts) = &mut rule.hosts {
                hosts.shrink_to_fit();
            }
            for share in &mut rule.backends {
                share.filters.iter_mut().for_each(Filter::shrink_to_fit);
                share.filters.shrink_to_fit();
            }
            rule.filters.iter_mut().for_each(Filter::shrink_to_fit);
            rule.matches.shrink_to_fit();
            rule.filters.shrink_to_fit();
            rule.backends.shrink_to_fit();
        }
        self.attachments.shrink_to_fit();
        self.rules.shrink_to_fit();
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum RouteFlavor {
    Http,
    Grpc,
    Ingress,
}

/// Breaks ties between routes: the oldest wins, then `namespace/name` in alphabetical order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Age {
    /// `metadata.creationTimestamp`, seconds since the Unix epoch; `i64::MAX` where absent.
    pub created: i64,
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attachment {
    pub listener: ListenerId,
    /// The route's own hostnames, as written, that intersect the listener's; `[Any]` for a route without hostnames.
    /// The original decides precedence (GEP-5094 `GatewayRouteHostnameIntersectionPrecedence`).
    pub hosts: Vec<HostPattern>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HttpRule {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Arc<str>>,
    /// `None`: all hosts of the attachment. An Ingress rule names its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hosts: Option<Vec<HostPattern>>,
    /// Alternatives. Empty only in a rule with `hosts` of its own: it matches nothing and makes the hosts known.
    pub matches: Vec<HttpMatch>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
    /// Empty: 500, unless a filter answers.
    pub backends: Vec<WeightedBackend>,
    pub timeouts: Timeouts,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// An Ingress `defaultBackend`: considered after every other rule of the host.
    pub fallback: bool,
}

/// All conditions must hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HttpMatch {
    pub path: PathMatch,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
    /// Names are distinct (the first of a repeated name was kept).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderMatch>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub query: Vec<QueryMatch>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum PathMatch {
    Exact(Arc<str>),
    /// By path element: `/a` matches `/a`, `/a/` and `/a/b`, not `/ab`. Starts with `/`; a trailing `/` is kept as
    /// written (it counts for length) and ignored for matching.
    Prefix(Arc<str>),
    /// The whole path must match.
    Regex(Pattern),
    /// gRPC `/{any service}/{method}`.
    GrpcMethod(Arc<str>),
}

/// A regular expression that is known to compile, anchored at both ends, ASCII classes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern(Arc<str>);

impl Pattern {
    /// `source` must have been checked by the caller against the engine the data plane uses (`regex`).
    pub fn new_checked(source: &str) -> Self {
        Self(source.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum ValueMatch {
    Exact(Arc<str>),
    Regex(Pattern),
}

/// Several lines of one name are joined with `,` before comparing (RFC 9110 §5.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HeaderMatch {
    pub name: HeaderName,
    pub value: ValueMatch,
}

/// The first parameter of the name counts; names are case-sensitive; `+` and percent-encoding are decoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct QueryMatch {
    pub name: Arc<str>,
    pub value: ValueMatch,
}

/// `None` is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Timeouts {
    /// The whole exchange, retries included: 504.
    #[serde(serialize_with = "millis", skip_serializing_if = "Option::is_none")]
    pub request: Option<Duration>,
    /// One attempt: 504, or the next attempt.
    #[serde(serialize_with = "millis", skip_serializing_if = "Option::is_none")]
    pub backend_request: Option<Duration>,
}

fn millis<S: Serializer>(duration: &Option<Duration>, s: S) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => s.collect_str(&format_args!("{}ms", duration.as_millis())),
        None => s.serialize_none(),
    }
}

/// HTTPRoute `rules[].retry`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Retry {
    /// Further attempts after the first; zero disables.
    pub attempts: u32,
    /// Response codes to retry, 400–599, sorted.
    pub codes: Vec<u16>,
    /// Base interval of an exponential backoff with jitter; `None` is ours to choose (25 ms).
    #[serde(serialize_with = "millis", skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Duration>,
}
