//! `build`: the eBPF programs, then the one binary, in release.

use anyhow::Result;

use crate::{ebpf, setup, sh};

pub(crate) fn run(_args: &[String]) -> Result<()> {
    setup::all()?;
    ebpf::build()?;
    sh::run(sh::cargo().args(["build", "--release", "--package", "pierhead"]))?;
    let binary = sh::target_dir().join("release/pierhead");
    sh::say(&format!(
        "built {}",
        binary.strip_prefix(sh::root()).unwrap_or(&binary).display()
    ));
    Ok(())
}
