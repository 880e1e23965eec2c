//! Where it was measured, and what.

use std::{path::Path, process::Command};

use serde_json::{Value, json};

pub(super) fn describe(envoy: &Path) -> Value {
    let mut machine = pierhead_wire::machine::describe();
    machine["versions"] = json!({
        "nginx": version(Path::new("nginx"), "-v"),
        "haproxy": version(Path::new("haproxy"), "-v"),
        "envoy": version(envoy, "--version"),
        "nft": version(Path::new("nft"), "--version"),
        "wrk": version(Path::new("wrk"), "-v"),
        "h2load": version(Path::new("h2load"), "--version"),
    });
    machine
}

/// The first line that says something, on whichever output, without the folder of a program that names itself.
fn version(program: &Path, flag: &str) -> Option<String> {
    let output = Command::new(program).arg(flag).output().ok()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let line = said.lines().map(str::trim).find(|line| !line.is_empty())?;
    let folder = program.parent().map(|folder| format!("{}/", folder.display()));
    let bare = folder.and_then(|folder| line.strip_prefix(&folder));
    Some(bare.unwrap_or(line).to_owned())
}
