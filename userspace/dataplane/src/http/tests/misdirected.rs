//! Which listener answers for which host once TLS has chosen one (Gateway API, `GatewayHTTPSListenerDetectMisdirectedRequests`).

use pierhead_model::{TlsTermination, WildcardDepth};

use super::*;

/// Four listeners on one port; the one for any host has a route for `example.org`, the others one for whatever they match.
fn change(snapshot: &mut Snapshot) {
    let key = *snapshot.binds.keys().next().unwrap();
    let owner = Origin::new("Gateway", "default", "gate");
    let hosts = [
        "",
        "second-example.org",
        "*.wildcard.org",
        "fourth-example.wildcard.org",
    ];
    let pattern = |text: &str| HostPattern::parse(text, WildcardDepth::Many).unwrap();
    let listeners = hosts.map(|host| {
        Arc::new(Listener {
            id: ListenerId {
                owner: owner.clone(),
                name: format!("of {host}").into(),
            },
            hosts: vec![pattern(host)],
            port: 443,
            kind: ListenerKind::Https {
                tls: TlsTermination {
                    certificates: Vec::new(),
                    client_auth: None,
                },
                http: HttpOptions {
                    host_selection: HostSelection::FallThrough,
                    detect_misdirected: true,
                    filters: Vec::new(),
                },
            },
            limits: Limits::default(),
            client_address: ClientAddress::default(),
        })
    });
    let attachments = listeners.iter().map(|listener| Attachment {
        listener: listener.id.clone(),
        hosts: vec![if listener.hosts[0] == HostPattern::Any {
            pattern("example.org")
        } else {
            HostPattern::Any
        }],
    });
    let mut route = (**snapshot.routes.values().next().unwrap()).clone();
    route.attachments = attachments.collect();
    snapshot.routes.insert(route.id.clone(), Arc::new(route));
    let listeners = listeners.to_vec();
    snapshot.binds.insert(key, Arc::new(Bind { key, listeners }));
}

#[test]
fn the_host_must_belong_to_the_listener_of_the_sni() {
    run(async {
        let origin = Origins::named("a").await;
        for (sni, host, status) in [
            ("example.org", "example.org", 200),
            ("example.org", "second-example.org", 421),
            ("example.org", "unknown-example.org", 404),
            ("second-example.org", "second-example.org", 200),
            ("second-example.org", "example.org", 421),
            ("second-example.org", "unknown-example.org", 421),
            ("third-example.wildcard.org", "third-example.wildcard.org", 200),
            ("third-example.wildcard.org", "fifth-example.wildcard.org", 200),
            ("third-example.wildcard.org", "fourth-example.wildcard.org", 421),
            ("third-example.wildcard.org", "second-example.org", 421),
            ("third-example.wildcard.org", "unknown-example.org", 421),
            ("fourth-example.wildcard.org", "fourth-example.wildcard.org", 200),
            ("fourth-example.wildcard.org", "fifth-example.wildcard.org", 421),
            ("unknown-example.org", "example.org", 200),
            ("unknown-example.org", "unknown-example.org", 404),
        ] {
            let gate = Gate::start_changed(Setup::simple(origin.address), change, Some(sni)).await;
            let mut client = gate.connect().await;
            client.send(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
            assert_eq!(client.message().await.status(), status, "{sni} {host}");
        }
        assert!(
            origin
                .requests()
                .iter()
                .all(|request| request.field("x-forwarded-proto") == Some("https"))
        );
    });
}
