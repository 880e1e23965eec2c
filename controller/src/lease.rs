//! Which replica leads: the holder of a Lease, as long as it can renew it.
//!
//! [`Candidate`] is the rule and pure; [`run`] makes the requests. A leader that cannot renew stops leading before anybody
//! else may begin, by its own clock alone; one that is told to end gives the Lease back, so that the next need not wait.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::{oneshot, watch};

use crate::counters::{Counters, count};

/// Nobody else takes a Lease that was renewed within this time.
const DURATION: Duration = Duration::from_secs(15);
/// A leader that did not renew for so long stops leading.
const DEADLINE: Duration = Duration::from_secs(10);
/// Between renewals, and …
const RENEW: Duration = Duration::from_secs(2);
/// … between looks of those that wait.
const LOOK: Duration = Duration::from_secs(1);

/// One replica's view of the Lease.
#[derive(Debug)]
struct Candidate {
    identity: String,
    /// Who holds it in which renewal, and when that was first seen: other clocks are not to be trusted.
    seen: Option<(Option<LeaseSpec>, Instant)>,
    /// When it was last renewed by us.
    renewed: Option<Instant>,
}

/// What is to be done with the Lease that was read.
#[derive(Debug, PartialEq)]
enum Step {
    /// Write this.
    Take(Box<LeaseSpec>),
    Wait,
}

impl Candidate {
    fn new(identity: &str) -> Self {
        Self {
            identity: identity.into(),
            seen: None,
            renewed: None,
        }
    }

    fn leads(&self, now: Instant) -> bool {
        self.renewed.is_some_and(|at| now < at + DEADLINE)
    }

