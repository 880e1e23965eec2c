//! A request from its head to the last byte of its answer: a flat list of phases.
//!
//! Limits and normalisation → listener and route → request policies, once → backend by weight → attempts → response
//! policies, once → body → one record. A request holds one runtime from start to end.

use std::sync::Arc;

use pierhead_http1::{BodyLength, Known, Method, OwnedValue, ResponseHead, Status, Value, Version, encode};
use pierhead_model::{BackendProtocol, Limits, PathMatch};
use pierhead_route::Found;
use tokio::time::Instant;

use super::{
    attempt::{Answered, Attempts, reason_of_broke},
    body::Ready,
    client::Client,
    context::Context,
    facts::Facts,
    local,
    local::Scratch,
    lookup::View,
    mirroring,
    policy::{cors::Cors, forwarded, host, path, redirect, rewrite, stream, timeouts},
    pump,
    reply::Reply,
    rules::{Filters, Rule},
    tape::Tape,
    timer::Timer,
    tunnel,
    upgrade::{self, Upgrade},
};
use crate::{observe::Reason, runtime::ListenerRuntime, upstream::Backend};

/// Why there is no answer of a backend to pass on.
pub(super) enum Stop {
    /// We answer ourselves.
    Reply(Reply),
    /// It broke after the answer had begun, or there is nobody to answer.
    Broken(Reason),
}

impl From<Reply> for Stop {
    fn from(reply: Reply) -> Self {
        Self::Reply(reply)
    }
}

/// Serves one request. `scratch.request` holds its head. Afterwards the client's side knows whether it was completed.
pub(crate) async fn run<C: Client>(
    cx: &Context,
    scratch: &mut Scratch,
    body: BodyLength,
    client: &mut C,
    timer: &mut Timer,
) {
    let runtime = cx.conn.worker.runtime();
    let mut facts = Facts::new(Instant::now());
    let mut tape = Tape::default();
    let work = Work {
        cx,
        client: &mut *client,
        timer: &mut *timer,
        tape: &mut tape,
        facts: &mut facts,
    };
    let result = work.serve(&runtime, scratch, body).await;
    match result {
        Ok(()) => {}
        Err(Stop::Reply(reply)) => {
            facts.reason = reply.reason;
            answer(&reply, scratch, client, timer, &mut facts).await;
        }
        Err(Stop::Broken(reason)) => {
            facts.reason = reason;
            client.abort();
        }
    }
    facts.bytes_in = tape.received;
    facts.record(cx, scratch);
}

/// Refuses what could not even be read as a request.
pub(crate) async fn refuse<C: Client>(
    cx: &Context,
    scratch: &mut Scratch,
    status: Status,
    client: &mut C,
    timer: &mut Timer,
) {
    let mut facts = Facts::new(Instant::now());
    facts.reason = Reason::BadRequest;
    let reply = Reply::new(status.code(), Reason::BadRequest).closing();
    answer(&reply, scratch, client, timer, &mut facts).await;
    facts.record(cx, scratch);
}

async fn answer<C: Client>(
    reply: &Reply,
    scratch: &mut Scratch,
    client: &mut C,
    timer: &mut Timer,
    facts: &mut Facts<'_>,
) {
    if client.is_started() {
        client.abort();
        return;
    }
    let media = scratch.request.headers.first(Known::ContentType);
    let grpc = media.is_some_and(stream::is_grpc);
    let text = reply.write(grpc, &mut scratch.response);
    facts.status = scratch.response.status.code();
    if reply.close {
        client.close_after();
    }
    if client.start(&scratch.response, Reply::body(text)).is_err() {
        client.abort();
        return;
    }
    match pump::send(
        client,
        &mut Ready(text.as_bytes()),
        timer,
        Limits::default().body_idle_timeout,
    )
    .await
    {
        Ok(()) => facts.bytes_out = text.len() as u64,
        Err(_) => client.abort(),
    }
}

