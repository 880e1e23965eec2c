//! The harness proves itself: clients and backends talk to each other directly, without Pierhead between them.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};

use anyhow::{Result, ensure};
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use pierhead_wire::backend::{Host, read_head};
use pierhead_wire::client::{Call, Client, Exchange};
use pierhead_wire::net::{FAMILIES, HOST_A, HOST_B, Net};
use pierhead_wire::pki::Authority;
use tungstenite::Message;

#[test]
fn http1_is_echoed_over_both_families() -> Result<()> {
    let net = Net::new()?;
    let (host_a, host_b) = (Host::start(&net.a)?, Host::start(&net.b)?);
    let client = Client::new(&net.client);
    for family in FAMILIES {
        let (a, b) = (
            SocketAddr::new(HOST_A.of(family), 80),
            SocketAddr::new(HOST_B.of(family), 80),
        );
        host_a.http("a", a)?;
        host_b.http("b", b)?;
        assert_eq!(client.get(a, "one.test", "/x?y=1")?.echo()?.backend(), "a");
        let echo = client.get(b, "one.test", "/x?y=1")?.echo()?;
        assert_eq!(
            (echo.backend(), echo.text("path"), echo.fields("host")),
            ("b", "/x?y=1", vec!["one.test"])
        );
    }
    Ok(())
}

#[test]
fn http1_bodies_trailers_and_wishes() -> Result<()> {
    let net = Net::new()?;
    let host = Host::start(&net.a)?;
    let to = SocketAddr::new(HOST_A.v4.into(), 80);
    host.http("a", to)?;
    let mut h1 = Client::new(&net.client).h1(to)?;
    let body = vec![b'z'; 100_000];
    let plain = h1.exchange(&Exchange::new("POST", "h", "/").body(&body))?.echo()?;
    let chunked = h1
        .exchange(&Exchange::new("POST", "h", "/").chunked(&body, &[("x-sum", "1")]))?
        .echo()?;
    let expected = h1.exchange_expecting(
        &Exchange::new("PUT", "h", "/")
            .field("Expect", "100-continue")
            .body(&body),
    )?;
    for echo in [&plain, &chunked, &expected.echo()?] {
        assert_eq!(
            (echo.number("body_bytes"), echo.number("body_sum")),
            (100_000, plain.number("body_sum"))
        );
    }
    assert_eq!(chunked.trailers("x-sum"), ["1"]);
    let big = h1.get("h", "/?size=200000&chunked=1&header=x-a:1")?;
    assert_eq!(
        (big.body.len(), big.header("x-a"), big.header("transfer-encoding")),
        (200_000, Some("1"), Some("chunked"))
    );
    let asked = Exchange::new("GET", "h", "/?trailer=x-sum:9").field("TE", "trailers");
    assert_eq!(h1.exchange(&asked)?.trailers, [("x-sum".to_owned(), "9".to_owned())]);
    let teapot = h1.get("h", "/?status=418&close=1")?;
    assert_eq!(teapot.status, 418);
    assert!(h1.at_end()?);
    Ok(())
}

#[test]
fn http2_grpc_and_tls() -> Result<()> {
    let net = Net::new()?;
    let host = Host::start(&net.a)?;
    let authority = Authority::new()?;
    let leaf = authority.leaf(&["one.test"])?;
    let (clear, secured) = (
        SocketAddr::new(HOST_A.v4.into(), 80),
        SocketAddr::new(HOST_A.v4.into(), 443),
    );
    host.http("clear", clear)?;
    host.https("secured", secured, leaf.server(&["h2", "http/1.1"])?)?;
    let client = Client::new(&net.client);
    let response = client.h2(clear).get("http://one.test/h2")?;
    assert_eq!(
        (response.version.as_str(), response.echo()?.text("version")),
        ("HTTP/2.0", "HTTP/2.0")
    );
    let h2 = client.h2_tls(secured, "one.test", &authority.client(&["h2"])?);
    let post = Request::post("https://one.test/").body(Full::new(Bytes::from(vec![1; 70_000])))?;
    let responses = h2.batch(vec![
        post,
        Request::get("https://one.test/?size=9").body(Full::default())?,
    ])?;
    assert_eq!(responses[0].echo()?.number("body_bytes"), 70_000);
    assert_eq!(responses[1].body.len(), 9);
    let mut h1 = client.h1_tls(secured, "one.test", &authority.client(&["http/1.1"])?)?;
    assert_eq!(h1.get("one.test", "/")?.echo()?.backend(), "secured");
    assert!(
        client.tls(secured, "two.test", &authority.client(&[])?).is_err(),
        "a wrong name is refused"
    );

    let call = Call {
        host: "one.test",
        path: "/echo.Echo/Talk",
    };
    for reply in [
        client.h2(clear).grpc(call, &[b"one", b"two"])?,
        client.h2(clear).grpc_in_turns(call, &[b"one", b"two"])?,
    ] {
        assert_eq!((reply.status, reply.in_trailers), (Some(0), true));
        assert_eq!(reply.messages, ["one", "two"]);
    }
    assert_eq!(
        client
            .h2(clear)
            .grpc(
                Call {
                    path: "/echo.Echo/Fail",
                    ..call
                },
                &[b""]
            )?
            .status,
        Some(7)
    );
    Ok(())
}

#[test]
fn tcp_speaks_first_and_answers_a_half_close() -> Result<()> {
    let net = Net::new()?;
    let host = Host::start(&net.a)?;
    let to = SocketAddr::new(HOST_A.v6.into(), 9000);
    host.tcp("a", to)?;
    let mut stream = Client::new(&net.client).tcp(to)?;
    let mut hello = [0; 26];
    stream.read_exact(&mut hello)?;
    assert_eq!(&hello, b"hello from a to fd00:1::2\n");
    stream.write_all(b"ping")?;
    stream.shutdown(Shutdown::Write)?;
    let mut rest = String::new();
    stream.read_to_string(&mut rest)?;
    assert_eq!(rest, "pingbye\n");
    Ok(())
}

#[test]
fn udp_websocket_and_a_backend_of_ones_own() -> Result<()> {
    let net = Net::new()?;
    let host = Host::start(&net.b)?;
    let client = Client::new(&net.client);
    let at = |port| SocketAddr::new(HOST_B.v4.into(), port);
    host.udp("b", at(53))?;
    let socket = client.udp(at(53))?;
    socket.send(b"hi")?;
    let mut answer = [0; 100];
    let count = socket.recv(&mut answer)?;
    let text = String::from_utf8_lossy(&answer[..count]).into_owned();
    ensure!(text.starts_with("b 10.0.1.2:") && text.ends_with(": hi"), "{text}");

    host.websocket("b", at(81))?;
    let mut websocket = client.websocket(at(81), "one.test", "/chat")?;
    websocket.send(Message::text("hi"))?;
    assert_eq!(websocket.read()?, Message::text("b: hi"));

    host.raw(at(82), |mut stream| {
        read_head(&mut stream)?;
        Ok(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")?)
    })?;
    assert!(
        client.get(at(82), "h", "/").is_err(),
        "a body that ends early is noticed"
    );
    Ok(())
}
