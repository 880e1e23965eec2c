//! The rigs: Pierhead beside nginx, HAProxy, Envoy and nftables on the same work, as ratios from one run.
//!
//! Proxies are pinned to core 0; client and backend live in this process on core 1. Candidates are interleaved
//! (A B C A B C …) so that a slow minute of the machine hits all of them. Every answer is checked: a rig that measured a
//! wrong answer fails.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a rig talks to its terminal")]

mod cpu;
mod peers;
mod plan;
mod report;
mod rigs;
mod traffic;

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::plan::Plan;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The chain of causes, without a backtrace.
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    cpu::raise_descriptors()?;
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some((first, rest)) = words.split_first()
        && first == peers::FORWARD
    {
        return peers::forward(rest);
    }
    let plan = Plan::from_args(words.into_iter())?;
    let rigs = rigs::named(&plan.rig)?;
    let known: Vec<_> = rigs.iter().map(|rig| rig.knows).collect();
    for (rig, plan) in rigs.iter().zip(plan.among(&known)?) {
        println!("== {}: {}", rig.name, rig.about);
        let Some(plan) = plan else {
            println!("none of the candidates asked for takes part");
            continue;
        };
        (rig.run)(&plan).with_context(|| format!("rig {}", rig.name))?;
    }
    Ok(())
}