    /// What to do, with the Lease as it is now; `None`: there is none.
    fn step(&mut self, lease: Option<&LeaseSpec>, now: Instant, time: Timestamp) -> Step {
        let holder = lease
            .and_then(|lease| lease.holder_identity.as_deref())
            .filter(|holder| !holder.is_empty());
        let own = holder == Some(&self.identity);
        if self.seen.as_ref().is_none_or(|(seen, _)| seen.as_ref() != lease) {
            self.seen = Some((lease.cloned(), now));
        }
        let since = self.seen.as_ref().map_or(now, |(_, at)| *at);
        let seconds = lease.and_then(|lease| lease.lease_duration_seconds).unwrap_or(0);
        let duration = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        if holder.is_some() && !own {
            self.renewed = None;
            if now < since + duration {
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
    fn took(&mut self, spec: LeaseSpec, began: Instant) {
        self.renewed = Some(began);
        self.seen = Some((Some(spec), began));
    }

    /// What to write when we end; `None`: it is not ours.
    fn release(&self, lease: &LeaseSpec, time: Timestamp) -> Option<LeaseSpec> {
        let own = lease.holder_identity.as_deref() == Some(&self.identity);
        own.then(|| LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(1),
            renew_time: Some(MicroTime(time)),
            ..lease.clone()
        })
    }
}

/// What the Lease is called, and who we are.
pub(crate) struct Candidacy {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) lease: String,
    pub(crate) identity: String,
    pub(crate) counters: Arc<Counters>,
}

/// Competes until `stop`; tells `leads` whenever that changes. Gives the Lease back at the end.
pub(crate) async fn run(candidacy: Candidacy, leads: watch::Sender<bool>, mut stop: oneshot::Receiver<()>) {
    let api = Api::<Lease>::namespaced(candidacy.client.clone(), &candidacy.namespace);
    let mut candidate = Candidate::new(&candidacy.identity);
    let mut silent_failures = 0_u32;
    loop {
        let began = Instant::now();
        let attempt = tokio::time::timeout(RENEW, attempt(&api, &candidacy, &mut candidate));
        let result = tokio::select! {
            result = attempt => result.unwrap_or_else(|_| Err(format!("no answer within {RENEW:?}"))),
            _ = &mut stop => break,
        };
        match result {
            Ok(()) => silent_failures = 0,
            Err(why) => {
                count(&candidacy.counters.lease_errors);
                if silent_failures.is_multiple_of(30) {
                    tracing::warn!(
                        "cannot renew or read Lease {}/{}: {why}",
                        candidacy.namespace,
                        candidacy.lease
                    );
                }
                silent_failures = silent_failures.saturating_add(1);
            }
        }
        tell(&candidate, &candidacy, &leads);
        // A leader's deadline falls between two attempts.
        let pause = if candidate.leads(Instant::now()) { RENEW } else { LOOK };
        let next = began + pause;
        let deadline = candidate.renewed.map(|at| at + DEADLINE).filter(|at| *at < next);
        if let Some(deadline) = deadline {
            tokio::select! {
                () = tokio::time::sleep_until(deadline.into()) => tell(&candidate, &candidacy, &leads),
                _ = &mut stop => break,
            }
        }
        tokio::select! {
            () = tokio::time::sleep_until(next.into()) => {}
            _ = &mut stop => break,
        }
    }
    let led = candidate.leads(Instant::now());
    leads.send_replace(false);
    candidacy.counters.leader.store(false, Ordering::Relaxed);
    if led {
        let released = tokio::time::timeout(RENEW, release(&api, &candidacy, &candidate)).await;
        match released {
            Ok(Ok(())) => tracing::info!("gave the Lease back"),
            Ok(Err(why)) => tracing::warn!("cannot give the Lease back: {why}; the next leader waits for {DURATION:?}"),
            Err(_) => tracing::warn!("cannot give the Lease back in time; the next leader waits for {DURATION:?}"),
        }
    }
}

fn tell(candidate: &Candidate, candidacy: &Candidacy, leads: &watch::Sender<bool>) {
    let now = candidate.leads(Instant::now());
    candidacy.counters.leader.store(now, Ordering::Relaxed);
    leads.send_if_modified(|before| {
        if *before != now {
            match now {
                true => tracing::info!("{} leads now", candidacy.identity),
                false => tracing::warn!("{} no longer leads", candidacy.identity),
            }
        }
        std::mem::replace(before, now) != now
    });
}

async fn attempt(api: &Api<Lease>, candidacy: &Candidacy, candidate: &mut Candidate) -> Result<(), String> {
    let found = api.get_opt(&candidacy.lease).await.map_err(|error| error.to_string())?;
    let spec = found.as_ref().and_then(|lease| lease.spec.clone());
    let began = Instant::now();
    let Step::Take(spec) = candidate.step(spec.as_ref(), began, Timestamp::now()) else {
        return Ok(());
    };
    let lease = Lease {
        metadata: match &found {
            // With the resource version: of several who try one succeeds.
            Some(found) => found.metadata.clone(),
            None => ObjectMeta {
                name: Some(candidacy.lease.clone()),
                namespace: Some(candidacy.namespace.clone()),
                ..ObjectMeta::default()
            },
        },
        spec: Some(*spec),
    };
    let params = PostParams::default();
    let written = match found {
        Some(_) => api.replace(&candidacy.lease, &params, &lease).await,
        None => api.create(&params, &lease).await,
    };
    match written {
        Ok(written) => {
            count(&candidacy.counters.lease_renewals);
            candidate.took(written.spec.unwrap_or_default(), began);
            Ok(())
        }
        // Another was faster.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

async fn release(api: &Api<Lease>, candidacy: &Candidacy, candidate: &Candidate) -> Result<(), String> {
    let lease = api.get(&candidacy.lease).await.map_err(|error| error.to_string())?;
    let spec = lease.spec.clone().unwrap_or_default();
    let Some(spec) = candidate.release(&spec, Timestamp::now()) else {
        return Ok(());
    };
    let lease = Lease {
        spec: Some(spec),
        ..lease
    };
    let written = api.replace(&candidacy.lease, &PostParams::default(), &lease).await;
    written.map(drop).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cluster with a Lease and clocks.
    struct Rig {
        start: Instant,
        elapsed: Duration,
        lease: Option<LeaseSpec>,
    }

    impl Rig {
        fn new() -> Self {
            Self {
                start: Instant::now(),
                elapsed: Duration::ZERO,
                lease: None,
            }
        }

        fn now(&self) -> Instant {
            self.start + self.elapsed
        }

        fn time(&self) -> Timestamp {
            Timestamp::UNIX_EPOCH + self.elapsed
        }

        /// The candidate looks, and writes if it may. Whether it leads then.
        fn turn(&mut self, candidate: &mut Candidate) -> bool {
            let step = candidate.step(self.lease.as_ref(), self.now(), self.time());
            if let Step::Take(spec) = step {
                self.lease = Some((*spec).clone());
                candidate.took(*spec, self.now());
            }
            candidate.leads(self.now())
        }

        fn after(&mut self, seconds: u64) -> &mut Self {
            self.elapsed += Duration::from_secs(seconds);
            self
        }
    }

    #[test]
    fn the_first_leads_and_the_others_wait_as_long_as_it_renews() {
        let (mut a, mut b) = (Candidate::new("a"), Candidate::new("b"));
        let mut rig = Rig::new();
        assert!(rig.turn(&mut a));
        let acquired = rig.lease.clone().unwrap().acquire_time;
        for _ in 0..30 {
            rig.after(2);
            assert!(!rig.turn(&mut b));
            assert!(rig.turn(&mut a));
        }
        let lease = rig.lease.unwrap();
        assert_eq!((lease.lease_transitions, lease.acquire_time), (Some(1), acquired));
    }

    #[test]
    fn a_leader_that_cannot_renew_stops_before_another_begins() {
        let (mut a, mut b) = (Candidate::new("a"), Candidate::new("b"));
        let mut rig = Rig::new();
        rig.turn(&mut a);
        assert!(!rig.turn(&mut b));
        for second in 1..=14 {
            rig.after(1);
            assert!(!rig.turn(&mut b), "after {second} s");
            assert_eq!(a.leads(rig.now()), second < 10, "after {second} s");
        }
        rig.after(1);
        assert!(rig.turn(&mut b));
        assert!(!rig.turn(&mut a));
        assert_eq!(rig.lease.unwrap().lease_transitions, Some(2));
    }

    #[test]
    fn a_lease_that_was_given_back_is_taken_at_once() {
        let (mut a, mut b) = (Candidate::new("a"), Candidate::new("b"));
        let mut rig = Rig::new();
        rig.turn(&mut a);
        assert!(!rig.turn(&mut b));
        assert_eq!(b.release(rig.lease.as_ref().unwrap(), rig.time()), None);
        rig.lease = a.release(rig.lease.as_ref().unwrap(), rig.time());
        assert!(rig.after(1).turn(&mut b));
    }

    #[test]
    fn a_replica_that_starts_again_under_its_name_goes_on() {
        let mut a = Candidate::new("a");
        let mut rig = Rig::new();
        rig.turn(&mut a);
        let mut again = Candidate::new("a");
        assert!(rig.after(1).turn(&mut again));
        assert_eq!(rig.lease.unwrap().lease_transitions, Some(1));
    }
}
