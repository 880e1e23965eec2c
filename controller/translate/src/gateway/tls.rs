//! TLS of Gateways: certificates of listeners, certificates asked of clients, the certificate shown to backends.

use std::sync::Arc;

use pierhead_gateway_api::{
    FrontendTLSValidation, FrontendValidationModeType, ListenerTLSConfig, ObjectReference, ProtocolType,
    SecretObjectReference, TLSModeType,
};
use pierhead_model::{CertificateId, CertificateUse, ClientAuth, ClientAuthMode, HostPattern, TlsTermination};

use super::{
    condition::{Fault, Verdict, add, fault},
    grant::{self, Target},
    listener::{Gateways, ListenerState, Owner},
    policy,
};
use crate::{Builder, border::CaSource};

/// Resolves every TLS reference of one Gateway and of its listeners.
pub(super) fn resolve(builder: &mut Builder<'_>, all: &mut Gateways<'_>, gateway: usize) {
    let state = &mut all.gateways[gateway];
    let config = state.object.spec.tls.as_ref();
    let namespace = state.origin.namespace.clone();
    if let Some(reference) = config
        .and_then(|c| c.backend.as_ref())
        .and_then(|b| b.client_certificate_ref.as_ref())
    {
        let result = certificate(builder, "Gateway", &namespace, reference, "InvalidClientCertificateRef");
        state.client_certificate = Some(result);
    }
    let frontend = config.and_then(|c| c.frontend.as_ref());
    let validations = frontend.iter().flat_map(|f| {
        std::iter::once(f.default.validation.as_ref())
            .chain(f.per_port.iter().map(|p| p.tls.validation.as_ref()))
            .flatten()
    });
    state.insecure = validations
        .into_iter()
        .any(|v| v.mode == FrontendValidationModeType::AllowInsecureFallback);
    for listener in all.listeners.iter_mut().filter(|l| l.gateway == gateway) {
        let terminates = match listener.spec.protocol {
            ProtocolType::Https => true,
            ProtocolType::Tls => listener.tls_mode() == TLSModeType::Terminate,
            _ => false,
        };
        if !terminates || listener.accepted.is_err() {
            continue;
        }
        certificates(builder, listener);
        // "frontend" holds for HTTPS listeners (GEP-91).
        if listener.spec.protocol != ProtocolType::Https {
            continue;
        }
        let port = listener.spec.port;
        let validation = frontend.and_then(|f| {
            let own = f.per_port.iter().find(|p| p.port == port).map(|p| &p.tls);
            own.unwrap_or(&f.default).validation.as_ref()
        });
        if let Some(validation) = validation {
            client_auth(builder, &namespace, listener, validation);
        }
    }
    overlaps(all, gateway);
}

/// A reference to a Secret with a certificate. Permission is asked before existence: without a grant nobody learns
/// whether the Secret is there.
fn certificate(
    builder: &mut Builder<'_>,
    kind: &str,
    namespace: &str,
    reference: &SecretObjectReference,
    invalid: &'static str,
) -> Result<CertificateId, Fault> {
    if !reference.group.is_empty() || reference.kind != "Secret" {
        return Err(fault(
            invalid,
            format!(
                "kind {} of group {:?} holds no certificate",
                reference.kind, reference.group
            ),
            "refer to a Secret of type kubernetes.io/tls",
        ));
    }
    let target = Target {
        group: "",
        kind: "Secret",
        namespace: reference.namespace.as_deref().unwrap_or(namespace),
        name: &reference.name,
    };
    if !grant::permitted(builder.world, kind, namespace, target) {
        return Err(not_permitted(kind, namespace, target));
    }
    builder
        .certificate(target.namespace, target.name)
        .map_err(|why| fault(invalid, why.message, why.fix))
}

fn not_permitted(kind: &str, namespace: &str, target: Target<'_>) -> Fault {
    fault(
        "RefNotPermitted",
        format!(
            "no ReferenceGrant in namespace {} lets kind {kind} of namespace {namespace} refer to {} {}",
            target.namespace, target.kind, target.name
        ),
        "add a ReferenceGrant beside the object, or move it",
    )
}

/// A listener whose certificates are all unusable stays where it is and refuses handshakes: its names must not fall to a
/// less specific listener.
fn certificates(builder: &mut Builder<'_>, listener: &mut ListenerState<'_>) {
    let kind = match listener.owner {
        Owner::Gateway(_) => "Gateway",
        Owner::Set(_) => "ListenerSet",
    };
    let references: &[SecretObjectReference] = listener
        .spec
        .tls
        .as_ref()
        .map_or(&[], |tls: &ListenerTLSConfig| &tls.certificate_refs);
    let mut verdict = Ok(());
    let mut uses = Vec::new();
    for reference in references {
        match certificate(builder, kind, listener.namespace, reference, "InvalidCertificateRef") {
            Ok(certificate) => uses.push(certificate),
            Err(fault) => add(&mut verdict, fault),
        }
    }
    if references.is_empty() {
        verdict = Err(fault(
            "InvalidCertificateRef",
            "the listener has no certificate",
            "set tls.certificateRefs",
        ));
    }
    listener.usable = !uses.is_empty();
    if verdict.is_err() {
        listener.refs = verdict;
    }
    let several = uses.len() > 1;
    let certificates = uses
        .into_iter()
        .map(|certificate| CertificateUse {
            names: if several {
                names(builder, &certificate, &listener.host)
            } else {
                vec![listener.host.clone()]
            },
            certificate,
        })
        .collect();
    listener.tls = Some(TlsTermination {
        certificates,
        client_auth: None,
    });
}

