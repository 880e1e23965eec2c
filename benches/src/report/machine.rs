//! Where it was measured, and what.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

pub(super) fn describe(envoy: &Path) -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let model = read("/proc/cpuinfo")
        .lines()
        .find_map(|line| Some(line.strip_prefix("model name")?.split_once(": ")?.1.to_owned()));
    let load = read("/proc/loadavg");
    json!({
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "cpu": model,
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "congestion_control": read("/proc/sys/net/ipv4/tcp_congestion_control").trim(),
        "load_at_end": load.split_whitespace().next(),
        "versions": {
            "nginx": version(Path::new("nginx"), "-v"),
            "haproxy": version(Path::new("haproxy"), "-v"),
            "envoy": version(envoy, "--version"),
            "nft": version(Path::new("nft"), "--version"),
        },
    })
}

/// The first line that says something, on whichever output.
fn version(program: &Path, flag: &str) -> Option<String> {
    let output = Command::new(program).arg(flag).output().ok()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let line = said.lines().map(str::trim).find(|line| !line.is_empty())?;
    Some(line.to_owned())
}
