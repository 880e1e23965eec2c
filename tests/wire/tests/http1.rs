//! HTTP/1 on the wire: framing, bodies, connections, and bytes that mean harm.

use std::io::Write as _;
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Result;
use pierhead_wire::backend::read_head;
use pierhead_wire::client::{Exchange, H1};
use pierhead_wire::every_mode;
use pierhead_wire::gate::{Gate, Mode};
use pierhead_wire::net::{GATE, HOST_A};
use pierhead_wire::street::{HTTP, Street, gateway, port, route};

every_mode!(
    http_1_0_gets_an_answer_and_an_end,
    a_connection_is_kept_and_requests_may_be_pipelined,
    bodies_pass_unharmed_in_both_framings,
    trailers_pass_in_both_directions,
    expect_continue_is_answered_before_the_body,
    head_and_empty_answers_have_no_body,
    hop_by_hop_fields_stay_on_their_hop,
    hostile_requests_are_refused_and_reach_no_backend,
    a_backend_that_breaks_is_told_as_such,
    a_backend_connection_that_was_closed_is_not_used,
);

const ROUTE: &str = "  rules:\n  - backendRefs: [{name: a, port: 8080}]\n  - matches: [{path: {value: /own}}]\n    backendRefs: [{name: own, port: 7000}]";

fn start(mode: Mode) -> Result<(Gate, Street)> {
    let street = Street::new()?;
    let routes = route("HTTPRoute", "one", ROUTE);
    let gate = street.gate(mode, &[("gate.yaml", &gateway(&[HTTP])), ("routes.yaml", &routes)])?;
    Ok((gate, street))
}

fn connect(street: &Street) -> Result<H1<TcpStream>> {
    street.client.h1(GATE.v4_at(80))
}

fn http_1_0_gets_an_answer_and_an_end(mode: Mode) -> Result<()> {
    let (_gate, street) = start(mode)?;
    let mut h1 = connect(&street)?;
    h1.send(b"GET /?chunked=1 HTTP/1.0\r\nHost: one.test\r\n\r\n")?;
    let response = h1.response("GET")?;
    assert_eq!(response.echo()?.backend(), "a");
    assert_eq!(
        response.header("transfer-encoding"),
        None,
        "an HTTP/1.0 client knows no chunks"
    );
    assert!(h1.at_end()?);
    Ok(())
}

fn a_connection_is_kept_and_requests_may_be_pipelined(mode: Mode) -> Result<()> {
    let (_gate, street) = start(mode)?;
    let mut h1 = connect(&street)?;
    for number in 0..100 {
        assert_eq!(
            h1.get("one.test", &format!("/{number}"))?.echo()?.text("path"),
            format!("/{number}")
        );
    }
    let pipeline: String = (0..10)
        .map(|number| format!("GET /p{number} HTTP/1.1\r\nHost: one.test\r\n\r\n"))
        .collect();
    h1.send(pipeline.as_bytes())?;
    for number in 0..10 {
        assert_eq!(
            h1.response("GET")?.echo()?.text("path"),
            format!("/p{number}"),
            "answers come in order"
        );
    }
    let last = h1.exchange(&Exchange::new("GET", "one.test", "/").field("Connection", "close"))?;
    assert_eq!(last.status, 200);
    assert!(h1.at_end()?);
    Ok(())
}

fn bodies_pass_unharmed_in_both_framings(mode: Mode) -> Result<()> {
    let (_gate, street) = start(mode)?;
    let mut h1 = connect(&street)?;
    for size in [0, 1, 100_000, 10_000_000] {
        let body: Vec<u8> = (0..size).map(|index: usize| index.to_le_bytes()[index % 3]).collect();
        let expected = sum(&body);
        let plain = h1
            .exchange(&Exchange::new("POST", "one.test", "/").body(&body))?
            .echo()?;
        let chunked = h1
            .exchange(&Exchange::new("POST", "one.test", "/").chunked(&body, &[]))?
            .echo()?;
        for echo in [plain, chunked] {
            assert_eq!(
                (echo.number("body_bytes"), echo.number("body_sum")),
                (size as u64, expected)
            );
        }
        for target in [format!("/?size={size}"), format!("/?size={size}&chunked=1")] {
            let response = h1.get("one.test", &target)?;
            assert_eq!((response.status, response.body.len()), (200, size), "{target}");
        }
    }
    Ok(())
}

