//! `pierhead uninstall`: nothing of us stays in the kernel.

use std::process::ExitCode;

use anyhow::Result;

pub(crate) fn run() -> Result<ExitCode> {
    crate::say("nothing is installed in this network namespace\n")?;
    Ok(ExitCode::SUCCESS)
}
