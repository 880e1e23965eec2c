//! The pipeline on real sockets: raw bytes in, raw bytes out. One worker, everything in one thread.

mod external_auth;
mod filters;
mod framing;
mod http2;
mod misdirected;
mod proxying;
mod tls;
mod upgrades;

use std::{cell::RefCell, future::Future, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use pierhead_model::{
    Age, Attachment, Backend, BackendId, BackendProtocol, BackendTarget, BackendTls, Bind, BindAddress, BindKey,
    BindPort, ClientAddress, Endpoint, EndpointState, Endpoints, EndpointsId, Filter, HostPattern, HostSelection,
    HttpMatch, HttpOptions, HttpRoute, HttpRule, InvalidReason, Limits, Listener, ListenerId, ListenerKind, Origin,
    PathMatch, Retry, RouteFlavor, RouteId, Snapshot, Timeouts, Transport, TrustAnchors, WeightedBackend,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{LocalSet, spawn_local},
    time::timeout,
};

use crate::{
    conn::{Conn, TlsFacts},
    observe::Registry,
    runtime::{Compiler, Runtime},
    tls::TlsStore,
    upstream::Resolved,
    worker::{Shared, Worker},
};

/// No test waits longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs a test on one thread.
pub(super) fn run<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let local = LocalSet::new();
    let bounded = async { timeout(PATIENCE, test).await.expect("the test hangs") };
    local.block_on(&runtime, bounded);
}

/// A rule, said shortly.
pub(super) struct Rule {
    pub(super) prefix: &'static str,
    pub(super) backends: Vec<(&'static str, u32)>,
    pub(super) filters: Vec<Filter>,
    pub(super) backend_filters: Vec<Filter>,
    pub(super) timeouts: Timeouts,
    pub(super) retry: Option<Retry>,
    pub(super) flavor: RouteFlavor,
}

impl Rule {
    pub(super) fn to(backend: &'static str) -> Self {
        Self {
            prefix: "/",
            backends: vec![(backend, 1)],
            filters: Vec::new(),
            backend_filters: Vec::new(),
            timeouts: Timeouts::default(),
            retry: None,
            flavor: RouteFlavor::Http,
        }
    }

    pub(super) fn at(mut self, prefix: &'static str) -> Self {
        self.prefix = prefix;
        self
    }

    pub(super) fn with(mut self, filter: Filter) -> Self {
        self.filters.push(filter);
        self
    }
}

/// What a gate is configured with.
pub(super) struct Setup {
    pub(super) hosts: Vec<HostPattern>,
    pub(super) rules: Vec<Rule>,
    pub(super) backends: Vec<(&'static str, BackendProtocol, Vec<SocketAddr>)>,
    pub(super) limits: Limits,
    pub(super) listener_filters: Vec<Filter>,
    pub(super) client_address: ClientAddress,
    /// Of all backends.
    pub(super) tls: Option<BackendTls>,
    pub(super) trust: Vec<TrustAnchors>,
}

impl Setup {
    /// One rule for `/`, one HTTP/1 backend.
    pub(super) fn simple(address: SocketAddr) -> Self {
        Self::with(Rule::to("a"), &[("a", address)])
    }

