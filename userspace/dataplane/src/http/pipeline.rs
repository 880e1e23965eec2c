//! A request from its head to the last byte of its answer: a flat list of phases.
//!
//! Limits and normalisation → listener and its filters → route → request policies, once → backend by weight → attempts →
//! response policies, once → body → one record. A request holds one runtime from start to end.

use std::sync::Arc;

use pierhead_http1::{BodyLength, Known, Method, OwnedValue, ResponseHead, Status, Value, Version, encode};
use pierhead_model::{BackendProtocol, Limits, PathMatch};
use pierhead_route::Found;

use super::{
    attempt::{Answered, Attempts, reason_of_broke},
    authorizing::{Bounds, Denial},
    body::Ready,
    client::Client,
    context::Context,
    facts::Facts,
    local,
    local::Scratch,
    lookup::View,
    mirroring,
    policy::{
        cors::Cors, ext_authz::Change, forwarded, forwarded::Said, host, path, redirect, rewrite, stream, timeouts,
    },
    pump::{self, Passing, Patience, Sending},
    reply::Reply,
    rules::{Filters, RouteHandle, Rule, Step},
    tape::Tape,
    timer::Timer,
    tunnel,
    upgrade::{self, Upgrade},
};
use crate::{
    conn::Conn,
    observe::Reason,
    runtime::{HttpSite, ListenerRuntime},
    upstream::Backend,
};

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
    let mut facts = Facts::new(cx.local().now());
    let mut tape = Tape::default();
    let work = Work {
        cx,
        client: &mut *client,
        timer: &mut *timer,
        tape: &mut tape,
        facts: &mut facts,
        added: Vec::new(),
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
    let mut facts = Facts::new(cx.local().now());
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
    if client.start(&scratch.response, Reply::length(text)).is_err() {
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
    pub(super) cx: &'r Context,
    pub(super) client: &'w mut C,
    pub(super) timer: &'w mut Timer,
    pub(super) tape: &'w mut Tape,
    pub(super) facts: &'w mut Facts<'r>,
    /// What authorization services add to the answer.
    pub(super) added: Vec<Change>,
}

/// What the route says about a request.
struct Matched<'r> {
    listener: &'r ListenerRuntime,
    rule: &'r Rule,
    found: Found<'r, RouteHandle>,
}

impl<'r> Matched<'r> {
    /// The path match that held.
    fn path(&self) -> Result<&'r PathMatch, Reply> {
        // It was looked up in the route that it was compiled from.
        self.found.path().ok_or_else(|| Reply::new(500, Reason::Internal))
    }
}

/// What the filters did not change: see [`Work::filter`].
#[derive(Clone, Copy)]
struct Filtering<'a, 'r> {
    matched: &'a Matched<'r>,
    bounds: Bounds<'a>,
    origin: Option<&'a OwnedValue>,
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
        let (listener, site) = self.select(runtime, scratch)?;
        let limits = listener.limits();
        Self::check_length(limits, body)?;
        if upgrade.is_some() {
            body = BodyLength::Empty;
        }

        let early = !site.filters.steps.is_empty() || site.filters.unsupported;
        if early {
            self.client_fields(listener, scratch, upgrade.as_ref());
            if let Some(denial) = self.before_routing(&site.filters, limits, body, scratch).await? {
                return self.deny(denial, limits, None, scratch).await;
            }
        }
        let matched = self.find(listener, site, scratch)?;
        let origin = matched
            .rule
            .filters
            .cors
            .as_ref()
            .and_then(|_| Cors::origin_of(&scratch.request));
        if !early {
            self.client_fields(listener, scratch, upgrade.as_ref());
        }
        let filtering = Filtering {
            matched: &matched,
            bounds: Bounds {
                limits,
                deadline: timeouts::of_exchange(&matched.rule.timeouts, self.facts.began),
                body,
            },
            origin: origin.as_ref(),
        };
        if !matched.rule.filters.leave_requests()
            && let Some(denial) = self.filter(&matched.rule.filters, filtering, scratch).await?
        {
            return self.deny(denial, limits, Some(filtering), scratch).await;
        }
        let (backend, filters) = self.choose_backend(matched.rule)?;
        if backend.protocol() == BackendProtocol::Http2
            && let Some(upgrade) = upgrade.take()
            && upgrade.extended_connect
        {
            // Our HTTP/2 backends are not asked for tunnels.
            return Err(Reply::new(501, Reason::BackendProtocol).into());
        }
        let mirrors = mirroring::Due::of(&matched.rule.filters, filters, &scratch.request);
        if !filters.leave_requests()
            && let Some(denial) = self.filter(filters, filtering, scratch).await?
        {
            return self.deny(denial, limits, Some(filtering), scratch).await;
        }

