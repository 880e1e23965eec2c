//! A new process takes over from the old one while traffic flows, and nothing of it is lost.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use pierhead_wire::every_mode;
use pierhead_wire::gate::{Gate, Mode, run};
use pierhead_wire::load::{BOTH_HABITS, Habit, Load};
use pierhead_wire::net::GATE;
use pierhead_wire::poll::eventually;
use pierhead_wire::street::{HTTP, Street, gateway, route};
use tungstenite::Message;

every_mode!(
    twenty_takeovers_cut_nothing,
    a_successor_that_fails_changes_nothing,
    a_killed_successor_is_followed_by_the_next,
    the_last_configuration_counts,
);

const TAKEOVERS: usize = 20;

/// Long enough that nothing is cut by a deadline while a test runs.
const PATIENT: &[&str] = &["--drain-seconds", "300"];

fn files() -> Result<Vec<(&'static str, String)>> {
    let listeners = [HTTP, "{name: lines, protocol: TCP, port: 9000}"];
    let routes = [
        route(
            "HTTPRoute",
            "one",
            "  hostnames: [one.test]\n  rules: [{backendRefs: [{name: both, port: 8080}]}]",
        ),
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
    let routes = routes.map(|one| one.replace("{name: gate}", "{name: gate, sectionName: http}"));
    Ok(vec![
        ("gate.yaml", gateway(&listeners)),
        ("routes.yaml", routes.join("---\n")),
    ])
}

fn start(street: &Street, mode: Mode) -> Result<Gate> {
    // What a listener that closes has not accepted yet goes to its successor: without steering only so.
    if mode == Mode::Off {
        street.net.node.sysctl("ipv4/tcp_migrate_req", "1")?;
    }
    let files = files()?;
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    street.gate_with(mode, &files, PATIENT)
}

/// A TCP stream through the gate that says what it is told.
struct Line(BufReader<TcpStream>);

impl Line {
    fn open(street: &Street) -> Result<Self> {
        let mut line = Self(BufReader::new(street.client.tcp(GATE.v4_at(9000))?));
        let greeting = line.read()?;
        ensure!(greeting.starts_with("hello from a"), "{greeting}");
        Ok(line)
    }

    fn read(&mut self) -> Result<String> {
        let mut text = String::new();
        ensure!(self.0.read_line(&mut text)? > 0, "the stream was cut");
        Ok(text)
    }

    fn is_whole(&mut self, word: &str) -> Result<()> {
        self.0.get_mut().write_all(format!("{word}\n").as_bytes())?;
        let echo = self.read()?;
        ensure!(echo.trim_end() == word, "{echo:?} instead of {word:?}");
        Ok(())
    }
}

fn twenty_takeovers_cut_nothing(mode: Mode) -> Result<()> {
    let street = Street::new()?;
    let mut gates = vec![start(&street, mode)?];
    let mut line = Line::open(&street)?;
    let mut chat = street.client.websocket(GATE.v4_at(80), "chat.test", "/")?;
    let load = Load::start(&street.net.client, GATE.v4_at(80), "one.test", &BOTH_HABITS)?;
    for number in 0..TAKEOVERS {
        let before = load.done();
        let gate = Gate::take_over(&street.net.node, &street.config, mode, PATIENT)?;
        eventually("the newcomer serves", || {
            ensure!(gate.own_metric("pierhead_requests_total", &[])? >= 5.0);
            ensure!(load.done() > before + 20);
            Ok(())
        })?;
        let old = gates.last().context("no gate")?;
        eventually("the old one is not ready any more", || {
            ensure!(old.own("/readyz")?.status == 503);
            Ok(())
        })?;
        gate.ready().context("the admin address is the newcomer's")?;
        line.is_whole(&format!("line {number}"))?;
        chat.send(Message::text(format!("chat {number}")))?;
        let said = chat.read()?.into_text()?.to_string();
        ensure!(said.ends_with(&format!("chat {number}")), "{said}");
        gates.push(gate);
    }
    // All but the first, which has the streams, have nothing left.
    for old in &mut gates[1..TAKEOVERS] {
        old.wait(Duration::from_secs(15))?;
    }
    let tally = load.end();
    ensure!(
        tally.failed == 0,
        "{} of {} failed: {:#?}",
        tally.failed,
        tally.done,
        tally.failures
    );
    ensure!(tally.done > 1_000, "only {} requests were made", tally.done);
    Ok(())
}

fn a_successor_that_fails_changes_nothing(mode: Mode) -> Result<()> {
    let street = Street::new()?;
    let gate = start(&street, mode)?;
    let load = Load::start(
        &street.net.client,
        GATE.v4_at(80),
        "one.test",
        &[Habit::Keep, Habit::Fresh],
    )?;
    let mut wrong = Gate::launch(
        &street.net.node,
        &street.config,
        &["--takeover", "--ebpf", &mode.to_string(), "--config-that-is-none", "x"],
    )?;
    ensure!(!wrong.wait(Duration::from_secs(10))?.success());
    // One that ends between its start and its first word.
    let early = Gate::launch(
        &street.net.node,
        &street.config,
        &["--takeover", "--ebpf", &mode.to_string()],
    )?;
    early.kill()?;
    street.config.replace(
        "routes.yaml",
        &route(
            "HTTPRoute",
            "one",
            "  hostnames: [one.test, two.test]\n  rules: [{backendRefs: [{name: b, port: 8080}]}]",
        ),
    )?;
    eventually("the one that is there goes on and follows changes", || {
        ensure!(street.client.get(GATE.v4_at(80), "two.test", "/")?.echo()?.backend() == "b");
        Ok(())
    })?;
    gate.in_charge()?;
    let tally = load.end();
    ensure!(tally.failed == 0, "{tally:#?}");
    Ok(())
}

fn a_killed_successor_is_followed_by_the_next(mode: Mode) -> Result<()> {
    let street = Street::new()?;
    let _first = start(&street, mode)?;
    let mut line = Line::open(&street)?;
    let second = Gate::take_over(&street.net.node, &street.config, mode, PATIENT)?;
    line.is_whole("after the takeover")?;
    second.kill()?;
    let third = Gate::take_over(&street.net.node, &street.config, mode, PATIENT)?;
    for _ in 0..20 {
        let answer = street.client.get(GATE.v4_at(80), "one.test", "/")?;
        assert_eq!(answer.status, 200);
    }
    // A request counts when its answer has been written, which its client may see first.
    eventually("the third one has counted what it answered", || {
        ensure!(third.own_metric("pierhead_requests_total", &[])? >= 20.0);
        Ok(())
    })?;
    line.is_whole("what the first one carries is not concerned")?;
    let (exit, said) = run(
        &street.net.node,
        &["status", "--quiet", "--admin", &third.socket().display().to_string()],
    )?;
    ensure!(exit.success() && said.is_empty(), "{said}");
    Ok(())
}

fn the_last_configuration_counts(mode: Mode) -> Result<()> {
    let street = Street::new()?;
    let old = start(&street, mode)?;
    let new = Gate::take_over(&street.net.node, &street.config, mode, PATIENT)?;
    eventually("the old one has left", || {
        ensure!(old.own("/readyz")?.status == 503);
        Ok(())
    })?;
    // Both read the folder; only the one in charge touches the kernel.
    for backend in ["b", "a", "b"] {
        street.config.replace(
            "routes.yaml",
            &route(
                "HTTPRoute",
                "one",
                &format!("  hostnames: [one.test]\n  rules: [{{backendRefs: [{{name: {backend}, port: 8080}}]}}]"),
            ),
        )?;
        eventually(format!("{backend} answers"), || {
            ensure!(street.client.get(GATE.v4_at(80), "one.test", "/")?.echo()?.backend() == backend);
            Ok(())
        })?;
    }
    eventually("the newcomer follows the folder", || {
        let version = new.own_metric("pierhead_config_version", &[])?;
        ensure!(version > 1.0, "{version}");
        Ok(())
    })
}
