//! Carries bytes between streams of which at least one is TLS: by copying, through bounded buffers.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};

use super::guard::Bytes;
use crate::observe::Reason;

/// One TLS record.
const BUFFER_BYTES: usize = 16 * 1024;

/// Carries bytes both ways until both sides are done, one fails, or nothing moves for `idle`.
pub(super) async fn both_ways<A, B>(client: A, upstream: B, bytes: &Bytes, idle: Duration) -> Reason
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let mut failed = None;
    let mut client = Watched::new(client, Reason::ClientReset, |count| bytes.add_in(count));
    let mut upstream = Watched::new(upstream, Reason::BackendReset, |count| bytes.add_out(count));
    let ended = tokio::select! {
        copied = copy_bidirectional_with_sizes(&mut client, &mut upstream, BUFFER_BYTES, BUFFER_BYTES) => {
            copied.is_ok().then_some(Reason::Done)
        }
        () = bytes.idle(idle) => Some(Reason::IdleTimeout),
    };
    if ended.is_none() {
        failed = client.failed.or(upstream.failed);
    }
    ended.or(failed).unwrap_or(Reason::Internal)
}

/// A stream that reports what is read from it, and remembers whether it was the one that failed.
struct Watched<S, F> {
    stream: S,
    blame: Reason,
    failed: Option<Reason>,
    read: F,
}

impl<S, F> Watched<S, F> {
    fn new(stream: S, blame: Reason, read: F) -> Self {
        Self {
            stream,
            blame,
            failed: None,
            read,
        }
    }

    fn note<T>(&mut self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if matches!(result, Poll::Ready(Err(_))) {
            self.failed = Some(self.blame);
        }
        result
    }
}

impl<S: AsyncRead + Unpin, F: Fn(usize) + Unpin> AsyncRead for Watched<S, F> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, space: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = space.filled().len();
        let result = Pin::new(&mut this.stream).poll_read(cx, space);
        let count = space.filled().len() - before;
        if count > 0 {
            (this.read)(count);
        }
        this.note(result)
    }
}

impl<S: AsyncWrite + Unpin, F: Unpin> AsyncWrite for Watched<S, F> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write(cx, data);
        this.note(result)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_flush(cx);
        this.note(result)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_shutdown(cx);
        this.note(result)
    }
}
