//! The node's way to its controller: it proves itself, receives changes, says what became of them, and comes back whenever
//! the way breaks. What is in force does not depend on it.

mod backoff;
mod dial;
mod identity;
mod link;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use jiff::Timestamp;
use pierhead_model::{DataPathReport, Snapshot};
use pierhead_protocol::{Client, DeltaRequest, DeltaResponse, Received, ResourceId, SnapshotsClient};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, interval, sleep, sleep_until, timeout};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Status};

use self::backoff::Backoff;
pub(crate) use self::dial::Target;
use self::identity::{Credentials, Store};
pub(crate) use self::link::Link;
use self::link::State;

/// How long the controller may take to open the stream.
const OPENING: Duration = Duration::from_secs(10);
/// How often it is asked anew where replicas of the controller are, while one of them is there.
const NAMES: Duration = Duration::from_secs(5);
/// How often a change is made smaller by what cannot be used of it, before it is left at that.
const ATTEMPTS: usize = 3;
/// How often a renewal of the certificate that failed is tried again.
const RENEWAL: Duration = Duration::from_secs(60);
/// After so many failures in a row the certificate is made anew: the controller may have another CA now.
const SUSPICION: u32 = 3;

/// What the uplink must know.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) target: Target,
    /// The node's name.
    pub(crate) node: String,
    /// The files with the ServiceAccount token and the controller's CA.
    pub(crate) token: PathBuf,
    pub(crate) ca: PathBuf,
    /// Where the node's key is kept.
    pub(crate) folder: PathBuf,
}

/// A snapshot to put in force, and where to say how that went.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) done: oneshot::Sender<Done>,
}

/// How it went.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) facts: Facts,
    /// What could not be used, and why: it keeps its old state.
    pub(crate) refused: Vec<(ResourceId, String)>,
}

/// What a node says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// What carries each bind.
    pub(crate) paths: Vec<DataPathReport>,
    /// By which this machine is reached.
    pub(crate) addresses: Vec<IpAddr>,
}

/// The way, kept until it is dropped.
#[derive(Debug)]
pub(crate) struct Uplink {
    /// One at a time: the next comes when this one is done.
    pub(crate) changes: mpsc::Receiver<Change>,
    pub(crate) link: watch::Receiver<Link>,
    facts: watch::Sender<Facts>,
    task: AbortHandle,
}

impl Uplink {
    /// Starts on the current runtime. `kept`: what the node has from its disk.
    pub(crate) fn start(options: Options, kept: Option<&Arc<Snapshot>>) -> Self {
        let mut client = Client::new(&options.node, env!("CARGO_PKG_VERSION"));
        if let Some(kept) = kept {
            client = client.with_snapshot(kept);
        }
        let (changes, receiver) = mpsc::channel(1);
        let (link, linked) = watch::channel(Link {
            controller: options.target.to_string(),
            ..Link::default()
        });
        let (facts, fresh) = watch::channel(Facts::default());
        let way = Way {
            store: Store::new(&options.folder),
            options,
            client,
            credentials: None,
            failures: 0,
            changes,
            link,
            facts: fresh,
        };
        let task = tokio::spawn(way.keep()).abort_handle();
        Self {
            changes: receiver,
            link: linked,
            facts,
            task,
        }
    }

    /// Reports what changed, if anything did.
    pub(crate) fn report(&self, facts: Facts) {
        self.facts.send_if_modified(|told| {
            let is_new = *told != facts;
            *told = facts;
            is_new
        });
    }
}

impl Drop for Uplink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whether a controller says that it only stands by.
fn is_of_standby(status: &Status) -> bool {
    status.code() == Code::Unavailable && status.message().contains("not the leader")
}

struct Way {
    options: Options,
    client: Client,
    store: Store,
    credentials: Option<Credentials>,
    /// In a row.
    failures: u32,
    changes: mpsc::Sender<Change>,
    link: watch::Sender<Link>,
    facts: watch::Receiver<Facts>,
}

/// Why a session ended in order.
enum Ended {
    /// With a new certificate: connect again at once.
    Renewed,
    /// Nobody applies changes any more.
    NotWanted,
}

impl Way {
    async fn keep(mut self) {
        let mut backoff = Backoff::default();
        loop {
            match self.session(&mut backoff).await {
                Ok(Ended::Renewed) => continue,
                Ok(Ended::NotWanted) => return,
                Err(error) => {
                    self.fail(&error);
                    if error.downcast_ref::<Status>().is_some_and(is_of_standby) {
                        backoff.reset();
                    }
                }
            }
            sleep(backoff.pause()).await;
        }
    }

