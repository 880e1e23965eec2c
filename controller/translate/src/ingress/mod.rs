//! Ingress and IngressClass: which Ingresses are ours, and their rules as routes of two listeners, `http` and `https`.
//!
//! All Ingresses together are one owner, `IngressController`, that listens on every address of the machine; those of a class
//! with addresses of its own are another one, on those addresses. Knows nothing of Gateways; of their API only that a BackendTLSPolicy says how a Service is spoken to.

mod annotation;
mod class;
mod rules;
mod tls;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use k8s_openapi::{
    Resource as _,
    api::networking::v1::{
        Ingress, IngressClass, IngressLoadBalancerIngress, IngressLoadBalancerStatus, IngressStatus,
    },
};
use pierhead_api::gateway_parameters::Addresses;
use pierhead_model::{
    Age, Attachment, BindAddress, BindKey, BindPort, ClientAddress, Filter, HostPattern, HostSelection, HttpOptions,
    HttpRoute, Listener, ListenerId, ListenerKind, Origin, RouteFlavor, RouteId, Transport,
};

use crate::{
    Builder, Claim, ObjectName, Refusal, RefusalReason, Refused,
    address::{AddressFault, Demand},
    bind,
    gateway::Policies,
    service::{self, Host, PortWish, PortWishes},
    world,
};

use annotation::Annotations;
use class::{Classes, Place};
use rules::{Rules, Taken};
use tls::Tls;

/// Ingresses that are ours, before they have addresses.
pub(crate) struct Selected<'w> {
    groups: Vec<Group<'w>>,
}

/// Ingresses that are served on the same addresses.
struct Group<'w> {
    /// Of their listeners.
    owner: Origin,
    /// The class whose addresses they have; `None`: those of the nodes.
    class: Option<&'w IngressClass>,
    /// Why they are not served.
    nowhere: Option<String>,
    /// Of the class; where several classes share addresses, of the first by name that says anything.
    client_address: ClientAddress,
    classes: BTreeSet<String>,
    /// Oldest first.
    ingresses: Vec<(Age, &'w Ingress)>,
}

/// What is left to say once shared binds are settled.
#[derive(Default)]
pub(crate) struct Pending {
    groups: Vec<Placed>,
}

#[derive(Default)]
struct Placed {
    owned: Vec<Owned>,
    claimed: Vec<(ListenerId, BindKey)>,
    /// What status shows where something is served.
    shown: Vec<Host>,
    /// Why nothing is.
    nowhere: Option<(String, &'static str)>,
}

struct Owned {
    name: ObjectName,
    origin: Origin,
    hosts: Vec<HostPattern>,
}

const CONTROLLER: &str = "IngressController";

/// Finds the Ingresses that are ours, and asks for the addresses of classes that have their own.
pub(crate) fn select<'w>(builder: &mut Builder<'w>) -> Selected<'w> {
    let classes = Classes::new(builder);
    let world = builder.world;
    let mut groups: BTreeMap<String, (Place, Group<'w>)> = BTreeMap::new();
    let mut believed: BTreeMap<String, ClientAddress> = BTreeMap::new();
    for ingress in world.ingresses.iter() {
        let Some((class, place)) = classes.of(ingress, builder) else {
            continue;
        };
        let own = class::client_address(builder, &class);
        if !own.is_default() {
            believed.insert(class.clone(), own);
        }
        let (key, nowhere) = match &place {
            Place::Nodes => (String::new(), None),
            Place::Own(_) => (class.clone(), None),
            Place::Nowhere(why) => (class.clone(), Some(why.clone())),
        };
        let (_, group) = groups.entry(key).or_insert_with_key(|class| {
            let group = Group {
                owner: Origin::new(CONTROLLER, "", if class.is_empty() { "pierhead" } else { class }),
                class: world.ingress_classes.get("", class).map(|class| &**class),
                nowhere,
                client_address: ClientAddress::default(),
                classes: BTreeSet::new(),
                ingresses: Vec::new(),
            };
            (place, group)
        });
        group.classes.insert(class);
        group.ingresses.push((world::age(&ingress.metadata), ingress));
    }
    for (_, group) in groups.values_mut() {
        let mut said = group
            .classes
            .iter()
            .filter_map(|class| Some((class, believed.get(class)?)));
        let Some((first, counts)) = said.next() else {
            continue;
        };
        group.client_address.clone_from(counts);
        for (class, _) in said.filter(|(_, other)| *other != counts) {
            let origin = Origin::new("IngressClass", "", class);
            let message = format!(
                "clientAddress of its parameters does not count: IngressClass {first} is served on the same ports"
            );
            builder.warning(
                &origin,
                "spec.parameters",
                message,
                "give both the same, or addresses of their own",
            );
        }
    }
    let groups = groups.into_values().map(|(place, mut group)| {
        group.ingresses.sort_by(|a, b| a.0.cmp(&b.0));
        if let (Place::Own(mode), Some(class)) = (place, group.class) {
            builder.demand(group.demand(builder, class, mode));
        }
        group
    });
    Selected {
        groups: groups.collect(),
    }
}

