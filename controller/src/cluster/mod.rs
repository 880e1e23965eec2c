//! An API server as the source of configuration: what a folder of manifests is elsewhere.
//!
//! Each kind is a watch of its own ([`kinds`]); every object is read on its own and trimmed ([`object`]), so that one that
//! cannot be read is a problem with its name and nothing else. The [`store`] makes a `World` of what the watches say, and
//! [`ClusterSource`] translates it on a thread of its own, after each burst of changes. There is no world before every kind
//! was read to its end; after that what is known stays in force, however long the API server is away. Writes nothing.

mod addresses;
mod connect;
mod discovery;
mod follow;
mod holders;
mod hosts;
mod kinds;
mod object;
mod same;
mod source;
mod store;
mod watched;

pub use self::connect::StartError;
pub use self::source::{ClusterSource, SourceOptions};

pub(crate) use self::connect::connect;
pub(crate) use self::kinds::Source;
pub(crate) use self::object::{FIELD_MANAGER, Standing};
pub(crate) use self::source::{Handover, Part, Turn};
pub(crate) use self::store::Standings;
pub(crate) use self::watched::watched;
