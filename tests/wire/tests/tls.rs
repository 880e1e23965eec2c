//! TLS: whose certificate is shown to whom, and what passes through unread.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use anyhow::Result;
use http::Request;
use http_body_util::Full;
use pierhead_wire::client::H1;
use pierhead_wire::every_mode;
use pierhead_wire::gate::Mode;
use pierhead_wire::net::{FAMILIES, GATE, HOST_A, NODE};
use pierhead_wire::pki::{Authority, Leaf};
use pierhead_wire::poll::eventually;
use pierhead_wire::street::{Street, gateway, port, route};
use rustls::ClientConfig;

every_mode!(
    sni_picks_the_certificate,
    both_protocols_are_offered,
    a_certificate_is_changed_under_a_living_connection,
    passthrough_reaches_the_backend_unread,
    a_request_for_another_listener_is_misdirected,
    ingress_terminates_by_host_and_redirects_nothing_else,
);

const EVERYTHING_TO_A: &str = "  rules: [{backendRefs: [{name: a, port: 8080}]}]";

fn https(name: &str, hostname: Option<&str>, secret: &str) -> String {
    let hostname = hostname.map(|name| format!(", hostname: '{name}'")).unwrap_or_default();
    format!("{{name: {name}, protocol: HTTPS, port: 443{hostname}, tls: {{certificateRefs: [{{name: {secret}}}]}}}}")
}

/// Whether the gate shows exactly this certificate to a client that asks for `name`.
fn shows(street: &Street, name: &str, leaf: &Leaf, config: &Arc<ClientConfig>) -> Result<bool> {
    let tls = street.client.tls(GATE.v4_at(443), name, config)?;
    Ok(tls.conn.peer_certificates().and_then(<[_]>::first) == Some(leaf.der()))
}

fn sni_picks_the_certificate(mode: Mode) -> Result<()> {
    let street = Street::new()?;
    let authority = Authority::new()?;
    let exact = authority.leaf(&["one.test"])?;
    let wild = authority.leaf(&["*.wild.test"])?;
    let default = authority.leaf(&["one.other", "10.96.0.10"])?;
    let secrets = [exact.secret("exact"), wild.secret("wild"), default.secret("default")].join("---\n");
    let listeners = [
        https("exact", Some("one.test"), "exact"),
        https("wild", Some("*.wild.test"), "wild"),
        https("default", None, "default"),
    ];
    let listeners: Vec<&str> = listeners.iter().map(String::as_str).collect();
    let routes = route("HTTPRoute", "all", EVERYTHING_TO_A);
    let _gate = street.gate(
        mode,
        &[
            ("gate.yaml", &gateway(&listeners)),
            ("secrets.yaml", &secrets),
            ("routes.yaml", &routes),
        ],
    )?;
    let config = authority.client(&["http/1.1"])?;
    assert!(shows(&street, "one.test", &exact, &config)?);
    assert!(shows(&street, "two.wild.test", &wild, &config)?);
    assert!(shows(&street, "one.other", &default, &config)?);
    assert!(shows(&street, "10.96.0.10", &default, &config)?, "an address is no SNI");
    for family in FAMILIES {
        let mut h1 = street.client.h1_tls(GATE.at(family, 443), "one.test", &config)?;
        let echo = h1.get("one.test", "/")?.echo()?;
        assert_eq!((echo.backend(), echo.fields("x-forwarded-proto")), ("a", vec!["https"]));
    }
    Ok(())
}

