//! Writes statuses: what a translation says of each object, and what the nodes make of it, into the objects.
//!
//! [`plan`] decides what one write is, [`queue`] and [`hold`] when it is made, [`overlay`] what nodes change about it: all pure. The
//! [`writer`] reads, writes and tries again. Each object is written on its own, the latest state only, and only where it
//! differs; an object whose write is refused waits ever longer and keeps nobody else waiting. What others wrote is kept byte
//! for byte: their lists are read, modified and written with the resource version they were read at.

mod change;
mod hold;
mod overlay;
mod plan;
mod queue;
mod writer;

pub(crate) use self::writer::{Inputs, run};

use pierhead_translate::ObjectName;

/// An object whose status is ours to write.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) kind: &'static str,
    pub(crate) name: ObjectName,
}
