//! GatewayClasses: which are ours.

use std::collections::BTreeMap;

use pierhead_gateway_api::{GatewayClassStatus, SupportedFeature};

use super::condition::{Verdict, condition, fault};
use crate::{Builder, ObjectName, origin};

/// What the data plane really does, by the names of `pkg/features`, sorted. A name here is a promise that the official
/// suite tests.
const FEATURES: &[&str] = &[
    "BackendTLSPolicy",
    "BackendTLSPolicySANValidation",
    "GRPCRoute",
    "GRPCRouteNamedRouteRule",
    "GRPCRouteRequestHeaderModifier",
    "Gateway",
    "GatewayAddressEmpty",
    "GatewayBackendClientCertificate",
    "GatewayFrontendClientCertificateValidation",
    "GatewayFrontendClientCertificateValidationInsecureFallback",
    "GatewayHTTPListenerIsolation",
    "GatewayHTTPSListenerDetectMisdirectedRequests",
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

/// Our classes by name, and whether they are accepted.
pub(super) struct Classes {
    ours: BTreeMap<String, Verdict>,
}

impl Classes {
    /// `None`: not ours.
    pub(super) fn verdict(&self, name: &str) -> Option<&Verdict> {
        self.ours.get(name)
    }
}

/// Finds our classes and writes their statuses.
pub(super) fn translate(builder: &mut Builder<'_>) -> Classes {
    let world = builder.world;
    let settings = builder.settings;
    let mut ours = BTreeMap::new();
    for class in world.gateway_classes.iter() {
        if class.spec.controller_name != *settings.gateway_controller {
            continue;
        }
        let verdict = match &class.spec.parameters_ref {
            None => Ok(()),
            Some(reference) => Err(fault(
                "InvalidParameters",
                format!(
                    "parametersRef names kind {} of group {:?}, which this version does not know",
                    reference.kind, reference.group
                ),
                "remove spec.parametersRef",
            )),
        };
        if let Err(fault) = &verdict {
            fault.report(builder, &origin("GatewayClass", &class.metadata), "spec.parametersRef");
        }
        let generation = class.metadata.generation;
        builder.statuses.gateway_classes.insert(
            ObjectName::of(&class.metadata),
            GatewayClassStatus {
                conditions: vec![
                    condition("Accepted", verdict.as_ref().map(|()| "Accepted"), generation),
                    // The CRDs of a cluster are not watched yet; a folder is read with the schemas of v1.7.0.
                    condition("SupportedVersion", Ok("SupportedVersion"), generation),
                ],
                supported_features: FEATURES
                    .iter()
                    .map(|name| SupportedFeature {
                        name: (*name).to_owned(),
                    })
                    .collect(),
            },
        );
        ours.insert(class.metadata.name.clone().unwrap_or_default(), verdict);
    }
    if let Some(implied) = &settings.implied_class
        && world.gateway_classes.get("", implied).is_none()
    {
        ours.insert(implied.to_string(), Ok(()));
    }
    Classes { ours }
}

#[cfg(test)]
mod tests {
    #[test]
    fn features_are_sorted_and_few_enough() {
        assert!(super::FEATURES.is_sorted());
        assert!(super::FEATURES.len() <= 64, "maxItems of status.supportedFeatures");
    }
}