impl Group<'_> {
    fn demand(&self, builder: &Builder<'_>, class: &IngressClass, mode: Arc<Addresses>) -> Demand {
        let ip = |entry: &IngressLoadBalancerIngress| entry.ip.as_deref()?.parse().ok();
        let shown = |ingress: &Ingress| -> Vec<IpAddr> {
            let status = ingress.status.as_ref().and_then(|s| s.load_balancer.as_ref());
            status
                .and_then(|s| s.ingress.as_ref())
                .into_iter()
                .flatten()
                .filter_map(ip)
                .collect()
        };
        Demand {
            owner: ObjectName::of(&class.metadata),
            age: world::age(&class.metadata),
            mode,
            wishes: Vec::new(),
            present: self.ingresses.iter().flat_map(|(_, ingress)| shown(ingress)).collect(),
            given: service::given(builder.world, builder.settings, &class_origin(class)),
        }
    }
}

fn class_origin(class: &IngressClass) -> Origin {
    world::origin("IngressClass", &class.metadata)
}

fn port_wish(class: &IngressClass, port: u16) -> PortWish {
    PortWish {
        owner: class_origin(class),
        transport: Transport::Tcp,
        port,
    }
}

impl Selected<'_> {
    pub(crate) fn port_wishes(&self, builder: &Builder<'_>, wishes: &mut PortWishes) {
        for group in &self.groups {
            let ports = [builder.settings.ingress_http_port, builder.settings.ingress_https_port];
            wishes.named.extend(ports);
            if let Some(class) = group.class
                && builder.wants_service(&ObjectName::of(&class.metadata))
            {
                wishes.wanted.extend(ports.map(|port| port_wish(class, port)));
            }
        }
    }
}

/// Adds a route for every Ingress that is ours, and claims the binds of the Ingress controller.
///
/// Where a Gateway wants the same bind, a host is as old as the oldest Ingress that names it, and the controller as a whole
/// as old as the oldest Ingress that is ours.
pub(crate) fn translate<'w>(builder: &mut Builder<'w>, selected: Selected<'w>, policies: &mut Policies<'w>) -> Pending {
    let mut pending = Pending::default();
    for group in selected.groups {
        let placed = place(builder, &group);
        pending.groups.push(serve(builder, &group, placed, policies));
    }
    pending
}

/// Where the listeners of a group stand.
enum Stand {
    Address(BindAddress),
    /// On ports of the nodes that a Service leads to.
    Service,
}

/// Where a group is served; adds the Service of its class.
fn place(builder: &mut Builder<'_>, group: &Group<'_>) -> (Placed, Vec<Stand>) {
    let mut placed = Placed::default();
    if let Some(why) = &group.nowhere {
        placed.nowhere = Some((why.clone(), "repair the parameters of its IngressClass"));
        return (placed, Vec::new());
    }
    let Some(class) = group.class else {
        placed.shown = builder
            .settings
            .shown_addresses()
            .iter()
            .copied()
            .map(Host::Ip)
            .collect();
        return (placed, vec![Stand::Address(BindAddress::Any)]);
    };
    let assigned = builder.assigned(&ObjectName::of(&class.metadata));
    placed.shown = assigned.shown.into_iter().map(|shown| shown.host).collect();
    placed.nowhere = assigned
        .faults
        .first()
        .filter(|_| placed.shown.is_empty())
        .map(|why| match why {
            AddressFault::ServiceTaken(name) => service::taken(name),
            AddressFault::ServicePending => (
                "the Service that is made for its IngressClass has no address yet".to_owned(),
                "see the Service and its events",
            ),
            _ => (
                "every address of the pool of its IngressClass is taken".to_owned(),
                "add an address pool",
            ),
        });
    let mut stands: Vec<Stand> = assigned.binds.into_iter().map(Stand::Address).collect();
    if let Some(wish) = assigned.service {
        stands.push(Stand::Service);
        let origin = class_origin(class);
        let owner = service::Owner {
            origin: &origin,
            api_version: IngressClass::API_VERSION,
            meta: &class.metadata,
        };
        let none = BTreeMap::new();
        let targets = builder.targets(&origin);
        let made = service::leading(builder.settings, &owner, &wish, (&none, &none), &targets);
        if let Some((name, made)) = made
            && let Err((why, fix)) = builder.add_service(name, made)
        {
            builder.error(&origin, "spec.parameters", why, fix);
        }
    }
    (placed, stands)
}

