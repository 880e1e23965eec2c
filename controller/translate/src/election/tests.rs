use proptest::prelude::*;

use super::*;

fn nodes(names: impl IntoIterator<Item = usize>) -> BTreeSet<Arc<str>> {
    names.into_iter().map(|n| format!("node-{n}").into()).collect()
}

/// Of both families in turn, as Gateways have them.
fn addresses(count: usize) -> BTreeSet<OwnedPrefix> {
    let text = |n: usize| match n % 2 {
        0 => format!("10.200.{}.{}/32", n >> 8, n & 255),
        _ => format!("fd00:200::{n:x}/128"),
    };
    (0..count).map(|n| OwnedPrefix(text(n).parse().unwrap())).collect()
}

type Elected = BTreeMap<OwnedPrefix, Arc<str>>;

fn held(elected: &Elected) -> BTreeMap<OwnedPrefix, Held> {
    let by = |node: &Arc<str>| Held {
        by: [Arc::clone(node)].into(),
        round: 0,
    };
    elected.iter().map(|(address, node)| (*address, by(node))).collect()
}

fn loads(nodes: &BTreeSet<Arc<str>>, elected: &Elected) -> BTreeMap<Arc<str>, usize> {
    let load = |node: &Arc<str>| elected.values().filter(|holder| *holder == node).count();
    nodes.iter().map(|node| (Arc::clone(node), load(node))).collect()
}

/// Whose holder was there before and after, and is another.
fn moved(nodes: &BTreeSet<Arc<str>>, before: &Elected, after: &Elected) -> usize {
    let is_moved = |(address, node): &(&OwnedPrefix, &Arc<str>)| {
        nodes.contains(*node) && after.get(*address).is_some_and(|now| now != *node)
    };
    before.iter().filter(is_moved).count()
}

#[test]
fn nobody_is_elected_of_none() {
    assert!(elect(&nodes([]), &addresses(9), &BTreeMap::new()).is_empty());
}

#[test]
fn every_node_gets_its_share() {
    let nodes = nodes(0..4);
    let elected = elect(&nodes, &addresses(256), &BTreeMap::new());
    for (node, load) in loads(&nodes, &elected) {
        assert!((40..=65).contains(&load), "{node}: {load} of 256");
    }
}

#[test]
fn of_two_that_claim_an_address_one_keeps_it() {
    let nodes = nodes(0..5);
    let claim = Held {
        by: ["node-1".into(), "node-3".into(), "gone".into()].into(),
        round: 0,
    };
    let keepers: BTreeSet<_> = addresses(20)
        .into_iter()
        .flat_map(|address| elect(&nodes, &[address].into(), &[(address, claim.clone())].into()).into_values())
        .collect();
    assert_eq!(keepers, ["node-1".into(), "node-3".into()].into());
}

/// What the fault tests do: two nodes, one is cut off and comes back.
#[test]
fn of_two_nodes_the_one_that_comes_back_gets_nothing_back() {
    for count in 0..40 {
        let (both, one, addresses) = (nodes(0..2), nodes(0..1), addresses(count));
        let first = elect(&both, &addresses, &BTreeMap::new());
        let alone = elect(&one, &addresses, &held(&first));
        assert_eq!(elect(&both, &addresses, &held(&alone)), alone);
    }
}

#[test]
fn what_is_new_goes_to_those_that_have_room() {
    let (both, one) = (nodes(0..2), nodes(0..1));
    let alone = elect(&one, &addresses(10), &BTreeMap::new());
    let more = elect(&both, &addresses(20), &held(&alone));
    assert_eq!(moved(&both, &alone, &more), 0);
    assert!(
        loads(&both, &more).values().all(|load| (9..=11).contains(load)),
        "{more:?}"
    );
}

proptest! {
    /// Through any comings and goings of nodes and addresses.
    #[test]
    fn an_address_stays_unless_its_node_goes_or_holds_too_much(
        steps in prop::collection::vec((prop::collection::btree_set(0_usize..12, 1..12), 0_usize..60), 1..12)
    ) {
        let mut before = Elected::new();
        for (names, count) in steps {
            let (nodes, addresses) = (nodes(names), addresses(count));
            let after = elect(&nodes, &addresses, &held(&before));
            prop_assert!(after.keys().eq(&addresses), "each address has exactly one node");
            prop_assert!(after.values().all(|node| nodes.contains(node)));
            let share = count.div_ceil(nodes.len());
            let before_here: Elected = before
                .iter()
                .filter(|(address, _)| addresses.contains(address))
                .map(|(address, node)| (*address, Arc::clone(node)))
                .collect();
            let too_much: usize = loads(&nodes, &before_here)
                .values()
                .map(|load| load.saturating_sub(most_kept(share)))
                .sum();
            prop_assert_eq!(moved(&nodes, &before_here, &after), too_much, "as few as must");
            prop_assert!(loads(&nodes, &after).values().all(|load| *load <= most_kept(share)));
            prop_assert_eq!(&elect(&nodes, &addresses, &held(&after)), &after, "and then it rests");
            before = after;
        }
    }

    #[test]
    fn a_node_that_goes_moves_only_its_own_and_one_that_comes_back_moves_nothing(
        count in 0_usize..200, size in 2_usize..20, gone in 0_usize..20
    ) {
        let (all, addresses) = (nodes(0..size), addresses(count));
        let rest = nodes((0..size).filter(|n| *n != gone % size));
        let first = elect(&all, &addresses, &BTreeMap::new());
        let without = elect(&rest, &addresses, &held(&first));
        prop_assert_eq!(moved(&rest, &first, &without), 0);
        prop_assert_eq!(elect(&all, &addresses, &held(&without)), without);
    }
}
