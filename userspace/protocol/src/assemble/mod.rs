//! From resources back to a snapshot.

mod reference;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use pierhead_model::{Backend, Bind, Certificate, Endpoints, Fleet, HttpRoute, Ownership, Snapshot, TrustAnchors};

use crate::{Malformed, Resource, ResourceId, ResourceKind, ResourceName, Version, encode::Encoder, section::Section};

/// What a node was sent, and what it makes of it.
///
/// A resource that cannot be used is held back: its last good value stays, with all that this value names, or it is absent
/// when there was none; the rest goes on. So a [`candidate`](Self::candidate) always is a snapshot in which every id that
/// is named exists. An attachment may name a listener that does not: nobody can come in there.
#[derive(Debug, Default)]
pub struct Assembly {
    /// What the controller wants, as far as it could be decoded.
    wanted: Arc<Snapshot>,
    /// Everything the controller sent and did not take back.
    held: BTreeMap<ResourceName, Held>,
    /// What cannot be used until it changes, and why.
    refused: BTreeMap<ResourceName, String>,
    /// The last candidate that was accepted.
    good: Arc<Snapshot>,
    /// What came and went since then; only kept while `good` was all that was wanted.
    since: Option<Since>,
}

#[derive(Debug)]
struct Held {
    version: Version,
    /// `None`: it never could be decoded.
    id: Option<ResourceId>,
}

#[derive(Debug, Default)]
struct Since {
    came: Vec<ResourceId>,
    went: Vec<ResourceId>,
}

/// A snapshot to apply.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub snapshot: Arc<Snapshot>,
    /// What is not in it as the controller wants it, and why.
    pub held_back: BTreeMap<ResourceName, String>,
}

impl Assembly {
    /// One that was sent exactly this snapshot, and accepted it.
    pub fn of(snapshot: &Arc<Snapshot>) -> Self {
        let mut encoder = Encoder::default();
        let resources = encoder.encode(snapshot).changed;
        let mut assembly = Self::default();
        resources.into_iter().for_each(|resource| assembly.put(resource));
        let candidate = assembly.candidate();
        assembly.accept(&candidate);
        assembly
    }

    /// What is held, by name.
    pub fn versions(&self) -> impl Iterator<Item = (&ResourceName, Version)> {
        self.held.iter().map(|(name, held)| (name, held.version))
    }

    /// The version in which a resource is held.
    pub fn version(&self, name: &ResourceName) -> Option<Version> {
        self.held.get(name).map(|held| held.version)
    }

    /// The last accepted snapshot.
    pub fn good(&self) -> &Arc<Snapshot> {
        &self.good
    }

    /// Takes a resource in. One that is held in this version already costs nothing.
    pub fn put(&mut self, resource: Resource) {
        let Resource { name, version, body } = resource;
        if self.version(&name) == Some(version) {
            return;
        }
        self.refused.remove(&name);
        let mut id = self.held.get(&name).and_then(|held| held.id.clone());
        match self.decode(&name, body) {
            Ok(decoded) => id = Some(decoded),
            Err(malformed) => {
                self.refused.insert(name.clone(), malformed.to_string());
            }
        }
        if let (Some(since), Some(id)) = (&mut self.since, &id) {
            since.came.push(id.clone());
        }
        self.held.insert(name, Held { version, id });
    }

    /// Forgets a resource. A name that is not held is none of our business.
    pub fn remove(&mut self, name: &ResourceName) {
        self.refused.remove(name);
        let Some(id) = self.held.remove(name).and_then(|held| held.id) else {
            return;
        };
        let wanted = Arc::make_mut(&mut self.wanted);
        match &id {
            ResourceId::Bind(key) => drop(wanted.binds.remove(key)),
            ResourceId::Route(id) => drop(wanted.routes.remove(id)),
            ResourceId::Backend(id) => drop(wanted.backends.remove(id)),
            ResourceId::Endpoints(id) => drop(wanted.endpoints.remove(id)),
            ResourceId::Certificate(id) => drop(wanted.certificates.remove(id)),
            ResourceId::Trust(id) => drop(wanted.trust.remove(id)),
            ResourceId::Owned(prefix) => drop(wanted.owned.remove(prefix)),
            ResourceId::Fleet(id) => drop(wanted.fleet.remove(id)),
        }
        if let Some(since) = &mut self.since {
            since.went.push(id);
        }
    }

