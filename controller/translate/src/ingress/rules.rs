//! `spec.rules` and `spec.defaultBackend`: one Ingress becomes one route.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use k8s_openapi::api::networking::v1::{HTTPIngressPath, Ingress, IngressBackend, IngressRule};
use pierhead_model::{
    Filter, HostPattern, Hostname, HttpMatch, HttpRule, InvalidReason, Origin, PathMatch, Timeouts, WeightedBackend,
    WildcardDepth,
};

use crate::{
    Builder,
    border::{BackendFault, Carrier, PortRef, Resolved, ServiceRef},
    gateway::Policies,
    world,
};

/// Who has which host and path, over all Ingresses. The specification says nothing; the custom is that rules of one host
/// merge and the oldest Ingress wins where host and path are the same.
#[derive(Default)]
pub(super) struct Taken {
    paths: BTreeMap<(HostPattern, PathKey), Origin>,
    defaults: BTreeMap<HostPattern, Origin>,
    /// Hosts that have some rule.
    hosts: BTreeSet<HostPattern>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum PathKey {
    Exact(String),
    Prefix(String),
}

/// The hosts of an Ingress as far as they can be read, with the index of the rule. [`HostPattern::Any`] is a rule without
/// host, and what an Ingress without rules claims for its default backend.
pub(super) fn hosts(ingress: &Ingress) -> Vec<HostPattern> {
    let spec = ingress.spec.as_ref();
    let rules = spec.and_then(|s| s.rules.as_deref()).unwrap_or_default();
    let mut hosts: Vec<HostPattern> = if rules.is_empty() {
        spec.and_then(|s| s.default_backend.as_ref())
            .map(|_| HostPattern::Any)
            .into_iter()
            .collect()
    } else {
        rules.iter().filter_map(|rule| host(rule).ok()).collect()
    };
    hosts.sort();
    hosts.dedup();
    hosts
}

/// `*` stands for exactly one label, and alone it is no host; an address is none either (`IngressRule.host`).
fn host(rule: &IngressRule) -> Result<HostPattern, String> {
    let text = rule.host.as_deref().unwrap_or_default();
    let pattern = HostPattern::parse(text, WildcardDepth::One).map_err(|e| e.to_string())?;
    let (HostPattern::Exact(name) | HostPattern::Wildcard { suffix: name, .. }) = &pattern else {
        return Ok(pattern);
    };
    if is_address(name) {
        return Err(format!("{text:?} is an address, not a DNS name"));
    }
    Ok(pattern)
}

fn is_address(name: &Hostname) -> bool {
    name.as_str().parse::<std::net::IpAddr>().is_ok()
}

/// One Ingress being turned into rules.
pub(super) struct Rules<'a, 'w> {
    pub(super) ingress: &'a Ingress,
    pub(super) origin: &'a Origin,
    /// What [`hosts`] says of it.
    pub(super) hosts: &'a [HostPattern],
    /// Put on every rule: what makes paths fail closed.
    pub(super) guards: &'a [Filter],
    /// The same, by host.
    pub(super) host_guards: &'a BTreeMap<HostPattern, Vec<Filter>>,
    pub(super) taken: &'a mut Taken,
    pub(super) builder: &'a mut Builder<'w>,
    pub(super) policies: &'a mut Policies<'w>,
}

impl Rules<'_, '_> {
    pub(super) fn translate(mut self) -> Vec<HttpRule> {
        let spec = self.ingress.spec.as_ref();
        let mut rules = Vec::new();
        for (index, rule) in spec.iter().flat_map(|s| s.rules.iter().flatten()).enumerate() {
            self.rule(rule, &format!("spec.rules[{index}]"), &mut rules);
        }
        if let Some(backend) = spec.and_then(|s| s.default_backend.as_ref()) {
            self.default_backend(backend, &mut rules);
        }
        self.bare_hosts(&mut rules);
        rules
    }

