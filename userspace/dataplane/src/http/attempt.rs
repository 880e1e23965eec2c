//! Trying endpoints of a backend until one gives an answer that can be passed on.

use std::{net::SocketAddr, time::Duration};

use pierhead_http1::{BodyLength, Status, upgrade_accepted};
use pierhead_model::Limits;
use smallvec::SmallVec;
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    body::Fault,
    client::Client,
    local::Scratch,
    pipeline::{Stop, Work},
    policy::{retry, retry::Failed, stream, timeouts},
    pump,
    pump::{Broke, Patience},
    reply::Reply,
    rules::Rule,
    timer::earlier,
    upgrade::Upgrade,
};
use crate::{
    observe::Reason,
    upstream::{Backend, ConnectError, Lease, OpenError, Upstream},
};

/// What all attempts of a request share.
pub(super) struct Attempts<'a> {
    pub(super) backend: &'a Backend,
    pub(super) rule: &'a Rule,
    pub(super) limits: &'a Limits,
    pub(super) upgrade: Option<&'a Upgrade>,
    pub(super) deadline: Option<Instant>,
}

impl Attempts<'_> {
    fn attempt_deadline(&self, began: Instant) -> Option<Instant> {
        let of_attempt = self.rule.timeouts.backend_request.map(|limit| began + limit);
        earlier(self.deadline, of_attempt)
    }
}

/// A final head has come; the body has not been read.
pub(super) struct Answered {
    pub(super) upstream: Upstream,
    pub(super) length: BodyLength,
    pub(super) lease: Lease,
    pub(super) deadline: Option<Instant>,
}

impl<C: Client> Work<'_, '_, C> {
    /// Tries until there is an answer to pass on.
    pub(super) async fn attempts(
        &mut self,
        plan: &Attempts<'_>,
        scratch: &mut Scratch,
        body: BodyLength,
    ) -> Result<Answered, Stop> {
        let worker = &self.cx.conn.worker;
        let mut tried: SmallVec<[SocketAddr; 4]> = SmallVec::new();
        let mut stale = 0;
        let mut count = 0;
        loop {
            let Some(lease) = self.cx.local().pool.pick(plan.backend, &tried) else {
                return Err(Reply::new(503, Reason::NoEndpoint).into());
            };
            self.facts.endpoint = Some(lease.address());
            self.facts.attempts += 1;
            count += 1;
            let cells = plan.backend.cells.of(worker.number);
            cells.attempts.add(1);
            // What came before the first is microseconds.
            let began = if self.facts.attempts == 1 {
                self.facts.began
            } else {
                self.cx.local().now()
            };
            let outcome = self.attempt(plan, &lease, scratch, body, began, stale > 0).await;
            let (failed, stop) = match outcome {
                Ok((upstream, length)) => {
                    let latency = self.cx.local().now() - began;
                    cells.latency.record(latency);
                    self.facts.upstream = Some(latency);
                    let failed = Failed::Status(scratch.response.status.code());
                    let answered = Answered {
                        upstream,
                        length,
                        lease,
                        deadline: plan.attempt_deadline(began),
                    };
                    (failed, Ok(answered))
                }
                Err((failed, reply)) => {
                    if let Stop::Reply(reply) = &reply
                        && let Some(errors) = cells.errors.get(reply.reason.index())
                    {
                        errors.add(1);
                    }
                    if failed == Some(Failed::Stale) && stale < 2 {
                        // Found dead before anything came back: as if it had not been in the pool.
                        stale += 1;
                        count -= 1;
                        self.tape.rewind();
                        continue;
                    }
                    let Some(failed) = failed else {
                        return Err(reply);
                    };
                    (failed, Err((reply, lease)))
                }
            };
            if let (Ok(_), Failed::Status(code)) = (&stop, failed)
                && code < 400
            {
                return stop.map_err(|(reply, _)| reply);
            }
            let address = match &stop {
                Ok(answered) => answered.lease.address(),
                Err((_, lease)) => lease.address(),
            };
            if !tried.contains(&address) {
                tried.push(address);
            }
            let others = plan.backend.endpoints().choice().len() > tried.len();
            let random = self.cx.local().pool.random();
            let idempotent = scratch.request.method.is_idempotent();
            let again = retry::again(plan.rule.retry.as_deref(), failed, count, others, idempotent, random);
            let Some(delay) = again.filter(|_| self.tape.is_replayable() && !self.client.is_started()) else {
                return stop.map_err(|(reply, _)| reply);
            };
            // What was answered is dropped with its connection state settled by the next attempt.
            drop(stop);
            if tried.len() >= plan.backend.endpoints().choice().len() {
                tried.clear();
                tried.push(address);
            }
            if !delay.is_zero() {
                let wait = Instant::now() + delay;
                if plan.deadline.is_some_and(|deadline| wait >= deadline) {
                    sleep_until(plan.deadline.unwrap_or(wait)).await;
                    return Err(Reply::new(504, Reason::RequestTimeout).into());
                }
                sleep(delay).await;
            }
            self.tape.rewind();
        }
    }

