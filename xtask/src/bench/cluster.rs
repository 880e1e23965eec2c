//! `bench cluster`: what Pierhead takes on the real cluster. The measuring itself is `pierhead-figures`, in `tests/cluster`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::cluster::place::Place;
use crate::cluster::{self, install, lock};
use crate::image::{self, Order};
use crate::{ebpf, setup, sh};

/// What `pierhead-figures` does not know.
const HELP: &str = "\
cargo xtask bench cluster [flags]
  --installed              measure what is installed already, as it is
  --profile release|lab    how Pierhead is compiled; release unless given
  --program FILE           measure this program of Pierhead instead
  --ebpf off|steer|full    how much the kernel does; full unless given";

/// What to measure on.
#[derive(Debug, PartialEq, Eq)]
struct Wish {
    installed: bool,
    order: Order,
    ebpf: String,
    /// Handed on as they are.
    rest: Vec<String>,
}

pub(super) fn run(args: &[String]) -> Result<()> {
    if args.iter().any(|arg| matches!(arg.as_str(), "help" | "--help" | "-h")) {
        println!("{HELP}");
        return figures(&["--help".to_owned()]);
    }
    let wish = wished(args)?;
    let place = Place::here();
    // Neither measures anything beside the official suite.
    let _alone = lock::take_suite(&place)?;
    cluster::ensure(&place, None)?;
    if !wish.installed {
        image::make(&wish.order)?;
        install::pierhead(&place, &wish.ebpf, &[])?;
    }
    install::wait_accepted(&place)?;
    let out = sh::target_dir().join("bench/results");
    let out = out.to_str().context("a target folder that is not UTF-8")?;
    // What is said on the command line beats what is said here.
    let flags: Vec<String> = ["--out", out].into_iter().map(str::to_owned).chain(wish.rest).collect();
    figures(&flags)
}

/// As the tests are built: it asks and waits, and what it measures is another program.
fn figures(flags: &[String]) -> Result<()> {
    setup::tools()?;
    ebpf::build()?;
    sh::run(sh::cargo().args(["build", "--quiet", "--workspace", "--all-targets"]))?;
    let mut command = Command::new(sh::target_dir().join("debug/pierhead-figures"));
    sh::run(command.current_dir(sh::root()).args(flags))
}

fn wished(args: &[String]) -> Result<Wish> {
    let mut wish = Wish {
        installed: false,
        order: Order {
            load: true,
            ..Order::default()
        },
        ebpf: "full".to_owned(),
        rest: Vec::new(),
    };
    let mut words = args.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().cloned().with_context(|| format!("{word} needs a value"));
        match word.as_str() {
            "--installed" => wish.installed = true,
            "--profile" => wish.order.profile = value()?,
            "--program" => wish.order.program = Some(PathBuf::from(value()?)),
            "--ebpf" => wish.ebpf = value()?,
            _ => wish.rest.push(word.clone()),
        }
    }
    Ok(wish)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_ours_goes_to_the_figures() {
        let words = ["--routes", "100", "--ebpf", "off", "--installed", "--samples", "20"].map(str::to_owned);
        let wish = wished(&words).unwrap();
        assert!(wish.installed && wish.order.load);
        assert_eq!(wish.ebpf, "off");
        assert_eq!(wish.rest, ["--routes", "100", "--samples", "20"]);
        assert!(wished(&["--profile".to_owned()]).is_err());
    }
}
