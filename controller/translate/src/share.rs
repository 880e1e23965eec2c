//! What did not change stays the same allocation: a reader then sees by pointer what it can keep.

use std::sync::Arc;

use pierhead_model::{Bind, Map, Snapshot};

/// The value of this name in `previous`, if it is equal.
pub(crate) fn shared<K: Ord, V: PartialEq>(key: &K, value: V, previous: Option<&Map<K, Arc<V>>>) -> Arc<V> {
    match previous.and_then(|values| values.get(key)) {
        Some(old) if **old == value => Arc::clone(old),
        _ => value.into(),
    }
}

/// Replaces every value that equals the one of that name in `previous` by that one; routes, backends and endpoints were
/// made so.
pub(crate) fn share(snapshot: &mut Snapshot, previous: &Snapshot) {
    share_values(&mut snapshot.binds, &previous.binds, |bind, old| {
        let mut shared = Bind::clone(bind);
        share_listeners(&mut shared, old);
        shared.into()
    });
    share_values(&mut snapshot.certificates, &previous.certificates, |value, _| {
        Arc::clone(value)
    });
    share_values(&mut snapshot.trust, &previous.trust, |value, _| Arc::clone(value));
    share_values(&mut snapshot.fleet, &previous.fleet, |value, _| Arc::clone(value));
}

/// `part` shares what it can of a value that is not equal.
fn share_values<K: Ord + Clone, V: PartialEq>(
    values: &mut Map<K, Arc<V>>,
    previous: &Map<K, Arc<V>>,
    part: impl Fn(&Arc<V>, &Arc<V>) -> Arc<V>,
) {
    if values == previous {
        values.clone_from(previous);
        return;
    }
    let shared = values.iter().map(|(key, value)| {
        let value = match previous.get(key) {
            Some(old) if value == old => Arc::clone(old),
            Some(old) => part(value, old),
            None => Arc::clone(value),
        };
        (key.clone(), value)
    });
    *values = shared.collect();
}

fn share_listeners(bind: &mut Bind, previous: &Bind) {
    for listener in &mut bind.listeners {
        if let Some(old) = previous.listeners.iter().find(|old| *old == listener) {
            *listener = Arc::clone(old);
        }
    }
}
