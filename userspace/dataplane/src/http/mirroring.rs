//! Sending copies of requests. A mirror never delays or fails the request it copies: copies are sent once the body has
//! passed, from a bounded number of tasks, and their answers are dropped.

use std::{future::poll_fn, rc::Rc, sync::Arc, task::Poll, time::Duration};

use bytes::Bytes;
use pierhead_http1::{BodyLength, RequestHead, ResponseHead};
use tokio::{
    task::spawn_local,
    time::{Instant, timeout},
};

use super::{
    body::{Front, Ready, Sink, Source},
    context::Context,
    local::MirrorSlot,
    rules::Filters,
    tape::Tape,
};
use crate::upstream::{Backend, Came, Pool, Upstream};

/// How long a copy may take in all.
const LIMIT: Duration = Duration::from_secs(15);

/// Copies that are due for a request.
pub(crate) struct Due {
    head: RequestHead,
    backends: Vec<Arc<Backend>>,
}

impl Due {
    /// `head` is what the rule's filters made of the request; filters of a backend reference concern that backend only.
    pub(crate) fn of(rule: &Filters, reference: &Filters, head: &RequestHead) -> Option<Self> {
        let mirrors = rule.mirrors.iter().chain(&reference.mirrors);
        let backends: Vec<_> = mirrors
            .filter(|mirror| mirror.is_due())
            .filter_map(|mirror| mirror.backend.clone())
            .filter(|backend| backend.usable().is_ok())
            .collect();
        (!backends.is_empty()).then(|| Self {
            head: head.clone(),
            backends,
        })
    }

    /// Sends them, unless the body did not pass as a whole or was too large to keep.
    pub(crate) fn send(self, cx: &Context, tape: &Tape, connect: Duration) {
        let Some(body) = tape.whole() else {
            return;
        };
        let head = Rc::new(self.head);
        for backend in self.backends {
            let Some(slot) = cx.local().mirror() else {
                return;
            };
            let pool = Rc::clone(&cx.local().pool);
            spawn_local(copy(pool, backend, Rc::clone(&head), body.clone(), connect, slot));
        }
    }
}

async fn copy(
    pool: Rc<Pool>,
    backend: Arc<Backend>,
    head: Rc<RequestHead>,
    body: Bytes,
    connect: Duration,
    _slot: MirrorSlot,
) {
    let exchange = async {
        let lease = pool.pick(&backend, &[])?;
        let length = if body.is_empty() {
            BodyLength::Empty
        } else {
            BodyLength::Exact(body.len() as u64)
        };
        let upstream = Upstream::begin(&lease, &backend, &head, length, false, false, connect).await;
        let mut upstream = upstream.ok()?;
        let mut body = Ready(&body);
        let mut answer = ResponseHead::new();
        let mut answered = false;
        let done = poll_fn(|cx| {
            loop {
                while !upstream.is_sent() {
                    match body.poll_front(cx) {
                        Poll::Ready(Ok(Front::Data)) => match upstream.poll_take(cx, &mut body) {
                            Poll::Ready(Ok(())) => {}
                            Poll::Ready(Err(_)) => return Poll::Ready(None),
                            Poll::Pending => break,
                        },
                        Poll::Ready(Ok(Front::End)) => {
                            if upstream.finish(None).is_err() {
                                return Poll::Ready(None);
                            }
                        }
                        Poll::Ready(Err(_)) => return Poll::Ready(None),
                        Poll::Pending => break,
                    }
                }
                if matches!(upstream.poll_flush(cx), Poll::Ready(Err(_))) {
                    return Poll::Ready(None);
                }
                if !answered {
                    match upstream.poll_head(cx, &mut answer) {
                        Poll::Ready(Ok(Came::Final(_))) => answered = true,
                        Poll::Ready(Ok(Came::Interim)) => {}
                        Poll::Ready(Err(_)) => return Poll::Ready(None),
                        Poll::Pending => return Poll::Pending,
                    }
                    continue;
                }
                match upstream.poll_front(cx) {
                    Poll::Ready(Ok(Front::Data)) => {
                        let count = upstream.data().len();
                        upstream.consume(count);
                    }
                    Poll::Ready(Ok(Front::End)) => return Poll::Ready(Some(())),
                    Poll::Ready(Err(_)) => return Poll::Ready(None),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await;
        if done.is_some() {
            upstream.end(&lease, Instant::now());
        }
        done
    };
    if !matches!(timeout(LIMIT, exchange).await, Ok(Some(()))) {
        tracing::debug!(backend = %backend.model.id, "a mirrored request was not completed");
    }
}
