//! Where requests and connections go: backends, the choice among them and among their endpoints.

mod backends;
mod weighted;

pub(crate) use backends::{Backend, Backends, Resolved};
pub(crate) use weighted::Weighted;
