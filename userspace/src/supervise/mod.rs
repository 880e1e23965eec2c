//! Two processes: one that serves, and one that looks after it.
//!
//! The first process does nothing but start the second one, pass on what it is told (SIGTERM and the like), and start it
//! again at once when it dies: a kubelet takes more than a second for that. It has no threads, and it keeps the doors:
//! the sockets that steered connections come in by. They stay open while nobody serves, so connections that are made
//! meanwhile wait in the kernel for the next process instead of being refused.

mod line;
mod verdict;
mod ward;

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use pierhead_dataplane::WorkerSockets;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, WaitOptions, kill_process, wait};

use self::line::Line;
use self::verdict::{Death, History, Verdict};
pub(crate) use self::ward::Ward;

/// What an end is asked for by. The rest keeps its usual meaning for this process.
const TOLD: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP];

/// Runs this same command line again in a process of its own, and looks after it until it is over. `log`: starts the log,
/// once there is something to say.
///
/// # Errors
/// When no process can be started.
pub(crate) fn run(log: impl Fn()) -> Result<ExitCode> {
    let mut supervisor = Supervisor {
        signals: signals()?,
        doors: Vec::new(),
        told: false,
    };
    let mut history = History::default();
    loop {
        let started = Instant::now();
        let (child, line) = supervisor.start(history.deaths())?;
        let status = supervisor.until_gone(child)?;
        let said = line.hear();
        if !said.doors.is_empty() {
            supervisor.doors = said.doors;
        }
        let death = Death {
            status,
            lived: started.elapsed(),
            told: supervisor.told,
            served: said.serving,
            left: said.left,
        };
        let how = death.to_string();
        match history.judge(&death) {
            Verdict::End(code) => {
                if code != 0 {
                    log();
                    tracing::error!("the process that serves {how}; it is not started again");
                }
                return Ok(code.into());
            }
            Verdict::Rest => {
                log();
                tracing::error!("the process that serves {how}; a successor serves, so it is not started again");
                // Nobody accepts what waits there.
                supervisor.doors.clear();
                supervisor.told_within(None)?;
                return Ok(ExitCode::SUCCESS);
            }
            Verdict::Again(delay) => {
                log();
                tracing::error!(
                    "the process that serves {how}; it is started again in {} ms",
                    delay.as_millis()
                );
                if supervisor.told_within(Some(delay))? {
                    return Ok(ExitCode::SUCCESS);
                }
            }
        }
    }
}

struct Supervisor {
    signals: SignalFd,
    /// Of the process that serves, or served last.
    doors: Vec<WorkerSockets>,
    /// It was told to end.
    told: bool,
}

/// From here on they are read, not delivered.
fn signals() -> Result<SignalFd> {
    let mut all: SigSet = TOLD.into_iter().collect();
    all.add(Signal::SIGCHLD);
    all.thread_block().context("cannot block signals")?;
    SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).context("cannot read signals")
}

impl Supervisor {
    /// The same program and arguments, in a process group of its own: what a terminal sends comes here alone, and is
    /// passed on once.
    fn start(&self, deaths: u32) -> Result<(Pid, Line)> {
        let (line, other) = Line::pair().context("cannot make a socket")?;
        for doors in &self.doors {
            // What does not get through is opened anew.
            let _ = line.pass(doors);
        }
        let mut words = std::env::args_os();
        let name = words.next().unwrap_or_else(|| OsString::from("pierhead"));
        let child = Command::new("/proc/self/exe")
            .arg0(name)
            .args(words)
            .args(Ward::arguments(std::process::id(), deaths))
            .stdin(Stdio::from(other))
            .process_group(0)
            .spawn()
            .context("cannot start the process that serves")?;
        Ok((Pid::from_child(&child), line))
    }

    /// Passes on what it is told until this process is gone. Others that end here are orphans.
    fn until_gone(&mut self, child: Pid) -> Result<ExitStatus> {
        loop {
            self.readable(None)?;
            while let Some(signal) = self.next()? {
                let Some(signal) = passed_on(signal) else { continue };
                self.told = true;
                // It may be gone already.
                let _ = kill_process(child, signal);
            }
            while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
                if pid == child {
                    return Ok(ExitStatus::from_raw(status.as_raw()));
                }
            }
        }
    }

    /// Waits until it is told to end, but not longer than this. Whether it was.
    fn told_within(&mut self, patience: Option<Duration>) -> Result<bool> {
        let deadline = patience.map(|patience| Instant::now() + patience);
        loop {
            while let Some(signal) = self.next()? {
                self.told |= passed_on(signal).is_some();
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if self.told || left == Some(Duration::ZERO) {
                return Ok(self.told);
            }
            self.readable(left)?;
        }
    }

    fn readable(&self, patience: Option<Duration>) -> Result<()> {
        let patience = patience.map(Timespec::try_from).transpose()?;
        let mut signals = [PollFd::new(&self.signals, PollFlags::IN)];
        match poll(&mut signals, patience.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error).context("cannot wait for signals"),
        }
    }

    fn next(&self) -> Result<Option<Signal>> {
        let info = self.signals.read_signal().context("cannot read a signal")?;
        Ok(info.and_then(|info| Signal::try_from(info.ssi_signo.cast_signed()).ok()))
    }
}

/// As what a signal reaches the process that serves; `None`: it is not for it. A terminal that is gone is a polite end.
fn passed_on(signal: Signal) -> Option<rustix::process::Signal> {
    match signal {
        Signal::SIGTERM | Signal::SIGHUP => Some(rustix::process::Signal::TERM),
        Signal::SIGINT => Some(rustix::process::Signal::INT),
        Signal::SIGQUIT => Some(rustix::process::Signal::QUIT),
        _ => None,
    }
}
