//! Which objects have another status in one translation than in the one before. Pure.

use std::sync::Arc;

use pierhead_model::Map;
use pierhead_translate::{ObjectName, Statuses};

use super::Key;

/// Applies to each kind's map of statuses: `$each!(kind, field)`.
macro_rules! by_kind {
    ($each:ident) => {
        $each!("BackendTLSPolicy", backend_tls_policies);
        $each!("GRPCRoute", grpc_routes);
        $each!("Gateway", gateways);
        $each!("GatewayClass", gateway_classes);
        $each!("HTTPRoute", http_routes);
        $each!("Ingress", ingresses);
        $each!("ListenerSet", listener_sets);
        $each!("TCPRoute", tcp_routes);
        $each!("TLSRoute", tls_routes);
        $each!("UDPRoute", udp_routes);
    };
}

/// Every object that has a status.
pub(super) fn all(statuses: &Statuses) -> Vec<Key> {
    let mut keys = Vec::new();
    macro_rules! collect {
        ($kind:literal, $field:ident) => {
            keys.extend(statuses.$field.keys().map(|name| Key {
                kind: $kind,
                name: name.clone(),
            }));
        };
    }
    by_kind!(collect);
    keys
}

/// The objects of which something changed, came or went.
pub(super) fn between(before: &Statuses, now: &Statuses) -> Vec<Key> {
    let mut keys = Vec::new();
    macro_rules! collect {
        ($kind:literal, $field:ident) => {
            differing(&before.$field, &now.$field, |name| {
                keys.push(Key {
                    kind: $kind,
                    name: name.clone(),
                });
            });
        };
    }
    by_kind!(collect);
    keys
}

/// Equality that costs nothing where the same allocation stands on both sides.
trait Same {
    fn same(&self, other: &Self) -> bool;
}

impl<T: PartialEq> Same for Arc<T> {
    fn same(&self, other: &Self) -> bool {
        Self::ptr_eq(self, other) || **self == **other
    }
}

macro_rules! same_by_value {
    ($($kind:ty)*) => {$(
        impl Same for $kind {
            fn same(&self, other: &Self) -> bool {
                self == other
            }
        }
    )*};
}

same_by_value! {
    pierhead_gateway_api::GatewayClassStatus
    pierhead_gateway_api::GatewayStatus
    pierhead_gateway_api::ListenerSetStatus
    pierhead_gateway_api::PolicyStatus
    k8s_openapi::api::networking::v1::IngressStatus
}

fn differing<V: Same>(before: &Map<ObjectName, V>, now: &Map<ObjectName, V>, mut found: impl FnMut(&ObjectName)) {
    for (name, now, before) in now.changes(before) {
        if !matches!((now, before), (Some(now), Some(before)) if now.same(before)) {
            found(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use pierhead_gateway_api::{GatewayStatus, RouteStatus};

    use super::*;

    #[test]
    fn what_changed_came_or_went_is_found_and_nothing_else() {
        let status = |count| GatewayStatus {
            attached_listener_sets: Some(count),
            ..GatewayStatus::default()
        };
        let route = Arc::new(RouteStatus::default());
        let name = |name| ObjectName::new("ns", name);
        let mut before = Statuses::default();
        before.gateways.insert(name("changed"), status(1));
        before.gateways.insert(name("gone"), status(1));
        before.gateways.insert(name("same"), status(1));
        before.http_routes.insert(name("same"), Arc::clone(&route));
        let mut now = before.clone();
        now.gateways.insert(name("changed"), status(2));
        now.gateways.remove(&name("gone"));
        now.http_routes.insert(name("same"), Arc::new(RouteStatus::default()));
        now.http_routes.insert(name("new"), route);
        let found: Vec<_> = between(&before, &now)
            .into_iter()
            .map(|key| format!("{} {}", key.kind, key.name))
            .collect();
        assert_eq!(found, ["Gateway ns/changed", "Gateway ns/gone", "HTTPRoute ns/new"]);
        assert_eq!(all(&now).len(), 4);
        assert!(between(&now, &now).is_empty());
    }
}