fn trailers_pass_in_both_directions(mode: Mode) -> Result<()> {
    let (_gate, street) = start(mode)?;
    let request = Exchange::new("POST", "one.test", "/?trailer=x-sum:9")
        .field("TE", "trailers")
        .chunked(b"hello", &[("x-check", "1")]);
    let response = connect(&street)?.exchange(&request)?;
    assert_eq!(response.echo()?.trailers("x-check"), ["1"]);
    assert_eq!(response.trailers, [("x-sum".to_owned(), "9".to_owned())]);
    Ok(())
}

fn expect_continue_is_answered_before_the_body(mode: Mode) -> Result<()> {
    let (_gate, street) = start(mode)?;
    let request = Exchange::new("PUT", "one.test", "/")
        .field("Expect", "100-continue")
        .body(b"late");
    let mut h1 = connect(&street)?;
    for _ in 0..2 {
        assert_eq!(h1.exchange_expecting(&request)?.echo()?.number("body_bytes"), 4);
    }
    Ok(())
}

fn head_and_empty_answers_have_no_body(mode: Mode) -> Result<()> {
    let (_gate, street) = start(mode)?;
    let mut h1 = connect(&street)?;
    for request in [
        Exchange::new("HEAD", "one.test", "/?size=5000"),
        Exchange::new("GET", "one.test", "/?status=204"),
        Exchange::new("GET", "one.test", "/?status=304"),
    ] {
        let response = h1.exchange(&request)?;
        assert!(response.body.is_empty());
        assert_eq!(
            h1.get("one.test", "/after")?.echo()?.text("path"),
            "/after",
            "the connection is in step after {request:?}"
        );
    }
    Ok(())
}

fn hop_by_hop_fields_stay_on_their_hop(mode: Mode) -> Result<()> {
    let (_gate, street) = start(mode)?;
    let request = Exchange::new(
        "GET",
        "one.test",
        "/?header=connection:x-inner&header=x-inner:1&header=keep-alive:timeout=5",
    )
    .field("Connection", "x-private, keep-alive")
    .field("X-Private", "1")
    .field("Keep-Alive", "timeout=5")
    .field("Proxy-Connection", "keep-alive")
    .field("X-Public", "1");
    let response = connect(&street)?.exchange(&request)?;
    let echo = response.echo()?;
    for gone in ["x-private", "keep-alive", "proxy-connection"] {
        assert!(echo.fields(gone).is_empty(), "{gone}");
    }
    assert_eq!(echo.fields("x-public"), ["1"]);
    assert_eq!(
        (response.header("x-inner"), response.header("keep-alive")),
        (None, None)
    );
    Ok(())
}

