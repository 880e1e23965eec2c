//! GatewayClasses: which are ours, what they are good for, and on which release of the API they stand.

use std::{collections::BTreeMap, sync::Arc};

use pierhead_api::gateway_parameters::Addresses;
use pierhead_gateway_api::{Condition, GROUP, GatewayClass, GatewayClassStatus, SupportedFeature};

use super::condition::{Fault, condition, fault};
use crate::{Builder, ObjectName, World, origin, parameters};

/// What the data plane really does, by the names of `pkg/features`, sorted. A name here is a promise that the official
/// suite tests.
const FEATURES: &[&str] = &[
    "BackendTLSPolicy",
    "BackendTLSPolicySANValidation",
    "ClusterTrustBundle",
    "GRPCRoute",
    "GRPCRouteNamedRouteRule",
    "GRPCRouteRequestHeaderModifier",
    "Gateway",
    "GatewayAddressEmpty",
    "GatewayAddressRoutability",
    "GatewayAddressRoutabilityCluster",
    "GatewayBackendClientCertificate",
    "GatewayFrontendClientCertificateValidation",
    "GatewayFrontendClientCertificateValidationInsecureFallback",
    "GatewayHTTPListenerIsolation",
    "GatewayHTTPSListenerDetectMisdirectedRequests",
    "GatewayInfrastructure",
    "GatewayListenerFilters",
    "GatewayPort8080",
    "GatewayRouteHostnameIntersectionPrecedence",
    "GatewayStaticAddresses",
    "HTTPRoute",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
    "HTTPRouteBackendProtocolH2C",
    "HTTPRouteBackendProtocolWebSocket",
    "HTTPRouteBackendRequestHeaderModification",
    "HTTPRouteBackendTimeout",
    "HTTPRouteBackendURLRewrite",
    "HTTPRouteCORS",
    "HTTPRouteDestinationPortMatching",
    "HTTPRouteHostRewrite",
    "HTTPRouteMethodMatching",
    "HTTPRouteNamedRouteRule",
    "HTTPRouteParentRefPort",
    "HTTPRoutePathRedirect",
    "HTTPRoutePathRewrite",
    "HTTPRoutePortRedirect",
    "HTTPRouteQueryParamMatching",
    "HTTPRouteRequestMirror",
    "HTTPRouteRequestMultipleMirrors",
    "HTTPRouteRequestPercentageMirror",
    "HTTPRouteRequestTimeout",
    "HTTPRouteResponseHeaderModification",
    "HTTPRouteRetryCodes",
    "HTTPRouteRetryConnectionError",
    "HTTPRouteSchemeRedirect",
    "ListenerSet",
    "ReferenceGrant",
    "TCPRoute",
    "TLSRoute",
    "TLSRouteModeMixed",
    "TLSRouteModeTerminate",
    "UDPRoute",
];

/// Features that need fields or kinds of the experimental channel.
const EXPERIMENTAL: &[&str] = &[
    "ClusterTrustBundle",
    "GatewayAddressRoutability",
    "GatewayAddressRoutabilityCluster",
    "GatewayListenerFilters",
];

/// Features that need Services to be made, so an API server.
const CLUSTER: &[&str] = &["GatewayAddressRoutabilityCluster"];

/// The kinds we read, their CustomResourceDefinitions, and how the names of their features start.
const KINDS: [(&str, &str); 10] = [
    ("backendtlspolicies", "BackendTLSPolicy"),
    ("gatewayclasses", ""),
    ("gateways", ""),
    ("grpcroutes", "GRPCRoute"),
    ("httproutes", "HTTPRoute"),
    ("listenersets", "ListenerSet"),
    ("referencegrants", "ReferenceGrant"),
    ("tcproutes", "TCPRoute"),
    ("tlsroutes", "TLSRoute"),
    ("udproutes", "UDPRoute"),
];

/// The release that the types were written after: `v1.7.0` and what repairs it.
const RELEASE: &str = "v1.7";

/// Our classes by name: where addresses of their Gateways come from, or why they are not accepted.
pub(super) struct Classes {
    ours: BTreeMap<String, Result<Arc<Addresses>, Fault>>,
}

impl Classes {
    /// `None`: not ours.
    pub(super) fn verdict(&self, name: &str) -> Option<&Result<Arc<Addresses>, Fault>> {
        self.ours.get(name)
    }
}

