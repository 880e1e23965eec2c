//! From the members of a bind to the slots of its table. Pure.
//!
//! All nodes that share an address must choose the same endpoint for a flow, so the order of slots depends on seed, addresses
//! and weights alone: on no id, which is this node's own, nor on the order in which endpoints came.

use pierhead_abi::l4::{Place, Slot};
use pierhead_abi::maglev::{self, Cursor, Node};
use pierhead_abi::{Addr, Port, hash};

use crate::plan::Table;

/// The slots of a bind's table. Empty when no member has a weight.
pub fn slots(table: &Table) -> Vec<Slot> {
    let identity = |place: &Place| {
        hash::flow(
            0,
            place.protocol,
            &Addr(place.addr),
            Port(place.port),
            &Addr::default(),
            Port::ANY,
        )
    };
    let mut members: Vec<(Node, Slot)> = table
        .members
        .iter()
        .filter(|(_, _, weight)| *weight > 0)
        .map(|(place, slot, weight)| {
            (
                Node {
                    identity: identity(place),
                    weight: *weight,
                },
                *slot,
            )
        })
        .collect();
    members.sort_by_key(|(node, _)| node.identity);
    if members.is_empty() {
        return Vec::new();
    }
    let nodes: Vec<Node> = members.iter().map(|(node, _)| *node).collect();
    let mut indexes = vec![0; maglev::table_size(nodes.len()) as usize];
    maglev::build(
        &mut indexes,
        &nodes,
        &mut vec![Cursor::default(); nodes.len()],
        table.seed,
    );
    indexes
        .iter()
        .filter_map(|index| members.get(*index as usize))
        .map(|(_, slot)| *slot)
        .collect()
}
