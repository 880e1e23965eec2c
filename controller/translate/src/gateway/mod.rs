//! The Gateway API (v1.7): which objects are ours, what their routes become, and what is written into their status.
//!
//! One file per question; attachment, grants, backends and status are written once for all route kinds. Quotations are
//! from the Go package `apis/v1` unless another source stands with them.

mod address;
mod attach;
mod backend;
mod class;
mod condition;
mod filter;
mod grant;
mod grpc;
mod http;
mod l4;
mod listener;
mod listener_filter;
mod policy;
mod report;
mod route;
mod service;
mod tls;

use std::{collections::VecDeque, sync::Arc};

use pierhead_gateway_api::{ProtocolType, RouteStatus, TLSModeType};
use pierhead_model::{BindAddress, BindKey, BindPort, HostSelection, HttpOptions, Listener, ListenerKind, Transport};

use self::{
    condition::fault,
    listener::{Gateways, ListenerState},
};
use crate::{
    Builder, Claim, ObjectName, Refused,
    bind::{self, RefusalReason},
    memo::{self, Memo, RouteKind},
    service::PortWishes,
};

pub(crate) use listener::Context;
pub(crate) use policy::Policies;

/// What is left to say once shared binds are settled.
pub(crate) struct Pending<'w> {
    gateways: Gateways<'w>,
    policies: Policies<'w>,
}

/// Gateways that are ours, before they have addresses.
pub(crate) struct Selected<'w>(Gateways<'w>);

impl Selected<'_> {
    pub(crate) fn port_wishes(&self, builder: &Builder<'_>, wishes: &mut PortWishes) {
        service::wishes(builder, &self.0, wishes);
    }
}

/// Finds the Gateways that are ours, and asks for their addresses.
pub(crate) fn select<'w>(builder: &mut Builder<'w>) -> Selected<'w> {
    let classes = class::translate(builder);
    Selected(Gateways::new(builder, &classes))
}

/// Statuses that were made lately. Routes of one Gateway mostly have the same one, and each is written to memory once.
#[derive(Default)]
struct Recent(VecDeque<Arc<RouteStatus>>);

impl Recent {
    const MOST: usize = 8;

    fn share(&mut self, status: RouteStatus) -> Arc<RouteStatus> {
        if let Some(known) = self.0.iter().find(|known| ***known == status) {
            return Arc::clone(known);
        }
        let status = Arc::new(status);
        self.0.truncate(Self::MOST - 1);
        self.0.push_front(Arc::clone(&status));
        status
    }
}

/// Claims binds and adds routes for every Gateway that is ours.
pub(crate) fn translate<'w>(
    builder: &mut Builder<'w>,
    Selected(mut gateways): Selected<'w>,
    mut policies: Policies<'w>,
) -> Pending<'w> {
    let world = builder.world;
    gateways.resolve(builder);
    listener_filter::resolve(builder, &mut gateways, &mut policies);

    let context = memo::Context::new(world, &builder.settings.gateway_controller, gateways.context(&policies));
    let (mut memo, dirty) = Memo::new(world, context, &builder.slices, builder.previous_memo);
    let mut recent = Recent::default();
    for key in dirty {
        let ObjectName { namespace, name } = &key.name;
        builder.record();
        let status = match key.kind {
            RouteKind::Http => world
                .http_routes
                .get(namespace, name)
                .map(|route| route::translate(builder, &mut gateways, &mut policies, &**route)),
            RouteKind::Grpc => world
                .grpc_routes
                .get(namespace, name)
                .map(|route| route::translate(builder, &mut gateways, &mut policies, &**route)),
        };
        let mut recording = builder.recorded();
        if let Some(status) = status {
            recording.status = status.map(|status| recent.share(status));
            memo.sum.add(key, recording);
        }
    }
    for (index, listener) in gateways.listeners.iter_mut().enumerate() {
        listener.attached = memo.sum.attached(index);
    }
    builder.statuses.http_routes = memo.sum.http_statuses.clone();
    builder.statuses.grpc_routes = memo.sum.grpc_statuses.clone();
    builder.memo(memo);

    macro_rules! l4 {
        ($($kind:ident)*) => {$(
            for route in world.$kind.iter() {
                if let Some(status) = l4::translate(builder, &mut gateways, &mut policies, &**route) {
                    builder.statuses.$kind.insert(ObjectName::of(&route.metadata), Arc::new(status));
                }
            }
        )*};
    }
    l4! { tls_routes tcp_routes udp_routes }

    service::translate(builder, &mut gateways);
    for listener in &gateways.listeners {
        let gateway = &gateways.gateways[listener.gateway];
        if gateway.accepted.is_err() || !listener.stands() {
            continue;
        }
        let Some((transport, kind)) = kind(listener) else {
            continue;
        };
        let made = Arc::new(Listener {
            id: listener.id.clone(),
            hosts: vec![listener.host.clone()],
            port: listener.spec.port,
            kind,
            limits: builder.settings.limits.clone(),
            client_address: gateway.client_address.clone(),
        });
        for address in &gateway.assigned.binds {
            let key = BindKey {
                transport,
                address: *address,
                port: BindPort::Port(listener.spec.port),
            };
            builder.claim(Claim::new(key, Arc::clone(&made), listener.age.clone()));
        }
        if let Some(port) = builder.port(&service::wish(gateway, transport, listener.spec.port)) {
            let key = BindKey {
                transport,
                address: BindAddress::Any,
                port: BindPort::Port(port),
            };
            builder.claim(Claim::new(key, made, listener.age.clone()));
        }
    }
    Pending { gateways, policies }
}

