//! Where both APIs put what they make: everything once, by its name.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use pierhead_model::{HttpRoute, Origin, OwnedPrefix, Problem, Severity, Snapshot};

use crate::{
    Settings, Statuses, Translation, World,
    address::{self, Allocations, Assigned, Demand},
    bind::{self, Claim, Refused},
    border::SliceIndex,
    world::ObjectName,
};

/// A translation in the making. What is added twice under one name is kept once.
pub struct Builder<'w> {
    pub world: &'w World,
    pub settings: &'w Settings,
    pub statuses: Statuses,
    pub(crate) snapshot: Snapshot,
    pub(crate) slices: SliceIndex<'w>,
    /// What was made last time: saves work, changes nothing.
    pub(crate) previous: Option<&'w Snapshot>,
    problems: BTreeSet<Problem>,
    claims: Vec<Claim>,
    allocations: Allocations,
}

impl<'w> Builder<'w> {
    pub(crate) fn new(world: &'w World, settings: &'w Settings, previous: Option<&'w Snapshot>) -> Self {
        Self {
            world,
            settings,
            statuses: Statuses::default(),
            snapshot: Snapshot::default(),
            slices: SliceIndex::new(world),
            previous,
            problems: BTreeSet::new(),
            claims: Vec::new(),
            allocations: Allocations::new(),
        }
    }

    pub fn problem(&mut self, problem: Problem) {
        self.problems.insert(problem);
    }

    /// Something its author asked for does not work.
    pub fn error(&mut self, origin: &Origin, field: impl Into<String>, message: impl Into<String>, fix: &str) {
        self.say(Severity::Error, origin, field.into(), message.into(), fix);
    }

    /// Something works differently from what its author may expect.
    pub fn warning(&mut self, origin: &Origin, field: impl Into<String>, message: impl Into<String>, fix: &str) {
        self.say(Severity::Warning, origin, field.into(), message.into(), fix);
    }

    fn say(&mut self, severity: Severity, origin: &Origin, field: String, message: String, fix: &str) {
        self.problem(Problem {
            origin: origin.clone(),
            field,
            severity,
            message,
            fix: fix.to_owned(),
        });
    }

    pub fn add_route(&mut self, route: HttpRoute) {
        self.snapshot.routes.insert(route.id.clone(), Arc::new(route));
    }

    /// Asks for a bind. Whether it is granted is known after [`Builder::settle_binds`].
    pub fn claim(&mut self, claim: Claim) {
        self.claims.push(claim);
    }

    /// Gives every Gateway its addresses; call once, with all of them.
    pub fn assign_addresses(&mut self, demands: &[Demand]) -> BTreeMap<ObjectName, Assigned> {
        let (assigned, allocations) = address::assign(self.settings, demands);
        self.allocations = allocations;
        for prefix in assigned.values().flat_map(|a| &a.owned) {
            self.snapshot.owned.insert(OwnedPrefix(*prefix), self.settings.on_miss);
        }
        assigned
    }

    /// Decides who has which bind, puts the binds into the snapshot, and takes refused listeners out of the routes.
    pub(crate) fn settle_binds(&mut self) -> Refused {
        let settled = bind::settle(std::mem::take(&mut self.claims), &self.settings.machine_addresses);
        self.snapshot.binds = settled.binds;
        for problem in settled.problems {
            self.problem(problem);
        }
        // A listener that was refused everywhere no longer exists, so nothing may name it.
        let listening: BTreeSet<_> = self
            .snapshot
            .binds
            .values()
            .flat_map(|bind| bind.listeners.iter().map(|listener| &listener.id))
            .collect();
        self.snapshot.routes.retain(|_, route| {
            if !route.attachments.iter().all(|a| listening.contains(&a.listener)) {
                Arc::make_mut(route)
                    .attachments
                    .retain(|a| listening.contains(&a.listener));
            }
            !route.attachments.is_empty()
        });
        settled.refused
    }

    pub(crate) fn finish(self) -> Translation {
        Translation {
            snapshot: self.snapshot,
            statuses: self.statuses,
            problems: self.problems.into_iter().collect(),
            allocations: self.allocations,
        }
    }
}
