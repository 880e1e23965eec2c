//! A snapshot with something of everything, for tests.

use std::{sync::Arc, time::Duration};

use pierhead_model::{
    Age, Announcer, Attachment, Backend, BackendId, BackendProtocol, BackendTarget, BackendTls, Bind, BindAddress,
    BindKey, BindPort, Certificate, CertificateId, CertificateUse, ClientAddress, ClientAuth, ClientAuthMode,
    CorsFilter, CorsOrigin, Endpoint, EndpointState, Endpoints, EndpointsId, ExternalAuthFilter, ExternalAuthProtocol,
    Filter, Fleet, FleetId, FleetNode, ForwardedFor, HeaderMatch, HeaderModifier, HeaderName, HeaderValue, HostPattern,
    HostSelection, Hostname, HttpMatch, HttpOptions, HttpRoute, HttpRule, InvalidReason, L4Route, Limits, Listener,
    ListenerId, ListenerKind, Method, MirrorFilter, MirrorFraction, OnMiss, Origin, OwnedPrefix, Ownership, PathMatch,
    PathRewrite, Pattern, PrivateKey, QueryMatch, RedirectFilter, RedirectPort, Retry, RouteFlavor, RouteId,
    ServerIdentity, Snapshot, SniRoute, Timeouts, TlsTermination, Transport, TrustAnchors, TrustId, UrlRewriteFilter,
    ValueMatch, WeightedBackend, WildcardDepth,
};

/// Bytes that must never be printed.
pub(crate) const SECRET: &[u8] = b"SECRET-KEY-BYTES";

pub(crate) fn everything() -> Arc<Snapshot> {
    let mut snapshot = Snapshot::default();
    for bind in binds() {
        snapshot.binds.insert(bind.key, bind.into());
    }
    for flavor in [RouteFlavor::Http, RouteFlavor::Grpc, RouteFlavor::Ingress] {
        let route = route(flavor);
        snapshot.routes.insert(route.id.clone(), route.into());
    }
    for backend in backends() {
        snapshot.backends.insert(backend.id.clone(), backend.into());
    }
    for endpoints in endpoints() {
        snapshot.endpoints.insert(endpoints.id.clone(), endpoints.into());
    }
    let certificate = certificate("ns/web");
    snapshot.certificates.insert(certificate.id.clone(), certificate.into());
    let trust = TrustAnchors {
        id: trust(),
        certificates: vec![Arc::from(&b"ca-1"[..]), Arc::from(&b"ca-2"[..])],
    };
    snapshot.trust.insert(trust.id.clone(), trust.into());
    snapshot.owned = [
        owned("10.0.0.1/32", OnMiss::Drop, Some(Announcer::Node("node-1".into()))),
        owned("10.0.0.2/32", OnMiss::Drop, Some(Announcer::Here)),
        owned("2001:db8::/64", OnMiss::Pass, None),
    ]
    .map(|(prefix, ownership)| (prefix, Ownership { round: 3, ..ownership }))
    .into();
    let fleet = fleet();
    snapshot.fleet.insert(fleet.id.clone(), fleet.into());
    snapshot.into()
}

fn fleet() -> Fleet {
    let node = |name: &str, addresses: &[&str]| FleetNode {
        name: name.into(),
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
    };
    Fleet {
        id: FleetId::new("pierhead-system/pierhead-node"),
        seed: 0x8000_0000_0000_0001,
        nodes: vec![node("node-1", &["10.0.0.11", "2001:db8::11"]), node("node-2", &[])],
    }
}

fn owned(prefix: &str, on_miss: OnMiss, announcer: Option<Announcer>) -> (OwnedPrefix, Ownership) {
    let ownership = Ownership {
        on_miss,
        announcer,
        round: 0,
    };
    (OwnedPrefix(prefix.parse().unwrap()), ownership)
}

pub(crate) fn certificate(id: &str) -> Certificate {
    Certificate {
        id: CertificateId(id.into()),
        chain: vec![Arc::from(&b"end entity"[..]), Arc::from(&b"intermediate"[..])],
        key: PrivateKey::new(SECRET),
        names: hosts(),
        not_before: -5,
        not_after: i64::MAX,
    }
}

pub(crate) fn backend_id() -> BackendId {
    BackendId::new("ns/web:80")
}

pub(crate) fn endpoints_id() -> EndpointsId {
    EndpointsId::new("ns/web:http")
}

pub(crate) fn route_id(flavor: RouteFlavor) -> RouteId {
    RouteId(Origin::new(&format!("{flavor:?}Route"), "ns", "shop"))
}

pub(crate) fn trust() -> TrustId {
    TrustId("ConfigMap ns/ca".into())
}

fn name(text: &str) -> Hostname {
    Hostname::parse(text).unwrap()
}

fn hosts() -> Vec<HostPattern> {
    let wildcard = |depth| HostPattern::Wildcard {
        suffix: name("example.com"),
        depth,
    };
    vec![
        HostPattern::Any,
        wildcard(WildcardDepth::One),
        wildcard(WildcardDepth::Many),
        HostPattern::Exact(name("shop.example.com")),
    ]
}

