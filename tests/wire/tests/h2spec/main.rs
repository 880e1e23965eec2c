//! The standard conformance tests of HTTP/2, by summerwind/h2spec, which asks the gate as a client does, over clear text and TLS.
//! `cargo xtask test wire` builds it from the Go module in `tests/wire/h2spec`.
//!
//! Every case passes, or is one of the exceptions, each with the rule that says why. They are of the times of RFC 7540, which
//! RFC 9113 replaced.

mod report;
mod server;

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use report::{Case, Verdict};

/// A case that is known not to pass, as `section/number`, and why.
type Exception = (&'static str, &'static str);

/// Where the program is.
fn program() -> Result<PathBuf> {
    let program: PathBuf = std::env::var_os("PIERHEAD_H2SPEC")
        .context("PIERHEAD_H2SPEC does not say where h2spec is: `cargo xtask test wire` builds it, and says so")?
        .into();
    ensure!(program.exists(), "there is no {}", program.display());
    Ok(program)
}

/// Fails unless there are `count` cases, of which exactly the exceptions do not pass.
fn judge(cases: &[Case], count: usize, exceptions: &[Exception], said: &str) -> Result<()> {
    let mut wrong: Vec<String> = cases
        .iter()
        .filter_map(|case| {
            let excepted = exceptions.iter().any(|(name, _)| *name == case.name);
            match &case.verdict {
                Verdict::Passed if excepted => Some(format!("{case}: passes, and is excepted")),
                Verdict::Failed(why) if !excepted => Some(format!("{case}: {why}")),
                Verdict::Skipped if !excepted => Some(format!("{case}: skipped")),
                Verdict::Passed | Verdict::Failed(_) | Verdict::Skipped => None,
            }
        })
        .collect();
    let strangers = exceptions
        .iter()
        .filter(|(name, _)| cases.iter().all(|case| case.name != *name));
    wrong.extend(strangers.map(|(name, _)| format!("{name}: excepted, and not there")));
    if cases.len() != count {
        wrong.push(format!("{} cases instead of {count}", cases.len()));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    bail!("{}\n\n{said}", wrong.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(name: &str, verdict: Verdict) -> Case {
        Case {
            name: name.to_owned(),
            about: String::new(),
            verdict,
        }
    }

    #[test]
    fn only_exceptions_may_fail_and_they_must() {
        let cases = [
            case("a/1/1", Verdict::Passed),
            case("a/1/2", Verdict::Failed("why".to_owned())),
            case("a/2/1", Verdict::Skipped),
        ];
        let judged = |count, exceptions: &[Exception]| judge(&cases, count, exceptions, "").map_err(|e| e.to_string());
        assert_eq!(judged(3, &[("a/1/2", ""), ("a/2/1", "")]), Ok(()));
        for (count, exceptions, wrong) in [
            (3, &[("a/2/1", "")][..], "a/1/2"),
            (3, &[("a/1/2", "")], "a/2/1"),
            (3, &[("a/1/1", ""), ("a/1/2", ""), ("a/2/1", "")], "a/1/1"),
            (3, &[("a/1/2", ""), ("a/2/1", ""), ("b/1/1", "")], "b/1/1"),
            (4, &[("a/1/2", ""), ("a/2/1", "")], "3 cases"),
        ] {
            assert!(
                judged(count, exceptions).is_err_and(|said| said.contains(wrong)),
                "{wrong}"
            );
        }
    }
}
