//! Every verb of the repository, one file each. `cargo xtask` alone lists them.
//!
//! This crate is compiled before anything else on a fresh machine, so it knows nothing of the product's crates
//! and its own dependencies stay few.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool: its output is its interface"
)]

mod bench;
mod build;
mod ci;
mod cluster;
mod codegen;
mod conformance;
mod cpio;
mod dashboard;
mod demo;
mod ebpf;
mod edges;
mod helm;
mod image;
mod kernels;
mod oci;
mod setup;
mod sh;
mod tar;
mod test;
mod tidy;

use std::process::ExitCode;

use anyhow::{Result, bail};

/// A verb: its name, the line that `cargo xtask` prints for it, and what it runs with the words after it.
struct Verb {
    name: &'static str,
    about: &'static str,
    run: fn(&[String]) -> Result<()>,
}

const VERBS: &[Verb] = &[
    Verb {
        name: "setup",
        about: "install what building and testing need, and say so",
        run: setup::run,
    },
    Verb {
        name: "build",
        about: "build the eBPF programs and the `pierhead` binary (release)",
        run: build::run,
    },
    Verb {
        name: "demo",
        about: "show the gate carrying real traffic; `--once` leaves and fails if a line was wrong",
        run: demo::run,
    },
    Verb {
        name: "test",
        about: "checks and tests; or by name: lint pure packets wire cluster counters, and only by name: kernels",
        run: test::run,
    },
    Verb {
        name: "bench",
        about: "run a rig; without a name it lists them; `cluster` is by name, and not in `all`",
        run: bench::run,
    },
    Verb {
        name: "codegen",
        about: "make CRDs and plain YAML in controller/deploy; `--check` only fails when they are stale",
        run: codegen::run,
    },
    Verb {
        name: "cluster",
        about: "a real cluster in network namespaces; without a word it lists what it can do",
        run: cluster::run,
    },
    Verb {
        name: "image",
        about: "make the image of one static program; `--load` puts it into the cluster's nodes",
        run: image::run,
    },
    Verb {
        name: "conformance",
        about: "run the Gateway API's own suite against Pierhead on the cluster",
        run: conformance::run,
    },
    Verb {
        name: "ci",
        about: "exactly what CI runs: the same as `test`",
        run: ci::run,
    },
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(args: &[String]) -> Result<()> {
    let Some((name, rest)) = args.split_first() else {
        print_verbs();
        return Ok(());
    };
    if matches!(name.as_str(), "help" | "--help" | "-h") {
        print_verbs();
        return Ok(());
    }
    match VERBS.iter().find(|verb| verb.name == name) {
        Some(verb) => (verb.run)(rest),
        None => {
            print_verbs();
            bail!("no verb `{name}`")
        }
    }
}

fn print_verbs() {
    println!("cargo xtask <verb>");
    for verb in VERBS {
        println!("  {:<11} {}", verb.name, verb.about);
    }
}