fn listener_id(name: &str) -> ListenerId {
    ListenerId {
        owner: Origin::new("Gateway", "ns", "gw"),
        name: name.into(),
    }
}

fn binds() -> Vec<Bind> {
    let http = |host_selection| HttpOptions {
        host_selection,
        detect_misdirected: true,
        filters: vec![auth(ExternalAuthProtocol::Grpc {
            request_headers: vec![HeaderName::parse("x-a").unwrap()],
        })],
    };
    let l4 = Arc::new(L4Route {
        origin: Origin::new("TCPRoute", "ns", "tcp"),
        backends: weighted(),
    });
    let sni = vec![SniRoute {
        host: HostPattern::Any,
        route: Arc::clone(&l4),
    }];
    let tls = |mode| TlsTermination {
        certificates: vec![CertificateUse {
            names: hosts(),
            certificate: CertificateId("ns/web".into()),
        }],
        client_auth: Some(ClientAuth { trust: trust(), mode }),
    };
    let bind = |transport, address, port, kinds: Vec<ListenerKind>| Bind {
        key: BindKey {
            transport,
            address,
            port,
        },
        listeners: kinds
            .into_iter()
            .enumerate()
            .map(|(n, kind)| listener(n, kind))
            .collect(),
    };
    let ip = BindAddress::Ip("10.0.0.1".parse().unwrap());
    vec![
        bind(
            Transport::Tcp,
            BindAddress::Any,
            BindPort::Port(80),
            vec![ListenerKind::Http(http(HostSelection::BestOnly))],
        ),
        bind(
            Transport::Tcp,
            ip,
            BindPort::Port(443),
            vec![
                ListenerKind::Https {
                    tls: tls(ClientAuthMode::ValidOnly),
                    http: http(HostSelection::FallThrough),
                },
                ListenerKind::TlsPassthrough { routes: sni.clone() },
                ListenerKind::TlsTerminate {
                    tls: tls(ClientAuthMode::InsecureFallback),
                    routes: sni,
                },
            ],
        ),
        bind(
            Transport::Tcp,
            BindAddress::Ip("2001:db8::1".parse().unwrap()),
            BindPort::All,
            vec![ListenerKind::Tcp { route: Some(l4) }],
        ),
        bind(
            Transport::Udp,
            BindAddress::Prefix("10.1.0.0/16".parse().unwrap()),
            BindPort::Port(53),
            vec![ListenerKind::Udp { route: None }],
        ),
    ]
}

fn listener(number: usize, kind: ListenerKind) -> Arc<Listener> {
    Listener {
        id: listener_id(&format!("listener-{number}")),
        hosts: hosts(),
        port: 65_535,
        kind,
        limits: Limits {
            body_bytes: Some(0),
            idle_timeout: Duration::new(u64::MAX, 999_999_999),
            ..Limits::default()
        },
        client_address: ClientAddress {
            proxy_protocol: vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
            forwarded_for: Some(ForwardedFor {
                trusted: vec!["192.0.2.1/32".parse().unwrap()],
                hops: Some(u32::MAX),
            }),
        },
    }
    .into()
}

fn weighted() -> Vec<WeightedBackend> {
    vec![
        WeightedBackend {
            backend: backend_id(),
            weight: u32::MAX,
            filters: filters(),
        },
        WeightedBackend {
            backend: BackendId::new("ns/web:dns"),
            weight: 0,
            filters: Vec::new(),
        },
    ]
}

fn filters() -> Vec<Filter> {
    let header = |text: &str| (HeaderName::parse("X-A").unwrap(), HeaderValue::parse(text).unwrap());
    let modifier = HeaderModifier {
        set: vec![header("a b")],
        add: vec![header(""), header("ü")],
        remove: vec![HeaderName::parse("x-b").unwrap()],
    };
    let redirect = RedirectFilter {
        scheme: Some("https".into()),
        host: Some(name("other.example.com")),
        port: RedirectPort::Explicit(8443),
        path: Some(PathRewrite::Full("/full".into())),
        status: 308,
    };
    vec![
        Filter::RequestHeaders(modifier),
        Filter::ResponseHeaders(HeaderModifier::default()),
        Filter::Redirect(RedirectFilter {
            scheme: None,
            host: None,
            port: RedirectPort::Derived,
            path: None,
            status: 301,
        }),
        Filter::Redirect(redirect),
        Filter::UrlRewrite(UrlRewriteFilter {
            host: Some(name("::1")),
            path: Some(PathRewrite::Prefix("/".into())),
        }),
        Filter::Mirror(MirrorFilter {
            backend: backend_id(),
            fraction: MirrorFraction {
                numerator: 0,
                denominator: 3,
            },
        }),
        Filter::Cors(CorsFilter {
            allow_origins: vec![
                CorsOrigin::Any,
                CorsOrigin::Exact("https://a.example".into()),
                CorsOrigin::Wildcard {
                    before: "https://".into(),
                    after: ".example:8443".into(),
                },
            ],
            allow_credentials: true,
            allow_methods: vec!["*".into()],
            allow_headers: vec!["x-a".into()],
            expose_headers: vec![],
            max_age: Duration::from_secs(5),
        }),
        auth(ExternalAuthProtocol::Http {
            path_prefix: "/auth".into(),
            request_headers: vec![HeaderName::parse("x-a").unwrap()],
            response_headers: vec![HeaderName::parse("x-user").unwrap()],
        }),
        Filter::Unsupported { what: "ours".into() },
    ]
}

