//! `test`: the checks and the tiers of tests; without arguments all of them but `kernels`, which is what CI runs.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cargo_metadata::{Message, TargetKind};

use crate::cluster::place::Place;
use crate::cluster::{binaries, stage};
use crate::sh::say;
use crate::{bench, codegen, dashboard, ebpf, edges, kernels, setup, sh, tidy};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Tier {
    /// Format, lints, who may know whom, the README's map.
    Lint,
    /// No root, no kernel: functions and values.
    Pure,
    /// The kernel programs, a frame at a time.
    Packets,
    /// Real traffic between network namespaces.
    Wire,
    /// A real Kubernetes cluster of two nodes, Pierhead installed on it.
    Cluster,
    /// The packets once more, on other kernels in virtual machines. Only by name: it fetches kernels, and takes its time.
    Kernels,
    /// Instructions per request and what a kernel program takes, against the committed baselines.
    Counters,
}

const TIERS: &[(&str, Tier)] = &[
    ("lint", Tier::Lint),
    ("pure", Tier::Pure),
    ("packets", Tier::Packets),
    ("wire", Tier::Wire),
    ("cluster", Tier::Cluster),
    ("kernels", Tier::Kernels),
    ("counters", Tier::Counters),
];

/// A compiled test program.
struct Program {
    package: String,
    target: String,
    tier: Tier,
    executable: PathBuf,
    /// The package's folder: tests run there, as under `cargo test`.
    folder: PathBuf,
}

pub(crate) fn run(args: &[String]) -> Result<()> {
    let tiers = wanted(args)?;
    let started = Instant::now();
    let in_kernel = tiers
        .iter()
        .any(|tier| matches!(tier, Tier::Packets | Tier::Wire | Tier::Cluster | Tier::Counters));
    if in_kernel && !sh::is_root() {
        bail!(
            "packets, wire, cluster and counters load eBPF and make network namespaces: run as root, or name `lint pure` only"
        );
    }
    setup::tools()?;
    if in_kernel {
        setup::bpffs()?;
    }
    if tiers.contains(&Tier::Kernels) {
        setup::debian_packages(kernels::PROGRAMS)?;
    }
    ebpf::build()?;
    if tiers.contains(&Tier::Lint) {
        lint()?;
    }
    if tiers != [Tier::Lint] {
        let programs = compile()?;
        test(&tiers, &programs)?;
        if tiers.contains(&Tier::Counters) {
            bench::counters()?;
            for program in programs.iter().filter(|program| program.tier == Tier::Counters) {
                bench::kernel_programs(&program.executable)?;
            }
        }
    }
    say(&format!("all good after {}", shown(started.elapsed())));
    Ok(())
}

fn wanted(args: &[String]) -> Result<Vec<Tier>> {
    let mut tiers = Vec::new();
    for arg in args {
        let Some(&(_, tier)) = TIERS.iter().find(|(name, _)| name == arg) else {
            bail!("no tier `{arg}`: there are lint, pure, packets, wire, cluster, kernels and counters");
        };
        tiers.push(tier);
    }
    if args.is_empty() {
        tiers = TIERS
            .iter()
            .map(|&(_, tier)| tier)
            .filter(|&tier| tier != Tier::Kernels)
            .collect();
    }
    tiers.sort_unstable();
    tiers.dedup();
    Ok(tiers)
}

fn lint() -> Result<()> {
    sh::run(sh::cargo().args(["fmt", "--all", "--check"]))?;
    sh::run(sh::cargo().args(["fmt", "--check", "--manifest-path", "ebpf/Cargo.toml"]))?;
    sh::run(sh::cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--quiet",
        "--",
        "-D",
        "warnings",
    ]))?;
    codegen::check_crds()?;
    edges::check()?;
    dashboard::check()?;
    tidy::check()
}

