use std::sync::Arc;

use serde::Serialize;

use crate::{
    Backend, BackendId, Bind, BindAddress, BindKey, Certificate, CertificateId, Endpoints, EndpointsId, Fleet, FleetId,
    HttpRoute, Map, OwnedPrefix, Ownership, RouteId, TrustAnchors, TrustId,
};

/// One complete configuration of a node.
///
/// Invariants (kept by `translate`): every id that is named exists here; a backend that cannot be used is present as
/// `Invalid`; a certificate that cannot be used is not referenced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    pub binds: Map<BindKey, Arc<Bind>>,
    pub routes: Map<RouteId, Arc<HttpRoute>>,
    pub backends: Map<BackendId, Arc<Backend>>,
    pub endpoints: Map<EndpointsId, Arc<Endpoints>>,
    pub certificates: Map<CertificateId, Arc<Certificate>>,
    pub trust: Map<TrustId, Arc<TrustAnchors>>,
    /// Addresses made local by a route while they stand here.
    pub owned: Map<OwnedPrefix, Ownership>,
    /// All nodes, where there are several: one entry, or none.
    pub fleet: Map<FleetId, Arc<Fleet>>,
}

impl Snapshot {
    /// Whether a node other than `node` was elected for the address of the bind: nothing need be served there.
    pub fn is_elsewhere(&self, bind: &BindKey, node: Option<&str>) -> bool {
        let BindAddress::Ip(ip) = bind.address else {
            return false;
        };
        let ownership = self.owned.get(&OwnedPrefix(ip.into()));
        let announcer = ownership.and_then(|owned| owned.announcer.as_ref());
        announcer.is_some_and(|announcer| announcer.is_elsewhere(node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Announcer, BindPort, OnMiss, Transport};

    #[test]
    fn an_address_is_elsewhere_for_all_but_the_elected_node() {
        let mut snapshot = Snapshot::default();
        let bind = |ip: &str| BindKey {
            transport: Transport::Tcp,
            address: BindAddress::Ip(ip.parse().unwrap()),
            port: BindPort::Port(80),
        };
        let announced = [
            ("10.0.0.1", Some(Announcer::Node("a".into()))),
            ("10.0.0.2", Some(Announcer::Here)),
            ("10.0.0.3", None),
        ];
        for (ip, announcer) in announced {
            let ownership = Ownership {
                on_miss: OnMiss::Drop,
                announcer,
                round: 0,
            };
            let prefix = OwnedPrefix(ip.parse::<std::net::IpAddr>().unwrap().into());
            snapshot.owned.insert(prefix, ownership);
        }
        let elsewhere = |ip, node| snapshot.is_elsewhere(&bind(ip), node);
        assert!(!elsewhere("10.0.0.1", Some("a")));
        assert!(elsewhere("10.0.0.1", Some("b")) && elsewhere("10.0.0.1", None));
        for ip in ["10.0.0.2", "10.0.0.3", "10.0.0.4"] {
            assert!(!elsewhere(ip, Some("b")) && !elsewhere(ip, None), "{ip}");
        }
    }
}
