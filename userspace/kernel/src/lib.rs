//! The kernel data plane, seen from userspace: probe what the machine can do, load and attach the programs, keep their
//! maps at what a snapshot wants, hand them over to a successor, remove them.
//!
//! What is decided is pure ([`wanted`], [`plan`]) and apart from what is done ([`Kernel`]). This is the only crate that
//! knows both the model and the ABI of the programs; it knows neither Kubernetes nor HTTP.

mod announce;
mod error;
mod flows;
mod kernel;
mod loads;
mod maps;
mod neighbours;
mod netlink;
mod object;
mod pins;
pub mod plan;
mod probe;
mod recall;
mod surroundings;
mod sys;
pub mod table;
pub mod wanted;

pub use announce::Announcements;
pub use error::KernelError;
pub use kernel::{Counters, DEFAULT_MAX_FLOWS, Direction, Kernel, Mode, Options, WorkerSockets, make_local, uninstall};
pub use loads::Loads;
pub use pierhead_abi::l4::Traffic;
pub use probe::{Capabilities, probe};
pub use sys::{TestRun, shorten_slices, test_run, trim_heap, unmap_code};
