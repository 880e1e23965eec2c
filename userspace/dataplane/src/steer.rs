use std::os::fd::OwnedFd;

/// The sockets of one worker that wait for connections steered to them. Bound to the wildcard address and a port of the
/// kernel's choice; they stay open as long as the data plane runs. The descriptors are duplicates: closing them does no
/// harm. A family the machine does not have is `None`.
#[derive(Debug)]
pub struct WorkerSockets {
    pub worker: usize,
    pub tcp4: Option<OwnedFd>,
    pub tcp6: Option<OwnedFd>,
    pub udp4: Option<OwnedFd>,
    pub udp6: Option<OwnedFd>,
}
