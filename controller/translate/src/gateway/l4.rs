//! TLSRoute, TCPRoute, UDPRoute: backends for a server name or a port.

use std::{collections::BTreeSet, sync::Arc};

use pierhead_gateway_api::{L4RouteRule, ProtocolType, Route, RouteStatus, TCPRoute, TLSModeType, TLSRoute, UDPRoute};
use pierhead_model::{HostPattern, L4Route, SniRoute};

use super::{
    attach::{self, Landing},
    backend::Backends,
    condition::fault,
    listener::Gateways,
    policy::Policies,
    report::{self, Outcome},
};
use crate::{Builder, age, border::Carrier, origin};

/// A route kind whose only rule becomes an [`L4Route`].
pub(super) trait L4Kind: Route {
    const CARRIER: Carrier;

    fn rules(&self) -> &[L4RouteRule];
}

impl L4Kind for TLSRoute {
    const CARRIER: Carrier = Carrier::Tcp;

    fn rules(&self) -> &[L4RouteRule] {
        &self.spec.rules
    }
}

impl L4Kind for TCPRoute {
    const CARRIER: Carrier = Carrier::Tcp;

    fn rules(&self) -> &[L4RouteRule] {
        &self.spec.rules
    }
}

impl L4Kind for UDPRoute {
    const CARRIER: Carrier = Carrier::Udp;

    fn rules(&self) -> &[L4RouteRule] {
        &self.spec.rules
    }
}

/// Puts one route into its listeners and says what became of it; `None` when no parent is ours.
pub(super) fn translate<'w, R: L4Kind>(
    builder: &mut Builder<'w>,
    gateways: &mut Gateways<'w>,
    policies: &mut Policies<'w>,
    route: &R,
) -> Option<RouteStatus> {
    let origin = origin(R::KIND, route.metadata());
    let hosts = attach::hosts(route);
    let any = [HostPattern::Any];
    let attached = attach::attach(builder.world, gateways, route, hosts.as_deref().unwrap_or(&any));
    if attached.is_empty() {
        return report::released(builder, route.status());
    }
    let mut outcome = Outcome {
        rules: route.rules().len(),
        ..Outcome::default()
    };
    if let Err(why) = hosts {
        why.report(builder, &origin, "spec.hostnames");
        outcome.rejected = Some(why);
    }
    if route.rules().len() > 1 {
        let why = fault(
            "UnsupportedValue",
            "only one rule is possible",
            "put all backends into one rule",
        );
        why.report(builder, &origin, "spec.rules");
        outcome.rejected = Some(why);
    }
    let landings: Vec<(usize, Landing)> = attached
        .iter()
        .flat_map(|a| a.landings.iter().flatten().map(|l| (a.gateway, l.clone())))
        .collect();
    // References are judged also where nothing is attached.
    let judged = attached.first().map(|a| a.gateway).filter(|_| landings.is_empty());
    if let Some(gateway) = judged {
        outcome.refs = l4_route(builder, gateways, policies, route, gateway, false).1;
    }
    let mut done = BTreeSet::new();
    for (gateway, landing) in landings {
        if !done.insert(landing.listener) {
            continue;
        }
        let listener = &gateways.listeners[landing.listener];
        let terminates = listener.spec.protocol == ProtocolType::Tls && listener.tls_mode() == TLSModeType::Terminate;
        let (made, refs) = l4_route(builder, gateways, policies, route, gateway, terminates);
        outcome.refs = std::mem::replace(&mut outcome.refs, Ok(())).and(refs);
        if outcome.rejected.is_some() {
            continue;
        }
        let age = age(route.metadata());
        let listener = &mut gateways.listeners[landing.listener];
        if listener.spec.protocol == ProtocolType::Tls {
            listener.sni_routes.extend(landing.hosts.into_iter().map(|host| {
                let route = Arc::clone(&made);
                (age.clone(), SniRoute { host, route })
            }));
        } else {
            listener.l4_routes.push((age, made));
        }
    }
    Some(report::route(builder, gateways, route, &attached, &outcome))
}

/// The route as one Gateway sees it. `tls`: a BackendTLSPolicy applies, because the listener has taken the client's TLS
/// off.
fn l4_route<'w, R: L4Kind>(
    builder: &mut Builder<'w>,
    gateways: &Gateways<'w>,
    policies: &mut Policies<'w>,
    route: &R,
    gateway: usize,
    tls: bool,
) -> (Arc<L4Route>, super::condition::Verdict) {
    let origin = origin(R::KIND, route.metadata());
    let client_certificate = match &gateways.gateways[gateway].client_certificate {
        Some(Ok(certificate)) => Some(certificate.clone()),
        _ => None,
    };
    let mut backends = Backends {
        builder,
        policies,
        origin: origin.clone(),
        carrier: R::CARRIER,
        tls,
        gateways: vec![gateway],
        client_certificate,
        refs: Ok(()),
        used_tls: false,
    };
    let references = route
        .rules()
        .first()
        .map(|r| r.backend_refs.as_slice())
        .unwrap_or_default();
    let weighted = references
        .iter()
        .enumerate()
        .map(|(n, reference)| backends.weighted(reference, &format!("spec.rules[0].backendRefs[{n}]")))
        .collect();
    let made = L4Route {
        origin,
        backends: weighted,
    };
    (Arc::new(made), backends.refs)
}
