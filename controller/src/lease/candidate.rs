//! The rule by which replicas hold the Lease. Pure.

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::LeaseSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use pierhead_protocol::pace;

/// Nobody else takes a Lease that was renewed within this time, as long as its holder may be alive.
pub(super) const DURATION: Duration = Duration::from_secs(15);
/// A leader that did not renew for so long stops leading.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

/// One replica's view of the Lease.
#[derive(Debug)]
pub(super) struct Candidate {
    identity: String,
    /// Who holds it in which renewal, and when that was first seen: other clocks are not to be trusted.
    seen: Option<(Option<LeaseSpec>, Instant)>,
    /// When it was last renewed by us.
    renewed: Option<Instant>,
}

/// What there is to go by.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    /// `None`: there is none.
    pub(super) lease: Option<&'a LeaseSpec>,
    /// When it was asked for: then it was so, by now it may be otherwise, and …
    pub(super) asked: Instant,
    /// … when the answer came.
    pub(super) now: Instant,
    /// The holder does not answer when it is asked itself.
    pub(super) is_silent: bool,
    /// For people.
    pub(super) time: Timestamp,
}

/// What is to be done with the Lease that was read.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// Write this.
    Take(Box<LeaseSpec>),
    Wait,
}

impl Candidate {
    pub(super) fn new(identity: &str) -> Self {
        Self {
            identity: identity.into(),
            seen: None,
            renewed: None,
        }
    }

    pub(super) fn leads(&self, now: Instant) -> bool {
        self.renewed.is_some_and(|at| now < at + DEADLINE)
    }

    /// When this replica stops leading unless it renews.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.renewed.map(|at| at + DEADLINE)
    }

    /// When the last change of the Lease was seen.
    pub(super) fn seen(&self) -> Option<Instant> {
        self.seen.as_ref().map(|(_, at)| *at)
    }

    /// When the holder, if it is another, comes under suspicion unless it renews.
    pub(super) fn suspicion(&self) -> Option<Instant> {
        let (lease, since) = self.seen.as_ref()?;
        let other = self.holder(lease.as_ref())?;
        (other != self.identity).then(|| *since + pace::SUSPICION)
    }

    fn holder<'a>(&self, lease: Option<&'a LeaseSpec>) -> Option<&'a str> {
        let holder = lease.and_then(|lease| lease.holder_identity.as_deref());
        holder.filter(|holder| !holder.is_empty())
    }

    /// What to do, with the Lease as it is now.
    ///
    /// Another's Lease is taken when it has run out, or when it was not renewed as it should have been and its holder gives no
    /// answer either. Each alone means nothing: an API server that is slow delays renewals, and who cannot be reached from here
    /// may lead all the same.
    pub(super) fn step(&mut self, view: View<'_>) -> Step {
        let View {
            lease,
            asked,
            now,
            is_silent,
            time,
        } = view;
        let holder = self.holder(lease);
        let own = holder == Some(&self.identity);
        if self.seen.as_ref().is_none_or(|(seen, _)| seen.as_ref() != lease) {
            self.seen = Some((lease.cloned(), now));
        }
        let since = self.seen.as_ref().map_or(now, |(_, at)| *at);
        let seconds = lease.and_then(|lease| lease.lease_duration_seconds).unwrap_or(0);
        let duration = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        if holder.is_some() && !own {
            self.renewed = None;
            let has_ended = asked >= since + duration;
            let is_dead = is_silent && asked >= since + pace::SUSPICION;
            if !has_ended && !is_dead {
                return Step::Wait;
            }
        }
        let transitions = lease.and_then(|lease| lease.lease_transitions).unwrap_or(0);
        let acquired = lease.and_then(|lease| lease.acquire_time.clone()).filter(|_| own);
        Step::Take(Box::new(LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: acquired.or(Some(MicroTime(time))),
            renew_time: Some(MicroTime(time)),
            lease_transitions: Some(if own {
                transitions
            } else {
                transitions.saturating_add(1)
            }),
            ..lease.cloned().unwrap_or_default()
        }))
    }

    /// It was written, by a request that began at `began`.
    pub(super) fn took(&mut self, spec: LeaseSpec, began: Instant) {
        self.renewed = Some(began);
        self.seen = Some((Some(spec), began));
    }

    /// What to write when we end; `None`: it is not ours.
    pub(super) fn release(&self, lease: &LeaseSpec, time: Timestamp) -> Option<LeaseSpec> {
        let own = lease.holder_identity.as_deref() == Some(&self.identity);
        own.then(|| LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(1),
            renew_time: Some(MicroTime(time)),
            ..lease.clone()
        })
    }
}
