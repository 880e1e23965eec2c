use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn state(nodes: &watch::Receiver<Arc<Nodes>>, name: &str) -> Arc<NodeState> {
    Arc::clone(nodes.borrow().by_name.get(name).unwrap())
}

#[test]
fn a_node_is_connected_for_as_long_as_its_stream_lives() {
    let registry = Registry::default();
    let nodes = registry.nodes();
    let stream = registry.join("node-1", at(10));
    assert!(state(&nodes, "node-1").connected);
    assert_eq!(state(&nodes, "node-1").since, at(10));
    stream.update(at(11), |state| state.acked = 7);
    assert_eq!(state(&nodes, "node-1").acked, 7);
    drop(stream);
    let gone = state(&nodes, "node-1");
    assert!(!gone.connected && gone.since > at(10));
    assert_eq!(gone.acked, 7, "what it said last is still known");
}

#[test]
fn the_newer_stream_speaks_for_the_node_and_the_older_one_after_it() {
    let registry = Registry::default();
    let nodes = registry.nodes();
    let old = registry.join("node-1", at(10));
    old.update(at(10), |state| state.acked = 5);
    let new = registry.join("node-1", at(20));
    assert_eq!(state(&nodes, "node-1").acked, 0);
    old.update(at(21), |state| state.acked = 6);
    assert_eq!(state(&nodes, "node-1").acked, 0, "the old program is no longer asked");
    drop(new);
    assert_eq!(
        state(&nodes, "node-1").acked,
        6,
        "the new one failed: the old one is still there"
    );
    assert!(state(&nodes, "node-1").connected);
    let new = registry.join("node-1", at(30));
    drop(old);
    assert!(state(&nodes, "node-1").connected);
    drop(new);
    assert!(!state(&nodes, "node-1").connected);
}

#[test]
fn only_what_differs_wakes_receivers() {
    let registry = Registry::default();
    let mut nodes = registry.nodes();
    let stream = registry.join("node-1", at(10));
    nodes.mark_unchanged();
    stream.update(at(11), |state| state.acked = 0);
    assert!(!nodes.has_changed().unwrap());
    stream.update(at(12), |state| state.acked = 1);
    assert!(nodes.has_changed().unwrap());
}

#[test]
fn who_is_gone_for_long_is_forgotten() {
    let registry = Registry::default();
    let nodes = registry.nodes();
    drop(registry.join("node-1", at(10)));
    let later = Timestamp::now() + Duration::from_hours(1);
    let _other = registry.join("node-2", later);
    let names: Vec<_> = nodes.borrow().by_name.keys().map(ToString::to_string).collect();
    assert_eq!(names, ["node-2"]);
}

#[test]
fn all_have_answered_when_every_connected_one_has() {
    let registry = Registry::default();
    let nodes = registry.nodes();
    assert!(nodes.borrow().have_answered(1), "there is nobody to wait for");
    let one = registry.join("node-1", at(10));
    let two = registry.join("node-2", at(10));
    one.update(at(11), |state| state.acked = 3);
    assert!(!nodes.borrow().have_answered(3));
    two.update(at(11), |state| state.acked = 4);
    assert!(nodes.borrow().have_answered(3) && !nodes.borrow().have_answered(4));
    drop(one);
    assert!(nodes.borrow().have_answered(4), "who is gone is not waited for");
}
