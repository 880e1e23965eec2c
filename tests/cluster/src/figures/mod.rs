//! What Pierhead takes on the cluster, with so many HTTPRoutes: time from the API server's word to the first answer, CPU and
//! memory of its processes, what edits do to traffic, how long a controller takes to start. Figures are compared with targets,
//! which they may miss; an answer that is wrong is an error.

mod cold;
mod cost;
mod crowd;
mod edits;
mod first;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::lab::Lab;
use crowd::Crowd;
use report::Report;

/// What can be measured, in the order in which it is.
pub const PARTS: &[&str] = &["first", "cpu", "edits", "memory", "cold"];

/// What to measure.
#[derive(Debug, Clone)]
pub struct Order {
    /// Numbers of routes, in which everything is measured one after the other.
    pub sizes: Vec<usize>,
    /// Of [`PARTS`].
    pub parts: Vec<String>,
    /// How many new routes are waited for.
    pub samples: usize,
    /// How many routes are created and deleted for their CPU.
    pub changes: usize,
    /// How long the load goes on with edits, and again without.
    pub seconds: u64,
    pub edits: usize,
    /// Requests a second.
    pub rate: u32,
    /// A folder for `cluster.json` and `cluster.md`.
    pub out: Option<PathBuf>,
}

impl Default for Order {
    fn default() -> Self {
        Self {
            sizes: vec![100, 1000, 3000],
            parts: PARTS.iter().map(|&part| part.to_owned()).collect(),
            samples: 200,
            changes: 200,
            seconds: 60,
            edits: 200,
            rate: 1000,
            out: None,
        }
    }
}

impl Order {
    fn wants(&self, part: &str) -> bool {
        self.parts.iter().any(|wanted| wanted == part)
    }
}

/// Measures, and says each figure when it is known and all of them at the end; what was wrong with answers.
///
/// # Errors
/// The stage cannot be set, or something that must happen does not.
pub fn run(lab: &Lab, order: &Order, say: fn(&str)) -> Result<Vec<String>> {
    lab.running().context("Pierhead must be installed")?;
    let mut report = Report::new(&order.sizes, say);
    let mut crowd = Crowd::gather(lab)?;
    for &size in &order.sizes {
        crowd.grow(size)?;
        say(&format!("{size} routes are there and answer"));
        one_size(&crowd, order, &mut report).with_context(|| format!("with {size} routes"))?;
    }
    if order.wants("cold") {
        cold::measure(&crowd, &mut report)?;
    }
    crowd.disperse()?;
    say(&format!("\n{}", report.markdown()));
    if let Some(out) = &order.out {
        report.write(out, order)?;
    }
    Ok(report.wrong)
}

fn one_size(crowd: &Crowd<'_>, order: &Order, report: &mut Report) -> Result<()> {
    if order.wants("first") {
        first::measure(crowd, order.samples, report)?;
    }
    if order.wants("cpu") {
        cost::processor(crowd, order.changes, report)?;
    }
    if order.wants("edits") {
        edits::measure(crowd, order, report)?;
    }
    if order.wants("memory") {
        cost::memory(crowd, report)?;
    }
    Ok(())
}

/// The value below which this share of all lies. Sorts.
fn quantile(values: &mut [Duration], share: f64) -> Option<Duration> {
    values.sort_unstable();
    let place = (values.len() as f64 * share) as usize;
    values.get(place.min(values.len().checked_sub(1)?)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let mut values: Vec<Duration> = (1..=200).rev().map(Duration::from_millis).collect();
        assert_eq!(quantile(&mut values, 0.5), Some(Duration::from_millis(101)));
        assert_eq!(quantile(&mut values, 0.99), Some(Duration::from_millis(199)));
        assert_eq!(quantile(&mut values, 1.0), Some(Duration::from_millis(200)));
        assert_eq!(quantile(&mut [], 0.5), None);
    }
}
