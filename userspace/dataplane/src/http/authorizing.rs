//! Asking an authorization service. Its answer decides about the request; whatever keeps it from answering is a no.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use pierhead_http1::{BodyLength, Headers, Known, RequestHead, ResponseHead, Status};
use pierhead_model::{BackendProtocol, Limits};
use smallvec::SmallVec;
use tokio::time::{Instant, timeout_at};

use super::{
    attempt::{Answered, reason_of_open, stop_of},
    body::{Fault, Source as _},
    client::Client,
    local::Scratch,
    pipeline::{Stop, Work},
    policy::{
        ext_authz::{self, Verdict},
        external_auth::{ExternalAuth, HttpAuth, Protocol},
        path,
    },
    pump,
    reply::Reply,
    subrequest,
    tape::Tape,
    timer::earlier,
};
use crate::{
    observe::Reason,
    upstream::{Backend, Lease, Upstream},
};

/// How long a service may take in all. The API has no field for it.
const LIMIT: Duration = Duration::from_secs(10);

/// Endpoints tried before a service counts as not there.
const TRIES: usize = 3;

/// Longest answer of a gRPC service, and most of a yes that is read so that the connection can be used again.
const ANSWER: usize = 256 * 1024;

/// What bounds the question.
#[derive(Clone, Copy)]
pub(super) struct Bounds<'a> {
    pub(super) limits: &'a Limits,
    /// Of the whole exchange.
    pub(super) deadline: Option<Instant>,
    /// Of the client's request; `Empty` for what becomes a tunnel.
    pub(super) body: BodyLength,
}

/// Why a request does not go on.
pub(super) enum Denial {
    /// The service's own answer is passed on; its head is in the scratch.
    Passed(Box<Answered>),
    Reply(Box<Reply>),
}

/// A question on its way, with everything that was found out about the way.
struct Asked {
    lease: Lease,
    upstream: Upstream,
    length: BodyLength,
    until: Instant,
}

