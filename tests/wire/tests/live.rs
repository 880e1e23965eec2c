//! Changes while it runs: every way a file changes, and what must not notice.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use pierhead_wire::config::service;
use pierhead_wire::every_mode;
use pierhead_wire::gate::{Gate, Mode};
use pierhead_wire::net::{GATE, HOST_A, HOST_B};
use pierhead_wire::poll::eventually;
use pierhead_wire::street::{HTTP, Street, gateway, route};
use tungstenite::Message;

every_mode!(
    a_file_may_be_written_renamed_linked_and_removed,
    a_bad_file_keeps_its_last_good_objects,
    streams_survive_two_hundred_changes,
    listeners_come_and_go,
    endpoints_come_and_go,
);

fn to(name: &str, backend: &str) -> String {
    route(
        "HTTPRoute",
        name,
        &format!("  hostnames: [{name}.test]\n  rules: [{{backendRefs: [{{name: {backend}, port: 8080}}]}}]"),
    )
}

/// Waits until `host` is answered by this backend, or with 404 by nobody.
fn answered(street: &Street, host: &str, backend: Option<&str>) -> Result<()> {
    eventually(format!("{host} is answered by {backend:?}"), || {
        let response = street.client.get(GATE.v4_at(80), host, "/")?;
        match backend {
            Some(name) => ensure!(response.echo()?.backend() == name),
            None => ensure!(response.status == 404, "status {}", response.status),
        }
        Ok(())
    })
}

fn a_file_may_be_written_renamed_linked_and_removed(mode: Mode) -> Result<()> {
    let street = Street::new()?;
    let _gate = street.gate(mode, &[("gate.yaml", &gateway(&[HTTP])), ("one.yaml", &to("one", "a"))])?;
    answered(&street, "one.test", Some("a"))?;
    street.config.write("one.yaml", &to("one", "b"))?;
    answered(&street, "one.test", Some("b"))?;
    street.config.replace("one.yaml", &to("one", "a"))?;
    answered(&street, "one.test", Some("a"))?;
    street.config.rename("one.yaml", "renamed.yaml")?;
    street.config.write("sub/two.yaml", &to("two", "b"))?;
    answered(&street, "two.test", Some("b"))?;
    answered(&street, "one.test", Some("a"))?;
    street.config.remove("renamed.yaml")?;
    answered(&street, "one.test", None)?;
    // As a mounted ConfigMap: the file is a link through a folder that is swapped in one step.
    let outside = tempfile::tempdir()?;
    for (folder, backend) in [("first", "a"), ("second", "b")] {
        fs::create_dir(outside.path().join(folder))?;
        fs::write(outside.path().join(folder).join("one.yaml"), to("one", backend))?;
    }
    street.config.point("..data", &outside.path().join("first"))?;
    street
        .config
        .point("one.yaml", std::path::Path::new("..data/one.yaml"))?;
    answered(&street, "one.test", Some("a"))?;
    street.config.point("..data", &outside.path().join("second"))?;
    answered(&street, "one.test", Some("b"))
}

fn a_bad_file_keeps_its_last_good_objects(mode: Mode) -> Result<()> {
    let street = Street::new()?;
    let gate = street.gate(
        mode,
        &[
            ("gate.yaml", &gateway(&[HTTP])),
            ("one.yaml", &to("one", "a")),
            ("two.yaml", &to("two", "a")),
        ],
    )?;
    let bad = [
        ("broken YAML", "kind: [\n".to_owned()),
        ("an unknown field", to("one", "b").replace("rules:", "rulez:")),
        ("a wrong type", to("one", "b").replace("8080", "eighty")),
    ];
    for (what, text) in bad {
        street.config.replace("one.yaml", &text)?;
        eventually(format!("{what} is counted"), || {
            ensure!(gate.metric("pierhead_config_problems", &[("source", "file")])? > 0.0);
            Ok(())
        })?;
        gate.says(&["one.yaml"])?;
        answered(&street, "one.test", Some("a"))?;
        // Other files go on changing.
        street.config.replace("two.yaml", &to("two", "b"))?;
        answered(&street, "two.test", Some("b"))?;
        street.config.replace("two.yaml", &to("two", "a"))?;
        answered(&street, "two.test", Some("a"))?;
        street.config.replace("one.yaml", &to("one", "a"))?;
        eventually(format!("{what} is over"), || {
            ensure!(gate.metric("pierhead_config_problems", &[("source", "file")])? < 1.0);
            Ok(())
        })?;
    }
    Ok(())
}

