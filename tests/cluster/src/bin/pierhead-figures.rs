//! `pierhead-figures [FLAGS]`: what Pierhead takes on the running cluster, beside the targets.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool: its output is its interface"
)]

use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use pierhead_cluster::figures::{self, Order, PARTS};
use pierhead_cluster::lab::Lab;

const HELP: &str = "\
  --routes 100,1000,3000   with how many routes, one after the other
  --only first,cpu         some of: first cpu edits memory cold
  --samples 200            new routes whose first answer is waited for
  --changes 200            routes created and deleted for their CPU
  --seconds 60             how long there is load with edits, and as long without
  --edits 200              in that time
  --rate 1000              requests a second
  --out FOLDER             for cluster.json and cluster.md";

fn main() -> ExitCode {
    match run() {
        Ok(wrong) if wrong.is_empty() => ExitCode::SUCCESS,
        Ok(wrong) => {
            eprintln!("{} answers were wrong:\n  {}", wrong.len(), wrong.join("\n  "));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<Vec<String>> {
    if std::env::args().any(|word| matches!(word.as_str(), "--help" | "-h")) {
        println!("{HELP}");
        return Ok(Vec::new());
    }
    let order = ordered(std::env::args().skip(1))?;
    figures::run(&Lab::here()?, &order, |line| println!("{line}"))
}

fn ordered(mut words: impl Iterator<Item = String>) -> Result<Order> {
    let mut order = Order::default();
    while let Some(flag) = words.next() {
        let value = words.next().with_context(|| format!("{flag} needs a value\n{HELP}"))?;
        let parts = || value.split(',').map(str::to_owned);
        match flag.as_str() {
            "--routes" => order.sizes = parts().map(|size| size.parse()).collect::<Result<_, _>>()?,
            "--only" => order.parts = parts().collect(),
            "--samples" => order.samples = value.parse()?,
            "--changes" => order.changes = value.parse()?,
            "--seconds" => order.seconds = value.parse()?,
            "--edits" => order.edits = value.parse()?,
            "--rate" => order.rate = value.parse()?,
            "--out" => order.out = Some(value.into()),
            _ => bail!("no flag {flag}\n{HELP}"),
        }
    }
    if let Some(unknown) = order.parts.iter().find(|part| !PARTS.contains(&part.as_str())) {
        bail!("nothing called `{unknown}` is measured\n{HELP}");
    }
    ensure!(
        order.sizes.is_sorted() && order.samples > 0 && order.changes > 0 && order.seconds > 0 && order.edits > 0,
        "sizes grow, and nothing is zero\n{HELP}"
    );
    Ok(order)
}
