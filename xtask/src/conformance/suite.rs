//! Runs the suite's program from outside the nodes, in the client's namespace.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result};

use super::Wish;
use super::complaint::Complaints;
use super::outcome::{self, Outcome, Verdict};
use crate::cluster::net;
use crate::cluster::place::Place;
use crate::sh::{self, say};

const PROFILES: &str = "GATEWAY-HTTP,GATEWAY-GRPC,GATEWAY-TLS,GATEWAY-TCP,GATEWAY-UDP";

/// Inside the pool, and far from where it begins to give addresses.
const USABLE: &str = "10.200.0.200";
/// Outside of every pool.
const UNUSABLE: &str = "10.99.99.99";

/// Runs the suite, shows each test as it ends, and keeps all it said in a file.
///
/// # Errors
/// The program cannot be started.
pub(crate) fn run(place: &Place, program: &Path, wish: &Wish, report: &Path) -> Result<Outcome> {
    let said = sh::target_dir()
        .join("conformance")
        .join(format!("{}-ebpf-{}.log", wish.channel.as_str(), wish.ebpf));
    for folder in [report.parent(), said.parent()].into_iter().flatten() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let mut log = File::create(&said).with_context(|| format!("cannot write {}", said.display()))?;
    say(&format!(
        "conformance: everything the suite says is in {}",
        said.display()
    ));
    let mut command = net::enter("client");
    command
        .arg(program)
        .args(words(wish))
        .arg(format!("--report-output={}", report.display()))
        .env("KUBECONFIG", place.kubeconfig("admin"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log.try_clone()?);
    let mut child = command.spawn().context("cannot start the suite")?;
    let output = child.stdout.take().context("a suite without an output")?;
    let mut outcome = Outcome::default();
    let mut complaints = Complaints::default();
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("cannot read what the suite says")?;
        log.write_all(&line)?;
        log.write_all(b"\n")?;
        let line = String::from_utf8_lossy(&line);
        if let Some((test, said)) = complaints.read(&line) {
            println!("  wrong   {test}: {said}");
        }
        if let Some((name, verdict, took)) = outcome::parse(&line) {
            let mark = match verdict {
                Verdict::Passed => "passed",
                Verdict::Failed => "FAILED",
                Verdict::Skipped => "skipped",
            };
            if verdict != Verdict::Skipped {
                println!("  {mark}  {name} ({took})");
            }
            outcome.tests.insert(name.to_owned(), verdict);
        }
    }
    outcome.good = child.wait().context("cannot wait for the suite")?.success();
    if report.exists() {
        // The suite makes it for its owner alone.
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(report, fs::Permissions::from_mode(0o644))?;
        say(&format!("conformance: the suite's report is {}", report.display()));
    }
    Ok(outcome)
}

fn words(wish: &Wish) -> Vec<String> {
    let version = env!("CARGO_PKG_VERSION");
    let mut words: Vec<String> = [
        "-test.run=^TestConformance$",
        "-test.timeout=60m",
        "-test.parallel=16",
        "-test.v",
        "--gateway-class=pierhead",
        "--organization=pierhead",
        "--project=pierhead",
        "--url=https://pierhead.dev",
        "--contact=@pierhead",
    ]
    .map(str::to_owned)
    .into();
    words.push(format!("--conformance-profiles={PROFILES}"));
    words.push(format!("--version=v{version}"));
    words.push(format!("--usable-address={USABLE}"));
    words.push(format!("--unusable-address={UNUSABLE}"));
    words.extend(wish.test.iter().map(|name| format!("--run-test={name}")));
    words.extend(wish.flags.iter().cloned());
    words
}
