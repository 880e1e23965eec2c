//! What must not pass, and what must not be answered twice.

use super::*;

#[test]
fn ambiguous_requests_are_refused_and_the_connection_closed() {
    run(async {
        let origin = Origins::named("a").await;
        let gate = Gate::start(Setup::simple(origin.address)).await;
        for (request, status) in [
            (
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                400,
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
                400,
            ),
            ("GET / HTTP/1.1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
            ("GET / HTTP/1.1\nHost: a\n\n", 400),
            ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\n folded: x\r\n\r\n", 400),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
            ("GET /a%00b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 400),
            ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 405),
        ] {
            let answer = gate.whole(request).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{request:?}: {answer:?}"
            );
            assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{request:?}: {answer:?}");
        }
        assert!(origin.requests().is_empty());
    });
}

#[test]
fn the_expectation_is_ours_to_keep_and_comes_after_routing() {
    run(async {
        let origin = Origins::named("a").await;
        let mut setup = Setup::with(Rule::to("a").at("/a"), &[("a", origin.address)]);
        setup.limits.body_bytes = Some(10);
        let gate = Gate::start(setup).await;
        let mut client = gate.connect().await;
        client
            .send("POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
            .await;
        assert_eq!(client.message().await.status(), 100);
        client.send("hi").await;
        assert_eq!(client.message().await.status(), 200);
        assert_eq!(origin.requests()[0].field("expect"), None);
        assert_eq!(origin.requests()[0].body, "hi");

        for (path, length, status) in [("/nowhere", 2, 404), ("/a", 11, 413)] {
            let answer = gate
                .whole(&format!(
                    "POST {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
                ))
                .await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
            assert!(answer.to_lowercase().contains("connection: close"));
        }
    });
}

#[test]
fn a_body_that_grows_past_the_limit_is_refused() {
    run(async {
        let origin = Origins::named("a").await;
        let mut setup = Setup::simple(origin.address);
        setup.limits.body_bytes = Some(10);
        let gate = Gate::start(setup).await;
        let answer = gate
            .whole("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n12345678\r\n8\r\n12345678\r\n0\r\n\r\n")
            .await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    });
}

#[test]
fn an_early_answer_arrives_although_the_body_was_not_read() {
    run(async {
        let origin = Origins::named("a").await;
        let gate = Gate::start(Setup::with(Rule::to("a").at("/a"), &[("a", origin.address)])).await;
        let body = "x".repeat(40_000);
        let mut client = gate.connect().await;
        // Small enough to be taken off the wire: the connection lives on.
        client
            .send(&format!(
                "POST /none HTTP/1.1\r\nHost: a\r\nContent-Length: 40000\r\n\r\n{body}"
            ))
            .await;
        assert_eq!(client.message().await.status(), 404);
        client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.message().await.status(), 200);
        // Too large: said so, and closed.
        client
            .send(&format!(
                "POST /none HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n{body}"
            ))
            .await;
        let answer = client.message().await;
        assert_eq!((answer.status(), answer.field("connection")), (404, Some("close")));
        assert_eq!(client.rest().await, "");
    });
}

#[test]
fn interim_answers_pass_except_100() {
    run(async {
        let origin = Origins::start(|_| {
            format!(
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: x\r\n\r\n{}",
                ok("late")
            )
        })
        .await;
        let gate = Gate::start(Setup::simple(origin.address)).await;
        let mut client = gate.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let hints = client.message().await;
        assert_eq!(
            (hints.status(), hints.field("link"), hints.field("connection")),
            (103, Some("</a>"), None)
        );
        assert_eq!(client.message().await.body, "late");
        let old = gate.whole("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
        assert!(old.starts_with("HTTP/1.1 200"), "{old}");
    });
}

#[test]
fn what_follows_an_answer_is_never_taken_for_the_next() {
    run(async {
        let origin =
            Origins::start(|_| format!("{}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", ok("good"))).await;
        let gate = Gate::start(Setup::simple(origin.address)).await;
        let mut client = gate.connect().await;
        for _ in 0..5 {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            assert_eq!(client.message().await.body, "good");
        }
        assert_eq!(*origin.connections.borrow(), 5, "no connection in doubt is used again");
    });
}

#[test]
fn answers_in_doubt_become_502_and_cut_ones_are_cut() {
    run(async {
        let origin = Origins::start(|request| match request.first_line().split(' ').nth(1) {
            Some("/nonsense") => "SMTP ready\r\n\r\n!close".to_owned(),
            Some("/both") => {
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n!close".to_owned()
            }
            Some("/nothing") => "!close".to_owned(),
            Some("/101") => {
                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n!close".to_owned()
            }
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc!close".to_owned(),
        })
        .await;
        let gate = Gate::start(Setup::simple(origin.address)).await;
        for path in ["/nonsense", "/both", "/nothing", "/101"] {
            let answer = gate
                .whole(&format!(
                    "POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
                ))
                .await;
            assert!(answer.starts_with("HTTP/1.1 502 "), "{path}: {answer}");
        }
        let answer = gate.whole("GET /cut HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(answer.ends_with("\r\n\r\nabc"), "{answer}");
    });
}

#[test]
fn slow_heads_and_idle_connections_end() {
    run(async {
        let origin = Origins::named("a").await;
        let mut setup = Setup::simple(origin.address);
        setup.limits.header_timeout = Duration::from_millis(80);
        setup.limits.idle_timeout = Duration::from_millis(80);
        setup.limits.body_idle_timeout = Duration::from_millis(80);
        let gate = Gate::start(setup).await;
        assert!(
            gate.whole("GET / HTTP/1.1\r\nHost: a\r\n")
                .await
                .starts_with("HTTP/1.1 408 ")
        );
        assert_eq!(gate.whole("").await, "");
        let answer = gate.whole("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200"));
        let body = gate
            .whole("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab")
            .await;
        assert!(body.starts_with("HTTP/1.1 408 "), "{body}");
    });
}

#[test]
fn those_that_leave_go_with_their_next_answer_and_not_before() {
    run(async {
        let origin = Origins::named("a").await;
        let gate = Gate::start(Setup::simple(origin.address)).await;
        let mut idle = gate.connect().await;
        idle.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(idle.message().await.field("connection"), None);
        gate.worker.drain.leave();
        // Long enough for a close to be seen.
        tokio::time::sleep(Duration::from_millis(50)).await;
        idle.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let answer = idle.message().await;
        assert_eq!((answer.status(), answer.field("connection")), (200, Some("close")));
        assert_eq!(idle.rest().await, "");
        let mut fresh = gate.connect().await;
        fresh.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(fresh.message().await.field("connection"), Some("close"));
        let mut quiet = gate.connect().await;
        gate.worker.drain.start();
        assert_eq!(quiet.rest().await, "");
    });
}

#[test]
fn a_drain_closes_after_the_answer_and_idle_connections_at_once() {
    run(async {
        let origin = Origins::named("a").await;
        let gate = Gate::start(Setup::simple(origin.address)).await;
        let mut idle = gate.connect().await;
        idle.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(idle.message().await.field("connection"), None);
        let mut busy = gate.connect().await;
        busy.send("GET / HTTP/1.1\r\nHost:").await;
        while *origin.connections.borrow() == 0 {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        gate.worker.drain.start();
        assert_eq!(idle.rest().await, "");
        busy.send(" a\r\n\r\n").await;
        let answer = busy.message().await;
        assert_eq!((answer.status(), answer.field("connection")), (200, Some("close")));
        assert_eq!(busy.rest().await, "");
    });
}
