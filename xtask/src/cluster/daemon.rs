//! Programs that go on running after the verb has ended: started in a namespace, found again, and killed. Only what
//! was started from here is ever killed: a process number counts together with the time its process started.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::net;
use super::place::Place;

/// Starts the words after it without the files that this process inherited, such as the lock of a build tool, and as a
/// session of its own. `bash`, because others cannot close a file of two digits.
const LAUNCH: &str = r#"for f in /proc/self/fd/*; do n=${f##*/}; if [ "$n" -gt 2 ]; then eval "exec $n>&-"; fi; done 2>/dev/null
exec setsid "$@""#;

/// Starts the words after it as what others push aside: of little weight, also as a session (which may be a group to the scheduler), and
/// with 0.1 ms until another may have its core instead of some 2 ms (`sched_setattr(2)`; Linux before 6.12 ignores that). The
/// first word is the number of that system call.
const BEHIND: &str = r#"
my $group;
if (-e "/proc/self/autogroup") { open($group, ">", "/proc/self/autogroup") && print($group 10) && close($group) or die "autogroup: $!\n" }
my $attr = pack("LLQlLQQQ", 48, 0, 0, 10, 0, 100_000, 0, 0);
syscall(int(shift), 0, $attr, 0) == 0 or die "sched_setattr: $!\n";
exec @ARGV or die "$ARGV[0]: $!\n""#;

/// The words that start those after them behind everything else.
fn behind() -> Vec<String> {
    let sched_setattr = if cfg!(target_arch = "x86_64") { "314" } else { "274" };
    ["perl", "-e", BEHIND, sched_setattr].map(str::to_owned).into()
}

/// A program to keep running.
pub(crate) struct Daemon<'a> {
    /// Names its log and its process.
    pub(crate) name: String,
    /// The host in whose namespace it runs.
    pub(crate) host: &'a str,
    pub(crate) program: &'static str,
    pub(crate) args: Vec<String>,
    /// Whether everything else goes before it.
    pub(crate) behind: bool,
    /// Variables of its environment besides our own.
    pub(crate) env: &'static [(&'static str, &'static str)],
}

impl Daemon<'_> {
    /// Starts it unless it runs. Whether it was started.
    ///
    /// # Errors
    /// It cannot be started, or ends within an instant.
    pub(crate) fn ensure(&self, place: &Place) -> Result<bool> {
        if running(place, &self.name).is_some() {
            return Ok(false);
        }
        let log = File::options()
            .create(true)
            .append(true)
            .open(place.log(&self.name))
            .with_context(|| format!("cannot write the log of {}", self.name))?;
        let path = std::env::var("PATH").unwrap_or_default();
        let child = Command::new("bash")
            .args(["-c", LAUNCH, "bash"])
            .args(if self.behind { behind() } else { Vec::new() })
            .arg("nsenter")
            .args(net::entrance(self.host))
            .arg(place.bin(self.program))
            .args(&self.args)
            // containerd finds its shim, the kubelet what it calls.
            .env("PATH", format!("{}:{path}", place.bin("").display()))
            .env("CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS", "1")
            .envs(self.env.iter().copied())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", self.name))?;
        let pid = child.id();
        let started = start_time(pid).with_context(|| format!("{} ended at once", self.name))?;
        fs::write(place.pid(&self.name), format!("{pid} {started}"))
            .with_context(|| format!("cannot note the process of {}", self.name))?;
        Ok(true)
    }
}

/// The process number of a daemon that runs.
pub(crate) fn running(place: &Place, name: &str) -> Option<u32> {
    let noted = fs::read_to_string(place.pid(name)).ok()?;
    let (pid, started) = noted.split_once(' ')?;
    let pid: u32 = pid.parse().ok()?;
    (start_time(pid)? == started).then_some(pid)
}

/// Every daemon that was started and not forgotten, by name.
pub(crate) fn noted(place: &Place) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(place.state().join("pid"))
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// Whether any daemon of the cluster runs.
pub(crate) fn any_runs(place: &Place) -> bool {
    noted(place).iter().any(|name| running(place, name).is_some())
}

/// Waits until `ready` says yes, while the daemons run.
///
/// # Errors
/// One of them ends, with the end of its log; or the time is over.
pub(crate) fn wait(
    place: &Place,
    what: &str,
    daemons: &[&str],
    limit: Duration,
    mut ready: impl FnMut() -> bool,
) -> Result<()> {
    let started = Instant::now();
    while !ready() {
        for name in daemons {
            if running(place, name).is_none() {
                bail!("{name} ended; the end of its log:\n{}", tail(&place.log(name), 15));
            }
        }
        if started.elapsed() > limit {
            bail!(
                "{what} is not there after {} s; logs are in {}",
                limit.as_secs(),
                place.state().join("log").display()
            );
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// The last lines of a file.
pub(crate) fn tail(file: &Path, lines: usize) -> String {
    let text = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Kills processes, without asking, and waits until they are gone.
///
/// # Errors
/// Some live on.
pub(crate) fn kill(pids: &[u32]) -> Result<()> {
    let alive = || pids.iter().copied().filter(|&pid| start_time(pid).is_some());
    let started = Instant::now();
    while alive().next().is_some() {
        if started.elapsed() > Duration::from_secs(20) {
            bail!("these processes do not end: {:?}", alive().collect::<Vec<_>>());
        }
        // A process that ends in between is what we want.
        let _ = Command::new("kill")
            .arg("-KILL")
            .args(alive().map(|pid| pid.to_string()))
            .stderr(Stdio::null())
            .status();
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// When a process started, in ticks since boot; nothing when it ended, also when nobody has collected it yet.
fn start_time(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_start(&stat).map(str::to_owned)
}

fn parse_start(stat: &str) -> Option<&str> {
    // The name may hold anything, and ends at the last parenthesis.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?;
    let started = fields.nth(18)?;
    (!matches!(state, "Z" | "X")).then_some(started)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 77123 1 1";
        assert_eq!(parse_start(stat), Some("77123"));
        assert_eq!(parse_start(&stat.replace(") S", ") Z")), None);
        assert!(start_time(std::process::id()).is_some());
    }

    #[test]
    fn what_runs_behind_yields() {
        // A session of its own, for what is a group to the scheduler changes as a whole.
        let mut command = Command::new("setsid");
        let output = command.arg("--wait").args(behind()).arg("nice").output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout).trim(),
            "10",
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    #[test]
    fn a_killed_child_is_gone_though_nobody_waited() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        kill(&[child.id()]).unwrap();
        assert_eq!(start_time(child.id()), None);
        child.wait().unwrap();
    }
}
