//! HTTP/1 and HTTP/2 on accepted connections: the pipeline from a request to its answer.
//!
//! Two codecs (`server1`, `server2`) meet in one pipeline that does not know which of them carries a request. Knows
//! nothing of accepting and of TLS handshakes.

mod ahead;
mod attempt;
mod authorizing;
mod body;
mod buffer;
mod client;
mod context;
mod facts;
pub(crate) mod http2;
mod io;
mod local;
mod lookup;
mod mirroring;
mod pipeline;
mod policy;
mod pump;
mod reply;
mod rules;
mod server1;
mod server2;
mod subrequest;
mod tape;
#[cfg(test)]
mod tests;
mod timer;
mod tunnel;
mod upgrade;

use std::rc::Rc;

pub(crate) use ahead::Ahead;
pub(crate) use body::{BodyReader, BodyWriter, Fault, Front, Sink, Source};
pub(crate) use buffer::Buffers;
pub(crate) use io::{Stream, Wire};
pub(crate) use local::Local;
pub(crate) use rules::{Filters, RouteHandle};
pub(crate) use timer::Timer;

use tokio::task::spawn_local;

use self::{context::Context, server1::Next};
use crate::conn::Conn;

/// Serves one connection to its end: HTTP/2 when ALPN chose it, or a cleartext client starts with its preface; else
/// HTTP/1.
pub(crate) async fn serve<S: Stream>(io: S, conn: Conn) {
    let buffers = Rc::clone(&conn.worker.http.buffers);
    let cleartext = conn.tls.is_none();
    let http2 = conn.tls.as_ref().is_some_and(|tls| tls.h2);
    let cx = Rc::new(Context::new(conn));
    let counted = Counted::new(&cx);
    let wire = Wire::new(io, buffers);
    if http2 {
        return serve_http2(wire, cx, counted);
    }
    if let Next::Http2(wire) = server1::serve(wire, &cx, cleartext).await {
        serve_http2(wire, cx, counted);
    }
}

/// Serves one connection with HTTP/2 in a task of its own: this one has room for an exchange of HTTP/1, three times what an idle
/// connection of HTTP/2 needs.
fn serve_http2<S: Stream>(wire: Wire<S>, cx: Rc<Context>, counted: Counted) {
    spawn_local(async move {
        server2::serve(wire, cx).await;
        drop(counted);
    });
}

/// Counts a connection in and, however it ends, out.
struct Counted(Rc<Context>);

impl Counted {
    fn new(cx: &Rc<Context>) -> Self {
        cx.cells(|cells| cells.opened.add(1));
        Self(Rc::clone(cx))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.cells(|cells| cells.closed.add(1));
    }
}
