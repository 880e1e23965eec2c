//! An admitted object as the type `translate` reads.

use std::sync::Arc;

use k8s_openapi::api::certificates::v1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use pierhead_api::GatewayParameters;
use pierhead_gateway_api::{
    BackendTLSPolicy, GRPCRoute, Gateway, GatewayClass, HTTPRoute, ListenerSet, ReferenceGrant, TCPRoute, TLSRoute,
    UDPRoute,
};
use pierhead_translate::World;
use serde_json::Value;

macro_rules! typed {
    ($($kind:ident $field:ident,)*) => {
        /// One object, of any kind we read.
        #[derive(Clone, Debug)]
        pub(crate) enum Typed {
            $($kind(Arc<$kind>),)*
        }

        impl Typed {
            /// `Err` on a kind we do not know, or when schema and type disagree (a defect of ours).
            pub(crate) fn parse(kind: &str, object: Value) -> Result<Self, serde_json::Error> {
                match kind {
                    $(stringify!($kind) => Ok(Self::$kind(Arc::new(serde_json::from_value(object)?))),)*
                    other => Err(serde::de::Error::custom(format_args!("no type for kind {other}"))),
                }
            }

            /// An equal one in an allocation of its own.
            pub(crate) fn copy(&self) -> Self {
                match self {
                    $(Self::$kind(object) => Self::$kind(Arc::new((**object).clone())),)*
                }
            }

            /// Tells allocations apart.
            pub(crate) fn address(&self) -> usize {
                match self {
                    $(Self::$kind(object) => Arc::as_ptr(object).addr(),)*
                }
            }

            pub(crate) fn insert(&self, namespace: &str, name: &str, world: &mut World) {
                match self {
                    $(Self::$kind(object) => {
                        world.$field.insert(namespace, name, Arc::clone(object));
                    })*
                }
            }

            /// Puts it where an unequal one, or none, stands. Whether the world changed.
            pub(crate) fn replace(&self, namespace: &str, name: &str, world: &mut World) -> bool {
                match self {
                    $(Self::$kind(object) => {
                        let same = world.$field.get(namespace, name).is_some_and(|old| **old == **object);
                        if !same {
                            world.$field.insert(namespace, name, Arc::clone(object));
                        }
                        !same
                    })*
                }
            }

            /// Whether the world changed.
            pub(crate) fn remove(kind: &str, namespace: &str, name: &str, world: &mut World) -> bool {
                match kind {
                    $(stringify!($kind) => world.$field.remove(namespace, name).is_some(),)*
                    _ => false,
                }
            }

            /// Every kind there is a type for.
            #[cfg(test)]
            pub(crate) const KINDS: &[&str] = &[$(stringify!($kind)),*];
        }
    };
}

typed! {
    BackendTLSPolicy backend_tls_policies,
    ClusterTrustBundle cluster_trust_bundles,
    ConfigMap config_maps,
    EndpointSlice endpoint_slices,
    GRPCRoute grpc_routes,
    Gateway gateways,
    GatewayClass gateway_classes,
    GatewayParameters gateway_parameters,
    HTTPRoute http_routes,
    Ingress ingresses,
    IngressClass ingress_classes,
    ListenerSet listener_sets,
    Namespace namespaces,
    ReferenceGrant reference_grants,
    Secret secrets,
    Service services,
    TCPRoute tcp_routes,
    TLSRoute tls_routes,
    UDPRoute udp_routes,
}
