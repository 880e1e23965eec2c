//! Filters, retries and timeouts on the wire.

use pierhead_model::{
    CorsFilter, CorsOrigin, HeaderModifier, HeaderName, HeaderValue, Hostname, MirrorFilter, MirrorFraction,
    PathRewrite, RedirectFilter, RedirectPort, UrlRewriteFilter,
};

use super::*;

fn pair(name: &str, value: &str) -> (HeaderName, HeaderValue) {
    (HeaderName::parse(name).unwrap(), HeaderValue::parse(value).unwrap())
}

#[test]
fn headers_hosts_and_paths_are_changed_per_rule_and_per_backend() {
    run(async {
        let origin = Origins::start(|_| "HTTP/1.1 200 OK\r\nX-Old: 1\r\nContent-Length: 0\r\n\r\n".to_owned()).await;
        let mut rule = Rule::to("a")
            .at("/api")
            .with(Filter::RequestHeaders(HeaderModifier {
                set: vec![pair("X-Set", "rule")],
                add: vec![pair("X-Add", "rule")],
                remove: vec![HeaderName::parse("X-Gone").unwrap()],
            }))
            .with(Filter::ResponseHeaders(HeaderModifier {
                remove: vec![HeaderName::parse("x-old").unwrap()],
                set: vec![pair("x-new", "2")],
                ..HeaderModifier::default()
            }));
        rule.backend_filters = vec![
            Filter::RequestHeaders(HeaderModifier {
                add: vec![pair("X-Add", "backend")],
                ..HeaderModifier::default()
            }),
            Filter::UrlRewrite(UrlRewriteFilter {
                host: Some(Hostname::parse("inner.example").unwrap()),
                path: Some(PathRewrite::Prefix("/v1".into())),
            }),
        ];
        let gate = Gate::start(Setup::with(rule, &[("a", origin.address)])).await;
        let mut client = gate.connect().await;
        client
            .send("GET /api/x?y HTTP/1.1\r\nHost: outer.example\r\nX-Gone: 1\r\nx-set: mine\r\nX-Echo-Set-Header:\r\n\r\n")
            .await;
        let answer = client.message().await;
        assert_eq!((answer.field("x-old"), answer.field("x-new")), (None, Some("2")));
        let seen = &origin.requests()[0];
        assert_eq!(seen.first_line(), "GET /v1/x?y HTTP/1.1");
        assert_eq!(seen.field("host"), Some("inner.example"));
        assert_eq!((seen.field("x-set"), seen.field("x-gone")), (Some("rule"), None));
        assert_eq!(seen.field("x-echo-set-header"), Some(""));
        assert!(seen.head.contains("X-Add: rule\r\nX-Add: backend\r\n"), "{}", seen.head);
    });
}

