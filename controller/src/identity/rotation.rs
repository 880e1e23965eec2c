//! How one CA follows another without anybody meeting a certificate of a CA he has not heard of. Pure: the time is an argument.
//!
//! A new one is published beside the old one and waits [`NOTICE`] before it signs anything. From then on the old one signs
//! nothing more, and is trusted for [`OVERLAP`]: by that time whatever it signed has ended or was replaced. All of it follows
//! from when the CAs were made, so that every replica comes to the same, whoever leads.

use std::time::Duration;

use jiff::Timestamp;

/// The kubelet brings a changed ConfigMap into pods within two minutes, and replicas read the Secret twice a minute.
pub(super) const NOTICE: Duration = Duration::from_mins(10);
/// Twice the life of a node's certificate. That of the controller is made anew at once.
pub(super) const OVERLAP: Duration = Duration::from_hours(48);
/// A CA that ends within a year is followed by a new one.
pub(super) const EARLY: Duration = Duration::from_hours(365 * 24);

/// From when to when a CA is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Term {
    pub(super) made: Timestamp,
    pub(super) ends: Timestamp,
}

/// What is to be done with the CAs, which stand in the order of their age.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    /// So many of the oldest are no longer needed.
    pub(super) drop: usize,
    /// A new one is to be made.
    pub(super) add: bool,
}

fn is_due(time: Timestamp, wait: Duration, now: Timestamp) -> bool {
    // One that lies beyond the end of time is not due.
    time.checked_add(wait).is_ok_and(|due| due <= now)
}

/// The CA that signs: the youngest that everybody has had time to hear of; the oldest if there is none.
pub(super) fn signer(terms: &[Term], now: Timestamp) -> usize {
    let is_known = |term: &Term| is_due(term.made, NOTICE, now);
    terms.iter().rposition(is_known).unwrap_or(0)
}

/// What is to be done now; `asked`: somebody wants a new one.
pub(super) fn step(terms: &[Term], asked: bool, now: Timestamp) -> Step {
    let signer = signer(terms, now);
    let is_over = |term: &Term| is_due(term.made, NOTICE + OVERLAP, now);
    let is_worn = |term: &Term| !now.checked_add(EARLY).is_ok_and(|then| then < term.ends);
    let pending = signer + 1 < terms.len();
    Step {
        drop: terms.get(signer).filter(|term| is_over(term)).map_or(0, |_| signer),
        add: !pending && (asked || terms.last().is_some_and(is_worn)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN_YEARS: Duration = Duration::from_hours(10 * 365 * 24);

    fn made(seconds: i64) -> Term {
        let made = Timestamp::from_second(1_800_000_000 + seconds).unwrap();
        Term {
            made,
            ends: made + TEN_YEARS,
        }
    }

    fn at(term: Term, wait: Duration) -> Timestamp {
        term.made + wait
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn one_alone_signs_from_the_first() {
        let only = made(0);
        assert_eq!(signer(&[only], at(only, Duration::ZERO)), 0);
        assert_eq!(
            step(&[only], false, at(only, TEN_YEARS - EARLY - SECOND)),
            Step::default()
        );
    }

    #[test]
    fn a_new_one_signs_when_everybody_knows_it_and_the_old_one_goes_when_nobody_needs_it() {
        let (old, new) = (made(0), made(100_000));
        let both = [old, new];
        let steps = [
            (Duration::ZERO, 0, 0),
            (NOTICE - SECOND, 0, 0),
            (NOTICE, 1, 0),
            (NOTICE + OVERLAP - SECOND, 1, 0),
            (NOTICE + OVERLAP, 1, 1),
        ];
        for (wait, signs, drop) in steps {
            let now = at(new, wait);
            assert_eq!(signer(&both, now), signs, "{wait:?}");
            assert_eq!(step(&both, false, now), Step { drop, add: false }, "{wait:?}");
        }
    }

    #[test]
    fn who_asks_gets_a_new_one_unless_one_is_on_its_way() {
        let (old, new) = (made(0), made(100_000));
        let add = |terms: &[Term], now| step(terms, true, now).add;
        assert!(add(&[old], at(old, Duration::ZERO)));
        assert!(!add(&[old, new], at(new, NOTICE - SECOND)));
        assert!(add(&[old, new], at(new, NOTICE)));
    }

    #[test]
    fn one_that_ends_within_a_year_is_followed_once() {
        let old = made(0);
        let now = at(old, TEN_YEARS - EARLY);
        assert_eq!(step(&[old], false, now), Step { drop: 0, add: true });
        let new = Term {
            made: now,
            ends: now + TEN_YEARS,
        };
        assert_eq!(step(&[old, new], false, now), Step::default());
        assert_eq!(step(&[old, new], false, now + NOTICE), Step::default());
    }
}
