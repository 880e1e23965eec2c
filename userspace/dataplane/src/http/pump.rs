//! Moving bodies in both directions at once, until the answer is complete.

use std::{
    future::poll_fn,
    io::ErrorKind,
    task::{Context, Poll},
    time::Duration,
};

use pierhead_http1::{ResponseHead, Status, strip_hop_by_hop};
use tokio::time::Instant;

use super::{
    body::{Fault, Front, Sink, Source},
    client::Client,
    tape::{Tape, Upload},
    timer::{Timer, earlier},
};
use crate::{
    tcp::{Moving, Pipes, Stuck},
    upstream::{Came, Upstream},
};

/// Who broke an exchange.
#[derive(Debug)]
pub(crate) enum Broke {
    Client(Fault),
    /// The client went away while it waited.
    ClientGone,
    /// The client sent or took nothing for too long.
    ClientIdle,
    Upstream(Fault),
    UpstreamIdle,
    /// The deadline of the exchange or of the attempt.
    Deadline,
}

/// How long an exchange may take, in all and between two movements.
#[derive(Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) deadline: Option<Instant>,
    pub(crate) idle: Duration,
}

/// Silence, measured without asking the clock for every byte.
struct Idle {
    limit: Duration,
    moved: bool,
    since: Instant,
}

impl Idle {
    fn new(limit: Duration) -> Self {
        Self {
            limit,
            moved: true,
            since: Instant::now(),
        }
    }

    /// To be asked when there is nothing to do but wait.
    fn deadline(&mut self) -> Instant {
        if std::mem::take(&mut self.moved) {
            self.since = Instant::now();
        }
        self.since + self.limit
    }
}

/// How long after it was seen that the backend is there it is seen to again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Sends the request and waits for the final head of the answer; interim ones are passed on. From `look` on it is seen to that
/// the backend is there at all, as long as the request can be sent again.
pub(crate) async fn ask<C: Client>(
    client: &mut C,
    tape: &mut Tape,
    upstream: &mut Upstream,
    head: &mut ResponseHead,
    timer: &mut Timer,
    Patience { deadline, idle }: Patience,
    mut look: Option<Instant>,
) -> Result<pierhead_http1::BodyLength, Broke> {
    let mut sending = Sending::new(upstream);
    // Set up only when something is awaited: small requests never ask for the time.
    let mut silence: Option<Idle> = None;
    poll_fn(|cx| {
        loop {
            let moved = match sending.poll(cx, client, tape, upstream) {
                Ok(moved) => moved,
                Err(broke) => return Poll::Ready(Err(broke)),
            };
            match upstream.poll_head(cx, head) {
                Poll::Ready(Ok(Came::Final(length))) => return Poll::Ready(Ok(length)),
                Poll::Ready(Ok(Came::Interim)) => {
                    // 100 answers an expectation that was ours to keep.
                    if head.status != Status::CONTINUE {
                        strip_hop_by_hop(&mut head.headers);
                        client.interim(head.status, &head.headers);
                    }
                    continue;
                }
                Poll::Ready(Err(fault)) => return Poll::Ready(Err(Broke::Upstream(fault))),
                Poll::Pending => {}
            }
            if let Poll::Ready(Err(fault)) = client.poll_flush(cx) {
                return Poll::Ready(Err(Broke::Client(fault)));
            }
            let mut until = deadline;
            if sending.is_over() {
                if client.poll_gone(cx).is_ready() {
                    return Poll::Ready(Err(Broke::ClientGone));
                }
                until = earlier(until, look);
            } else {
                let silence = silence.get_or_insert_with(|| Idle::new(idle));
                silence.moved |= moved;
                until = earlier(until, Some(silence.deadline()));
            }
            timer.set(until);
            if timer.poll(cx).is_ready() {
                let now = Instant::now();
                let expired = deadline.is_some_and(|deadline| now >= deadline);
                if !expired && sending.is_over() {
                    if tape.is_replayable() && upstream.is_unheard() {
                        return Poll::Ready(Err(Broke::Upstream(Fault::Unheard)));
                    }
                    look = Some(now + LOOK_AGAIN);
                    continue;
                }
                return Poll::Ready(Err(match (expired, sending.stalled) {
                    (true, _) => Broke::Deadline,
                    (false, true) => Broke::UpstreamIdle,
                    (false, false) => Broke::ClientIdle,
                }));
            }
            return Poll::Pending;
        }
    })
    .await
}