    fn rule(&mut self, rule: &IngressRule, field: &str, rules: &mut Vec<HttpRule>) {
        let host = match host(rule) {
            Ok(host) => host,
            Err(why) => {
                let fix = "use a DNS name, *.name, or leave host out for all";
                return self.builder.error(self.origin, format!("{field}.host"), why, fix);
            }
        };
        let Some(http) = &rule.http else {
            // "If http is not specified, all traffic of the host goes to the default backend."
            if self.ingress.spec.as_ref().is_none_or(|s| s.default_backend.is_none()) {
                let message = "has no http paths, and the Ingress has no defaultBackend: it is answered 404";
                self.builder
                    .warning(self.origin, field, message, "add http.paths, or a defaultBackend");
            }
            return;
        };
        for (index, path) in http.paths.iter().enumerate() {
            self.path(&host, path, &format!("{field}.http.paths[{index}]"), rules);
        }
    }

    fn path(&mut self, host: &HostPattern, path: &HTTPIngressPath, field: &str, rules: &mut Vec<HttpRule>) {
        let text = path.path.as_deref().filter(|p| !p.is_empty()).unwrap_or("/");
        if !text.starts_with('/') {
            let message = format!("{text:?} does not start with a slash: the path is left out");
            return self
                .builder
                .error(self.origin, format!("{field}.path"), message, "write an absolute path");
        }
        let (matched, key) = match path.path_type.as_str() {
            "Exact" => (PathMatch::Exact(text.into()), PathKey::Exact(text.to_owned())),
            // ImplementationSpecific: "implementations can treat this as a separate pathType or treat it identically to
            // Prefix or Exact".
            "Prefix" | "ImplementationSpecific" => (PathMatch::Prefix(text.into()), PathKey::Prefix(text.to_owned())),
            other => {
                let message = format!("pathType {other:?} is not known: the path is left out");
                let fix = "use Exact, Prefix or ImplementationSpecific";
                return self
                    .builder
                    .error(self.origin, format!("{field}.pathType"), message, fix);
            }
        };
        match self.taken.paths.entry((host.clone(), key)) {
            Entry::Vacant(free) => {
                free.insert(self.origin.clone());
            }
            Entry::Occupied(held) => {
                let message = format!(
                    "host {host} and path {text} already belong to {}",
                    Holder(held.get(), self.origin)
                );
                let fix = "remove the path, or change it: the oldest Ingress has it";
                return self.builder.error(self.origin, field, message, fix);
            }
        }
        let backend = self.backend(&path.backend, &format!("{field}.backend"));
        rules.push(self.http_rule(vec![host.clone()], matched, backend, false));
    }

    /// For what no rule of this Ingress' own hosts matches; of an Ingress without rules, for hosts that nobody names.
    fn default_backend(&mut self, backend: &IngressBackend, rules: &mut Vec<HttpRule>) {
        let mut own = Vec::new();
        for host in self.hosts {
            match self.taken.defaults.entry(host.clone()) {
                Entry::Vacant(free) => {
                    free.insert(self.origin.clone());
                    own.push(host.clone());
                }
                Entry::Occupied(held) => {
                    let message = format!(
                        "host {host} already has the default backend of the older {}",
                        held.get()
                    );
                    let fix = "keep one defaultBackend for a host";
                    self.builder.warning(self.origin, "spec.defaultBackend", message, fix);
                }
            }
        }
        let resolved = self.backend(backend, "spec.defaultBackend");
        if own.is_empty() {
            return;
        }
        let everything = PathMatch::Prefix("/".into());
        rules.push(self.http_rule(own, everything, resolved, true));
    }

    /// A host that is named and has no path is known all the same: its requests are nobody else's, not even a wildcard's.
    fn bare_hosts(&mut self, rules: &mut Vec<HttpRule>) {
        let named = rules.iter().flat_map(|rule| rule.hosts.iter().flatten());
        self.taken.hosts.extend(named.cloned());
        let bare: Vec<HostPattern> = self
            .hosts
            .iter()
            .filter(|host| self.taken.hosts.insert((*host).clone()))
            .cloned()
            .collect();
        if !bare.is_empty() {
            rules.push(HttpRule {
                name: None,
                hosts: Some(bare),
                matches: Vec::new(),
                filters: Vec::new(),
                backends: Vec::new(),
                timeouts: Timeouts::default(),
                retry: None,
                fallback: false,
            });
        }
    }