/// Each of these is refused with 400 or its own status, or the connection is closed; none reaches the backend as a request,
/// and nothing after it on the same connection is taken for one.
fn hostile_requests_are_refused_and_reach_no_backend(mode: Mode) -> Result<()> {
    let (_gate, street) = start(mode)?;
    let (seen, heads) = mpsc::channel();
    street.a.raw(HOST_A.v4_at(port::OWN), move |mut stream| {
        loop {
            seen.send(read_head(&mut stream)?)?;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        }
    })?;
    let smuggled = "GET /own/smuggled HTTP/1.1\r\nHost: h\r\n\r\n";
    let hostile = [
        (
            "both framings",
            "POST /own HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "two lengths",
            "POST /own HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\nhello",
        ),
        (
            "a list of lengths",
            "POST /own HTTP/1.1\r\nHost: h\r\nContent-Length: 5, 6\r\n\r\nhello",
        ),
        (
            "a signed length",
            "POST /own HTTP/1.1\r\nHost: h\r\nContent-Length: +5\r\n\r\nhello",
        ),
        (
            "a length too large",
            "POST /own HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999\r\n\r\n",
        ),
        (
            "an unknown coding",
            "POST /own HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "chunked not last",
            "POST /own HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        ),
        (
            "chunked twice",
            "POST /own HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "space before the colon",
            "POST /own HTTP/1.1\r\nHost: h\r\nContent-Length : 5\r\n\r\nhello",
        ),
        (
            "a folded line",
            "GET /own HTTP/1.1\r\nHost: h\r\nX-A: 1\r\n folded\r\n\r\n",
        ),
        ("a bare LF", "GET /own HTTP/1.1\nHost: h\n\n"),
        ("a bare CR", "GET /own HTTP/1.1\r\nHost: h\r\nX-A: 1\rX-B: 2\r\n\r\n"),
        ("a NUL", "GET /own HTTP/1.1\r\nHost: h\r\nX-A: \0\r\n\r\n"),
        ("two hosts", "GET /own HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n"),
        ("no host", "GET /own HTTP/1.1\r\nX-A: 1\r\n\r\n"),
        ("a bad host", "GET /own HTTP/1.1\r\nHost: h/../x\r\n\r\n"),
        (
            "a host that is not the target's",
            "GET http://other.test/own HTTP/1.1\r\nHost: h x\r\n\r\n",
        ),
        ("a bad version", "GET /own HTTP/1.9x\r\nHost: h\r\n\r\n"),
        ("a space in the target", "GET /own /x HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("a bad method", "G(T /own HTTP/1.1\r\nHost: h\r\n\r\n"),
        (
            "a chunk size with a sign",
            "POST /own HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n+2\r\nhi\r\n0\r\n\r\n",
        ),
        (
            "a chunk size too large",
            "POST /own HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nhi\r\n0\r\n\r\n",
        ),
        ("CONNECT", "CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\n\r\n"),
    ];
    for (what, bytes) in hostile {
        let mut h1 = connect(&street)?;
        h1.send(format!("{bytes}{smuggled}").as_bytes())?;
        h1.stream().shutdown(Shutdown::Write)?;
        // An answer, or an end without one.
        if let Ok(response) = h1.response("GET") {
            assert!(
                (400..=599).contains(&response.status),
                "{what}: status {}",
                response.status
            );
            assert!(h1.at_end().unwrap_or(true), "{what}: the connection goes on");
        }
        let reached = heads.recv_timeout(Duration::from_millis(50));
        // A request whose head is good may have been begun before its chunks turned out bad: never the one behind it.
        if let Ok(head) = reached {
            assert!(
                what.contains("chunk size") && !head.contains("smuggled"),
                "{what}: the backend saw {head:?}"
            );
        }
    }
    // The same backend does answer what is good.
    assert_eq!(connect(&street)?.get("h", "/own")?.body, b"ok");
    Ok(())
}

fn a_backend_that_breaks_is_told_as_such(mode: Mode) -> Result<()> {
    let (_gate, street) = start(mode)?;
    assert!(
        matches!(connect(&street)?.get("h", "/own/refused")?.status, 502 | 503),
        "nobody listens"
    );
    street.a.raw(HOST_A.v4_at(port::OWN), |mut stream| {
        let head = read_head(&mut stream)?;
        let answer: &[u8] = match head.split_whitespace().nth(1) {
            Some("/own/garbage") => b"no HTTP at all\r\n\r\n",
            Some("/own/framing") => {
                b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            }
            Some("/own/lengths") => b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
            Some("/own/half") => b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
            Some("/own/half-chunk") => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nhalf",
            Some("/own/until-end") => b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
            _ => b"",
        };
        Ok(stream.write_all(answer)?)
    })?;
    for path in ["/own/nothing", "/own/garbage", "/own/framing", "/own/lengths"] {
        assert_eq!(connect(&street)?.get("h", path)?.status, 502, "{path}");
    }
    for path in ["/own/half", "/own/half-chunk"] {
        assert!(
            connect(&street)?.get("h", path).is_err(),
            "{path}: a body cut short must not look whole"
        );
    }
    assert_eq!(connect(&street)?.get("h", "/own/until-end")?.body, b"until the end");
    Ok(())
}

fn a_backend_connection_that_was_closed_is_not_used(mode: Mode) -> Result<()> {
    let (_gate, street) = start(mode)?;
    street.a.raw(HOST_A.v4_at(port::OWN), |mut stream| {
        read_head(&mut stream)?;
        // Says it will stay, and goes.
        Ok(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?)
    })?;
    let mut h1 = connect(&street)?;
    for number in 0..50 {
        assert_eq!(h1.get("h", "/own")?.status, 200, "request {number}");
    }
    Ok(())
}

/// The echo backend's checksum.
fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
