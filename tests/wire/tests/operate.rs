//! Running it: readiness, metrics, status, logs, start, stop, restart, and every way a start can fail.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use pierhead_wire::config::Config;
use pierhead_wire::every_mode;
use pierhead_wire::gate::{ADMIN, Gate, Mode, binary, run};
use pierhead_wire::net::{GATE, NODE};
use pierhead_wire::netns::Netns;
use pierhead_wire::poll::eventually;
use pierhead_wire::street::{HTTP, Street, gateway, route};

every_mode!(
    it_is_seen_from_outside,
    it_stops_in_order_and_starts_again,
    it_leaves_nothing_behind,
    a_killed_one_harms_nobody_and_is_followed,
    a_second_one_is_told_and_the_first_goes_on,
    pools_give_each_gateway_an_address,
    a_miss_on_an_owned_address_is_refused,
);

const ONE: &str = "  hostnames: [one.test]\n  rules: [{backendRefs: [{name: a, port: 8080}]}]";

fn files() -> [(&'static str, String); 2] {
    [
        ("gate.yaml", gateway(&[HTTP])),
        ("one.yaml", route("HTTPRoute", "one", ONE)),
    ]
}

fn start(street: &Street, mode: Mode) -> Result<Gate> {
    let files = files();
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    street.gate(mode, &files)
}

fn it_is_seen_from_outside(mode: Mode) -> Result<()> {
    let street = Street::new()?;
    let gate = start(&street, mode)?;
    assert_eq!(gate.admin("/healthz")?.status, 200);
    assert_eq!(gate.admin("/readyz")?.status, 200);
    assert_eq!(gate.admin("/nothing")?.status, 404);
    for _ in 0..3 {
        assert_eq!(street.client.get(GATE.v4_at(80), "one.test", "/logged")?.status, 200);
    }
    assert_eq!(
        street.client.get(GATE.v4_at(80), "one.test", "/?status=503")?.status,
        503
    );
    eventually("requests are counted", || {
        let (all, failed) = (
            gate.metric("pierhead_requests_total", &[])?,
            gate.metric("pierhead_requests_total", &[("status", "5xx")])?,
        );
        ensure!(all >= 4.0 && failed >= 1.0, "{all} requests, {failed} of them 5xx");
        Ok(())
    })?;
    let line = gate.records(&["/logged"])?;
    ensure!(
        line.to_string().contains("200") && line.to_string().contains("10.0.1.2"),
        "{line}"
    );
    let (exit, text) = gate.status(&[])?;
    ensure!(exit.success(), "{text}");
    for part in ["gate", "10.96.0.10", "one", &mode.to_string()] {
        ensure!(text.contains(part), "no `{part}` in:\n{text}");
    }
    let (exit, text) = gate.status(&["--output", "json"])?;
    ensure!(
        exit.success() && serde_json::from_str::<serde_json::Value>(&text).is_ok(),
        "{text}"
    );
    Ok(())
}

fn it_stops_in_order_and_starts_again(mode: Mode) -> Result<()> {
    let street = Street::new()?;
    let gate = start(&street, mode)?;
    // A request in flight is finished.
    let client = street.client.clone();
    let slow = std::thread::spawn(move || client.get(GATE.v4_at(80), "one.test", "/?delay_ms=1000"));
    eventually("the slow request is under way", || {
        ensure!(
            gate.metric("pierhead_connections_open", &[])? >= 1.0
                || gate.metric("pierhead_connections_opened_total", &[])? >= 1.0
        );
        Ok(())
    })?;
    let (exit, log) = gate.stop()?;
    ensure!(exit.success(), "{exit}: {log}");
    let answer = slow.join().map_err(|_| anyhow::anyhow!("the client panicked"))??;
    assert_eq!(answer.status, 200, "what was in flight is finished");
    let _gate = start(&street, mode)?;
    assert_eq!(street.client.get(GATE.v4_at(80), "one.test", "/")?.status, 200);
    Ok(())
}

fn it_leaves_nothing_behind(mode: Mode) -> Result<()> {
    let street = Street::new()?;
    let gate = start(&street, mode)?;
    assert_eq!(street.client.get(GATE.v4_at(80), "one.test", "/")?.status, 200);
    gate.stop()?;
    let (exit, said) = run(&street.net.node, &["uninstall"])?;
    ensure!(exit.success(), "{said}");
    ensure!(!pins(&street.net.node)?.exists(), "pins are left");
    let tables = street
        .net
        .node
        .enter(|| Command::new("ip").args(["route", "show", "table", "local"]).output())??;
    let tables = String::from_utf8_lossy(&tables.stdout).into_owned();
    ensure!(!tables.contains("10.96."), "a route is left:\n{tables}");
    let (exit, _) = run(&street.net.node, &["uninstall"])?;
    ensure!(exit.success(), "a second time does no harm");
    Ok(())
}

fn a_killed_one_harms_nobody_and_is_followed(mode: Mode) -> Result<()> {
    let street = Street::new()?;
    start(&street, mode)?.kill()?;
    // What the machine itself serves is untouched.
    let listener = street
        .net
        .node
        .enter(|| std::net::TcpListener::bind(NODE.v4_at(8000)))??;
    let _connected = street.client.tcp(NODE.v4_at(8000))?;
    drop(listener);
    let _gate = start(&street, mode)?;
    assert_eq!(street.client.get(GATE.v4_at(80), "one.test", "/")?.status, 200);
    Ok(())
}

fn a_second_one_is_told_and_the_first_goes_on(mode: Mode) -> Result<()> {
    let street = Street::new()?;
    let gate = start(&street, mode)?;
    let mut second = Gate::launch(&street.net.node, &street.config, &["--ebpf", &mode.to_string()])?;
    let exit = second.wait(Duration::from_secs(10))?;
    ensure!(!exit.success());
    second.says(&["fix"])?;
    assert_eq!(street.client.get(GATE.v4_at(80), "one.test", "/")?.status, 200);
    gate.ready()
}

fn pools_give_each_gateway_an_address(mode: Mode) -> Result<()> {
    let street = Street::new()?;
    let any = |name: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: {name}}}\nspec:\n  gatewayClassName: pierhead\n  listeners:\n  - {HTTP}\n---\n{}",
            route("HTTPRoute", name, "  rules: [{backendRefs: [{name: a, port: 8080}]}]")
                .replace("{name: gate}", &format!("{{name: {name}}}"))
        )
    };
    let gate = street.gate(mode, &[("one.yaml", &any("one")), ("two.yaml", &any("two"))])?;
    for address in ["10.96.0.1:80", "10.96.0.2:80"] {
        assert_eq!(
            street.client.get(address.parse()?, "any.test", "/")?.echo()?.backend(),
            "a",
            "{address}"
        );
    }
    let (_, text) = gate.status(&[])?;
    ensure!(text.contains("10.96.0.1") && text.contains("10.96.0.2"), "{text}");
    Ok(())
}

