//! Addresses of Gateways: from `spec.addresses` to the allocator and back.

use std::net::IpAddr;

use pierhead_api::gateway_parameters::Addresses;
use pierhead_gateway_api::{Condition, Gateway, GatewaySpecAddress, GatewayStatusAddress};
use serde_json::Value;

use super::{
    condition::{Fault, Verdict, condition, fault},
    listener::{GatewayState, Gateways},
};
use crate::{
    Builder,
    address::{AddressFault, Demand, Routability, Wish},
    service::{self, Host},
};

/// Asks for the addresses of every accepted Gateway.
pub(super) fn demand(builder: &mut Builder<'_>, all: &Gateways<'_>) {
    for gateway in &all.gateways {
        let Ok(mode) = &gateway.accepted else {
            continue;
        };
        let demand = Demand {
            owner: gateway.name(),
            age: gateway.age.clone(),
            mode: mode.clone(),
            wishes: gateway.wishes.clone(),
            present: present(gateway.object.status.as_ref()),
            given: service::given(builder.world, builder.settings, &gateway.origin),
        };
        builder.demand(demand);
    }
}

/// Takes what was given.
pub(super) fn take(builder: &mut Builder<'_>, all: &mut Gateways<'_>) {
    for gateway in &mut all.gateways {
        gateway.assigned = builder.assigned(&gateway.name());
        gateway.addressed = verdict(gateway);
    }
}

/// `status.addresses` as the object has it.
fn present(status: Option<&Value>) -> Vec<IpAddr> {
    let addresses = status.and_then(|s| s.get("addresses")).and_then(Value::as_array);
    let ip = |address: &Value| address.get("value")?.as_str()?.parse().ok();
    addresses.into_iter().flatten().filter_map(ip).collect()
}

/// # Errors
/// `UnsupportedAddress`: what no implementation setting of ours could give.
pub(super) fn wishes(gateway: &Gateway) -> Result<Vec<Wish>, Fault> {
    let one = |address: &GatewaySpecAddress| {
        if address.kind != "IPAddress" {
            return Err(fault(
                "UnsupportedAddress",
                format!("addresses of type {} are not supported", address.kind),
                "use type IPAddress",
            ));
        }
        let value = match address.value.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|_| {
                fault(
                    "UnsupportedAddress",
                    format!("{text:?} is no IP address"),
                    "write an IPv4 or IPv6 address",
                )
            })?),
        };
        Ok(Wish {
            value,
            routability: Routability::parse(&address.routability),
        })
    };
    gateway.spec.addresses.iter().map(one).collect()
}

fn verdict(gateway: &GatewayState<'_>) -> Verdict {
    let assigned = &gateway.assigned;
    // "If some, but not all, entries can be satisfied, the implementation SHOULD program the Gateway using the addresses it
    // can satisfy" (GEP-5093). Without routability the older rule holds: an address that is not usable is not programmed.
    let partly = gateway.wishes.iter().any(|wish| wish.routability != Routability::Any);
    if partly && !assigned.shown.is_empty() {
        return Ok(());
    }
    let hard = |fault: &&AddressFault| !matches!(fault, AddressFault::FamilyExhausted(_));
    match assigned.faults.iter().find(hard) {
        None => Ok(()),
        Some(why @ AddressFault::NotUsable(_)) if !partly => {
            Err(fault("AddressNotUsable", message(gateway, why), fix(why)))
        }
        Some(why) => Err(fault("AddressNotAssigned", message(gateway, why), fix(why))),
    }
}

fn message(gateway: &GatewayState<'_>, why: &AddressFault) -> String {
    match why {
        AddressFault::NotUsable(ip) => match gateway.accepted.as_deref() {
            Ok(Addresses::Service(_)) => format!("the load balancer does not give {ip}"),
            _ => format!("{ip} is neither an address of this machine nor in an address pool"),
        },
        AddressFault::Exhausted => "every address of every pool is taken".to_owned(),
        AddressFault::FamilyExhausted(family) => format!("every {family} address of the pool is taken"),
        AddressFault::ServicePending => "the Service that is made for it has no address yet".to_owned(),
        AddressFault::ServiceTaken(name) => service::taken(name).0,
        AddressFault::Unsatisfiable(routability) => format!("no address of routability {routability} can be given"),
    }
}

fn fix(why: &AddressFault) -> &'static str {
    match why {
        AddressFault::NotUsable(_) => "use an address of the machine or of a pool, or add a pool that holds it",
        AddressFault::Exhausted | AddressFault::FamilyExhausted(_) => "add an address pool",
        AddressFault::ServicePending => "see the Service and its events",
        AddressFault::ServiceTaken(name) => service::taken(name).1,
        AddressFault::Unsatisfiable(_) => "use routability Cluster, or none",
    }
}

/// Says what is short although the Gateway is served.
pub(super) fn report(builder: &mut Builder<'_>, gateway: &GatewayState<'_>) {
    if let Err(why) = &gateway.addressed {
        return why.report(builder, &gateway.origin, "spec.addresses");
    }
    for why in &gateway.assigned.faults {
        builder.warning(&gateway.origin, "spec.addresses", message(gateway, why), fix(why));
    }
}

/// `AddressesAssigned` (GEP-5093): whether every entry of `spec.addresses` was satisfied. Without entries nothing was asked.
pub(super) fn condition_of(gateway: &GatewayState<'_>, generation: Option<i64>) -> Option<Condition> {
    if gateway.wishes.is_empty() || gateway.accepted.is_err() {
        return None;
    }
    let reasons: Vec<String> = gateway
        .assigned
        .faults
        .iter()
        .map(|why| message(gateway, why))
        .collect();
    let verdict = match (reasons.is_empty(), gateway.assigned.shown.is_empty()) {
        (true, _) => Ok("AddressesAssigned"),
        (false, true) => Err(fault("NotAssigned", reasons.join("; "), "")),
        (false, false) => Err(fault("PartiallyAssigned", reasons.join("; "), "")),
    };
    Some(condition(
        "AddressesAssigned",
        verdict.as_ref().map(|reason| *reason),
        generation,
    ))
}

/// `status.addresses`.
pub(super) fn shown(gateway: &GatewayState<'_>) -> Vec<GatewayStatusAddress> {
    let one = |shown: &crate::address::Shown| GatewayStatusAddress {
        kind: match shown.host {
            Host::Ip(_) => "IPAddress".to_owned(),
            Host::Name(_) => "Hostname".to_owned(),
        },
        value: shown.host.to_string(),
        // The field is of the experimental channel: a standard API server would drop it, and the status never rest.
        routability: Some(shown.routability.as_str().to_owned()).filter(|text| !text.is_empty()),
    };
    gateway.assigned.shown.iter().map(one).collect()
}
