//! The language the data plane executes.
//!
//! A [`Snapshot`] is one complete configuration: binds with their listeners, routes, backends, endpoints, certificates.
//! It is made by `translate` and executed by `dataplane` and `kernel`; those two never see a Kubernetes object. Everything
//! here is an immutable, comparable value that cannot be wrong by construction where a type can prevent it: host names
//! are lower-case and valid, patterns are parsed, durations are durations. No I/O, no clock, no Kubernetes.
//!
//! Resources that change on their own are held by `Arc` in maps keyed by a stable name, so that a change of one pod or
//! of one route replaces one entry and shares the rest ([`Map`]).

mod backend;
mod bind;
mod client_address;
mod filter;
mod fleet;
mod host;
mod intern;
mod l4;
mod limits;
mod map;
mod origin;
mod problem;
mod route;
mod snapshot;
mod text;
mod tls;

pub use backend::{
    Backend, BackendId, BackendProtocol, BackendTarget, BackendTls, Endpoint, EndpointState, Endpoints, EndpointsId,
    FleetId, InvalidReason, ServerIdentity, WeightedBackend,
};
pub use bind::{
    Announcer, Bind, BindAddress, BindKey, BindPort, DataPath, DataPathReport, HostSelection, HttpOptions, Listener,
    ListenerId, ListenerKind, OnMiss, OwnedPrefix, Ownership, Transport,
};
pub use client_address::{ClientAddress, ForwardedFor};
pub use filter::{
    CorsFilter, CorsOrigin, ExternalAuthFilter, ExternalAuthProtocol, Filter, HeaderModifier, MirrorFilter,
    MirrorFraction, PathRewrite, RedirectFilter, RedirectPort, UrlRewriteFilter,
};
pub use fleet::{Fleet, FleetNode};
pub use host::{HostPattern, Hostname, InvalidHostname, WildcardDepth};
pub use intern::intern;
pub use l4::{L4Route, SniRoute};
pub use limits::Limits;
pub use map::{Changes, Iter, Map};
pub use origin::Origin;
pub use problem::{Problem, Severity};
pub use route::{
    Age, Attachment, HeaderMatch, HttpMatch, HttpRoute, HttpRule, PathMatch, Pattern, QueryMatch, Retry, RouteFlavor,
    RouteId, Timeouts, ValueMatch,
};
pub use snapshot::Snapshot;
pub use text::{HeaderName, HeaderValue, InvalidHeader, Method};
pub use tls::{
    Certificate, CertificateId, CertificateUse, ClientAuth, ClientAuthMode, PrivateKey, TlsTermination, TrustAnchors,
    TrustId,
};
