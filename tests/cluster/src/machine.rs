//! Reaching below Kubernetes: the cluster's daemons, its processes, its cables. Only what the cluster itself made.

use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::time::ClockId;
use nix::unistd::Pid;

use crate::lab::Lab;
use crate::neighbours::Mac;

/// The namespaces of hosts and of what joins them begin so.
const PREFIX: &str = "pierhead-lab-";

/// A process of Pierhead in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    pid: i32,
}

/// Memory of a process, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    pub resident: u64,
    /// Pages that others have too count in part.
    pub share: u64,
    /// The most that was ever resident.
    pub peak: u64,
}

/// Which process of a container is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The first: the whole container ends with it.
    First,
    /// The second, which serves, and which the first one looks after.
    Serving,
}

impl Lab {
    /// Kills a daemon of the cluster, as a crash would.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill_daemon(&self, name: &str) -> Result<()> {
        let file = self.state(&format!("pid/{name}"));
        let text = fs::read_to_string(&file).with_context(|| format!("{name} does not run"))?;
        let pid = text.split_whitespace().next().context("an empty pid file")?;
        kill(pid.parse().context("no pid")?)
    }

    /// Starts again what does not run.
    ///
    /// # Errors
    /// It does not start.
    pub fn restart_daemons(&self) -> Result<()> {
        let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(["xtask", "cluster", "up"])
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
            .status()
            .context("cannot start cargo")?;
        ensure!(status.success(), "`cargo xtask cluster up` ended with {status}");
        Ok(())
    }

    /// Kills this process of every Pierhead container of the cluster that runs this verb, with -9; with `node` not empty only
    /// that node's. How many.
    ///
    /// # Errors
    /// One cannot be killed.
    pub fn kill_processes(&self, verb: &str, node: &str, which: Which) -> Result<usize> {
        let meant = self.processes(verb, node, which)?;
        meant.iter().try_for_each(|process| kill(process.pid))?;
        Ok(meant.len())
    }

    /// This process of every Pierhead container of the cluster that runs this verb; with `node` not empty only that node's.
    ///
    /// # Errors
    /// There is no `/proc`.
    pub fn processes(&self, verb: &str, node: &str, which: Which) -> Result<Vec<Process>> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            let Ok(line) = fs::read(entry.path().join("cmdline")) else {
                continue;
            };
            let words: Vec<&str> = line
                .split(|byte| *byte == 0)
                .filter_map(|word| std::str::from_utf8(word).ok())
                .collect();
            let named = format!("--node-name={node}");
            let is_second = words.iter().any(|word| word.starts_with("--supervised-by="));
            let is_meant = words.first() == Some(&"/pierhead")
                && words.get(1) == Some(&verb)
                && is_second == (which == Which::Serving)
                && (node.is_empty() || words.contains(&named.as_str()));
            if is_meant && self.holds(pid) {
                found.push(Process { pid });
            }
        }
        found.sort();
        Ok(found)
    }

    /// Whether the root of a process is in the folder of this cluster: that of a container of a node, never a stranger's.
    fn holds(&self, pid: i32) -> bool {
        let Ok(state) = fs::canonicalize(self.state("")) else {
            return false;
        };
        let state = state.display().to_string();
        fs::read_to_string(format!("/proc/{pid}/mounts"))
            .is_ok_and(|mounts| mounts.lines().any(|line| line.contains(" / ") && line.contains(&state)))
    }

    /// The node that answers for an address, as the client's neighbour table has it.
    ///
    /// # Errors
    /// None does.
    pub fn announcer(&self, address: IpAddr) -> Result<String> {
        let text = ip(&["-n", &format!("{PREFIX}client"), "neigh", "show", &address.to_string()])?;
        let mac = text
            .split_whitespace()
            .skip_while(|word| *word != "lladdr")
            .nth(1)
            .with_context(|| format!("the client knows no neighbour {address}: {text}"))?
            .to_owned();
        for node in ["node-1", "node-2"] {
            if ip(&["-n", &format!("{PREFIX}{node}"), "link", "show", "eth0"])?.contains(&mac) {
                return Ok(node.to_owned());
            }
        }
        bail!("no node has {mac}, which answers for {address}")
    }

    /// The Ethernet address of a node.
    ///
    /// # Errors
    /// There is no such node.
    pub fn mac(&self, node: &str) -> Result<Mac> {
        let text = ip(&["-n", &format!("{PREFIX}{node}"), "link", "show", "eth0"])?;
        let mac = text.split_whitespace().skip_while(|word| *word != "link/ether").nth(1);
        let bytes = mac
            .with_context(|| format!("{node} has no Ethernet address"))?
            .split(':');
        let bytes: Vec<u8> = bytes
            .map(|byte| u8::from_str_radix(byte, 16))
            .collect::<Result<_, _>>()?;
        bytes.try_into().map_err(|_| anyhow!("no Ethernet address: {text}"))
    }

    /// Runs `ip` with these words on the client.
    ///
    /// # Errors
    /// It fails.
    pub fn client_ip(&self, words: &str) -> Result<()> {
        let client = format!("{PREFIX}client");
        let words: Vec<&str> = ["-n", &client].into_iter().chain(words.split_whitespace()).collect();
        ip(&words).map(drop)
    }

    /// Plugs a node in, or pulls its cable.
    ///
    /// # Errors
    /// There is no such node.
    pub fn link(&self, node: &str, up: bool) -> Result<()> {
        let state = if up { "up" } else { "down" };
        ip(&["-n", &format!("{PREFIX}fabric"), "link", "set", node, state]).map(drop)
    }
}

