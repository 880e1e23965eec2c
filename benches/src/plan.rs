//! What to run, how long and how often.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

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
    /// Which candidates were asked for, by name; all that a rig knows but [`BARE`] when empty.
    peers: Vec<String>,
    /// The candidates of the rig that is run, in its order.
    pub(crate) candidates: Vec<&'static str>,
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
            candidates: Vec::new(),
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

    /// The plan for rigs that know these candidates each, so that each of those asked for is known to one of them. `None` for a
    /// rig that knows none of them.
    ///
    /// # Errors
    /// No rig knows one of them.
    pub(crate) fn among(&self, rigs: &[&[&'static str]]) -> Result<Vec<Option<Self>>> {
        let known: BTreeSet<_> = rigs.iter().copied().flatten().copied().collect();
        for name in &self.peers {
            ensure!(
                known.contains(name.as_str()),
                "no candidate {name}; known: {}",
                Vec::from_iter(known).join(", ")
            );
        }
        let plans = rigs.iter().map(|known| {
            let candidates: Vec<_> = known
                .iter()
                .copied()
                .filter(|name| match self.peers.is_empty() {
                    true => *name != BARE,
                    false => self.peers.iter().any(|asked| asked == name),
                })
                .collect();
            (!candidates.is_empty()).then(|| Self {
                candidates,
                ..self.clone()
            })
        });
        Ok(plans.collect())
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]
    use super::*;

    fn among(words: &[&str], rigs: &[&[&'static str]]) -> Result<Vec<Option<Vec<&'static str>>>> {
        let plan = Plan::from_args(words.iter().map(|word| (*word).to_owned()))?;
        Ok(plan
            .among(rigs)?
            .into_iter()
            .map(|plan| Some(plan?.candidates))
            .collect())
    }

    const HTTP: &[&str] = &["pierhead", "nginx", BARE];
    const L4: &[&str] = &["pierhead", "pierhead off", "nft dnat"];

    #[test]
    fn each_rig_takes_those_it_knows() {
        assert_eq!(
            among(&["all"], &[HTTP, L4]).unwrap(),
            [Some(vec!["pierhead", "nginx"]), Some(L4.to_vec())]
        );
        assert_eq!(
            among(&["all", "--peers", "bare,nginx"], &[HTTP, L4]).unwrap(),
            [Some(vec!["nginx", BARE]), None]
        );
    }

    #[test]
    fn who_is_known_to_none_is_an_error() {
        assert!(among(&["all", "--peers", "nginx,ngnix"], &[HTTP, L4]).is_err());
        assert!(among(&["l4", "--peers", "nginx"], &[L4]).is_err());
    }
}
