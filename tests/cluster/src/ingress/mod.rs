//! The Ingress suite: cases in tables, and what runs them.
//!
//! A table is a YAML file in `tests/cluster/ingress`; `tests/cluster/ingress/README.md` says how to read one.

pub mod backends;
mod check;
mod expand;
mod run;
pub mod table;

pub use run::{Outcome, run};
