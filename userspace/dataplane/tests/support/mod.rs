//! A gate on loopback, told by snapshots written by hand.

#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(unreachable_pub, reason = "a module of test binaries: nothing is reachable")]
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    num::NonZero,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use pierhead_dataplane::{AcceptMode, AccessLog, Config, Dataplane};
use pierhead_model::{
    Backend, BackendId, BackendProtocol, BackendTarget, Bind, BindAddress, BindKey, BindPort, Certificate,
    CertificateId, CertificateUse, ClientAddress, ClientAuth, Endpoint, EndpointState, Endpoints, EndpointsId,
    HostPattern, InvalidReason, L4Route, Limits, Listener, ListenerId, ListenerKind, Origin, PrivateKey, Snapshot,
    SniRoute, TlsTermination, Transport, WeightedBackend, WildcardDepth,
};

/// Long enough for a busy machine, short enough for a test.
pub const SOON: Duration = Duration::from_secs(10);

pub fn gate() -> Dataplane {
    gate_with(AcceptMode::Bound, AccessLog::Off)
}

pub fn gate_with(accept: AcceptMode, access_log: AccessLog) -> Dataplane {
    gate_of(Config {
        accept,
        access_log,
        ..Config::default()
    })
}

pub fn gate_of(config: Config) -> Dataplane {
    let workers = NonZero::new(2).unwrap();
    Dataplane::start(Config { workers, ..config }).unwrap()
}

/// A loopback address with a port nobody has, for TCP and UDP. Each call gives another address of 127.0.0.0/8, so that no
/// test meets another.
pub fn free(transport: Transport) -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let [high, low] = number.to_be_bytes();
    let process = u8::try_from(std::process::id() % 250).unwrap() + 1;
    let ip = Ipv4Addr::new(127, process, high, low);
    match transport {
        Transport::Tcp => TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap(),
        Transport::Udp => UdpSocket::bind((ip, 0)).unwrap().local_addr().unwrap(),
    }
}

/// An address where nobody listens.
pub fn nobody() -> SocketAddr {
    free(Transport::Tcp)
}

pub fn key(transport: Transport, address: SocketAddr) -> BindKey {
    BindKey {
        transport,
        address: BindAddress::Ip(address.ip()),
        port: BindPort::Port(address.port()),
    }
}

pub fn host(text: &str) -> HostPattern {
    HostPattern::parse(text, WildcardDepth::Many).unwrap()
}

/// Builds snapshots; reads like a list of what there is.
#[derive(Clone, Default)]
pub struct World {
    pub snapshot: Snapshot,
    pub limits: Limits,
    pub client_address: ClientAddress,
}

impl World {
    pub fn backend(mut self, name: &str, endpoints: &[SocketAddr]) -> Self {
        let id = EndpointsId::new(name);
        let mut endpoints: Vec<_> = endpoints
            .iter()
            .map(|address| Endpoint {
                address: *address,
                state: EndpointState::Ready,
                node: None,
                zone: None,
            })
            .collect();
        endpoints.sort_by_key(|endpoint| endpoint.address);
        let set = Endpoints {
            id: id.clone(),
            endpoints,
        };
        self.snapshot.endpoints.insert(id.clone(), Arc::new(set));
        self.target(name, BackendTarget::Endpoints(id))
    }

    pub fn invalid(self, name: &str) -> Self {
        let reason = InvalidReason::BackendNotFound;
        let message = "no such Service".to_owned();
        self.target(name, BackendTarget::Invalid { reason, message })
    }

    pub fn target(mut self, name: &str, target: BackendTarget) -> Self {
        let backend = Backend {
            id: BackendId::new(name),
            origin: Origin::new("Service", "default", name),
            target,
            protocol: BackendProtocol::Tcp,
            tls: None,
        };
        self.snapshot.backends.insert(backend.id.clone(), Arc::new(backend));
        self
    }

    pub fn listener(
        mut self,
        transport: Transport,
        at: SocketAddr,
        name: &str,
        hosts: &[&str],
        kind: ListenerKind,
    ) -> Self {
        let key = key(transport, at);
        let listener = Arc::new(Listener {
            id: ListenerId {
                owner: Origin::new("Gateway", "default", "gate"),
                name: name.into(),
            },
            hosts: hosts.iter().map(|text| host(text)).collect(),
            port: at.port(),
            kind,
            limits: self.limits.clone(),
            client_address: self.client_address.clone(),
        });
        let old = self.snapshot.binds.remove(&key);
        let mut listeners = old.map_or_else(Vec::new, |bind| bind.listeners.clone());
        listeners.push(listener);
        self.snapshot.binds.insert(key, Arc::new(Bind { key, listeners }));
        self
    }

