//! Which replica leads: the holder of a Lease, as long as it can renew it.
//!
//! [`candidate`] is the rule and pure; the [`witness`] asks the holder itself; [`run`] makes the requests. A leader that cannot
//! renew stops leading before its Lease runs out, by its own clock alone; one whose Lease another has taken stops when it next
//! looks; one that is told to end gives the Lease back, so that the next need not wait.

mod candidate;
mod witness;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};
use pierhead_protocol::pace;
use tokio::sync::{oneshot, watch};

use self::candidate::{Candidate, DURATION, Step, View};
use self::witness::Witness;
use crate::counters::{Counters, count};

/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Of the Lease: who holds it, and where that one is to be asked. A holder that does not write it is not asked, whatever stands
/// there of another.
const WHERE: &str = "pierhead.dev/holder";

/// What the Lease is called, and who we are.
pub(crate) struct Candidacy {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) lease: String,
    pub(crate) identity: String,
    /// Where others may ask whether this replica is alive; `None`: they cannot, and wait until its Lease has run out.
    pub(crate) address: Option<SocketAddr>,
    pub(crate) counters: Arc<Counters>,
}

/// Whether this replica leads, and since when it could.
#[derive(Debug)]
pub(crate) struct Leads {
    pub(crate) leads: watch::Sender<bool>,
    /// Since when nodes can have been looking for another leader, at the latest. `None`: the last one gave the Lease back, and told
    /// the nodes so. Set before the other.
    pub(crate) orphaned: watch::Sender<Option<Instant>>,
}

/// Competes until `stop`; tells `leads` whenever that changes. Gives the Lease back at the end.
pub(crate) async fn run(candidacy: Candidacy, leads: Leads, mut stop: oneshot::Receiver<()>) {
    let api = Api::<Lease>::namespaced(candidacy.client.clone(), &candidacy.namespace);
    let mut race = Race {
        candidate: Candidate::new(&candidacy.identity),
        api,
        candidacy,
        witness: Witness::start(),
        leads,
        failures: 0,
    };
    loop {
        let began = Instant::now();
        let turn = tokio::time::timeout(PATIENCE, race.turn());
        let result = tokio::select! {
            result = turn => result.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}"))),
            _ = &mut stop => break,
        };
        let pause = race.note(result);
        race.tell();
        let mut next = began + pause;
        if let Some(suspicion) = race.candidate.suspicion().filter(|at| *at > Instant::now()) {
            next = next.min(suspicion);
        }
        // A leader's deadline falls between two attempts.
        let deadline = race.candidate.deadline().filter(|at| *at < next);
        if let Some(deadline) = deadline {
            tokio::select! {
                () = tokio::time::sleep_until(deadline.into()) => race.tell(),
                _ = &mut stop => break,
            }
        }
        tokio::select! {
            () = tokio::time::sleep_until(next.into()) => {}
            _ = &mut stop => break,
        }
    }
    race.end().await;
}

struct Race {
    candidacy: Candidacy,
    api: Api<Lease>,
    candidate: Candidate,
    witness: Witness,
    leads: Leads,
    /// In a row.
    failures: u32,
}

/// Whether its last holder gave it back.
fn is_given_back(lease: &Lease) -> bool {
    let spec = lease.spec.as_ref();
    let holder = spec.and_then(|spec| spec.holder_identity.as_deref());
    spec.is_some() && holder.is_none_or(str::is_empty)
}

/// See [`Leads::orphaned`]. Who starts, and finds a Lease of its own or none, knows nothing of the leader before: nodes may have
/// been without one for long, and try ever more rarely.
fn orphaned(given_back: bool, alive: Option<Instant>, now: Instant) -> Option<Instant> {
    match given_back {
        true => None,
        false => Some(alive.unwrap_or(now)),
    }
}

/// What came of a turn.
enum Outcome {
    Written,
    Waiting,
    /// Another was faster: it is to be seen at once who.
    Conflict,
}

impl Race {
    /// How long until the next turn.
    fn note(&mut self, result: Result<Outcome, String>) -> Duration {
        let outcome = match result {
            Ok(outcome) => outcome,
            Err(why) => {
                count(&self.candidacy.counters.lease_errors);
                if self.failures.is_multiple_of(30) {
                    let Candidacy { namespace, lease, .. } = &self.candidacy;
                    tracing::warn!("cannot renew or read Lease {namespace}/{lease}: {why}");
                }
                self.failures = self.failures.saturating_add(1);
                return pace::RENEWAL;
            }
        };
        self.failures = 0;
        match outcome {
            Outcome::Written => pace::RENEWAL,
            Outcome::Waiting => pace::LOOK,
            Outcome::Conflict => Duration::ZERO,
        }
    }

    fn tell(&self) {
        let now = self.candidate.leads(Instant::now());
        self.candidacy.counters.leader.store(now, Ordering::Relaxed);
        let identity = &self.candidacy.identity;
        self.leads.leads.send_if_modified(|before| {
            if *before != now {
                match now {
                    true => tracing::info!("{identity} leads now"),
                    false => tracing::warn!("{identity} no longer leads"),
                }
            }
            std::mem::replace(before, now) != now
        });
    }

