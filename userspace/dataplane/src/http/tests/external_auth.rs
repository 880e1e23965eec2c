//! External authorization on the wire.

use std::collections::HashMap;

use bytes::Bytes;
use http::{HeaderMap, Response};
use pierhead_model::{ExternalAuthFilter, ExternalAuthProtocol, HeaderModifier, HeaderName, HeaderValue};

use super::*;

fn names(list: &[&str]) -> Vec<HeaderName> {
    list.iter().map(|name| HeaderName::parse(name).unwrap()).collect()
}

/// Over HTTP, to the backend `auth`.
fn over_http(path_prefix: &str, request: &[&str], response: &[&str], body_bytes: u32) -> Filter {
    Filter::ExternalAuth(ExternalAuthFilter {
        backend: BackendId::new("auth"),
        protocol: ExternalAuthProtocol::Http {
            path_prefix: path_prefix.into(),
            request_headers: names(request),
            response_headers: names(response),
        },
        body_bytes,
    })
}

fn over_grpc(request: &[&str], body_bytes: u32) -> Filter {
    Filter::ExternalAuth(ExternalAuthFilter {
        backend: BackendId::new("auth"),
        protocol: ExternalAuthProtocol::Grpc {
            request_headers: names(request),
        },
        body_bytes,
    })
}

fn set(name: &str, value: &str) -> Filter {
    Filter::RequestHeaders(HeaderModifier {
        set: vec![(HeaderName::parse(name).unwrap(), HeaderValue::parse(value).unwrap())],
        ..HeaderModifier::default()
    })
}

async fn gate(filters: Vec<Filter>, origin: &Origins, auth: SocketAddr) -> Gate {
    let mut rule = Rule::to("a");
    rule.filters = filters;
    Gate::start(Setup::with(rule, &[("a", origin.address), ("auth", auth)])).await
}

/// Says yes to `Authorization: good`, and no to everything else.
async fn guard() -> Origins {
    Origins::start(|request| match request.field("authorization") {
        Some("good") => "HTTP/1.1 200 OK\r\nX-User: ann\r\nX-Groups: a\r\nX-Groups: b\r\nContent-Length: 4\r\n\r\ntext".to_owned(),
        _ => "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nConnection: x-hop\r\nX-Hop: 1\r\nContent-Length: 5\r\n\r\nlogin"
            .to_owned(),
    })
    .await
}

#[test]
fn a_yes_lets_the_request_pass_with_what_the_service_says() {
    run(async {
        let (origin, auth) = (Origins::named("a").await, guard().await);
        let gate = gate(
            vec![over_http("/check", &["Cookie"], &["X-User", "X-Groups", "X-Role"], 0)],
            &origin,
            auth.address,
        )
        .await;
        let mut client = gate.connect().await;
        for _ in 0..2 {
            client
                .send(
                    "PUT /a?b HTTP/1.1\r\nHost: shop.example\r\nAuthorization: good\r\nCookie: c\r\nX-Role: admin\r\n\
                     X-User: root\r\nX-Secret: s\r\nConnection: authorization, x-user\r\nContent-Length: 3\r\n\r\nabc",
                )
                .await;
            assert_eq!(client.message().await.body, "a");
        }
        let asked = &auth.requests()[0];
        assert_eq!(asked.first_line(), "PUT /check/a?b HTTP/1.1");
        assert_eq!(asked.field("host"), Some("shop.example"));
        assert_eq!(asked.field("content-length"), Some("0"));
        assert_eq!((asked.field("cookie"), asked.field("x-secret")), (Some("c"), None));
        assert!(asked.field("x-forwarded-for").is_none(), "{}", asked.head);
        let seen = &origin.requests()[0];
        assert_eq!(seen.body, "abc");
        assert_eq!(seen.field("x-user"), Some("ann"));
        assert!(seen.head.contains("X-Groups: a\r\nX-Groups: b\r\n"), "{}", seen.head);
        assert_eq!((seen.field("x-role"), seen.field("x-secret")), (None, Some("s")));
        assert_eq!(*auth.connections.borrow(), 1, "the connection is used again");
    });
}

