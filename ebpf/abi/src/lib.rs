//! What the kernel programs and userspace must agree on, and the pure logic both need.
//!
//! Map names, limits, keys and values as plain structs with asserted layouts; flow hash, weighted Maglev, checksum
//! deltas, packet parsing. No dependencies, no allocation, no I/O; it knows neither the model nor aya.
//!
//! Byte order: everything that is on the wire keeps the wire's order in memory ([`Addr`], [`Port`]), so that neither
//! side ever swaps a key. Everything else is native.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod addr;
pub mod checksum;
pub mod hash;
pub mod icmp;
pub mod l4;
pub mod layout;
pub mod maglev;
pub mod packet;
mod plain;
pub mod steer;

pub use addr::{Addr, Port};
