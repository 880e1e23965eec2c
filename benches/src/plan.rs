//! What to run, how long and how often.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};

use crate::peers::BARE;

/// The words of the command line.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) rig: String,
    /// Measured rounds, after one that warms up.
    pub(crate) rounds: usize,
    /// Of each candidate in each round.
    pub(crate) seconds: Duration,
    /// Which candidates, by name; all that the rig knows but [`BARE`] when empty.
    pub(crate) peers: Vec<String>,
    /// Part of the title of the scenarios to run; all when empty.
    pub(crate) only: String,
    /// Folder for `<rig>.json` and `<rig>.svg`.
    pub(crate) out: Option<PathBuf>,
    /// The file of counters to be held against.
    pub(crate) baseline: Option<PathBuf>,
    /// Write counters there instead.
    pub(crate) update: bool,
    /// The Envoy binary.
    pub(crate) envoy: PathBuf,
}

impl Plan {
    pub(crate) fn from_args(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut plan = Self {
            rig: arguments.next().unwrap_or_default(),
            rounds: 5,
            seconds: Duration::from_secs(2),
            peers: Vec::new(),
            only: String::new(),
            out: None,
            baseline: None,
            update: false,
            envoy: "envoy".into(),
        };
        while let Some(flag) = arguments.next() {
            let mut value = || arguments.next().with_context(|| format!("{flag} needs a value"));
            match flag.as_str() {
                "--rounds" => plan.rounds = value()?.parse()?,
                "--seconds" => plan.seconds = Duration::from_secs_f64(value()?.parse()?),
                "--peers" => plan.peers = value()?.split(',').map(str::to_owned).collect(),
                "--only" => plan.only = value()?,
                "--out" => plan.out = Some(value()?.into()),
                "--baseline" => plan.baseline = Some(value()?.into()),
                "--update" => plan.update = true,
                "--envoy" => plan.envoy = value()?.into(),
                other => bail!(
                    "unknown flag {other}; known: --rounds --seconds --peers --only --out --baseline --update --envoy"
                ),
            }
        }
        ensure!(plan.rounds > 0, "at least one round");
        Ok(plan)
    }

    /// The candidates of a rig that were asked for, in the rig's order.
    pub(crate) fn candidates<'a>(&self, known: &[&'a str]) -> Result<Vec<&'a str>> {
        for name in &self.peers {
            ensure!(
                known.contains(&name.as_str()),
                "no candidate {name}; known: {}",
                known.join(" ")
            );
        }
        Ok(known
            .iter()
            .copied()
            .filter(|name| match self.peers.is_empty() {
                true => *name != BARE,
                false => self.peers.iter().any(|asked| asked == name),
            })
            .collect())
    }

    /// How long a candidate is measured in this round; round 0 warms up.
    pub(crate) fn time_of(&self, round: usize) -> Duration {
        if round == 0 {
            self.seconds.min(Duration::from_secs(1))
        } else {
            self.seconds
        }
    }

    /// Whether a scenario was asked for.
    pub(crate) fn wants(&self, title: &str) -> bool {
        title.contains(&self.only)
    }
}
