//! What can go wrong, each with what a person can do about it.

use std::io;
use std::path::PathBuf;

/// Why the kernel data plane cannot be used or changed.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The kernel or the process lacks something.
    #[error("the kernel data plane is not available: {0}")]
    Unavailable(String),
    #[error(
        "another pierhead{} already steers this network namespace; fix: stop it first, or use --ebpf=off",
        .pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    SecondInstance { pid: Option<u64> },
    /// Not an error of the machine: this process is on its way out.
    #[error("a successor has taken over")]
    Superseded,
    #[error("{path} is occupied by something that is not ours ({what}); fix: remove it, or run `pierhead uninstall`")]
    OccupiedPin { path: PathBuf, what: String },
    #[error("cannot {what} {path}: {source}")]
    Pin {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("the eBPF object does not load: {0}")]
    Load(#[from] Box<aya::EbpfError>),
    #[error("eBPF program {name}: {source}")]
    Program {
        name: &'static str,
        source: Box<aya::programs::ProgramError>,
    },
    #[error("eBPF map {name}: {source}")]
    Map {
        name: &'static str,
        source: Box<aya::maps::MapError>,
    },
    #[error("interface {name}: {reason}")]
    Interface { name: String, reason: String },
    #[error("worker {worker} is beyond the limit of {limit} workers")]
    TooManyWorkers { worker: usize, limit: usize },
    #[error("cannot {what}: {source}")]
    System { what: &'static str, source: io::Error },
}

impl KernelError {
    pub(crate) fn map(name: &'static str) -> impl Fn(aya::maps::MapError) -> Self {
        move |source| Self::Map {
            name,
            source: Box::new(source),
        }
    }

    pub(crate) fn program(name: &'static str) -> impl Fn(aya::programs::ProgramError) -> Self {
        move |source| Self::Program {
            name,
            source: Box::new(source),
        }
    }

    pub(crate) fn system(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}
