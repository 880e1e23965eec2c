//! Services that are made for Gateways and IngressClasses, and what the cluster made of them.
//!
//! Two kinds. Where an address is to come from a load balancer or from the cluster, a Service in the controller's own namespace
//! selects the nodes' pods and sends to ports of theirs that are kept for that. Where `spec.infrastructure` has labels or
//! annotations and nothing else is made for the Gateway, a headless Service without selector beside it carries them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::{
        apis::meta::v1::{ObjectMeta, OwnerReference},
        util::intstr::IntOrString,
    },
};
use pierhead_model::{Origin, Transport};
use serde::Serialize;

use crate::{ObjectName, Settings, World, address::ServiceWish};

/// Label and value of every Service that we make.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "pierhead");

/// Label with the name of the Gateway ("generated resources MUST carry it", at most 63 characters).
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
/// Label with the namespace of the Gateway.
const GATEWAY_NAMESPACE: &str = "pierhead.dev/gateway-namespace";
/// Annotation with kind, namespace and name of what it is made for.
const OWNER: &str = "pierhead.dev/owner";

/// A Service that is to be in the cluster: all of the fields that are ours, to be written by server-side apply.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DesiredService {
    /// What it is made for: a Gateway or an IngressClass. Owner references stand in the Service where they are possible (an
    /// owner is cluster-scoped or in the same namespace).
    pub owner: Origin,
    pub service: Service,
}

/// An address of a load balancer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Host {
    Ip(IpAddr),
    Name(String),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// The addresses a Service of ours was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Given {
    /// `status.loadBalancer`.
    pub(crate) balancer: Vec<Host>,
    /// `spec.clusterIPs`.
    pub(crate) cluster: Vec<IpAddr>,
    /// The name, if somebody else's Service has it: nothing of ours was given anything.
    pub(crate) taken: Option<ObjectName>,
}

/// A port of something that a Service leads to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PortWish {
    pub(crate) owner: Origin,
    pub(crate) transport: Transport,
    pub(crate) port: u16,
}

/// What is to be known before ports are given.
#[derive(Debug, Default)]
pub(crate) struct PortWishes {
    pub(crate) wanted: BTreeSet<PortWish>,
    /// Ports that listeners name.
    pub(crate) named: BTreeSet<u16>,
}

/// Of which object a Service is made, and how that one is to be named as its owner.
pub(crate) struct Owner<'a> {
    pub(crate) origin: &'a Origin,
    pub(crate) api_version: &'static str,
    pub(crate) meta: &'a ObjectMeta,
}

/// The name of the Service that leads to the nodes' pods. The hash tells apart what is cut or joined alike.
pub(crate) fn leading_name(settings: &Settings, owner: &Origin) -> ObjectName {
    let text = match &*owner.namespace {
        "" => format!("class-{}", owner.name),
        namespace => format!("{namespace}-{}", owner.name),
    };
    ObjectName::new(&settings.namespace, &hashed("pierhead-", &text, &owner.to_string(), 63))
}

/// The name of the Service that only carries labels and annotations.
fn bearing_name(owner: &Origin) -> ObjectName {
    let plain = format!("pierhead-{}", owner.name);
    let name = if plain.len() <= 63 && !plain.contains('.') {
        plain
    } else {
        hashed("pierhead-", &owner.name, &owner.name, 63)
    };
    ObjectName::new(&owner.namespace, &name)
}

/// `prefix`, as much of `text` as fits, and a hash of `whole`: a DNS label of at most `most` characters.
fn hashed(prefix: &str, text: &str, whole: &str, most: usize) -> String {
    let room = most - prefix.len() - 11;
    let text: String = text
        .chars()
        .take(room)
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    format!(
        "{prefix}{}-{:010x}",
        text.trim_end_matches('-'),
        fnv(whole) & 0xff_ffff_ffff
    )
}

/// A value of at most 63 characters for a label.
fn label_value(name: &str) -> String {
    if name.len() <= 63 {
        name.to_owned()
    } else {
        hashed("", name, name, 63)
    }
}

/// FNV-1a: the same in every version and on every machine, which Rust's own hashes do not promise.
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// What is said when somebody else has a Service of the name that one of ours would have, and what helps.
pub(crate) fn taken(name: &ObjectName) -> (String, &'static str) {
    let message = format!("Service {name} is to be made for it, and there is another one of that name");
    (message, "rename or remove that Service")
}

