//! The Gateway API v1.7 types, hand-written after the Go package `apis/v1`, whose names they keep.
//!
//! Route kinds differ in their rules only: parents, backends, filters and status are one type for all of them, so that
//! whoever reads them is written once. Every enumeration is open ([`open_enum`](macro@open_enum)): a value newer than
//! this crate becomes `Unknown` and an `UnsupportedValue` in some status, never a failed list. What the API server
//! would default is a serde default here, once. Fields of both channels are known.
//!
//! `apiVersion` and `kind` are constants of the types ([`k8s_openapi::Resource`]), not fields: they are neither read
//! nor written. `status` of an object is kept as the JSON it came in, because entries of other controllers must
//! survive byte for byte; the typed status structs are what we write, and [`merge`](mod@merge) brings the two together.
//!
//! Must not know: our own CRDs, the model, or what any of this means.

mod backend_tls_policy;
mod duration;
mod filter;
mod gateway;
mod gateway_class;
mod grpc_route;
mod http_route;
mod l4_route;
mod listener;
pub mod merge;
mod open_enum;
mod reference;
mod reference_grant;
mod resource;
mod route;
mod status;

pub use backend_tls_policy::{
    BackendTLSPolicy, BackendTLSPolicySpec, BackendTLSPolicyValidation, LocalPolicyTargetReferenceWithSectionName,
    SubjectAltName, SubjectAltNameType, WellKnownCACertificatesType,
};
pub use duration::{Duration, InvalidDuration};
pub use filter::{
    CookieConfig, CookieLifetimeType, ExternalAuthProtocol, ForwardBodyConfig, Fraction, GRPCAuthConfig,
    GRPCRouteFilter, HTTPAuthConfig, HTTPCORSFilter, HTTPExternalAuthFilter, HTTPHeader, HTTPHeaderFilter,
    HTTPPathModifier, HTTPPathModifierType, HTTPRequestMirrorFilter, HTTPRequestRedirectFilter, HTTPRouteFilter,
    HTTPRouteFilterType, HTTPURLRewriteFilter, HeaderConfig, SessionPersistence, SessionPersistenceType,
};
pub use gateway::{
    AllowedListeners, FrontendTLSConfig, FrontendTLSValidation, FrontendValidationModeType, Gateway, GatewayBackendTLS,
    GatewayInfrastructure, GatewaySpec, GatewaySpecAddress, GatewayStatus, GatewayStatusAddress, GatewayTLSConfig,
    ListenerNamespaces, TLSConfig, TLSPortConfig,
};
pub use gateway_class::{GatewayClass, GatewayClassSpec, GatewayClassStatus, SupportedFeature};
pub use grpc_route::{
    GRPCBackendRef, GRPCHeaderMatch, GRPCMethodMatch, GRPCRoute, GRPCRouteMatch, GRPCRouteRule, GRPCRouteSpec,
};
pub use http_route::{
    HTTPBackendRef, HTTPHeaderMatch, HTTPPathMatch, HTTPQueryParamMatch, HTTPRoute, HTTPRouteMatch, HTTPRouteRetry,
    HTTPRouteRule, HTTPRouteSpec, HTTPRouteTimeouts, MatchType, PathMatchType,
};
pub use l4_route::{L4RouteRule, TCPRoute, TCPRouteSpec, TLSRoute, TLSRouteSpec, UDPRoute, UDPRouteSpec};
pub use listener::{
    AllowedRoutes, FromNamespaces, Listener, ListenerEntry, ListenerFilter, ListenerFilterType, ListenerFilters,
    ListenerSet, ListenerSetSpec, ListenerSetStatus, ListenerStatus, ListenerTLSConfig, ProtocolType, RouteGroupKind,
    RouteNamespaces, TLSModeType,
};
pub use reference::{
    BackendObjectReference, BackendRef, GatewayDefaultScope, LocalObjectReference, LocalParametersReference,
    ObjectReference, ParametersReference, ParentGatewayReference, ParentReference, SecretObjectReference,
};
pub use reference_grant::{ReferenceGrant, ReferenceGrantFrom, ReferenceGrantSpec, ReferenceGrantTo};
pub use route::Route;
pub use status::{Condition, ConditionStatus, PolicyAncestorStatus, PolicyStatus, RouteParentStatus, RouteStatus};

/// API group of every type here.
pub const GROUP: &str = "gateway.networking.k8s.io";
