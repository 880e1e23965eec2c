//! WebSocket and other tunnels.

use bytes::Bytes;
use http::Request;

use super::*;

/// Switches when asked, sends `greeting` with its head, then echoes; closes its side when the client does.
async fn echo(greeting: &'static str) -> (SocketAddr, Rc<RefCell<Vec<String>>>) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let heads = Rc::new(RefCell::new(Vec::new()));
    let log = Rc::clone(&heads);
    spawn_local(async move {
        loop {
            let (stream, _) = socket.accept().await.unwrap();
            let log = Rc::clone(&log);
            spawn_local(async move {
                let mut raw = Raw {
                    stream,
                    input: Vec::new(),
                };
                let request = raw.message().await;
                log.borrow_mut().push(request.head.clone());
                raw.send(&format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n{greeting}")).await;
                loop {
                    let data = String::from_utf8(std::mem::take(&mut raw.input)).unwrap();
                    raw.send(&data).await;
                    if !raw.more().await {
                        raw.send("bye").await;
                        return;
                    }
                }
            });
        }
    });
    (address, heads)
}

const ASK: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Key: k\r\n\r\n";

#[test]
fn after_101_bytes_pass_both_ways_those_behind_the_heads_first() {
    run(async {
        let (address, heads) = echo("hello").await;
        let gate = Gate::start(Setup::simple(address)).await;
        let mut client = gate.connect().await;
        client.send(&format!("{ASK}early")).await;
        let head = client.message().await;
        assert_eq!(head.status(), 101);
        assert_eq!(
            head.field("upgrade").map(str::to_lowercase).as_deref(),
            Some("websocket")
        );
        assert_eq!(head.field("connection"), Some("upgrade"));
        assert_eq!(client.exactly(10).await, b"helloearly");
        client.send("ping").await;
        assert_eq!(client.exactly(4).await, b"ping");
        let seen = heads.borrow()[0].to_lowercase();
        assert!(
            seen.contains("connection: upgrade\r\n") && seen.contains("upgrade: websocket\r\n"),
            "{seen}"
        );
        // One side closes, the other still speaks.
        client.stream.shutdown().await.unwrap();
        assert_eq!(client.rest().await, "bye");
    });
}

#[test]
fn without_a_matching_101_there_is_no_tunnel() {
    run(async {
        let origin = Origins::named("no").await;
        let gate = Gate::start(Setup::simple(origin.address)).await;
        let mut client = gate.connect().await;
        // What looks like tunnel data is the next request.
        client
            .send(&format!("{ASK}GET /next HTTP/1.1\r\nHost: a\r\n\r\n"))
            .await;
        assert_eq!(client.message().await.body, "no");
        assert_eq!(client.message().await.body, "no");
        assert_eq!(origin.requests()[1].first_line(), "GET /next HTTP/1.1");

        let wrong = Origins::start(|_| {
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n".to_owned()
        })
        .await;
        let gate = Gate::start(Setup::simple(wrong.address)).await;
        let mut client = gate.connect().await;
        client.send(ASK).await;
        assert_eq!(client.message().await.status(), 502);
    });
}

#[test]
fn a_silent_tunnel_ends() {
    run(async {
        let (address, _) = echo("").await;
        let mut setup = Setup::simple(address);
        setup.limits.stream_idle_timeout = Duration::from_millis(80);
        let gate = Gate::start(setup).await;
        let mut client = gate.connect().await;
        client.send(ASK).await;
        assert_eq!(client.message().await.status(), 101);
        assert_eq!(client.rest().await, "");
    });
}

#[test]
fn an_extended_connect_becomes_an_upgrade() {
    run(async {
        let (address, heads) = echo("").await;
        let gate = Gate::start(Setup::simple(address)).await;
        let stream = TcpStream::connect(gate.address).await.unwrap();
        let (send, connection) = h2::client::handshake(stream).await.unwrap();
        spawn_local(async move {
            let _ = connection.await;
        });
        let mut send = send.ready().await.unwrap();
        while !send.is_extended_connect_protocol_enabled() {
            tokio::task::yield_now().await;
        }
        let mut request = Request::builder()
            .method("CONNECT")
            .uri("http://a/chat")
            .body(())
            .unwrap();
        request
            .extensions_mut()
            .insert(h2::ext::Protocol::from_static("websocket"));
        let (response, mut body) = send.send_request(request, false).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status().as_u16(), 200);
        let seen = heads.borrow()[0].to_lowercase();
        assert!(
            seen.starts_with("get /chat http/1.1\r\n") && seen.contains("sec-websocket-key: "),
            "{seen}"
        );
        body.send_data(Bytes::from_static(b"over h2"), false).unwrap();
        let mut data = response.into_body();
        assert_eq!(data.data().await.unwrap().unwrap(), "over h2");
        body.send_data(Bytes::new(), true).unwrap();
        assert_eq!(data.data().await.unwrap().unwrap(), "bye");
    });
}
