//! Network namespaces for tests, one thread each, and snapshots made of few words.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "a module of several test files, each of which uses its own part"
)]
#![allow(clippy::unwrap_used, reason = "a test says what failed by panicking")]

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pierhead_kernel::uninstall;
use pierhead_model::{
    Backend, BackendId, BackendProtocol, BackendTarget, Bind, BindAddress, BindKey, BindPort, Endpoint, EndpointState,
    Endpoints, EndpointsId, Fleet, FleetId, FleetNode, L4Route, Limits, Listener, ListenerId, ListenerKind, OnMiss,
    Origin, OwnedPrefix, Ownership, Snapshot, Transport, WeightedBackend,
};

/// Runs `test` in a new network namespace with its loopback up, and takes everything away afterwards.
pub fn in_netns<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> T {
    struct Clean;
    impl Drop for Clean {
        fn drop(&mut self) {
            let _ = uninstall();
        }
    }
    let thread = std::thread::spawn(move || {
        enter_netns();
        // The number of a namespace comes back, and with it what a killed test left pinned.
        uninstall().expect("what was left can be removed");
        let _clean = Clean;
        test()
    });
    match thread.join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

pub fn enter_netns() {
    // SAFETY: only the network namespace of this thread changes; memory and files stay shared.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }
        .expect("a network namespace can be made (this test needs root)");
    ip("link set lo up");
}

/// Runs `ip`, which takes the namespace of this thread.
pub fn ip(args: &str) {
    let out = Command::new("ip")
        .args(args.split_whitespace())
        .output()
        .expect("iproute2 is installed");
    assert!(
        out.status.success(),
        "ip {args}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
}

pub fn ip_output(args: &str) -> String {
    let out = Command::new("ip")
        .args(args.split_whitespace())
        .output()
        .expect("iproute2 is installed");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Polls until `done`, or fails after ten seconds.
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < deadline, "not within ten seconds: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn bind(transport: Transport, address: &str) -> BindKey {
    let (ip, port) = address.rsplit_once(':').unwrap();
    let ip = ip.trim_matches(['[', ']']);
    BindKey {
        transport,
        address: match ip {
            "*" => BindAddress::Any,
            ip if ip.contains('/') => BindAddress::Prefix(ip.parse().unwrap()),
            ip => BindAddress::Ip(ip.parse::<IpAddr>().unwrap()),
        },
        port: if port == "*" {
            BindPort::All
        } else {
            BindPort::Port(port.parse().unwrap())
        },
    }
}

/// A backend of an L4 route: weight and endpoints.
#[derive(Clone)]
pub struct Share {
    pub weight: u32,
    pub endpoints: Vec<(SocketAddr, EndpointState)>,
}

pub fn share(weight: u32, endpoints: &[&str]) -> Share {
    Share {
        weight,
        endpoints: endpoints
            .iter()
            .map(|text| (text.parse().unwrap(), EndpointState::Ready))
            .collect(),
    }
}

/// Builds snapshots.
#[derive(Default)]
pub struct Snap(pub Snapshot);

impl Snap {
    pub fn l4(mut self, key: BindKey, shares: &[Share]) -> Self {
        let origin = Origin::new("Route", "test", &key.to_string());
        let mut backends = Vec::new();
        for (i, share) in shares.iter().enumerate() {
            let id = BackendId::new(&format!("test/{key}/{i}"));
            let set = EndpointsId::new(id.as_str());
            let protocol = match key.transport {
                Transport::Tcp => BackendProtocol::Tcp,
                Transport::Udp => BackendProtocol::Udp,
            };
            let target = BackendTarget::Endpoints(set.clone());
            let backend = Backend {
                id: id.clone(),
                origin: origin.clone(),
                target,
                protocol,
                tls: None,
            };
            self.0.backends.insert(id.clone(), Arc::new(backend));
            let endpoints = share
                .endpoints
                .iter()
                .map(|(address, state)| Endpoint {
                    address: *address,
                    state: *state,
                    node: None,
                    zone: None,
                })
                .collect();
            self.0
                .endpoints
                .insert(set.clone(), Arc::new(Endpoints { id: set, endpoints }));
            backends.push(WeightedBackend {
                backend: id,
                weight: share.weight,
                filters: Vec::new(),
            });
        }
        let route = (!shares.is_empty()).then(|| {
            Arc::new(L4Route {
                origin: origin.clone(),
                backends,
            })
        });
        let kind = match key.transport {
            Transport::Tcp => ListenerKind::Tcp { route },
            Transport::Udp => ListenerKind::Udp { route },
        };
        let port = match key.port {
            BindPort::Port(port) => port,
            BindPort::All => 0,
        };
        let listener = Listener {
            id: ListenerId {
                owner: origin,
                name: "test".into(),
            },
            hosts: Vec::new(),
            port,
            kind,
            limits: Limits::default(),
            client_address: pierhead_model::ClientAddress::default(),
        };
        self.0.binds.insert(
            key,
            Arc::new(Bind {
                key,
                listeners: vec![Arc::new(listener)],
            }),
        );
        self
    }

    /// A bind that only steers.
    pub fn steer(self, key: BindKey) -> Self {
        self.l4(key, &[])
    }

    /// Says on which node an endpoint is, wherever it stands.
    pub fn on(mut self, endpoint: &str, node: &str) -> Self {
        let address: SocketAddr = endpoint.parse().unwrap();
        let sets: Vec<_> = self.0.endpoints.values().map(|set| Endpoints::clone(set)).collect();
        for mut set in sets {
            for its in set.endpoints.iter_mut().filter(|its| its.address == address) {
                its.node = Some(node.into());
            }
            self.0.endpoints.insert(set.id.clone(), set.into());
        }
        self
    }

    /// Nodes with their addresses.
    pub fn fleet(mut self, seed: u64, nodes: &[(&str, &[&str])]) -> Self {
        let id = FleetId::new("test/nodes");
        let node = |(name, addresses): &(&str, &[&str])| FleetNode {
            name: (*name).into(),
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        };
        let nodes = nodes.iter().map(node).collect();
        let fleet = Fleet {
            id: id.clone(),
            seed,
            nodes,
        };
        self.0.fleet.insert(id, fleet.into());
        self
    }

    pub fn own(mut self, prefix: &str, miss: OnMiss) -> Self {
        let ownership = Ownership {
            on_miss: miss,
            announcer: None,
            round: 0,
        };
        self.0.owned.insert(OwnedPrefix(prefix.parse().unwrap()), ownership);
        self
    }
}

pub fn counter(counters: &[(&'static str, u64)], name: &str) -> u64 {
    let all: BTreeMap<_, _> = counters.iter().copied().collect();
    all[name]
}