    pub fn tcp(self, at: SocketAddr, shares: &[(&str, u32)]) -> Self {
        let route = Some(route(shares));
        self.listener(
            Transport::Tcp,
            at,
            &format!("tcp-{at}"),
            &[""],
            ListenerKind::Tcp { route },
        )
    }

    pub fn udp(self, at: SocketAddr, shares: &[(&str, u32)]) -> Self {
        let route = Some(route(shares));
        self.listener(
            Transport::Udp,
            at,
            &format!("udp-{at}"),
            &[""],
            ListenerKind::Udp { route },
        )
    }

    pub fn passthrough(self, at: SocketAddr, hostname: &str, backend: &str) -> Self {
        let kind = ListenerKind::TlsPassthrough {
            routes: vec![sni_route(hostname, backend)],
        };
        self.listener(Transport::Tcp, at, hostname, &[hostname], kind)
    }

    pub fn terminate(self, at: SocketAddr, hostname: &str, certificates: &[(&[&str], &str)], backend: &str) -> Self {
        self.terminate_for(at, hostname, certificates, backend, None)
    }

    pub fn terminate_for(
        self,
        at: SocketAddr,
        hostname: &str,
        certificates: &[(&[&str], &str)],
        backend: &str,
        client_auth: Option<ClientAuth>,
    ) -> Self {
        let kind = ListenerKind::TlsTerminate {
            tls: TlsTermination {
                certificates: certificates
                    .iter()
                    .map(|(names, id)| CertificateUse {
                        names: names.iter().map(|name| host(name)).collect(),
                        certificate: CertificateId((*id).into()),
                    })
                    .collect(),
                client_auth,
            },
            routes: vec![sni_route(hostname, backend)],
        };
        self.listener(Transport::Tcp, at, &format!("tls-{hostname}"), &[hostname], kind)
    }

    pub fn certificate(mut self, id: &str, pair: &Pair) -> Self {
        let id = CertificateId(id.into());
        let certificate = Certificate {
            id: id.clone(),
            chain: vec![pair.der.as_slice().into()],
            key: PrivateKey::new(&pair.key),
            names: Vec::new(),
            not_before: 0,
            not_after: i64::MAX,
        };
        self.snapshot.certificates.insert(id, Arc::new(certificate));
        self
    }

    pub fn build(&self) -> Arc<Snapshot> {
        Arc::new(self.snapshot.clone())
    }
}

fn sni_route(hostname: &str, backend: &str) -> SniRoute {
    SniRoute {
        host: host(hostname),
        route: route(&[(backend, 1)]),
    }
}

pub fn route(shares: &[(&str, u32)]) -> Arc<L4Route> {
    Arc::new(L4Route {
        origin: Origin::new("TCPRoute", "default", "route"),
        backends: shares
            .iter()
            .map(|(name, weight)| WeightedBackend {
                backend: BackendId::new(name),
                weight: *weight,
                filters: Vec::new(),
            })
            .collect(),
    })
}

/// A self-signed certificate with its key.
pub struct Pair {
    pub der: Vec<u8>,
    pub key: Vec<u8>,
}

impl Pair {
    pub fn new(name: &str) -> Self {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        Self {
            der: made.cert.der().to_vec(),
            key: made.signing_key.serialize_der(),
        }
    }
}

/// A server that runs `serve` for each connection.
pub fn server(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let serve = Arc::clone(&serve);
            let stream = stream.unwrap();
            stream.set_read_timeout(Some(SOON)).unwrap();
            stream.set_write_timeout(Some(SOON)).unwrap();
            thread::spawn(move || serve(stream));
        }
    });
    address
}

/// Greets with `name`, then sends back what it gets.
pub fn echo(name: &'static str) -> SocketAddr {
    server(move |mut stream| {
        let _ = stream.write_all(name.as_bytes());
        let mut buffer = [0; 4096];
        while let Ok(count) = stream.read(&mut buffer) {
            if count == 0 || stream.write_all(&buffer[..count]).is_err() {
                return;
            }
        }
    })
}

pub fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.set_write_timeout(Some(SOON)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

pub fn read(stream: &mut impl Read, count: usize) -> String {
    let mut buffer = vec![0; count];
    stream.read_exact(&mut buffer).unwrap();
    String::from_utf8(buffer).unwrap()
}

/// Polls until `check` holds.
pub fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !check() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The value of a series of the metrics page.
pub fn metric(gate: &Dataplane, series: &str) -> f64 {
    let page = gate.metrics();
    let value = page
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or(0.0)
}

pub fn localhost(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}
