//! `test kernels`: the kernel programs and their tests on other kernels than this machine's, each in a virtual machine.
//!
//! What must work where is a table, held both ways: what is said to fail on a kernel must fail there, for the reason given.

mod fetch;
mod machine;

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::kernels::machine::{Job, Load};
use crate::sh::{self, say};
use crate::test::{self, Summary};

/// What the tier calls, and Debian's packages of it.
pub(crate) const PROGRAMS: &[(&str, &str)] = &[("qemu-system-x86_64", "qemu-system-x86"), ("xz", "xz-utils")];

/// A kernel to try.
struct Release {
    /// The suite of Debian that has it.
    suite: &'static str,
    /// What it must be, for the table to be about it: major and minor, or at least that.
    version: Version,
    /// Whether it has tcx.
    tcx: bool,
}

enum Version {
    Is(u32, u32),
    AtLeast(u32, u32),
}

/// The oldest that README promises, the one before tcx and the one after it that Debian supports (it never had 6.6), and
/// the newest.
const RELEASES: &[Release] = &[
    Release {
        suite: "bullseye",
        version: Version::Is(5, 10),
        tcx: false,
    },
    Release {
        suite: "bookworm",
        version: Version::Is(6, 1),
        tcx: false,
    },
    Release {
        suite: "trixie",
        version: Version::Is(6, 12),
        tcx: true,
    },
    Release {
        suite: "trixie-backports",
        version: Version::AtLeast(6, 13),
        tcx: true,
    },
];

/// What a test program needs of a kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Needs {
    /// It is pure, and says nothing about kernels.
    Nothing,
    /// What every kernel has that we support.
    Steer,
    /// tcx: without it each of its tests fails.
    Tcx,
}

/// What a test says that fails for want of tcx.
const NO_TCX: &str = "tcx needs Linux 6.6";

/// Every test program of the tier of packets.
const TESTS: &[(&str, Needs)] = &[
    ("pierhead-kernel/l4", Needs::Tcx),
    ("pierhead-kernel/nodes", Needs::Tcx),
    ("pierhead-kernel/packets", Needs::Tcx),
    ("pierhead-kernel/plan", Needs::Nothing),
    ("pierhead-kernel/programs", Needs::Steer),
    ("pierhead-kernel/relay", Needs::Tcx),
    ("pierhead-kernel/steering", Needs::Steer),
];

/// A compiled test program of the tier of packets.
pub(crate) struct Test<'a> {
    /// `package/target`.
    pub(crate) name: String,
    pub(crate) executable: &'a Path,
    pub(crate) folder: &'a Path,
}

/// Runs the tests on every kernel; what went wrong, a line each. `built` is where cargo puts programs.
///
/// # Errors
/// A kernel cannot be had, a machine does not start or end, or a test program is not in the table.
pub(crate) fn run(tests: &[Test<'_>], built: &Path) -> Result<Vec<String>> {
    if cfg!(not(target_arch = "x86_64")) {
        bail!("the tier `kernels` boots kernels for x86-64, with programs of this machine");
    }
    let dir = sh::target_dir().join("kernels");
    fs::create_dir_all(&dir).context("cannot make the folder of kernels")?;
    let names: Vec<&str> = tests.iter().map(|test| test.name.as_str()).collect();
    let unknown = not_alike(&names);
    if !unknown.is_empty() {
        bail!(
            "the table of xtask/src/kernels is not about the tests that there are: {}",
            unknown.join(", ")
        );
    }
    let jobs: Vec<Job<'_>> = tests
        .iter()
        .filter(|test| needs(&test.name) != Some(Needs::Nothing))
        .map(|test| Job {
            name: test.name.clone(),
            program: test.executable,
            folder: test.folder,
        })
        .collect();
    let load = Load::new(&built.join("pierhead-guest"), &jobs, &dir)?;
    let mut failures = Vec::new();
    for release in RELEASES {
        let started = Instant::now();
        let kernel = fetch::kernel(release.suite, &dir)?;
        let at = dir.join(format!("{}.run", release.suite));
        fs::create_dir_all(&at).context("cannot make a folder")?;
        let said = load
            .run_on(&kernel, &at)
            .with_context(|| format!("the machine with the kernel of {}", release.suite))?;
        let verdict = release.verdict(&said);
        say(&format!(
            "kernel {}: {}; {} s",
            release.suite,
            verdict.line,
            started.elapsed().as_secs()
        ));
        if !verdict.wrong.is_empty() {
            println!("{said}");
        }
        failures.extend(
            verdict
                .wrong
                .into_iter()
                .map(|why| format!("kernel {}: {why}", release.suite)),
        );
    }
    Ok(failures)
}

fn needs(name: &str) -> Option<Needs> {
    TESTS.iter().find(|(known, _)| *known == name).map(|&(_, needs)| needs)
}

/// Tests that the table does not know, and those that it alone knows.
fn not_alike(names: &[&str]) -> Vec<String> {
    let unknown = names.iter().copied().filter(|name| needs(name).is_none());
    let gone = TESTS.iter().map(|&(name, _)| name).filter(|name| !names.contains(name));
    unknown.chain(gone).map(str::to_owned).collect()
}

/// What a machine's answer means.
struct Verdict {
    line: String,
    wrong: Vec<String>,
}

/// What one test program said.
struct Section<'a> {
    status: i32,
    lines: Vec<&'a str>,
    summary: Option<Summary>,
}

