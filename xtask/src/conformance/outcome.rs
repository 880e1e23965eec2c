//! What became of each test, read from what `go test -v` prints, and whether that is good enough.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};

use super::inventory::Expected;
use crate::sh::say;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    Failed,
    Skipped,
}

/// A finished run.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) tests: BTreeMap<String, Verdict>,
    /// Whether the program itself called the run good.
    pub(crate) good: bool,
}

/// A line that ends a test of the suite: its name, its verdict and how long it took. Parts of tests are not told.
pub(crate) fn parse(line: &str) -> Option<(&str, Verdict, &str)> {
    let (word, rest) = line.trim_start().strip_prefix("--- ")?.split_once(": ")?;
    let verdict = match word {
        "PASS" => Verdict::Passed,
        "FAIL" => Verdict::Failed,
        "SKIP" => Verdict::Skipped,
        _ => return None,
    };
    let (name, took) = rest.strip_prefix("TestConformance/")?.split_once(' ')?;
    let took = took.trim_start_matches('(').trim_end_matches(')');
    (!name.contains('/')).then_some((name, verdict, took))
}

/// Prints the summary.
///
/// # Errors
/// A test that counts failed, was skipped or did not run; or the program failed otherwise.
pub(crate) fn judge(outcome: &Outcome, expected: &Expected) -> Result<()> {
    let mut wrong = Vec::new();
    for (what, of) in [
        ("failed", Some(Verdict::Failed)),
        ("skipped", Some(Verdict::Skipped)),
        ("did not run", None),
    ] {
        let names: Vec<&str> = expected
            .keys()
            .filter(|name| outcome.tests.get(*name).copied() == of)
            .map(String::as_str)
            .collect();
        if !names.is_empty() {
            say(&format!("conformance: {what}: {}", names.join(" ")));
            wrong.push(format!("{} {what}", names.len()));
        }
    }
    let passed: Vec<&Vec<String>> = expected
        .iter()
        .filter(|(name, _)| outcome.tests.get(*name) == Some(&Verdict::Passed))
        .map(|(_, profiles)| profiles)
        .collect();
    let results: usize = passed.iter().map(|profiles| profiles.len()).sum();
    let all_results: usize = expected.values().map(Vec::len).sum();
    say(&format!(
        "conformance: {} of {} tests passed: {results} of {all_results} results",
        passed.len(),
        expected.len()
    ));
    for profile in expected.values().flatten().collect::<BTreeSet<_>>() {
        let of = |profiles: &&Vec<String>| profiles.contains(profile);
        say(&format!(
            "conformance:   {profile:<14} {} of {}",
            passed.iter().copied().filter(of).count(),
            expected.values().filter(of).count()
        ));
    }
    if wrong.is_empty() && !outcome.good {
        wrong.push("the suite's program failed outside of its tests".to_owned());
    }
    if !wrong.is_empty() {
        bail!("not conformant: {}", wrong.join(", "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_tests_are_read() {
        assert_eq!(
            parse("    --- PASS: TestConformance/GatewayA (0.31s)"),
            Some(("GatewayA", Verdict::Passed, "0.31s"))
        );
        assert_eq!(
            parse("    --- SKIP: TestConformance/MeshB (0.00s)").map(|it| it.1),
            Some(Verdict::Skipped)
        );
        assert_eq!(
            parse("        --- FAIL: TestConformance/GatewayA/part_one (0.10s)"),
            None
        );
        assert_eq!(parse("--- FAIL: TestConformance (61.0s)"), None);
        assert_eq!(parse("    === RUN   TestConformance/GatewayA"), None);
    }

    fn judged(tests: &[(&str, Verdict)], good: bool) -> Result<()> {
        let outcome = Outcome {
            tests: tests
                .iter()
                .map(|&(name, verdict)| (name.to_owned(), verdict))
                .collect(),
            good,
        };
        let expected = ["A", "B"]
            .map(|name| (name.to_owned(), vec!["GATEWAY-HTTP".to_owned()]))
            .into();
        judge(&outcome, &expected)
    }

    #[test]
    fn everything_that_counts_must_pass() {
        let both = [("A", Verdict::Passed), ("B", Verdict::Passed)];
        assert!(judged(&both, true).is_ok());
        assert!(judged(&both, false).is_err());
        for verdict in [Verdict::Failed, Verdict::Skipped] {
            assert!(judged(&[("A", Verdict::Passed), ("B", verdict)], true).is_err());
        }
        assert!(judged(&[("A", Verdict::Passed)], true).is_err());
        let other = [
            ("A", Verdict::Passed),
            ("B", Verdict::Passed),
            ("MeshC", Verdict::Skipped),
        ];
        assert!(judged(&other, true).is_ok());
    }
}
