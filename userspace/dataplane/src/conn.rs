//! What is known of a connection once it is accepted.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    runtime::{BindRuntime, ListenerRuntime, Runtime, Slot},
    worker::Worker,
};

/// Facts about an accepted connection that hold to its end.
pub(crate) struct Conn {
    pub(crate) worker: Rc<Worker>,
    /// The client.
    pub(crate) peer: SocketAddr,
    /// Where the client wanted to go.
    pub(crate) local: SocketAddr,
    /// The bind as it was when the connection came: see [`Conn::bind_of`].
    pub(crate) bind: Arc<BindRuntime>,
    /// [`Runtime::version`] of what the bind was taken from.
    version: u64,
    pub(crate) accepted: Instant,
    /// Its place among the connections of its Gateway.
    pub(crate) slot: Slot,
    pub(crate) tls: Option<TlsFacts>,
    _open: Open,
}

impl Conn {
    /// A connection accepted now. `bind` is of `runtime`.
    pub(crate) fn new(
        worker: &Rc<Worker>,
        runtime: &Runtime,
        (peer, local): (SocketAddr, SocketAddr),
        bind: &Arc<BindRuntime>,
        slot: Slot,
    ) -> Self {
        worker.cells().opened.add(1);
        if let Some(loads) = &worker.loads {
            loads.add(worker.number);
        }
        Self {
            worker: Rc::clone(worker),
            peer,
            local,
            bind: Arc::clone(bind),
            version: runtime.version,
            accepted: Instant::now(),
            slot,
            tls: None,
            _open: Open(Rc::clone(worker)),
        }
    }

    /// Its bind as `runtime` has it; `None` where there is none any more.
    pub(crate) fn bind_of<'r>(&'r self, runtime: &'r Runtime) -> Option<&'r BindRuntime> {
        if self.version == runtime.version {
            return Some(&self.bind);
        }
        runtime.binds.get(self.bind.model.key).map(AsRef::as_ref)
    }
}

/// Counts a connection out of its worker: a drain waits for that.
struct Open(Rc<Worker>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.cells().closed.add(1);
        if let Some(loads) = &self.0.loads {
            loads.sub(self.0.number);
        }
    }
}

/// What the TLS handshake said.
pub(crate) struct TlsFacts {
    /// Chosen by SNI; a cleartext listener is chosen per request, by Host.
    pub(crate) listener: Arc<ListenerRuntime>,
    /// Lower case.
    pub(crate) sni: Option<Box<str>>,
    /// ALPN chose `h2`.
    pub(crate) h2: bool,
}

/// An IPv4 address in IPv6 clothes becomes IPv4.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        // Keeps the scope of a link-local address.
        IpAddr::V6(_) => address,
        ip => SocketAddr::new(ip, address.port()),
    }
}

/// Makes the close of `stream` a reset: what is unsent is thrown away, and the other side learns that at once.
pub(crate) fn reset_on_close(stream: &impl AsFd) {
    // A socket that cannot be told so is closed with a FIN.
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Closes with a reset.
pub(crate) fn reset(stream: impl AsFd) {
    reset_on_close(&stream);
}
