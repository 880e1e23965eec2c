use std::sync::Arc;

use pierhead_model::{Endpoints, EndpointsId, OnMiss, OwnedPrefix, Ownership, Snapshot};

use super::*;

/// A snapshot with these sets of endpoints.
fn snapshot(names: &[&str]) -> Arc<Snapshot> {
    let endpoints = names.iter().map(|name| {
        let id = EndpointsId::new(name);
        let endpoints = Vec::new();
        (id.clone(), Arc::new(Endpoints { id, endpoints }))
    });
    Snapshot {
        endpoints: endpoints.collect(),
        ..Snapshot::default()
    }
    .into()
}

fn publish(catalog: &mut Catalog, version: u64, names: &[&str]) {
    catalog.publish(&Numbered {
        version,
        snapshot: snapshot(names),
    });
}

fn names(changes: &Changes) -> (Vec<&str>, Vec<&str>) {
    (
        changes.changed.iter().map(|resource| resource.name.as_str()).collect(),
        changes.removed.iter().map(ResourceName::as_str).collect(),
    )
}

#[test]
fn what_changed_since_any_snapshot_is_known() {
    let mut catalog = Catalog::default();
    publish(&mut catalog, 1, &["a", "b"]);
    publish(&mut catalog, 2, &["a", "b", "c"]);
    publish(&mut catalog, 5, &["b", "d"]);
    assert_eq!(catalog.version(), 5);
    let since = |version| catalog.since(version).unwrap();
    assert_eq!(names(&since(5)), (vec![], vec![]));
    assert_eq!(
        names(&since(2)),
        (vec!["endpoints/d"], vec!["endpoints/a", "endpoints/c"])
    );
    assert_eq!(
        names(&since(1)),
        (vec!["endpoints/d"], vec!["endpoints/a", "endpoints/c"]),
        "what came and went in between is forgotten harmlessly: removing what is not there is nothing"
    );
    assert_eq!(names(&since(0)).0, ["endpoints/b", "endpoints/d"]);
}

#[test]
fn an_older_snapshot_is_ignored_and_an_equal_one_changes_only_the_number() {
    let mut catalog = Catalog::default();
    publish(&mut catalog, 2, &["a"]);
    publish(&mut catalog, 1, &["b"]);
    publish(&mut catalog, 2, &["b"]);
    assert_eq!(names(&catalog.since(0).unwrap()).0, ["endpoints/a"]);
    publish(&mut catalog, 3, &["a"]);
    assert_eq!(catalog.version(), 3);
    assert!(catalog.since(2).unwrap().is_empty());
}

#[test]
fn what_somebody_lacks_is_told_by_what_he_holds() {
    let mut catalog = Catalog::default();
    let ownership = Ownership {
        on_miss: OnMiss::Drop,
        announcer: None,
        round: 0,
    };
    catalog.publish(&Numbered {
        version: 1,
        snapshot: Snapshot {
            owned: [(OwnedPrefix("10.0.0.1/32".parse().unwrap()), ownership)].into(),
            ..(*snapshot(&["a", "b"])).clone()
        }
        .into(),
    });
    let all = catalog.against(&BTreeMap::new());
    assert_eq!(
        names(&all),
        (vec!["endpoints/a", "endpoints/b", "owned/10.0.0.1/32"], vec![])
    );
    let mut held: BTreeMap<_, _> = all.changed.iter().map(|r| (r.name.clone(), r.version)).collect();
    assert!(catalog.against(&held).is_empty());
    held.remove("endpoints/b");
    held.insert(ResourceName::new("endpoints/z"), Version::of(b"z"));
    held.insert(ResourceName::new("owned/10.0.0.1/32"), Version::of(b"other"));
    assert_eq!(
        names(&catalog.against(&held)),
        (vec!["endpoints/b", "owned/10.0.0.1/32"], vec!["endpoints/z"])
    );
}

#[test]
fn who_is_too_far_behind_is_told() {
    let mut catalog = Catalog::default();
    let many: Vec<String> = (0..REMEMBERED_MAX / 4).map(|n| n.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for version in 1..=3 {
        publish(&mut catalog, version * 2 - 1, &many);
        publish(&mut catalog, version * 2, &[]);
    }
    // Six snapshots of a quarter each, of which four are remembered.
    assert_eq!(catalog.remembered, REMEMBERED_MAX / 4 * 4);
    assert_eq!(catalog.since(1), Err(TooFarBehind));
    assert_eq!(catalog.since(2).unwrap().removed.len(), many.len());
}