impl Process {
    /// What it has run so far: all its threads, those that have ended too.
    ///
    /// # Errors
    /// It is gone.
    pub fn run_time(&self) -> Result<Duration> {
        let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(self.pid)).with_context(|| format!("{self} is gone"))?;
        Ok(clock.now().with_context(|| format!("{self} is gone"))?.into())
    }

    /// What it holds of the machine's memory.
    ///
    /// # Errors
    /// It is gone.
    pub fn memory(&self) -> Result<Memory> {
        let read = |file: &str| {
            fs::read_to_string(format!("/proc/{}/{file}", self.pid)).with_context(|| format!("{self} is gone"))
        };
        let (rollup, status) = (read("smaps_rollup")?, read("status")?);
        Ok(Memory {
            resident: bytes(&rollup, "Rss:")?,
            share: bytes(&rollup, "Pss:")?,
            peak: bytes(&status, "VmHWM:")?,
        })
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}", self.pid)
    }
}

/// The value of a line such as `Rss:  123 kB`.
fn bytes(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kilobytes: u64 = kilobytes.with_context(|| format!("no {name}"))?.parse()?;
    Ok(kilobytes * 1024)
}

fn kill(pid: i32) -> Result<()> {
    let status = Command::new("kill").args(["-9", &pid.to_string()]).status()?;
    ensure!(status.success(), "cannot kill {pid}");
    Ok(())
}

fn ip(words: &[&str]) -> Result<String> {
    let output = Command::new("ip").args(words).output().context("cannot start ip")?;
    if !output.status.success() {
        bail!(
            "ip {}: {}",
            words.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_as_the_kernel_writes_it() {
        let text =
            "55d0-7ffe ---p 00000000 00:00 0  [rollup]\nRss:               11332 kB\nPss:                 987 kB\n";
        assert_eq!(bytes(text, "Rss:").unwrap(), 11_332 * 1024);
        assert_eq!(bytes(text, "Pss:").unwrap(), 987 * 1024);
        assert!(bytes(text, "VmHWM:").is_err());
    }

    #[test]
    fn a_process_has_run_and_holds_memory() {
        let own = Process {
            pid: std::process::id().cast_signed(),
        };
        assert!(own.run_time().unwrap() > Duration::ZERO);
        let memory = own.memory().unwrap();
        assert!(memory.share <= memory.resident && memory.share > 0 && memory.peak > 0);
    }
}