fn serve<'w>(
    builder: &mut Builder<'w>,
    group: &Group<'w>,
    (mut pending, stands): (Placed, Vec<Stand>),
    policies: &mut Policies<'w>,
) -> Placed {
    let ingresses = &group.ingresses;
    let Some((oldest, _)) = ingresses.first().cloned() else {
        return pending;
    };
    if stands.is_empty() {
        let owned = ingresses.iter().map(|(_, ingress)| Owned {
            name: ObjectName::of(&ingress.metadata),
            origin: world::origin("Ingress", &ingress.metadata),
            hosts: rules::hosts(ingress),
        });
        pending.owned = owned.collect();
        return pending;
    }

    let annotations: Vec<Annotations> = ingresses.iter().map(|(_, ingress)| Annotations::of(ingress)).collect();
    let host_guards = host_guards(ingresses, &annotations);
    let mut tls = Tls::new(builder);
    let mut taken = Taken::default();
    let mut host_ages: BTreeMap<HostPattern, Age> = BTreeMap::new();
    let mut routes = Vec::new();
    for ((age, ingress), annotations) in ingresses.iter().zip(&annotations) {
        let origin = world::origin("Ingress", &ingress.metadata);
        report(builder, &origin, annotations);
        let hosts = rules::hosts(ingress);
        let guards: Vec<Filter> = annotations.guards.iter().map(|name| unsupported(name)).collect();
        let rules = Rules {
            ingress,
            origin: &origin,
            hosts: &hosts,
            guards: &guards,
            host_guards: &host_guards,
            taken: &mut taken,
            builder: &mut *builder,
            policies: &mut *policies,
        };
        let rules = rules.translate();
        tls.add(ingress, &hosts, builder);
        for host in &hosts {
            host_ages.entry(host.clone()).or_insert_with(|| age.clone());
        }
        if !rules.is_empty() {
            routes.push((origin.clone(), age.clone(), hosts.clone(), rules));
        }
        pending.owned.push(Owned {
            name: ObjectName::of(&ingress.metadata),
            origin,
            hosts,
        });
    }

    let (hosts, ages): (Vec<_>, Vec<_>) = host_ages.into_iter().unzip();
    let options = HttpOptions {
        host_selection: HostSelection::BestOnly,
        // "The SNI host is used for termination and the value of the Host header is used for routing."
        detect_misdirected: false,
        filters: Vec::new(),
    };
    let settings = builder.settings;
    if !hosts.is_empty() {
        let kind = ListenerKind::Http(options.clone());
        let listener = listener(builder, group, "http", settings.ingress_http_port, kind, hosts);
        claim(builder, &mut pending, group, &stands, listener, ages, &oldest);
    }
    if let Some((tls, names, ages)) = tls.listener(&oldest) {
        let kind = ListenerKind::Https { tls, http: options };
        let listener = listener(builder, group, "https", settings.ingress_https_port, kind, names);
        claim(builder, &mut pending, group, &stands, listener, ages, &oldest);
    }
    let mut listeners: Vec<ListenerId> = pending.claimed.iter().map(|(id, _)| id.clone()).collect();
    listeners.dedup();
    for (origin, age, hosts, rules) in routes {
        let attach = |listener: &ListenerId| Attachment {
            listener: listener.clone(),
            hosts: hosts.clone(),
        };
        builder.add_route(HttpRoute {
            id: RouteId(origin),
            flavor: RouteFlavor::Ingress,
            age,
            attachments: listeners.iter().map(attach).collect(),
            rules,
        });
    }
    pending
}

fn listener(
    builder: &Builder<'_>,
    group: &Group<'_>,
    name: &str,
    port: u16,
    kind: ListenerKind,
    hosts: Vec<HostPattern>,
) -> Arc<Listener> {
    Arc::new(Listener {
        id: ListenerId {
            owner: group.owner.clone(),
            name: name.into(),
        },
        hosts,
        port,
        kind,
        limits: builder.settings.limits.clone(),
        client_address: group.client_address.clone(),
    })
}

fn claim(
    builder: &mut Builder<'_>,
    pending: &mut Placed,
    group: &Group<'_>,
    stands: &[Stand],
    listener: Arc<Listener>,
    host_ages: Vec<Age>,
    age: &Age,
) {
    for stand in stands {
        let (address, port) = match stand {
            Stand::Address(address) => (*address, Some(listener.port)),
            Stand::Service => {
                let port = group
                    .class
                    .and_then(|class| builder.port(&port_wish(class, listener.port)));
                (BindAddress::Any, port)
            }
        };
        let Some(port) = port else {
            continue;
        };
        let key = BindKey {
            transport: Transport::Tcp,
            address,
            port: BindPort::Port(port),
        };
        pending.claimed.push((listener.id.clone(), key));
        builder.claim(Claim {
            key,
            listener: Arc::clone(&listener),
            age: age.clone(),
            host_ages: host_ages.clone(),
        });
    }
}