    pub(super) fn with(rule: Rule, backends: &[(&'static str, SocketAddr)]) -> Self {
        Self {
            hosts: vec![HostPattern::Any],
            rules: vec![rule],
            backends: backends
                .iter()
                .map(|(name, address)| (*name, BackendProtocol::Http1, vec![*address]))
                .collect(),
            limits: Limits::default(),
            listener_filters: Vec::new(),
            client_address: ClientAddress::default(),
            tls: None,
            trust: Vec::new(),
        }
    }

    /// The same with HTTP/2 to all backends.
    pub(super) fn http2(mut self) -> Self {
        for (_, protocol, _) in &mut self.backends {
            *protocol = BackendProtocol::Http2;
        }
        self
    }

    fn snapshot(&self, port: u16) -> Snapshot {
        let listener_id = ListenerId {
            owner: Origin::new("Gateway", "default", "gate"),
            name: "http".into(),
        };
        let key = BindKey {
            transport: Transport::Tcp,
            address: BindAddress::Any,
            port: BindPort::Port(port),
        };
        let mut snapshot = Snapshot::default();
        snapshot.binds.insert(
            key,
            Arc::new(Bind {
                key,
                listeners: vec![Arc::new(Listener {
                    id: listener_id.clone(),
                    hosts: self.hosts.clone(),
                    port,
                    kind: ListenerKind::Http(HttpOptions {
                        host_selection: HostSelection::FallThrough,
                        detect_misdirected: true,
                        filters: self.listener_filters.clone(),
                    }),
                    limits: self.limits.clone(),
                    client_address: self.client_address.clone(),
                })],
            }),
        );
        for trust in &self.trust {
            snapshot.trust.insert(trust.id.clone(), Arc::new(trust.clone()));
        }
        for (number, rule) in self.rules.iter().enumerate() {
            let name = format!("route-{number}");
            let id = RouteId(Origin::new("HTTPRoute", "default", &name));
            snapshot.routes.insert(
                id.clone(),
                Arc::new(HttpRoute {
                    id,
                    flavor: rule.flavor,
                    age: Age {
                        created: 0,
                        namespace: "default".into(),
                        name: name.into(),
                    },
                    attachments: vec![Attachment {
                        listener: listener_id.clone(),
                        hosts: vec![HostPattern::Any],
                    }],
                    rules: vec![HttpRule {
                        name: None,
                        hosts: None,
                        matches: vec![HttpMatch {
                            path: PathMatch::Prefix(rule.prefix.into()),
                            method: None,
                            headers: Vec::new(),
                            query: Vec::new(),
                        }],
                        filters: rule.filters.clone(),
                        backends: rule
                            .backends
                            .iter()
                            .map(|(name, weight)| WeightedBackend {
                                backend: BackendId::new(name),
                                weight: *weight,
                                filters: rule.backend_filters.clone(),
                            })
                            .collect(),
                        timeouts: rule.timeouts,
                        retry: rule.retry.clone(),
                        fallback: false,
                    }],
                }),
            );
        }
        let invalid = Backend {
            id: BackendId::new("invalid"),
            origin: Origin::new("Service", "default", "invalid"),
            target: BackendTarget::Invalid {
                reason: InvalidReason::BackendNotFound,
                message: String::new(),
            },
            protocol: BackendProtocol::Http1,
            tls: None,
        };
        snapshot.backends.insert(invalid.id.clone(), Arc::new(invalid));
        for (name, protocol, addresses) in &self.backends {
            let id = BackendId::new(name);
            snapshot.backends.insert(
                id.clone(),
                Arc::new(Backend {
                    id,
                    origin: Origin::new("Service", "default", name),
                    target: BackendTarget::Endpoints(EndpointsId::new(name)),
                    protocol: *protocol,
                    tls: self.tls.clone(),
                }),
            );
            snapshot.endpoints.insert(
                EndpointsId::new(name),
                Arc::new(Endpoints {
                    id: EndpointsId::new(name),
                    endpoints: addresses
                        .iter()
                        .map(|address| Endpoint {
                            address: *address,
                            state: EndpointState::Ready,
                            node: None,
                            zone: None,
                        })
                        .collect(),
                }),
            );
        }
        snapshot
    }
}

/// A listening gate.
pub(super) struct Gate {
    pub(super) address: SocketAddr,
    pub(super) worker: Rc<Worker>,
}

impl Gate {
    pub(super) async fn start(setup: Setup) -> Self {
        Self::start_changed(setup, |_| {}, None).await
    }

    /// `change` has the last word on the snapshot; with `sni` each connection counts as TLS that asked for that name.
    pub(super) async fn start_changed(
        setup: Setup,
        change: impl FnOnce(&mut Snapshot),
        sni: Option<&'static str>,
    ) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let registry = Arc::new(Registry::new(1));
        let mut compiler = Compiler::new(Arc::clone(&registry), TlsStore::new().unwrap());
        let mut snapshot = setup.snapshot(address.port());
        change(&mut snapshot);
        let runtime = compiler.compile(Arc::new(snapshot), &Resolved::default(), &Runtime::default());
        let shared = Shared {
            runtime: Arc::new(ArcSwap::from_pointee(runtime)),
            cells: registry.worker(),
            log: None,
            loads: None,
        };
        let worker = Rc::new(Worker::new(0, shared));
        let accepting = Rc::clone(&worker);
        spawn_local(async move {
            loop {
                let (stream, peer) = socket.accept().await.unwrap();
                let local = stream.local_addr().unwrap();
                stream.set_nodelay(true).unwrap();
                let runtime = accepting.runtime();
                let bind = runtime.binds.find(Transport::Tcp, local.ip(), local.port()).unwrap();
                let first = bind.first().unwrap();
                let slot = first.gauge.enter(first.limits().connections).unwrap();
                let mut conn = Conn::new(&accepting, &runtime, (peer, local), bind, slot);
                conn.tls = sni.map(|sni| TlsFacts {
                    listener: Arc::clone(bind.listener(sni).unwrap()),
                    sni: Some(sni.into()),
                    h2: false,
                });
                spawn_local(super::serve(stream, conn));
            }
        });
        Self { address, worker }
    }

    pub(super) async fn connect(&self) -> Raw {
        let stream = TcpStream::connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Raw {
            stream,
            input: Vec::new(),
        }
    }

    /// Sends `request` on a connection of its own and returns everything that comes until the gate closes.
    pub(super) async fn whole(&self, request: &str) -> String {
        let mut raw = self.connect().await;
        raw.send(request).await;
        raw.rest().await
    }
}

/// A connection of bytes.
pub(super) struct Raw {
    pub(super) stream: TcpStream,
    pub(super) input: Vec<u8>,
}

impl Raw {
    pub(super) async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads one response (or request): its head, and its body by Content-Length or chunks.
    pub(super) async fn message(&mut self) -> Message {
        let head_end = loop {
            if let Some(at) = find(&self.input, b"\r\n\r\n") {
                break at + 4;
            }
            assert!(
                self.more().await,
                "closed early after {:?}",
                String::from_utf8_lossy(&self.input)
            );
        };
        let head = String::from_utf8(self.input.drain(..head_end).collect()).unwrap();
        let field = |name: &str| Message::field_of(&head, name).map(str::to_owned);
        let bodyless =
            head.starts_with("HTTP/1.1 1") || head.starts_with("HTTP/1.1 204") || head.starts_with("HTTP/1.1 304");
        let mut body = Vec::new();
        if field("transfer-encoding").is_some() {
            loop {
                let line = self.until(b"\r\n").await;
                let size = usize::from_str_radix(line.trim(), 16).unwrap();
                if size == 0 {
                    let mut trailers = String::new();
                    loop {
                        let line = self.until(b"\r\n").await;
                        if line == "\r\n" {
                            break;
                        }
                        trailers.push_str(&line);
                    }
                    return Message {
                        head,
                        body: String::from_utf8(body).unwrap(),
                        trailers,
                    };
                }
                let data = self.exactly(size + 2).await;
                body.extend_from_slice(&data[..size]);
            }
        } else if let Some(length) = field("content-length").filter(|_| !bodyless) {
            body = self.exactly(length.parse().unwrap()).await;
        }
        Message {
            head,
            body: String::from_utf8(body).unwrap(),
            trailers: String::new(),
        }
    }

