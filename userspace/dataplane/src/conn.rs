//! What is known of a connection once it is accepted and its listener is found.

use std::{net::SocketAddr, rc::Rc, sync::Arc};

use crate::{
    runtime::{BindRuntime, ListenerRuntime},
    worker::Worker,
};

/// Facts about an accepted connection that hold to its end.
pub(crate) struct Conn {
    pub(crate) worker: Rc<Worker>,
    /// The client.
    pub(crate) peer: SocketAddr,
    /// Where the client wanted to go.
    pub(crate) local: SocketAddr,
    /// The bind as it was when the connection came. Ask `worker.runtime().bind(..)` for the one in force.
    pub(crate) bind: Arc<BindRuntime>,
    pub(crate) tls: Option<TlsFacts>,
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
