//! `bench`: runs a rig by name.

use anyhow::{Result, bail};

use crate::sh;

/// A rig: its name, what it shows, and the package and bench target that hold it.
const RIGS: &[(&str, &str, &str, &str)] = &[(
    "routes",
    "lookup cost at 1x10,000, 10,000x1 and 100x100 routes",
    "pierhead-route",
    "routes",
)];

pub(crate) fn run(args: &[String]) -> Result<()> {
    let Some((name, rest)) = args.split_first() else {
        println!("cargo xtask bench <rig>");
        for (name, about, ..) in RIGS {
            println!("  {name:<8} {about}");
        }
        return Ok(());
    };
    let Some(&(_, _, package, bench)) = RIGS.iter().find(|rig| rig.0 == name) else {
        bail!("no rig `{name}`: `cargo xtask bench` lists them");
    };
    sh::run(
        sh::cargo()
            .args(["bench", "--package", package, "--bench", bench])
            .args(rest),
    )
}