    /// Holds resources back from the next candidate, and until they change: they could be decoded, but not used.
    pub fn refuse(&mut self, reasons: impl IntoIterator<Item = (ResourceName, String)>) {
        let held = &self.held;
        self.refused
            .extend(reasons.into_iter().filter(|(name, _)| held.contains_key(name)));
    }

    /// The best snapshot that can be made of what is held.
    pub fn candidate(&self) -> Candidate {
        let is_whole = self.is_sound() || self.refused.is_empty() && reference::dangling(&self.wanted).is_empty();
        if is_whole {
            return Candidate {
                snapshot: Arc::clone(&self.wanted),
                held_back: BTreeMap::new(),
            };
        }
        self.settle()
    }

    /// The candidate is what the node now runs.
    pub fn accept(&mut self, candidate: &Candidate) {
        self.good = Arc::clone(&candidate.snapshot);
        self.since = candidate.held_back.is_empty().then(Since::default);
    }

    fn decode(&mut self, name: &ResourceName, body: bytes::Bytes) -> Result<ResourceId, Malformed> {
        match name.kind() {
            Some(ResourceKind::Bind) => self.decode_in::<Arc<Bind>>(name, body, share_listeners),
            Some(ResourceKind::Route) => self.decode_in::<Arc<HttpRoute>>(name, body, keep),
            Some(ResourceKind::Backend) => self.decode_in::<Arc<Backend>>(name, body, keep),
            Some(ResourceKind::Endpoints) => self.decode_in::<Arc<Endpoints>>(name, body, keep),
            Some(ResourceKind::Certificate) => self.decode_in::<Arc<Certificate>>(name, body, keep),
            Some(ResourceKind::Trust) => self.decode_in::<Arc<TrustAnchors>>(name, body, keep),
            Some(ResourceKind::Owned) => self.decode_in::<Ownership>(name, body, keep),
            Some(ResourceKind::Fleet) => self.decode_in::<Arc<Fleet>>(name, body, keep),
            None => Err(Malformed::new("this version knows no such kind of resource")),
        }
    }

    fn decode_in<S: Section>(
        &mut self,
        name: &ResourceName,
        body: bytes::Bytes,
        share: impl Fn(&mut S, &S),
    ) -> Result<ResourceId, Malformed> {
        let (key, mut value) = S::decode(body)?;
        let id = S::id(&key);
        if id.name() != *name {
            return Err(Malformed::new(format!("its content is that of {id}")));
        }
        let map = S::map_mut(Arc::make_mut(&mut self.wanted));
        if let Some(old) = map.get(&key) {
            share(&mut value, old);
        }
        map.insert(key, value);
        Ok(id)
    }

    /// Whether all that is wanted can be used, known without looking at everything: what was sound stays so unless
    /// something new names what is missing, or something old names what went.
    fn is_sound(&self) -> bool {
        let Some(since) = &self.since else { return false };
        self.refused.is_empty()
            && since
                .came
                .iter()
                .all(|id| reference::missing_from(id, &self.wanted).is_none())
            && !reference::is_any_named(&since.went, &self.wanted)
    }

    fn settle(&self) -> Candidate {
        let mut snapshot = (*self.wanted).clone();
        let mut held_back = self.refused.clone();
        for id in self.refused.keys().filter_map(|name| self.held.get(name)?.id.as_ref()) {
            reference::fall_back(id, &mut snapshot, &self.good);
        }
        // Each round every value that names something missing falls back, or, being the good one, has what it names brought
        // back. Neither happens twice to one value, so that this ends.
        loop {
            let mut moved = false;
            for (id, missing) in reference::dangling(&snapshot) {
                let why = || format!("it names {missing}, which is missing or cannot be used");
                held_back.entry(id.name()).or_insert_with(why);
                moved |= reference::fall_back(&id, &mut snapshot, &self.good)
                    || reference::fall_back(&missing, &mut snapshot, &self.good);
            }
            if !moved {
                break;
            }
        }
        // What came back only because something old names it is not held back.
        held_back.retain(|name, _| self.held.contains_key(name));
        Candidate {
            snapshot: snapshot.into(),
            held_back,
        }
    }
}

/// A changed bind keeps the listeners that did not change, by pointer: a reader sees what it can keep.
fn share_listeners(bind: &mut Arc<Bind>, old: &Arc<Bind>) {
    for listener in &mut Arc::make_mut(bind).listeners {
        if let Some(same) = old.listeners.iter().find(|old| *old == listener) {
            *listener = Arc::clone(same);
        }
    }
}

fn keep<S>(_value: &mut S, _old: &S) {}
