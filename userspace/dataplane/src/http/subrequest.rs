//! Requests of our own to backends: their body is there as a whole, and nobody but us reads the answer.

use std::{future::poll_fn, task::Poll};

use pierhead_http1::{BodyLength, ResponseHead};

use super::body::{Fault, Front, Ready, Sink, Source};
use crate::upstream::{Came, Upstream};

/// Sends what is left of a request and waits for the head of the answer, which may come before all is sent.
///
/// # Errors
/// Of the backend.
pub(crate) async fn ask(upstream: &mut Upstream, body: &[u8], answer: &mut ResponseHead) -> Result<BodyLength, Fault> {
    let mut body = Ready(body);
    poll_fn(|cx| {
        while !upstream.is_sent() {
            match body.poll_front(cx) {
                Poll::Ready(Ok(Front::Data)) => match upstream.poll_take(cx, &mut body) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(fault)) => return Poll::Ready(Err(fault)),
                    Poll::Pending => break,
                },
                Poll::Ready(Ok(Front::End)) => upstream.finish(None)?,
                Poll::Ready(Err(fault)) => return Poll::Ready(Err(fault)),
                Poll::Pending => break,
            }
        }
        if let Poll::Ready(Err(fault)) = upstream.poll_flush(cx) {
            return Poll::Ready(Err(fault));
        }
        loop {
            match upstream.poll_head(cx, answer) {
                Poll::Ready(Ok(Came::Final(length))) => return Poll::Ready(Ok(length)),
                Poll::Ready(Ok(Came::Interim)) => {}
                Poll::Ready(Err(fault)) => return Poll::Ready(Err(fault)),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}

/// Reads the body of an answer.
///
/// # Errors
/// Of the backend; [`Fault::TooLarge`] beyond `limit` bytes.
pub(crate) async fn read(upstream: &mut Upstream, limit: usize) -> Result<Vec<u8>, Fault> {
    let mut body = Vec::new();
    poll_fn(|cx| {
        loop {
            match upstream.poll_front(cx) {
                Poll::Ready(Ok(Front::Data)) => {
                    let data = upstream.data();
                    if body.len() + data.len() > limit {
                        return Poll::Ready(Err(Fault::TooLarge));
                    }
                    let count = data.len();
                    body.extend_from_slice(data);
                    upstream.consume(count);
                }
                Poll::Ready(Ok(Front::End)) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(fault)) => return Poll::Ready(Err(fault)),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await?;
    Ok(body)
}