/// One request at work.
pub(super) struct Work<'w, 'r, C> {
    pub(super) cx: &'w Context,
    pub(super) client: &'w mut C,
    pub(super) timer: &'w mut Timer,
    pub(super) tape: &'w mut Tape,
    pub(super) facts: &'w mut Facts<'r>,
}

/// What the route says about a request.
struct Matched<'r> {
    listener: &'r ListenerRuntime,
    rule: &'r Rule,
    path: &'r PathMatch,
}

impl<'r, C: Client> Work<'_, 'r, C> {
    /// The phases, in order.
    async fn serve(
        mut self,
        runtime: &'r crate::runtime::Runtime,
        scratch: &mut Scratch,
        mut body: BodyLength,
    ) -> Result<(), Stop> {
        scratch.target.clear();
        scratch.target.extend_from_slice(scratch.request.target.as_bytes());
        scratch.host.clear();

        let mut upgrade = upgrade::asked(&scratch.request, self.client.protocol(), body);
        Self::normalise(scratch, upgrade.as_ref())?;
        let matched = self.find(runtime, scratch)?;
        let limits = matched.listener.limits();
        Self::check_length(limits, body)?;

        let origin = matched
            .rule
            .filters
            .cors
            .as_ref()
            .and_then(|_| Cors::origin_of(&scratch.request));
        self.request_policies(&matched, scratch, upgrade.as_ref())?;
        let (backend, filters) = self.choose_backend(matched.rule)?;
        if backend.protocol() == BackendProtocol::Http2
            && let Some(upgrade) = upgrade.take()
            && upgrade.extended_connect
        {
            // Our HTTP/2 backends are not asked for tunnels.
            return Err(Reply::new(501, Reason::BackendProtocol).into());
        }
        let mirrors = mirroring::Due::of(&matched.rule.filters, filters, &scratch.request);
        self.filter(filters, &matched, scratch)?;

        let keep = matched.rule.retry.is_some() || mirrors.is_some() || scratch.request.method.is_idempotent();
        *self.tape = Tape::new(keep && body != BodyLength::Empty, limits.body_bytes);
        if upgrade.is_some() {
            body = BodyLength::Empty;
        }
        let attempts = Attempts {
            backend,
            rule: matched.rule,
            limits,
            upgrade: upgrade.as_ref(),
            deadline: timeouts::of_exchange(&matched.rule.timeouts, self.facts.began),
        };
        let answered = self.attempts(&attempts, scratch, body).await;
        if let Some(mirrors) = mirrors {
            mirrors.send(self.cx, self.tape, limits.connect_timeout);
        }
        let answered = answered?;

        if let Some(upgrade) = &upgrade
            && scratch.response.status == Status::SWITCHING_PROTOCOLS
        {
            return self.tunnel(upgrade, answered, &matched, filters, scratch, origin).await;
        }
        if upgrade.is_some_and(|upgrade| upgrade.extended_connect) && scratch.response.status.code() < 300 {
            // To an extended CONNECT any 2xx says that there is a tunnel (RFC 8441 §5).
            return Err(Reply::new(502, Reason::BackendProtocol).into());
        }
        Self::response_policies(&matched, filters, &mut scratch.response, origin.as_ref());
        self.pass_on(answered, limits, scratch).await
    }

    /// Limits and normalisation: before anything is matched, so that matching and forwarding see the same.
    fn normalise(scratch: &mut Scratch, upgrade: Option<&Upgrade>) -> Result<(), Reply> {
        if scratch.request.method == Method::Connect && upgrade.is_none() {
            // We are no forward proxy.
            return Err(Reply::new(405, Reason::BadRequest).closing());
        }
        host::canonical(&scratch.request, &mut scratch.host);
        path::normalise(&mut scratch.request).map_err(|_| Reply::new(400, Reason::BadRequest))
    }

    /// The listener by SNI or Host, then the best match among its routes only.
    fn find(&mut self, runtime: &'r crate::runtime::Runtime, scratch: &Scratch) -> Result<Matched<'r>, Reply> {
        let conn = &self.cx.conn;
        if runtime.generation == 0 {
            // Nothing is known yet, which says nothing about this request.
            return Err(Reply::new(503, Reason::Draining));
        }
        let nobody = || Reply::new(404, Reason::NoSuchHost);
        let bind = runtime.binds.get(conn.bind.model.key).ok_or_else(nobody)?;
        let by_sni = conn.tls.as_ref().map(|tls| &*tls.listener);
        let listener = match host::select(bind, by_sni, &scratch.host) {
            host::Selected::Listener(listener) => listener,
            host::Selected::Misdirected => return Err(Reply::new(421, Reason::NoSuchHost)),
            host::Selected::Nobody => return Err(nobody()),
        };
        self.facts.listener = Some(listener);
        let site = listener.http().ok_or_else(nobody)?;
        let view = View {
            host: &scratch.host,
            head: &scratch.request,
        };
        let none = || Reply::new(404, Reason::NoRoute);
        let Found {
            route,
            handle,
            rule_number,
            path,
        } = site.table.find(&view).ok_or_else(none)?;
        self.facts.route = Some(&route.id.0);
        let rule = handle.rule(rule_number).ok_or_else(none)?;
        Ok(Matched { listener, rule, path })
    }

    /// Before `100 Continue` is sent: a client that asks first learns the answer without sending the body.
    fn check_length(limits: &Limits, body: BodyLength) -> Result<(), Reply> {
        match (body, limits.body_bytes) {
            (BodyLength::Exact(length), Some(limit)) if length > limit => {
                Err(Reply::new(413, Reason::TooLarge).closing())
            }
            _ => Ok(()),
        }
    }

    /// Once per request. Fields of the connection go first, so that nothing a filter sets is taken for one; forwarded
    /// fields next, so that filters see and may change them; filters last.
    fn request_policies(
        &self,
        matched: &Matched<'_>,
        scratch: &mut Scratch,
        upgrade: Option<&Upgrade>,
    ) -> Result<(), Reply> {
        let head = &mut scratch.request;
        pierhead_http1::strip_hop_by_hop(&mut head.headers);
        // The expectation is kept by us.
        head.headers.remove(Known::Expect);
        if !head.headers.contains(Known::Host)
            && let Ok(host) = Value::new(self.cx.conn.local.to_string().as_bytes())
        {
            // Only HTTP/1.0 may leave it out, and we speak 1.1 from here on.
            head.headers.append(Known::Host, host);
        }
        let pool = &self.cx.local().pool;
        forwarded::apply(head, &self.cx.forwarded, || [pool.random(), pool.random()]);
        if let Some(upgrade) = upgrade {
            upgrade.prepare(head, || pool.random());
        }
        self.filter(&matched.rule.filters, matched, scratch)
    }

    /// The filters of a rule, or of the backend reference that was chosen. First what answers without a backend.
    fn filter(&self, filters: &Filters, matched: &Matched<'_>, scratch: &mut Scratch) -> Result<(), Reply> {
        if filters.unsupported {
            return Err(Reply::new(500, Reason::Internal));
        }
        let head = &mut scratch.request;
        // Preflights carry no credentials and are not for the backend.
        if let Some(cors) = &filters.cors
            && Cors::is_preflight(head)
        {
            let mut reply = Reply::new(204, Reason::Answered);
            reply.headers = Some(Box::new(cors.preflight(head)));
            return Err(reply);
        }
        if let Some(filter) = &filters.redirect {
            let place = redirect::Place {
                https: self.cx.https,
                port: matched.listener.model.port,
                found: matched.path,
            };
            let location = redirect::location(filter, head, place);
            let mut reply = Reply::new(filter.status, Reason::Redirected);
            reply.location = Value::new(&location).ok().map(|value| value.to_owned());
            return Err(reply);
        }
        for modifier in &filters.request {
            modifier.apply(&mut head.headers);
        }
        if let Some(filter) = &filters.rewrite {
            let rewritten = rewrite::apply(filter, matched.path, head);
            rewritten.map_err(|_| Reply::new(500, Reason::Internal))?;
        }
        Ok(())
    }

    /// By weight, exact over all workers. Whatever share falls on something unusable fails.
    fn choose_backend(&mut self, rule: &'r Rule) -> Result<(&'r Arc<Backend>, &'r Filters), Reply> {
        let picked = rule.backends.pick().ok_or_else(|| Reply::new(500, Reason::NoBackend))?;
        self.facts.backend = Some(picked.id);
        let invalid = || Reply::new(500, Reason::BackendInvalid);
        let backend = picked.backend.ok_or_else(invalid)?;
        backend.usable().map_err(|_| invalid())?;
        let filters = rule.of_backend.get(picked.number).ok_or_else(invalid)?;
        Ok((backend, filters))
    }

    /// Once per answer. Fields of the connection first; then CORS, which replaces what the backend said; then modifiers,
    /// those of the backend reference before those of the rule.
    fn response_policies(
        matched: &Matched<'_>,
        filters: &Filters,
        head: &mut ResponseHead,
        origin: Option<&OwnedValue>,
    ) {
        pierhead_http1::strip_hop_by_hop(&mut head.headers);
        if let (Some(cors), Some(origin)) = (&matched.rule.filters.cors, origin) {
            cors.apply(origin, &mut head.headers);
        }
        for modifier in filters.response.iter().chain(&matched.rule.filters.response) {
            modifier.apply(&mut head.headers);
        }
        if !head.headers.contains(Known::Date) {
            encode::ensure_date(&mut head.headers, &local::date());
        }
    }

    /// Head, body, trailers.
    async fn pass_on(self, answered: Answered, limits: &Limits, scratch: &Scratch) -> Result<(), Stop> {
        let Answered {
            mut upstream,
            length,
            lease,
            deadline,
        } = answered;
        self.facts.status = scratch.response.status.code();
        self.client
            .start(&scratch.response, length)
            .map_err(|_| Stop::Broken(Reason::ClientClosed))?;
        let idle = stream::idle_limit(&scratch.response.headers, limits);
        let mut bytes = 0;
        let relayed = pump::relay(
            self.client,
            self.tape,
            &mut upstream,
            self.timer,
            deadline,
            idle,
            &mut bytes,
        );
        let relayed = relayed.await;
        self.facts.bytes_out = bytes;
        upstream.end(&lease);
        relayed.map_err(|broke| Stop::Broken(reason_of_broke(&broke)))
    }

    /// After a 101: bytes both ways until both sides are done.
    async fn tunnel(
        self,
        upgrade: &Upgrade,
        answered: Answered,
        matched: &Matched<'_>,
        filters: &Filters,
        scratch: &mut Scratch,
        origin: Option<OwnedValue>,
    ) -> Result<(), Stop> {
        let Some(wire) = answered.upstream.into_wire() else {
            return Err(Reply::new(502, Reason::BackendProtocol).into());
        };
        Self::response_policies(matched, filters, &mut scratch.response, origin.as_ref());
        upgrade.answer(&mut scratch.response, scratch.request.version == Version::Http2);
        self.facts.status = scratch.response.status.code();
        self.client
            .switch(&scratch.response)
            .map_err(|_| Stop::Broken(Reason::ClientClosed))?;
        let limit = matched.listener.limits().stream_idle_timeout;
        let carried = Box::pin(tunnel::run(self.client, wire, self.timer, limit)).await;
        self.tape.received += carried.up;
        self.facts.bytes_out = carried.down;
        match carried.broke {
            None => Ok(()),
            Some(broke) => Err(Stop::Broken(reason_of_broke(&broke))),
        }
    }
}