/// What a listener is to the data plane, with the routes that were collected in it.
fn kind(listener: &ListenerState<'_>) -> Option<(Transport, ListenerKind)> {
    let http = |detect_misdirected| HttpOptions {
        host_selection: HostSelection::FallThrough,
        detect_misdirected,
        filters: listener.filters.clone(),
    };
    // "The oldest Route based on creation timestamp", then namespace/name; the others stay accepted and carry nothing.
    let oldest = || {
        let mut routes = listener.l4_routes.clone();
        routes.sort_by(|a, b| a.0.cmp(&b.0));
        routes.into_iter().next().map(|(_, route)| route)
    };
    let sni = || {
        let mut routes = listener.sni_routes.clone();
        routes.sort_by(|(age_a, a), (age_b, b)| b.host.cmp_specificity(&a.host).then_with(|| age_a.cmp(age_b)));
        routes.into_iter().map(|(_, route)| route).collect()
    };
    Some(match (&listener.spec.protocol, &listener.tls) {
        (ProtocolType::Http, _) => (Transport::Tcp, ListenerKind::Http(http(false))),
        (ProtocolType::Https, Some(tls)) => (
            Transport::Tcp,
            ListenerKind::Https {
                tls: tls.clone(),
                http: http(true),
            },
        ),
        (ProtocolType::Tls, _) if listener.tls_mode() == TLSModeType::Passthrough => {
            (Transport::Tcp, ListenerKind::TlsPassthrough { routes: sni() })
        }
        (ProtocolType::Tls, Some(tls)) => (
            Transport::Tcp,
            ListenerKind::TlsTerminate {
                tls: tls.clone(),
                routes: sni(),
            },
        ),
        (ProtocolType::Tcp, _) => (Transport::Tcp, ListenerKind::Tcp { route: oldest() }),
        (ProtocolType::Udp, _) => (Transport::Udp, ListenerKind::Udp { route: oldest() }),
        _ => return None,
    })
}

/// Writes statuses, now that it is known who has which bind.
pub(crate) fn conclude(builder: &mut Builder<'_>, pending: Pending<'_>, refused: &Refused) {
    let Pending { mut gateways, policies } = pending;
    for listener in &mut gateways.listeners {
        let refusal = bind::refusals(refused, &listener.id).next();
        if let Some((key, refusal)) = refusal {
            let reason = match refusal.reason {
                RefusalReason::Protocol => "ProtocolConflict",
                RefusalReason::Hostname => "HostnameConflict",
            };
            listener.conflicted = Some(fault(
                reason,
                match refusal.reason {
                    RefusalReason::Protocol => format!("{key} belongs to {}, which is older", refusal.holder),
                    RefusalReason::Hostname => {
                        format!(
                            "{key} with hostname {} belongs to {}, which is older",
                            listener.host, refusal.holder
                        )
                    }
                },
                "use another address, port or hostname",
            ));
        }
    }
    report::gateways(builder, &gateways);
    policies.conclude(builder, &gateways);
}
