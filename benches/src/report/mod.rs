//! What was measured: a book per rig, a scenario per table, a sample per candidate and round. Shown as tables, kept as JSON
//! and as a picture.

mod machine;
mod plot;
mod table;

use std::{fs, time::Duration};

use anyhow::Result;
use serde_json::{Map, Value, json};

use crate::{cpu, peers::Peer, plan::Plan, traffic::Yield};

/// Whose ratio to the others is shown.
const OURS: &str = "pierhead";

/// Values of one candidate in one round, by name; the first is the one that is compared, and less of it is better.
#[derive(Clone, Debug)]
pub(crate) struct Sample(pub(crate) Vec<(&'static str, f64)>);

impl Sample {
    /// Of a run that answered: CPU per answer, rate, latencies, memory.
    pub(crate) fn of(gave: &Yield, spent: Duration, time: Duration, peer: &Peer) -> Result<Self> {
        let mut values = vec![
            ("CPU-µs", spent.as_secs_f64() * 1e6 / gave.count as f64),
            ("per s", gave.count as f64 / time.as_secs_f64()),
        ];
        values.extend(latencies(gave));
        values.push(("MB", cpu::resident(peer.pid())? as f64 / 1e6));
        Ok(Self(values))
    }

    fn value(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(found, _)| *found == name).map(|(_, value)| *value)
    }

    fn primary(&self) -> f64 {
        self.0.first().map_or(f64::NAN, |(_, value)| *value)
    }
}

/// p50, p99 and p99.9 in microseconds.
pub(crate) fn latencies(gave: &Yield) -> Vec<(&'static str, f64)> {
    [("p50 µs", 0.5), ("p99 µs", 0.99), ("p99.9 µs", 0.999)]
        .into_iter()
        .filter_map(|(name, share)| Some((name, gave.quantile(share)?.as_secs_f64() * 1e6)))
        .collect()
}

/// One table: the same work through every candidate.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    title: String,
    /// What the first value is per.
    unit: &'static str,
    /// In the order in which candidates came.
    rows: Vec<(String, Vec<Sample>)>,
}

impl Scenario {
    pub(crate) fn new(title: &str, unit: &'static str) -> Self {
        Self {
            title: title.to_owned(),
            unit,
            rows: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, candidate: &str, sample: Sample) {
        match self.rows.iter_mut().find(|(name, _)| name == candidate) {
            Some((_, samples)) => samples.push(sample),
            None => self.rows.push((candidate.to_owned(), vec![sample])),
        }
    }

    /// (median, min, max) of our first value ÷ the peer's, round by round.
    fn ratio(&self, peer: &str) -> Option<Spread> {
        let of = |name: &str| {
            self.rows
                .iter()
                .find(|(found, _)| found == name)
                .map(|(_, samples)| samples)
        };
        let ours = of(OURS).filter(|_| peer != OURS)?;
        let ratios = ours.iter().zip(of(peer)?).map(|(a, b)| a.primary() / b.primary());
        Spread::of(ratios).filter(|spread| spread.max.is_finite())
    }

    fn json(&self) -> Value {
        let rows: Map<_, _> = self
            .rows
            .iter()
            .map(|(name, samples)| {
                let samples: Vec<Value> = samples
                    .iter()
                    .map(|Sample(values)| {
                        values
                            .iter()
                            .map(|(name, value)| ((*name).to_owned(), json!(value)))
                            .collect()
                    })
                    .collect();
                (name.clone(), json!(samples))
            })
            .collect();
        json!({"title": self.title, "per": self.unit, "rounds": rows})
    }
}

/// Median, least and most.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    /// `None` of nothing.
    fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<_> = values.collect();
        values.sort_by(f64::total_cmp);
        Some(Self {
            median: *values.get(values.len() / 2)?,
            min: *values.first()?,
            max: *values.last()?,
        })
    }
}

/// All of one rig.
#[derive(Debug)]
pub(crate) struct Book {
    rig: &'static str,
    title: &'static str,
    scenarios: Vec<Scenario>,
    notes: Vec<String>,
}

impl Book {
    pub(crate) fn new(rig: &'static str, title: &'static str) -> Self {
        Self {
            rig,
            title,
            scenarios: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Shows a scenario at once and keeps it.
    pub(crate) fn add(&mut self, scenario: Scenario) {
        println!("\n{}", table::markdown(&scenario));
        self.scenarios.push(scenario);
    }

    /// A line that is no table.
    pub(crate) fn note(&mut self, line: String) {
        println!("{line}");
        self.notes.push(line);
    }

    /// Writes `<rig>.json`, `<rig>.md` and `<rig>.svg` where the plan says.
    pub(crate) fn write(&self, plan: &Plan) -> Result<()> {
        let Some(folder) = &plan.out else { return Ok(()) };
        fs::create_dir_all(folder)?;
        let file = |ending: &str| folder.join(format!("{}.{ending}", self.rig));
        let machine = machine::describe(&plan.envoy);
        let json = json!({
            "rig": self.rig, "title": self.title, "machine": machine, "rounds": plan.rounds,
            "seconds": plan.seconds.as_secs_f64(),
            "scenarios": self.scenarios.iter().map(Scenario::json).collect::<Vec<_>>(), "notes": self.notes,
        });
        fs::write(file("json"), serde_json::to_string_pretty(&json)? + "\n")?;
        let mut text = format!("# {}\n\n", self.title);
        for scenario in &self.scenarios {
            text.push_str(&table::markdown(scenario));
            text.push('\n');
        }
        for note in &self.notes {
            text.push_str(note);
            text.push('\n');
        }
        fs::write(file("md"), text)?;
        if !self.scenarios.is_empty() {
            fs::write(file("svg"), plot::bars(self.title, &self.scenarios))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario() -> Scenario {
        let mut scenario = Scenario::new("GET", "request");
        for (name, values) in [("pierhead", [1.0, 2.0, 3.0]), ("nginx", [2.0, 8.0, 4.0])] {
            for value in values {
                scenario.add(name, Sample(vec![("CPU-µs", value), ("per s", 10.0)]));
            }
        }
        scenario
    }

    #[test]
    fn ratios_are_of_rounds_not_of_medians() {
        let ratio = scenario().ratio("nginx").unwrap();
        assert_eq!((ratio.min, ratio.median, ratio.max), (0.25, 0.5, 0.75));
        assert_eq!(scenario().ratio("pierhead"), None);
        assert_eq!(scenario().ratio("envoy"), None);
    }

    #[test]
    fn a_table_and_a_picture_show_every_candidate() {
        let text = table::markdown(&scenario());
        assert!(text.contains("| nginx | 4.00 | 10 | 0.50 (0.25–0.75) |"), "{text}");
        let picture = plot::bars("HTTP", &[scenario()]);
        assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
        assert!(picture.contains("nginx") && picture.contains("pierhead"));
    }
}
