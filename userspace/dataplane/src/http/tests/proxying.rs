//! HTTP/1 to HTTP/1: what passes, what is added, what is removed.

use super::*;

const GET: &str = "GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n";

#[test]
fn a_request_reaches_the_backend_and_the_answer_the_client() {
    run(async {
        let origin = Origins::named("hello").await;
        let gate = Gate::start(Setup::simple(origin.address)).await;
        let mut client = gate.connect().await;
        for _ in 0..3 {
            client
                .send("GET /a//b%2Fc?d=e HTTP/1.1\r\nHost: shop.example\r\nX-Mine: 1\r\n\r\n")
                .await;
            let answer = client.message().await;
            assert_eq!((answer.status(), answer.body.as_str()), (200, "hello"));
            assert!(answer.field("date").is_some());
        }
        assert_eq!(*origin.connections.borrow(), 1, "the connection is used again");
        let request = &origin.requests()[0];
        assert_eq!(request.first_line(), "GET /a//b%2Fc?d=e HTTP/1.1");
        assert_eq!(request.field("host"), Some("shop.example"));
        assert_eq!(request.field("x-mine"), Some("1"));
        assert_eq!(request.field("x-forwarded-for"), Some("127.0.0.1"));
        assert_eq!(request.field("x-forwarded-proto"), Some("http"));
        assert_eq!(request.field("x-forwarded-host"), Some("shop.example"));
        assert_eq!(
            request.field("x-forwarded-port"),
            Some(gate.address.port().to_string().as_str())
        );
        assert_eq!(request.field("x-request-id").map(str::len), Some(32));
    });
}

#[test]
fn large_answers_pass_unread_and_whole() {
    run(async {
        let big: String = (0..800_000).map(|number| format!("{number:06}")).collect();
        let answer = big.clone();
        let origin = Origins::start(move |request| match request.first_line().contains("short") {
            true => format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{answer}!close",
                answer.len() + 1
            ),
            false => ok(&answer),
        })
        .await;
        let gate = Gate::start(Setup::simple(origin.address)).await;
        let mut client = gate.connect().await;
        for _ in 0..2 {
            client.send(GET).await;
            // Until every buffer on the way is full.
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert!(client.message().await.body == big);
        }
        assert_eq!(*origin.connections.borrow(), 1, "the connection is used again");
        assert_eq!(gate.worker.pipes.kept(), 1, "a pipe was used, and is empty");
        let cut = gate.whole("GET /short HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let (_, body) = cut.split_once("\r\n\r\n").unwrap();
        assert!(body == big, "{} of {} bytes, and then the end", body.len(), big.len());
        // A client that goes away in the middle takes the pipe with what is in it along.
        let mut client = gate.connect().await;
        client.send(GET).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(client);
        let mut client = gate.connect().await;
        client.send(GET).await;
        assert!(client.message().await.body == big);
    });
}