/// Among several certificates those names decide that the certificates carry.
fn names(builder: &Builder<'_>, id: &CertificateId, host: &HostPattern) -> Vec<HostPattern> {
    let own = builder.snapshot.certificates.get(id).map(|c| c.names.clone());
    own.filter(|names| !names.is_empty())
        .unwrap_or_else(|| vec![host.clone()])
}

fn client_auth(
    builder: &mut Builder<'_>,
    namespace: &str,
    listener: &mut ListenerState<'_>,
    validation: &FrontendTLSValidation,
) {
    let mode = match &validation.mode {
        FrontendValidationModeType::AllowValidOnly => ClientAuthMode::ValidOnly,
        FrontendValidationModeType::AllowInsecureFallback => ClientAuthMode::InsecureFallback,
        FrontendValidationModeType::Unknown(mode) => {
            let fault = fault(
                "UnsupportedValue",
                format!("client validation mode {mode} is not supported"),
                "use AllowValidOnly or AllowInsecureFallback",
            );
            add(&mut listener.accepted, fault);
            return;
        }
    };
    let mut anchors: Vec<Arc<[u8]>> = Vec::new();
    let mut sources = Vec::new();
    let mut verdict: Verdict = Ok(());
    for reference in &validation.ca_certificate_refs {
        match authority(builder, namespace, reference) {
            Ok(found) => {
                sources.push(found.source);
                anchors.extend(found.anchors);
            }
            Err(fault) => add(&mut verdict, fault),
        }
    }
    if verdict.is_err() {
        listener.refs = verdict;
    }
    if anchors.is_empty() {
        let fault = fault(
            "NoValidCACertificate",
            "no CA certificate for client validation is usable",
            "repair caCertificateRefs in spec.tls.frontend of the Gateway",
        );
        add(&mut listener.accepted, fault);
        return;
    }
    let trust = builder.add_trust(&sources.join("+"), anchors);
    listener.client_auth = Some(ClientAuth { trust, mode });
    if let Some(tls) = &mut listener.tls {
        tls.client_auth.clone_from(&listener.client_auth);
    }
}

/// The CA certificates that a reference names.
struct Authority {
    /// A part of the name for them.
    source: String,
    anchors: Vec<Arc<[u8]>>,
}

/// Cluster-scoped kinds need no grant.
fn authority(builder: &Builder<'_>, namespace: &str, reference: &ObjectReference) -> Result<Authority, Fault> {
    let namespace_of = reference.namespace.as_deref().unwrap_or(namespace);
    let found = CaSource::find(
        builder.world,
        &reference.group,
        &reference.kind,
        namespace_of,
        &reference.name,
    );
    let source =
        found.ok_or_else(|| policy::no_authority("InvalidCACertificateKind", &reference.group, &reference.kind))?;
    if let CaSource::ConfigMap { namespace: of, name } = source {
        let target = Target {
            group: "",
            kind: "ConfigMap",
            namespace: of,
            name,
        };
        if !grant::permitted(builder.world, "Gateway", namespace, target) {
            return Err(not_permitted("Gateway", namespace, target));
        }
    }
    let anchors = builder
        .ca_certificates(source)
        .map_err(|why| fault("InvalidCACertificateRef", why.message, why.fix))?;
    Ok(Authority {
        source: source.key(),
        anchors,
    })
}

/// "OverlappingTLSConfig": HTTPS and TLS listeners of one port whose hostnames overlap: an HTTP/2 client may reuse a
/// connection for the other one's names.
fn overlaps(all: &mut Gateways<'_>, gateway: usize) {
    let in_tls = |l: &ListenerState<'_>| {
        l.gateway == gateway && l.stands() && matches!(l.spec.protocol, ProtocolType::Https | ProtocolType::Tls)
    };
    let candidates: Vec<usize> = (0..all.listeners.len())
        .filter(|i| in_tls(&all.listeners[*i]))
        .collect();
    for &index in &candidates {
        let listener = &all.listeners[index];
        let other = candidates.iter().map(|i| &all.listeners[*i]).find(|other| {
            other.id != listener.id && other.spec.port == listener.spec.port && other.host.intersects(&listener.host)
        });
        let overlapping = other.map(|other| {
            fault(
                "OverlappingHostnames",
                format!(
                    "hostname {} overlaps with {} of {}",
                    listener.host, other.host, other.id
                ),
                "",
            )
        });
        all.listeners[index].overlapping = overlapping;
    }
}
