//! Which tests of the suite count: those of the five gateway profiles. The suite's program lists them itself.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::cluster::api::Channel;
use crate::sh;

/// The tests that must pass, each with the profiles in whose report it counts.
pub(crate) type Expected = BTreeMap<String, Vec<String>>;

/// # Errors
/// The program does not list its tests, or lists none of the name.
pub(crate) fn expected(program: &Path, channel: Channel, only: Option<&str>) -> Result<Expected> {
    let text = sh::output(Command::new(program).args(["-test.run", "^TestInventory$"]))?;
    let mut tests = parse(&text, channel)?;
    if let Some(name) = only {
        tests.retain(|test, _| test == name);
    }
    if tests.is_empty() {
        bail!(
            "no test of the gateway profiles with {} CRDs is called {}",
            channel.as_str(),
            only.unwrap_or("anything")
        );
    }
    Ok(tests)
}

fn parse(text: &str, channel: Channel) -> Result<Expected> {
    let mut tests = Expected::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("inventory ")) {
        let entry: Value = serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))?;
        let name = entry["name"].as_str().context("a test without a name")?;
        let profiles: Vec<String> = entry["profiles"]
            .as_array()
            .context("a test without profiles")?
            .iter()
            .filter_map(|profile| Some(profile.as_str()?.to_owned()))
            .collect();
        let has_crds = channel == Channel::Experimental || entry["experimental"] == Value::Bool(false);
        if has_crds && !profiles.is_empty() {
            tests.insert(name.to_owned(), profiles);
        }
    }
    Ok(tests)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = "\
=== RUN   TestInventory
inventory {\"name\":\"A\",\"features\":[\"Gateway\"],\"profiles\":[\"GATEWAY-HTTP\",\"GATEWAY-TLS\"],\"experimental\":false}
inventory {\"name\":\"B\",\"features\":[\"X\"],\"profiles\":[\"GATEWAY-TCP\"],\"experimental\":true}
inventory {\"name\":\"M\",\"features\":[\"Mesh\"],\"profiles\":[],\"experimental\":false}
PASS
";

    #[test]
    fn tests_of_no_gateway_profile_do_not_count() {
        let tests = parse(LINES, Channel::Experimental).unwrap();
        assert_eq!(tests.keys().collect::<Vec<_>>(), ["A", "B"]);
        assert_eq!(tests["A"], ["GATEWAY-HTTP", "GATEWAY-TLS"]);
    }

    #[test]
    fn standard_crds_have_no_experimental_feature() {
        let tests = parse(LINES, Channel::Standard).unwrap();
        assert_eq!(tests.keys().collect::<Vec<_>>(), ["A"]);
    }
}
