//! Builds the kernel programs from `ebpf/`. Installs nothing; says exactly what is missing.

use std::path::PathBuf;

use anyhow::{Result, anyhow};

use crate::sh;

#[path = "../../ebpf/recipe.rs"]
mod recipe;

/// Builds the object that `pierhead-kernel` embeds; where it is.
pub(crate) fn build() -> Result<PathBuf> {
    recipe::build(&sh::root().join("ebpf"), "pierhead-ebpf").map_err(|message| anyhow!(message))
}
