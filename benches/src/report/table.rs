//! A scenario as a table that is read on a terminal and in Markdown alike.

use std::fmt::Write as _;

use super::{Scenario, Spread};

pub(super) fn markdown(scenario: &Scenario) -> String {
    let columns: Vec<&str> = scenario
        .rows
        .iter()
        .flat_map(|(_, samples)| samples.first())
        .max_by_key(|sample| sample.0.len())
        .map(|sample| sample.0.iter().map(|(name, _)| *name).collect())
        .unwrap_or_default();
    let mut text = format!(
        "| {} | {}/{} |",
        scenario.title,
        columns.first().unwrap_or(&""),
        scenario.unit
    );
    for column in columns.iter().skip(1) {
        let _ = write!(text, " {column} |");
    }
    text.push_str(" pierhead ÷ it: median (min–max) |\n|---|");
    text.push_str(&"---|".repeat(columns.len() + 1));
    text.push('\n');
    for (name, samples) in &scenario.rows {
        let _ = write!(text, "| {name} |");
        for column in &columns {
            let values = samples.iter().filter_map(|sample| sample.value(column));
            let cell = Spread::of(values).map_or_else(String::new, |spread| number(spread.median));
            let _ = write!(text, " {cell} |");
        }
        let ratio = scenario.ratio(name).map_or_else(String::new, |ratio| {
            format!("{:.2} ({:.2}–{:.2})", ratio.median, ratio.min, ratio.max)
        });
        let _ = writeln!(text, " {ratio} |");
    }
    text
}

/// Three digits that matter.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || value == value.trunc() && size >= 10.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
