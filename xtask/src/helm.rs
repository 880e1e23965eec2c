//! Helm: built once from the Go module that pins it, and run on our chart.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::cluster::binaries;
use crate::cluster::place::Place;
use crate::sh;

/// What the chart is rendered for where no cluster says.
const KUBERNETES: &str = "1.37.2";

/// The chart, in the repository.
pub(crate) fn chart() -> PathBuf {
    sh::root().join("controller/deploy/chart")
}

/// A `helm` command that leaves no trace in the home of who runs it.
///
/// # Errors
/// Helm is not there and does not build.
pub(crate) fn helm() -> Result<Command> {
    let place = Place::here();
    let home = place.dir().join("helm");
    let mut command = Command::new(binaries::build_helm(&place)?);
    command
        .current_dir(sh::root())
        .env("HELM_CACHE_HOME", home.join("cache"))
        .env("HELM_CONFIG_HOME", home.join("config"))
        .env("HELM_DATA_HOME", home.join("data"));
    Ok(command)
}

/// What the chart becomes: Kubernetes objects as YAML, without its CRDs.
///
/// # Errors
/// The chart cannot be rendered with these words.
pub(crate) fn template(args: &[&str]) -> Result<String> {
    let mut command = helm()?;
    command
        .args(["template", "pierhead", "--kube-version", KUBERNETES])
        .arg(chart())
        .args(args);
    sh::output(&mut command)
}
