//! External authorization (GEP-1494, and before any route GEP-5224): who may pass, as a service on another host decides.

use std::time::{Duration, Instant};

use anyhow::Result;
use pierhead_wire::backend::BODY;
use pierhead_wire::client::{Exchange, Response};
use pierhead_wire::config::service;
use pierhead_wire::every_mode;
use pierhead_wire::gate::{Gate, Mode};
use pierhead_wire::net::{FAMILIES, GATE, HOST_A};
use pierhead_wire::street::{HTTP, Street, gateway, port, route};

every_mode!(
    what_the_service_allows_passes_with_what_it_adds,
    what_the_service_denies_gets_its_answer,
    the_service_and_the_backend_both_get_the_body,
    without_the_service_nothing_passes,
    a_service_that_takes_too_long_lets_nothing_pass,
    a_listener_asks_before_any_route,
);

/// How each protocol is written, without the lists that both have.
const PROTOCOLS: [(&str, &str); 2] = [("http", "HTTP"), ("grpc", "GRPC")];

fn filter(protocol: &str, service: &str, port: u16) -> String {
    let options = match protocol {
        "HTTP" => "http: {path: /check, allowedHeaders: [X-Token], allowedResponseHeaders: [X-User, X-Guard-Saw]}",
        _ => "grpc: {allowedHeaders: [X-Token]}",
    };
    format!(
        "{{type: ExternalAuth, externalAuth: {{protocol: {protocol}, backendRef: {{name: {service}, port: {port}}}, {options}, \
         forwardBody: {{maxSize: 1024}}}}}}"
    )
}

fn guarded(name: &str, filter: &str, rest: &str) -> String {
    let spec = format!(
        "  hostnames: [{name}.example]\n  rules:\n  - filters: [{filter}]\n    backendRefs: [{{name: b, port: {}}}]\n{rest}",
        port::HTTP
    );
    route("HTTPRoute", name, &spec)
}

fn start(mode: Mode) -> Result<(Gate, Street)> {
    let street = Street::new()?;
    street.a.guard((HOST_A.v4, port::OWN).into())?;
    let mut routes = Vec::new();
    for (name, protocol) in PROTOCOLS {
        routes.push(guarded(name, &filter(protocol, "own", port::OWN), ""));
        routes.push(guarded(
            &format!("{name}-none"),
            &filter(protocol, "none", port::HTTP),
            "",
        ));
        routes.push(guarded(&format!("{name}-gone"), &filter(protocol, "gone", 7999), ""));
        let hurried = "    timeouts: {request: 500ms}\n";
        let own = filter(protocol, "own", port::OWN);
        routes.push(guarded(&format!("{name}-hurried"), &own, hurried));
    }
    // Nobody listens there.
    let gone = service("gone", "TCP", 7999, &[HOST_A.v4.into()]);
    let listener = "{name: guarded, protocol: HTTP, port: 8000, filters: {requests: [".to_owned()
        + &filter("HTTP", "own", port::OWN)
        + "]}}";
    let open = "  hostnames: [open.example]\n  rules: [{backendRefs: [{name: b, port: 8080}]}]";
    let gate = street.gate(
        mode,
        &[
            ("gate.yaml", &gateway(&[HTTP, &listener])),
            ("gone.yaml", &gone),
            ("open.yaml", &route("HTTPRoute", "open", open)),
            ("routes.yaml", &routes.join("---\n")),
        ],
    )?;
    Ok((gate, street))
}

fn ask(street: &Street, host: &str, token: &str) -> Result<Response> {
    let request = Exchange::new("GET", host, "/x")
        .field("X-Token", token)
        .field("X-User", "root");
    street.client.h1(GATE.v4_at(80))?.exchange(&request)
}

fn what_the_service_allows_passes_with_what_it_adds(mode: Mode) -> Result<()> {
    let (_gate, street) = start(mode)?;
    for family in FAMILIES {
        for (name, _) in PROTOCOLS {
            let host = format!("{name}.example");
            let request = Exchange::new("GET", &host, "/x?y=z")
                .field("X-Token", "good")
                .field("X-User", "root");
            let response = street.client.h1(GATE.at(family, 80))?.exchange(&request)?;
            assert_eq!(response.status, 200, "{name} over {family:?}: {response:?}");
            let echo = response.echo()?;
            assert_eq!((echo.backend(), echo.text("target")), ("b", "/x?y=z"));
            assert_eq!(echo.fields("x-user"), ["alice"], "whatever the client said of itself");
            assert_eq!(echo.fields("x-guard-saw"), ["no body"]);
        }
    }
    Ok(())
}

