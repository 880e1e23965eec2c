//! TLS towards clients: which listener a ClientHello is for, and with what the handshake is answered.
//!
//! Certificates live in a store of their own beside the listeners; a changed certificate makes a new `ServerConfig` for new
//! handshakes and touches no connection.

mod accept;
mod hello;
mod resolver;
mod store;
mod verify;

pub(crate) use accept::serve;
pub(crate) use hello::{Hello, MAX_HELLO_BYTES};
pub(crate) use store::{TlsServer, TlsStore};
