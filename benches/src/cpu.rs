//! CPU time and memory of a process tree, and pinning.

use std::{collections::BTreeSet, fs, time::Duration};

use anyhow::{Context as _, Result};
use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    thread::{CpuSet, sched_setaffinity},
};

/// Where the proxy runs.
pub(crate) const PROXY_CORE: usize = 0;
/// Where client and backend run.
pub(crate) const CLIENT_CORE: usize = 1;

/// Pins the calling thread, and what it starts later, to one core.
pub(crate) fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).with_context(|| format!("pin to core {core}: the rigs need two cores"))
}

/// Lets this process, and what it starts, open as many files as it may.
pub(crate) fn raise_descriptors() -> Result<()> {
    let now = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: now.maximum,
            ..now
        },
    )
    .context("raise the limit of open files")
}

/// Run time of all threads of `pid` and of its children, to the nanosecond (first field of `schedstat`).
pub(crate) fn run_time(pid: u32) -> Result<Duration> {
    let mut nanoseconds = 0;
    for process in tree(pid)? {
        let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else {
            continue;
        };
        for thread in threads.flatten() {
            let text = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
            nanoseconds += text.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// Run time of this process, threads that have ended included, without its children.
pub(crate) fn own_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
}

/// Run time of the kernel threads that do the network's work when nobody's turn fits.
pub(crate) fn soft_interrupts() -> Result<Duration> {
    let mut nanoseconds = 0;
    for entry in fs::read_dir("/proc")?.flatten() {
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if name.starts_with("ksoftirqd/") {
            let text = fs::read_to_string(entry.path().join("schedstat")).unwrap_or_default();
            nanoseconds += text.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// Resident memory of the tree in bytes that no other process shares or that it shares in part (`Pss`).
pub(crate) fn resident(pid: u32) -> Result<u64> {
    let mut kilobytes = 0;
    for process in tree(pid)? {
        let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap_or_default();
        let line = text.lines().find_map(|l| l.strip_prefix("Pss:")).unwrap_or("0 kB");
        kilobytes += line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap_or(0);
    }
    Ok(kilobytes * 1024)
}

/// `pid` and all its descendants.
fn tree(pid: u32) -> Result<BTreeSet<u32>> {
    let mut all = BTreeSet::from([pid]);
    let mut open = vec![pid];
    while let Some(parent) = open.pop() {
        let Ok(threads) = fs::read_dir(format!("/proc/{parent}/task")) else {
            continue;
        };
        for thread in threads {
            let children = fs::read_to_string(thread?.path().join("children")).unwrap_or_default();
            for child in children.split_whitespace().filter_map(|c| c.parse().ok()) {
                if all.insert(child) {
                    open.push(child);
                }
            }
        }
    }
    Ok(all)
}
