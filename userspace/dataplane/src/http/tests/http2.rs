//! HTTP/2 on either side.

use bytes::Bytes;
use h2::{RecvStream, client::SendRequest, server::SendResponse};
use http::{HeaderMap, Request, Response};

use super::*;

/// A client that speaks HTTP/2 at once.
async fn http2(gate: &Gate) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(gate.address).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    spawn_local(async move {
        let _ = connection.await;
    });
    send.ready().await.unwrap()
}

fn request(method: &str, path: &str) -> http::request::Builder {
    Request::builder()
        .method(method)
        .uri(format!("http://shop.example{path}"))
}

/// All data and the trailers.
pub(super) async fn read(mut body: RecvStream) -> (String, Option<HeaderMap>) {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        let _ = body.flow_control().release_capacity(data.len());
        all.extend_from_slice(&data);
    }
    (String::from_utf8(all).unwrap(), body.trailers().await.unwrap())
}

async fn exchange(
    send: &mut SendRequest<Bytes>,
    request: Request<()>,
    body: Option<&str>,
) -> (http::response::Parts, String, Option<HeaderMap>) {
    let (response, mut stream) = send.send_request(request, body.is_none()).unwrap();
    if let Some(body) = body {
        stream.send_data(Bytes::copy_from_slice(body.as_bytes()), true).unwrap();
    }
    let (parts, body) = response.await.unwrap().into_parts();
    let (body, trailers) = read(body).await;
    (parts, body, trailers)
}

/// A backend that speaks HTTP/2 and answers as gRPC does: the request's body, then trailers. Counts connections.
async fn echo(refuse_first: bool) -> (SocketAddr, Rc<RefCell<usize>>) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let connections = Rc::new(RefCell::new(0));
    let count = Rc::clone(&connections);
    let refused = Rc::new(RefCell::new(!refuse_first));
    spawn_local(async move {
        loop {
            let (stream, _) = socket.accept().await.unwrap();
            *count.borrow_mut() += 1;
            let refused = Rc::clone(&refused);
            spawn_local(async move {
                let mut builder = h2::server::Builder::new();
                builder.max_concurrent_streams(4);
                let Ok(mut connection) = builder.handshake(stream).await else {
                    return;
                };
                while let Some(Ok((request, respond))) = connection.accept().await {
                    let mut respond: SendResponse<Bytes> = respond;
                    if !refused.replace(true) {
                        respond.send_reset(h2::Reason::REFUSED_STREAM);
                        continue;
                    }
                    spawn_local(async move {
                        let te = request.headers().get("te").cloned();
                        let authority = request.uri().authority().unwrap().to_string();
                        let (body, _) = read(request.into_body()).await;
                        let mut response = Response::builder().header("content-type", "application/grpc");
                        response = response.header("x-authority", authority);
                        if let Some(te) = te {
                            response = response.header("x-te", te);
                        }
                        let mut stream = respond.send_response(response.body(()).unwrap(), false).unwrap();
                        stream.send_data(Bytes::from(body), false).unwrap();
                        let mut trailers = HeaderMap::new();
                        trailers.insert("grpc-status", "0".parse().unwrap());
                        stream.send_trailers(trailers).unwrap();
                    });
                }
            });
        }
    });
    (address, connections)
}

#[test]
fn prior_knowledge_reaches_an_http_1_backend() {
    run(async {
        let origin = Origins::start(|request| ok(&request.body)).await;
        let gate = Gate::start(Setup::simple(origin.address)).await;
        let mut client = http2(&gate).await;
        let wanted = request("POST", "/a?b=c")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let (parts, body, _) = exchange(&mut client, wanted, Some("data")).await;
        assert_eq!((parts.status.as_u16(), body.as_str()), (200, "data"));
        assert_eq!(parts.headers["content-length"], "4");
        let seen = &origin.requests()[0];
        assert_eq!(seen.first_line(), "POST /a?b=c HTTP/1.1");
        assert_eq!(seen.field("host"), Some("shop.example"));
        assert_eq!(seen.field("cookie"), Some("a=1; b=2"));
        assert_eq!(seen.field("x-forwarded-for"), Some("127.0.0.1"));
        let (parts, ..) = exchange(&mut client, request("HEAD", "/").body(()).unwrap(), None).await;
        assert_eq!(parts.status.as_u16(), 200);
    });
}

#[test]
fn grpc_passes_with_its_trailers_over_shared_connections() {
    run(async {
        let (address, connections) = echo(false).await;
        let gate = Gate::start(Setup::simple(address).http2()).await;
        let mut client = http2(&gate).await;
        // The backend's SETTINGS are known after this.
        exchange(&mut client, request("POST", "/").body(()).unwrap(), Some("first")).await;
        let mut waiting = Vec::new();
        for number in 0..10 {
            let wanted = request("POST", "/pkg.Service/Method")
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(())
                .unwrap();
            let (response, mut stream) = client.send_request(wanted, false).unwrap();
            stream
                .send_data(Bytes::from(format!("message {number}")), true)
                .unwrap();
            waiting.push((number, response));
        }
        for (number, response) in waiting {
            let (parts, body) = response.await.unwrap().into_parts();
            assert_eq!(parts.headers["x-te"], "trailers");
            assert_eq!(parts.headers["x-authority"], "shop.example");
            let (body, trailers) = read(body).await;
            assert_eq!(body, format!("message {number}"));
            assert_eq!(trailers.unwrap()["grpc-status"], "0");
        }
        // Four streams on the first; the rest waits for the SETTINGS of a second.
        assert_eq!(*connections.borrow(), 2);
    });
}

