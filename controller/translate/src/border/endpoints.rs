//! EndpointSlices: all slices of a Service merged into one set per Service port.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use k8s_openapi::api::discovery::v1::{Endpoint as ApiEndpoint, EndpointSlice};
use pierhead_model::{Endpoint, EndpointState, Endpoints, EndpointsId, Map, Problem, Severity};

use crate::{
    Builder, ObjectName,
    border::service::{ServicePort, ServiceRef},
    share::shared,
    world::{self, Objects},
};

/// Names the Service of a slice (`discovery.k8s.io/v1`, `LabelServiceName`).
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Namespace and name of the Service a slice belongs to.
pub(crate) fn service_of(slice: &EndpointSlice) -> Option<(&str, &str)> {
    let service = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    Some((world::namespace(&slice.metadata), service))
}

/// Slices by the Service they belong to, and the Services of which a slice came, changed or went.
pub(crate) struct SliceIndex {
    pub(crate) by_service: BySlices,
    pub(crate) changed: BTreeSet<ObjectName>,
}

/// In the order of their names.
pub(crate) type BySlices = Map<ObjectName, Arc<Vec<Arc<EndpointSlice>>>>;

impl SliceIndex {
    /// From scratch, or from the index of a world before this one.
    pub(crate) fn new(now: &Objects<EndpointSlice>, before: Option<(&Objects<EndpointSlice>, &BySlices)>) -> Self {
        let Some((before, by_service)) = before else {
            return Self::from_scratch(now);
        };
        let mut index = Self {
            by_service: by_service.clone(),
            changed: BTreeSet::new(),
        };
        for (_, [now, before]) in now.changes(before) {
            if let Some(slice) = before {
                index.edit(slice, |slices, name| {
                    slices.retain(|other| world::name(&other.metadata) != name)
                });
            }
            if let Some(slice) = now {
                index.edit(slice, |slices, name| {
                    let at = slices.partition_point(|other| world::name(&other.metadata) < name);
                    slices.insert(at, Arc::clone(slice));
                });
            }
        }
        index
    }

    fn from_scratch(slices: &Objects<EndpointSlice>) -> Self {
        let mut by_service: BTreeMap<(&str, &str), Vec<Arc<EndpointSlice>>> = BTreeMap::new();
        for slice in slices.iter() {
            if let Some(service) = service_of(slice) {
                by_service.entry(service).or_default().push(Arc::clone(slice));
            }
        }
        let by_service = by_service
            .into_iter()
            .map(|((namespace, name), slices)| (ObjectName::new(namespace, name), slices.into()));
        Self {
            by_service: by_service.collect(),
            changed: BTreeSet::new(),
        }
    }

    fn edit(&mut self, slice: &EndpointSlice, edit: impl FnOnce(&mut Vec<Arc<EndpointSlice>>, &str)) {
        let Some((namespace, name)) = service_of(slice) else {
            return;
        };
        let service = ObjectName::new(namespace, name);
        let mut slices = self.by_service.remove(&service).unwrap_or_default();
        edit(Arc::make_mut(&mut slices), world::name(&slice.metadata));
        if !slices.is_empty() {
            self.by_service.insert(service.clone(), slices);
        }
        self.changed.insert(service);
    }
}

impl Builder<'_> {
    /// Adds the endpoints of one Service port. None at all is a valid answer: requests then get 503.
    pub(super) fn endpoints(
        &mut self,
        service: ServiceRef<'_>,
        port: &ServicePort,
        transport: &str,
        primary_v6: bool,
    ) -> EndpointsId {
        let (namespace, name) = (service.namespace, service.name);
        let number = port.number;
        let id = EndpointsId::new(&if port.name.is_empty() {
            format!("{namespace}/{name}:{number}")
        } else {
            format!("{namespace}/{name}:{}", port.name)
        });
        if let Some((endpoints, problems)) = self.made.get(&id).cloned() {
            self.add_endpoints(endpoints);
            for problem in problems {
                self.problem(problem);
            }
            return id;
        }
        let mut problems = Vec::new();
        let mut found = Vec::new();
        let slices = self.slices.by_service.get(&ObjectName::new(namespace, name)).cloned();
        for slice in slices.iter().flat_map(|slices| &**slices) {
            // FQDN slices are deprecated: "no semantics are defined".
            let wants_v6 = match slice.address_type.as_str() {
                "IPv4" => false,
                "IPv6" => true,
                _ => continue,
            };
            let Some(slice_port) = slice_port(slice, &port.name, transport) else {
                continue;
            };
            for (index, endpoint) in slice.endpoints.iter().flatten().enumerate() {
                let Some(state) = state(endpoint) else { continue };
                match address(endpoint, wants_v6) {
                    Ok(ip) => found.push(Found {
                        endpoint: Endpoint {
                            address: SocketAddr::new(ip, slice_port),
                            state,
                            node: endpoint.node_name.as_deref().map(Into::into),
                            zone: endpoint.zone.as_deref().map(Into::into),
                        },
                        target: target(endpoint),
                    }),
                    Err(message) => problems.push(Problem {
                        origin: world::origin("EndpointSlice", &slice.metadata),
                        field: format!("endpoints[{index}].addresses"),
                        severity: Severity::Error,
                        message,
                        fix: "give one unicast address of the slice's addressType".to_owned(),
                    }),
                }
            }
        }
        let endpoints = merge(found, primary_v6);
        let value = Endpoints {
            id: id.clone(),
            endpoints,
        };
        let value = shared(&id, value, self.previous.map(|p| &p.endpoints));
        self.add_endpoints(Arc::clone(&value));
        for problem in &problems {
            self.problem(problem.clone());
        }
        self.made.insert(id.clone(), (value, problems));
        id
    }
}

