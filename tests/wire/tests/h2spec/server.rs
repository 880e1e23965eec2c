//! The gate as a server.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use pierhead_wire::gate::Mode;
use pierhead_wire::net::GATE;
use pierhead_wire::pki::Authority;
use pierhead_wire::street::{HTTP, Street, gateway, route};

use crate::{Exception, judge, program, report};

const CASES: usize = 146;

/// Over TLS, where ALPN has chosen HTTP/2, the same case passes.
const OVER_CLEAR_TEXT: &[Exception] = &[(
    "http2/3.5/2",
    "What does not begin with the preface of HTTP/2 (RFC 9113 §3.4) is HTTP/1.1 on a port that speaks both. That has no such \
     request line either, so it is answered 400 (RFC 9112 §3), and the connection is closed. The case reads 400 as a frame.",
)];

const HTTPS: &str = "{name: https, protocol: HTTPS, port: 443, tls: {certificateRefs: [{name: any}]}}";

#[test]
fn a_server_over_clear_text_keeps_to_the_rules() -> Result<()> {
    check(&["--port", "80"], OVER_CLEAR_TEXT)
}

#[test]
fn a_server_over_tls_keeps_to_the_rules() -> Result<()> {
    check(&["--port", "443", "--tls", "--insecure"], &[])
}

fn check(how: &[&str], exceptions: &[Exception]) -> Result<()> {
    let street = Street::new()?;
    let certificate = Authority::new()?.leaf(&["any.test"])?.secret("any");
    let routes = route("HTTPRoute", "all", "  rules: [{backendRefs: [{name: a, port: 8080}]}]");
    let files = [
        ("gate.yaml", gateway(&[HTTP, HTTPS])),
        ("certificate.yaml", certificate),
        ("routes.yaml", routes),
    ];
    let _gate = street.gate(Mode::Off, &files.each_ref().map(|(name, text)| (*name, text.as_str())))?;
    let mut client = street.client.h1(GATE.v4_at(80))?;
    client.send(b"INVALID CONNECTION PREFACE\r\n\r\n")?;
    ensure!(
        client.response("GET")?.status == 400 && client.at_end()?,
        "an invalid preface ends the connection"
    );

    let report = tempfile::NamedTempFile::with_prefix("pierhead-h2spec-")?;
    let mut command = Command::new(program()?);
    command
        .args(["--host", &GATE.v4.to_string()])
        .args(how)
        // Seconds; only what fails waits so long.
        .args(["--strict", "--timeout", "4", "--junit-report"])
        .arg(report.path());
    let output = street
        .net
        .client
        .enter(|| command.output())?
        .context("cannot start h2spec")?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let cases = report::of_junit(&fs::read_to_string(report.path())?);
    judge(&cases, CASES, exceptions, &said)
}
