//! Pierhead itself: the real binary, started on the node.

use std::fmt::{self, Display, Write as _};
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::client::{Client, H1, Response, TIMEOUT};
use crate::config::Config;
use crate::net::{POOL_V4, POOL_V6};
use crate::netns::Netns;
use crate::poll::eventually;

/// Where the admin address is, on the node's loopback.
pub const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9900);

/// The access log's name in the folder of outputs.
const ACCESS_LOG: &str = "access.log";
/// And that of the admin socket, which is each process's own.
const SOCKET: &str = "admin.sock";

/// How much the kernel does: every case runs with all three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Sockets only.
    Off,
    /// Steering by `sk_lookup`.
    Steer,
    /// Steering, and TCP and UDP routes in the kernel.
    Full,
}

impl Display for Mode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Off => "off",
            Self::Steer => "steer",
            Self::Full => "full",
        })
    }
}

/// A running `pierhead standalone`; stopped when dropped. A test that fails shows its log.
#[derive(Debug)]
pub struct Gate {
    node: Arc<Netns>,
    child: Child,
    output: TempDir,
    is_tested: bool,
}

impl Gate {
    /// Starts it on the node and waits until it is ready.
    pub fn start(node: &Arc<Netns>, config: &Config, mode: Mode) -> Result<Self> {
        let gate = Self::launch(node, config, &["--ebpf", &mode.to_string()])?;
        gate.ready()?;
        Ok(gate)
    }

    /// Starts it with these further arguments, and waits for nothing.
    pub fn launch(node: &Arc<Netns>, config: &Config, args: &[&str]) -> Result<Self> {
        let output = TempDir::with_prefix("pierhead-output-")?;
        let mut command = Command::new(binary()?);
        command.arg("standalone").arg("--config").arg(config.path());
        command.arg("--state-dir").arg(config.state());
        command.arg("--access-log").arg(output.path().join(ACCESS_LOG));
        command.args(["--admin", &ADMIN.to_string()]);
        command.arg("--admin-socket").arg(output.path().join(SOCKET));
        command.args(["--address-pool", POOL_V4, "--address-pool", POOL_V6]);
        command.args(args);
        Self::spawn_with(node, command, output, true)
    }

    /// Starts this command as the gate, on the node.
    pub fn spawn(node: &Arc<Netns>, command: Command) -> Result<Self> {
        Self::spawn_with(node, command, TempDir::with_prefix("pierhead-output-")?, false)
    }