/// Runs those of the tiers that are test programs.
fn test(tiers: &[Tier], programs: &[Program]) -> Result<()> {
    let mut failures = Vec::new();
    for &tier in tiers {
        if matches!(tier, Tier::Lint | Tier::Counters) {
            continue;
        }
        if tier == Tier::Kernels {
            failures.extend(on_kernels(programs)?);
            continue;
        }
        let started = Instant::now();
        let mut passed = 0;
        let of_tier: Vec<&Program> = programs.iter().filter(|program| program.tier == tier).collect();
        say(&format!("tier {tier:?}: {} test programs", of_tier.len()));
        let cluster = (tier == Tier::Cluster).then(stage::set).transpose()?;
        let told = match (&cluster, tier) {
            (Some(cluster), _) => cluster.told()?,
            (None, Tier::Wire) => vec![("PIERHEAD_H2SPEC", binaries::build_h2spec(&Place::here())?)],
            (None, _) => Vec::new(),
        };
        for program in of_tier {
            let (count, failure) = program.run(&told)?;
            passed += count;
            failures.extend(failure);
        }
        if let Some(cluster) = cluster {
            cluster.leave(failures.is_empty())?;
        }
        if tier == Tier::Pure
            && let Err(error) = sh::run(sh::cargo().args(["test", "--workspace", "--doc", "--quiet"]))
        {
            failures.push(format!("documentation examples: {error:#}"));
        }
        if passed == 0 {
            failures.push(format!("tier {tier:?} ran no test"));
        }
        say(&format!(
            "tier {tier:?}: {passed} tests passed in {}",
            shown(started.elapsed())
        ));
    }
    if failures.is_empty() {
        return Ok(());
    }
    bail!("{} failed:\n  {}", failures.len(), failures.join("\n  "))
}

/// The tests of packets on other kernels; what went wrong.
fn on_kernels(programs: &[Program]) -> Result<Vec<String>> {
    let packets = programs.iter().filter(|program| program.tier == Tier::Packets);
    let tests: Vec<_> = packets
        .map(|program| kernels::Test {
            name: format!("{}/{}", program.package, program.target),
            executable: &program.executable,
            folder: &program.folder,
        })
        .collect();
    let started = Instant::now();
    let failures = kernels::run(&tests, &sh::target_dir().join("debug"))?;
    say(&format!("tier Kernels: in {}", shown(started.elapsed())));
    Ok(failures)
}

/// Compiles everything once, so that no tier builds the same crate with other features again.
fn compile() -> Result<Vec<Program>> {
    let mut command = sh::cargo();
    command.args([
        "build",
        "--workspace",
        "--all-targets",
        "--message-format=json-render-diagnostics",
    ]);
    println!("+ cargo build --workspace --all-targets");
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start cargo")?;
    let stdout = child.stdout.take().context("cargo without an output")?;
    let mut programs = Vec::new();
    for message in Message::parse_stream(BufReader::new(stdout)) {
        if let Message::CompilerArtifact(artifact) = message.context("cannot read what cargo says")? {
            programs.extend(Program::from_artifact(&artifact));
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("`cargo build --workspace --all-targets` ended with {status}");
    }
    programs.sort_by(|a, b| (a.tier, &a.package, &a.target).cmp(&(b.tier, &b.package, &b.target)));
    Ok(programs)
}

impl Program {
    fn from_artifact(artifact: &cargo_metadata::Artifact) -> Option<Self> {
        let executable = artifact.executable.as_ref()?;
        let folder = artifact.manifest_path.parent()?;
        let package = package_name(&artifact.package_id.repr, folder.file_name()?);
        let is = |kind| artifact.target.kind.contains(&kind);
        let tier = match (&*package, &*artifact.target.name) {
            // One bench has a baseline.
            ("pierhead-kernel", "programs") if is(TargetKind::Bench) => Tier::Counters,
            _ if is(TargetKind::Bench) || !artifact.profile.test => return None,
            (package, target) => tier_of(package, target, is(TargetKind::Test)),
        };
        Some(Self {
            package,
            target: artifact.target.name.clone(),
            tier,
            executable: executable.clone().into_std_path_buf(),
            folder: folder.as_std_path().to_owned(),
        })
    }

    /// Runs it, `told` these variables, and shows what it says: how many tests passed, and what is wrong if anything is.
    fn run(&self, told: &[(&str, PathBuf)]) -> Result<(u64, Option<String>)> {
        let name = format!("{}/{}", self.package, self.target);
        println!("\n+ {name}");
        let mut child = Command::new(&self.executable)
            .current_dir(&self.folder)
            .env("CARGO_MANIFEST_DIR", &self.folder)
            .envs(told.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let stdout = child.stdout.take().context("a test without an output")?;
        let mut summary = None;
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            println!("{line}");
            summary = Summary::parse(&line).or(summary);
        }
        let status = child.wait()?;
        let passed = summary.as_ref().map_or(0, |summary| summary.passed);
        Ok((
            passed,
            verdict(status.success(), summary.as_ref()).map(|why| format!("{name}: {why}")),
        ))
    }
}

/// What is wrong with a run, if anything. A test that was skipped did not pass.
pub(crate) fn verdict(success: bool, summary: Option<&Summary>) -> Option<String> {
    match summary {
        _ if !success => Some(summary.map_or_else(|| "crashed".to_owned(), |it| format!("{} failed", it.failed))),
        None => Some("ended without a summary".to_owned()),
        Some(summary) if summary.ignored > 0 => Some(format!("{} ignored", summary.ignored)),
        Some(_) => None,
    }
}

/// The numbers of a line such as `test result: ok. 12 passed; 0 failed; 0 ignored; …`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
}