#[test]
fn any_other_answer_goes_to_the_client_and_the_connection_lives_on() {
    run(async {
        let (origin, auth) = (Origins::named("a").await, guard().await);
        let gate = gate(vec![over_http("", &[], &[], 0)], &origin, auth.address).await;
        let mut client = gate.connect().await;
        for _ in 0..2 {
            client
                .send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
                .await;
            let answer = client.message().await;
            assert_eq!((answer.status(), answer.body.as_str()), (401, "login"));
            assert_eq!(answer.field("www-authenticate"), Some("Basic"));
            assert_eq!((answer.field("x-hop"), answer.field("connection")), (None, None));
        }
        assert!(origin.requests().is_empty());
        assert!(auth.requests().iter().all(|asked| asked.body.is_empty()));
        client
            .send("GET / HTTP/1.1\r\nHost: x\r\nAuthorization: good\r\n\r\n")
            .await;
        assert_eq!(client.message().await.status(), 200);
    });
}

#[test]
fn only_200_is_a_yes() {
    run(async {
        let origin = Origins::named("a").await;
        for (answer, expected) in [
            ("HTTP/1.1 204 No Content\r\n\r\n", 204),
            (
                "HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n",
                302,
            ),
            ("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", 500),
            (
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
                503,
            ),
            ("nonsense\r\n\r\n!close", 503),
            ("!close", 503),
        ] {
            let auth = Origins::start(move |_| answer.to_owned()).await;
            let gate = gate(vec![over_http("", &[], &[], 0)], &origin, auth.address).await;
            let mut client = gate.connect().await;
            client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
            assert_eq!(client.message().await.status(), expected, "{answer:?}");
        }
        assert!(origin.requests().is_empty());
    });
}

#[test]
fn a_service_that_is_not_there_lets_nothing_pass() {
    run(async {
        let origin = Origins::named("a").await;
        let gate = gate(vec![over_http("", &[], &[], 0)], &origin, nobody().await).await;
        let mut client = gate.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert_eq!(client.message().await.status(), 503);

        let mut invalid = over_http("", &[], &[], 0);
        if let Filter::ExternalAuth(auth) = &mut invalid {
            auth.backend = BackendId::new("invalid");
        }
        let gate = Gate::start(Setup::with(Rule::to("a").with(invalid), &[("a", origin.address)])).await;
        let mut client = gate.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert_eq!(client.message().await.status(), 500);
        assert!(origin.requests().is_empty());
    });
}

#[test]
fn a_dead_pooled_connection_is_no_no() {
    run(async {
        let origin = Origins::named("a").await;
        let auth = Origins::start(|_| format!("{}!close", ok(""))).await;
        let gate = gate(vec![over_http("", &[], &[], 0)], &origin, auth.address).await;
        let mut client = gate.connect().await;
        for _ in 0..5 {
            client
                .send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
                .await;
            assert_eq!(client.message().await.status(), 200);
        }
    });
}

#[test]
fn bodies_are_forwarded_up_to_a_size_and_reach_the_backend_too() {
    run(async {
        let (origin, auth) = (Origins::named("a").await, Origins::named("").await);
        let gate = gate(vec![over_http("", &[], &[], 100_000)], &origin, auth.address).await;
        let long = "x".repeat(100_000);
        let mut client = gate.connect().await;
        client
            .send(&format!(
                "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{long}",
                long.len()
            ))
            .await;
        assert_eq!(client.message().await.status(), 200);
        client
            .send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n")
            .await;
        assert_eq!(client.message().await.status(), 200);
        for messages in [auth.requests(), origin.requests()] {
            assert_eq!((messages[0].body.len(), messages[1].body.as_str()), (100_000, "abc"));
        }
        assert_eq!(auth.requests()[1].field("content-length"), Some("3"));
        assert_eq!(auth.requests()[1].field("transfer-encoding"), None);
        assert_eq!(origin.requests()[1].field("transfer-encoding"), Some("chunked"));

        // One byte more, with and without a length that says so.
        let answer = gate
            .whole("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 100001\r\n\r\n")
            .await;
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
        let answer = gate
            .whole(&format!(
                "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n186a1\r\n{long}y\r\n0\r\n\r\n"
            ))
            .await;
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
        assert_eq!((auth.requests().len(), origin.requests().len()), (2, 2));
    });
}

