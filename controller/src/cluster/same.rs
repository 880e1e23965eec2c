//! Whether two translations say the same, in the time it takes to look at addresses: what did not change is shared.

use std::sync::Arc;

use pierhead_model::{Map, Snapshot};
use pierhead_translate::Statuses;

fn same_values<K: Ord, V: PartialEq>(a: &Map<K, Arc<V>>, b: &Map<K, Arc<V>>) -> bool {
    let same = |(_, a, b): (&K, Option<&Arc<V>>, Option<&Arc<V>>)| matches!((a, b), (Some(a), Some(b)) if Arc::ptr_eq(a, b) || a == b);
    a.len() == b.len() && a.changes(b).all(same)
}

pub(super) fn same_snapshot(a: &Snapshot, b: &Snapshot) -> bool {
    // Destructured, so that a new part cannot be forgotten.
    let Snapshot {
        binds,
        routes,
        backends,
        endpoints,
        certificates,
        trust,
        owned,
        fleet,
    } = a;
    same_values(binds, &b.binds)
        && same_values(routes, &b.routes)
        && same_values(backends, &b.backends)
        && same_values(endpoints, &b.endpoints)
        && same_values(certificates, &b.certificates)
        && same_values(trust, &b.trust)
        && *owned == b.owned
        && same_values(fleet, &b.fleet)
}

pub(super) fn same_statuses(a: &Statuses, b: &Statuses) -> bool {
    let Statuses {
        ingresses,
        gateway_classes,
        gateways,
        listener_sets,
        http_routes,
        grpc_routes,
        tls_routes,
        tcp_routes,
        udp_routes,
        backend_tls_policies,
    } = a;
    same_values(http_routes, &b.http_routes)
        && same_values(grpc_routes, &b.grpc_routes)
        && same_values(tls_routes, &b.tls_routes)
        && same_values(tcp_routes, &b.tcp_routes)
        && same_values(udp_routes, &b.udp_routes)
        && *ingresses == b.ingresses
        && *gateway_classes == b.gateway_classes
        && *gateways == b.gateways
        && *listener_sets == b.listener_sets
        && *backend_tls_policies == b.backend_tls_policies
}

#[cfg(test)]
mod tests {
    use pierhead_gateway_api::RouteStatus;
    use pierhead_translate::ObjectName;

    use super::*;

    #[test]
    fn equal_values_are_the_same_wherever_they_lie() {
        let name = ObjectName::new("ns", "r");
        let mut a = Statuses::default();
        a.http_routes.insert(name.clone(), Arc::new(RouteStatus::default()));
        let mut b = a.clone();
        assert!(same_statuses(&a, &b));
        b.http_routes.insert(name, Arc::new(RouteStatus::default()));
        assert!(same_statuses(&a, &b));
        b.http_routes
            .insert(ObjectName::new("ns", "s"), Arc::new(RouteStatus::default()));
        assert!(!same_statuses(&a, &b));
        a.http_routes
            .insert(ObjectName::new("ns", "t"), Arc::new(RouteStatus::default()));
        assert!(!same_statuses(&a, &b));
        assert!(same_snapshot(&Snapshot::default(), &Snapshot::default()));
    }
}
