//! The demo: real traffic through the real binary, told in a short transcript. `cargo xtask demo` builds and runs it.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool: the transcript is its output"
)]

mod acts;
mod stage;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

/// What it is started with.
struct Args {
    pierhead: PathBuf,
    config: PathBuf,
    once: bool,
}

fn main() -> ExitCode {
    match args().and_then(|args| run(&args)) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(wrong) => {
            eprintln!(
                "\n{wrong} of the lines above {}",
                if wrong == 1 { "is wrong" } else { "are wrong" }
            );
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn args() -> Result<Args> {
    let (mut pierhead, mut config, mut once) = (None, None, false);
    let mut words = std::env::args_os().skip(1);
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("--pierhead") => pierhead = words.next(),
            Some("--config") => config = words.next(),
            Some("--once") => once = true,
            _ => bail!("usage: pierhead-demo --pierhead BINARY --config DIR [--once]"),
        }
    }
    Ok(Args {
        pierhead: pierhead.context("--pierhead is missing")?.into(),
        config: config.context("--config is missing")?.into(),
        once,
    })
}

/// Plays every act; how many lines were wrong.
fn run(args: &Args) -> Result<usize> {
    let stage = stage::Stage::set(&args.pierhead, &args.config)?;
    stage.introduce();
    let wrong = acts::play(&stage);
    if !args.once {
        stage.invite();
        wait_for_end()?;
        println!("\nleaving: namespaces and programs are removed");
    }
    stage.leave()?;
    Ok(wrong)
}

/// Until Ctrl-C or SIGTERM.
fn wait_for_end() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            end = tokio::signal::ctrl_c() => end.context("cannot wait for Ctrl-C"),
            _ = terminate.recv() => Ok(()),
        }
    })
}
