//! `demo`: builds in release, then shows the gate carrying real traffic between network namespaces.

use std::process::Command;

use anyhow::{Result, bail};

use crate::{build, setup, sh};

pub(crate) fn run(args: &[String]) -> Result<()> {
    if let Some(unknown) = args.iter().find(|arg| *arg != "--once") {
        bail!("`demo` knows only --once, not `{unknown}`");
    }
    if !sh::is_root() {
        bail!("the demo makes network namespaces: run it as root");
    }
    setup::all()?;
    let binary = build::release()?;
    sh::run(sh::cargo().args([
        "build",
        "--release",
        "--package",
        "pierhead-wire",
        "--bin",
        "pierhead-demo",
    ]))?;
    sh::run(
        Command::new(sh::target_dir().join("release/pierhead-demo"))
            .arg("--pierhead")
            .arg(binary)
            .arg("--config")
            .arg(sh::root().join("examples/quickstart"))
            .args(args),
    )
}