struct Found {
    endpoint: Endpoint,
    /// Kind, namespace and name of the pod behind it.
    target: Option<(String, String, String)>,
}

/// The slice's port for a Service port: the same name (the Service's numbers may differ from the slice's) and transport.
fn slice_port(slice: &EndpointSlice, name: &str, transport: &str) -> Option<u16> {
    slice
        .ports
        .iter()
        .flatten()
        .find(|p| p.name.as_deref().unwrap_or_default() == name && p.protocol.as_deref().unwrap_or("TCP") == transport)
        .and_then(|p| u16::try_from(p.port?).ok())
        .filter(|port| *port != 0)
}

/// `discovery/v1` EndpointConditions: `ready` nil "should be interpreted as true"; `serving` nil defers to `ready`;
/// `terminating` nil is false. `ready` stays true on a terminating pod only where `publishNotReadyAddresses` demands it.
fn state(endpoint: &ApiEndpoint) -> Option<EndpointState> {
    let conditions = endpoint.conditions.as_ref();
    let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
    let serving = conditions.and_then(|c| c.serving).unwrap_or(ready);
    let terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
    if ready {
        Some(EndpointState::Ready)
    } else {
        (serving && terminating).then_some(EndpointState::Draining)
    }
}

/// The first address: several "should be considered fungible". Loopback is what one machine without a cluster needs, and no
/// API server lets it pass; the rest of what it refuses, we refuse.
fn address(endpoint: &ApiEndpoint, wants_v6: bool) -> Result<IpAddr, String> {
    let text = endpoint.addresses.first().ok_or("an endpoint has no address")?;
    let ip: IpAddr = text.parse().map_err(|_| format!("{text:?} is no IP address"))?;
    if ip.is_ipv6() != wants_v6 {
        return Err(format!("{ip} is not of the slice's addressType"));
    }
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    if ip.is_unspecified() || ip.is_multicast() || link_local {
        return Err(format!("{ip} cannot be an endpoint"));
    }
    Ok(ip)
}

fn target(endpoint: &ApiEndpoint) -> Option<(String, String, String)> {
    let target = endpoint.target_ref.as_ref()?;
    Some((
        target.kind.clone().unwrap_or_default(),
        target.namespace.clone().unwrap_or_default(),
        target.name.clone()?,
    ))
}

/// Distinct by address, ready before draining (an endpoint may stand in two slices while it moves). A dual-stack pod counts
/// once, with its address of the Service's first family.
fn merge(found: Vec<Found>, primary_v6: bool) -> Vec<Endpoint> {
    let in_primary: BTreeSet<_> = found
        .iter()
        .filter(|f| f.endpoint.address.is_ipv6() == primary_v6)
        .filter_map(|f| f.target.clone())
        .collect();
    let mut by_address: BTreeMap<SocketAddr, Endpoint> = BTreeMap::new();
    for Found { endpoint, target } in found {
        let doubled = endpoint.address.is_ipv6() != primary_v6 && target.is_some_and(|t| in_primary.contains(&t));
        if doubled {
            continue;
        }
        by_address
            .entry(endpoint.address)
            .and_modify(|known| {
                if known.state == EndpointState::Draining && endpoint.state == EndpointState::Ready {
                    *known = endpoint.clone();
                }
            })
            .or_insert(endpoint);
    }
    by_address.into_values().collect()
}
