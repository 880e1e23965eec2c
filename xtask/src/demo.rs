//! `demo`: builds in release, then shows the gate carrying real traffic between network namespaces.

use std::process::Command;

use anyhow::{Result, bail};

use crate::{ebpf, setup, sh};

pub(crate) fn run(args: &[String]) -> Result<()> {
    if let Some(unknown) = args.iter().find(|arg| *arg != "--once") {
        bail!("`demo` knows only --once, not `{unknown}`");
    }
    if !sh::is_root() {
        bail!("the demo makes network namespaces: run it as root");
    }
    setup::all()?;
    ebpf::build()?;
    // In one go, so that both take their dependencies with the same features and nothing is compiled twice.
    let both = [
        "--package",
        "pierhead",
        "--package",
        "pierhead-wire",
        "--bin",
        "pierhead",
        "--bin",
        "pierhead-demo",
    ];
    sh::run(sh::cargo().args(["build", "--release"]).args(both))?;
    let binary = sh::target_dir().join("release/pierhead");
    sh::run(
        Command::new(sh::target_dir().join("release/pierhead-demo"))
            .arg("--pierhead")
            .arg(binary)
            .arg("--config")
            .arg(sh::root().join("examples/quickstart"))
            .args(args),
    )
}
