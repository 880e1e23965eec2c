//! `conformance`: the official suite of the Gateway API, unmodified, against Pierhead on the cluster.

mod complaint;
mod inventory;
mod outcome;
mod suite;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::cluster::api::Channel;
use crate::cluster::place::Place;
use crate::cluster::{self, binaries};
use crate::image::{self, Order};
use crate::sh::{self, say};

const HELP: &str = "\
cargo xtask conformance [flags] [flags of the suite, such as --debug or --skip-tests=A,B]
  --ebpf off|steer|full|auto         how much the kernel does; full unless given
  --channel experimental|standard    whose CRDs; experimental unless given. A change removes every Gateway and route
  --run-test NAME                    one test alone
  --profile release|lab              how Pierhead is compiled; release unless given
  --program FILE                     test this program of Pierhead instead
  --installed                        test what is installed already, as it is";

/// What to test, and how.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) ebpf: String,
    pub(crate) channel: Channel,
    pub(crate) test: Option<String>,
    profile: String,
    program: Option<PathBuf>,
    installed: bool,
    /// Handed to the suite as they are.
    pub(crate) flags: Vec<String>,
}

pub(crate) fn run(args: &[String]) -> Result<()> {
    if args.iter().any(|arg| matches!(arg.as_str(), "help" | "--help" | "-h")) {
        println!("{HELP}");
        return Ok(());
    }
    let wish = wished(args)?;
    let place = Place::here();
    let _alone = cluster::lock::take_suite(&place)?;
    let program = binaries::build_suite(&place)?;
    cluster::ensure(&place, Some(wish.channel))?;
    if wish.installed {
        // The report is named after it.
        let mode = cluster::install::ebpf(&place)?;
        if mode != wish.ebpf {
            bail!("what is installed runs --ebpf={mode}: say `--ebpf {mode}`, or leave out `--installed`");
        }
    } else {
        image::make(&Order {
            profile: wish.profile.clone(),
            program: wish.program.clone(),
            load: true,
            ..Order::default()
        })?;
        cluster::install::pierhead(&place, &wish.ebpf, &[])?;
    }
    cluster::install::wait_accepted(&place)?;
    let expected = inventory::expected(&program, wish.channel, wish.test.as_deref())?;
    let started = Instant::now();
    let report = report_file(&wish);
    let outcome = suite::run(&place, &program, &wish, &report)?;
    say(&format!(
        "conformance: {} CRDs, --ebpf={}, after {} s",
        wish.channel.as_str(),
        wish.ebpf,
        started.elapsed().as_secs()
    ));
    outcome::judge(&outcome, &expected)
}

fn wished(args: &[String]) -> Result<Wish> {
    let mut wish = Wish {
        ebpf: "full".to_owned(),
        channel: Channel::Experimental,
        test: None,
        profile: "release".to_owned(),
        program: None,
        installed: false,
        flags: Vec::new(),
    };
    let mut words = args.iter();
    while let Some(word) = words.next() {
        let (name, mut inline) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word.as_str(), None),
        };
        let mut value = || {
            inline
                .take()
                .or_else(|| words.next().cloned())
                .with_context(|| format!("{name} needs a value"))
        };
        match name {
            "--ebpf" => wish.ebpf = value()?,
            "--channel" => wish.channel = Channel::parse(&value()?)?,
            "--run-test" => wish.test = Some(value()?),
            "--profile" => wish.profile = value()?,
            "--program" => wish.program = Some(value()?.into()),
            "--installed" => wish.installed = true,
            _ if word.starts_with('-') => wish.flags.push(word.clone()),
            _ => bail!("`conformance` does not know `{word}`\n{HELP}"),
        }
    }
    if !["off", "steer", "full", "auto"].contains(&wish.ebpf.as_str()) {
        bail!("no `--ebpf {}`: there are off, steer, full and auto", wish.ebpf);
    }
    Ok(wish)
}

/// A run of one test reports beside, so that the report of the whole suite stays.
fn report_file(wish: &Wish) -> PathBuf {
    let name = format!("{}-ebpf-{}.yaml", wish.channel.as_str(), wish.ebpf);
    if wish.test.is_some() || !wish.flags.is_empty() {
        return sh::target_dir().join("conformance").join(name);
    }
    sh::root().join("tests/conformance/reports").join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn what_is_not_ours_goes_to_the_suite() {
        let wish = wished(&words(
            "--ebpf off --channel=standard --debug --run-test A --skip-tests=B",
        ))
        .unwrap();
        assert_eq!(wish.ebpf, "off");
        assert_eq!(wish.channel, Channel::Standard);
        assert_eq!(wish.test.as_deref(), Some("A"));
        assert_eq!(wish.flags, ["--debug", "--skip-tests=B"]);
    }

    #[test]
    fn a_mistake_is_told() {
        for wrong in [
            "--ebpf most",
            "--channel beta",
            "--run-test",
            "HTTPRouteSimpleSameNamespace",
        ] {
            assert!(wished(&words(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_a_whole_run_makes_the_report_that_is_kept() {
        let whole = report_file(&wished(&[]).unwrap());
        assert!(whole.ends_with("tests/conformance/reports/experimental-ebpf-full.yaml"));
        for part in ["--run-test A", "--skip-tests=B"] {
            assert!(!report_file(&wished(&words(part)).unwrap()).starts_with(sh::root().join("tests")));
        }
    }
}