fn streams_survive_two_hundred_changes(mode: Mode) -> Result<()> {
    let street = Street::new()?;
    let routes = [
        route(
            "HTTPRoute",
            "chat",
            "  hostnames: [chat.test]\n  rules: [{backendRefs: [{name: chat, port: 8081}]}]",
        ),
        route(
            "TCPRoute",
            "lines",
            "  rules: [{backendRefs: [{name: lines, port: 9000}]}]",
        )
        .replace("{name: gate}", "{name: gate, sectionName: lines}"),
    ];
    let listeners = [HTTP, "{name: lines, protocol: TCP, port: 9000}"];
    let gate = street.gate(
        mode,
        &[
            ("gate.yaml", &gateway(&listeners)),
            ("routes.yaml", &routes.join("---\n")),
            ("one.yaml", &to("one", "a")),
        ],
    )?;
    let mut socket = street.client.websocket(GATE.v4_at(80), "chat.test", "/")?;
    let mut kept = street.client.h1(GATE.v4_at(80))?;
    let stream = street.client.tcp(GATE.v4_at(9000))?;
    let mut lines = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    lines.read_line(&mut line)?;
    let before = version(&gate)?;
    for number in 0..200 {
        let backend = if number % 2 == 0 { "b" } else { "a" };
        street.config.replace("one.yaml", &to("one", backend))?;
        eventually(format!("change {number} is live"), || {
            ensure!(kept.get("one.test", "/")?.echo()?.backend() == backend);
            Ok(())
        })?;
        socket.send(Message::text(format!("{number}")))?;
        ensure!(
            socket.read()? == Message::text(format!("a: {number}")),
            "the WebSocket at change {number}"
        );
        (&stream).write_all(format!("{number}\n").as_bytes())?;
        line.clear();
        lines.read_line(&mut line)?;
        ensure!(
            line == format!("{number}\n"),
            "the TCP stream at change {number}: {line:?}"
        );
    }
    ensure!(
        version(&gate)? >= before + 200.0,
        "every change was a version of its own"
    );
    Ok(())
}

fn version(gate: &Gate) -> Result<f64> {
    gate.metric("pierhead_config_version", &[])
}

fn listeners_come_and_go(mode: Mode) -> Result<()> {
    const OTHER: &str = "{name: other, protocol: HTTP, port: 8088}";
    let street = Street::new()?;
    let _gate = street.gate(mode, &[("gate.yaml", &gateway(&[HTTP])), ("one.yaml", &to("one", "a"))])?;
    let other = GATE.v4_at(8088);
    for _ in 0..3 {
        ensure!(
            street.client.tcp_within(other, Duration::from_millis(200)).is_err(),
            "nobody listens there yet"
        );
        street.config.replace("gate.yaml", &gateway(&[HTTP, OTHER]))?;
        eventually("the new listener answers", || {
            ensure!(street.client.get(other, "one.test", "/")?.echo()?.backend() == "a");
            Ok(())
        })?;
        street.config.replace("gate.yaml", &gateway(&[HTTP]))?;
        eventually("the listener is gone", || {
            let gone = street.client.tcp_within(other, Duration::from_millis(200));
            ensure!(gone.is_err(), "it still accepts");
            Ok(())
        })?;
        answered(&street, "one.test", Some("a"))?;
    }
    Ok(())
}

fn endpoints_come_and_go(mode: Mode) -> Result<()> {
    let street = Street::new()?;
    let at = |address: std::net::Ipv4Addr| service("moving", "TCP", 8080, &[address.into()]);
    let files = [
        ("gate.yaml", gateway(&[HTTP])),
        ("one.yaml", to("one", "moving")),
        ("moving.yaml", at(HOST_A.v4)),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let _gate = street.gate(mode, &files)?;
    answered(&street, "one.test", Some("a"))?;
    street.config.replace("moving.yaml", &at(HOST_B.v4))?;
    answered(&street, "one.test", Some("b"))?;
    street
        .config
        .replace("moving.yaml", &service("moving", "TCP", 8080, &[]))?;
    eventually("none is left", || {
        ensure!(street.client.get(GATE.v4_at(80), "one.test", "/")?.status == 503);
        Ok(())
    })?;
    street.config.replace("moving.yaml", &at(HOST_A.v4))?;
    answered(&street, "one.test", Some("a"))
}

#[test]
fn a_host_that_is_cut_off_is_asked_no_more_until_it_is_back() -> Result<()> {
    let street = Street::new()?;
    let both = service("pair", "TCP", 8080, &[HOST_A.v4.into(), HOST_B.v4.into()]);
    let files = [
        ("gate.yaml", gateway(&[HTTP])),
        ("one.yaml", to("one", "pair")),
        ("pair.yaml", both),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let _gate = street.gate(Mode::Off, &files)?;
    let ask = || -> Result<(String, Duration)> {
        let began = Instant::now();
        let response = street.client.get(GATE.v4_at(80), "one.test", "/")?;
        ensure!(response.status == 200, "status {}", response.status);
        Ok((response.echo()?.backend().to_owned(), began.elapsed()))
    };
    answered(&street, "one.test", Some("a"))?;
    // So that every worker keeps a connection to each.
    for _ in 0..40 {
        ask()?;
    }
    // It gets packets, and none come back: no error tells that it is gone.
    street.net.a.ip("route add blackhole 10.0.11.1/32\n")?;
    // On kept connections, which are given up when nothing is acknowledged; on new ones; and then on neither.
    for number in 0..20 {
        let (backend, took) = ask()?;
        ensure!(backend == "b", "request {number} was answered by {backend}");
        ensure!(took < Duration::from_secs(4), "request {number} took {took:?}");
    }
    let until = Instant::now() + Duration::from_secs(8);
    while Instant::now() < until {
        let (_, took) = ask()?;
        ensure!(
            took < Duration::from_secs(1),
            "a request tried what is gone, for {took:?}"
        );
        thread::sleep(Duration::from_millis(20));
    }
    street.net.a.ip("route del blackhole 10.0.11.1/32\n")?;
    let back = Instant::now();
    while ask()?.0 != "a" {
        ensure!(back.elapsed() < Duration::from_secs(15), "it is not asked again");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