#[test]
fn who_asks_before_sending_is_told_to_send_what_the_service_needs() {
    run(async {
        let (origin, auth) = (Origins::named("a").await, Origins::named("").await);
        let gate = gate(vec![over_http("", &[], &[], 10)], &origin, auth.address).await;
        let mut client = gate.connect().await;
        client
            .send("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
            .await;
        assert_eq!(client.message().await.status(), 100);
        client.send("abc").await;
        assert_eq!(client.message().await.status(), 200);
        assert_eq!(auth.requests()[0].body, "abc");
        assert_eq!(origin.requests()[0].body, "abc");
    });
}

#[test]
fn filters_run_in_their_order() {
    run(async {
        let (origin, auth) = (Origins::named("a").await, Origins::named("").await);
        let filters = vec![
            set("Authorization", "one"),
            over_http("", &[], &["x"], 0),
            set("Authorization", "two"),
        ];
        let gate = gate(filters, &origin, auth.address).await;
        let mut client = gate.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        client.message().await;
        assert_eq!(auth.requests()[0].field("authorization"), Some("one"));
        assert_eq!(origin.requests()[0].field("authorization"), Some("two"));
    });
}

#[test]
fn listeners_ask_before_a_route_is_chosen_by_what_the_service_says() {
    run(async {
        let (a, b) = (Origins::named("a").await, Origins::named("b").await);
        let auth = Origins::start(|request| match request.field("authorization") {
            Some(path) => format!("HTTP/1.1 200 OK\r\nX-Tenant: {path}\r\nHost: evil\r\nContent-Length: 0\r\n\r\n"),
            None => "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n".to_owned(),
        })
        .await;
        let mut setup = Setup::with(
            Rule::to("a").at("/app"),
            &[("a", a.address), ("b", b.address), ("auth", auth.address)],
        );
        setup.rules.push(Rule::to("b").at("/app"));
        setup.listener_filters = vec![over_http("", &[], &[], 0)];
        let change = |snapshot: &mut Snapshot| {
            for route in snapshot.routes.values_mut() {
                let route = Arc::make_mut(route);
                if route.rules[0].backends[0].backend == BackendId::new("b") {
                    route.rules[0].matches[0].headers = vec![pierhead_model::HeaderMatch {
                        name: HeaderName::parse("x-tenant").unwrap(),
                        value: pierhead_model::ValueMatch::Exact("b".into()),
                    }];
                }
            }
        };
        let gate = Gate::start_changed(setup, change, None).await;
        let mut client = gate.connect().await;
        for (authorization, expected) in [
            ("Authorization: b\r\n", 200),
            ("X-Tenant: b\r\n", 403),
            ("Authorization: c\r\n", 200),
        ] {
            client
                .send(&format!("GET /app HTTP/1.1\r\nHost: x\r\n{authorization}\r\n"))
                .await;
            assert_eq!(client.message().await.status(), expected);
        }
        assert_eq!((a.requests().len(), b.requests().len()), (1, 1));
        assert_eq!(b.requests()[0].field("host"), Some("x"));
        // Also what no route wants.
        client.send("GET /none HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert_eq!(client.message().await.status(), 403);
        client
            .send("GET /none HTTP/1.1\r\nHost: x\r\nAuthorization: b\r\n\r\n")
            .await;
        assert_eq!(client.message().await.status(), 404);
    });
}

#[test]
fn a_listener_with_a_filter_that_is_not_understood_serves_nothing() {
    run(async {
        let origin = Origins::named("a").await;
        let mut setup = Setup::simple(origin.address);
        setup.listener_filters = vec![Filter::Unsupported { what: "x".into() }];
        let gate = Gate::start(setup).await;
        let mut client = gate.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert_eq!(client.message().await.status(), 500);
        assert!(origin.requests().is_empty());
    });
}

type Answering = Rc<dyn Fn(&HashMap<String, String>, &[u8]) -> (u16, Vec<u8>, &'static str)>;

/// A gRPC service: what it is asked (headers of the call, message), and what it answers (status, message, grpc-status).
async fn grpc(
    answer: impl Fn(&HashMap<String, String>, &[u8]) -> (u16, Vec<u8>, &'static str) + 'static,
) -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let answer: Answering = Rc::new(answer);
    spawn_local(async move {
        loop {
            let (stream, _) = socket.accept().await.unwrap();
            let answer = Rc::clone(&answer);
            spawn_local(async move {
                let Ok(mut connection) = h2::server::handshake(stream).await else {
                    return;
                };
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let answer = Rc::clone(&answer);
                    spawn_local(async move {
                        let mut headers: HashMap<String, String> = HashMap::new();
                        headers.insert(":path".to_owned(), request.uri().path().to_owned());
                        headers.insert(":authority".to_owned(), request.uri().authority().unwrap().to_string());
                        for (name, value) in request.headers() {
                            headers.insert(name.to_string(), value.to_str().unwrap().to_owned());
                        }
                        let mut body = request.into_body();
                        let mut message = Vec::new();
                        while let Some(data) = body.data().await {
                            message.extend_from_slice(&data.unwrap());
                        }
                        let (status, message, grpc_status) = answer(&headers, &message);
                        let response = Response::builder()
                            .status(status)
                            .header("content-type", "application/grpc");
                        let mut stream = respond.send_response(response.body(()).unwrap(), false).unwrap();
                        stream.send_data(Bytes::from(message), false).unwrap();
                        let mut trailers = HeaderMap::new();
                        trailers.insert("grpc-status", grpc_status.parse().unwrap());
                        stream.send_trailers(trailers).unwrap();
                    });
                }
            });
        }
    });
    address
}

/// A field of a protobuf message that has a length.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = content.len();
    while length > 127 {
        out.push(length as u8 | 128);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(content);
    out
}

fn framed(message: &[u8]) -> Vec<u8> {
    let mut out = vec![0];
    out.extend_from_slice(&(message.len() as u32).to_be_bytes());
    out.extend_from_slice(message);
    out
}

/// `HeaderValueOption`.
fn option(name: &str, value: &str, append: bool) -> Vec<u8> {
    let header = [field(1, name.as_bytes()), field(2, value.as_bytes())].concat();
    let append = if append { field(2, &[1 << 3, 1]) } else { Vec::new() };
    [field(1, &header), append].concat()
}

/// `google.rpc.Status`.
fn status(code: u8) -> Vec<u8> {
    field(1, &if code == 0 { Vec::new() } else { vec![1 << 3, code] })
}

fn grpc_setup(filter: Filter, origin: SocketAddr, auth: SocketAddr) -> Setup {
    let mut setup = Setup::with(Rule::to("a").with(filter), &[("a", origin), ("auth", auth)]);
    setup.backends[1].1 = BackendProtocol::Http2;
    setup
}

#[test]
fn a_grpc_service_is_told_the_request_and_changes_it() {
    run(async {
        let origin =
            Origins::start(|_| "HTTP/1.1 200 OK\r\nX-Both: backend\r\nContent-Length: 0\r\n\r\n".to_owned()).await;
        let seen = Rc::new(RefCell::new(Vec::new()));
        let log = Rc::clone(&seen);
        let auth = grpc(move |headers, message| {
            log.borrow_mut().push((headers.clone(), message.to_vec()));
            let yes = [
                field(2, &option("X-User", "ann", false)),
                field(2, &option("x-more", "2", true)),
                field(2, &option("Host", "evil", false)),
                field(2, &option(":authority", "evil", false)),
                field(2, &option("Content-Length", "99", false)),
                field(2, &option(":path", "/new/../path?q=1", false)),
                field(5, b"Authorization"),
                field(5, b"host"),
                field(6, &option("X-Both", "auth", true)),
                field(7, &[field(1, b"who"), field(2, b"a b")].concat()),
                field(8, b"q"),
            ]
            .concat();
            (200, framed(&[status(0), field(3, &yes)].concat()), "0")
        })
        .await;
        let gate = Gate::start(grpc_setup(over_grpc(&[], 16), origin.address, auth)).await;
        let mut client = gate.connect().await;
        client
            .send(
                "POST /old?x=y HTTP/1.1\r\nHost: shop.example\r\nAuthorization: secret\r\nX-User: root\r\nX-More: 1\r\n\
                 Connection: x-hop\r\nX-Hop: 1\r\nContent-Length: 4\r\n\r\nbody",
            )
            .await;
        let answer = client.message().await;
        assert!(
            answer.head.contains("X-Both: backend\r\nX-Both: auth\r\n"),
            "{}",
            answer.head
        );
        let request = &origin.requests()[0];
        assert_eq!(request.first_line(), "POST /path?who=a%20b HTTP/1.1");
        assert_eq!(
            (request.body.as_str(), request.field("content-length")),
            ("body", Some("4"))
        );
        assert_eq!(
            (request.field("host"), request.field("authorization")),
            (Some("shop.example"), None)
        );
        assert_eq!(request.field("x-user"), Some("ann"));
        let both = ["X-More: 1\r\n", "x-more: 2\r\n"].map(|line| request.head.contains(line));
        assert_eq!(both, [true, true], "{}", request.head);

        let (headers, message) = &seen.borrow()[0];
        assert_eq!(headers[":path"], "/envoy.service.auth.v3.Authorization/Check");
        assert_eq!(headers[":authority"], "auth.default");
        assert_eq!(
            (headers["content-type"].as_str(), headers["te"].as_str()),
            ("application/grpc", "trailers")
        );
        assert_eq!(message[0], 0);
        assert_eq!(
            u32::from_be_bytes(message[1..5].try_into().unwrap()) as usize,
            message.len() - 5
        );
        for told in [
            "/old?x=y",
            "shop.example",
            "authorization",
            "secret",
            "HTTP/1.1",
            "127.0.0.1",
            "body",
            ":path",
        ] {
            assert!(find(message, told.as_bytes()).is_some(), "{told}");
        }
        assert!(find(message, b"x-hop").is_none());
    });
}

#[test]
fn a_grpc_service_is_told_only_what_is_listed() {
    run(async {
        let origin = Origins::named("a").await;
        let seen = Rc::new(RefCell::new(Vec::new()));
        let log = Rc::clone(&seen);
        let auth = grpc(move |_, message| {
            log.borrow_mut().push(message.to_vec());
            (200, framed(&status(0)), "0")
        })
        .await;
        let gate = Gate::start(grpc_setup(over_grpc(&["X-One"], 0), origin.address, auth)).await;
        let mut client = gate.connect().await;
        client
            .send("POST / HTTP/1.1\r\nHost: x\r\nX-One: first\r\nX-One: second\r\nX-Two: hidden\r\nContent-Length: 6\r\n\r\nsecret")
            .await;
        assert_eq!(client.message().await.status(), 200);
        assert!(find(&seen.borrow()[0], b"first,second").is_some());
        for hidden in [&b"hidden"[..], b"secret", b":path"] {
            assert!(find(&seen.borrow()[0], hidden).is_none());
        }
        assert_eq!(origin.requests()[0].body, "secret");
    });
}

#[test]
fn what_a_grpc_service_denies_or_cannot_say_does_not_pass() {
    run(async {
        let origin = Origins::named("a").await;
        let denied = [
            field(1, &[1 << 3, 0xad, 3]),
            field(2, &option("Set-Cookie", "a", false)),
            field(2, &option("Set-Cookie", "b", false)),
            field(2, &option("Transfer-Encoding", "chunked", false)),
            field(3, b"slow down"),
        ]
        .concat();
        let cases = [
            ((200, framed(&[status(7), field(2, &denied)].concat()), "0"), 429),
            ((200, framed(&status(7)), "0"), 403),
            // No status is no yes.
            ((200, framed(b""), "0"), 403),
            ((200, framed(&status(0)), "14"), 503),
            ((503, framed(&status(0)), "0"), 503),
            ((200, status(0), "0"), 503),
            ((200, framed(&[0xff]), "0"), 503),
            ((200, [framed(&status(0)), framed(&status(0))].concat(), "0"), 503),
            (
                (
                    200,
                    framed(&[status(0), field(3, &field(2, &option("bad name", "x", false)))].concat()),
                    "0",
                ),
                503,
            ),
            (
                (
                    200,
                    framed(&[status(0), field(3, &field(2, &option("x", "a\r\nb", false)))].concat()),
                    "0",
                ),
                503,
            ),
            (
                (
                    200,
                    framed(&[status(0), field(3, &field(2, &option(":path", "none", false)))].concat()),
                    "0",
                ),
                503,
            ),
        ];
        for (answer, expected) in cases {
            let said = answer.clone();
            let auth = grpc(move |_, _| said.clone()).await;
            let gate = Gate::start(grpc_setup(over_grpc(&[], 0), origin.address, auth)).await;
            let mut client = gate.connect().await;
            client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
            let message = client.message().await;
            assert_eq!(message.status(), expected, "{answer:?}");
            if expected == 429 {
                assert_eq!(message.body, "slow down");
                assert!(
                    message.head.contains("Set-Cookie: a\r\nSet-Cookie: b\r\n"),
                    "{}",
                    message.head
                );
                assert_eq!(message.field("transfer-encoding"), None);
            }
        }
        assert!(origin.requests().is_empty());
    });
}
