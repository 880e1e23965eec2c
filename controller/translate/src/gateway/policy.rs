//! BackendTLSPolicy: which Services are spoken to in TLS, and how (GEP-1897).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use pierhead_gateway_api::{
    BackendTLSPolicy, GROUP, ParentReference, PolicyAncestorStatus, PolicyStatus, SubjectAltNameType,
    WellKnownCACertificatesType,
};
use pierhead_model::{BackendTls, CertificateId, Hostname, ServerIdentity, TrustId};

use super::{
    condition::{Fault, Verdict, add, condition, fault},
    listener::Gateways,
};
use crate::{
    Builder, ObjectName, age,
    border::{CaSource, TlsChoice},
    origin, world,
};

/// The policies of the world. They are about Services, so they hold for Ingresses as well as for routes.
pub(crate) struct Policies<'w> {
    policies: Vec<PolicyState<'w>>,
    /// The oldest policy for a target comes first, and is the one that counts.
    by_target: BTreeMap<Target, Vec<usize>>,
    /// The Gateways whose routes send to a target; none of them if only Ingresses do.
    used: BTreeMap<Target, BTreeSet<usize>>,
}

/// A Service, or one port of it by name.
pub(super) type Target = (String, String, Option<String>);

struct PolicyState<'w> {
    object: &'w BackendTLSPolicy,
    targets: Vec<Target>,
    accepted: Verdict,
    refs: Verdict,
    /// `Err` exactly when `accepted` is.
    tls: Result<Trusted, ()>,
}

struct Trusted {
    sni: Hostname,
    identities: Vec<ServerIdentity>,
    trust: Option<TrustId>,
}

impl<'w> Policies<'w> {
    pub(crate) fn new(builder: &mut Builder<'w>) -> Self {
        let world = builder.world;
        let mut sorted: Vec<&'w BackendTLSPolicy> = world.backend_tls_policies.iter().map(|p| &**p).collect();
        sorted.sort_by_key(|p| age(&p.metadata));
        let mut all = Self {
            policies: Vec::new(),
            by_target: BTreeMap::new(),
            used: BTreeMap::new(),
        };
        for object in sorted {
            let namespace = world::namespace(&object.metadata);
            let targets: Vec<Target> = object
                .spec
                .target_refs
                .iter()
                .filter(|t| t.group.is_empty() && t.kind == "Service")
                .map(|t| (namespace.to_owned(), t.name.clone(), t.section_name.clone()))
                .collect();
            let index = all.policies.len();
            let lost = targets.iter().filter(|t| all.by_target.contains_key(*t)).count();
            let state = state(builder, object, targets, lost);
            for target in &state.targets {
                all.by_target.entry(target.clone()).or_default().push(index);
            }
            all.policies.push(state);
        }
        all
    }

    /// Where policies are.
    pub(super) fn targets(&self) -> Vec<Target> {
        self.by_target.keys().cloned().collect()
    }

    /// How a Service port is to be spoken to by `gateways`; `None` in plaintext. A policy for the port by its name beats
    /// one for the whole Service. An Ingress has no Gateway.
    pub(crate) fn choose(
        &mut self,
        (namespace, service, port): (&str, &str, &str),
        gateways: &[usize],
        client_certificate: Option<&CertificateId>,
    ) -> Option<TlsChoice> {
        if self.policies.is_empty() {
            return None;
        }
        let of = |section: Option<&str>| (namespace.to_owned(), service.to_owned(), section.map(str::to_owned));
        let mut chosen = None;
        for target in [of(Some(port).filter(|p| !p.is_empty())), of(None)] {
            if let Some(policies) = self.by_target.get(&target) {
                chosen = chosen.or_else(|| policies.first().copied());
                self.used.entry(target).or_default().extend(gateways);
            }
        }
        let policy = &self.policies[chosen?];
        let name = ObjectName::of(&policy.object.metadata);
        let (key, tls) = match &policy.tls {
            Ok(trusted) => (
                client_certificate.map_or_else(|| name.to_string(), |c| format!("{name}+{c}")),
                Ok(BackendTls {
                    sni: trusted.sni.clone(),
                    identities: trusted.identities.clone(),
                    trust: trusted.trust.clone(),
                    client_certificate: client_certificate.cloned(),
                }),
            ),
            Err(()) => {
                let why = policy.accepted.as_ref().err().map_or("", |f| f.message.as_str());
                (
                    name.to_string(),
                    Err(format!("BackendTLSPolicy {name} is not accepted: {why}")),
                )
            }
        };
        Some(TlsChoice { key, tls })
    }

    /// One status per policy that a Gateway of ours meets, with an ancestor for each such Gateway.
    pub(super) fn conclude(&self, builder: &mut Builder<'_>, gateways: &Gateways<'_>) {
        for policy in &self.policies {
            let used: Vec<&BTreeSet<usize>> = policy.targets.iter().filter_map(|t| self.used.get(t)).collect();
            let met: BTreeSet<usize> = used.iter().copied().flatten().copied().collect();
            let controller = builder.settings.gateway_controller.clone();
            let had = has_entry(policy.object.status.as_ref(), "ancestors", &controller);
            if !used.is_empty() || had {
                policy.report(builder);
            }
            if met.is_empty() && !had {
                continue;
            }
            let generation = policy.object.metadata.generation;
            // At most 16 ancestors fit; the rest is left out (`maxItems`).
            let ancestors = met.iter().take(16).map(|index| {
                let gateway = &gateways.gateways[*index].origin;
                PolicyAncestorStatus {
                    ancestor_ref: ParentReference {
                        group: GROUP.to_owned(),
                        kind: "Gateway".to_owned(),
                        namespace: Some(gateway.namespace.to_string()),
                        name: gateway.name.to_string(),
                        section_name: None,
                        port: None,
                    },
                    controller_name: controller.to_string(),
                    conditions: vec![
                        condition("Accepted", policy.accepted.as_ref().map(|()| "Accepted"), generation),
                        condition(
                            "ResolvedRefs",
                            policy.refs.as_ref().map(|()| "ResolvedRefs"),
                            generation,
                        ),
                    ],
                }
            });
            let status = PolicyStatus {
                ancestors: ancestors.collect(),
            };
            let name = ObjectName::of(&policy.object.metadata);
            builder.statuses.backend_tls_policies.insert(name, status);
        }
    }
}

