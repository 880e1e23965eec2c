//! Helm: built once from the Go module that pins it, and run on our chart.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cluster::place::Place;
use crate::sh::{self, say};

/// The toolchain of the module: a Go module itself, so any Go since 1.21 can bring it.
const GO_TOOLCHAIN: &str = "go1.27.3";

const PACKAGE: &str = "helm.sh/helm/v3/cmd/helm";

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
    let home = Place::here().dir().join("helm");
    let mut command = Command::new(binary()?);
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

fn binary() -> Result<PathBuf> {
    let module = sh::root().join("tests/cluster/helm");
    let folder = Place::here().bin("");
    let binary = folder.join("helm");
    let stamp = folder.join("stamps/helm");
    let mut wanted = format!("{GO_TOOLCHAIN}\n");
    for file in ["go.mod", "go.sum"] {
        wanted.push_str(&fs::read_to_string(module.join(file)).with_context(|| format!("cannot read {file} of helm"))?);
    }
    if binary.exists() && fs::read_to_string(&stamp).is_ok_and(|built| built == wanted) {
        return Ok(binary);
    }
    if !sh::has("go") {
        bail!("helm is built from a Go module: install Go (Debian: golang-go)");
    }
    say("helm: building it, once (a minute on two cores)");
    fs::create_dir_all(folder.join("stamps")).context("cannot make the folder of helm")?;
    let mut go = Command::new("go");
    go.current_dir(&module)
        .env("GOTOOLCHAIN", GO_TOOLCHAIN)
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-trimpath -buildvcs=false -mod=readonly")
        .args(["build", "-o"])
        .arg(&binary)
        .arg(PACKAGE);
    sh::output(&mut go).context("helm does not build")?;
    fs::write(&stamp, wanted).context("cannot write the stamp of helm")?;
    Ok(binary)
}
