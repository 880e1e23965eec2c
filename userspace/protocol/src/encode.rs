use std::{collections::BTreeMap, sync::Arc};

use pierhead_model::{Backend, Bind, Certificate, Endpoints, Fleet, HttpRoute, Ownership, Snapshot, TrustAnchors};

use crate::{Resource, ResourceName, section::Section};

/// What differs between two sets of resources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// New, or with another version.
    pub changed: Vec<Resource>,
    pub removed: Vec<ResourceName>,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }
}

/// Takes snapshots apart. Remembers the last one with its resources, so that what is still the same `Arc` costs a
/// comparison of pointers.
#[derive(Debug, Default)]
pub struct Encoder {
    last: Arc<Snapshot>,
    resources: BTreeMap<ResourceName, Resource>,
}

impl Encoder {
    /// Encodes what changed since the last snapshot, and says so. A value that is new and has the same content counts as
    /// unchanged.
    pub fn encode(&mut self, snapshot: &Arc<Snapshot>) -> Changes {
        let last = std::mem::replace(&mut self.last, Arc::clone(snapshot));
        let mut changes = Changes::default();
        let Snapshot {
            binds: _,
            routes: _,
            backends: _,
            endpoints: _,
            certificates: _,
            trust: _,
            owned: _,
            fleet: _,
        } = &**snapshot;
        self.section::<Arc<Bind>>(&last, snapshot, &mut changes);
        self.section::<Arc<HttpRoute>>(&last, snapshot, &mut changes);
        self.section::<Arc<Backend>>(&last, snapshot, &mut changes);
        self.section::<Arc<Endpoints>>(&last, snapshot, &mut changes);
        self.section::<Arc<Certificate>>(&last, snapshot, &mut changes);
        self.section::<Arc<TrustAnchors>>(&last, snapshot, &mut changes);
        self.section::<Ownership>(&last, snapshot, &mut changes);
        self.section::<Arc<Fleet>>(&last, snapshot, &mut changes);
        changes
    }

    /// The resources of the last snapshot.
    pub fn resources(&self) -> &BTreeMap<ResourceName, Resource> {
        &self.resources
    }

    fn section<S: Section>(&mut self, last: &Snapshot, now: &Snapshot, changes: &mut Changes) {
        for (key, new, old) in S::map(now).changes(S::map(last)) {
            match (new, old) {
                (Some(new), Some(old)) if new.is_same(old) => {}
                (Some(new), _) => self.put(Resource::new(S::id(key).name(), new.encode(key)), changes),
                (None, _) => self.remove(S::id(key).name(), changes),
            }
        }
    }

    fn put(&mut self, resource: Resource, changes: &mut Changes) {
        match self.resources.get(&resource.name) {
            Some(old) if old.version == resource.version => {}
            _ => {
                self.resources.insert(resource.name.clone(), resource.clone());
                changes.changed.push(resource);
            }
        }
    }

    fn remove(&mut self, name: ResourceName, changes: &mut Changes) {
        self.resources.remove(&name);
        changes.removed.push(name);
    }
}
