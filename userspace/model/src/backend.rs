use std::{fmt, net::SocketAddr, sync::Arc};

use serde::{Serialize, Serializer};

use crate::{CertificateId, Filter, Hostname, Origin, TrustId, intern};

macro_rules! id {
    ($(#[$doc:meta] $name:ident)*) => {$(
        #[$doc]
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Arc<str>);

        impl $name {
            pub fn new(text: &str) -> Self {
                Self(intern(text))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }
    )*};
}

id! {
    /// Name of a backend: `namespace/service:port`, with a suffix where protocol or TLS policy differ.
    BackendId
    /// Name of a set of endpoints: `namespace/service:port-name-or-number`.
    EndpointsId
    /// Name of a set of nodes: `namespace/service` of the Service that selects them.
    FleetId
}

/// A share of traffic. Shares are weight ÷ sum of weights; zero gets nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WeightedBackend {
    pub backend: BackendId,
    pub weight: u32,
    /// Applied after this backend was chosen. Empty for L4.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
}

/// Where traffic can be sent, and how one speaks there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Backend {
    pub id: BackendId,
    /// The Service, or the route that named something that does not exist.
    pub origin: Origin,
    pub target: BackendTarget,
    pub protocol: BackendProtocol,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<BackendTls>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum BackendTarget {
    Endpoints(EndpointsId),
    /// An ExternalName Service: resolved by the node, again after each record's TTL.
    Dns {
        name: Hostname,
        port: u16,
    },
    /// Kept in the model so that exactly its share of requests fails: HTTP 500, TCP reset, UDP drop.
    Invalid {
        reason: InvalidReason,
        message: String,
    },
}

/// Why a backend cannot be used. The first four are the Gateway API's `ResolvedRefs` reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum InvalidReason {
    BackendNotFound,
    InvalidKind,
    RefNotPermitted,
    UnsupportedProtocol,
    /// Its BackendTLSPolicy has no usable trust anchors: answered 5xx, never plaintext.
    TlsPolicyInvalid,
    /// A filter on the reference is not understood.
    UnsupportedFilter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum BackendProtocol {
    /// HTTP/1.1; over TLS ALPN offers `http/1.1`.
    Http1,
    /// HTTP/2: prior knowledge in cleartext, ALPN `h2` over TLS.
    Http2,
    /// Bytes.
    Tcp,
    /// Datagrams.
    Udp,
}

/// TLS towards a backend (BackendTLSPolicy, GEP-1897).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackendTls {
    /// Server name in the ClientHello.
    pub sni: Hostname,
    /// Names the server's certificate must carry, one of them. Never empty.
    pub identities: Vec<ServerIdentity>,
    /// `None`: the system's trust store.
    pub trust: Option<TrustId>,
    /// Certificate shown to the backend (Gateway `spec.tls.backend`).
    pub client_certificate: Option<CertificateId>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum ServerIdentity {
    Dns(Hostname),
    /// Compared byte for byte with a URI SAN.
    Uri(Arc<str>),
}

/// The endpoints of one backend; a resource of its own, so that pod churn touches no route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Endpoints {
    pub id: EndpointsId,
    /// Sorted by address, distinct.
    pub endpoints: Vec<Endpoint>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    pub address: SocketAddr,
    pub state: EndpointState,
    /// The node it runs on, when known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<Arc<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum EndpointState {
    Ready,
    /// Terminating but still serving: keeps its flows; takes new ones only when no endpoint is ready.
    Draining,
}
