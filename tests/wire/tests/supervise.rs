//! The process that serves is killed, and the one that looks after it starts it again.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use pierhead_wire::every_mode;
use pierhead_wire::gate::{Gate, Mode};
use pierhead_wire::load::{BOTH_HABITS, Load};
use pierhead_wire::net::GATE;
use pierhead_wire::poll::eventually;
use pierhead_wire::street::{HTTP, Street, gateway, route};
use rustix::process::{Pid, Signal, kill_process};

every_mode!(
    one_that_is_killed_is_followed_at_once,
    one_that_was_taken_over_from_is_followed_by_none
);

const SUPERVISED: &[&str] = &["--supervise", "--drain-seconds", "10"];

/// How often it is killed in a row: by then there are pauses between two starts.
const KILLS: usize = 4;
/// How long nobody may be served, by an unoptimized program on a busy machine: most of it is the kernel, which verifies the
/// programs. What users get is the cluster's fault `node-killed`: less than a second.
const OUTAGE: Duration = Duration::from_secs(2);

fn start(street: &Street, mode: Mode) -> Result<Gate> {
    let listeners = [HTTP, "{name: lines, protocol: TCP, port: 9000}"];
    let web = route(
        "HTTPRoute",
        "one",
        "  rules: [{backendRefs: [{name: both, port: 8080}]}]",
    );
    // Endpoints of both families: never balanced in the kernel, so a stream belongs to the process.
    let lines = route(
        "TCPRoute",
        "lines",
        "  rules: [{backendRefs: [{name: lines, port: 9000}]}]",
    );
    let routes = [
        web.replace("{name: gate}", "{name: gate, sectionName: http}"),
        lines.replace("{name: gate}", "{name: gate, sectionName: lines}"),
    ];
    let files = [
        ("gate.yaml", gateway(&listeners)),
        ("routes.yaml", routes.join("---\n")),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    street.gate_with(mode, &files, SUPERVISED)
}

/// What a process has in memory for itself, in KiB: not the program, which both share.
fn anonymous_memory(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .context("no RssAnon")?;
    Ok(line.split_whitespace().next().context("no number")?.parse()?)
}

/// Kills the process that serves; how long a new connection then takes to get its answer.
fn outage(street: &Street, gate: &Gate) -> Result<Duration> {
    let serving = gate.serving()?;
    kill_process(serving, Signal::KILL)?;
    let killed = Instant::now();
    eventually("another one serves", || {
        ensure!(street.client.get(GATE.v4_at(80), "one.test", "/")?.status == 200);
        Ok(())
    })
    .with_context(|| gate.log())?;
    let outage = killed.elapsed();
    ensure!(gate.serving()? != serving, "the same one serves");
    Ok(outage)
}

fn one_that_is_killed_is_followed_at_once(mode: Mode) -> Result<()> {
    let street = Street::new()?;
    let gate = start(&street, mode)?;
    let supervisor = gate.pid();
    let load = Load::start(&street.net.client, GATE.v4_at(80), "one.test", &BOTH_HABITS)?;
    for kill in 1..=KILLS {
        let before = load.done();
        eventually("the load flows", || {
            ensure!(load.done() > before + 50);
            Ok(())
        })?;
        let outage = outage(&street, &gate)?;
        ensure!(outage < OUTAGE, "kill {kill}: {outage:?} without an answer");
    }
    let deaths = gate.own_metric("pierhead_deaths_total", &[])?;
    ensure!((deaths - KILLS as f64).abs() < 0.1, "{deaths} deaths are counted");
    let tally = load.end();
    if mode != Mode::Off {
        // Doors stay open: only what was in flight in the process is lost.
        let in_flight = (BOTH_HABITS.len() * KILLS) as u64;
        let refused = tally.failures.iter().any(|failure| failure.contains("cannot connect"));
        ensure!(tally.failed <= in_flight && !refused, "{tally:#?}");
    }
    ensure!(gate.pid() == supervisor, "the supervisor is another one");
    let memory = anonymous_memory(supervisor)?;
    ensure!(memory < 4 << 10, "the supervisor has {memory} KiB");
    let (status, log) = gate.stop()?;
    ensure!(status.success(), "{status}\n{log}");
    Ok(())
}

fn one_that_was_taken_over_from_is_followed_by_none(mode: Mode) -> Result<()> {
    let street = Street::new()?;
    let mut old = start(&street, mode)?;
    // Keeps the old one from ending.
    let mut line = BufReader::new(street.client.tcp(GATE.v4_at(9000))?);
    ensure!(line.read_line(&mut String::new())? > 0);
    let new = Gate::take_over(&street.net.node, &street.config, mode, SUPERVISED)?;
    eventually("the old one has left", || {
        ensure!(old.own("/readyz")?.status == 503);
        Ok(())
    })?;
    kill_process(old.serving()?, Signal::KILL)?;
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(20));
        ensure!(old.serving().is_err(), "it is started again");
        ensure!(street.client.get(GATE.v4_at(80), "one.test", "/")?.status == 200);
    }
    new.in_charge()?;
    if let Ok(pid) = i32::try_from(old.pid()) {
        kill_process(Pid::from_raw(pid).context("no process")?, Signal::TERM)?;
    }
    let status = old.wait(Duration::from_secs(5))?;
    ensure!(status.success(), "{status}");
    // The newcomer is looked after as the first one was.
    let outage = outage(&street, &new)?;
    ensure!(outage < OUTAGE, "{outage:?} without an answer");
    Ok(())
}

#[test]
fn a_start_that_fails_is_the_end() -> Result<()> {
    let street = Street::new()?;
    let mut gate = Gate::launch(
        &street.net.node,
        &street.config,
        &["--supervise", "--ebpf", "full", "--nic", "none0"],
    )?;
    let status = gate.wait(Duration::from_secs(10))?;
    ensure!(status.code() == Some(2), "{status}\n{}", gate.log());
    Ok(())
}

#[test]
fn nothing_is_left_of_one_whose_supervisor_is_killed() -> Result<()> {
    let street = Street::new()?;
    let gate = start(&street, Mode::Steer)?;
    let serving = format!("/proc/{}", gate.serving()?.as_raw_pid());
    gate.kill()?;
    eventually("it has ended", || {
        ensure!(fs::metadata(&serving).is_err());
        Ok(())
    })
}
