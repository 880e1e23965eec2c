//! The rigs: Pierhead beside nginx, HAProxy and Envoy on the same work, as ratios from one run.
//!
//! `pierhead-benches http [--rounds N] [--seconds S] [--peers a,b] [--json FILE]`. Proxies are pinned to core 0; client and
//! backend live in this process on core 1. Candidates are interleaved (A B C A B C …) so that a slow minute of the
//! machine hits all of them. Every answer is checked: a rig that measured a wrong answer fails.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a rig talks to its terminal")]

mod backend;
mod cpu;
mod http;
mod load;
mod peers;
mod report;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, bail};

/// How long and how often.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    pub(crate) seconds: Duration,
    pub(crate) peers: Vec<String>,
    pub(crate) json: Option<PathBuf>,
}

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
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_else(|| "http".to_owned());
    let mut plan = Plan {
        rounds: 5,
        seconds: Duration::from_secs(3),
        peers: Vec::new(),
        json: None,
    };
    while let Some(flag) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{flag} needs a value"));
        match flag.as_str() {
            "--rounds" => plan.rounds = value()?.parse()?,
            "--seconds" => plan.seconds = Duration::from_secs_f64(value()?.parse()?),
            "--peers" => plan.peers = value()?.split(',').map(str::to_owned).collect(),
            "--json" => plan.json = Some(value()?.into()),
            other => bail!("unknown flag {other}; known: --rounds --seconds --peers --json"),
        }
    }
    match what.as_str() {
        "http" => http::run(&plan),
        other => bail!("unknown rig {other}; known: http"),
    }
}