fn a_miss_on_an_owned_address_is_refused(mode: Mode) -> Result<()> {
    let street = Street::new()?;
    let _gate = start(&street, mode)?;
    // Something of the machine's own that listens everywhere must not show on an address we own.
    let _everywhere = street
        .net
        .node
        .enter(|| std::net::TcpListener::bind("0.0.0.0:2222"))??;
    let own = street.client.tcp_within(NODE.v4_at(2222), Duration::from_secs(5));
    ensure!(own.is_ok(), "the machine's own address is untouched");
    if mode != Mode::Off {
        let owned = street.client.tcp_within(GATE.v4_at(2222), Duration::from_millis(300));
        ensure!(
            owned.is_err(),
            "a port that no listener has is closed on an owned address"
        );
    }
    Ok(())
}

#[test]
fn without_a_capability_it_says_which() -> Result<()> {
    let street = Street::new()?;
    for (name, text) in files() {
        street.config.write(name, &text)?;
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--bounding-set", "-all,+net_bind_service", "--inh-caps", "-all", "--"])
        .arg(binary()?);
    command
        .args(["standalone", "--ebpf", "full", "--config"])
        .arg(street.config.path());
    let state = tempfile::tempdir()?;
    command.arg("--state-dir").arg(state.path());
    let mut gate = Gate::spawn(&street.net.node, command)?;
    ensure!(!gate.wait(Duration::from_secs(10))?.success());
    let line = gate.says(&["CAP_"])?;
    ensure!(line.contains("fix"), "{line}");
    Ok(())
}

#[test]
fn an_occupied_pin_is_told() -> Result<()> {
    let street = Street::new()?;
    for (name, text) in files() {
        street.config.write(name, &text)?;
    }
    // Something of somebody else is where our pins go.
    let pins = pins(&street.net.node)?;
    std::fs::create_dir_all(pins.join("foreign")).with_context(|| format!("{}", pins.display()))?;
    let mut gate = Gate::launch(&street.net.node, &street.config, &["--ebpf", "steer"])?;
    // Either it lives with it, or it says so and how to mend it; it never breaks silently.
    let answered = eventually("it is ready, or ended", || {
        if gate.wait(Duration::from_millis(1)).is_ok() {
            return Ok(false);
        }
        ensure!(gate.admin("/readyz")?.status == 200);
        Ok(true)
    })?;
    if !answered {
        gate.says(&["fix", "pierhead"])?;
    }
    drop(gate);
    let _ = std::fs::remove_dir(pins.join("foreign"));
    let (exit, said) = run(&street.net.node, &["uninstall"])?;
    ensure!(exit.success(), "{said}");
    Ok(())
}

#[test]
fn an_occupied_port_costs_only_itself() -> Result<()> {
    let street = Street::new()?;
    let routes = route("HTTPRoute", "one", ONE);
    let listeners = [HTTP, "{name: other, protocol: HTTP, port: 8088}"];
    street.net.node.ip("route add local 10.96.0.10 dev lo")?;
    let taken = street
        .net
        .node
        .enter(|| std::net::TcpListener::bind(GATE.v4_at(80)))??;
    for (name, text) in [("gate.yaml", gateway(&listeners)), ("one.yaml", routes)] {
        street.config.write(name, &text)?;
    }
    let gate = Gate::launch(&street.net.node, &street.config, &["--ebpf", "off"])?;
    gate.says(&["10.96.0.10", "80", "in use"])?;
    eventually("the other listener answers", || {
        ensure!(street.client.get(GATE.v4_at(8088), "one.test", "/")?.status == 200);
        Ok(())
    })?;
    drop(taken);
    eventually("the port is taken when it is free", || {
        ensure!(street.client.get(GATE.v4_at(80), "one.test", "/")?.status == 200);
        Ok(())
    })
}

#[test]
fn the_admin_port_in_use_is_told() -> Result<()> {
    let street = Street::new()?;
    let _taken = street.net.node.enter(|| std::net::TcpListener::bind(ADMIN))??;
    let mut gate = Gate::launch(&street.net.node, &street.config, &["--ebpf", "off"])?;
    ensure!(!gate.wait(Duration::from_secs(10))?.success());
    gate.says(&["9900", "in use", "fix"])?;
    Ok(())
}

#[test]
fn the_shortest_example_runs_without_root() -> Result<()> {
    let node = std::sync::Arc::new(Netns::unique("node")?);
    let host = pierhead_wire::backend::Host::start(&node)?;
    host.http("app", "127.0.0.1:3000".parse()?)?;
    let example = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/minimal.yaml");
    let text = std::fs::read_to_string(example)?;
    ensure!(text.lines().count() <= 30);
    let config = Config::of(&[("minimal.yaml", &text)])?;
    let state = tempfile::tempdir()?;
    // Nobody may read what root made, and nobody may run what lies in a folder of root's.
    let copy = state.path().join("pierhead");
    std::fs::copy(binary()?, &copy)?;
    for path in [config.path(), state.path()] {
        let opened = Command::new("chmod").args(["-R", "a+rwX"]).arg(path).status()?;
        ensure!(opened.success());
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"])
        .arg(&copy);
    command.args([
        "standalone",
        "--ebpf",
        "off",
        "--ingress-http-port",
        "8081",
        "--ingress-https-port",
        "8443",
        "--config",
    ]);
    command
        .arg(config.path())
        .arg("--state-dir")
        .arg(state.path().join("state"));
    let gate = Gate::spawn(&node, command)?;
    gate.ready()?;
    let client = pierhead_wire::client::Client::new(&node);
    assert_eq!(
        client
            .get("127.0.0.1:8080".parse()?, "localhost:8080", "/")?
            .echo()?
            .backend(),
        "app"
    );
    gate.says(&["root"])?;
    Ok(())
}

/// Where the pins of this namespace are.
fn pins(namespace: &Netns) -> Result<std::path::PathBuf> {
    use std::os::unix::fs::MetadataExt as _;
    let inode = namespace.enter(|| std::fs::metadata("/proc/thread-self/ns/net").map(|meta| meta.ino()))??;
    Ok(format!("/sys/fs/bpf/pierhead/{inode}").into())
}
