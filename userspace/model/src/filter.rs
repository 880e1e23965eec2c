use std::{sync::Arc, time::Duration};

use serde::Serialize;

use crate::{BackendId, HeaderName, HeaderValue, Hostname};

/// What a rule or a backend reference does to a request or response. Applied in the order given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Filter {
    RequestHeaders(HeaderModifier),
    ResponseHeaders(HeaderModifier),
    Redirect(RedirectFilter),
    UrlRewrite(UrlRewriteFilter),
    Mirror(MirrorFilter),
    Cors(CorsFilter),
    ExternalAuth(ExternalAuthFilter),
    /// Not understood: answered 500, never skipped (Gateway API: "implementations MUST NOT skip").
    Unsupported {
        what: Arc<str>,
    },
}

impl Filter {
    /// Gives back what its lists of header fields have room for and do not hold.
    pub(crate) fn shrink_to_fit(&mut self) {
        if let Self::RequestHeaders(modifier) | Self::ResponseHeaders(modifier) = self {
            modifier.set.shrink_to_fit();
            modifier.add.shrink_to_fit();
            modifier.remove.shrink_to_fit();
        }
    }

    /// The backend that it asks or copies to.
    pub fn backend(&self) -> Option<&BackendId> {
        match self {
            Self::Mirror(mirror) => Some(&mirror.backend),
            Self::ExternalAuth(auth) => Some(&auth.backend),
            Self::RequestHeaders(_)
            | Self::ResponseHeaders(_)
            | Self::Redirect(_)
            | Self::UrlRewrite(_)
            | Self::Cors(_)
            | Self::Unsupported { .. } => None,
        }
    }
}

/// `set` replaces, `add` appends a further line, `remove` removes; names ignore case.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HeaderModifier {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<(HeaderName, HeaderValue)>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<(HeaderName, HeaderValue)>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<HeaderName>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RedirectFilter {
    /// `http` or `https`; `None` keeps the request's.
    pub scheme: Option<Arc<str>>,
    /// `None` keeps the request's host.
    pub host: Option<Hostname>,
    pub port: RedirectPort,
    pub path: Option<PathRewrite>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// The port of a `Location`; one that the scheme implies (80, 443) is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum RedirectPort {
    Explicit(u16),
    /// The well-known port of the scheme if the filter sets one, else the listener's port.
    Derived,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UrlRewriteFilter {
    /// Replaces the Host, or `:authority`.
    pub host: Option<Hostname>,
    pub path: Option<PathRewrite>,
}

/// The query is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum PathRewrite {
    Full(Arc<str>),
    /// Replaces the prefix that the rule's match found.
    Prefix(Arc<str>),
}

/// Copies requests to a further backend; its answers are ignored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MirrorFilter {
    pub backend: BackendId,
    pub fraction: MirrorFraction,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MirrorFraction {
    pub numerator: u32,
    /// Never zero.
    pub denominator: u32,
}

/// Cross-origin resource sharing (Fetch standard §3.2, GEP-1767).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CorsFilter {
    pub allow_origins: Vec<CorsOrigin>,
    pub allow_credentials: bool,
    /// `*` is in the list as such.
    pub allow_methods: Vec<Arc<str>>,
    pub allow_headers: Vec<Arc<str>>,
    pub expose_headers: Vec<Arc<str>>,
    #[serde(serialize_with = "seconds")]
    pub max_age: Duration,
}

fn seconds<S: serde::Serializer>(duration: &Duration, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(&format_args!("{}s", duration.as_secs()))
}

/// Asks a backend whether a request may go on (GEP-1494). Whatever keeps it from answering yes is a no.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExternalAuthFilter {
    pub backend: BackendId,
    pub protocol: ExternalAuthProtocol,
    /// Largest body of a request that is sent along, in bytes; more is answered 413. Zero: bodies are not sent.
    pub body_bytes: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum ExternalAuthProtocol {
    /// The request without its body (or with it), to the same path. 200 lets it pass, any other answer goes to the client.
    Http {
        /// Put before the path: empty, or starts with `/` and does not end with it.
        path_prefix: Arc<str>,
        /// Fields sent besides Host and Authorization.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        request_headers: Vec<HeaderName>,
        /// Fields of the answer that replace those of the request; empty: all.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        response_headers: Vec<HeaderName>,
    },
    /// `envoy.service.auth.v3.Authorization/Check`.
    Grpc {
        /// Fields sent; empty: all.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        request_headers: Vec<HeaderName>,
    },
}

impl ExternalAuthFilter {
    /// Most that `body_bytes` may be: a body is held in memory while the answer is waited for.
    pub const MAX_BODY_BYTES: u32 = 8 << 20;
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum CorsOrigin {
    Any,
    /// `scheme://host[:port]`, compared ignoring case.
    Exact(Arc<str>),
    /// `scheme://*.suffix[:port]`: `*` is greedy, one label or more. `before` is `scheme://`, `after` is `.suffix[:port]`.
    Wildcard {
        before: Arc<str>,
        after: Arc<str>,
    },
}
