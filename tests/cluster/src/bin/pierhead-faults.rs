//! `pierhead-faults [NAME…]`: faults under constant load in the running cluster, and what each cost.
#![allow(clippy::print_stdout, reason = "a command line tool: its output is its interface")]

use anyhow::{Result, bail};
use pierhead_cluster::faults::{self, FAULTS, Fault};
use pierhead_cluster::lab::Lab;

fn main() -> Result<()> {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let wanted = wanted(&names)?;
    let lab = Lab::here()?;
    let mut too_much = Vec::new();
    for fault in wanted {
        println!("{}: {}", fault.name, fault.about);
        match faults::run(&lab, fault) {
            Ok(cost) => {
                println!("  {}", cost.tally);
                too_much.extend(cost.too_much.map(|why| format!("{}: {why}", fault.name)));
            }
            Err(error) => {
                println!("  {error:#}");
                too_much.push(format!("{}: {error:#}", fault.name));
            }
        }
    }
    if too_much.is_empty() {
        return Ok(());
    }
    bail!("{} cost too much:\n  {}", too_much.len(), too_much.join("\n  "))
}

fn wanted(names: &[String]) -> Result<Vec<&'static Fault>> {
    if names.is_empty() {
        return Ok(FAULTS.iter().collect());
    }
    names
        .iter()
        .map(|name| match FAULTS.iter().find(|fault| fault.name == name) {
            Some(fault) => Ok(fault),
            None => {
                let known: Vec<_> = FAULTS.iter().map(|fault| fault.name).collect();
                bail!("no fault `{name}`: there are {}", known.join(", "))
            }
        })
        .collect()
}