    fn fail(&mut self, error: &anyhow::Error) {
        let status = error.downcast_ref::<Status>();
        if status.is_some_and(is_of_standby) {
            // As it should be; the next attempt finds another.
            self.link.send_modify(|link| link.state = State::Connecting);
            return;
        }
        self.failures += 1;
        let denied =
            status.is_some_and(|status| matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied));
        if denied || self.failures.is_multiple_of(SUSPICION) {
            self.credentials = None;
            self.store.forget();
        }
        let why = format!("{error:#}");
        self.link.send_if_modified(|link| {
            let now = State::Away(why);
            let is_new = link.state != now;
            if let (true, State::Away(why)) = (is_new, &now) {
                tracing::warn!(
                    controller = link.controller,
                    "not connected, serving what is in force: {why}"
                );
            }
            link.state = now;
            is_new
        });
    }

    /// From the connection to its end.
    async fn session(&mut self, backoff: &mut Backoff) -> Result<Ended> {
        let credentials = self.credentials().await?;
        let Options { target, ca, .. } = &self.options;
        let channel = dial::connect(target, ca, Some(&credentials)).await?;
        let (requests, receiver) = mpsc::unbounded_channel();
        for part in self.client.connect() {
            requests.send(part).context("the stream ended")?;
        }
        let mut client = SnapshotsClient::new(channel);
        let opening = timeout(OPENING, client.delta(UnboundedReceiverStream::new(receiver))).await;
        let mut stream = opening
            .map_err(|_| anyhow!("the controller opens no stream within {OPENING:?}"))??
            .into_inner();
        self.connected(&credentials);
        let target = target.clone();
        let mut names = interval(NAMES);
        let mut renewal = Instant::now() + credentials.renewed_in(Timestamp::now());
        loop {
            tokio::select! {
                message = stream.message() => {
                    let response = message?.context("the controller ended the stream")?;
                    backoff.reset();
                    self.failures = 0;
                    if !self.receive(response, &requests).await? {
                        return Ok(Ended::NotWanted);
                    }
                }
                changed = self.facts.changed() => {
                    if changed.is_err() {
                        return Ok(Ended::NotWanted);
                    }
                    self.take_facts();
                    if let Some(report) = self.client.report() {
                        requests.send(report).context("the stream ended")?;
                    }
                }
                _ = names.tick() => {
                    // When it must be known it may be too late to ask.
                    let target = target.clone();
                    tokio::spawn(async move {
                        let _ = target.resolve().await;
                    });
                }
                () = sleep_until(renewal) => {
                    match self.renew().await {
                        Ok(()) => return Ok(Ended::Renewed),
                        Err(error) => {
                            tracing::warn!("the node's certificate is not renewed yet: {error:#}");
                            renewal = Instant::now() + RENEWAL;
                        }
                    }
                }
            }
        }
    }

    /// The certificate that is there, or a new one.
    async fn credentials(&mut self) -> Result<Credentials> {
        let now = Timestamp::now();
        let kept = self.credentials.take().or_else(|| self.store.load());
        self.credentials = kept.filter(|one| one.is_valid(now));
        if self.credentials.is_none() {
            self.renew().await?;
        }
        self.credentials.clone().context("no certificate")
    }

    async fn renew(&mut self) -> Result<()> {
        let Options { target, ca, token, .. } = &self.options;
        let channel = dial::connect(target, ca, None).await?;
        self.credentials = Some(identity::obtain(channel, token, &self.store).await?);
        Ok(())
    }

    fn connected(&self, credentials: &Credentials) {
        self.link.send_modify(|link| {
            tracing::info!(controller = link.controller, "connected");
            link.state = State::Connected;
            link.connections += 1;
            link.certificate_until = Some(credentials.not_after);
        });
    }

    /// Takes a response, has it applied when it is whole, and answers. False: nobody applies changes any more.
    async fn receive(
        &mut self,
        response: DeltaResponse,
        requests: &mpsc::UnboundedSender<DeltaRequest>,
    ) -> Result<bool> {
        let version = response.system_version;
        let snapshot = match self.client.receive(response)? {
            Received::More => return Ok(true),
            Received::Apply(snapshot) => snapshot,
        };
        let Some(facts) = self.apply(snapshot).await else {
            return Ok(false);
        };
        self.client.set_paths(facts.paths);
        self.client.set_addresses(facts.addresses);
        let Some(answer) = self.client.applied() else {
            bail!("a response came that was not to be answered");
        };
        requests.send(answer).context("the stream ended")?;
        let held_back = self.client.held_back();
        self.link.send_modify(|link| {
            link.version = version;
            link.responses += 1;
            link.refusals += u64::from(!held_back.is_empty());
            let nacks = held_back
                .iter()
                .map(|one| (one.name.clone(), one.reason.clone()))
                .collect();
            if link.nacks != nacks {
                for (name, why) in &nacks {
                    tracing::error!("{name} cannot be applied, and what it was before is kept: {why}");
                }
                link.nacks = nacks;
            }
        });
        Ok(true)
    }

    /// Has it put in force, and again without what cannot be used. `None`: nobody applies changes any more.
    async fn apply(&mut self, mut snapshot: Arc<Snapshot>) -> Option<Facts> {
        for _ in 0..ATTEMPTS {
            let (done, outcome) = oneshot::channel();
            self.changes.send(Change { snapshot, done }).await.ok()?;
            let Done { facts, refused } = outcome.await.ok()?;
            if refused.is_empty() {
                return Some(facts);
            }
            snapshot = self
                .client
                .refuse(refused.into_iter().map(|(id, why)| (id.name(), why)));
        }
        let (done, outcome) = oneshot::channel();
        self.changes.send(Change { snapshot, done }).await.ok()?;
        Some(outcome.await.ok()?.facts)
    }

    fn take_facts(&mut self) {
        let facts = self.facts.borrow_and_update().clone();
        self.client.set_paths(facts.paths);
        self.client.set_addresses(facts.addresses);
    }
}