impl Release {
    fn verdict(&self, said: &str) -> Verdict {
        let mut wrong = Vec::new();
        let told = said.lines().find_map(|line| line.strip_prefix("kernel ")).unwrap_or("");
        if !self.version.holds(told) {
            wrong.push(format!("it is {told:?}, which the table is not about"));
        }
        let (mut passed, mut refused) = (0, 0);
        for &(name, needs) in TESTS.iter().filter(|(_, needs)| *needs != Needs::Nothing) {
            let Some(section) = Section::find(said, name) else {
                wrong.push(format!("{name} did not run to its end"));
                continue;
            };
            if needs == Needs::Tcx && !self.tcx {
                refused += section.summary.as_ref().map_or(0, |it| it.failed);
                wrong.extend(section.refused(NO_TCX).map(|why| format!("{name}: {why}")));
            } else {
                passed += section.summary.as_ref().map_or(0, |it| it.passed);
                let why = test::verdict(section.status == 0, section.summary.as_ref());
                wrong.extend(why.map(|why| format!("{name}: {why}")));
            }
        }
        let counted = said
            .lines()
            .find_map(|line| line.strip_prefix("verified instructions: "));
        if counted.is_none() {
            wrong.push("nobody said how many instructions the verifier looked at".to_owned());
        }
        let mut line = format!(
            "Linux {told}: verified {}; {passed} tests passed",
            counted.unwrap_or("nothing")
        );
        if refused > 0 {
            line.push_str(&format!(", {refused} refused as they must be ({NO_TCX})"));
        }
        if !wrong.is_empty() {
            line.push_str(&format!(", {} WRONG", wrong.len()));
        }
        Verdict { line, wrong }
    }
}

impl Version {
    fn holds(&self, told: &str) -> bool {
        let mut parts = told.split(['.', '-', '+']).map(str::parse::<u32>);
        let (Some(Ok(major)), Some(Ok(minor))) = (parts.next(), parts.next()) else {
            return false;
        };
        match *self {
            Self::Is(x, y) => (major, minor) == (x, y),
            Self::AtLeast(x, y) => (major, minor) >= (x, y),
        }
    }
}

impl<'a> Section<'a> {
    fn find(said: &'a str, name: &str) -> Option<Self> {
        let begin = format!("begin {name}");
        let end = format!("end {name} ");
        let mut lines = said.lines().skip_while(|line| *line != begin).skip(1);
        let mut own = Vec::new();
        let status = loop {
            let line = lines.next()?;
            if let Some(status) = line.strip_prefix(&end) {
                break status.parse().ok()?;
            }
            own.push(line);
        };
        Some(Self {
            status,
            summary: own.iter().find_map(|line| Summary::parse(line)),
            lines: own,
        })
    }

