//! Which nodes there are, and by which addresses they reach each other.
//!
//! They are the endpoints of the Service that selects the nodes' pods, which are on the network of their hosts: unlike the
//! list of Nodes it has exactly those that run us, and unlike the list of connections it survives us. Whether a pod is ready
//! does not count, for what its node does in the kernel goes on.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use pierhead_model::{Fleet, FleetId, FleetNode};

use crate::{ObjectName, Settings, World, border::BySlices};

/// `None`: there is no such Service, or nothing behind it.
pub(crate) fn fleet(world: &World, settings: &Settings, slices: &BySlices) -> Option<Fleet> {
    let service = ObjectName::new(&settings.namespace, &settings.node_service);
    let mut nodes: BTreeMap<Arc<str>, BTreeSet<IpAddr>> = BTreeMap::new();
    for endpoint in slices
        .get(&service)?
        .iter()
        .flat_map(|slice| slice.endpoints.iter().flatten())
    {
        let Some(name) = endpoint.node_name.as_deref() else {
            continue;
        };
        let addresses = endpoint.addresses.iter().filter_map(|text| text.parse::<IpAddr>().ok());
        nodes.entry(name.into()).or_default().extend(addresses);
    }
    let nodes: Vec<FleetNode> = nodes
        .into_iter()
        .map(|(name, addresses)| FleetNode {
            name,
            addresses: addresses.into_iter().collect(),
        })
        .collect();
    (!nodes.is_empty()).then(|| Fleet {
        id: FleetId::new(&format!("{}/{}", service.namespace, service.name)),
        seed: seed(world),
        nodes,
    })
}

/// The same for all who know the cluster, and for nobody else: the UID of `kube-system`, which is what a cluster is known by.
fn seed(world: &World) -> u64 {
    let system = world.namespaces.get("", "kube-system");
    let uid = system.and_then(|namespace| namespace.metadata.uid.as_deref());
    // FNV-1a, then the finalizer of MurmurHash3. Not zero, which says that there is none.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in uid.unwrap_or_default().bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    (hash ^ (hash >> 33)).max(1)
}