    /// One attempt: connect, send, wait for the head.
    async fn attempt(
        &mut self,
        plan: &Attempts<'_>,
        lease: &Lease,
        scratch: &mut Scratch,
        body: BodyLength,
        began: Instant,
        fresh: bool,
    ) -> Result<(Upstream, BodyLength), (Option<Failed>, Stop)> {
        let of_attempt = timeouts::of_attempt(&plan.rule.timeouts);
        let deadline = earlier(plan.deadline, of_attempt);
        let left = deadline.map_or(Duration::MAX, |deadline| deadline - Instant::now());
        let limit = plan.limits.connect_timeout.min(left);
        let begun = Upstream::begin(
            lease,
            plan.backend,
            &scratch.request,
            body,
            plan.upgrade.is_some(),
            fresh,
            limit,
        );
        let expired = |which: Option<Instant>| which.is_some_and(|at| Instant::now() >= at);
        let timed_out = || {
            if expired(plan.deadline) {
                (None, Reply::new(504, Reason::RequestTimeout).into())
            } else {
                (Some(Failed::Timeout), Reply::new(504, Reason::BackendTimeout).into())
            }
        };
        let mut upstream = match begun.await {
            Ok(upstream) => upstream,
            Err(_) if expired(deadline) => return Err(timed_out()),
            Err(why) => {
                tracing::debug!(address = %lease.address(), %why, "no connection to a backend");
                let reply = Reply::new(503, reason_of_open(&why));
                let failed = (!matches!(why, OpenError::Target)).then_some(Failed::NotBegun);
                return Err((failed, reply.into()));
            }
        };
        if upstream.has_opened() {
            plan.backend.cells.of(self.cx.conn.worker.number).connects.add(1);
        }
        let patience = Patience {
            deadline,
            idle: stream::idle_limit(&scratch.request.headers, plan.limits),
        };
        // Given up only where another can be asked.
        let look = (upstream.may_be_unheard() && scratch.request.method.is_idempotent())
            .then(|| began + plan.limits.connect_timeout);
        let asked = pump::ask(
            self.client,
            self.tape,
            &mut upstream,
            &mut scratch.response,
            self.timer,
            patience,
            look,
        );
        match asked.await {
            Ok(length) => {
                if scratch.response.status == Status::SWITCHING_PROTOCOLS
                    && !plan
                        .upgrade
                        .is_some_and(|upgrade| upgrade_accepted(&scratch.response, &upgrade.protocol))
                {
                    // Nobody asked for what it switched to.
                    return Err((None, Reply::new(502, Reason::BackendProtocol).into()));
                }
                Ok((upstream, length))
            }
            Err(Broke::Deadline) => Err(timed_out()),
            Err(Broke::Upstream(fault)) => {
                let replay = self.tape.is_replayable();
                let failed = if upstream.is_stale(&fault)
                    && replay
                    && (scratch.request.method.is_idempotent() || upstream.is_not_begun(&fault))
                {
                    Failed::Stale
                } else if upstream.is_not_begun(&fault) {
                    Failed::NotBegun
                } else {
                    Failed::Broken
                };
                if matches!(fault, Fault::Unheard) {
                    lease.avoid(plan.backend);
                }
                tracing::debug!(address = %lease.address(), %fault, "a backend broke an exchange");
                let reason = match fault {
                    Fault::Malformed(_) | Fault::WrongLength => Reason::BackendProtocol,
                    _ => Reason::BackendReset,
                };
                Err((Some(failed), Reply::new(502, reason).into()))
            }
            Err(broke) => Err((None, stop_of(broke))),
        }
    }
}

pub(super) fn reason_of_open(why: &OpenError) -> Reason {
    match why {
        OpenError::Connect(ConnectError::Tcp(_)) | OpenError::Lost => Reason::ConnectFailed,
        OpenError::Connect(ConnectError::Timeout) => Reason::ConnectTimeout,
        OpenError::Connect(ConnectError::Tls(_)) => Reason::BackendTls,
        OpenError::Connect(ConnectError::NoHttp2) | OpenError::Stream(_) | OpenError::Target => Reason::BackendProtocol,
    }
}

pub(super) fn reason_of_broke(broke: &Broke) -> Reason {
    match broke {
        Broke::Client(Fault::TooLarge) => Reason::TooLarge,
        Broke::Client(Fault::Malformed(_) | Fault::WrongLength) => Reason::BadRequest,
        Broke::Client(_) => Reason::ClientReset,
        Broke::ClientGone => Reason::ClientClosed,
        Broke::ClientIdle => Reason::ClientTimeout,
        Broke::Upstream(Fault::Malformed(_) | Fault::WrongLength) => Reason::BackendProtocol,
        Broke::Upstream(_) => Reason::BackendReset,
        Broke::UpstreamIdle => Reason::IdleTimeout,
        Broke::Deadline => Reason::RequestTimeout,
    }
}

/// Before the answer has begun: what the client is told, if it is still there.
pub(super) fn stop_of(broke: Broke) -> Stop {
    let reason = reason_of_broke(&broke);
    match broke {
        Broke::Client(Fault::TooLarge) => Reply::new(413, reason).closing().into(),
        Broke::Client(Fault::Malformed(error)) => Reply::new(error.status(), reason).closing().into(),
        Broke::Client(Fault::WrongLength) => Reply::new(400, reason).closing().into(),
        Broke::ClientIdle => Reply::new(408, reason).closing().into(),
        Broke::Client(_) | Broke::ClientGone => Stop::Broken(reason),
        Broke::Upstream(_) => Reply::new(502, reason).into(),
        Broke::UpstreamIdle | Broke::Deadline => Reply::new(504, reason).into(),
    }
}