#[test]
fn redirects_and_unknown_filters_never_reach_a_backend() {
    run(async {
        let origin = Origins::named("a").await;
        let redirect = RedirectFilter {
            scheme: Some("https".into()),
            host: None,
            port: RedirectPort::Derived,
            path: None,
            status: 301,
        };
        let mut setup = Setup::with(
            Rule::to("a").at("/go").with(Filter::Redirect(redirect)),
            &[("a", origin.address)],
        );
        setup
            .rules
            .push(Rule::to("a").at("/odd").with(Filter::Unsupported { what: "x".into() }));
        let gate = Gate::start(setup).await;
        let mut client = gate.connect().await;
        client
            .send("GET /go/a?b HTTP/1.1\r\nHost: shop.example:8080\r\n\r\n")
            .await;
        let answer = client.message().await;
        assert_eq!(
            (answer.status(), answer.field("location")),
            (301, Some("https://shop.example/go/a?b"))
        );
        client.send("GET /odd HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.message().await.status(), 500);
        assert!(origin.requests().is_empty());
    });
}

#[test]
fn cors_is_answered_here_and_added_to_answers() {
    run(async {
        let origin = Origins::start(|_| {
            "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nContent-Length: 0\r\n\r\n".to_owned()
        })
        .await;
        let cors = CorsFilter {
            allow_origins: vec![CorsOrigin::Exact("https://good".into())],
            allow_credentials: true,
            allow_methods: vec!["GET".into()],
            allow_headers: Vec::new(),
            expose_headers: Vec::new(),
            max_age: Duration::from_secs(5),
        };
        let gate = Gate::start(Setup::with(
            Rule::to("a").with(Filter::Cors(cors)),
            &[("a", origin.address)],
        ))
        .await;
        let mut client = gate.connect().await;
        client
            .send("OPTIONS / HTTP/1.1\r\nHost: a\r\nOrigin: https://good\r\nAccess-Control-Request-Method: GET\r\n\r\n")
            .await;
        let answer = client.message().await;
        assert_eq!(
            (answer.status(), answer.field("access-control-allow-origin")),
            (204, Some("https://good"))
        );
        assert!(origin.requests().is_empty());
        for (from, expected) in [("https://good", Some("https://good")), ("https://bad", None)] {
            client
                .send(&format!("GET / HTTP/1.1\r\nHost: a\r\nOrigin: {from}\r\n\r\n"))
                .await;
            assert_eq!(client.message().await.field("access-control-allow-origin"), expected);
        }
    });
}

#[test]
fn mirrors_get_copies_and_cannot_hurt() {
    run(async {
        let origin = Origins::named("main").await;
        let copy = Origins::named("copy").await;
        let mirror = |name| {
            Filter::Mirror(MirrorFilter {
                backend: BackendId::new(name),
                fraction: MirrorFraction {
                    numerator: 1,
                    denominator: 1,
                },
            })
        };
        let rule = Rule::to("a")
            .with(mirror("copy"))
            .with(mirror("dead"))
            .with(mirror("invalid"));
        let backends = [("a", origin.address), ("copy", copy.address), ("dead", nobody().await)];
        let gate = Gate::start(Setup::with(rule, &backends)).await;
        let mut client = gate.connect().await;
        client
            .send("POST /m HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
            .await;
        assert_eq!(client.message().await.body, "main");
        while copy.requests().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let copied = &copy.requests()[0];
        assert_eq!(
            (copied.first_line(), copied.body.as_str()),
            ("POST /m HTTP/1.1", "body")
        );
        // One without a body, which nobody reads to its end.
        client.send("GET /none HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.message().await.body, "main");
        while copy.requests().len() < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(copy.requests()[1].first_line(), "GET /none HTTP/1.1");
    });
}

/// Fails with `code` until it was asked `times` times.
async fn flaky(code: u16, times: usize) -> Origins {
    let asked = RefCell::new(0);
    Origins::start(move |_| {
        *asked.borrow_mut() += 1;
        if *asked.borrow() <= times {
            format!("HTTP/1.1 {code} Oops\r\nContent-Length: 3\r\n\r\nbad")
        } else {
            ok("good")
        }
    })
    .await
}

fn retry(attempts: u32, codes: &[u16]) -> Option<Retry> {
    Some(Retry {
        attempts,
        codes: codes.to_vec(),
        backoff: None,
    })
}

#[test]
fn listed_codes_are_tried_again_with_the_same_body() {
    run(async {
        for (code, times, expected) in [(500, 2, 200), (500, 4, 500), (503, 1, 503)] {
            let origin = flaky(code, times).await;
            let mut setup = Setup::simple(origin.address);
            setup.rules[0].retry = retry(3, &[500]);
            let gate = Gate::start(setup).await;
            let mut client = gate.connect().await;
            client
                .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
                .await;
            assert_eq!(client.message().await.status(), expected, "{code} {times}");
            assert!(origin.requests().iter().all(|request| request.body == "body"));
        }
    });
}

#[test]
fn a_refusing_endpoint_is_left_for_another() {
    run(async {
        let origin = Origins::named("alive").await;
        let mut setup = Setup::simple(origin.address);
        setup.backends[0].2 = vec![nobody().await, origin.address];
        let gate = Gate::start(setup).await;
        for _ in 0..10 {
            let answer = gate
                .whole("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                .await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        }
    });
}

/// Accepts and never answers.
async fn silent() -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    spawn_local(async move {
        let mut kept = Vec::new();
        loop {
            kept.push(socket.accept().await.unwrap());
        }
    });
    address
}

#[test]
fn timeouts_of_request_and_attempt_become_504() {
    run(async {
        for timeouts in [
            Timeouts {
                request: Some(Duration::from_millis(60)),
                backend_request: None,
            },
            Timeouts {
                request: None,
                backend_request: Some(Duration::from_millis(60)),
            },
        ] {
            let mut setup = Setup::simple(silent().await);
            setup.rules[0].timeouts = timeouts;
            let gate = Gate::start(setup).await;
            let mut client = gate.connect().await;
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            assert_eq!(client.message().await.status(), 504);
        }
    });
}

#[test]
fn an_attempt_that_times_out_is_followed_by_another() {
    run(async {
        let origin = Origins::named("quick").await;
        let mut setup = Setup::simple(origin.address);
        setup.backends[0].2 = vec![silent().await, origin.address];
        setup.rules[0].retry = retry(1, &[]);
        setup.rules[0].timeouts.backend_request = Some(Duration::from_millis(60));
        let gate = Gate::start(setup).await;
        let mut client = gate.connect().await;
        for _ in 0..4 {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            assert_eq!(client.message().await.body, "quick");
        }
    });
}

#[test]
fn the_most_specific_listener_must_know_the_host() {
    run(async {
        let origin = Origins::named("a").await;
        let mut setup = Setup::simple(origin.address);
        setup.hosts = vec![HostPattern::Exact(Hostname::parse("shop.example").unwrap())];
        let gate = Gate::start(setup).await;
        let mut client = gate.connect().await;
        for (host, status) in [("SHOP.example.:80", 200), ("other.example", 404)] {
            client.send(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
            assert_eq!(client.message().await.status(), status, "{host}");
        }
    });
}
