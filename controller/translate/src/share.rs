//! What did not change stays the same allocation: a reader then sees by pointer what it can keep.

use std::{collections::BTreeMap, sync::Arc};

use pierhead_model::{Bind, Snapshot};

/// The value of this name in `previous`, if it is equal.
pub(crate) fn shared<K: Ord, V: PartialEq>(key: &K, value: V, previous: Option<&BTreeMap<K, Arc<V>>>) -> Arc<V> {
    match previous.and_then(|values| values.get(key)) {
        Some(old) if **old == value => Arc::clone(old),
        _ => value.into(),
    }
}

/// Replaces every value that equals the one of that name in `previous` by that one; routes, backends and endpoints were
/// made so.
pub(crate) fn share(snapshot: &mut Snapshot, previous: &Snapshot) {
    for (key, bind) in &mut snapshot.binds {
        if let Some(old) = previous.binds.get(key) {
            if bind == old {
                *bind = Arc::clone(old);
            } else {
                share_listeners(Arc::make_mut(bind), old);
            }
        }
    }
    share_values(&mut snapshot.certificates, &previous.certificates);
    share_values(&mut snapshot.trust, &previous.trust);
}

fn share_values<K: Ord, V: PartialEq>(values: &mut BTreeMap<K, Arc<V>>, previous: &BTreeMap<K, Arc<V>>) {
    for (key, value) in values {
        if let Some(old) = previous.get(key)
            && value == old
        {
            *value = Arc::clone(old);
        }
    }
}

fn share_listeners(bind: &mut Bind, previous: &Bind) {
    for listener in &mut bind.listeners {
        if let Some(old) = previous.listeners.iter().find(|old| *old == listener) {
            *listener = Arc::clone(old);
        }
    }
}
