//! HTTP/2, gRPC and WebSocket.

use anyhow::Result;
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use pierhead_wire::client::Call;
use pierhead_wire::every_mode;
use pierhead_wire::gate::{Gate, Mode};
use pierhead_wire::net::{FAMILIES, GATE};
use pierhead_wire::street::{HTTP, Street, gateway, route};
use tungstenite::Message;

every_mode!(
    http2_with_prior_knowledge_reaches_http1_and_h2c_backends,
    http2_bodies_and_trailers_pass,
    grpc_unary_and_streams_keep_their_status,
    grpc_is_routed_by_service_and_method,
    websockets_talk_both_ways,
    an_upgrade_that_is_refused_is_an_answer,
);

fn start(mode: Mode) -> Result<(Gate, Street)> {
    let street = Street::new()?;
    let routes = [
        route(
            "HTTPRoute",
            "one",
            "  hostnames: [one.test]\n  rules:\n  - backendRefs: [{name: a, port: 8080}]\n  - matches: [{path: {value: /h2c}}]\n    backendRefs: [{name: grpc-a, port: 8080}]\n  - matches: [{path: {value: /chat}}]\n    backendRefs: [{name: chat, port: 8081}]",
        ),
        route(
            "GRPCRoute",
            "talk",
            "  hostnames: [talk.test]\n  rules:\n  - matches: [{method: {service: one.Talk}}]\n    backendRefs: [{name: a, port: 8080}]\n  - matches: [{method: {service: two.Talk, method: Say}}]\n    backendRefs: [{name: b, port: 8080}]\n  - matches: [{method: {service: none.Talk}}]\n    backendRefs: [{name: none, port: 8080}]",
        ),
    ];
    let gate = street.gate(
        mode,
        &[("gate.yaml", &gateway(&[HTTP])), ("routes.yaml", &routes.join("---\n"))],
    )?;
    Ok((gate, street))
}

fn http2_with_prior_knowledge_reaches_http1_and_h2c_backends(mode: Mode) -> Result<()> {
    let (_gate, street) = start(mode)?;
    for family in FAMILIES {
        let h2 = street.client.h2(GATE.at(family, 80));
        for (path, inside) in [("/", "HTTP/1.1"), ("/h2c", "HTTP/2.0")] {
            let response = h2.get(&format!("http://one.test{path}"))?;
            let echo = response.echo()?;
            assert_eq!(
                (response.version.as_str(), echo.text("version")),
                ("HTTP/2.0", inside),
                "{path}"
            );
        }
        assert_eq!(h2.get("http://other.test/")?.status, 404);
    }
    let over_http1 = street.client.get(GATE.v4_at(80), "one.test", "/h2c")?.echo()?;
    assert_eq!(over_http1.text("version"), "HTTP/2.0");
    Ok(())
}

fn http2_bodies_and_trailers_pass(mode: Mode) -> Result<()> {
    let (_gate, street) = start(mode)?;
    let h2 = street.client.h2(GATE.v4_at(80));
    let mut requests = Vec::new();
    for path in ["/", "/h2c"] {
        let body = Bytes::from(vec![7; 1_000_000]);
        requests.push(Request::post(format!("http://one.test{path}")).body(Full::new(body))?);
        let get = Request::get(format!("http://one.test{path}?size=3000000&trailer=x-sum:9")).header("te", "trailers");
        requests.push(get.body(Full::default())?);
    }
    let responses = h2.batch(requests)?;
    for pair in responses.chunks(2) {
        assert_eq!(pair[0].echo()?.number("body_bytes"), 1_000_000);
        assert_eq!((pair[1].status, pair[1].body.len()), (200, 3_000_000));
        assert_eq!(pair[1].trailers, [("x-sum".to_owned(), "9".to_owned())]);
    }
    Ok(())
}

fn grpc_unary_and_streams_keep_their_status(mode: Mode) -> Result<()> {
    let (_gate, street) = start(mode)?;
    let h2 = street.client.h2(GATE.v4_at(80));
    let call = Call {
        host: "talk.test",
        path: "/one.Talk/Say",
    };
    let unary = h2.grpc(call, &[b"hello"])?;
    assert_eq!((unary.status, unary.in_trailers), (Some(0), true));
    assert_eq!(unary.messages, ["hello"]);
    let stream = h2.grpc_in_turns(call, &[b"one", b"two", b"three"])?;
    assert_eq!((stream.status, stream.in_trailers), (Some(0), true));
    assert_eq!(stream.messages, ["one", "two", "three"]);
    let failed = h2.grpc(
        Call {
            path: "/one.Talk/Fail",
            ..call
        },
        &[b"x"],
    )?;
    assert_eq!(failed.status, Some(7));
    Ok(())
}

fn grpc_is_routed_by_service_and_method(mode: Mode) -> Result<()> {
    let (_gate, street) = start(mode)?;
    let h2 = street.client.h2(GATE.v4_at(80));
    let table = [
        ("/one.Talk/Any", Some("a")),
        ("/two.Talk/Say", Some("b")),
        ("/two.Talk/Other", None),
        ("/three.Talk/Say", None),
    ];
    for (path, backend) in table {
        let reply = h2.grpc(
            Call {
                host: "talk.test",
                path,
            },
            &[b"x"],
        )?;
        let name = reply
            .headers
            .iter()
            .find(|(name, _)| name == "x-backend")
            .map(|(_, value)| value.as_str());
        assert_eq!(name, backend, "{path}");
        if backend.is_none() {
            assert_ne!(reply.status.unwrap_or(12), 0, "{path}: {reply:?}");
        }
    }
    let unavailable = h2.grpc(
        Call {
            host: "talk.test",
            path: "/none.Talk/Say",
        },
        &[b"x"],
    )?;
    assert!(
        unavailable.http_status == 503 || unavailable.status == Some(14),
        "{unavailable:?}"
    );
    Ok(())
}

fn websockets_talk_both_ways(mode: Mode) -> Result<()> {
    let (_gate, street) = start(mode)?;
    for family in FAMILIES {
        let mut socket = street.client.websocket(GATE.at(family, 80), "one.test", "/chat")?;
        for number in 0..20 {
            socket.send(Message::text(format!("message {number}")))?;
            assert_eq!(socket.read()?, Message::text(format!("a: message {number}")));
        }
        let large = vec![9; 300_000];
        socket.send(Message::binary(large.clone()))?;
        assert_eq!(socket.read()?, Message::binary(large));
        socket.close(None)?;
        assert!(matches!(socket.read()?, Message::Close(_)));
    }
    Ok(())
}

fn an_upgrade_that_is_refused_is_an_answer(mode: Mode) -> Result<()> {
    let (_gate, street) = start(mode)?;
    let Err(refused) = street.client.websocket(GATE.v4_at(80), "one.test", "/") else {
        panic!("the echo upgrades nothing")
    };
    assert!(format!("{refused:#}").contains("200"), "{refused:#}");
    Ok(())
}