        if self.tape.collected().is_none() {
            let keep = matched.rule.retry.is_some() || mirrors.is_some() || scratch.request.method.is_idempotent();
            *self.tape = match body {
                BodyLength::Empty => Tape::without_body(),
                _ => Tape::new(keep, limits.body_bytes),
            };
        }
        let attempts = Attempts {
            backend,
            rule: matched.rule,
            limits,
            upgrade: upgrade.as_ref(),
            deadline: filtering.bounds.deadline,
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
        self.response_policies(Some((&matched, filters)), &mut scratch.response, origin.as_ref());
        let sending = Sending::new(&answered.upstream);
        self.pass_on(answered, sending, limits, scratch).await
    }

    /// Filters of the listener, in the order of the configuration, before any route is looked for.
    async fn before_routing(
        &mut self,
        filters: &'r Filters,
        limits: &Limits,
        body: BodyLength,
        scratch: &mut Scratch,
    ) -> Result<Option<Denial>, Stop> {
        if filters.unsupported {
            return Err(Reply::new(500, Reason::Internal).into());
        }
        let bounds = Bounds {
            limits,
            deadline: None,
            body,
        };
        for step in &filters.steps {
            let Step::Authorize(auth) = step else {
                // The model has no other here.
                return Err(Reply::new(500, Reason::Internal).into());
            };
            // What it needs is large, and most requests do not need it.
            if let Some(denial) = Box::pin(self.authorize(auth, bounds, scratch)).await? {
                return Ok(Some(denial));
            }
        }
        Ok(None)
    }