#[test]
fn bodies_pass_in_both_directions_however_they_are_framed() {
    run(async {
        let big = "x".repeat(300_000);
        let answer = big.clone();
        let origin = Origins::start(move |request| {
            if request.first_line().contains("chunked") {
                format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n{:x}\r\n{answer}\r\n0\r\nX-T: t\r\n\r\n", answer.len())
            } else if request.first_line().contains("close") {
                format!("HTTP/1.1 200 OK\r\n\r\n{answer}!close")
            } else {
                ok(&answer)
            }
        })
        .await;
        let gate = Gate::start(Setup::simple(origin.address)).await;
        let mut client = gate.connect().await;
        for path in ["/length", "/chunked", "/close"] {
            client
                .send(&format!(
                    "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{big}",
                    big.len()
                ))
                .await;
            let answer = client.message().await;
            assert_eq!(answer.status(), 200);
            assert!(answer.body == big, "{path}");
            if path == "/chunked" {
                assert_eq!(answer.trailers, "X-T: t\r\n");
            }
        }
        client
            .send(&format!("PUT /length HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n{:x}\r\n{big}\r\n0\r\nX-Sum: 7\r\n\r\n", big.len()))
            .await;
        assert!(client.message().await.body == big);
        let requests = origin.requests();
        assert!(requests[..3].iter().all(|request| request.body == big));
        assert!(requests[3].body == format!("hello{big}"));
        assert_eq!(requests[3].trailers, "X-Sum: 7\r\n");
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    run(async {
        let origin = Origins::start(|request| ok(request.first_line())).await;
        let gate = Gate::start(Setup::simple(origin.address)).await;
        let mut client = gate.connect().await;
        client
            .send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhiGET /3 HTTP/1.1\r\nHost: a\r\n\r\n")
            .await;
        for path in ["/1", "/2", "/3"] {
            assert!(client.message().await.body.contains(path));
        }
    });
}

#[test]
fn fields_of_the_connection_stay_on_the_connection() {
    run(async {
        let origin = Origins::start(|_| {
            "HTTP/1.1 200 OK\r\nConnection: close, X-Secret\r\nX-Secret: 1\r\nKeep-Alive: timeout=5\r\nX-Fine: 1\r\nContent-Length: 0\r\n\r\n!close".to_owned()
        })
        .await;
        let gate = Gate::start(Setup::simple(origin.address)).await;
        let mut client = gate.connect().await;
        for _ in 0..2 {
            client
                .send("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Drop\r\nX-Drop: 1\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nProxy-Authorization: x\r\nTE: trailers, deflate\r\nX-Keep: 1\r\n\r\n")
                .await;
            let answer = client.message().await;
            assert_eq!(answer.field("x-secret"), None);
            assert_eq!(answer.field("keep-alive"), None);
            assert_eq!(answer.field("connection"), None, "the client's connection stays");
            assert_eq!(answer.field("x-fine"), Some("1"));
        }
        let request = &origin.requests()[0];
        for gone in ["x-drop", "keep-alive", "proxy-connection", "proxy-authorization"] {
            assert_eq!(request.field(gone), None, "{gone}");
        }
        assert_eq!(request.field("te"), Some("trailers"));
        assert_eq!(request.field("x-keep"), Some("1"));
        assert_eq!(*origin.connections.borrow(), 2);
    });
}

#[test]
fn a_dead_pooled_connection_fails_no_request() {
    run(async {
        let origin = Origins::start(|_| format!("{}!close", ok("one"))).await;
        let gate = Gate::start(Setup::simple(origin.address)).await;
        let mut client = gate.connect().await;
        for _ in 0..20 {
            client.send(GET).await;
            assert_eq!(client.message().await.status(), 200);
        }
    });
}

#[test]
fn without_a_route_404_without_an_endpoint_503_without_a_backend_500() {
    run(async {
        let origin = Origins::named("a").await;
        let mut setup = Setup::with(Rule::to("a").at("/a"), &[("a", origin.address)]);
        setup.backends.push(("empty", BackendProtocol::Http1, Vec::new()));
        setup
            .backends
            .push(("refusing", BackendProtocol::Http1, vec![nobody().await]));
        setup.rules.push(Rule::to("empty").at("/empty"));
        setup.rules.push(Rule::to("invalid").at("/invalid"));
        setup.rules.push(Rule::to("refusing").at("/refusing"));
        let mut none = Rule::to("a").at("/none");
        none.backends.clear();
        setup.rules.push(none);
        let mut zero = Rule::to("a").at("/zero");
        zero.backends = vec![("a", 0)];
        setup.rules.push(zero);
        let gate = Gate::start(setup).await;
        let mut client = gate.connect().await;
        for (path, status) in [
            ("/a", 200),
            ("/nothing", 404),
            ("/empty", 503),
            ("/refusing", 503),
            ("/invalid", 500),
            ("/none", 500),
            ("/zero", 500),
        ] {
            client.send(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
            assert_eq!(client.message().await.status(), status, "{path}");
        }
    });
}

#[test]
fn an_invalid_backend_gets_exactly_its_share() {
    run(async {
        let origin = Origins::named("a").await;
        let mut rule = Rule::to("a");
        rule.backends = vec![("a", 3), ("invalid", 1)];
        let gate = Gate::start(Setup::with(rule, &[("a", origin.address)])).await;
        let mut client = gate.connect().await;
        let mut failed = 0;
        for _ in 0..40 {
            client.send(GET).await;
            failed += usize::from(client.message().await.status() == 500);
        }
        assert_eq!(failed, 10);
    });
}

#[test]
fn an_http_1_0_client_gets_no_chunks_and_is_closed_unless_it_asks() {
    run(async {
        let origin =
            Origins::start(|_| "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".to_owned())
                .await;
        let gate = Gate::start(Setup::simple(origin.address)).await;
        let answer = gate.whole("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
        assert!(!answer.to_lowercase().contains("transfer-encoding"), "{answer}");
        assert!(answer.ends_with("\r\n\r\nabc"));

        let origin = Origins::named("kept").await;
        let gate = Gate::start(Setup::simple(origin.address)).await;
        let mut client = gate.connect().await;
        for _ in 0..2 {
            client
                .send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
                .await;
            let answer = client.message().await;
            assert_eq!(answer.field("connection"), Some("keep-alive"));
            assert_eq!(answer.body, "kept");
        }
    });
}

#[test]
fn a_host_is_made_for_a_client_that_needs_none() {
    run(async {
        let origin = Origins::named("a").await;
        let gate = Gate::start(Setup::simple(origin.address)).await;
        assert!(gate.whole("GET / HTTP/1.0\r\n\r\n").await.starts_with("HTTP/1.1 200 "));
        assert_eq!(
            origin.requests()[0].field("host"),
            Some(gate.address.to_string().as_str())
        );
    });
}

#[test]
fn a_trusted_proxy_says_who_the_client_is() {
    run(async {
        let origin = Origins::named("a").await;
        let mut setup = Setup::simple(origin.address);
        setup.client_address.forwarded_for = Some(pierhead_model::ForwardedFor {
            trusted: vec!["127.0.0.0/8".parse().unwrap()],
            hops: None,
        });
        let gate = Gate::start(setup).await;
        let mut client = gate.connect().await;
        client
            .send(
                "GET / HTTP/1.1\r\nHost: inner\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 192.0.2.7, 127.0.0.9\r\n\
                 X-Forwarded-Proto: https\r\nX-Real-IP: 6.6.6.6\r\n\r\n",
            )
            .await;
        client.message().await;
        let seen = &origin.requests()[0];
        assert_eq!(seen.field("x-forwarded-for"), Some("192.0.2.7, 127.0.0.9, 127.0.0.1"));
        assert_eq!(
            (seen.field("x-real-ip"), seen.field("x-forwarded-proto")),
            (Some("192.0.2.7"), Some("https"))
        );
        assert_eq!(seen.field("x-forwarded-host"), Some("inner"));
        assert_eq!(seen.head.matches("x-forwarded-for").count(), 1, "{}", seen.head);
    });
}
