//! A folder of Kubernetes manifests as the source of configuration: what a cluster's API server is elsewhere.
//!
//! [`Folder`] reads it, remembers the last good state of each file and makes a `World`; [`FileSource`] watches it,
//! translates what changed and publishes. A file that becomes bad costs nothing but its own changes.

mod content;
mod folder;
mod listing;
mod problem;
mod source;
pub(crate) mod typed;

pub use self::folder::{Folder, Ignored};
pub use self::listing::OpenError;
pub use self::problem::FileProblem;
pub use self::source::{FileSource, Options};
pub use crate::published::Published;

#[cfg(test)]
mod tests;
