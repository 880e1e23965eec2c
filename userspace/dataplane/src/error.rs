use std::io;

use pierhead_model::BindKey;

/// Why the data plane cannot run at all.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot start worker thread {worker}: {source}; fix: allow more threads (ulimit -u) or use fewer workers")]
    Thread { worker: usize, source: io::Error },
    #[error("cannot open a socket for steered connections: {source}; fix: {fix}")]
    Socket { source: io::Error, fix: &'static str },
    #[error("cannot open the access log {path}: {source}; fix: name a file this user may write")]
    AccessLog { path: String, source: io::Error },
    #[error("cannot set up TLS session tickets: {0}")]
    Tickets(String),
}

/// Why one bind has no sockets. It is tried again every second, and hurts no other bind.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("{bind} is in use by another process; fix: stop that process (`ss -lnp` names it) or use another port")]
    InUse { bind: BindKey },
    #[error(
        "no permission to listen on {bind}; fix: run as root or with CAP_NET_BIND_SERVICE, or use a port above 1023"
    )]
    Forbidden { bind: BindKey },
    #[error(
        "{bind} is no address of this machine; fix: add the address to an interface, or let the kernel steer (--ebpf=steer)"
    )]
    NotLocal { bind: BindKey },
    #[error("{bind} needs steering in the kernel (--ebpf=steer): no socket can be bound to a prefix or to all ports")]
    NeedsSteering { bind: BindKey },
    #[error("cannot listen on {bind}: {source}")]
    Other { bind: BindKey, source: io::Error },
}
