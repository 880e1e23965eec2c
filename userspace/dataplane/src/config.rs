use std::{fmt, num::NonZero, path::PathBuf, sync::Arc};

/// How connections reach the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptMode {
    /// Each bind of the snapshot gets sockets of its own, one per worker (`SO_REUSEPORT`). Prefixes and `all ports` cannot
    /// be served so, and are reported.
    Bound,
    /// Each worker has one listening socket per protocol and family on a port of the kernel's choice; an `sk_lookup`
    /// program sends connections there, and the destination they were meant for names the bind.
    Steered,
}

/// Where access log lines (one JSON object each) go. Lines are dropped, and counted, when the target is too slow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLog {
    Off,
    Stdout,
    /// Appended to; created when missing.
    File(PathBuf),
}

/// Told of every connection that comes and goes: whoever steers connections sends fewer to a busy worker.
pub trait WorkerLoads: fmt::Debug + Send + Sync {
    /// Worker number `worker`, counted from 0, has one connection more.
    fn add(&self, worker: usize);
    /// One less.
    fn sub(&self, worker: usize);
}

/// What a data plane is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Number of worker threads.
    pub workers: NonZero<usize>,
    pub accept: AcceptMode,
    pub access_log: AccessLog,
    /// Bound sockets may share their ports with those of another process: a predecessor that will close them. Both must
    /// run as the same user.
    pub beside: bool,
    /// Where connections per worker are counted besides the metrics.
    pub loads: Option<Arc<dyn WorkerLoads>>,
}

impl Default for Config {
    /// One worker per core, bound sockets, no access log.
    fn default() -> Self {
        Self {
            workers: std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN),
            accept: AcceptMode::Bound,
            access_log: AccessLog::Off,
            beside: false,
            loads: None,
        }
    }
}
