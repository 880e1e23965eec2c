//! The Ingress suite on the running cluster: every case of every table, a line each. Words choose cases by name.
#![allow(clippy::print_stdout, reason = "it says what libtest would say")]

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use pierhead_cluster::ingress::{self, Outcome, table};
use pierhead_cluster::lab::Lab;

fn main() -> Result<ExitCode> {
    let started = Instant::now();
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("ingress");
    let mut cases = table::read(&folder)?;
    cases.retain(|case| words.is_empty() || words.iter().any(|word| case.name.contains(word.as_str())));
    println!("\nrunning {} tests", cases.len());
    let lab = Lab::here()?;
    lab.running()?;
    let outcomes = ingress::run(&lab, &cases)?;
    let failed: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.failure.is_some()).collect();
    for outcome in &outcomes {
        let verdict = if outcome.failure.is_none() { "ok" } else { "FAILED" };
        println!("test {} ... {verdict}", outcome.name);
    }
    for outcome in &failed {
        println!(
            "\n---- {} ----\n{}",
            outcome.name,
            outcome.failure.as_deref().unwrap_or_default()
        );
    }
    println!(
        "\ntest result: {}. {} passed; {} failed; 0 ignored; 0 measured; 0 filtered out; finished in {:.2}s\n",
        if failed.is_empty() { "ok" } else { "FAILED" },
        outcomes.len() - failed.len(),
        failed.len(),
        started.elapsed().as_secs_f64()
    );
    Ok(if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