impl<'r, C: Client> Work<'_, 'r, C> {
    /// `None`: the request may go on, changed as the service wants it.
    pub(super) async fn authorize(
        &mut self,
        auth: &'r ExternalAuth,
        bounds: Bounds<'_>,
        scratch: &mut Scratch,
    ) -> Result<Option<Denial>, Stop> {
        let invalid = || Stop::from(Reply::new(500, Reason::BackendInvalid));
        let backend = auth.backend.as_ref().ok_or_else(invalid)?;
        backend.usable().map_err(|_| invalid())?;
        self.collect(auth.body_bytes(), bounds).await?;
        let until = Instant::now() + LIMIT;
        let until = earlier(bounds.deadline, Some(until)).unwrap_or(until);
        let sends_body = auth.body_bytes() > 0;
        match &auth.protocol {
            Protocol::Http(http) => {
                self.authorize_http(http, sends_body, backend, bounds, until, scratch)
                    .await
            }
            Protocol::Grpc(grpc) => {
                self.authorize_grpc(grpc, sends_body, backend, bounds, until, scratch)
                    .await
            }
        }
        .inspect(|denial| {
            if denial.is_some() {
                self.facts.reason = Reason::Denied;
                self.facts.backend = Some(&backend.model.id);
            }
        })
    }

    /// Takes the client's body onto the tape, once for all services.
    async fn collect(&mut self, most: usize, bounds: Bounds<'_>) -> Result<(), Stop> {
        let too_large = || Stop::from(Reply::new(413, Reason::TooLarge).closing());
        if most == 0 || bounds.body == BodyLength::Empty {
            return Ok(());
        }
        if let Some(known) = self.tape.collected() {
            return if known.len() > most { Err(too_large()) } else { Ok(()) };
        }
        if let BodyLength::Exact(length) = bounds.body
            && length > most as u64
        {
            // Before `100 Continue`.
            return Err(too_large());
        }
        *self.tape = Tape::collecting(most, bounds.limits.body_bytes);
        let idle = bounds.limits.body_idle_timeout;
        let collected = pump::collect(self.client, self.tape, self.timer, bounds.deadline, idle).await;
        collected.map_err(stop_of)
    }

    async fn authorize_http(
        &self,
        auth: &HttpAuth,
        sends_body: bool,
        backend: &Arc<Backend>,
        bounds: Bounds<'_>,
        until: Instant,
        scratch: &mut Scratch,
    ) -> Result<Option<Denial>, Stop> {
        let bad_target = |_| Stop::from(Reply::new(400, Reason::BadRequest));
        let head = auth.ask(&scratch.request).map_err(bad_target)?;
        // What was collected for another service is not for this one.
        let body = if sends_body { self.tape.collected() } else { None }.unwrap_or_default();
        let answer = &mut scratch.response;
        let asked = self.ask(backend, &head, body, bounds.limits, until, answer).await?;
        if scratch.response.status == Status::OK {
            auth.take(&mut scratch.response.headers, &mut scratch.request.headers);
            asked.finish().await;
            return Ok(None);
        }
        if scratch.response.status == Status::SWITCHING_PROTOCOLS {
            return Err(failed("it switched protocols", backend));
        }
        Ok(Some(Denial::Passed(Box::new(Answered {
            upstream: asked.upstream,
            length: asked.length,
            lease: asked.lease,
            deadline: bounds.deadline,
        }))))
    }

    async fn authorize_grpc(
        &mut self,
        auth: &ext_authz::Asking,
        sends_body: bool,
        backend: &Arc<Backend>,
        bounds: Bounds<'_>,
        until: Instant,
        scratch: &mut Scratch,
    ) -> Result<Option<Denial>, Stop> {
        if backend.protocol() != BackendProtocol::Http2 {
            return Err(failed("gRPC needs HTTP/2", backend));
        }
        let conn = &self.cx.conn;
        let sent = if sends_body { self.tape.collected() } else { None }.unwrap_or_default();
        let about = ext_authz::About {
            peer: conn.peer,
            local: conn.local,
            https: self.cx.https,
            sni: conn.tls.as_ref().and_then(|tls| tls.sni.as_deref()),
            time: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            size: match bounds.body {
                BodyLength::Exact(length) => Some(length),
                BodyLength::Empty => Some(0),
                BodyLength::Chunked | BodyLength::UntilClose => None,
            },
            body: sent,
        };
        let authority = match &backend.model.tls {
            Some(tls) => tls.sni.as_str().to_owned(),
            None => {
                let origin = &backend.model.origin;
                format!("{}.{}", origin.name, origin.namespace)
            }
        };
        let question = auth.ask(&scratch.request, &about, &authority, until - Instant::now());
        let (head, message) = question.map_err(|_| failed("it has no name", backend))?;
        let mut asked = self
            .ask(backend, &head, &message, bounds.limits, until, &mut scratch.response)
            .await?;
        let body = timeout_at(until, subrequest::read(&mut asked.upstream, ANSWER)).await;
        let body = body.map_err(|_| too_late())?;
        let body = body.map_err(|why| failed(&why, backend))?;
        let status = |headers: &Headers| headers.only(Known::GrpcStatus).map(<[u8]>::to_vec);
        let trailers = asked.upstream.trailers().and_then(status);
        let grpc_status = trailers.or_else(|| status(&scratch.response.headers));
        asked.upstream.end(&asked.lease, Instant::now());
        if scratch.response.status != Status::OK || grpc_status.as_deref() != Some(b"0") {
            let code = grpc_status.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
            let status = scratch.response.status.code();
            return Err(failed(&format!("status {status}, grpc-status {code:?}"), backend));
        }
        match ext_authz::read(&body).map_err(|why| failed(&why, backend))? {
            Verdict::Allowed(allowed) => {
                let applied = allowed.apply(&mut scratch.request);
                applied.map_err(|why| failed(&why, backend))?;
                path::normalise(&mut scratch.request).map_err(|_| failed("its path is none", backend))?;
                self.added.extend(allowed.response);
                Ok(None)
            }
            Verdict::Denied(denied) => {
                let mut reply = Reply::new(denied.status, Reason::Denied);
                let mut headers = Headers::new();
                for change in &denied.headers {
                    change.apply(&mut headers);
                }
                reply.headers = Some(Box::new(headers));
                reply.body = Some(denied.body);
                Ok(Some(Denial::Reply(Box::new(reply))))
            }
        }
    }

    /// A question changes nothing, so it is asked again when a connection was dead or an endpoint not there.
    async fn ask(
        &self,
        backend: &Arc<Backend>,
        head: &RequestHead,
        body: &[u8],
        limits: &Limits,
        until: Instant,
        answer: &mut ResponseHead,
    ) -> Result<Asked, Stop> {
        let cells = backend.cells.of(self.cx.conn.worker.number);
        let mut tried: SmallVec<[SocketAddr; TRIES]> = SmallVec::new();
        let mut fresh = false;
        loop {
            let Some(lease) = self.cx.local().pool.pick(backend, &tried) else {
                return Err(Reply::new(503, Reason::NoEndpoint).into());
            };
            cells.attempts.add(1);
            let began = Instant::now();
            let limit = limits.connect_timeout.min(until.saturating_duration_since(began));
            // "The length sent must be correct", also when it is zero.
            let length = BodyLength::Exact(body.len() as u64);
            let begun = Upstream::begin(&lease, backend, head, length, false, fresh, limit);
            let (reason, why, stale) = match begun.await {
                Ok(mut upstream) => {
                    if upstream.has_opened() {
                        cells.connects.add(1);
                    }
                    match timeout_at(until, subrequest::ask(&mut upstream, body, answer)).await {
                        Ok(Ok(length)) => {
                            cells.latency.record(began.elapsed());
                            return Ok(Asked {
                                lease,
                                upstream,
                                length,
                                until,
                            });
                        }
                        Ok(Err(fault)) => (reason_of(&fault), fault.to_string(), upstream.is_stale(&fault)),
                        Err(_) => {
                            if let Some(errors) = cells.errors.get(Reason::BackendTimeout.index()) {
                                errors.add(1);
                            }
                            return Err(too_late());
                        }
                    }
                }
                Err(why) => (reason_of_open(&why), why.to_string(), false),
            };
            if let Some(errors) = cells.errors.get(reason.index()) {
                errors.add(1);
            }
            tracing::debug!(address = %lease.address(), why, "an authorization service did not answer");
            if stale && !fresh {
                fresh = true;
                continue;
            }
            fresh = false;
            if !tried.contains(&lease.address()) {
                tried.push(lease.address());
            }
            let others = backend.endpoints().choice().len() > tried.len();
            if !others || tried.len() >= TRIES || Instant::now() >= until {
                return Err(Reply::new(503, Reason::AuthFailed).into());
            }
        }
    }
}

impl Asked {
    /// Reads what a yes has for a body, so that the connection can be used again.
    async fn finish(mut self) {
        if let Ok(Ok(_)) = timeout_at(self.until, subrequest::read(&mut self.upstream, ANSWER)).await {
            self.upstream.end(&self.lease, Instant::now());
        }
    }
}

fn reason_of(fault: &Fault) -> Reason {
    match fault {
        Fault::Malformed(_) | Fault::WrongLength | Fault::TooLarge => Reason::BackendProtocol,
        Fault::Io(_) | Fault::Http2(_) | Fault::Cut | Fault::Unheard => Reason::BackendReset,
    }
}

fn too_late() -> Stop {
    Reply::new(504, Reason::AuthFailed).into()
}

fn failed(why: &(impl std::fmt::Display + ?Sized), backend: &Backend) -> Stop {
    tracing::debug!(backend = %backend.model.id, %why, "an authorization service gave no usable answer");
    Reply::new(503, Reason::AuthFailed).into()
}
