//! Which id each bind had, found again by a restarted process without the capability to look into the tables.
//!
//! The head of a bind's table says its id, but the kernel opens a table by its number only for CAP_SYS_ADMIN, which a node's
//! container does not have. Endpoints tell it too: each knows the id of its bind, and by which binds it is answered.

use std::collections::{BTreeMap, BTreeSet};

use pierhead_abi::l4::{Backend, Place, Replies};
use pierhead_abi::{Addr, Port};

/// The id of each bind in `vips`. Where two binds have the same endpoints their ids may be exchanged, which only exchanges
/// their counters; one without endpoints gets an id that nobody has.
pub(crate) fn ids(
    vips: &BTreeSet<Place>,
    replies: &BTreeMap<Place, Replies>,
    backends: impl IntoIterator<Item = Backend>,
) -> BTreeMap<Place, u32> {
    // By id: the binds that all endpoints of it are answered by.
    let mut candidates: BTreeMap<u32, BTreeSet<Place>> = BTreeMap::new();
    let mut fresh = 0;
    for backend in backends {
        fresh = fresh.max(backend.vip.saturating_add(1));
        // What is on another node is answered there.
        if backend.alive != 1 || !backend.hop.is_here() {
            continue;
        }
        let endpoint = Place::new(backend.protocol, Addr(backend.addr), Port(backend.port));
        let by = answered_by(backend.protocol, replies.get(&endpoint));
        let these: BTreeSet<Place> = by.filter(|place| vips.contains(place)).collect();
        candidates
            .entry(backend.vip)
            .and_modify(|known| known.retain(|place| these.contains(place)))
            .or_insert(these);
    }
    let mut order: Vec<(u32, BTreeSet<Place>)> = candidates.into_iter().collect();
    // Those without a choice first.
    order.sort_by_key(|(id, places)| (places.len(), *id));
    let mut found = BTreeMap::new();
    for (id, places) in order {
        if let Some(place) = places.into_iter().find(|place| !found.contains_key(place)) {
            found.insert(place, id);
        }
    }
    for place in vips {
        found.entry(*place).or_insert_with(|| {
            fresh += 1;
            fresh - 1
        });
    }
    found
}

fn answered_by(protocol: u8, replies: Option<&Replies>) -> impl Iterator<Item = Place> {
    let known = replies
        .into_iter()
        .flat_map(|replies| replies.vips.iter().take(replies.count as usize));
    known.map(move |vip| Place::new(protocol, Addr(vip.addr), Port(vip.port)))
}

#[cfg(test)]
mod tests {
    use pierhead_abi::l4::{Hop, VipRef};

    use super::*;

    const UDP: u8 = 17;

    fn place(last: u8, port: u16) -> Place {
        Place::new(UDP, Addr::v4([192, 0, 2, last]), Port::new(port))
    }

    fn backend(endpoint: &Place, vip: u32, alive: u8) -> Backend {
        Backend {
            addr: endpoint.addr,
            port: endpoint.port,
            protocol: UDP,
            alive,
            generation: 1,
            vip,
            hop: Hop::HERE,
        }
    }

    fn replies(vips: &[Place]) -> Replies {
        let mut replies = Replies::default();
        for vip in vips {
            replies.vips[replies.count as usize] = VipRef {
                addr: vip.addr,
                port: vip.port,
                reserved: 0,
            };
            replies.count += 1;
        }
        replies
    }

    #[test]
    fn a_bind_is_known_by_its_endpoints_and_one_without_gets_an_id_of_its_own() {
        let (one, two, empty) = (place(1, 53), place(1, 54), place(2, 53));
        let (a, b) = (place(100, 5300), place(101, 5300));
        let answered = BTreeMap::from([(a, replies(&[one, two])), (b, replies(&[one]))]);
        // `two` has an endpoint that `one` has too, and the lower id.
        let backends = [
            backend(&a, 3, 1),
            backend(&a, 7, 1),
            backend(&b, 7, 1),
            backend(&b, 9, 0),
        ];
        let found = ids(&BTreeSet::from([one, two, empty]), &answered, backends);
        assert_eq!(found, BTreeMap::from([(one, 7), (two, 3), (empty, 10)]));
    }

    #[test]
    fn endpoints_of_other_nodes_take_nothing_from_what_those_here_say() {
        let one = place(1, 53);
        let (here, there) = (place(100, 5300), place(101, 5300));
        let answered = BTreeMap::from([(here, replies(&[one]))]);
        let remote = Backend {
            hop: Hop { link: 2, addr: [1; 4] },
            ..backend(&there, 4, 1)
        };
        let found = ids(&BTreeSet::from([one]), &answered, [remote, backend(&here, 4, 1)]);
        assert_eq!(found, BTreeMap::from([(one, 4)]));
    }

    #[test]
    fn no_two_binds_get_one_id() {
        let (one, two) = (place(1, 53), place(1, 54));
        let a = place(100, 5300);
        let answered = BTreeMap::from([(a, replies(&[one, two]))]);
        let found = ids(
            &BTreeSet::from([one, two]),
            &answered,
            [backend(&a, 0, 1), backend(&a, 1, 1)],
        );
        assert_eq!(found.values().copied().collect::<BTreeSet<_>>(), BTreeSet::from([0, 1]));
    }
}
