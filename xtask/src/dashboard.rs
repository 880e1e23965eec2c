//! The Grafana dashboard shows only metrics that exist: every name it holds is one that a source file of `userspace/` holds.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::sh;

const DASHBOARD: &str = "controller/deploy/chart/dashboard.json";

/// Names of metrics begin so.
const PREFIX: &str = "pierhead_";

/// What a histogram's series add to its name.
const SERIES: &[&str] = &["_bucket", "_sum", "_count"];

/// # Errors
/// The dashboard names a metric that nobody writes.
pub(crate) fn check() -> Result<()> {
    let root = sh::root();
    let dashboard = fs::read_to_string(root.join(DASHBOARD)).with_context(|| format!("cannot read {DASHBOARD}"))?;
    let mut sources = String::new();
    gather(&root.join("userspace"), &mut sources)?;
    let unknown = unknown(&dashboard, &sources);
    if unknown.is_empty() {
        sh::say("dashboard: every metric exists");
        return Ok(());
    }
    bail!("{DASHBOARD}: nobody writes {}", unknown.join(", "))
}

fn gather(folder: &Path, text: &mut String) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            gather(&path, text)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(&path)?);
        }
    }
    Ok(())
}

/// Metrics that the dashboard names and no string of the sources is.
fn unknown(dashboard: &str, sources: &str) -> Vec<String> {
    let exists = |name: &str| sources.contains(&format!("\"{name}\""));
    names(dashboard)
        .into_iter()
        .filter(|name| {
            let series = SERIES.iter().filter_map(|suffix| name.strip_suffix(suffix));
            !std::iter::once(*name).chain(series).any(exists)
        })
        .map(str::to_owned)
        .collect()
}

fn names(text: &str) -> BTreeSet<&str> {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    text.match_indices(PREFIX)
        .map(|(start, _)| {
            let rest = &text[start..];
            rest.split(|c| !is_part(c)).next().unwrap_or(rest)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_that_nobody_writes_is_told() {
        let sources = "one(\"pierhead_a_total\"); histogram(\"pierhead_b_seconds\")";
        assert!(
            unknown(
                "rate(pierhead_a_total[1m]) / pierhead_b_seconds_bucket{le=\"1\"}",
                sources
            )
            .is_empty()
        );
        assert_eq!(
            unknown("pierhead_c + pierhead_a", sources),
            ["pierhead_a", "pierhead_c"]
        );
    }
}
