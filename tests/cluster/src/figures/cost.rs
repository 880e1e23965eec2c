//! What the processes of Pierhead take: CPU for each route that is created and deleted, and memory.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::crowd::{self, Crowd};
use super::report::Report;
use crate::lab::Lab;
use crate::machine::{Memory, Process, Which};

/// Between two changes: each is one of its own.
const PACE: Duration = Duration::from_millis(100);

/// How long nothing happens, to know what that takes.
const IDLE: Duration = Duration::from_secs(10);

/// What changes set off goes on for a while: statuses, and the nodes' disks.
const AFTERMATH: Duration = Duration::from_secs(5);

/// Both kinds of processes.
struct Processes {
    controllers: Vec<Process>,
    nodes: Vec<Process>,
    /// What looks after the processes of nodes.
    supervisors: Vec<Process>,
}

impl Processes {
    fn of(lab: &Lab) -> Result<Self> {
        let found = Self {
            controllers: lab.processes("controller", "", Which::First)?,
            nodes: lab.processes("node", "", Which::Serving)?,
            supervisors: lab.processes("node", "", Which::First)?,
        };
        ensure!(
            !found.controllers.is_empty() && !found.nodes.is_empty(),
            "no controller or no node runs"
        );
        Ok(found)
    }

    /// What each kind has run, in all.
    fn run_time(&self) -> Result<[Duration; 2]> {
        let of = |processes: &[Process]| processes.iter().map(Process::run_time).sum::<Result<Duration>>();
        Ok([of(&self.controllers)?, of(&self.nodes)?])
    }
}

/// CPU of a change, less what they take when nothing happens.
pub(super) fn processor(crowd: &Crowd<'_>, changes: usize, report: &mut Report) -> Result<()> {
    let processes = Processes::of(crowd.lab)?;
    let (idle, idled) = spent(&processes, || {
        thread::sleep(IDLE);
        Ok(())
    })?;
    let (busy, took) = spent(&processes, || {
        let mut due = Instant::now();
        let mut pace = || {
            due += PACE;
            thread::sleep(due.saturating_duration_since(Instant::now()));
        };
        let name = |number| format!("change-{number}");
        for number in 0..changes {
            let host = format!("{}.example.com", name(number));
            crowd.lab.api.create(&crowd::route(&name(number), &host, None))?;
            pace();
        }
        for number in 0..changes {
            crowd.lab.api.delete(&crowd::id(&name(number)))?;
            pace();
        }
        thread::sleep(AFTERMATH);
        Ok(())
    })?;
    let share = took.as_secs_f64() / idled.as_secs_f64();
    let each = |kind: usize| (busy[kind].as_secs_f64() - idle[kind].as_secs_f64() * share) * 1e3 / changes as f64;
    let (controllers, nodes) = (each(0), each(1));
    let node = nodes / processes.nodes.len() as f64;
    let mut add = |name, target, value| report.add(crowd.size, name, "ms", target, value);
    add(
        "CPU per route created and deleted: controllers and one node",
        Some(20.0),
        controllers + node,
    );
    add("of that: controllers, the one that stands by too", None, controllers);
    add("of that: one node", None, node);
    let at_rest = (idle[0] + idle[1]).as_secs_f64() * 1e3 / idled.as_secs_f64();
    add("CPU per second when nothing changes, all processes", None, at_rest);
    Ok(())
}

/// What was run while this was done, and how long that took.
fn spent(processes: &Processes, work: impl FnOnce() -> Result<()>) -> Result<([Duration; 2], Duration)> {
    let (started, before) = (Instant::now(), processes.run_time()?);
    work()?;
    let after = processes.run_time()?;
    let spent = [0, 1].map(|kind| after[kind].saturating_sub(before[kind]));
    Ok((spent, started.elapsed()))
}

/// Memory of the largest process of each kind; that of a node and of what looks after it together.
pub(super) fn memory(crowd: &Crowd<'_>, report: &mut Report) -> Result<()> {
    let processes = Processes::of(crowd.lab)?;
    let rows = [
        (
            [&processes.controllers, &[][..]],
            100.0,
            [
                "controller, resident",
                "controller, its share (PSS)",
                "controller, most ever",
            ],
        ),
        (
            [&processes.nodes, &processes.supervisors],
            40.0,
            ["node, resident", "node, its share (PSS)", "node, most ever"],
        ),
    ];
    for (processes, target, names) in rows {
        let mut all = Vec::new();
        for processes in processes {
            all.push(processes.iter().map(Process::memory).collect::<Result<Vec<_>>>()?);
        }
        let largest = |of: fn(&Memory) -> u64, some: &[Memory]| some.iter().map(of).max().unwrap_or_default();
        let most = |of| all.iter().map(|some| largest(of, some)).sum::<u64>() as f64 / 1e6;
        let values = [most(|one| one.resident), most(|one| one.share), most(|one| one.peak)];
        for ((name, value), target) in names.into_iter().zip(values).zip([Some(target), None, None]) {
            report.add(crowd.size, name, "MB", target, value);
        }
    }
    Ok(())
}
