//! What the end of a process that serves means: the end of all, or another one.

use std::fmt;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::Signal;

/// A process that lived this long was well: what killed it is not in its start.
const CALM: Duration = Duration::from_secs(10);
/// The first pause, doubled with each death in a row.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// So many that died in a row before they served are enough: whoever looks after this process is to see it.
const HOPELESS: u32 = 5;

/// How a process ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Death {
    pub(super) status: ExitStatus,
    pub(super) lived: Duration,
    /// It was told to end.
    pub(super) told: bool,
    /// It had been in charge.
    pub(super) served: bool,
    /// A successor had taken over from it.
    pub(super) left: bool,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// All is over, with this exit status.
    End(u8),
    /// Nothing is to be done any more, but whoever started this would start it again: wait to be told to end.
    Rest,
    /// Another one, after this pause.
    Again(Duration),
}

/// Deaths so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct History {
    deaths: u32,
    /// In a row, each after a short life.
    early: u32,
    /// In a row, each before it served.
    unborn: u32,
}

impl History {
    /// How often one was started again.
    pub(super) fn deaths(self) -> u32 {
        self.deaths
    }

    pub(super) fn judge(&mut self, death: &Death) -> Verdict {
        let signal = death.status.signal();
        let code = match (death.status.code(), signal) {
            (Some(code), _) => u8::try_from(code).unwrap_or(u8::MAX),
            // As shells say it.
            (None, signal) => u8::try_from(128 + signal.unwrap_or_default()).unwrap_or(u8::MAX),
        };
        if death.told {
            let asked = [Signal::TERM, Signal::INT].map(Signal::as_raw);
            let as_asked = signal.is_some_and(|signal| asked.contains(&signal));
            return Verdict::End(if as_asked { 0 } else { code });
        }
        if code == 0 {
            return Verdict::End(0);
        }
        if death.left {
            return Verdict::Rest;
        }
        // One that says why it cannot start will say it again.
        if signal.is_none() && !death.served {
            return Verdict::End(code);
        }
        self.unborn = if death.served { 0 } else { self.unborn + 1 };
        if self.unborn >= HOPELESS {
            return Verdict::End(code);
        }
        if death.lived >= CALM {
            self.early = 0;
        }
        let pause = match self.early {
            0 => Duration::ZERO,
            more => LONGEST_PAUSE.min(FIRST_PAUSE * 2_u32.saturating_pow(more - 1)),
        };
        self.early += 1;
        self.deaths += 1;
        Verdict::Again(pause)
    }
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => write!(f, "ended with exit status {code}")?,
            (None, Some(signal)) => write!(f, "was killed by signal {signal}")?,
            (None, None) => f.write_str("is gone")?,
        }
        write!(f, " after {:.1} s", self.lived.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As wait(2) has it.
    fn killed(signal: i32) -> ExitStatus {
        ExitStatus::from_raw(signal)
    }

    fn exited(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code << 8)
    }

    fn death(status: ExitStatus) -> Death {
        Death {
            status,
            lived: Duration::from_secs(60),
            told: false,
            served: true,
            left: false,
        }
    }

    fn judge(death: Death) -> Verdict {
        History::default().judge(&death)
    }

    #[test]
    fn one_that_is_killed_while_it_serves_is_followed_at_once() {
        for signal in [Signal::KILL, Signal::ABORT, Signal::SEGV, Signal::TERM] {
            assert_eq!(judge(death(killed(signal.as_raw()))), Verdict::Again(Duration::ZERO));
        }
        assert_eq!(judge(death(exited(101))), Verdict::Again(Duration::ZERO));
    }

    #[test]
    fn an_orderly_end_is_the_end() {
        assert_eq!(judge(death(exited(0))), Verdict::End(0));
        let told = |status| Death {
            told: true,
            ..death(status)
        };
        assert_eq!(judge(told(exited(0))), Verdict::End(0));
        assert_eq!(
            judge(told(killed(Signal::TERM.as_raw()))),
            Verdict::End(0),
            "before it could listen"
        );
        assert_eq!(judge(told(killed(Signal::KILL.as_raw()))), Verdict::End(137));
    }

    #[test]
    fn a_start_that_is_refused_is_the_end() {
        let refused = Death {
            served: false,
            lived: Duration::ZERO,
            ..death(exited(2))
        };
        assert_eq!(judge(refused), Verdict::End(2));
    }

    #[test]
    fn one_that_a_successor_took_over_from_is_followed_by_none() {
        let left = Death {
            left: true,
            ..death(killed(Signal::KILL.as_raw()))
        };
        assert_eq!(judge(left), Verdict::Rest);
        assert_eq!(
            judge(Death {
                status: exited(0),
                ..left
            }),
            Verdict::End(0)
        );
    }

    #[test]
    fn those_that_die_early_are_followed_ever_later_but_always() {
        let early = Death {
            lived: Duration::from_secs(1),
            ..death(killed(Signal::SEGV.as_raw()))
        };
        let mut history = History::default();
        let pauses: Vec<u64> = (0..9)
            .map(|_| match history.judge(&early) {
                Verdict::Again(pause) => u64::try_from(pause.as_millis()).unwrap(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(pauses, [0, 50, 100, 200, 400, 800, 1600, 2000, 2000]);
        assert_eq!(
            history.judge(&death(killed(Signal::SEGV.as_raw()))),
            Verdict::Again(Duration::ZERO)
        );
        assert_eq!(history.deaths(), 10);
    }

    #[test]
    fn those_that_never_serve_are_given_up() {
        let unborn = Death {
            served: false,
            lived: Duration::from_millis(10),
            ..death(killed(Signal::ABORT.as_raw()))
        };
        let mut history = History::default();
        for _ in 1..HOPELESS {
            assert!(matches!(history.judge(&unborn), Verdict::Again(_)));
        }
        assert_eq!(history.judge(&unborn), Verdict::End(134));
    }
}