#[test]
fn an_http_1_client_reads_an_http_2_backend_with_trailers() {
    run(async {
        let (address, _) = echo(false).await;
        let gate = Gate::start(Setup::simple(address).http2()).await;
        let mut client = gate.connect().await;
        client
            .send(
                "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            )
            .await;
        let answer = client.message().await;
        assert_eq!((answer.status(), answer.body.as_str()), (200, "hi"));
        assert_eq!(answer.trailers, "grpc-status: 0\r\n");
    });
}

#[test]
fn a_refused_stream_is_tried_again() {
    run(async {
        let (address, _) = echo(true).await;
        let gate = Gate::start(Setup::simple(address).http2()).await;
        let mut client = http2(&gate).await;
        let (parts, body, _) = exchange(&mut client, request("PUT", "/").body(()).unwrap(), Some("again")).await;
        assert_eq!((parts.status.as_u16(), body.as_str()), (200, "again"));
    });
}

#[test]
fn without_a_route_a_grpc_client_is_told_unimplemented() {
    run(async {
        let (address, _) = echo(false).await;
        let gate = Gate::start(Setup::with(Rule::to("a").at("/known"), &[("a", address)]).http2()).await;
        let mut client = http2(&gate).await;
        let wanted = request("POST", "/other/Method")
            .header("content-type", "application/grpc")
            .body(())
            .unwrap();
        let (parts, ..) = exchange(&mut client, wanted, Some("x")).await;
        assert_eq!(
            (parts.status.as_u16(), &parts.headers["grpc-status"]),
            (200, &"12".parse().unwrap())
        );
    });
}

#[test]
fn authority_and_host_must_agree_and_connect_is_refused() {
    run(async {
        let origin = Origins::named("a").await;
        let gate = Gate::start(Setup::simple(origin.address)).await;
        let mut client = http2(&gate).await;
        let split = request("GET", "/").header("host", "other.example").body(()).unwrap();
        assert_eq!(exchange(&mut client, split, None).await.0.status.as_u16(), 400);
        let connect = Request::builder()
            .method("CONNECT")
            .uri("shop.example:80")
            .body(())
            .unwrap();
        assert_eq!(exchange(&mut client, connect, None).await.0.status.as_u16(), 405);
        let same = request("GET", "/").header("host", "shop.example").body(()).unwrap();
        assert_eq!(exchange(&mut client, same, None).await.0.status.as_u16(), 200);
        assert_eq!(origin.requests().len(), 1);
    });
}

#[test]
fn too_many_fields_are_refused_cookie_crumbs_counted_one_each() {
    run(async {
        let origin = Origins::named("a").await;
        let gate = Gate::start(Setup::simple(origin.address)).await;
        let mut client = http2(&gate).await;
        let mut wanted = request("GET", "/");
        for number in 0..101 {
            wanted = wanted.header("cookie", format!("c={number}"));
        }
        let (parts, ..) = exchange(&mut client, wanted.body(()).unwrap(), None).await;
        assert_eq!(parts.status.as_u16(), 431);
    });
}

#[test]
fn early_hints_pass_to_http_2() {
    run(async {
        let origin = Origins::start(|_| format!("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{}", ok("late"))).await;
        let gate = Gate::start(Setup::simple(origin.address)).await;
        let mut client = http2(&gate).await;
        let (mut response, _) = client
            .send_request(request("GET", "/").body(()).unwrap(), true)
            .unwrap();
        let hints = std::future::poll_fn(|cx| response.poll_informational(cx))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            (hints.status().as_u16(), &hints.headers()["link"]),
            (103, &"</a>".parse().unwrap())
        );
        assert_eq!(read(response.await.unwrap().into_body()).await.0, "late");
    });
}

#[test]
fn a_closed_window_does_not_hold_a_stream_for_ever() {
    run(async {
        let body = "x".repeat(500_000);
        let origin = Origins::start(move |_| ok(&body)).await;
        let mut setup = Setup::simple(origin.address);
        setup.limits.body_idle_timeout = Duration::from_millis(100);
        let gate = Gate::start(setup).await;
        let mut client = http2(&gate).await;
        let (response, _) = client
            .send_request(request("GET", "/").body(()).unwrap(), true)
            .unwrap();
        let mut body = response.await.unwrap().into_body();
        // Nothing is released: the window closes after 64 kB.
        let ended = loop {
            match body.data().await {
                Some(Ok(_)) => {}
                other => break other,
            }
        };
        assert!(ended.unwrap().unwrap_err().is_reset());
    });
}

