//! What h2spec says about each case.

use std::fmt;

/// A case and what came of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Case {
    /// `section/number`, as h2spec takes it to run this one alone.
    pub(crate) name: String,
    pub(crate) about: String,
    pub(crate) verdict: Verdict,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    /// What was expected, and what came.
    Failed(String),
    Skipped,
}

impl fmt::Display for Case {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.name, self.about)
    }
}

/// The cases of a JUnit report by h2spec. It is no XML at the reasons of failures, which stand there as they are: so this looks
/// for the elements that it writes, and nothing else.
pub(crate) fn of_junit(report: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for rest in report.split("<testcase ").skip(1) {
        let (head, rest) = rest.split_once('>').unwrap_or((rest, ""));
        let body = rest.split("</testcase>").next().unwrap_or_default().trim();
        let section = attribute(head, "package");
        let before = |case: &&Case| case.name.rsplit_once('/').is_some_and(|(of, _)| of == section);
        let number = cases.iter().filter(before).count() + 1;
        let verdict = if body.starts_with("<skipped>") {
            Verdict::Skipped
        } else if body.is_empty() {
            Verdict::Passed
        } else {
            let reason = body.replace("<error>", "").replace("</error>", "");
            Verdict::Failed(reason.trim().replace('\n', "; "))
        };
        cases.push(Case {
            name: format!("{section}/{number}"),
            about: attribute(head, "classname"),
            verdict,
        });
    }
    cases
}

fn attribute(head: &str, name: &str) -> String {
    let value = head
        .split_once(&format!("{name}=\""))
        .and_then(|(_, rest)| rest.split('"').next())
        .unwrap_or_default();
    [
        ("&#34;", "\""),
        ("&#39;", "'"),
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&amp;", "&"),
    ]
    .iter()
    .fold(value.to_owned(), |text, (coded, plain)| text.replace(coded, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_junit_report_is_read() {
        let report = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites>
  <testsuite name="4.1. Frame Format" package="http2/4.1" id="4.1" tests="3" skipped="1" failures="0" errors="1">
    <testcase package="http2/4.1" classname="Sends &#34;a&#34; &lt;frame&gt;" time="0.0007"></testcase>
    <testcase package="http2/4.1" classname="Sends b" time="2.0007">
      <error>GOAWAY Frame (Error Code: PROTOCOL_ERROR)
Timeout</error>
    </testcase>
    <testcase package="http2/4.1" classname="Sends c" time="0.0000">
      <skipped></skipped>
    </testcase>
  </testsuite>
  <testsuite name="4.2. Frame Size" package="http2/4.2" id="4.2" tests="1" skipped="0" failures="0" errors="0">
    <testcase package="http2/4.2" classname="Sends d" time="0.0007"></testcase>
  </testsuite>
</testsuites>"#;
        let cases = of_junit(report);
        let shown: Vec<String> = cases.iter().map(Case::to_string).collect();
        assert_eq!(
            shown,
            [
                "http2/4.1/1 (Sends \"a\" <frame>)",
                "http2/4.1/2 (Sends b)",
                "http2/4.1/3 (Sends c)",
                "http2/4.2/1 (Sends d)"
            ]
        );
        assert_eq!(cases[0].verdict, Verdict::Passed);
        let why = "GOAWAY Frame (Error Code: PROTOCOL_ERROR); Timeout";
        assert_eq!(cases[1].verdict, Verdict::Failed(why.to_owned()));
        assert_eq!(cases[2].verdict, Verdict::Skipped);
        assert_eq!(cases[3].verdict, Verdict::Passed);
    }
}
