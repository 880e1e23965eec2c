//! What did not change stays the same allocation: a reader then sees by pointer what it can keep.

use std::{collections::BTreeMap, sync::Arc};

use pierhead_model::{Bind, Snapshot};

/// Replaces every value that equals the one of that name in `previous` by that one.
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
    share_values(&mut snapshot.routes, &previous.routes);
    share_values(&mut snapshot.backends, &previous.backends);
    share_values(&mut snapshot.endpoints, &previous.endpoints);
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
