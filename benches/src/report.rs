//! Ratios with their spread, as a table and as JSON.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use anyhow::Result;
use serde_json::json;

/// One candidate in one round.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) cpu_per_request: f64,
    pub(crate) requests_per_second: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) resident: u64,
}

/// Samples by candidate, in the order of rounds.
pub(crate) type Samples = BTreeMap<String, Vec<Sample>>;

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Prints one scenario. The ratio is CPU per request of `pierhead` ÷ the peer's, per round: median (min–max).
pub(crate) fn print(title: &str, samples: &Samples) {
    println!("\n{title}");
    println!(
        "{:>10} {:>12} {:>10} {:>9} {:>9} {:>9}  pierhead ÷ it: median (min–max)",
        "", "CPU-µs/req", "req/s", "p50 µs", "p99 µs", "MB"
    );
    for (name, rounds) in samples {
        let ratio =
            ratios(samples, name).map_or_else(String::new, |(m, low, high)| format!("{m:.2} ({low:.2}–{high:.2})"));
        println!(
            "{name:>10} {:>12.2} {:>10.0} {:>9.0} {:>9.0} {:>9.1}  {ratio}",
            median(rounds.iter().map(|s| s.cpu_per_request)),
            median(rounds.iter().map(|s| s.requests_per_second)),
            median(rounds.iter().map(|s| s.p50.as_secs_f64() * 1e6)),
            median(rounds.iter().map(|s| s.p99.as_secs_f64() * 1e6)),
            median(rounds.iter().map(|s| s.resident as f64 / 1e6)),
        );
    }
}

/// (median, min, max) of pierhead's CPU per request ÷ the peer's, round by round.
fn ratios(samples: &Samples, peer: &str) -> Option<(f64, f64, f64)> {
    let ours = samples.get("pierhead").filter(|_| peer != "pierhead")?;
    let ratios: Vec<_> = ours
        .iter()
        .zip(samples.get(peer)?)
        .map(|(a, b)| a.cpu_per_request / b.cpu_per_request)
        .collect();
    let fold = |f: fn(f64, f64) -> f64| ratios.iter().copied().reduce(f);
    Some((median(ratios.iter().copied()), fold(f64::min)?, fold(f64::max)?))
}

/// Writes all scenarios as JSON.
pub(crate) fn write(path: &Path, scenarios: &BTreeMap<String, Samples>) -> Result<()> {
    let value: BTreeMap<_, _> = scenarios
        .iter()
        .map(|(title, samples)| {
            let peers: BTreeMap<_, Vec<_>> = samples
                .iter()
                .map(|(name, rounds)| {
                    let rounds = rounds
                        .iter()
                        .map(|s| {
                            json!({"cpu_us_per_request": s.cpu_per_request, "requests_per_second": s.requests_per_second,
                                "p50_us": s.p50.as_secs_f64() * 1e6, "p99_us": s.p99.as_secs_f64() * 1e6, "resident_bytes": s.resident})
                        })
                        .collect();
                    (name, rounds)
                })
                .collect();
            (title, peers)
        })
        .collect();
    Ok(fs::write(path, serde_json::to_vec_pretty(&value)?)?)
}