impl PolicyState<'_> {
    fn report(&self, builder: &mut Builder<'_>) {
        let origin = origin("BackendTLSPolicy", &self.object.metadata);
        for (verdict, field) in [(&self.accepted, "spec"), (&self.refs, "spec.validation")] {
            if let Err(fault) = verdict {
                fault.report(builder, &origin, field);
            }
        }
    }
}

/// Whether an object's present status has entries of ours in its list `key`.
pub(super) fn has_entry(status: Option<&serde_json::Value>, key: &str, controller: &str) -> bool {
    status
        .and_then(|s| s.get(key))
        .and_then(serde_json::Value::as_array)
        .is_some_and(|list| {
            list.iter()
                .any(|e| e.get("controllerName").and_then(|c| c.as_str()) == Some(controller))
        })
}

fn state<'w>(
    builder: &mut Builder<'w>,
    object: &'w BackendTLSPolicy,
    targets: Vec<Target>,
    lost: usize,
) -> PolicyState<'w> {
    let namespace = world::namespace(&object.metadata);
    let (trust, refs) = trust(builder, object, namespace);
    let tls = trust.and_then(|trust| {
        let validation = &object.spec.validation;
        let invalid = |why: String, fix| fault("Invalid", why, fix);
        let sni = Hostname::parse(&validation.hostname)
            .map_err(|why| invalid(why.to_string(), "write a DNS name in validation.hostname"))?;
        // "If specified, the certificate must match one of them; hostname is then used for SNI only."
        let mut identities = Vec::new();
        for name in &validation.subject_alt_names {
            identities.push(match &name.kind {
                SubjectAltNameType::Hostname => ServerIdentity::Dns(
                    Hostname::parse(&name.hostname)
                        .map_err(|why| invalid(why.to_string(), "write a DNS name in subjectAltNames"))?,
                ),
                SubjectAltNameType::Uri => ServerIdentity::Uri(name.uri.as_str().into()),
                SubjectAltNameType::Unknown(kind) => {
                    return Err(invalid(
                        format!("subjectAltNames of type {kind} are not supported"),
                        "use Hostname or URI",
                    ));
                }
            });
        }
        if identities.is_empty() {
            identities.push(ServerIdentity::Dns(sni.clone()));
        }
        Ok(Trusted { sni, identities, trust })
    });
    let conflict = (lost > 0 && lost == targets.len()).then(|| {
        fault(
            "Conflicted",
            "an older BackendTLSPolicy has the same target",
            "remove one of the two",
        )
    });
    let accepted = match (conflict, &tls) {
        (Some(conflict), _) => Err(conflict),
        (None, Err(fault)) => Err(fault.clone()),
        (None, Ok(_)) => Ok(()),
    };
    PolicyState {
        object,
        targets,
        tls: tls.map_err(|_| ()),
        accepted,
        refs,
    }
}

/// The anchors of a policy (`None`: the system's), and whether all its references resolve.
fn trust(
    builder: &mut Builder<'_>,
    object: &BackendTLSPolicy,
    namespace: &str,
) -> (Result<Option<TrustId>, Fault>, Verdict) {
    let validation = &object.spec.validation;
    match &validation.well_known_ca_certificates {
        Some(WellKnownCACertificatesType::System) => return (Ok(None), Ok(())),
        Some(WellKnownCACertificatesType::Unknown(text)) => {
            let fault = fault(
                "Invalid",
                format!("wellKnownCACertificates {text} is not supported"),
                "use System, or caCertificateRefs",
            );
            return (Err(fault), Ok(()));
        }
        None => {}
    }
    let mut refs = Ok(());
    let mut anchors: Vec<Arc<[u8]>> = Vec::new();
    let mut sources = Vec::new();
    for reference in &validation.ca_certificate_refs {
        let found = CaSource::find(
            builder.world,
            &reference.group,
            &reference.kind,
            namespace,
            &reference.name,
        );
        let Some(source) = found else {
            add(
                &mut refs,
                no_authority("InvalidKind", &reference.group, &reference.kind),
            );
            continue;
        };
        match builder.ca_certificates(source) {
            Ok(found) => {
                sources.push(source.key());
                anchors.extend(found);
            }
            Err(why) => add(&mut refs, fault("InvalidCACertificateRef", why.message, why.fix)),
        }
    }
    if anchors.is_empty() {
        let fault = fault(
            "NoValidCACertificate",
            "no CA certificate is usable",
            "repair validation.caCertificateRefs",
        );
        return (Err(fault), refs);
    }
    (Ok(Some(builder.add_trust(&sources.join("+"), anchors))), refs)
}

/// A reference to something we read no CA certificates from.
pub(super) fn no_authority(reason: &'static str, group: &str, kind: &str) -> Fault {
    fault(
        reason,
        format!("kind {kind} of group {group:?} holds no CA certificate we can read"),
        "refer to a ConfigMap with ca.crt, or, where the cluster serves it, to a ClusterTrustBundle",
    )
}
