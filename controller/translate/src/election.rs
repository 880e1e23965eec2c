//! Which node answers ARP and NDP for an address.
//!
//! The one that has it keeps it: wherever an address moves, what others established there is cut. So a node that comes gets
//! nothing of what others hold, unless one of them holds far more than its share; what it can have is what is new, and what
//! others leave behind.

#[cfg(test)]
mod tests;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ipnet::IpNet;
use pierhead_model::OwnedPrefix;

/// What was before an election, of one address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Who had it, by what the controller remembers, or by what nodes say. Of several, one keeps it.
    pub by: BTreeSet<Arc<str>>,
    /// See [`pierhead_model::Ownership::round`].
    pub round: u32,
}

/// Who announces each of these addresses, of those nodes. Nobody, where there is no node.
///
/// Pure: everybody who knows the same comes to the same. A node keeps what it has up to twice its share and one more: then the
/// death of a node, of any but the smallest clusters the death of several, and their return move nothing back. What has nobody
/// goes to the node of the highest random weight among those that have no more than their share.
pub(crate) fn elect(
    nodes: &BTreeSet<Arc<str>>,
    addresses: &BTreeSet<OwnedPrefix>,
    held: &BTreeMap<OwnedPrefix, Held>,
) -> BTreeMap<OwnedPrefix, Arc<str>> {
    if nodes.is_empty() {
        return BTreeMap::new();
    }
    let share = addresses.len().div_ceil(nodes.len());
    let mut holdings: BTreeMap<&Arc<str>, Vec<OwnedPrefix>> = nodes.iter().map(|node| (node, Vec::new())).collect();
    let mut orphans = BTreeSet::new();
    for address in addresses {
        let by = held.get(address).into_iter().flat_map(|held| &held.by);
        let present = by.filter_map(|node| nodes.get(node));
        match heaviest(present, *address).and_then(|node| holdings.get_mut(node)) {
            Some(holding) => holding.push(*address),
            None => _ = orphans.insert(*address),
        }
    }
    for (node, holding) in &mut holdings {
        let keeps = most_kept(share);
        if holding.len() > keeps {
            // Those that others would rather have go.
            holding.sort_by_cached_key(|address| {
                (rank(nodes, node, *address), Reverse(weight(node, address.0)), *address)
            });
            orphans.extend(holding.split_off(keeps));
        }
    }
    // There is always one with room: they have room for one more each than there are addresses.
    for address in orphans {
        let with_room = holdings.iter().filter(|(_, holding)| holding.len() <= share);
        let node = heaviest(with_room.map(|(node, _)| *node), address);
        if let Some(holding) = node.and_then(|node| holdings.get_mut(node)) {
            holding.push(address);
        }
    }
    let each = holdings.into_iter().flat_map(|(node, holding)| {
        let node = Arc::clone(node);
        holding.into_iter().map(move |address| (address, Arc::clone(&node)))
    });
    each.collect()
}

/// How many addresses a node with this share keeps.
fn most_kept(share: usize) -> usize {
    2 * share + 1
}

fn heaviest<'a>(nodes: impl Iterator<Item = &'a Arc<str>>, address: OwnedPrefix) -> Option<&'a Arc<str>> {
    nodes.max_by_key(|node| (weight(node, address.0), *node))
}

/// How many of the nodes weigh more for the address than this one.
fn rank(nodes: &BTreeSet<Arc<str>>, node: &Arc<str>, address: OwnedPrefix) -> usize {
    let own = (weight(node, address.0), node);
    nodes
        .iter()
        .filter(|other| (weight(other, address.0), *other) > own)
        .count()
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
