//! `build`: the eBPF programs, then the one binary, in release.

use std::path::PathBuf;

use anyhow::Result;

use crate::{ebpf, setup, sh};

pub(crate) fn run(_args: &[String]) -> Result<()> {
    setup::all()?;
    let binary = release()?;
    sh::say(&format!(
        "built {}",
        binary.strip_prefix(sh::root()).unwrap_or(&binary).display()
    ));
    Ok(())
}

/// Builds both; where the binary is.
pub(crate) fn release() -> Result<PathBuf> {
    ebpf::build()?;
    sh::run(sh::cargo().args(["build", "--release", "--package", "pierhead"]))?;
    Ok(sh::target_dir().join("release/pierhead"))
}
