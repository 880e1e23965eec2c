//! Servers and clients of our two services, by hand what a code generator would make: it needs no compiler of `.proto` files.

mod client;
mod server;

pub use client::{IdentityClient, SnapshotsClient};
pub use server::{Identity, IdentityServer, Snapshots, SnapshotsServer};

/// `pierhead.v1.Snapshots/Delta`: a stream each way.
const DELTA: &str = "/pierhead.v1.Snapshots/Delta";

/// `pierhead.v1.Identity/Sign`: one message each way.
const SIGN: &str = "/pierhead.v1.Identity/Sign";