/// Whether a Service of that name is somebody else's, so that it may be neither read nor written.
pub(crate) fn is_foreign(service: &Service, owner: &Origin) -> bool {
    let labels = service.metadata.labels.as_ref();
    let annotations = service.metadata.annotations.as_ref();
    labels.and_then(|l| l.get(MANAGED_BY.0)).map(String::as_str) != Some(MANAGED_BY.1)
        || annotations.and_then(|a| a.get(OWNER)) != Some(&owner.to_string())
}

fn present<'w>(world: &'w World, name: &ObjectName, owner: &Origin) -> Option<&'w Service> {
    let service = world.services.get(&name.namespace, &name.name)?;
    (!is_foreign(service, owner)).then_some(&**service)
}

/// What the Service that leads to `owner` was given, if it is there.
pub(crate) fn given(world: &World, settings: &Settings, owner: &Origin) -> Given {
    let name = leading_name(settings, owner);
    let Some(service) = world.services.get(&name.namespace, &name.name) else {
        return Given::default();
    };
    if is_foreign(service, owner) {
        return Given {
            taken: Some(name),
            ..Given::default()
        };
    }
    let spec = service.spec.clone().unwrap_or_default();
    let cluster = spec.cluster_ips.into_iter().flatten().chain(spec.cluster_ip);
    let mut cluster: Vec<IpAddr> = cluster.filter_map(|ip| ip.parse().ok()).collect();
    let mut seen = BTreeSet::new();
    cluster.retain(|ip| seen.insert(*ip));
    let status = service.status.as_ref().and_then(|s| s.load_balancer.as_ref());
    let ingress = status.and_then(|s| s.ingress.as_deref()).unwrap_or_default();
    let mut balancer: Vec<Host> = Vec::new();
    for entry in ingress {
        let ip = entry.ip.as_deref().and_then(|ip| ip.parse().ok()).map(Host::Ip);
        let name = entry.hostname.clone().filter(|name| !name.is_empty()).map(Host::Name);
        balancer.extend(ip.or(name).filter(|host| !balancer.contains(host)));
    }
    Given {
        balancer,
        cluster,
        taken: None,
    }
}

/// Gives every wish a port of the nodes: the one its Service has already, else one that only its name decides, so that all
/// replicas come to the same. Those that got none are absent.
pub(crate) fn ports(world: &World, settings: &Settings, wishes: &PortWishes) -> BTreeMap<PortWish, u16> {
    let range = &settings.service_ports;
    let mut taken = wishes.named.clone();
    let wishes = &wishes.wanted;
    let mut given = BTreeMap::new();
    for wish in wishes {
        let service = present(world, &leading_name(settings, &wish.owner), &wish.owner);
        let ports = service
            .and_then(|s| s.spec.as_ref()?.ports.as_deref())
            .unwrap_or_default();
        let same = |p: &&ServicePort| {
            p.port == i32::from(wish.port) && p.protocol.as_deref().unwrap_or("TCP") == protocol(wish.transport)
        };
        let target = ports.iter().find(same).and_then(|port| match &port.target_port {
            Some(IntOrString::Int(target)) => u16::try_from(*target).ok(),
            _ => None,
        });
        if let Some(target) = target
            && range.contains(&target)
            && taken.insert(target)
        {
            given.insert(wish.clone(), target);
        }
    }
    if !settings.allocate || range.is_empty() {
        return given;
    }
    let size = u64::from(*range.end() - *range.start()) + 1;
    for wish in wishes {
        if given.contains_key(wish) {
            continue;
        }
        let start = fnv(&format!("{} {} {}", wish.owner, protocol(wish.transport), wish.port));
        let candidates = (0..size).filter_map(|n| u16::try_from((start.wrapping_add(n)) % size).ok());
        if let Some(port) = candidates.map(|n| range.start() + n).find(|port| taken.insert(*port)) {
            given.insert(wish.clone(), port);
        }
    }
    given
}

fn protocol(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "TCP",
        Transport::Udp => "UDP",
    }
}