impl Summary {
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (_, numbers) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let counts: BTreeMap<&str, u64> = numbers
            .split(';')
            .filter_map(|part| {
                let (count, what) = part.trim().split_once(' ')?;
                Some((what, count.parse().ok()?))
            })
            .collect();
        let count = |what| counts.get(what).copied();
        Some(Self {
            passed: count("passed")?,
            failed: count("failed")?,
            ignored: count("ignored")?,
        })
    }
}

/// Where a package's tests belong. Only three crates need root, and two of them only outside their unit tests.
fn tier_of(package: &str, target: &str, integration: bool) -> Tier {
    match package {
        // They start an API server.
        "pierhead-controller" if target == "api_server" => Tier::Cluster,
        "pierhead" if target == "of_cluster" => Tier::Cluster,
        "pierhead-wire" => Tier::Wire,
        "pierhead-cluster" if integration => Tier::Cluster,
        "pierhead-kernel" if integration => Tier::Packets,
        _ => Tier::Pure,
    }
}

/// The name in a package id: after `#` and before `@`, or the folder's name where both are the same.
fn package_name(id: &str, folder: &str) -> String {
    let fragment = id.rsplit_once('#').map_or("", |(_, fragment)| fragment);
    match fragment.split_once('@') {
        Some((name, _)) => name.to_owned(),
        None => folder.to_owned(),
    }
}

fn shown(duration: Duration) -> String {
    let seconds = duration.as_secs();
    format!("{} min {} s", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn no_word_means_every_tier_but_that_of_other_kernels() {
        let every = [
            Tier::Lint,
            Tier::Pure,
            Tier::Packets,
            Tier::Wire,
            Tier::Cluster,
            Tier::Counters,
        ];
        assert_eq!(wanted(&words("")).unwrap(), every);
        assert_eq!(wanted(&words("kernels")).unwrap(), [Tier::Kernels]);
        assert_eq!(wanted(&words("wire pure")).unwrap(), [Tier::Pure, Tier::Wire]);
        assert!(wanted(&words("wires")).is_err());
    }

    #[test]
    fn a_summary_line_is_read() {
        let line = "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.02s";
        assert_eq!(
            Summary::parse(line),
            Some(Summary {
                passed: 12,
                failed: 0,
                ignored: 1
            })
        );
        let line = "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s";
        assert_eq!(
            Summary::parse(line),
            Some(Summary {
                passed: 2,
                failed: 1,
                ignored: 0
            })
        );
        assert_eq!(Summary::parse("test a::b ... ok"), None);
    }

    #[test]
    fn a_failed_a_skipped_and_a_silent_run_are_all_failures() {
        let good = Summary {
            passed: 3,
            failed: 0,
            ignored: 0,
        };
        assert_eq!(verdict(true, Some(&good)), None);
        assert!(
            verdict(
                false,
                Some(&Summary {
                    passed: 3,
                    failed: 1,
                    ignored: 0
                })
            )
            .is_some()
        );
        assert!(
            verdict(
                true,
                Some(&Summary {
                    passed: 3,
                    failed: 0,
                    ignored: 1
                })
            )
            .is_some()
        );
        assert!(verdict(false, None).is_some());
        assert!(verdict(true, None).is_some());
    }

    #[test]
    fn package_ids_give_names() {
        assert_eq!(
            package_name("path+file:///x/userspace#pierhead@0.1.0", "userspace"),
            "pierhead"
        );
        assert_eq!(package_name("path+file:///x/xtask#0.1.0", "xtask"), "xtask");
    }

    #[test]
    fn tiers_follow_packages() {
        assert_eq!(tier_of("pierhead-kernel", "it", false), Tier::Pure);
        assert_eq!(tier_of("pierhead-kernel", "it", true), Tier::Packets);
        assert_eq!(tier_of("pierhead-wire", "it", true), Tier::Wire);
        assert_eq!(tier_of("pierhead-model", "it", true), Tier::Pure);
        assert_eq!(tier_of("pierhead-controller", "nodes", true), Tier::Pure);
        assert_eq!(tier_of("pierhead-controller", "api_server", true), Tier::Cluster);
        assert_eq!(tier_of("pierhead", "of_cluster", true), Tier::Cluster);
        assert_eq!(tier_of("pierhead", "command_line", true), Tier::Pure);
    }
}
