//! Addresses of Gateways: from `spec.addresses` to the allocator and back.

use std::net::IpAddr;

use super::{
    condition::{Verdict, fault},
    listener::Gateways,
};
use crate::{
    Builder,
    address::{AddressFault, Demand},
};

/// Gives every accepted Gateway its addresses.
pub(super) fn assign(builder: &mut Builder<'_>, all: &mut Gateways<'_>) {
    let mut demands = Vec::new();
    for gateway in &mut all.gateways {
        if gateway.accepted.is_err() {
            continue;
        }
        match requested(gateway.object) {
            Ok(requested) => demands.push(Demand {
                gateway: gateway.name(),
                age: gateway.age.clone(),
                requested,
            }),
            Err(fault) => gateway.accepted = Err(fault),
        }
    }
    let mut assigned = builder.assign_addresses(&demands);
    for gateway in &mut all.gateways {
        if let Some(assigned) = assigned.remove(&gateway.name()) {
            gateway.addressed = verdict(&assigned.faults);
            gateway.assigned = assigned;
        }
    }
}

fn requested(gateway: &pierhead_gateway_api::Gateway) -> Result<Vec<Option<IpAddr>>, super::condition::Fault> {
    let one = |address: &pierhead_gateway_api::GatewaySpecAddress| {
        if address.kind != "IPAddress" {
            return Err(fault(
                "UnsupportedAddress",
                format!("addresses of type {} are not supported", address.kind),
                "use type IPAddress",
            ));
        }
        if !address.routability.is_empty() {
            return Err(fault(
                "UnsupportedAddress",
                format!("routability {} is not supported", address.routability),
                "remove routability",
            ));
        }
        if address.value.is_empty() {
            return Ok(None);
        }
        address.value.parse().map(Some).map_err(|_| {
            fault(
                "UnsupportedAddress",
                format!("{:?} is no IP address", address.value),
                "write an IPv4 or IPv6 address",
            )
        })
    };
    gateway.spec.addresses.iter().map(one).collect()
}

fn verdict(faults: &[AddressFault]) -> Verdict {
    match faults.first() {
        None => Ok(()),
        Some(AddressFault::NotUsable(ip)) => Err(fault(
            "AddressNotUsable",
            format!("{ip} is neither an address of this machine nor in an address pool"),
            "use an address of the machine or of a pool, or add a pool that holds it",
        )),
        Some(AddressFault::Exhausted) => Err(fault(
            "AddressNotAssigned",
            "every address of every pool is taken",
            "add an address pool",
        )),
    }
}
