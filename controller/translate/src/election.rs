//! Which node answers ARP and NDP for an address.

use std::{collections::BTreeSet, sync::Arc};

use ipnet::IpNet;
use pierhead_model::OwnedPrefix;

/// The one of `nodes` that answers for the address: highest random weight, so that a node that comes or goes moves no address
/// but its own, and everybody who knows the nodes comes to the same. `None`: there is no node.
pub(crate) fn elect<'a>(nodes: &'a BTreeSet<Arc<str>>, address: &OwnedPrefix) -> Option<&'a Arc<str>> {
    nodes.iter().max_by_key(|node| (weight(node, address.0), *node))
}

/// FNV-1a over name and address, then the finalizer of MurmurHash3: FNV alone leaves the upper bits of similar names alike.
fn weight(node: &str, address: IpNet) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut eat = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    };
    eat(node.as_bytes());
    match address {
        IpNet::V4(net) => eat(&net.network().octets()),
        IpNet::V6(net) => eat(&net.network().octets()),
    }
    eat(&[address.prefix_len()]);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: usize) -> BTreeSet<Arc<str>> {
        (0..count).map(|n| format!("node-{n}").into()).collect()
    }

    fn addresses() -> impl Iterator<Item = OwnedPrefix> {
        (0..=255).map(|n| OwnedPrefix(format!("10.200.0.{n}/32").parse().unwrap()))
    }

    #[test]
    fn nobody_is_elected_of_none() {
        assert_eq!(addresses().find_map(|one| elect(&nodes(0), &one).cloned()), None);
    }

    #[test]
    fn every_node_gets_its_share() {
        let nodes = nodes(4);
        for node in &nodes {
            let share = addresses().filter(|one| elect(&nodes, one) == Some(node)).count();
            assert!((40..=90).contains(&share), "{node}: {share} of 256");
        }
    }

    #[test]
    fn a_node_that_goes_moves_only_its_own() {
        let (all, rest) = (nodes(5), nodes(4));
        for one in addresses() {
            let before = elect(&all, &one).unwrap();
            if rest.contains(before) {
                assert_eq!(elect(&rest, &one), Some(before), "{one:?}");
            }
        }
    }
}