    async fn turn(&mut self) -> Result<Outcome, String> {
        let asked = Instant::now();
        let found = self.api.get_opt(&self.candidacy.lease).await;
        let found = found.map_err(|error| error.to_string())?;
        let now = Instant::now();
        let other = found.as_ref().and_then(|lease| self.other(lease));
        self.witness.ask(other);
        let seen = self.witness.seen();
        // It renewed at most one look before that was seen.
        let renewed = self.candidate.seen().and_then(|at| at.checked_sub(pace::LOOK));
        let led = self.candidate.leads(now);
        let spec = found.as_ref().and_then(|lease| lease.spec.as_ref());
        let step = self.candidate.step(View {
            lease: spec,
            asked,
            now,
            is_silent: other.is_some_and(|other| seen.is_silent(other)),
            time: Timestamp::now(),
        });
        let Step::Take(spec) = step else {
            return Ok(Outcome::Waiting);
        };
        let given_back = found.as_ref().is_some_and(is_given_back);
        let lease = Lease {
            metadata: self.metadata(found.as_ref()),
            spec: Some(*spec),
        };
        let params = PostParams::default();
        let name = &self.candidacy.lease;
        let written = match found {
            Some(_) => self.api.replace(name, &params, &lease).await,
            None => self.api.create(&params, &lease).await,
        };
        match written {
            Ok(written) => {
                count(&self.candidacy.counters.lease_renewals);
                self.candidate.took(written.spec.unwrap_or_default(), now);
                if !led {
                    let alive = seen.answered.max(renewed);
                    self.leads
                        .orphaned
                        .send_replace(orphaned(given_back, other.and(alive), now));
                }
                self.witness.ask(None);
                Ok(Outcome::Written)
            }
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Outcome::Conflict),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Where its holder is to be asked, if it is another.
    fn other(&self, lease: &Lease) -> Option<SocketAddr> {
        let holder = lease.spec.as_ref()?.holder_identity.as_deref()?;
        let (identity, address) = lease.metadata.annotations.as_ref()?.get(WHERE)?.split_once(' ')?;
        (identity == holder && identity != self.candidacy.identity).then(|| address.parse().ok())?
    }

    /// With the resource version: of several who try one succeeds.
    fn metadata(&self, found: Option<&Lease>) -> ObjectMeta {
        let Candidacy {
            namespace,
            lease,
            identity,
            address,
            ..
        } = &self.candidacy;
        let mut metadata = match found {
            Some(found) => found.metadata.clone(),
            None => ObjectMeta {
                name: Some(lease.clone()),
                namespace: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
        };
        let annotations: &mut BTreeMap<_, _> = metadata.annotations.get_or_insert_default();
        match address {
            Some(address) => _ = annotations.insert(WHERE.to_owned(), format!("{identity} {address}")),
            None => _ = annotations.remove(WHERE),
        }
        metadata
    }

    async fn end(self) {
        let led = self.candidate.leads(Instant::now());
        self.leads.leads.send_replace(false);
        self.candidacy.counters.leader.store(false, Ordering::Relaxed);
        if !led {
            return;
        }
        match tokio::time::timeout(PATIENCE, self.release()).await {
            Ok(Ok(())) => tracing::info!("gave the Lease back"),
            Ok(Err(why)) => tracing::warn!("cannot give the Lease back: {why}; the next leader waits for {DURATION:?}"),
            Err(_) => tracing::warn!("cannot give the Lease back in time; the next leader waits for {DURATION:?}"),
        }
    }

    async fn release(&self) -> Result<(), String> {
        let Self {
            api,
            candidacy,
            candidate,
            ..
        } = self;
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
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::coordination::v1::LeaseSpec;

    use super::*;

    #[test]
    fn nodes_are_waited_for_less_only_after_a_lease_that_was_given_back() {
        let now = Instant::now();
        let before = now.checked_sub(Duration::from_secs(1));
        let held_by = |holder: Option<&str>| Lease {
            spec: Some(LeaseSpec {
                holder_identity: holder.map(str::to_owned),
                ..LeaseSpec::default()
            }),
            ..Lease::default()
        };
        let of = |lease: Option<Lease>, alive| orphaned(lease.as_ref().is_some_and(is_given_back), alive, now);
        assert_eq!(of(Some(held_by(Some(""))), None), None, "given back");
        assert_eq!(of(Some(held_by(None)), None), None, "given back");
        assert_eq!(of(Some(held_by(Some("another"))), before), before, "another died");
        assert_eq!(
            of(Some(held_by(Some("another"))), None),
            Some(now),
            "nobody saw it alive"
        );
        assert_eq!(
            of(Some(held_by(Some("this"))), None),
            Some(now),
            "this one, before it was started again"
        );
        assert_eq!(of(Some(Lease::default()), None), Some(now), "an empty one");
        assert_eq!(of(None, None), Some(now), "the first of all");
    }
}
