//! HTTP/2 for the pipeline: connections that one task drives for all their streams, and streams as sources and sinks.
//!
//! The codec is `pierhead-http2`; here are the sockets, the wakers and the heads as the pipeline has them.

mod crew;
mod driver;
mod link;
mod message;
mod stream;

pub(crate) use crew::Crew;
pub(crate) use driver::{Driver, Ended, Serve};
pub(crate) use link::{Gone, Inner, Link};
pub(crate) use message::{read_request, sayable, write_request, write_response};
pub(crate) use stream::StreamEnd;
