//! The HTTP/1 codec: bytes in, events and bytes out. No I/O, no clock, no runtime, no `unsafe`.
//!
//! It serves both sides of a proxy, and its head types are what the whole pipeline passes around, whichever
//! protocol carried the message. It knows nothing of Pierhead.
//!
//! **Heads.** [`Headers`] is one contiguous buffer of field lines and an index. Parsing copies the head once;
//! edits are marks on the index and lines added at the end of the buffer, so writing a head copies every untouched
//! run in one piece. Heads are made to be reused: `clear` keeps the memory. [`Name`], [`Value`], [`Target`],
//! [`Method`] and [`Status`] can hold only what may stand on the wire, so no caller can inject a line.
//!
//! ```
//! use pierhead_http1::{BodyLength, Known, Limits, Name, RequestHead, RequestParser, Value, encode};
//!
//! let mut parser = RequestParser::new();
//! let mut head = RequestHead::new();
//! let wire = b"GET /cart?id=7 HTTP/1.1\r\nHost: shop.example\r\nX-Debug: 1\r\nConnection: close\r\n\r\n";
//!
//! // `input` starts at the first unconsumed byte each time; `None` means: read more, call again with more.
//! let start = parser.parse(wire, &mut head, &Limits::default())?.expect("a whole head");
//! assert_eq!(start.consumed, wire.len());
//! assert_eq!(start.body, BodyLength::Empty);
//! assert!(!start.keep_alive);
//! assert_eq!(head.target.path(), b"/cart");
//! assert_eq!(head.headers.first(Known::Host), Some(&b"shop.example"[..]));
//!
//! // Forward it: strip what belongs to this hop, edit, write.
//! pierhead_http1::strip_hop_by_hop(&mut head.headers);
//! head.headers.remove(Name::from_static("x-debug"));
//! head.headers.append(Known::XForwardedProto, Value::from_static("http"));
//! let mut out = Vec::new();
//! let _framing = encode::request(&head, start.body, encode::Connection::Default, &mut out);
//! assert_eq!(out, b"GET /cart?id=7 HTTP/1.1\r\nHost: shop.example\r\nx-forwarded-proto: http\r\n\r\n");
//! # Ok::<(), pierhead_http1::Error>(())
//! ```
//!
//! **Bodies.** [`BodyDecoder`] is made from the [`BodyLength`] that the parser returned and yields ranges of the
//! caller's buffer, nothing is copied. [`encode`] writes heads, chunk heads and trailers. `Content-Length`,
//! `Transfer-Encoding` and `Connection` on the wire come only from arguments of the encoder, never from the block:
//! what the peer gets is framed as we decoded it.
//!
//! **Strictness.** Anything two HTTP implementations are known to read differently is refused: see [`Error`].
//! Results do not depend on how the input was split.
#![forbid(unsafe_code)]

mod body;
mod chars;
mod error;
mod framing;
mod head;
mod headers;
mod hop;
mod known;
mod method;
mod name;
mod parse;
mod target;

pub mod encode;

pub use body::{BodyDecoder, Step};
pub use error::Error;
pub use framing::BodyLength;
pub use head::{RequestHead, ResponseHead, Status, Version};
pub use headers::{FieldRef, Headers, Members, Values};
pub use hop::{accepts_trailers, strip_hop_by_hop, upgrade_accepted, upgrade_requested};
pub use known::{Known, KnownSet};
pub use method::Method;
pub use name::{InvalidName, InvalidValue, Name, OwnedName, OwnedValue, Value};
pub use parse::{Limits, Preface, RequestParser, RequestStart, ResponseParser, ResponseStart, preface};
pub use target::{Authority, Form, Target};
