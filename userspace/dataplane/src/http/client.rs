//! The client's side of an exchange, whatever codec carries it: a source (the request's body) and a sink (the answer).

use std::task::{Context, Poll};

use pierhead_http1::{BodyLength, Headers, ResponseHead, Status};

use super::body::{Fault, Sink, Source};

pub(crate) trait Client: Source + Sink {
    /// Ready when the client has gone away. Must not be asked while the request's body is still being read.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Queues an interim response, where the client can take one.
    fn interim(&mut self, status: Status, headers: &Headers);

    /// Queues the head of the answer.
    ///
    /// # Errors
    /// When the client is gone.
    fn start(&mut self, head: &ResponseHead, body: BodyLength) -> Result<(), Fault>;

    /// Queues the answer that makes this exchange a tunnel: from now on data is bytes.
    ///
    /// # Errors
    /// When the client is gone.
    fn switch(&mut self, head: &ResponseHead) -> Result<(), Fault>;

    /// Whether the head of the answer was queued.
    fn is_started(&self) -> bool;

    /// `:protocol` of an extended CONNECT.
    fn protocol(&self) -> Option<&[u8]>;

    /// The answer that is about to start is the last on this connection.
    fn close_after(&mut self);

    /// The answer cannot be completed: the client must notice.
    fn abort(&mut self);
}
