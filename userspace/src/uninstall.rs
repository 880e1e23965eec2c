//! `pierhead uninstall`: nothing of us stays in the kernel.

use std::process::ExitCode;

use anyhow::Result;

pub(crate) fn run() -> Result<ExitCode> {
    let removed = pierhead_kernel::uninstall()?;
    let mut text: String = removed.iter().map(|line| format!("removed {line}\n")).collect();
    if removed.is_empty() {
        text.push_str("nothing of pierhead is in this network namespace\n");
    }
    crate::say(&text)?;
    Ok(ExitCode::SUCCESS)
}