    async fn until(&mut self, end: &[u8]) -> String {
        loop {
            if let Some(at) = find(&self.input, end) {
                return String::from_utf8(self.input.drain(..at + end.len()).collect()).unwrap();
            }
            assert!(self.more().await, "closed early");
        }
    }

    pub(super) async fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.input.len() < count {
            assert!(self.more().await, "closed early");
        }
        self.input.drain(..count).collect()
    }

    /// Reads once; false at the end.
    pub(super) async fn more(&mut self) -> bool {
        let mut space = [0; 16 * 1024];
        let count = self.stream.read(&mut space).await.unwrap_or(0);
        self.input.extend_from_slice(&space[..count]);
        count > 0
    }

    /// Everything until the other side closes.
    pub(super) async fn rest(&mut self) -> String {
        while self.more().await {}
        String::from_utf8(std::mem::take(&mut self.input)).unwrap()
    }
}

pub(super) fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// A message as read.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) head: String,
    pub(super) body: String,
    pub(super) trailers: String,
}

impl Message {
    pub(super) fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub(super) fn field(&self, name: &str) -> Option<&str> {
        Self::field_of(&self.head, name)
    }

    pub(super) fn first_line(&self) -> &str {
        self.head.lines().next().unwrap()
    }

    fn field_of<'h>(head: &'h str, name: &str) -> Option<&'h str> {
        head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// A backend that answers each request with what `answer` says, and remembers the requests.
pub(super) struct Origins {
    pub(super) address: SocketAddr,
    pub(super) seen: Rc<RefCell<Vec<Message>>>,
    pub(super) connections: Rc<RefCell<usize>>,
}

impl Origins {
    /// An answer that ends with `!close` closes the connection after what stands before it.
    pub(super) async fn start(answer: impl Fn(&Message) -> String + 'static) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let seen = Rc::new(RefCell::new(Vec::new()));
        let connections = Rc::new(RefCell::new(0));
        let answer = Rc::new(answer);
        let (log, count) = (Rc::clone(&seen), Rc::clone(&connections));
        spawn_local(async move {
            loop {
                let (stream, _) = socket.accept().await.unwrap();
                *count.borrow_mut() += 1;
                let (log, answer) = (Rc::clone(&log), Rc::clone(&answer));
                spawn_local(async move {
                    let mut raw = Raw {
                        stream,
                        input: Vec::new(),
                    };
                    loop {
                        while find(&raw.input, b"\r\n\r\n").is_none() {
                            if !raw.more().await {
                                return;
                            }
                        }
                        let request = raw.message().await;
                        log.borrow_mut().push(request.clone());
                        let text = answer(&request);
                        let (text, close) = match text.strip_suffix("!close") {
                            Some(text) => (text.to_owned(), true),
                            None => (text, false),
                        };
                        if raw.stream.write_all(text.as_bytes()).await.is_err() || close {
                            return;
                        }
                    }
                });
            }
        });
        Self {
            address,
            seen,
            connections,
        }
    }

    /// Answers 200 with the name.
    pub(super) async fn named(name: &'static str) -> Self {
        Self::start(move |_| ok(name)).await
    }

    pub(super) fn requests(&self) -> Vec<Message> {
        self.seen.borrow().clone()
    }
}

pub(super) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// An address where nobody listens.
pub(super) async fn nobody() -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    socket.local_addr().unwrap()
}

/// Of the future that a function gives.
fn size_of_work<A, B, F>(_: fn(A, B) -> F) -> usize {
    size_of::<F>()
}

#[test]
fn a_waiting_connection_is_small() {
    type Secure = Box<tokio_rustls::server::TlsStream<super::Ahead<TcpStream>>>;
    let http1 = [
        size_of_work(super::serve::<TcpStream>),
        size_of_work(super::serve::<Secure>),
    ];
    let http2 = [
        size_of_work(super::server2::serve::<TcpStream>),
        size_of_work(super::server2::serve::<Secure>),
    ];
    assert!(http1.iter().all(|size| *size <= 4 * 1024), "{http1:?} bytes");
    assert!(http2.iter().all(|size| *size <= 1536), "{http2:?} bytes");
}