    /// What the client gets of an authorization service in place of a backend's answer.
    async fn deny(
        mut self,
        denial: Denial,
        limits: &Limits,
        filtering: Option<Filtering<'_, '_>>,
        scratch: &mut Scratch,
    ) -> Result<(), Stop> {
        let cors = filtering.and_then(|f| Some((f.matched.rule.filters.cors.as_ref()?, f.origin?)));
        match denial {
            Denial::Passed(answered) => {
                self.added.clear();
                self.response_policies(None, &mut scratch.response, None);
                if let Some((cors, origin)) = cors {
                    cors.apply(origin, &mut scratch.response.headers);
                }
                // The request's body is not for the service.
                self.pass_on(*answered, Sending::nothing(), limits, scratch).await
            }
            Denial::Reply(mut reply) => {
                if let Some((cors, origin)) = cors {
                    cors.apply(origin, reply.headers.get_or_insert_default());
                }
                Err(Stop::Reply(*reply))
            }
        }
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

    /// The listener by SNI or Host. No filter changes what it is chosen by.
    fn select(
        &mut self,
        runtime: &'r crate::runtime::Runtime,
        scratch: &Scratch,
    ) -> Result<(&'r ListenerRuntime, &'r HttpSite), Reply> {
        let conn: &'r Conn = &self.cx.conn;
        if runtime.generation == 0 {
            // Nothing is known yet, which says nothing about this request.
            return Err(Reply::new(503, Reason::Draining));
        }
        let nobody = || Reply::new(404, Reason::NoSuchHost);
        let bind = conn.bind_of(runtime).ok_or_else(nobody)?;
        let by_sni = conn.tls.as_ref().map(|tls| &*tls.listener);
        let listener = match host::select(bind, by_sni, &scratch.host) {
            host::Selected::Listener(listener) => listener,
            host::Selected::Misdirected => return Err(Reply::new(421, Reason::NoSuchHost)),
            host::Selected::Nobody => return Err(nobody()),
        };
        self.facts.listener = Some(listener);
        Ok((listener, listener.http().ok_or_else(nobody)?))
    }

    /// The best match among the routes of the listener only.
    fn find(
        &mut self,
        listener: &'r ListenerRuntime,
        site: &'r HttpSite,
        scratch: &Scratch,
    ) -> Result<Matched<'r>, Reply> {
        let view = View {
            host: &scratch.host,
            head: &scratch.request,
        };
        let none = || Reply::new(404, Reason::NoRoute);
        let found = site.table.find(&view).ok_or_else(none)?;
        self.facts.route = Some(&found.route.id.0);
        let rule = found.handle.rule(found.rule_number).ok_or_else(none)?;
        Ok(Matched { listener, rule, found })
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
    /// fields next, so that filters see and may change them.
    fn client_fields(&self, listener: &ListenerRuntime, scratch: &mut Scratch, upgrade: Option<&Upgrade>) {
        let peer = self.cx.conn.peer.ip();
        let trust = listener.model.client_address.forwarded_for.as_ref();
        let said = trust.and_then(|trust| Said::read(&scratch.request.headers, peer, trust));
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
        if let Some(said) = said {
            said.apply(&mut head.headers, peer);
        }
        if let Some(upgrade) = upgrade {
            upgrade.prepare(head, || pool.random());
        }
    }

    /// The filters of a rule, or of the backend reference that was chosen, in the order of the configuration. First what
    /// asks for no permission: preflights carry no credentials and are not for the backend.
    async fn filter(
        &mut self,
        filters: &'r Filters,
        filtering: Filtering<'_, 'r>,
        scratch: &mut Scratch,
    ) -> Result<Option<Denial>, Stop> {
        if filters.unsupported {
            return Err(Reply::new(500, Reason::Internal).into());
        }
        if let Some(cors) = &filters.cors
            && Cors::is_preflight(&scratch.request)
        {
            let mut reply = Reply::new(204, Reason::Answered);
            reply.headers = Some(Box::new(cors.preflight(&scratch.request)));
            return Err(reply.into());
        }
        let matched = filtering.matched;
        for step in &filters.steps {
            let head = &mut scratch.request;
            match step {
                Step::Modify(modifier) => modifier.apply(&mut head.headers),
                Step::Rewrite(filter) => {
                    let rewritten = rewrite::apply(filter, matched.path()?, head);
                    rewritten.map_err(|_| Reply::new(500, Reason::Internal))?;
                }
                Step::Redirect(filter) => {
                    let place = redirect::Place {
                        https: self.cx.https,
                        port: matched.listener.model.port,
                        found: matched.path()?,
                    };
                    let location = redirect::location(filter, head, place);
                    let mut reply = Reply::new(filter.status, Reason::Redirected);
                    reply.location = Value::new(&location).ok().map(|value| value.to_owned());
                    return Err(reply.into());
                }
                Step::Authorize(auth) => {
                    // What it needs is large, and most requests do not need it.
                    let denial = Box::pin(self.authorize(auth, filtering.bounds, scratch)).await?;
                    if denial.is_some() {
                        return Ok(denial);
                    }
                }
            }
        }
        Ok(None)
    }

    /// By weight, exact over all workers. Whatever share falls on something unusable fails.
    fn choose_backend(&mut self, rule: &'r Rule) -> Result<(&'r Arc<Backend>, &'r Filters), Reply> {
        let picked = rule.backends.pick().ok_or_else(|| Reply::new(500, Reason::NoBackend))?;
        self.facts.backend = Some(picked.id);
        let invalid = || Reply::new(500, Reason::BackendInvalid);
        let backend = picked.backend.ok_or_else(invalid)?;
        backend.usable().map_err(|_| invalid())?;
        let filters = rule.of_backend(picked.number);
        Ok((backend, filters))
    }

    /// Once per answer. Fields of the connection first; then CORS, which replaces what the backend said; then what
    /// authorization services add; then modifiers, those of the backend reference before those of the rule.
    fn response_policies(
        &self,
        matched: Option<(&Matched<'_>, &Filters)>,
        head: &mut ResponseHead,
        origin: Option<&OwnedValue>,
    ) {
        pierhead_http1::strip_hop_by_hop(&mut head.headers);
        if let Some((matched, filters)) = matched {
            if let (Some(cors), Some(origin)) = (&matched.rule.filters.cors, origin) {
                cors.apply(origin, &mut head.headers);
            }
            for change in &self.added {
                change.apply(&mut head.headers);
            }
            for modifier in filters.response.iter().chain(&matched.rule.filters.response) {
                modifier.apply(&mut head.headers);
            }
        }
        if !head.headers.contains(Known::Date) {
            encode::ensure_date(&mut head.headers, &local::date());
        }
    }

    /// Head, body, trailers.
    async fn pass_on(
        self,
        answered: Answered,
        sending: Sending,
        limits: &Limits,
        scratch: &Scratch,
    ) -> Result<(), Stop> {
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
        let patience = Patience {
            deadline,
            idle: stream::idle_limit(&scratch.response.headers, limits),
        };
        let mut bytes = 0;
        let relayed = pump::relay(
            self.client,
            self.tape,
            &mut upstream,
            self.timer,
            patience,
            Passing {
                sending,
                bytes: &mut bytes,
                pipes: &self.cx.conn.worker.pipes,
            },
        );
        let relayed = relayed.await;
        self.facts.bytes_out = bytes;
        upstream.end(&lease, self.cx.local().lately());
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
        self.response_policies(Some((matched, filters)), &mut scratch.response, origin.as_ref());
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
