//! Reads what the machine looks like: interfaces, addresses, where endpoints are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::sync::Arc;

use pierhead_abi::Addr;
use pierhead_abi::l4::Hop;

use crate::error::KernelError;
use crate::netlink::{Link, Netlink, Route};
use crate::wanted::{Surroundings, Whereabouts};

/// The external interfaces: those named, or those that a default route leaves by.
///
/// # Errors
/// A named interface that does not exist or is not Ethernet; the message says which.
pub(crate) fn external(netlink: &mut Netlink, named: &[String]) -> Result<Vec<Link>, KernelError> {
    let system = KernelError::system("read the network interfaces");
    let links = netlink.links().map_err(&system)?;
    if named.is_empty() {
        let defaults = netlink.default_interfaces().map_err(&system)?;
        // One that is not Ethernet (a tunnel) is left to userspace; it was not asked for by name.
        return Ok(links
            .into_iter()
            .filter(|link| defaults.contains(&link.index) && link.ethernet)
            .collect());
    }
    let find = |name: &String| {
        let interface = |reason: &str| KernelError::Interface {
            name: name.clone(),
            reason: reason.to_owned(),
        };
        let link = links
            .iter()
            .find(|link| link.name == *name)
            .ok_or_else(|| interface("does not exist"))?;
        if link.ethernet {
            Ok(link.clone())
        } else {
            Err(interface("is not Ethernet"))
        }
    };
    named.iter().map(find).collect()
}

/// Everything [`crate::wanted::wanted`] needs to know.
pub(crate) fn look(
    netlink: &mut Netlink,
    external: &[Link],
    node: Option<&str>,
    endpoints: &BTreeSet<IpAddr>,
    nodes: &BTreeMap<&Arc<str>, &[IpAddr]>,
) -> Result<Surroundings, KernelError> {
    let indexes: BTreeSet<u32> = external.iter().map(|link| link.index).collect();
    let addresses = netlink
        .addresses()
        .map_err(KernelError::system("read the network addresses"))?;
    let mut places = BTreeMap::new();
    for &address in endpoints {
        let place = if address.is_loopback() {
            Whereabouts::Loopback
        } else {
            match netlink
                .route_to(address)
                .map_err(KernelError::system("look up a route"))?
            {
                Route::Local => Whereabouts::Own,
                Route::Out { index, gateway: false } if !indexes.contains(&index) => Whereabouts::OnLink,
                Route::Out { .. } => Whereabouts::Elsewhere,
                Route::None => Whereabouts::Unreachable,
            }
        };
        places.insert(address, place);
    }
    let mut neighbours = BTreeMap::new();
    for (&name, &addresses) in nodes.iter().filter(|(name, _)| node != Some(&***name)) {
        let hops: &mut Vec<Hop> = neighbours.entry(Arc::clone(name)).or_default();
        for &address in addresses {
            let route = netlink
                .route_to(address)
                .map_err(KernelError::system("look up a route"))?;
            if let Route::Out { index, gateway: false } = route
                && indexes.contains(&index)
            {
                hops.push(Hop {
                    addr: Addr::from(address).0,
                    link: index,
                });
            }
        }
    }
    Ok(Surroundings {
        no_l4: None,
        node: node.map(str::to_owned),
        addresses: addresses
            .into_iter()
            .filter(|(index, _)| indexes.contains(index))
            .map(|(_, ip)| ip)
            .collect(),
        // What counts in IPv4 is the interface's own switch; `ip_forward` sets all of them.
        forwards_v4: external
            .iter()
            .all(|link| is_on(&format!("/proc/sys/net/ipv4/conf/{}/forwarding", link.name))),
        forwards_v6: is_on("/proc/sys/net/ipv6/conf/all/forwarding"),
        places,
        neighbours,
    })
}

fn is_on(path: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.trim() != "0")
}
