//! Routes that carry HTTP: from an attached HTTPRoute or GRPCRoute to an `HttpRoute` of the model.

use std::collections::{BTreeMap, BTreeSet};

use pierhead_gateway_api::{HTTPBackendRef, HTTPRouteFilter, Route};
use pierhead_model::{
    Attachment, BackendId, CertificateId, Filter, HostPattern, HttpRoute, HttpRule, Origin, RouteFlavor, RouteId,
    WeightedBackend,
};

use super::{
    attach::{self, Attached, Landing},
    backend::Backends,
    condition::Fault,
    filter,
    listener::Gateways,
    policy::Policies,
    report::{self, Outcome},
};
use crate::{Builder, age, border::Carrier, origin};

/// A route kind whose rules become [`HttpRule`]s.
pub(super) trait HttpKind: Route {
    const FLAVOR: RouteFlavor;
    const CARRIER: Carrier;

    fn rules(&self) -> usize;

    /// # Errors
    /// When the rule cannot be expressed, so it is dropped. A rule that can, but answers errors, comes with its fault.
    fn rule(&self, index: usize, backends: &mut Backends<'_, '_>) -> Result<(HttpRule, Option<Fault>), Fault>;

    /// Fields of other features, as `(path, message)`.
    fn ignored(&self) -> Vec<(String, &'static str)>;
}

/// Adds one route and says what became of it; `None` when no parent is ours.
pub(super) fn translate<'w, R: HttpKind>(
    builder: &mut Builder<'w>,
    gateways: &mut Gateways<'w>,
    policies: &mut Policies<'w>,
    route: &R,
) -> Option<pierhead_gateway_api::RouteStatus> {
    let origin = origin(R::KIND, route.metadata());
    let hosts = attach::hosts(route);
    let any = [HostPattern::Any];
    let known = hosts.as_deref().unwrap_or(&any);
    let attached = attach::attach(builder.world, gateways, route, known);
    if attached.is_empty() {
        return report::released(builder, route.status());
    }
    for (field, message) in route.ignored() {
        builder.warning(&origin, field, message, "remove the field");
    }
    let mut outcome = Outcome::default();
    if let Err(fault) = hosts {
        fault.report(builder, &origin, "spec.hostnames");
        outcome.rejected = Some(fault);
    }
    let groups = groups(gateways, &attached);
    let mut first = true;
    let mut remaining: Vec<_> = groups.into_iter().collect();
    while !remaining.is_empty() {
        let mut group = remaining.remove(0);
        let mut backends = Backends {
            builder,
            policies,
            origin: origin.clone(),
            carrier: R::CARRIER,
            tls: true,
            gateways: group.gateways.iter().copied().collect(),
            client_certificate: group.certificate.clone(),
            refs: Ok(()),
            used_tls: false,
        };
        let (rules, faults) = rules(route, &mut backends);
        let (refs, used_tls) = (backends.refs, backends.used_tls);
        if first {
            outcome.rules = route.rules();
            outcome.faults = faults;
            outcome.refs = refs;
        }
        if !used_tls {
            // The Gateways' certificates make no difference: one route serves them all.
            for other in remaining.drain(..) {
                group.landings.extend(other.landings);
            }
        }
        if outcome.rejected.is_none() && !rules.is_empty() && !group.landings.is_empty() {
            builder.add_route(HttpRoute {
                id: id(&origin, first, &group, gateways),
                flavor: R::FLAVOR,
                age: age(route.metadata()),
                attachments: attachments(gateways, &group.landings),
                rules,
            });
        }
        first = false;
    }
    Some(report::route(builder, gateways, route, &attached, &outcome))
}

/// Gateways that show backends the same certificate.
struct Group {
    certificate: Option<CertificateId>,
    gateways: BTreeSet<usize>,
    landings: Vec<Landing>,
}

fn groups(gateways: &Gateways<'_>, attached: &[Attached<'_>]) -> Vec<Group> {
    let mut groups: BTreeMap<Option<CertificateId>, Group> = BTreeMap::new();
    for parent in attached {
        let certificate = match &gateways.gateways[parent.gateway].client_certificate {
            Some(Ok(certificate)) => Some(certificate.clone()),
            _ => None,
        };
        let group = groups.entry(certificate.clone()).or_insert_with(|| Group {
            certificate,
            gateways: BTreeSet::new(),
            landings: Vec::new(),
        });
        group.gateways.insert(parent.gateway);
        group.landings.extend(parent.landings.iter().flatten().cloned());
    }
    groups.into_values().collect()
}

/// A route that speaks to its backends differently for different Gateways is several routes to the data plane; all but
/// the first carry the Gateway's name.
fn id(origin: &Origin, first: bool, group: &Group, gateways: &Gateways<'_>) -> RouteId {
    let gateway = group.gateways.first().map(|index| &gateways.gateways[*index].origin);
    match gateway {
        Some(gateway) if !first => RouteId(Origin {
            name: format!("{}@{}/{}", origin.name, gateway.namespace, gateway.name).into(),
            ..origin.clone()
        }),
        _ => RouteId(origin.clone()),
    }
}

/// One for each listener, however many parentRefs lead there.
fn attachments(gateways: &Gateways<'_>, landings: &[Landing]) -> Vec<Attachment> {
    let by_listener: BTreeMap<usize, &Landing> = landings.iter().map(|l| (l.listener, l)).collect();
    by_listener
        .into_values()
        .map(|landing| Attachment {
            listener: gateways.listeners[landing.listener].id.clone(),
            hosts: landing.hosts.clone(),
        })
        .collect()
}

fn rules<R: HttpKind>(route: &R, backends: &mut Backends<'_, '_>) -> (Vec<HttpRule>, Vec<(usize, Fault)>) {
    let mut rules = Vec::new();
    let mut faults = Vec::new();
    for index in 0..route.rules() {
        match route.rule(index, backends) {
            Ok((rule, fault)) => {
                rules.push(rule);
                faults.extend(fault.map(|fault| (index, fault)));
            }
            Err(fault) => {
                fault.report(backends.builder, &backends.origin, format!("spec.rules[{index}]"));
                faults.push((index, fault));
            }
        }
    }
    (rules, faults)
}

/// The parts of a rule that both kinds share: its filters and backends, and what is wrong with the filters.
pub(super) fn parts<R: HttpKind>(
    backends: &mut Backends<'_, '_>,
    index: usize,
    filters: &[HTTPRouteFilter],
    references: &[HTTPBackendRef],
) -> (Vec<Filter>, Vec<WeightedBackend>, Option<Fault>) {
    let field = format!("spec.rules[{index}]");
    let own = filter::filters(backends, R::FLAVOR, filters, &format!("{field}.filters"));
    let mut fault = own.fault;
    let mut weighted = Vec::new();
    for (n, reference) in references.iter().enumerate() {
        let field = format!("{field}.backendRefs[{n}]");
        let mut backend = backends.weighted(&reference.backend, &field);
        let filters = filter::filters(backends, R::FLAVOR, &reference.filters, &format!("{field}.filters"));
        if let Some(why) = filters.fault {
            backend.backend = broken(backends, &backend.backend, &why);
            fault = fault.or(Some(why));
        } else {
            backend.filters = filters.filters;
        }
        weighted.push(backend);
    }
    (own.filters, weighted, fault)
}

fn broken(backends: &mut Backends<'_, '_>, id: &BackendId, why: &Fault) -> BackendId {
    backends.broken(id.as_str(), &why.message)
}