fn auth(protocol: ExternalAuthProtocol) -> Filter {
    Filter::ExternalAuth(ExternalAuthFilter {
        backend: BackendId::new("ns/web:dns"),
        protocol,
        body_bytes: ExternalAuthFilter::MAX_BODY_BYTES,
    })
}

fn route(flavor: RouteFlavor) -> HttpRoute {
    let pattern = || Pattern::new_checked("(?-u:/a.*)");
    let matching = |path| HttpMatch {
        path,
        method: Some(Method::parse("GET").unwrap()),
        headers: vec![HeaderMatch {
            name: HeaderName::parse("X-A").unwrap(),
            value: ValueMatch::Regex(pattern()),
        }],
        query: vec![QueryMatch {
            name: "q".into(),
            value: ValueMatch::Exact("".into()),
        }],
    };
    let rule = HttpRule {
        name: Some("rule".into()),
        hosts: Some(Vec::new()),
        matches: vec![
            matching(PathMatch::Exact("/".into())),
            matching(PathMatch::Prefix("/a/".into())),
            matching(PathMatch::Regex(pattern())),
            matching(PathMatch::GrpcMethod("Say".into())),
        ],
        filters: filters(),
        backends: weighted(),
        timeouts: Timeouts {
            request: Some(Duration::ZERO),
            backend_request: Some(Duration::from_nanos(1)),
        },
        retry: Some(Retry {
            attempts: 3,
            codes: vec![500, 503],
            backoff: Some(Duration::from_millis(25)),
        }),
        fallback: true,
    };
    let bare = HttpRule {
        name: None,
        hosts: None,
        matches: Vec::new(),
        filters: Vec::new(),
        backends: Vec::new(),
        timeouts: Timeouts::default(),
        retry: None,
        fallback: false,
    };
    HttpRoute {
        id: route_id(flavor),
        flavor,
        age: Age {
            created: i64::MIN,
            namespace: "ns".into(),
            name: "shop".into(),
        },
        attachments: vec![Attachment {
            listener: listener_id("listener-0"),
            hosts: hosts(),
        }],
        rules: vec![rule, bare],
    }
}

fn backends() -> Vec<Backend> {
    let backend = |id: &str, target, protocol, tls| Backend {
        id: BackendId::new(id),
        origin: Origin::new("Service", "", "web"),
        target,
        protocol,
        tls,
    };
    let tls = BackendTls {
        sni: name("web.internal"),
        identities: vec![
            ServerIdentity::Dns(name("web.internal")),
            ServerIdentity::Uri("spiffe://ns/web".into()),
        ],
        trust: Some(trust()),
        client_certificate: Some(CertificateId("ns/web".into())),
    };
    let system = BackendTls {
        trust: None,
        client_certificate: None,
        ..tls.clone()
    };
    let dns = BackendTarget::Dns {
        name: name("example.org"),
        port: 443,
    };
    let invalid = [
        InvalidReason::BackendNotFound,
        InvalidReason::InvalidKind,
        InvalidReason::RefNotPermitted,
        InvalidReason::UnsupportedProtocol,
        InvalidReason::TlsPolicyInvalid,
        InvalidReason::UnsupportedFilter,
    ];
    let invalid = invalid.into_iter().map(|reason| {
        let target = BackendTarget::Invalid {
            reason,
            message: "why".to_owned(),
        };
        backend(&format!("ns/{reason:?}"), target, BackendProtocol::Udp, None)
    });
    let usable = [
        backend(
            backend_id().as_str(),
            BackendTarget::Endpoints(endpoints_id()),
            BackendProtocol::Http1,
            Some(tls),
        ),
        backend("ns/web:dns", dns.clone(), BackendProtocol::Http2, Some(system)),
        backend("ns/web:tcp", dns, BackendProtocol::Tcp, None),
    ];
    usable.into_iter().chain(invalid).collect()
}

fn endpoints() -> Vec<Endpoints> {
    let endpoint = |address: &str, state, node: Option<&str>| Endpoint {
        address: address.parse().unwrap(),
        state,
        node: node.map(Into::into),
        zone: node.map(Into::into),
    };
    vec![
        Endpoints {
            id: endpoints_id(),
            endpoints: vec![
                endpoint("10.244.0.1:8080", EndpointState::Ready, Some("node-1")),
                endpoint("10.244.0.2:8080", EndpointState::Draining, None),
                endpoint("[fe80::1%3]:8080", EndpointState::Ready, None),
            ],
        },
        Endpoints {
            id: EndpointsId::new("ns/empty:1"),
            endpoints: Vec::new(),
        },
    ]
}
