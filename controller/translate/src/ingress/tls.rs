//! `spec.tls`: which certificate answers which server name.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{Ingress, IngressTLS};
use pierhead_model::{Age, CertificateId, CertificateUse, HostPattern, Origin, TlsTermination, WildcardDepth};

use crate::{Builder, world};

/// The TLS side of all Ingresses.
#[derive(Default)]
pub(super) struct Tls {
    default: Option<CertificateId>,
    /// Server names with a certificate, each with the oldest Ingress that claims it.
    claimed: BTreeMap<HostPattern, Claimed>,
    /// Every server name of some `tls` section, with certificate or without.
    declared: BTreeMap<HostPattern, Age>,
}

struct Claimed {
    certificate: CertificateId,
    age: Age,
    origin: Origin,
}

impl Tls {
    /// The operator's default certificate.
    pub(super) fn new(builder: &mut Builder<'_>) -> Self {
        let mut tls = Self::default();
        if let Some(name) = &builder.settings.default_certificate {
            match builder.certificate(&name.namespace, &name.name) {
                Ok(id) => tls.default = Some(id),
                Err(fault) => {
                    let origin = Origin::new("Secret", &name.namespace, &name.name);
                    builder.error(&origin, "", format!("no default certificate: {fault}"), fault.fix);
                }
            }
        }
        tls
    }

    /// Adds one Ingress with the hosts of its rules. They come oldest first: "same host in several Ingresses' tls: oldest wins".
    pub(super) fn add(&mut self, ingress: &Ingress, hosts: &[HostPattern], builder: &mut Builder<'_>) {
        let sections = ingress.spec.as_ref().and_then(|s| s.tls.as_deref()).unwrap_or_default();
        for (index, section) in sections.iter().enumerate() {
            let field = format!("spec.tls[{index}]");
            self.add_section(ingress, hosts, section, &field, builder);
        }
    }

    fn add_section(
        &mut self,
        ingress: &Ingress,
        own: &[HostPattern],
        section: &IngressTLS,
        field: &str,
        builder: &mut Builder<'_>,
    ) {
        let origin = world::origin("Ingress", &ingress.metadata);
        let age = world::age(&ingress.metadata);
        let mut hosts = server_names(section, &origin, field, builder);
        if section.hosts.as_ref().is_none_or(Vec::is_empty) {
            // "Defaults to the wildcard host setting for the loadbalancer controller": any server name, unless the operator
            // set a certificate for that; in any case the hosts of this Ingress, which are more specific.
            hosts.extend(own.iter().filter(|host| **host != HostPattern::Any).cloned());
            if self.default.is_none() {
                hosts.push(HostPattern::Any);
            }
        }
        for host in &hosts {
            self.declared.entry(host.clone()).or_insert_with(|| age.clone());
        }
        let Some(secret) = section.secret_name.as_deref().filter(|name| !name.is_empty()) else {
            if self.default.is_none() {
                builder.warning(
                    &origin,
                    format!("{field}.secretName"),
                    "names no Secret, and there is no default certificate: its hosts have no TLS",
                    "set secretName, or give the controller a default certificate",
                );
            }
            return;
        };
        let certificate = match builder.certificate(world::namespace(&ingress.metadata), secret) {
            Ok(certificate) => certificate,
            Err(fault) => {
                let instead = if self.default.is_some() {
                    "the default certificate is used"
                } else {
                    "its hosts have no TLS"
                };
                builder.error(
                    &origin,
                    format!("{field}.secretName"),
                    format!("{fault}; {instead}"),
                    fault.fix,
                );
                return;
            }
        };
        for host in hosts {
            match self.claimed.get(&host) {
                None => {
                    let claimed = Claimed {
                        certificate: certificate.clone(),
                        age: age.clone(),
                        origin: origin.clone(),
                    };
                    self.claimed.insert(host, claimed);
                }
                Some(holder) if holder.certificate != certificate => builder.warning(
                    &origin,
                    format!("{field}.hosts"),
                    format!(
                        "{host} already has the certificate {} from the older {}",
                        holder.certificate, holder.origin
                    ),
                    "use one Secret for a host",
                ),
                Some(_) => {}
            }
        }
    }

    /// How TLS ends at the HTTPS listener and the server names it answers, each with its age; `None` when nobody asks for
    /// TLS.
    ///
    /// A server name that nobody declared is answered only with a default certificate, or where a section without hosts
    /// offers its own: else a stranger's certificate would be shown.
    pub(super) fn listener(&self, oldest: &Age) -> Option<(TlsTermination, Vec<HostPattern>, Vec<Age>)> {
        if self.declared.is_empty() && self.default.is_none() {
            return None;
        }
        let mut by_certificate: BTreeMap<&CertificateId, Vec<HostPattern>> = BTreeMap::new();
        for (host, claimed) in &self.claimed {
            by_certificate
                .entry(&claimed.certificate)
                .or_default()
                .push(host.clone());
        }
        let mut hosts: BTreeMap<&HostPattern, &Age> = self.claimed.iter().map(|(h, c)| (h, &c.age)).collect();
        let mut certificates = Vec::new();
        if let Some(default) = &self.default {
            hosts.extend(self.declared.iter());
            hosts.entry(&HostPattern::Any).or_insert(oldest);
            certificates.push(CertificateUse {
                names: vec![HostPattern::Any],
                certificate: default.clone(),
            });
        }
        if hosts.is_empty() {
            hosts.extend(self.declared.iter());
        }
        // Without a server name the first entry answers: the one for any name, if there is one.
        let mut by_certificate: Vec<_> = by_certificate.into_iter().collect();
        by_certificate.sort_by_key(|(_, names)| !names.contains(&HostPattern::Any));
        certificates.extend(by_certificate.into_iter().map(|(certificate, names)| CertificateUse {
            names,
            certificate: certificate.clone(),
        }));
        let (hosts, ages) = hosts.into_iter().map(|(h, a)| (h.clone(), a.clone())).unzip();
        let termination = TlsTermination {
            certificates,
            client_auth: None,
        };
        Some((termination, hosts, ages))
    }
}

/// The names a section lists, as far as they are names.
fn server_names(section: &IngressTLS, origin: &Origin, field: &str, builder: &mut Builder<'_>) -> Vec<HostPattern> {
    let texts = section.hosts.as_deref().unwrap_or_default();
    let mut hosts = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        match HostPattern::parse(text, WildcardDepth::One) {
            Ok(host) => hosts.push(host),
            Err(why) => {
                builder.error(
                    origin,
                    format!("{field}.hosts[{index}]"),
                    why.to_string(),
                    "use a DNS name or *.name",
                );
            }
        }
    }
    hosts
}