    fn spawn_with(node: &Arc<Netns>, mut command: Command, output: TempDir, is_tested: bool) -> Result<Self> {
        command
            .stdin(Stdio::null())
            .stdout(File::create(output.path().join("stdout"))?)
            .stderr(File::create(output.path().join("stderr"))?)
            .env_remove("RUST_BACKTRACE")
            // A Ctrl-C at the terminal is for us: we then end it in order.
            .process_group(0);
        let child = node
            .enter(|| command.spawn())?
            .with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self {
            node: Arc::clone(node),
            child,
            output,
            is_tested,
        })
    }

    /// Waits until it says that its configuration is live.
    pub fn ready(&self) -> Result<()> {
        eventually("/readyz answers 200", || {
            ensure!(self.is_running(), "it ended: {}", self.log());
            let response = self.admin("/readyz")?;
            ensure!(response.status == 200, "status {}", response.status);
            Ok(())
        })
        .map_err(|error| anyhow::anyhow!("{error:#}\n{}", self.log()))
    }

    /// Starts one beside those that run, to take over from the one in charge, and waits until it has.
    pub fn take_over(node: &Arc<Netns>, config: &Config, mode: Mode, args: &[&str]) -> Result<Self> {
        let mode = mode.to_string();
        let all: Vec<&str> = ["--takeover", "--ebpf", &mode].iter().chain(args).copied().collect();
        let gate = Self::launch(node, config, &all)?;
        gate.in_charge()?;
        Ok(gate)
    }

    /// Waits until this very process says that it is ready: the admin address may be another one's.
    pub fn in_charge(&self) -> Result<()> {
        eventually("the admin socket says ready", || {
            ensure!(self.is_running(), "it ended: {}", self.log());
            let response = self.own("/readyz")?;
            ensure!(response.status == 200, "status {}", response.status);
            Ok(())
        })
        .map_err(|error| anyhow::anyhow!("{error:#}\n{}", self.log()))
    }

    /// Asks its admin socket.
    pub fn own(&self, path: &str) -> Result<Response> {
        let stream = UnixStream::connect(self.output.path().join(SOCKET))?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        H1::new(stream).get("localhost", path)
    }

    /// The sum of every sample of this metric of this very process that carries all these labels.
    pub fn own_metric(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        let response = self.own("/metrics")?;
        ensure!(response.status == 200, "/metrics: status {}", response.status);
        Ok(sum_of(&String::from_utf8_lossy(&response.body), name, labels))
    }

    /// Where its admin socket is.
    pub fn socket(&self) -> PathBuf {
        self.output.path().join(SOCKET)
    }

    /// Asks the admin address.
    pub fn admin(&self, path: &str) -> Result<Response> {
        Client::new(&self.node).get(ADMIN, "localhost", path)
    }

    /// The sum of every sample of this metric that carries all these labels.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        let response = self.admin("/metrics")?;
        ensure!(response.status == 200, "/metrics: status {}", response.status);
        Ok(sum_of(&String::from_utf8_lossy(&response.body), name, labels))
    }

    /// Runs `pierhead status` beside it: exit status and output.
    pub fn status(&self, args: &[&str]) -> Result<(ExitStatus, String)> {
        let mut all = vec!["status", "--admin"];
        let admin = ADMIN.to_string();
        all.push(&admin);
        all.extend(args);
        run(&self.node, &all)
    }

    /// Everything it has said.
    pub fn log(&self) -> String {
        let mut log = String::new();
        for stream in ["stderr", "stdout"] {
            let text = fs::read_to_string(self.output.path().join(stream)).unwrap_or_default();
            let _ = write!(log, "── {stream} ──\n{text}");
        }
        log
    }

    /// Waits for a line of its access log that contains all of these.
    pub fn records(&self, parts: &[&str]) -> Result<serde_json::Value> {
        eventually(format!("an access log line with {parts:?}"), || {
            let log = fs::read_to_string(self.output.path().join(ACCESS_LOG)).unwrap_or_default();
            let line = log.lines().find(|line| parts.iter().all(|part| line.contains(part)));
            Ok(serde_json::from_str(line.with_context(|| log.clone())?)?)
        })
    }

    /// Waits for a line of its log that contains all of these.
    pub fn says(&self, parts: &[&str]) -> Result<String> {
        eventually(format!("a log line with {parts:?}"), || {
            let log = self.log();
            let line = log.lines().find(|line| parts.iter().all(|part| line.contains(part)));
            line.map(str::to_owned).with_context(|| log.clone())
        })
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process that serves, where this one only looks after it (`--supervise`).
    pub fn serving(&self) -> Result<Pid> {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid()))?;
        let child = children.split_whitespace().next().context("it has no child")?;
        Pid::from_raw(child.parse()?).context("no process number")
    }

    /// Its resident memory in bytes.
    pub fn memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .context("no VmRSS")?;
        let kilobytes: u64 = line.split_whitespace().next().context("no number")?.parse()?;
        Ok(kilobytes * 1024)
    }

    /// Asks it to end (SIGTERM) and waits for that.
    pub fn stop(mut self) -> Result<(ExitStatus, String)> {
        self.signal(Signal::TERM)?;
        let status = self.wait(Duration::from_secs(15))?;
        Ok((status, self.log()))
    }

    /// Ends it without a word (SIGKILL).
    pub fn kill(mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.wait(Duration::from_secs(5))?;
        Ok(())
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("still running after {patience:?}:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn is_running(&self) -> bool {
        // A child that ended is a zombie until it is waited for.
        fs::read_to_string(format!("/proc/{}/stat", self.pid()))
            .is_ok_and(|stat| !stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')))
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid())
            .ok()
            .and_then(Pid::from_raw)
            .context("no process number")?;
        Ok(kill_process(pid, signal)?)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        if self.is_tested {
            #[allow(
                clippy::print_stderr,
                reason = "kept by the test harness, and shown with a test that failed"
            )]
            {
                eprintln!("{}", self.log());
            }
        }
        if matches!(self.child.try_wait(), Ok(None)) && self.signal(Signal::TERM).is_ok() {
            if self.wait(Duration::from_secs(5)).is_ok() {
                return;
            }
            let _ = self.signal(Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// Runs `pierhead` with these arguments on the node until it ends: exit status, and both outputs.
pub fn run(node: &Netns, args: &[&str]) -> Result<(ExitStatus, String)> {
    run_program(node, &binary()?, args)
}

/// Takes away what a gate of this program left on the node for its successor.
///
/// # Errors
/// What the program said.
pub fn uninstall(node: &Netns, program: &Path) -> Result<()> {
    let (status, said) = run_program(node, program, &["uninstall"])?;
    ensure!(status.success(), "pierhead uninstall: {status}: {said}");
    Ok(())
}

fn run_program(node: &Netns, program: &Path, args: &[&str]) -> Result<(ExitStatus, String)> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null());
    let output = node.enter(|| command.output())??;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status, String::from_utf8_lossy(&said).into_owned()))
}

/// The binary under test: `$PIERHEAD`, or the one cargo built beside this test.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("PIERHEAD") {
        return Ok(path.into());
    }
    let test = std::env::current_exe()?;
    let folder = test.ancestors().nth(2).context("a test outside of a target folder")?;
    let path = folder.join("pierhead");
    ensure!(
        path.exists(),
        "no {}: run `cargo xtask test wire`, or `cargo build --package pierhead`",
        path.display()
    );
    Ok(path)
}

fn sum_of(metrics: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    metrics
        .lines()
        .filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let (found, value) = match rest.strip_prefix('{') {
                Some(rest) => rest.rsplit_once('}')?,
                None => ("", rest.strip_prefix(' ').map(|_| rest)?),
            };
            let all = labels
                .iter()
                .all(|(key, value)| found.contains(&format!("{key}=\"{value}\"")));
            all.then(|| value.trim().parse::<f64>().ok()).flatten()
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::sum_of;

    #[test]
    fn a_metric_is_summed_over_the_labels_that_are_not_named() {
        let text = "# HELP a b\na{x=\"1\",y=\"2\"} 3\na{x=\"1\",y=\"3\"} 4\nab{x=\"1\"} 100\na{x=\"2\"} 50\nb 7\n";
        assert!((sum_of(text, "a", &[("x", "1")]) - 7.0).abs() < 1e-9);
        assert!((sum_of(text, "b", &[]) - 7.0).abs() < 1e-9);
        assert!(sum_of(text, "c", &[]).abs() < 1e-9);
    }
}
