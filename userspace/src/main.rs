//! The one binary, `pierhead`: command line, wiring, the node process.
//!
//! The only room that knows both the control plane and the data plane. It decides nothing about configuration and
//! nothing about traffic.

mod admin;
mod check;
mod claim;
mod cli;
mod control;
mod controller;
mod daemon;
mod feed;
mod heap;
mod keep;
mod life;
mod log;
mod machine;
mod metrics;
mod node;
mod picture;
mod shared;
mod standalone;
mod state;
mod status;
mod steering;
mod supervise;
mod uninstall;
mod uplink;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Verb};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match &cli.verb {
        // Before there are threads, a log, or anything else that takes memory: this process stays so.
        verb if verb.is_to_be_supervised() => supervise::run(|| log::start(&cli.log, cli.log_format)),
        Verb::Standalone(options) => {
            log::start(&cli.log, cli.log_format);
            standalone::run(options)
        }
        Verb::Node(options) => {
            log::start(&cli.log, cli.log_format);
            daemon::run(options)
        }
        Verb::Controller(options) => {
            log::start(&cli.log, cli.log_format);
            controller::run(options)
        }
        Verb::Check(options) => check::run(options),
        Verb::Status(options) => status::run(options),
        Verb::Uninstall => uninstall::run(),
        Verb::Version => say(&format!("pierhead {}\n", env!("CARGO_PKG_VERSION"))).map(|()| ExitCode::SUCCESS),
    };
    outcome.unwrap_or_else(|error| {
        // One line: what is wrong, and the fix where there is one.
        let line = format!("pierhead: {error:#}\n");
        // Nobody left to tell when standard error is closed.
        let _ = io::stderr().write_all(line.as_bytes());
        cli::UNUSABLE.into()
    })
}

/// Writes the answer of a command to standard output. A reader that left early (`| head`) is no fault.
fn say(text: &str) -> anyhow::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}
