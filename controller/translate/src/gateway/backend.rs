//! References to backends: kind, permission, existence, TLS; written once for all route kinds.

use pierhead_gateway_api::{BackendObjectReference, BackendRef};
use pierhead_model::{BackendId, CertificateId, InvalidReason, Origin, WeightedBackend};

use super::{
    condition::{Fault, Verdict, add, fault},
    grant::{self, Target},
    policy::Policies,
};
use crate::{
    Builder,
    border::{BackendFault, Carrier, PortRef, Resolved, ServiceRef, TlsChoice},
};

/// What resolves the references of one route for one set of Gateways.
pub(super) struct Backends<'b, 'w> {
    pub(super) builder: &'b mut Builder<'w>,
    pub(super) policies: &'b mut Policies<'w>,
    pub(super) origin: Origin,
    pub(super) carrier: Carrier,
    /// Whether BackendTLSPolicies apply: not where TLS passes through, and not to plain TCP and UDP routes.
    pub(super) tls: bool,
    pub(super) gateways: Vec<usize>,
    /// The Gateways' certificate for backends.
    pub(super) client_certificate: Option<CertificateId>,
    /// The first reference that does not resolve.
    pub(super) refs: Verdict,
    /// Some backend is spoken to in TLS, so the Gateways' certificate matters.
    pub(super) used_tls: bool,
}

impl Backends<'_, '_> {
    pub(super) fn weighted(&mut self, reference: &BackendRef, field: &str) -> WeightedBackend {
        WeightedBackend {
            backend: self.resolve(&reference.object, field).id,
            weight: reference.weight,
            filters: Vec::new(),
        }
    }

    /// A backend by its name, in the snapshot whatever is wrong with it; what is wrong goes into `refs`.
    pub(super) fn resolve(&mut self, reference: &BackendObjectReference, field: &str) -> Resolved {
        self.resolve_as(reference, self.carrier, field)
    }

    /// The same for something else than the route's own traffic.
    pub(super) fn resolve_as(&mut self, reference: &BackendObjectReference, carrier: Carrier, field: &str) -> Resolved {
        let own = self.origin.namespace.clone();
        let namespace = reference.namespace.as_deref().unwrap_or(&own);
        let resolved = match self.service(reference, carrier, namespace) {
            Ok((service, tls)) => self.builder.service_backend(service, carrier, tls.as_ref()),
            Err(fault) => {
                let what = format!(
                    "{namespace}/{}:{}",
                    reference.name,
                    reference.port.map_or_else(String::new, |p| p.to_string())
                );
                self.builder.invalid_backend(self.origin.clone(), &what, fault)
            }
        };
        if let Some(fault) = &resolved.fault {
            self.builder
                .error(&self.origin, field, fault.message.clone(), fault.fix);
            if let Some(fault) = condition_of(fault) {
                add(&mut self.refs, fault);
            }
        }
        resolved
    }

    fn service<'r>(
        &mut self,
        reference: &'r BackendObjectReference,
        carrier: Carrier,
        namespace: &'r str,
    ) -> Result<(ServiceRef<'r>, Option<TlsChoice>), BackendFault> {
        let broken = |reason, message, fix| BackendFault { reason, message, fix };
        if !reference.group.is_empty() || reference.kind != "Service" {
            return Err(broken(
                InvalidReason::InvalidKind,
                format!("kind {} of group {:?} is no backend", reference.kind, reference.group),
                "refer to a Service",
            ));
        }
        let target = Target {
            group: "",
            kind: "Service",
            namespace,
            name: &reference.name,
        };
        if !grant::permitted(self.builder.world, &self.origin.kind, &self.origin.namespace, target) {
            return Err(broken(
                InvalidReason::RefNotPermitted,
                format!(
                    "no ReferenceGrant in namespace {namespace} lets kind {} of namespace {} refer to Service {}",
                    self.origin.kind, self.origin.namespace, reference.name
                ),
                "add a ReferenceGrant beside the Service",
            ));
        }
        let Some(port) = reference.port else {
            return Err(broken(
                InvalidReason::BackendNotFound,
                format!("the reference to Service {} has no port", reference.name),
                "set port",
            ));
        };
        let service = ServiceRef {
            namespace,
            name: &reference.name,
            port: PortRef::Number(port),
        };
        let tls = if self.tls {
            let name = self.builder.service_port(service, carrier)?.name;
            self.policies.choose(
                (namespace, &reference.name, &name),
                &self.gateways,
                self.client_certificate.as_ref(),
            )
        } else {
            None
        };
        if tls.is_some() {
            self.used_tls = true;
            // What the policy and its CAs say is not compared with the previous translation, and the policy counts its users.
            self.builder.note(|recording| recording.unrepeatable = true);
        }
        Ok((service, tls))
    }

    /// A share of traffic that fails because its filters are not understood.
    pub(super) fn broken(&mut self, name: &str, message: &str) -> BackendId {
        let fault = BackendFault {
            reason: InvalidReason::UnsupportedFilter,
            message: message.to_owned(),
            fix: "remove the filter",
        };
        self.builder.invalid_backend(self.origin.clone(), name, fault).id
    }
}

/// `ResolvedRefs` knows four reasons. A policy that is wrong says so itself.
fn condition_of(backend: &BackendFault) -> Option<Fault> {
    let reason = match backend.reason {
        InvalidReason::BackendNotFound => "BackendNotFound",
        InvalidReason::InvalidKind => "InvalidKind",
        InvalidReason::RefNotPermitted => "RefNotPermitted",
        InvalidReason::UnsupportedProtocol => "UnsupportedProtocol",
        InvalidReason::TlsPolicyInvalid | InvalidReason::UnsupportedFilter => return None,
    };
    Some(fault(reason, backend.message.clone(), backend.fix))
}
