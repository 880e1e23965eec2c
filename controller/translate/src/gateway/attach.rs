//! Attachment of routes to listeners: written once for all kinds.

use pierhead_gateway_api::{GROUP, ParentReference, Route};
use pierhead_model::{HostPattern, WildcardDepth};

use super::{
    condition::{Fault, fault},
    grant,
    listener::{Gateways, ListenerState, Owner},
};
use crate::{World, world};

/// What became of one parentRef that names something of ours.
pub(super) struct Attached<'w> {
    pub(super) reference: &'w ParentReference,
    pub(super) gateway: usize,
    pub(super) landings: Result<Vec<Landing>, Fault>,
}

/// A listener the route is attached to.
#[derive(Clone, Debug)]
pub(super) struct Landing {
    pub(super) listener: usize,
    /// The route's own hostnames, as written, that intersect the listener's.
    pub(super) hosts: Vec<HostPattern>,
}

/// A route's hostnames; `[Any]` when it has none.
///
/// # Errors
/// When one is no hostname.
pub(super) fn hosts(route: &impl Route) -> Result<Vec<HostPattern>, Fault> {
    if route.hostnames().is_empty() {
        return Ok(vec![HostPattern::Any]);
    }
    let parse = |text: &String| {
        HostPattern::parse(text, WildcardDepth::Many)
            .map_err(|why| fault("UnsupportedValue", why.to_string(), "write DNS names"))
    };
    route.hostnames().iter().map(parse).collect()
}

/// Every parentRef that names a Gateway or ListenerSet of ours; others are not our business, so they get no status entry.
pub(super) fn attach<'w, R: Route>(
    world: &World,
    gateways: &Gateways<'_>,
    route: &'w R,
    hosts: &[HostPattern],
) -> Vec<Attached<'w>> {
    let own = world::namespace(route.metadata());
    let mut found = Vec::new();
    for reference in route.parent_refs() {
        if reference.group != GROUP {
            continue;
        }
        let namespace = reference.namespace.as_deref().unwrap_or(own);
        let Some(owner) = gateways.parent(&reference.kind, namespace, &reference.name) else {
            continue;
        };
        let (gateway, allowed) = match owner {
            Owner::Gateway(gateway) => (gateway, Ok(())),
            Owner::Set(set) => {
                let set = &gateways.sets[set];
                let allowed = set.allowed.as_ref().map_err(|why| {
                    fault(
                        "NoMatchingParent",
                        format!("{} is not accepted: {}", set.origin, why.message),
                        "repair the ListenerSet",
                    )
                });
                (set.gateway, allowed.map(|_| ()))
            }
        };
        let landings = allowed.and_then(|()| land::<R>(world, gateways, owner, reference, own, hosts));
        found.push(Attached {
            reference,
            gateway,
            landings,
        });
    }
    found
}

/// "Without sectionName and port a route attaches to every compatible listener; with both, both must match" (§6.1).
fn land<R: Route>(
    world: &World,
    gateways: &Gateways<'_>,
    owner: Owner,
    reference: &ParentReference,
    namespace: &str,
    hosts: &[HostPattern],
) -> Result<Vec<Landing>, Fault> {
    let named: Vec<(usize, &ListenerState<'_>)> = gateways
        .of_owner(owner)
        .filter(|(_, l)| {
            reference.section_name.as_ref().is_none_or(|name| *name == l.spec.name)
                && reference.port.is_none_or(|port| port == l.spec.port)
        })
        .collect();
    if named.is_empty() {
        let section = reference.section_name.as_ref().map(|s| format!(" named {s}"));
        let port = reference.port.map(|p| format!(" on port {p}"));
        return Err(fault(
            "NoMatchingParent",
            format!(
                "{} {} has no listener{}{}",
                reference.kind,
                reference.name,
                section.unwrap_or_default(),
                port.unwrap_or_default()
            ),
            "name a listener that exists in sectionName and port of the parentRef",
        ));
    }
    let takes = |l: &ListenerState<'_>| l.kinds.iter().any(|k| k.group == GROUP && k.kind == R::KIND);
    if !named.iter().any(|(_, l)| takes(l)) {
        return Err(fault(
            "NotAllowedByListeners",
            format!("no listener meant by the parentRef takes kind {}", R::KIND),
            "attach to a listener of another protocol, or extend its allowedRoutes.kinds",
        ));
    }
    let lets_in = |l: &ListenerState<'_>| {
        let from = &l.spec.allowed_routes.namespaces;
        grant::selects(world, &from.from, from.selector.as_ref(), l.namespace, namespace)
    };
    let allowed: Vec<_> = named.into_iter().filter(|(_, l)| takes(l) && lets_in(l)).collect();
    if allowed.is_empty() {
        return Err(fault(
            "NotAllowedByListeners",
            format!("no listener meant by the parentRef takes routes of namespace {namespace}"),
            "extend allowedRoutes.namespaces of the listener, or move the route",
        ));
    }
    let landings: Vec<Landing> = allowed
        .into_iter()
        .filter_map(|(listener, l)| {
            let hosts: Vec<_> = hosts.iter().filter(|h| h.intersects(&l.host)).cloned().collect();
            (!hosts.is_empty()).then_some(Landing { listener, hosts })
        })
        .collect();
    if landings.is_empty() {
        return Err(fault(
            "NoMatchingListenerHostname",
            "no hostname of the route intersects a hostname of the listeners meant by the parentRef",
            "use a hostname that the listener covers",
        ));
    }
    Ok(landings)
}