/// Finds our classes and writes their statuses.
pub(super) fn translate(builder: &mut Builder<'_>) -> Classes {
    let world = builder.world;
    let settings = builder.settings;
    let default = Arc::new(settings.default_addresses());
    let mut ours = BTreeMap::new();
    for class in world.gateway_classes.iter() {
        if class.spec.controller_name != *settings.gateway_controller {
            continue;
        }
        let origin = origin("GatewayClass", &class.metadata);
        let verdict = addresses(builder, class, &default);
        if let Err(fault) = &verdict {
            fault.report(builder, &origin, "spec.parametersRef");
        }
        let generation = class.metadata.generation;
        let version = version(world, generation);
        if !version.message.is_empty() {
            builder.warning(
                &origin,
                "",
                version.message.clone(),
                "install the CRDs of Gateway API v1.7",
            );
        }
        builder.statuses.gateway_classes.insert(
            ObjectName::of(&class.metadata),
            GatewayClassStatus {
                conditions: vec![
                    condition("Accepted", verdict.as_ref().map(|_| "Accepted"), generation),
                    version,
                ],
                supported_features: features(world)
                    .map(|name| SupportedFeature { name: name.to_owned() })
                    .collect(),
            },
        );
        ours.insert(class.metadata.name.clone().unwrap_or_default(), verdict);
    }
    if let Some(implied) = &settings.implied_class
        && world.gateway_classes.get("", implied).is_none()
    {
        ours.insert(implied.to_string(), Ok(default));
    }
    Classes { ours }
}

fn addresses(builder: &Builder<'_>, class: &GatewayClass, default: &Arc<Addresses>) -> Result<Arc<Addresses>, Fault> {
    let Some(reference) = &class.spec.parameters_ref else {
        return Ok(Arc::clone(default));
    };
    let invalid = |message: String, fix| Err(fault("InvalidParameters", message, fix));
    if !parameters::is_known(&reference.group, &reference.kind) {
        return invalid(
            format!(
                "parametersRef names kind {} of group {:?}, which this version does not know",
                reference.kind, reference.group
            ),
            "name a GatewayParameters of group pierhead.dev, or remove spec.parametersRef",
        );
    }
    let Some(namespace) = &reference.namespace else {
        return invalid(
            format!("parametersRef: GatewayParameters {} needs a namespace", reference.name),
            "set spec.parametersRef.namespace",
        );
    };
    builder.parameters(namespace, &reference.name).or_else(|why| {
        invalid(
            format!("parametersRef: {why}"),
            "create or repair the GatewayParameters",
        )
    })
}

fn bundle<'w>(world: &'w World, plural: &str) -> Option<&'w crate::Bundle> {
    world.bundles.get(&format!("{plural}.{GROUP}"))
}

/// `SupportedVersion`: "True when every Gateway API CRD carries a bundle-version we know, else False with the versions in the
/// message". An unknown version is served all the same, as well as it goes. Without an API server the schemas of v1.7.0 that
/// are part of this program hold.
fn version(world: &World, generation: Option<i64>) -> Condition {
    let known = |version: &str| {
        version
            .strip_prefix(RELEASE)
            .is_some_and(|patch| patch.starts_with(['.', '-']))
    };
    let gateway_api = |name: &str| {
        let (_, group) = name.split_once('.').unwrap_or_default();
        [GROUP, "gateway.networking.x-k8s.io"].contains(&group)
    };
    let mut unknown: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, bundle) in &world.bundles {
        if gateway_api(name) && !known(&bundle.version) {
            let plural = name.split('.').next().unwrap_or(name);
            unknown.entry(&bundle.version).or_default().push(plural);
        }
    }
    if !unknown.is_empty() {
        let list: Vec<String> = unknown
            .into_iter()
            .map(|(version, names)| {
                let version = if version.is_empty() { "no version" } else { version };
                format!("{version} ({})", names.join(", "))
            })
            .collect();
        let message = format!("installed CRDs are not of {RELEASE}: {}", list.join("; "));
        return condition(
            "SupportedVersion",
            Err(&fault("UnsupportedVersion", message, "")),
            generation,
        );
    }
    let mut supported = condition("SupportedVersion", Ok("SupportedVersion"), generation);
    let missing: Vec<&str> = KINDS
        .iter()
        .map(|(plural, _)| *plural)
        .filter(|p| bundle(world, p).is_none())
        .collect();
    if !world.bundles.is_empty() && !missing.is_empty() {
        supported.message = format!("not installed, so not served: {}", missing.join(", "));
    }
    supported
}

/// What holds with the CustomResourceDefinitions there are.
fn features(world: &World) -> impl Iterator<Item = &'static str> {
    let cluster = !world.bundles.is_empty();
    let experimental = bundle(world, "gateways").is_none_or(|bundle| bundle.channel != "standard");
    let installed = move |feature: &str| {
        let of_kind = |prefix: &str| !prefix.is_empty() && feature.starts_with(prefix);
        KINDS
            .iter()
            .all(|(plural, prefix)| !of_kind(prefix) || bundle(world, plural).is_some())
    };
    FEATURES.iter().copied().filter(move |name| {
        (experimental || !EXPERIMENTAL.contains(name))
            && (cluster || !CLUSTER.contains(name))
            && (!cluster || installed(name))
            // "Advertise the feature only while the API is served" (GEP-5075).
            && (*name != "ClusterTrustBundle" || !world.without_cluster_trust_bundles)
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn features_are_sorted_and_few_enough() {
        assert!(super::FEATURES.is_sorted());
        assert!(super::FEATURES.len() <= 64, "maxItems of status.supportedFeatures");
    }
}