fn unsupported(annotation: &str) -> Filter {
    Filter::Unsupported {
        what: annotation.into(),
    }
}

fn host_guards(ingresses: &[(Age, &Ingress)], annotations: &[Annotations]) -> BTreeMap<HostPattern, Vec<Filter>> {
    let mut guards: BTreeMap<HostPattern, Vec<Filter>> = BTreeMap::new();
    for ((_, ingress), annotations) in ingresses.iter().zip(annotations) {
        if annotations.host_guards.is_empty() {
            continue;
        }
        for host in rules::hosts(ingress) {
            guards
                .entry(host)
                .or_default()
                .extend(annotations.host_guards.iter().map(|name| unsupported(name)));
        }
    }
    guards
}

fn report(builder: &mut Builder<'_>, origin: &Origin, annotations: &Annotations) {
    for name in &annotations.guards {
        builder.error(
            origin,
            format!("metadata.annotations[{name}]"),
            "guards access and is not supported: every path of this Ingress is answered 500",
            "guard access in another way, then remove the annotation",
        );
    }
    for name in &annotations.host_guards {
        builder.error(
            origin,
            format!("metadata.annotations[{name}]"),
            "guards access and is not supported: every path of its hosts, of other Ingresses too, is answered 500",
            "guard access in another way, then remove the annotation",
        );
    }
    if !annotations.ignored.is_empty() {
        let message = format!("annotations without effect: {}", annotations.ignored.join(", "));
        builder.warning(
            origin,
            "metadata.annotations",
            message,
            "remove them, or use a Gateway and an HTTPRoute",
        );
    }
}

/// Writes statuses, and says who lost a host or a port to a Gateway.
pub(crate) fn conclude(builder: &mut Builder<'_>, pending: Pending, refused: &Refused) {
    for group in pending.groups {
        conclude_group(builder, group, refused);
    }
}

fn conclude_group(builder: &mut Builder<'_>, group: Placed, refused: &Refused) {
    let Placed {
        owned,
        claimed,
        shown,
        nowhere,
    } = group;
    let lost: Vec<(BindKey, BTreeMap<&HostPattern, &Refusal>)> = claimed
        .iter()
        .map(|(id, key)| {
            let refusals = bind::refusals(refused, id).filter(|(refused, _)| refused == key);
            (
                *key,
                refusals
                    .flat_map(|(_, r)| r.hosts.iter().map(move |host| (host, r)))
                    .collect(),
            )
        })
        .collect();
    for owned in owned {
        let mut served = false;
        for (key, lost) in &lost {
            // The listener for TLS has server names, not hosts: refused entirely it has none of either.
            let all = lost.values().next().filter(|refusal| refusal.entire);
            served |= all.is_none() && owned.hosts.iter().any(|host| !lost.contains_key(host));
            say_lost(builder, &owned, *key, lost);
        }
        if let Some((why, fix)) = &nowhere {
            let message = format!("it is not served: {why}");
            builder.error(&owned.origin, "spec.ingressClassName", message, fix);
        }
        let addresses: Vec<IngressLoadBalancerIngress> = shown
            .iter()
            .filter(|_| served)
            .map(|host| match host {
                Host::Ip(ip) => IngressLoadBalancerIngress {
                    ip: Some(ip.to_string()),
                    ..IngressLoadBalancerIngress::default()
                },
                Host::Name(name) => IngressLoadBalancerIngress {
                    hostname: Some(name.clone()),
                    ..IngressLoadBalancerIngress::default()
                },
            })
            .collect();
        let status = IngressStatus {
            load_balancer: Some(IngressLoadBalancerStatus {
                ingress: (!addresses.is_empty()).then_some(addresses),
            }),
        };
        builder.statuses.ingresses.insert(owned.name, status);
    }
}

fn say_lost(builder: &mut Builder<'_>, owned: &Owned, key: BindKey, lost: &BTreeMap<&HostPattern, &Refusal>) {
    let mut by_holder: BTreeMap<&ListenerId, (RefusalReason, Vec<String>)> = BTreeMap::new();
    for (host, refusal) in owned.hosts.iter().filter_map(|host| Some((host, lost.get(host)?))) {
        let (_, hosts) = by_holder.entry(&refusal.holder).or_insert((refusal.reason, Vec::new()));
        hosts.push(host.to_string());
    }
    for (holder, (reason, hosts)) in by_holder {
        let message = match reason {
            RefusalReason::Protocol => format!("{key} belongs to the older {holder}, which speaks another protocol"),
            RefusalReason::Hostname => format!("host {} on {key} belongs to the older {holder}", hosts.join(", ")),
        };
        builder.error(
            &owned.origin,
            "spec.rules",
            message,
            "use another host name, or another port for Ingress",
        );
    }
}
