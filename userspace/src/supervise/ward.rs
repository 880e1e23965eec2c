//! The process that is looked after, as it sees the one that looks after it.

use std::ffi::OsString;

use anyhow::{Result, ensure};
use nix::sys::signal::SigSet;
use pierhead_dataplane::WorkerSockets;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use super::line::Line;
use crate::cli::Supervised;

/// Says what the supervisor must know, if there is one.
#[derive(Debug)]
pub(crate) struct Ward {
    line: Option<Line<std::io::Stdin>>,
    /// The process that served before this one died so often.
    pub(crate) deaths: u32,
    doors: Vec<WorkerSockets>,
}

impl Ward {
    /// What the supervisor adds to the command line.
    pub(super) fn arguments(supervisor: u32, deaths: u32) -> [OsString; 2] {
        [
            format!("--supervised-by={supervisor}").into(),
            format!("--deaths={deaths}").into(),
        ]
    }

    /// Call it before there are threads: signals that the supervisor blocks for itself are for this process.
    ///
    /// # Errors
    /// When the supervisor is gone already.
    pub(crate) fn begin(options: &Supervised) -> Result<Self> {
        let Some(supervisor) = options.supervised_by else {
            return Ok(Self {
                line: None,
                deaths: 0,
                doors: Vec::new(),
            });
        };
        SigSet::all().thread_unblock()?;
        // Without it this process drains and ends: whoever looked after both would start another pair.
        set_parent_process_death_signal(Some(Signal::TERM))?;
        let parent = getppid().map_or(0, |pid| pid.as_raw_pid());
        ensure!(
            u32::try_from(parent).ok() == Some(supervisor),
            "the process that looks after this one, {supervisor}, is gone"
        );
        let line = Line::own();
        Ok(Self {
            doors: line.hear().doors,
            line: Some(line),
            deaths: options.deaths,
        })
    }

    /// Another one served before it, in the same place.
    pub(crate) fn is_again(&self) -> bool {
        self.deaths > 0
    }

    /// The doors that were kept open, once.
    pub(crate) fn take_doors(&mut self) -> Vec<WorkerSockets> {
        std::mem::take(&mut self.doors)
    }

    /// This process is in charge, and connections come in by these.
    pub(crate) fn serving(&self, doors: &[WorkerSockets]) {
        let Some(line) = &self.line else { return };
        let said = doors.iter().try_for_each(|doors| line.pass(doors));
        if let Err(error) = said.and_then(|()| line.serving()) {
            tracing::warn!("if this process dies, connections are refused until the next one serves: {error}");
        }
    }

    /// A successor has taken over from this process: no other is to take its place.
    pub(crate) fn left(&self) {
        let Some(line) = &self.line else { return };
        if let Err(error) = line.left() {
            tracing::warn!("the process that looks after this one cannot be told of the successor: {error}");
        }
    }
}