/// Takes the whole of a request's body onto the tape, if there is room for it.
pub(crate) async fn collect<C: Client>(
    client: &mut C,
    tape: &mut Tape,
    timer: &mut Timer,
    deadline: Option<Instant>,
    idle: Duration,
) -> Result<(), Broke> {
    let mut silence = Idle::new(idle);
    poll_fn(|cx| {
        loop {
            let mut upload = Upload { client, tape };
            match upload.poll_front(cx) {
                Poll::Ready(Ok(Front::Data)) => {
                    let count = upload.data().len();
                    upload.consume(count);
                    silence.moved = true;
                    if tape.is_torn() {
                        return Poll::Ready(Err(Broke::Client(Fault::TooLarge)));
                    }
                }
                Poll::Ready(Ok(Front::End)) => {
                    tape.rewind();
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Err(fault)) => return Poll::Ready(Err(Broke::Client(fault))),
                Poll::Pending => break,
            }
        }
        // The client may wait for `100 Continue`.
        if let Poll::Ready(Err(fault)) = client.poll_flush(cx) {
            return Poll::Ready(Err(Broke::Client(fault)));
        }
        timer.set(earlier(deadline, Some(silence.deadline())));
        if timer.poll(cx).is_ready() {
            let expired = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            return Poll::Ready(Err(if expired { Broke::Deadline } else { Broke::ClientIdle }));
        }
        Poll::Pending
    })
    .await
}

/// The request's body on its way.
pub(crate) struct Sending {
    sent: bool,
    /// The backend takes no more; its answer may still come.
    refused: bool,
    /// It is the backend that is waited for.
    stalled: bool,
}

impl Sending {
    pub(crate) fn new(upstream: &Upstream) -> Self {
        Self {
            sent: upstream.is_sent(),
            refused: false,
            stalled: false,
        }
    }

    /// Of a request whose body is not the client's.
    pub(crate) fn nothing() -> Self {
        Self {
            sent: true,
            refused: false,
            stalled: false,
        }
    }

    fn is_over(&self) -> bool {
        self.sent || self.refused
    }

    /// Moves what can be moved; says whether anything was.
    fn poll<C: Client>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        tape: &mut Tape,
        upstream: &mut Upstream,
    ) -> Result<bool, Broke> {
        let mut moved = false;
        self.stalled = false;
        while !self.is_over() {
            let mut upload = Upload { client, tape };
            match upload.poll_front(cx) {
                Poll::Ready(Ok(Front::Data)) => match upstream.poll_take(cx, &mut upload) {
                    Poll::Ready(Ok(())) => moved = true,
                    Poll::Ready(Err(Fault::WrongLength)) => return Err(Broke::Client(Fault::WrongLength)),
                    Poll::Ready(Err(_)) => self.refused = true,
                    Poll::Pending => {
                        self.stalled = true;
                        break;
                    }
                },
                Poll::Ready(Ok(Front::End)) => match upstream.finish(upload.trailers()) {
                    Ok(()) => self.sent = true,
                    Err(Fault::WrongLength) => return Err(Broke::Client(Fault::WrongLength)),
                    Err(_) => self.refused = true,
                },
                Poll::Ready(Err(fault)) => return Err(Broke::Client(fault)),
                Poll::Pending => break,
            }
        }
        if !self.refused && matches!(upstream.poll_flush(cx), Poll::Ready(Err(_))) {
            self.refused = true;
        }
        Ok(moved)
    }
}

/// From how many bytes on what is left of an answer goes from socket to socket. Below, reading and writing once or twice is
/// as cheap.
const SPLICED: u64 = 256 * 1024;

/// Bytes that one poll may move so before others get their turn.
const TURN: u64 = 1 << 20;

/// The way past our buffers, from when it pays to the end of the body.
struct Bypass<'p> {
    pipes: &'p Pipes,
    moving: Option<Moving<'p>>,
    /// There is no pipe to be had.
    closed: bool,
    in_turn: u64,
}

impl Bypass<'_> {
    /// Whether it is the client that is waited for.
    fn is_blocked(&self) -> bool {
        self.moving.as_ref().is_some_and(Moving::is_full)
    }

    /// Moves what can be moved past our buffers; how much that was. `None`: nothing can.
    fn poll<C: Client>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        upstream: &mut Upstream,
    ) -> Option<Poll<Result<u64, Broke>>> {
        let (source, left) = Source::socket(upstream)?;
        let sink = Sink::socket(client, left)?;
        if self.moving.is_none() {
            if self.closed || left < SPLICED {
                return None;
            }
            self.moving = Moving::new(self.pipes).ok();
            self.closed = self.moving.is_none();
        }
        let moved = match self.moving.as_mut()?.poll(cx, source, sink, left) {
            Poll::Pending => return Some(Poll::Pending),
            Poll::Ready(moved) => moved,
        };
        Some(Poll::Ready(match moved {
            Ok(count) => {
                let count = count as u64;
                Source::bypassed(upstream, count);
                Sink::bypassed(client, count);
                Ok(count)
            }
            Err(Stuck::Source(why)) if why.kind() == ErrorKind::UnexpectedEof => Err(Broke::Upstream(Fault::Cut)),
            Err(Stuck::Source(why)) => Err(Broke::Upstream(why.into())),
            Err(Stuck::Sink(why)) => Err(Broke::Client(why.into())),
        }))
    }
}

/// An answer's body on its way.
pub(crate) struct Passing<'a> {
    /// What is left of the request.
    pub(crate) sending: Sending,
    /// Counts the bytes of the answer.
    pub(crate) bytes: &'a mut u64,
    pub(crate) pipes: &'a Pipes,
}

