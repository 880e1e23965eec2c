//! The HTTP/2 codec: bytes in, events and bytes out. No I/O, no clock, no runtime, no `unsafe`.
//!
//! It serves both sides of a proxy (RFC 9113, RFC 7541, RFC 8441) and knows nothing of Pierhead.
//!
//! [`Connection`] is one end. [`Connection::read`] turns input into [`Event`]s: bodies are ranges of that input, heads are
//! [`Fields`], one buffer that is used again. What is said ([`Connection::head`], [`Connection::data`], [`Connection::end`],
//! [`Connection::reset`]) gathers in one output, which the caller sends when it has nothing more to say. Data that follows data of
//! the same stream becomes one frame, and the end of a stream is a flag of its last frame, as long as that has not left.
//!
//! ```
//! use pierhead_http2::{Config, Connection, Event, Policy, Pseudo, Role};
//!
//! let grants = |role| Config {
//!     role,
//!     stream_window: 1 << 18,
//!     connection_window: 1 << 20,
//!     max_streams: 100,
//!     max_fields_bytes: 16 << 10,
//!     connect_protocol: false,
//! };
//! let mut client = Connection::<()>::new(&grants(Role::Client));
//! let mut server = Connection::<()>::new(&grants(Role::Server));
//! // The server's SETTINGS.
//! client.read(server.output())?;
//! server.sent(server.output().len());
//!
//! let stream = client.open((), false).expect("room for a stream");
//! let mut head = client.head(stream).expect("an open stream");
//! for (name, value) in [(":method", "GET"), (":scheme", "https"), (":path", "/cart"), ("accept", "*/*")] {
//!     head.field(name.as_bytes(), value.as_bytes(), Policy::Index);
//! }
//! head.finish(true);
//!
//! let mut input = client.output();
//! loop {
//!     let step = server.read(input)?;
//!     input = &input[step.consumed..];
//!     if let Some(Event::Request { stream: 1, end: true }) = step.event {
//!         assert_eq!(server.fields().pseudo(Pseudo::Path), Some(&b"/cart"[..]));
//!         break;
//!     }
//! }
//! # Ok::<(), pierhead_http2::Error>(())
//! ```
//!
//! **Bounds.** Everything a peer can make grow has one: streams, windows, fields, blocks that are continued, output. What carries
//! nothing (resets, pings, settings, empty frames, updates) is paid from budgets that work and time refill.
#![forbid(unsafe_code)]

mod budget;
mod conn;
mod error;
mod fields;
mod frame;
mod hpack;
mod message;
mod stream;

pub use conn::{Config, Connection, Event, HeadWriter, Role, Step};
pub use error::{Code, Error};
pub use fields::{Fields, Pseudo};
pub use frame::PREFACE;
pub use hpack::{Decoder, Encoder, HpackError, Policy};