fn both_protocols_are_offered(mode: Mode) -> Result<()> {
    let street = Street::new()?;
    let authority = Authority::new()?;
    let leaf = authority.leaf(&["one.test"])?;
    let files = [
        ("gate.yaml", gateway(&[&https("https", Some("one.test"), "one")])),
        ("secret.yaml", leaf.secret("one")),
        ("routes.yaml", route("HTTPRoute", "all", EVERYTHING_TO_A)),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let _gate = street.gate(mode, &files)?;
    let h2 = street
        .client
        .h2_tls(GATE.v4_at(443), "one.test", &authority.client(&["h2", "http/1.1"])?);
    assert_eq!(
        h2.get("https://one.test/")?.echo()?.fields("x-forwarded-proto"),
        ["https"]
    );
    let none = street
        .client
        .tls(GATE.v4_at(443), "one.test", &authority.client(&[])?)?;
    assert_eq!(none.conn.alpn_protocol(), None);
    assert_eq!(H1::new(none).get("one.test", "/")?.echo()?.backend(), "a");
    // A name that no listener has ends the connection before any certificate is shown.
    let stranger = street.client.tls(GATE.v4_at(443), "two.test", &authority.client(&[])?);
    assert!(stranger.is_err());
    // So does what is no TLS at all.
    let mut clear = street.client.tcp(GATE.v4_at(443))?;
    clear.write_all(b"GET / HTTP/1.1\r\nHost: one.test\r\n\r\n")?;
    let mut said = Vec::new();
    let _ = clear.read_to_end(&mut said);
    assert!(!String::from_utf8_lossy(&said).contains("HTTP/1.1 2"), "{said:?}");
    Ok(())
}

fn a_certificate_is_changed_under_a_living_connection(mode: Mode) -> Result<()> {
    let street = Street::new()?;
    let authority = Authority::new()?;
    let (old, new) = (authority.leaf(&["one.test"])?, authority.leaf(&["one.test"])?);
    let files = [
        ("gate.yaml", gateway(&[&https("https", Some("one.test"), "one")])),
        ("secret.yaml", old.secret("one")),
        ("routes.yaml", route("HTTPRoute", "all", EVERYTHING_TO_A)),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let gate = street.gate(mode, &files)?;
    let config = authority.client(&["http/1.1"])?;
    let mut living = street.client.h1_tls(GATE.v4_at(443), "one.test", &config)?;
    assert_eq!(living.get("one.test", "/")?.status, 200);
    assert!(shows(&street, "one.test", &old, &config)?);

    street.config.replace("secret.yaml", &new.secret("one"))?;
    eventually("the new certificate is shown", || {
        anyhow::ensure!(shows(&street, "one.test", &new, &config)?);
        Ok(())
    })?;
    assert_eq!(
        living.get("one.test", "/")?.status,
        200,
        "the living connection goes on"
    );

    // A key that does not fit is told, and the good pair stays.
    let misfit = pierhead_wire::pki::secret("one", old.pem(), &new.key_pem());
    street.config.replace("secret.yaml", &misfit)?;
    eventually("the misfit is told", || {
        let (_, status) = gate.status(&[])?;
        anyhow::ensure!(status.contains("one"), "{status}");
        anyhow::ensure!(
            gate.metric("pierhead_config_problems", &[])? > 0.0,
            "no problem is counted"
        );
        Ok(())
    })?;
    assert_eq!(living.get("one.test", "/")?.status, 200);
    Ok(())
}

fn passthrough_reaches_the_backend_unread(mode: Mode) -> Result<()> {
    let street = Street::new()?;
    let authority = Authority::new()?;
    let inside = authority.leaf(&["inner.test"])?;
    street
        .a
        .https("inside", HOST_A.v4_at(port::OWN), inside.server(&["h2", "http/1.1"])?)?;
    let listener = "{name: pass, protocol: TLS, port: 443, hostname: '*.test', tls: {mode: Passthrough}}";
    let routes = route(
        "TLSRoute",
        "inner",
        "  hostnames: [inner.test]\n  rules: [{backendRefs: [{name: own, port: 7000}]}]",
    );
    let _gate = street.gate(mode, &[("gate.yaml", &gateway(&[listener])), ("routes.yaml", &routes)])?;
    let config = authority.client(&["h2", "http/1.1"])?;
    assert!(shows(&street, "inner.test", &inside, &config)?);
    let h2 = street.client.h2_tls(GATE.v4_at(443), "inner.test", &config);
    let echo = h2.get("https://inner.test/?size=400000")?;
    assert_eq!((echo.status, echo.body.len()), (200, 400_000));
    assert!(street.client.tls(GATE.v4_at(443), "unknown.test", &config).is_err());
    Ok(())
}

fn a_request_for_another_listener_is_misdirected(mode: Mode) -> Result<()> {
    let street = Street::new()?;
    let authority = Authority::new()?;
    let one = authority.leaf(&["one.test"])?;
    let two = authority.leaf(&["two.test"])?;
    let listeners = [
        https("one", Some("one.test"), "one"),
        https("two", Some("two.test"), "two"),
    ];
    let listeners: Vec<&str> = listeners.iter().map(String::as_str).collect();
    let secrets = [one.secret("one"), two.secret("two")].join("---\n");
    let routes = route("HTTPRoute", "all", EVERYTHING_TO_A);
    let _gate = street.gate(
        mode,
        &[
            ("gate.yaml", &gateway(&listeners)),
            ("secrets.yaml", &secrets),
            ("routes.yaml", &routes),
        ],
    )?;
    let h2 = street
        .client
        .h2_tls(GATE.v4_at(443), "one.test", &authority.client(&["h2"])?);
    let responses = h2.batch(vec![
        Request::get("https://one.test/").body(Full::default())?,
        Request::get("https://two.test/").body(Full::default())?,
    ])?;
    assert_eq!(
        responses.iter().map(|response| response.status).collect::<Vec<_>>(),
        [200, 421]
    );
    Ok(())
}

fn ingress_terminates_by_host_and_redirects_nothing_else(mode: Mode) -> Result<()> {
    let street = Street::new()?;
    let authority = Authority::new()?;
    let leaf = authority.leaf(&["one.test"])?;
    let ingress = "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: one}\nspec:\n  ingressClassName: pierhead\n  tls: [{hosts: [one.test], secretName: one}]\n  rules:\n  - host: one.test\n    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: a, port: {number: 8080}}}}]}\n  - host: clear.test\n    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: b, port: {number: 8080}}}}]}\n";
    let _gate = street.gate(mode, &[("ingress.yaml", ingress), ("secret.yaml", &leaf.secret("one"))])?;
    let mut h1 = street
        .client
        .h1_tls(NODE.v4_at(443), "one.test", &authority.client(&["http/1.1"])?)?;
    assert_eq!(h1.get("one.test", "/")?.echo()?.backend(), "a");
    assert_eq!(
        street.client.get(NODE.v4_at(80), "clear.test", "/")?.echo()?.backend(),
        "b"
    );
    Ok(())
}
