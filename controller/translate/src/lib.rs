//! From Kubernetes objects to the language of the data plane: `World -> Translation {snapshot, statuses, problems}`.
//!
//! Pure: no I/O, no clock, no randomness; everything that is not an object stands in [`Settings`]. Bad configuration is data
//! (a [`Problem`], a condition, an `Invalid` backend), never an `Err`, and hurts nothing but what names it.
//!
//! Kubernetes types end here. [`border`] parses what both APIs share (Services, EndpointSlices, Secrets, ConfigMaps) once;
//! [`ingress`] and [`gateway`] know one API each and meet only in the [`Builder`], and in BackendTLSPolicy, which is about
//! Services whoever sends to them.

pub mod address;
mod bind;
pub mod border;
mod builder;
mod election;
mod fleet;
pub mod gateway;
mod ingress;
mod memo;
mod parameters;
mod service;
mod settings;
mod share;
mod status;
mod world;

use std::{collections::BTreeMap, sync::Arc};

use pierhead_model::{Problem, Snapshot};

pub use bind::{Claim, Refusal, RefusalReason, Refused};
pub use builder::Builder;
pub use election::Held;
pub use service::{DesiredService, MANAGED_BY};
pub use settings::Settings;
pub use status::Statuses;
pub use world::{Bundle, ObjectName, Objects, World, age, origin};

/// What a [`World`] means.
#[derive(Clone, Debug)]
pub struct Translation {
    pub snapshot: Snapshot,
    pub statuses: Statuses,
    /// Sorted, distinct.
    pub problems: Vec<Problem>,
    /// Addresses given to Gateways from the pools: the next translation's [`Settings::allocations`].
    pub allocations: address::Allocations,
    /// Every Service that is to be there for Gateways and IngressClasses of ours. One that carries the label [`MANAGED_BY`]
    /// and is not here is stale.
    pub services: BTreeMap<ObjectName, DesiredService>,
    pub(crate) memo: Option<Arc<memo::Memo>>,
}

impl PartialEq for Translation {
    /// What was remembered on the way says nothing of the result.
    fn eq(&self, other: &Self) -> bool {
        self.snapshot == other.snapshot
            && self.statuses == other.statuses
            && self.problems == other.problems
            && self.allocations == other.allocations
            && self.services == other.services
    }
}

/// Translates everything from scratch.
pub fn translate(world: &World, settings: &Settings) -> Translation {
    translate_from(world, settings, None)
}

/// The same values as [`translate`]; those that `previous` has too are shared with it, certificates that it has are not
/// parsed again, nor routes translated again of which nothing changed.
pub fn translate_from(world: &World, settings: &Settings, previous: Option<&Translation>) -> Translation {
    let mut builder = Builder::new(world, settings, previous);
    // Both APIs say what they want first; who gets a shared address and port is decided over all of them.
    let mut policies = gateway::Policies::new(&mut builder);
    let ingress = ingress::select(&mut builder);
    let gateways = gateway::select(&mut builder);
    builder.assign_addresses();
    let mut wishes = service::PortWishes::default();
    ingress.port_wishes(&builder, &mut wishes);
    gateways.port_wishes(&builder, &mut wishes);
    builder.assign_ports(&wishes);
    let ingress = ingress::translate(&mut builder, ingress, &mut policies);
    let gateways = gateway::translate(&mut builder, gateways, policies);
    let refused = builder.settle_binds();
    ingress::conclude(&mut builder, ingress, &refused);
    gateway::conclude(&mut builder, gateways, &refused);
    let mut translation = builder.finish();
    if let Some(previous) = previous {
        share::share(&mut translation.snapshot, &previous.snapshot);
    }
    translation
}
