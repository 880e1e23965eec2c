//! Ingress and IngressClass: which Ingresses are ours, and their rules as routes of two listeners, `http` and `https`.
//!
//! All Ingresses together are one owner, `IngressController`, that listens on every address of the machine. Knows nothing
//! of Gateways; of their API only that a BackendTLSPolicy says how a Service is spoken to.

mod annotation;
mod class;
mod rules;
mod tls;

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::networking::v1::{Ingress, IngressLoadBalancerIngress, IngressLoadBalancerStatus, IngressStatus};
use pierhead_model::{
    Age, Attachment, BindAddress, BindKey, BindPort, Filter, HostPattern, HostSelection, HttpOptions, HttpRoute,
    Listener, ListenerId, ListenerKind, Origin, RouteFlavor, RouteId, Transport,
};

use crate::{Builder, Claim, ObjectName, Refusal, RefusalReason, Refused, bind, gateway::Policies, world};

use annotation::Annotations;
use class::Classes;
use rules::{Rules, Taken};
use tls::Tls;

/// What is left to say once shared binds are settled.
pub(crate) struct Pending {
    owned: Vec<Owned>,
    claimed: Vec<(ListenerId, BindKey)>,
}

struct Owned {
    name: ObjectName,
    origin: Origin,
    hosts: Vec<HostPattern>,
}

fn listener_id(name: &str) -> ListenerId {
    ListenerId {
        owner: Origin::new("IngressController", "", "pierhead"),
        name: name.into(),
    }
}

/// Adds a route for every Ingress that is ours, and claims the binds of the Ingress controller.
///
/// Where a Gateway wants the same bind, a host is as old as the oldest Ingress that names it, and the controller as a whole
/// as old as the oldest Ingress that is ours.
pub(crate) fn translate<'w>(builder: &mut Builder<'w>, policies: &mut Policies<'w>) -> Pending {
    let classes = Classes::new(builder);
    let world = builder.world;
    let mut ingresses: Vec<(Age, &Ingress)> = Vec::new();
    for ingress in world.ingresses.iter() {
        if classes.owns(ingress, builder) {
            ingresses.push((world::age(&ingress.metadata), ingress));
        }
    }
    ingresses.sort_by(|a, b| a.0.cmp(&b.0));
    let mut pending = Pending {
        owned: Vec::new(),
        claimed: Vec::new(),
    };
    let Some((oldest, _)) = ingresses.first().cloned() else {
        return pending;
    };

    let annotations: Vec<Annotations> = ingresses.iter().map(|(_, ingress)| Annotations::of(ingress)).collect();
    let host_guards = host_guards(&ingresses, &annotations);
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
    };
    let settings = builder.settings;
    if !hosts.is_empty() {
        let kind = ListenerKind::Http(options.clone());
        claim(
            builder,
            &mut pending,
            "http",
            settings.ingress_http_port,
            kind,
            (hosts, ages),
            &oldest,
        );
    }
    if let Some((tls, names, ages)) = tls.listener(&oldest) {
        let kind = ListenerKind::Https { tls, http: options };
        claim(
            builder,
            &mut pending,
            "https",
            settings.ingress_https_port,
            kind,
            (names, ages),
            &oldest,
        );
    }
    for (origin, age, hosts, rules) in routes {
        let attach = |(listener, _): &(ListenerId, BindKey)| Attachment {
            listener: listener.clone(),
            hosts: hosts.clone(),
        };
        builder.add_route(HttpRoute {
            id: RouteId(origin),
            flavor: RouteFlavor::Ingress,
            age,
            attachments: pending.claimed.iter().map(attach).collect(),
            rules,
        });
    }
    pending
}

fn claim(
    builder: &mut Builder<'_>,
    pending: &mut Pending,
    name: &str,
    port: u16,
    kind: ListenerKind,
    (hosts, host_ages): (Vec<HostPattern>, Vec<Age>),
    age: &Age,
) {
    let id = listener_id(name);
    let key = BindKey {
        transport: Transport::Tcp,
        address: BindAddress::Any,
        port: BindPort::Port(port),
    };
    pending.claimed.push((id.clone(), key));
    builder.claim(Claim {
        key,
        listener: Arc::new(Listener {
            id,
            hosts,
            port,
            kind,
            limits: builder.settings.limits.clone(),
        }),
        age: age.clone(),
        host_ages,
    });
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
    let Pending { owned, claimed } = pending;
    let lost: Vec<(BindKey, BTreeMap<&HostPattern, &Refusal>)> = claimed
        .iter()
        .map(|(id, key)| {
            let refusals = bind::refusals(refused, id);
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
        let addresses: Vec<IngressLoadBalancerIngress> = builder
            .settings
            .machine_addresses
            .iter()
            .filter(|_| served)
            .map(|ip| IngressLoadBalancerIngress {
                ip: Some(ip.to_string()),
                ..IngressLoadBalancerIngress::default()
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
