//! How a snapshot travels from the controller to the nodes, and to a node's disk: resources with names and versions, the
//! messages that carry them, and what both ends of a stream remember.
//!
//! A [`Snapshot`](pierhead_model::Snapshot) is taken apart into [`Resource`]s by [`Encoder`], of which only those that changed
//! travel, and put together again by [`Assembly`], which keeps the last good value of whatever it cannot use. [`Client`] is
//! the node's end of a stream, as a value: what to send, what arrived, what to acknowledge. [`disk`] is the same snapshot as
//! the bytes of a file.
//!
//! Messages and services stand here once, for both ends. Nothing here does I/O, and nothing knows Kubernetes. Private keys
//! are in the bodies of resources: no `Debug` of this crate shows a body.

mod assemble;
mod client;
mod delta;
pub mod disk;
mod encode;
#[cfg(test)]
mod fixture;
pub mod identity;
mod name;
pub mod pace;
mod resource;
mod section;
mod service;
#[cfg(test)]
mod tests;
mod wire;

pub use assemble::{Assembly, Candidate};
pub use client::{Client, Received, UnexpectedResponse};
pub use delta::{
    AddressesMessage, DeltaRequest, DeltaResponse, NamedVersionMessage, PathReportsMessage, ResourceErrorMessage,
    ResourceMessage,
};
pub use encode::{Changes, Encoder};
pub use name::{ResourceId, ResourceKind, ResourceName};
pub use resource::{InvalidVersion, Resource, Version};
pub use service::{Identity, IdentityClient, IdentityServer, Snapshots, SnapshotsClient, SnapshotsServer};
pub use wire::Malformed;

/// What a controller answers (`UNAVAILABLE`) that does not serve streams, because another one leads: ask again, and meet that one.
pub const NOT_THE_LEADER: &str = "not the leader";

/// The longest gRPC message either side accepts, in bytes. What is sent is cut near [`PART_BYTES`]; only a single resource
/// can be longer.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// About how many bytes of resources or names go into one message, so that a stream never buffers much.
pub const PART_BYTES: usize = 256 << 10;
