//! What a translation must know besides objects.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::RangeInclusive,
    sync::Arc,
};

use ipnet::IpNet;
use jiff::Timestamp;
use pierhead_api::gateway_parameters::{Addresses, Pool};
use pierhead_model::{Limits, OnMiss, OwnedPrefix};

use crate::{Held, ObjectName, address::Allocations};

/// The operator's choices, the machine's facts and the time.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `spec.controllerName` of the GatewayClasses that are ours.
    pub gateway_controller: Arc<str>,
    /// `spec.controller` of the IngressClasses that are ours.
    pub ingress_controller: Arc<str>,
    /// The value of the annotation `kubernetes.io/ingress.class` that means us without any IngressClass object.
    pub ingress_class_annotation: Arc<str>,
    /// A GatewayClass and an IngressClass of this name exist and are ours even if no object says so. For `standalone`, where
    /// a class object is one more thing to write; an object of that name counts as written. Implied, it is also the default
    /// IngressClass where there is no other.
    pub implied_class: Option<Arc<str>>,
    /// Give an Ingress without a class the default IngressClass. The API server does that when an Ingress is created, and
    /// only then; so only where there is no API server (`standalone`) may it happen here.
    pub inject_default_class: bool,
    /// Take every Ingress that names no class by field or annotation.
    pub watch_ingress_without_class: bool,
    pub ingress_http_port: u16,
    pub ingress_https_port: u16,
    /// A `kubernetes.io/tls` Secret for Ingress hosts that have no usable certificate of their own.
    pub default_certificate: Option<ObjectName>,
    /// Where addresses of Gateways come from whose class has no parameters. Empty: the machines' own.
    pub address_pools: Vec<IpNet>,
    /// The addresses of the machines that serve.
    pub machine_addresses: Vec<IpAddr>,
    /// What is shown in status where a bind listens on all of them: the addresses by which the world reaches the machines.
    /// `None`: their own.
    pub shown_addresses: Option<Vec<IpAddr>>,
    /// Names of the nodes that are there to announce addresses. `None`: there is one machine and no cluster.
    pub nodes: Option<BTreeSet<Arc<str>>>,
    /// Which of them announced what until now.
    pub held: BTreeMap<OwnedPrefix, Held>,
    /// The controller's own namespace: where Services that lead to the nodes' pods are, and GatewayParameters that a
    /// cluster-scoped reference means.
    pub namespace: Arc<str>,
    /// Labels of the nodes' pods in that namespace.
    pub node_selector: BTreeMap<String, String>,
    /// The Service in that namespace that selects all of them.
    pub node_service: Arc<str>,
    /// Ports of the nodes' pods to which generated Services send, one for each port of a Gateway. Nothing else may listen on
    /// them; neither in the range of ephemeral ports nor in that of NodePorts.
    pub service_ports: RangeInclusive<u16>,
    /// Give addresses and ports to those that have none. A replica that is not the leader only knows those that stand in
    /// `status`.
    pub allocate: bool,
    /// What the last translation gave from the pools.
    pub allocations: Allocations,
    /// What a packet to a pool address and a port without a listener meets.
    pub on_miss: OnMiss,
    pub limits: Limits,
    /// For expiry of certificates and `lastTransitionTime`.
    pub now: Timestamp,
}

impl Settings {
    /// As in a cluster, without pools, at `now`.
    pub fn new(now: Timestamp) -> Self {
        Self {
            gateway_controller: "pierhead.dev/gateway-controller".into(),
            ingress_controller: "pierhead.dev/ingress-controller".into(),
            ingress_class_annotation: "pierhead".into(),
            implied_class: None,
            inject_default_class: false,
            watch_ingress_without_class: false,
            ingress_http_port: 80,
            ingress_https_port: 443,
            default_certificate: None,
            address_pools: Vec::new(),
            machine_addresses: Vec::new(),
            shown_addresses: None,
            nodes: None,
            held: BTreeMap::new(),
            namespace: "pierhead-system".into(),
            node_selector: [
                ("app.kubernetes.io/name", "pierhead"),
                ("app.kubernetes.io/component", "node"),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
            node_service: "pierhead-node".into(),
            service_ports: 20000..=29999,
            allocate: true,
            allocations: Allocations::new(),
            on_miss: OnMiss::Drop,
            limits: Limits::default(),
            now,
        }
    }

    /// What status shows of the machines.
    pub(crate) fn shown_addresses(&self) -> &[IpAddr] {
        self.shown_addresses.as_deref().unwrap_or(&self.machine_addresses)
    }

    /// Where addresses come from that no GatewayParameters says anything about.
    pub(crate) fn default_addresses(&self) -> Addresses {
        if self.address_pools.is_empty() {
            return Addresses::Node;
        }
        Addresses::Pool(Pool {
            prefixes: self.address_pools.clone(),
            announced: false,
        })
    }
}