fn what_the_service_denies_gets_its_answer(mode: Mode) -> Result<()> {
    let (gate, street) = start(mode)?;
    for (name, _) in PROTOCOLS {
        let host = format!("{name}.example");
        let mut connection = street.client.h1(GATE.v4_at(80))?;
        for token in ["bad", ""] {
            let response = connection.exchange(&Exchange::new("GET", &host, "/x").field("X-Token", token))?;
            let body = String::from_utf8_lossy(&response.body);
            assert_eq!((response.status, &*body), (403, "no entry"), "{name}");
            assert_eq!(response.header("x-why"), Some("token"));
        }
        // The connection is good for another one.
        let response = connection.exchange(&Exchange::new("GET", &host, "/x").field("X-Token", "good"))?;
        assert_eq!(response.status, 200, "{name}");
        gate.records(&[host.as_str(), "403"])?;
    }
    Ok(())
}

fn the_service_and_the_backend_both_get_the_body(mode: Mode) -> Result<()> {
    let (_gate, street) = start(mode)?;
    for (name, _) in PROTOCOLS {
        let host = format!("{name}.example");
        let post = || Exchange::new("POST", &host, "/x").field("X-Token", "good");
        for request in [post().body(BODY.as_bytes()), post().chunked(BODY.as_bytes(), &[])] {
            let response = street.client.h1(GATE.v4_at(80))?.exchange(&request)?;
            assert_eq!(response.status, 200, "{name}: {response:?}");
            let echo = response.echo()?;
            assert_eq!(echo.fields("x-guard-saw"), ["body"], "{name}");
            assert_eq!(echo.number("body_bytes"), BODY.len() as u64, "{name}");
        }
        let long = vec![b'x'; 1025];
        let response = street.client.h1(GATE.v4_at(80))?.exchange(&post().body(&long))?;
        assert_eq!(response.status, 413, "{name}: more than the service may be sent");
    }
    Ok(())
}

fn without_the_service_nothing_passes(mode: Mode) -> Result<()> {
    let (_gate, street) = start(mode)?;
    for (name, _) in PROTOCOLS {
        for fault in ["none", "gone"] {
            let response = ask(&street, &format!("{name}-{fault}.example"), "good")?;
            assert_eq!(response.status, 503, "{name}-{fault}: {response:?}");
            assert!(!String::from_utf8_lossy(&response.body).contains("backend"));
        }
    }
    Ok(())
}

fn a_service_that_takes_too_long_lets_nothing_pass(mode: Mode) -> Result<()> {
    let (_gate, street) = start(mode)?;
    for (name, _) in PROTOCOLS {
        let start = Instant::now();
        let response = ask(&street, &format!("{name}-hurried.example"), "slow")?;
        assert_eq!(response.status, 504, "{name}: {response:?}");
        let took = start.elapsed();
        assert!(
            took > Duration::from_millis(400) && took < Duration::from_secs(5),
            "{took:?}"
        );
    }
    Ok(())
}

fn a_listener_asks_before_any_route(mode: Mode) -> Result<()> {
    let (_gate, street) = start(mode)?;
    let ask = |host: &str, token: &str| {
        let request = Exchange::new("GET", host, "/x").field("X-Token", token);
        street.client.h1(GATE.v4_at(8000))?.exchange(&request)
    };
    let response = ask("open.example", "good")?;
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(response.echo()?.fields("x-user"), ["alice"]);
    // Also where no route would have been found.
    for host in ["open.example", "unknown.example"] {
        let response = ask(host, "bad")?;
        assert_eq!((response.status, &*response.body), (403, &b"no entry"[..]), "{host}");
    }
    assert_eq!(ask("unknown.example", "good")?.status, 404);
    // The other listener asks nobody.
    let response = street.client.get(GATE.v4_at(80), "open.example", "/x")?;
    assert_eq!(response.status, 200);
    Ok(())
}