/// The Service that leads to `owner`; `targets` are its ports and where they lead. `None` without ports: the API server
/// refuses such a Service.
pub(crate) fn leading(
    settings: &Settings,
    owner: &Owner<'_>,
    wish: &ServiceWish,
    infrastructure: (&BTreeMap<String, String>, &BTreeMap<String, String>),
    targets: &[(Transport, u16, u16)],
) -> Option<(ObjectName, DesiredService)> {
    if targets.is_empty() {
        return None;
    }
    let name = leading_name(settings, owner.origin);
    let ports = targets.iter().map(|(transport, port, target)| ServicePort {
        name: Some(format!("{}-{port}", protocol(*transport).to_ascii_lowercase())),
        protocol: Some(protocol(*transport).to_owned()),
        port: i32::from(*port),
        target_port: Some(IntOrString::Int(i32::from(*target))),
        ..ServicePort::default()
    });
    let balancer = wish.balancer.as_ref();
    let spec = ServiceSpec {
        type_: Some(balancer.map_or("ClusterIP", |_| "LoadBalancer").to_owned()),
        selector: Some(settings.node_selector.clone()),
        ports: Some(ports.collect()),
        cluster_ip: wish.cluster_ip.map(|ip| ip.to_string()),
        ip_family_policy: wish.cluster_ip.is_none().then(|| "PreferDualStack".to_owned()),
        load_balancer_ip: wish.balancer_ip.map(|ip| ip.to_string()),
        load_balancer_class: balancer.and_then(|b| b.load_balancer_class.clone()),
        external_traffic_policy: balancer.map(|b| b.external_traffic_policy.as_str().to_owned()),
        ..ServiceSpec::default()
    };
    let none = BTreeMap::new();
    let of_class = balancer.map_or((&none, &none), |b| (&b.labels, &b.annotations));
    let meta = meta(&name, owner, [of_class, infrastructure]);
    Some((name, desired(owner, meta, spec)))
}

/// The Service that carries labels and annotations of `spec.infrastructure`; `None` if there are none.
pub(crate) fn bearing(
    owner: &Owner<'_>,
    infrastructure: (&BTreeMap<String, String>, &BTreeMap<String, String>),
) -> Option<(ObjectName, DesiredService)> {
    if infrastructure.0.is_empty() && infrastructure.1.is_empty() {
        return None;
    }
    let name = bearing_name(owner.origin);
    let spec = ServiceSpec {
        type_: Some("ClusterIP".to_owned()),
        cluster_ip: Some("None".to_owned()),
        ..ServiceSpec::default()
    };
    let meta = meta(&name, owner, [infrastructure]);
    Some((name, desired(owner, meta, spec)))
}

fn desired(owner: &Owner<'_>, metadata: ObjectMeta, spec: ServiceSpec) -> DesiredService {
    DesiredService {
        owner: owner.origin.clone(),
        service: Service {
            metadata,
            spec: Some(spec),
            status: None,
        },
    }
}

/// Labels and annotations of later entries of `wanted` beat those of earlier ones, and ours beat all.
fn meta<'a>(
    name: &ObjectName,
    owner: &Owner<'_>,
    wanted: impl IntoIterator<Item = (&'a BTreeMap<String, String>, &'a BTreeMap<String, String>)>,
) -> ObjectMeta {
    let (mut labels, mut annotations) = (BTreeMap::new(), BTreeMap::new());
    for (more_labels, more_annotations) in wanted {
        labels.extend(more_labels.clone());
        annotations.extend(more_annotations.clone());
    }
    labels.insert(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned());
    if !owner.origin.namespace.is_empty() {
        labels.insert(GATEWAY_NAME.to_owned(), label_value(&owner.origin.name));
        labels.insert(GATEWAY_NAMESPACE.to_owned(), owner.origin.namespace.to_string());
    }
    annotations.insert(OWNER.to_owned(), owner.origin.to_string());
    let possible = owner.origin.namespace.is_empty() || owner.origin.namespace == name.namespace;
    let reference = owner.meta.uid.as_ref().filter(|_| possible).map(|uid| OwnerReference {
        api_version: owner.api_version.to_owned(),
        kind: owner.origin.kind.to_string(),
        name: owner.origin.name.to_string(),
        uid: uid.clone(),
        controller: Some(true),
        block_owner_deletion: None,
    });
    ObjectMeta {
        name: Some(name.name.to_string()),
        namespace: Some(name.namespace.to_string()),
        labels: Some(labels),
        annotations: Some(annotations),
        owner_references: reference.map(|reference| vec![reference]),
        ..ObjectMeta::default()
    }
}
