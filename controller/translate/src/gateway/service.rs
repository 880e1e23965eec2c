//! The Services of Gateways: which ports they lead to, and what they carry.

use std::collections::BTreeMap;

use k8s_openapi::Resource as _;
use pierhead_gateway_api::{Gateway, ProtocolType};
use pierhead_model::Transport;

use super::{
    condition::{Verdict, fault},
    listener::{GatewayState, Gateways},
};
use crate::{
    Builder,
    service::{self, Owner, PortWish, PortWishes},
};

pub(super) fn wish(gateway: &GatewayState<'_>, transport: Transport, port: u16) -> PortWish {
    PortWish {
        owner: gateway.origin.clone(),
        transport,
        port,
    }
}

/// The ports that Services of Gateways are to have, and those that listeners name.
pub(super) fn wishes(builder: &Builder<'_>, all: &Gateways<'_>, wishes: &mut PortWishes) {
    // Also those of listeners that are not valid now: a load balancer keeps its address while there is a port.
    for listener in &all.listeners {
        let gateway = &all.gateways[listener.gateway];
        wishes.named.insert(listener.spec.port);
        let transport = match &listener.spec.protocol {
            ProtocolType::Http | ProtocolType::Https | ProtocolType::Tls | ProtocolType::Tcp => Transport::Tcp,
            ProtocolType::Udp => Transport::Udp,
            ProtocolType::Unknown(_) => continue,
        };
        if builder.wants_service(&gateway.name()) {
            wishes.wanted.insert(wish(gateway, transport, listener.spec.port));
        }
    }
}

/// Adds the Services of all Gateways.
pub(super) fn translate(builder: &mut Builder<'_>, all: &mut Gateways<'_>) {
    for gateway in &mut all.gateways {
        if let Err(why) = one(builder, gateway) {
            // Without the addresses it was to have, that is what is said.
            if gateway.addressed.is_ok() {
                why.report(builder, &gateway.origin, "spec");
            }
            gateway.serviceless = Some(why);
        }
    }
}

fn one(builder: &mut Builder<'_>, gateway: &GatewayState<'_>) -> Verdict {
    if gateway.accepted.is_err() {
        return Ok(());
    }
    let none = BTreeMap::new();
    let infrastructure = gateway.object.spec.infrastructure.as_ref();
    let infrastructure = infrastructure.map_or((&none, &none), |i| (&i.labels, &i.annotations));
    let owner = Owner {
        origin: &gateway.origin,
        api_version: Gateway::API_VERSION,
        meta: &gateway.object.metadata,
    };
    let leading = gateway.assigned.service.as_ref().and_then(|wish| {
        let targets = builder.targets(&gateway.origin);
        service::leading(builder.settings, &owner, wish, infrastructure, &targets)
    });
    let made = leading.or_else(|| service::bearing(&owner, infrastructure));
    let Some((name, made)) = made else { return Ok(()) };
    let added = builder.add_service(name, made);
    added.map_err(|(why, fix)| fault("", why, fix))
}
