//! All watched objects.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use k8s_openapi::{
    api::{
        certificates::v1::ClusterTrustBundle,
        core::v1::{ConfigMap, Namespace, Secret, Service},
        discovery::v1::EndpointSlice,
        networking::v1::{Ingress, IngressClass},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use pierhead_api::GatewayParameters;
use pierhead_gateway_api::{
    BackendTLSPolicy, GRPCRoute, Gateway, GatewayClass, HTTPRoute, ListenerSet, ReferenceGrant, TCPRoute, TLSRoute,
    UDPRoute,
};
use pierhead_model::{Age, Map, Origin, intern};
use serde::{Serialize, Serializer};

/// Everything a translation looks at. Cluster-scoped objects have the empty namespace.
#[derive(Clone, Debug, Default)]
pub struct World {
    pub backend_tls_policies: Objects<BackendTLSPolicy>,
    /// The API server's CustomResourceDefinitions of the Gateway API, by their names. Empty where there is no API server.
    pub bundles: BTreeMap<String, Bundle>,
    pub cluster_trust_bundles: Objects<ClusterTrustBundle>,
    /// The API server does not serve ClusterTrustBundle (v1 since Kubernetes 1.37): references to one are of no known kind.
    pub without_cluster_trust_bundles: bool,
    pub config_maps: Objects<ConfigMap>,
    pub endpoint_slices: Objects<EndpointSlice>,
    pub gateway_classes: Objects<GatewayClass>,
    pub gateway_parameters: Objects<GatewayParameters>,
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

/// What a CustomResourceDefinition says about the release it is from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bundle {
    /// Annotation `gateway.networking.k8s.io/bundle-version`, like `v1.7.0`; empty without it.
    pub version: String,
    /// Annotation `gateway.networking.k8s.io/channel`: `standard` or `experimental`; empty without it.
    pub channel: String,
}

/// Objects of one kind by namespace and name, iterated in that order.
#[derive(Clone, PartialEq)]
pub struct Objects<T> {
    /// Shared with clones until changed.
    by_namespace: BTreeMap<Arc<str>, Arc<ByName<T>>>,
    /// What a namespace without objects has.
    none: ByName<T>,
}

type ByName<T> = Map<Arc<str>, Arc<T>>;

impl<T> Default for Objects<T> {
    fn default() -> Self {
        Self {
            by_namespace: BTreeMap::new(),
            none: Map::new(),
        }
    }
}

impl<T> fmt::Debug for Objects<T> {
    /// Names only: Secrets are objects too.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |(namespace, names): (&Arc<str>, &Arc<ByName<T>>)| {
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
            return Arc::make_mut(names).insert(intern(name), object);
        }
        let names: ByName<T> = [(intern(name), object)].into();
        self.by_namespace.insert(intern(namespace), names.into());
        None
    }

    pub fn remove(&mut self, namespace: &str, name: &str) -> Option<Arc<T>> {
        let names = self.by_namespace.get_mut(namespace)?;
        let object = Arc::make_mut(names).remove(name);
        if names.is_empty() {
            self.by_namespace.remove(namespace);
        }
        object
    }

    pub fn get(&self, namespace: &str, name: &str) -> Option<&Arc<T>> {
        self.by_namespace.get(namespace)?.get(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.by_namespace.values().flat_map(|names| names.values())
    }

    /// The objects of one namespace, by name.
    pub fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = &Arc<T>> {
        let names = self.by_namespace.get(namespace);
        names.into_iter().flat_map(|names| names.values())
    }

    pub fn len(&self) -> usize {
        self.by_namespace.values().map(|names| names.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.by_namespace.is_empty()
    }

    /// Where `self` and `before` do not hold the same allocation: namespace and name, and the objects of both.
    pub(crate) fn changes<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = Change<'a, T>> {
        let namespaces: BTreeSet<&Arc<str>> = self.by_namespace.keys().chain(before.by_namespace.keys()).collect();
        let differing = namespaces.into_iter().filter_map(move |namespace| {
            let names = [self, before].map(|objects| objects.by_namespace.get(namespace));
            let same = matches!(names, [Some(a), Some(b)] if Arc::ptr_eq(a, b));
            (!same).then_some((&**namespace, names))
        });
        differing.flat_map(|(namespace, [now, then])| {
            let empty = &self.none;
            let now = now.map_or(empty, |names| &**names);
            let then = then.map_or(empty, |names| &**names);
            now.changes(then).filter_map(move |(name, now, then)| {
                let same = matches!((now, then), (Some(a), Some(b)) if Arc::ptr_eq(a, b));
                (!same).then_some(((namespace, &**name), [now, then]))
            })
        })
    }
}

/// Namespace and name, and the object now and before.
pub(crate) type Change<'a, T> = ((&'a str, &'a str), [Option<&'a Arc<T>>; 2]);

/// `namespace/name`, or `name` for a cluster-scoped object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl ObjectName {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: intern(namespace),
            name: intern(name),
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
        namespace: intern(namespace(meta)),
        name: intern(name(meta)),
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
    fn changes_are_what_is_not_the_same_allocation() {
        let mut before = Objects::default();
        for (namespace, name) in [("a", "gone"), ("a", "kept"), ("a", "new"), ("b", "x"), ("c", "y")] {
            before.insert(namespace, name, Arc::new(1));
        }
        let mut now = before.clone();
        assert_eq!(now.changes(&before).count(), 0);
        now.remove("a", "gone");
        now.insert("a", "new", Arc::new(1));
        now.insert("a", "z", Arc::new(1));
        now.remove("c", "y");
        now.insert("d", "w", Arc::new(1));
        let changes: Vec<_> = now
            .changes(&before)
            .map(|((namespace, name), sides)| (namespace, name, sides.map(|side| side.is_some())))
            .collect();
        let expected = [
            ("a", "gone", [false, true]),
            ("a", "new", [true, true]),
            ("a", "z", [true, false]),
            ("c", "y", [false, true]),
            ("d", "w", [true, false]),
        ];
        assert_eq!(changes, expected);
        assert_eq!(before.len(), 5);
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
