//! What is watched: each kind of the [`World`](pierhead_translate::World), where the API server has it, and in which
//! versions we can read it.

use kube::discovery::ApiResource;

/// Objects of one kind, or a part of them, as one watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Source {
    pub(crate) kind: &'static str,
    pub(crate) group: &'static str,
    pub(crate) plural: &'static str,
    /// The best first; what we write is read back in the same version.
    pub(crate) versions: &'static [&'static str],
    /// Only objects that match this field selector.
    pub(crate) fields: Option<&'static str>,
    /// Always served by an API server; the others come with a CRD or a feature.
    pub(crate) built_in: bool,
}

const GATEWAY: &str = "gateway.networking.k8s.io";

const fn built_in(kind: &'static str, group: &'static str, plural: &'static str) -> Source {
    Source {
        kind,
        group,
        plural,
        versions: &["v1"],
        fields: None,
        built_in: true,
    }
}

const fn gateway(kind: &'static str, plural: &'static str, versions: &'static [&'static str]) -> Source {
    Source {
        kind,
        group: GATEWAY,
        plural,
        versions,
        fields: None,
        built_in: false,
    }
}

/// Secrets of one type. Others are never asked for: what we do not hold nobody takes from us.
const fn secrets(selector: &'static str) -> Source {
    Source {
        fields: Some(selector),
        ..built_in("Secret", "", "secrets")
    }
}

/// Every watch. Before v1.7 some kinds had other versions; their objects have the shape we know.
pub(crate) const SOURCES: &[Source] = &[
    gateway("BackendTLSPolicy", "backendtlspolicies", &["v1", "v1alpha3"]),
    Source {
        versions: &["v1", "v1beta1", "v1alpha1"],
        built_in: false,
        ..built_in("ClusterTrustBundle", "certificates.k8s.io", "clustertrustbundles")
    },
    built_in("ConfigMap", "", "configmaps"),
    built_in("EndpointSlice", "discovery.k8s.io", "endpointslices"),
    gateway("GRPCRoute", "grpcroutes", &["v1"]),
    gateway("Gateway", "gateways", &["v1"]),
    gateway("GatewayClass", "gatewayclasses", &["v1"]),
    Source {
        group: "pierhead.dev",
        ..gateway("GatewayParameters", "gatewayparameters", &["v1alpha1"])
    },
    gateway("HTTPRoute", "httproutes", &["v1"]),
    built_in("Ingress", "networking.k8s.io", "ingresses"),
    built_in("IngressClass", "networking.k8s.io", "ingressclasses"),
    gateway("ListenerSet", "listenersets", &["v1"]),
    built_in("Namespace", "", "namespaces"),
    gateway("ReferenceGrant", "referencegrants", &["v1", "v1beta1"]),
    secrets("type=kubernetes.io/tls"),
    secrets("type=Opaque"),
    built_in("Service", "", "services"),
    gateway("TCPRoute", "tcproutes", &["v1", "v1alpha2"]),
    gateway("TLSRoute", "tlsroutes", &["v1", "v1alpha3", "v1alpha2"]),
    gateway("UDPRoute", "udproutes", &["v1", "v1alpha2"]),
];

impl Source {
    /// The source as kube names it.
    pub(crate) fn resource(&self, version: &str) -> ApiResource {
        ApiResource {
            group: self.group.into(),
            version: version.into(),
            api_version: self.api_version(version),
            kind: self.kind.into(),
            plural: self.plural.into(),
        }
    }

    pub(crate) fn api_version(&self, version: &str) -> String {
        match self.group {
            "" => version.into(),
            group => format!("{group}/{version}"),
        }
    }

    /// The name of the CRD that brings it.
    pub(crate) fn crd(&self) -> String {
        format!("{}.{}", self.plural, self.group)
    }

    /// Whether a CRD brings it, or the API server itself has it, perhaps switched off.
    pub(crate) fn comes_with_crd(&self) -> bool {
        !self.built_in && self.group != "certificates.k8s.io"
    }

    /// For messages: the kind, and which part of it.
    pub(crate) fn label(&self) -> String {
        match self.fields {
            None => self.kind.into(),
            Some(fields) => format!("{} ({fields})", self.kind),
        }
    }

    /// The first source of a kind.
    pub(crate) fn of(kind: &str) -> Option<&'static Self> {
        SOURCES.iter().find(|source| source.kind == kind)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::files::typed::Typed;
    use crate::yaml::{self, Budget};

    #[test]
    fn the_installation_lets_us_read_every_kind() {
        let documents = yaml::read(include_str!("../../deploy/pierhead.yaml"), 1, &mut Budget::default()).unwrap();
        let mut objects = documents.iter().map(|document| &document.value);
        let ours =
            |object: &&Value| object["kind"] == "ClusterRole" && object["metadata"]["name"] == "pierhead-controller";
        let rules = objects.find(ours).unwrap()["rules"].as_array().unwrap();
        let has = |list: &Value, word: &str| list.as_array().is_some_and(|all| all.iter().any(|one| one == word));
        let may = |verb: &str, group: &str, plural: &str| {
            let grants = |rule: &Value| {
                has(&rule["apiGroups"], group) && has(&rule["resources"], plural) && has(&rule["verbs"], verb)
            };
            rules.iter().any(grants)
        };
        let nodes = ("", "nodes");
        for (group, plural) in SOURCES
            .iter()
            .map(|source| (source.group, source.plural))
            .chain([nodes])
        {
            for verb in ["list", "watch"] {
                assert!(may(verb, group, plural), "{verb} {plural} of {group:?}");
            }
        }
    }

    #[test]
    fn every_kind_that_has_a_type_is_watched_and_no_other() {
        let watched: BTreeSet<&str> = SOURCES.iter().map(|source| source.kind).collect();
        assert_eq!(watched, Typed::KINDS.iter().copied().collect());
        assert!(SOURCES.iter().all(|source| !source.versions.is_empty()));
    }

    #[test]
    fn names_are_those_of_the_api() {
        let http = Source::of("HTTPRoute").unwrap();
        assert_eq!(http.crd(), "httproutes.gateway.networking.k8s.io");
        assert_eq!(http.api_version("v1"), "gateway.networking.k8s.io/v1");
        assert_eq!(
            Source::of("GatewayParameters").unwrap().crd(),
            "gatewayparameters.pierhead.dev"
        );
        assert!(!Source::of("ClusterTrustBundle").unwrap().comes_with_crd());
        assert_eq!(Source::of("Service").unwrap().resource("v1").api_version, "v1");
    }
}