#[test]
fn a_drain_says_goaway_and_lets_streams_finish() {
    run(async {
        let origin = Origins::named("a").await;
        let gate = Gate::start(Setup::simple(origin.address)).await;
        let mut client = http2(&gate).await;
        let (response, mut body) = client
            .send_request(request("POST", "/").body(()).unwrap(), false)
            .unwrap();
        tokio::task::yield_now().await;
        // Known to the gate before it drains.
        while *origin.connections.borrow() == 0 {
            tokio::task::yield_now().await;
        }
        gate.worker.drain.start();
        body.send_data(Bytes::from_static(b"x"), true).unwrap();
        assert_eq!(response.await.unwrap().status().as_u16(), 200);
        loop {
            match client.clone().ready().await {
                Err(error) => {
                    assert!(error.is_go_away() || error.is_io(), "{error}");
                    break;
                }
                Ok(mut still) => {
                    // Until GOAWAY has come, new streams are served.
                    if let Ok((response, _)) = still.send_request(request("GET", "/").body(()).unwrap(), true) {
                        let _ = response.await;
                    }
                }
            }
        }
    });
}

#[test]
fn a_backend_that_says_goodbye_fails_no_request() {
    run(async {
        // Each connection takes one stream and then says GOAWAY.
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        spawn_local(async move {
            loop {
                let (stream, _) = socket.accept().await.unwrap();
                spawn_local(async move {
                    let Ok(mut connection) = h2::server::handshake(stream).await else {
                        return;
                    };
                    while let Some(Ok((_, respond))) = connection.accept().await {
                        let mut respond: SendResponse<Bytes> = respond;
                        respond.send_response(Response::new(()), true).unwrap();
                        connection.graceful_shutdown();
                    }
                });
            }
        });
        let gate = Gate::start(Setup::simple(address).http2()).await;
        let mut client = gate.connect().await;
        for _ in 0..20 {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            assert_eq!(client.message().await.status(), 200);
        }
    });
}

/// A backend that never answers; says when it has a request, and by what code it was given up.
async fn silent() -> (SocketAddr, Rc<RefCell<Vec<Option<h2::Reason>>>>) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let seen: Rc<RefCell<Vec<Option<h2::Reason>>>> = Rc::default();
    let told = Rc::clone(&seen);
    spawn_local(async move {
        let (stream, _) = socket.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((_, respond))) = connection.accept().await {
            let mut respond: SendResponse<Bytes> = respond;
            let told = Rc::clone(&told);
            let at = told.borrow().len();
            told.borrow_mut().push(None);
            spawn_local(async move {
                let code = std::future::poll_fn(|cx| respond.poll_reset(cx)).await.unwrap();
                told.borrow_mut()[at] = Some(code);
            });
        }
    });
    (address, seen)
}

#[test]
fn what_a_client_gives_up_is_given_up_at_the_backend_also_when_its_connection_breaks() {
    run(async {
        let (address, seen) = silent().await;
        let gate = Gate::start(Setup::simple(address).http2()).await;
        let stream = TcpStream::connect(gate.address).await.unwrap();
        let (send, connection) = h2::client::handshake(stream).await.unwrap();
        let connection = spawn_local(async move {
            let _ = connection.await;
        });
        let mut client = send.ready().await.unwrap();
        let mut ask = || {
            client
                .send_request(request("GET", "/").body(()).unwrap(), true)
                .unwrap()
        };
        let (_one, mut reset) = ask();
        let (_other, _kept) = ask();
        while seen.borrow().len() < 2 {
            tokio::task::yield_now().await;
        }
        reset.send_reset(h2::Reason::CANCEL);
        while seen.borrow()[0] != Some(h2::Reason::CANCEL) {
            tokio::task::yield_now().await;
        }
        assert_eq!(seen.borrow()[1], None);
        connection.abort();
        while seen.borrow()[1] != Some(h2::Reason::CANCEL) {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn a_backend_whose_answer_breaks_the_rules_becomes_502() {
    run(async {
        // By hand: SETTINGS, and for the first stream an answer that is shorter than it says.
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        spawn_local(async move {
            let (mut stream, _) = socket.accept().await.unwrap();
            stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
            let mut input = vec![0; 4096];
            let mut all = Vec::new();
            // Until the head of the request has come.
            while !all
                .windows(8)
                .any(|bytes| bytes[0] == 1 && bytes[1..] == [5, 0, 0, 0, 1, 0x82, 0x86])
            {
                let count = stream.read(&mut input).await.unwrap();
                assert!(count > 0, "the gate went away");
                all.extend_from_slice(&input[..count]);
            }
            // :status 200, content-length 3, END_STREAM.
            let answer = [0, 0, 5, 1, 5, 0, 0, 0, 1, 0x88, 0x0f, 0x0d, 1, b'3'];
            stream.write_all(&answer).await.unwrap();
            let _ = stream.read(&mut input).await;
        });
        let gate = Gate::start(Setup::simple(address).http2()).await;
        let mut client = gate.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.message().await.status(), 502);
    });
}