    fn http_rule(&self, hosts: Vec<HostPattern>, path: PathMatch, backend: Resolved, fallback: bool) -> HttpRule {
        let mut filters = self.guards.to_vec();
        for guard in hosts.iter().filter_map(|host| self.host_guards.get(host)).flatten() {
            if !filters.contains(guard) {
                filters.push(guard.clone());
            }
        }
        HttpRule {
            name: None,
            hosts: Some(hosts),
            matches: vec![HttpMatch {
                path,
                method: None,
                headers: Vec::new(),
                query: Vec::new(),
            }],
            filters,
            backends: vec![WeightedBackend {
                backend: backend.id,
                weight: 1,
                filters: Vec::new(),
            }],
            timeouts: Timeouts::default(),
            retry: None,
            fallback,
        }
    }

    fn backend(&mut self, backend: &IngressBackend, field: &str) -> Resolved {
        let namespace = world::namespace(&self.ingress.metadata);
        let (field, resolved) = match (&backend.service, &backend.resource) {
            (Some(service), None) => {
                let field = format!("{field}.service");
                let port = service.port.as_ref();
                let number = port.and_then(|p| p.number).unwrap_or_default();
                let name = port.and_then(|p| p.name.as_deref()).unwrap_or_default();
                let port = match (u16::try_from(number), name) {
                    (Ok(number @ 1..), "") => Some(PortRef::Number(number)),
                    (Ok(0), name) if !name.is_empty() => Some(PortRef::Name(name)),
                    _ => None,
                };
                match port {
                    Some(port) => {
                        let service = ServiceRef {
                            namespace,
                            name: &service.name,
                            port,
                        };
                        (field, self.service(service))
                    }
                    None => {
                        let what = format!("{namespace}/{}:?", service.name);
                        let message = "exactly one of port.name and port.number (1 to 65535) must be set";
                        (
                            format!("{field}.port"),
                            self.unusable(&what, InvalidReason::BackendNotFound, message.to_owned()),
                        )
                    }
                }
            }
            (None, Some(resource)) => {
                let group = resource.api_group.as_deref().unwrap_or("core");
                let what = format!("{namespace}/{group}/{}/{}", resource.kind, resource.name);
                let message = format!(
                    "a resource of kind {group}/{} cannot be a backend: its path is answered 500",
                    resource.kind
                );
                (
                    format!("{field}.resource"),
                    self.unusable(&what, InvalidReason::InvalidKind, message),
                )
            }
            _ => {
                let what = format!("{namespace}/?");
                let message = "exactly one of service and resource must be set".to_owned();
                (
                    field.to_owned(),
                    self.unusable(&what, InvalidReason::InvalidKind, message),
                )
            }
        };
        if let Some(fault) = &resolved.fault {
            self.builder.error(self.origin, field, fault.message.clone(), fault.fix);
        }
        resolved
    }

    /// A BackendTLSPolicy for the Service holds here too: what must be sent in TLS is not sent in plaintext because an
    /// Ingress sends it (GEP-1897: a policy is attached to the Service, not to a route).
    fn service(&mut self, service: ServiceRef<'_>) -> Resolved {
        let port = self.builder.service_port(service, Carrier::Ingress);
        let tls = port.ok().and_then(|port| {
            let target = (service.namespace, service.name, port.name.as_str());
            self.policies.choose(target, &[], None)
        });
        self.builder.service_backend(service, Carrier::Ingress, tls.as_ref())
    }

    fn unusable(&mut self, what: &str, reason: InvalidReason, message: String) -> Resolved {
        let fault = BackendFault {
            reason,
            message,
            fix: "name a Service and one of its ports",
        };
        self.builder.invalid_backend(self.origin.clone(), what, fault)
    }
}

/// "this Ingress" or the other one.
struct Holder<'a>(&'a Origin, &'a Origin);

impl std::fmt::Display for Holder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0 == self.1 {
            f.write_str("an earlier rule of this Ingress")
        } else {
            write!(f, "the older {}", self.0)
        }
    }
}
