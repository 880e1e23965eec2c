//! `codegen`: what `controller/deploy` holds that is made from something else.
//!
//! The CRDs come from the Rust types, the plain YAML from the chart. `--check` changes nothing and fails when a
//! committed file is not what it would become.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::helm;
use crate::sh::{self, say};

const NOTE: &str = "# Made by `cargo xtask codegen`; change what it is made from.\n";

/// A file and what it must hold.
struct Made {
    path: PathBuf,
    text: String,
}

pub(crate) fn run(args: &[String]) -> Result<()> {
    let check = match args {
        [] => false,
        [flag] if flag == "--check" => true,
        _ => bail!("`codegen` knows only --check"),
    };
    let mut all = crds()?;
    all.push(plain()?);
    if check {
        return compare(&all);
    }
    write(&all)
}

/// Whether the committed CRDs are those of the types. Needs nothing but cargo.
///
/// # Errors
/// They are not.
pub(crate) fn check_crds() -> Result<()> {
    compare(&crds()?)
}

fn deploy(path: &str) -> PathBuf {
    sh::root().join("controller/deploy").join(path)
}

/// The CRDs: in the chart, which installs them first, and the same beside the plain YAML.
fn crds() -> Result<Vec<Made>> {
    let mut cargo = sh::cargo();
    cargo.args(["run", "--quiet", "--package", "pierhead-api", "--example", "crd"]);
    let text = format!("{NOTE}{}", sh::output(&mut cargo)?);
    let paths = ["chart/crds/gatewayparameters.yaml", "crds.yaml"];
    Ok(paths
        .into_iter()
        .map(|path| Made {
            path: deploy(path),
            text: text.clone(),
        })
        .collect())
}

/// Everything but the CRDs, for those who do not use Helm.
fn plain() -> Result<Made> {
    let text = helm::template(&[
        "--namespace",
        "pierhead-system",
        "--set",
        "namespace.create=true,image.tag=dev",
    ])?;
    Ok(Made {
        path: deploy("pierhead.yaml"),
        text: format!(
            "{NOTE}{}",
            text.replace(
                "app.kubernetes.io/managed-by: Helm\n",
                "app.kubernetes.io/managed-by: kubectl\n"
            )
        ),
    })
}

fn write(all: &[Made]) -> Result<()> {
    for made in all.iter().filter(|made| !made.is_current()) {
        fs::write(&made.path, &made.text).with_context(|| format!("cannot write {}", made.shown()))?;
        say(&format!("codegen: wrote {}", made.shown()));
    }
    Ok(())
}

fn compare(all: &[Made]) -> Result<()> {
    let stale: Vec<String> = all.iter().filter(|made| !made.is_current()).map(Made::shown).collect();
    if stale.is_empty() {
        say("codegen: nothing is stale");
        return Ok(());
    }
    bail!("stale: {}: run `cargo xtask codegen`", stale.join(", "))
}

impl Made {
    fn is_current(&self) -> bool {
        fs::read_to_string(&self.path).is_ok_and(|text| text == self.text)
    }

    fn shown(&self) -> String {
        let path: &Path = &self.path;
        path.strip_prefix(sh::root()).unwrap_or(path).display().to_string()
    }
}