/// Passes the body of the answer on, and what is left of the request's.
pub(crate) async fn relay<C: Client>(
    client: &mut C,
    tape: &mut Tape,
    upstream: &mut Upstream,
    timer: &mut Timer,
    Patience { deadline, idle }: Patience,
    Passing {
        mut sending,
        bytes,
        pipes,
    }: Passing<'_>,
) -> Result<(), Broke> {
    let mut silence: Option<Idle> = None;
    let mut received = false;
    let mut bypass = Bypass {
        pipes,
        moving: None,
        closed: false,
        in_turn: 0,
    };
    poll_fn(|cx| {
        bypass.in_turn = 0;
        let mut moved = if sending.is_over() {
            false
        } else {
            match sending.poll(cx, client, tape, upstream) {
                Ok(moved) => moved,
                Err(broke) => return Poll::Ready(Err(broke)),
            }
        };
        let mut blocked = false;
        while !received {
            match bypass.poll(cx, client, upstream) {
                None => {}
                Some(Poll::Ready(Ok(count))) => {
                    moved = true;
                    *bytes += count;
                    bypass.in_turn += count;
                    if bypass.in_turn >= TURN {
                        cx.waker().wake_by_ref();
                        break;
                    }
                    continue;
                }
                Some(Poll::Ready(Err(broke))) => return Poll::Ready(Err(broke)),
                Some(Poll::Pending) => {
                    blocked = bypass.is_blocked();
                    break;
                }
            }
            match upstream.poll_front(cx) {
                Poll::Ready(Ok(Front::Data)) => {
                    let before = upstream.data().len();
                    match client.poll_take(cx, upstream) {
                        Poll::Ready(Ok(())) => {
                            moved = true;
                            *bytes += (before - upstream.data().len()) as u64;
                        }
                        Poll::Ready(Err(Fault::WrongLength)) => {
                            return Poll::Ready(Err(Broke::Upstream(Fault::WrongLength)));
                        }
                        Poll::Ready(Err(fault)) => return Poll::Ready(Err(Broke::Client(fault))),
                        Poll::Pending => {
                            blocked = true;
                            break;
                        }
                    }
                }
                Poll::Ready(Ok(Front::End)) => match client.finish(upstream.trailers()) {
                    Ok(()) => received = true,
                    Err(fault) => return Poll::Ready(Err(Broke::Upstream(fault))),
                },
                Poll::Ready(Err(fault)) => return Poll::Ready(Err(Broke::Upstream(fault))),
                Poll::Pending => break,
            }
        }
        match client.poll_flush(cx) {
            Poll::Ready(Ok(())) if received => return Poll::Ready(Ok(())),
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(fault)) => return Poll::Ready(Err(Broke::Client(fault))),
            Poll::Pending => blocked = true,
        }
        if !blocked && sending.is_over() && client.poll_gone(cx).is_ready() {
            return Poll::Ready(Err(Broke::ClientGone));
        }
        let silence = silence.get_or_insert_with(|| Idle::new(idle));
        silence.moved |= moved;
        timer.set(earlier(deadline, Some(silence.deadline())));
        if timer.poll(cx).is_ready() {
            let expired = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            return Poll::Ready(Err(match (expired, blocked) {
                (true, _) => Broke::Deadline,
                (false, true) => Broke::ClientIdle,
                (false, false) => Broke::UpstreamIdle,
            }));
        }
        Poll::Pending
    })
    .await
}

/// Sends a body that is there, and the end.
pub(crate) async fn send<C: Client>(
    client: &mut C,
    body: &mut impl Source,
    timer: &mut Timer,
    idle: Duration,
) -> Result<(), Broke> {
    let mut silence: Option<Idle> = None;
    let mut finished = false;
    poll_fn(|cx| {
        let mut moved = false;
        while !finished {
            match body.poll_front(cx) {
                Poll::Ready(Ok(Front::Data)) => match client.poll_take(cx, body) {
                    Poll::Ready(Ok(())) => moved = true,
                    Poll::Ready(Err(fault)) => return Poll::Ready(Err(Broke::Client(fault))),
                    Poll::Pending => break,
                },
                Poll::Ready(Ok(Front::End)) => match client.finish(None) {
                    Ok(()) => finished = true,
                    Err(fault) => return Poll::Ready(Err(Broke::Client(fault))),
                },
                Poll::Ready(Err(fault)) => return Poll::Ready(Err(Broke::Client(fault))),
                Poll::Pending => break,
            }
        }
        match client.poll_flush(cx) {
            Poll::Ready(Ok(())) if finished => return Poll::Ready(Ok(())),
            Poll::Ready(Err(fault)) => return Poll::Ready(Err(Broke::Client(fault))),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        let silence = silence.get_or_insert_with(|| Idle::new(idle));
        silence.moved |= moved;
        timer.set(Some(silence.deadline()));
        timer.poll(cx).map(|()| Err(Broke::ClientIdle))
    })
    .await
}
