//! All watched objects.

use std::{collections::BTreeMap, fmt, sync::Arc};

use k8s_openapi::{
    api::{
        core::v1::{ConfigMap, Namespace, Secret, Service},
        discovery::v1::EndpointSlice,
        networking::v1::{Ingress, IngressClass},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use pierhead_gateway_api::{
    BackendTLSPolicy, GRPCRoute, Gateway, GatewayClass, HTTPRoute, ListenerSet, ReferenceGrant, TCPRoute, TLSRoute,
    UDPRoute,
};
use pierhead_model::{Age, Origin};
use serde::{Serialize, Serializer};

/// Everything a translation looks at. Cluster-scoped objects have the empty namespace.
#[derive(Clone, Debug, Default)]
pub struct World {
    pub backend_tls_policies: Objects<BackendTLSPolicy>,
    pub config_maps: Objects<ConfigMap>,
    pub endpoint_slices: Objects<EndpointSlice>,
    pub gateway_classes: Objects<GatewayClass>,
    pub gateways: Objects<Gateway>,
    pub grpc_routes: Objects<GRPCRoute>,
    pub http_routes: Objects<HTTPRoute>,
    pub ingress_classes: Objects<IngressClass>,
    pub ingresses: Objects<Ingress>,
    pub listener_sets: Objects<ListenerSet>,
    pub namespaces: Objects<Namespace>,
    pub reference_grants: Objects<ReferenceGrant>,
    pub secrets: Objects<Secret>,
    pub services: Objects<Service>,
    pub tcp_routes: Objects<TCPRoute>,
    pub tls_routes: Objects<TLSRoute>,
    pub udp_routes: Objects<UDPRoute>,
}

/// Objects of one kind by namespace and name, iterated in that order.
#[derive(Clone, PartialEq)]
pub struct Objects<T> {
    by_namespace: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Arc<T>>>,
}

impl<T> Default for Objects<T> {
    fn default() -> Self {
        Self {
            by_namespace: BTreeMap::new(),
        }
    }
}

impl<T> fmt::Debug for Objects<T> {
    /// Names only: Secrets are objects too.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |(namespace, names): (&Arc<str>, &BTreeMap<Arc<str>, Arc<T>>)| {
            let namespace = Arc::clone(namespace);
            let names: Vec<Arc<str>> = names.keys().cloned().collect();
            names.into_iter().map(move |name| ObjectName {
                namespace: Arc::clone(&namespace),
                name,
            })
        };
        f.debug_set().entries(self.by_namespace.iter().flat_map(names)).finish()
    }
}

impl<T> Objects<T> {
    /// Returns what stood there before.
    pub fn insert(&mut self, namespace: &str, name: &str, object: Arc<T>) -> Option<Arc<T>> {
        if let Some(names) = self.by_namespace.get_mut(namespace) {
            return names.insert(name.into(), object);
        }
        self.by_namespace
            .insert(namespace.into(), BTreeMap::from([(name.into(), object)]));
        None
    }

    pub fn remove(&mut self, namespace: &str, name: &str) -> Option<Arc<T>> {
        let names = self.by_namespace.get_mut(namespace)?;
        let object = names.remove(name);
        if names.is_empty() {
            self.by_namespace.remove(namespace);
        }
        object
    }

    pub fn get(&self, namespace: &str, name: &str) -> Option<&Arc<T>> {
        self.by_namespace.get(namespace)?.get(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.by_namespace.values().flat_map(BTreeMap::values)
    }

    /// The objects of one namespace, by name.
    pub fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = &Arc<T>> {
        self.by_namespace.get(namespace).into_iter().flat_map(BTreeMap::values)
    }

    pub fn len(&self) -> usize {
        self.by_namespace.values().map(BTreeMap::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.by_namespace.is_empty()
    }
}

/// `namespace/name`, or `name` for a cluster-scoped object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl ObjectName {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    pub fn of(meta: &ObjectMeta) -> Self {
        Self::new(namespace(meta), name(meta))
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

impl Serialize for ObjectName {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

pub(crate) fn namespace(meta: &ObjectMeta) -> &str {
    meta.namespace.as_deref().unwrap_or_default()
}

pub(crate) fn name(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

/// The object as the cause of something.
pub fn origin(kind: &str, meta: &ObjectMeta) -> Origin {
    Origin::new(kind, namespace(meta), name(meta))
}

/// The object's rank among its equals: the oldest wins. Without a timestamp (a file) it counts as the youngest.
pub fn age(meta: &ObjectMeta) -> Age {
    Age {
        created: meta
            .creation_timestamp
            .as_ref()
            .map_or(i64::MAX, |time| time.0.as_second()),
        namespace: namespace(meta).into(),
        name: name(meta).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_found_and_iterated_by_namespace_and_name() {
        let mut objects = Objects::default();
        for (namespace, name) in [("b", "x"), ("a", "y"), ("a", "x"), ("", "z")] {
            assert_eq!(
                objects.insert(namespace, name, Arc::new(format!("{namespace}/{name}"))),
                None
            );
        }
        let all: Vec<&str> = objects.iter().map(|o| o.as_str()).collect();
        assert_eq!(all, ["/z", "a/x", "a/y", "b/x"]);
        assert_eq!(objects.in_namespace("a").count(), 2);
        assert_eq!(objects.remove("a", "x").as_deref().map(String::as_str), Some("a/x"));
        assert_eq!((objects.get("a", "x"), objects.len()), (None, 3));
        objects.remove("b", "x");
        assert_eq!(objects.in_namespace("b").count(), 0);
    }

    #[test]
    fn a_printed_world_tells_no_secrets() {
        let mut world = World::default();
        let secret = Secret {
            string_data: Some([("password".to_owned(), "hunter2".to_owned())].into()),
            ..Secret::default()
        };
        world.secrets.insert("ns", "login", Arc::new(secret));
        let printed = format!("{world:?}");
        assert!(printed.contains("login") && !printed.contains("hunter2"), "{printed}");
    }
}
