//! Figures beside their targets: a table for people, JSON with every sample.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::Order;

pub(super) struct Report {
    /// Where people read how it goes.
    say: fn(&str),
    sizes: Vec<usize>,
    rows: Vec<Row>,
    samples: BTreeMap<usize, BTreeMap<&'static str, Vec<f64>>>,
    /// Answers that should not have been.
    pub(super) wrong: Vec<String>,
}

struct Row {
    name: &'static str,
    unit: &'static str,
    /// Met by this and everything below.
    target: Option<f64>,
    by_size: BTreeMap<usize, f64>,
}

impl Report {
    pub(super) fn new(sizes: &[usize], say: fn(&str)) -> Self {
        Self {
            say,
            sizes: sizes.to_vec(),
            rows: Vec::new(),
            samples: BTreeMap::new(),
            wrong: Vec::new(),
        }
    }

    /// Takes a figure down, and says it.
    pub(super) fn add(&mut self, size: usize, name: &'static str, unit: &'static str, target: Option<f64>, value: f64) {
        let at = self.rows.iter().position(|row| row.name == name).unwrap_or_else(|| {
            self.rows.push(Row {
                name,
                unit,
                target,
                by_size: BTreeMap::new(),
            });
            self.rows.len() - 1
        });
        let row = &mut self.rows[at];
        row.by_size.insert(size, value);
        (self.say)(&format!("  {name}: {}", row.cell(size)));
    }

    /// Keeps all values behind a figure.
    pub(super) fn sample(&mut self, size: usize, name: &'static str, values: &[Duration]) {
        let values = values.iter().map(|value| value.as_secs_f64() * 1e3).collect();
        self.samples.entry(size).or_default().insert(name, values);
    }

    pub(super) fn markdown(&self) -> String {
        let mut text = "| | Target |".to_owned();
        for size in &self.sizes {
            let _ = write!(text, " {size} routes |");
        }
        text.push_str("\n|---|---|");
        text.push_str(&"---|".repeat(self.sizes.len()));
        text.push('\n');
        for row in &self.rows {
            let target = row
                .target
                .map_or_else(|| "–".to_owned(), |target| format!("≤ {}", with_unit(target, row.unit)));
            let _ = write!(text, "| {} | {target} |", row.name);
            for size in &self.sizes {
                let _ = write!(text, " {} |", row.cell(*size));
            }
            text.push('\n');
        }
        text
    }

    /// Writes `cluster.json` and `cluster.md`.
    pub(super) fn write(&self, folder: &Path, order: &Order) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let rows: Vec<Value> = self.rows.iter().map(Row::json).collect();
        let json = json!({
            "rig": "cluster", "machine": pierhead_wire::machine::describe(),
            "samples": order.samples, "changes": order.changes, "seconds": order.seconds, "edits": order.edits,
            "rate": order.rate, "figures": rows, "milliseconds": self.samples, "wrong": self.wrong,
        });
        fs::write(folder.join("cluster.json"), serde_json::to_string_pretty(&json)? + "\n")?;
        let wrong: String = self.wrong.iter().map(|line| format!("- wrong: {line}\n")).collect();
        fs::write(
            folder.join("cluster.md"),
            format!("# On the cluster\n\n{}{wrong}", self.markdown()),
        )?;
        Ok(())
    }
}

impl Row {
    fn cell(&self, size: usize) -> String {
        let Some(value) = self.by_size.get(&size) else {
            return String::new();
        };
        let shown = with_unit(*value, self.unit);
        match self.target {
            Some(target) if *value <= target => format!("{shown}: met"),
            Some(_) => format!("{shown}: **missed**"),
            None => shown,
        }
    }

    fn json(&self) -> Value {
        json!({"name": self.name, "unit": self.unit, "target": self.target, "by_routes": self.by_size})
    }
}

fn with_unit(value: f64, unit: &str) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 || value == value.trunc() => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.digits$} {unit}").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_says_what_was_met_and_what_was_missed() {
        let mut report = Report::new(&[100, 3000], |_| ());
        report.add(100, "p50", "ms", Some(15.0), 12.34);
        report.add(3000, "p50", "ms", Some(15.0), 15.01);
        report.add(3000, "failed", "", Some(0.0), 0.0);
        let text = report.markdown();
        assert!(
            text.contains("| | Target | 100 routes | 3000 routes |\n|---|---|---|---|\n"),
            "{text}"
        );
        assert!(
            text.contains("| p50 | ≤ 15 ms | 12.3 ms: met | 15.0 ms: **missed** |"),
            "{text}"
        );
        assert!(text.contains("| failed | ≤ 0 |  | 0: met |"), "{text}");
    }
}