    /// What is wrong, if each of its tests is to fail for this reason.
    fn refused(&self, reason: &str) -> Option<String> {
        let told = self.told(reason);
        match self.summary {
            Some(Summary { failed: 1.., .. }) if self.status == 0 => Some("failed without saying so".to_owned()),
            Some(Summary { passed: 0, failed, .. }) if failed > 0 && told == failed => None,
            Some(Summary { passed: 0, failed, .. }) => Some(format!("{told} of {failed} failed because {reason}")),
            Some(Summary { passed, .. }) => Some(format!("{passed} passed where none can: {reason}")),
            None => Some("ended without a summary".to_owned()),
        }
    }

    /// How many of the tests that failed gave this reason.
    fn told(&self, reason: &str) -> u64 {
        let (mut told, mut inside, mut open) = (0, false, false);
        for line in &self.lines {
            if line.starts_with("---- ") && line.ends_with(" stdout ----") {
                (inside, open) = (true, true);
            } else if *line == "failures:" {
                inside = false;
            } else if inside && open && line.contains(reason) {
                told += 1;
                open = false;
            }
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Release = Release {
        suite: "old",
        version: Version::Is(6, 1),
        tcx: false,
    };
    const NEW: Release = Release {
        suite: "new",
        version: Version::AtLeast(6, 6),
        tcx: true,
    };

    fn passing(name: &str) -> String {
        format!(
            "begin {name}\nrunning 1 test\ntest a::b ... ok\n\ntest result: ok. 1 passed; 0 failed; 0 ignored;\nend {name} 0\n"
        )
    }

    fn failing(name: &str, why: &str) -> String {
        format!(
            "begin {name}\nrunning 1 test\ntest a::b ... FAILED\n\nfailures:\n\n---- a::b stdout ----\n{why}\n\n\
             failures:\n    a::b\n\ntest result: FAILED. 0 passed; 1 failed; 0 ignored;\nend {name} 101\n"
        )
    }

    fn answer(version: &str, of_tcx: impl Fn(&str) -> String) -> String {
        let mut said = format!("kernel {version}\nverified instructions: in=1\n");
        for (name, needs) in TESTS {
            said.push_str(&match needs {
                Needs::Nothing => String::new(),
                Needs::Steer => passing(name),
                Needs::Tcx => of_tcx(name),
            });
        }
        said
    }

    #[test]
    fn what_is_as_the_table_says_is_right() {
        assert_eq!(NEW.verdict(&answer("7.3.4+deb13", passing)).wrong, [""; 0]);
        let refused = |name: &str| failing(name, "layer 4: tcx needs Linux 6.6, this is 6.1");
        assert_eq!(OLD.verdict(&answer("6.1.0-50-cloud", refused)).wrong, [""; 0]);
    }

    #[test]
    fn what_is_not_as_the_table_says_is_wrong_in_both_directions() {
        let refused = |name: &str| failing(name, "layer 4: tcx needs Linux 6.6, this is 6.1");
        assert!(!NEW.verdict(&answer("7.3.4", refused)).wrong.is_empty());
        assert!(!OLD.verdict(&answer("6.1.0", passing)).wrong.is_empty());
        let otherwise = |name: &str| failing(name, "permission denied");
        assert!(!OLD.verdict(&answer("6.1.0", otherwise)).wrong.is_empty());
        assert!(
            !NEW.verdict(&answer("6.1.0", passing)).wrong.is_empty(),
            "another kernel"
        );
    }

    #[test]
    fn what_is_missing_is_wrong() {
        let cut = answer("7.3.4", passing).replace("end pierhead-kernel/steering 0", "");
        assert!(!NEW.verdict(&cut).wrong.is_empty());
        let crashed =
            answer("7.3.4", passing).replace("end pierhead-kernel/steering 0", "end pierhead-kernel/steering 101");
        assert!(!NEW.verdict(&crashed).wrong.is_empty());
        let uncounted = answer("7.3.4", passing).replace("verified instructions", "");
        assert!(!NEW.verdict(&uncounted).wrong.is_empty());
        assert!(!NEW.verdict("kernel 7.3.4\n").wrong.is_empty());
    }

    #[test]
    fn the_table_is_about_all_tests_and_no_others() {
        let all: Vec<&str> = TESTS.iter().map(|&(name, _)| name).collect();
        assert_eq!(not_alike(&all), [""; 0]);
        assert_eq!(not_alike(&all[1..]), [all[0]]);
        assert_eq!(not_alike(&[&all[..], &["x/y"]].concat()), ["x/y"]);
    }
}
