//! Keeps the statuses of all objects as they should be, as long as this replica leads; what nodes have a say in from when it decides.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use jiff::{Timestamp, Unit};
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use pierhead_model::{Origin, Problem, Severity, Snapshot};
use pierhead_translate::Statuses;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::hold::{Hold, depends_on_nodes};
use super::overlay::Truth;
use super::plan::{Context, Write, plan};
use super::queue::{Ended, Queue};
use super::{Key, change};
use crate::cluster::{FIELD_MANAGER, Handover, Source, Standing, Standings, Turn};
use crate::counters::{Counters, count};
use crate::nodes::Nodes;
use crate::publish::Numbered;
use crate::published::Published;

/// Writes under way at a time.
const MOST: usize = 24;
/// A write that takes longer is given up and tried again.
const PATIENCE: Duration = Duration::from_secs(10);
/// A write that failed so often in a row is somebody's problem.
const PROBLEM_AFTER: u32 = 2;

/// What a writer goes by.
pub(crate) struct Inputs {
    pub(crate) client: Client,
    pub(crate) published: watch::Receiver<Arc<Published>>,
    pub(crate) snapshots: watch::Receiver<Option<Numbered>>,
    pub(crate) nodes: watch::Receiver<Arc<Nodes>>,
    pub(crate) turn: watch::Receiver<Turn>,
    pub(crate) standings: mpsc::UnboundedReceiver<Vec<Standings>>,
    pub(crate) handover: Arc<Handover>,
    /// Our `controllerName`, as it stands in routes' statuses.
    pub(crate) controller: Arc<str>,
    pub(crate) counters: Arc<Counters>,
    /// Objects whose status the API server refuses, and what nodes refuse: for events.
    pub(crate) problems: watch::Sender<Arc<Vec<Problem>>>,
}

/// Why a write did not happen.
enum Failure {
    /// The object is another than the one the write was made for; this is it now.
    Overtaken(Option<Standing>),
    Gone,
    /// With what the API server, or the way there, says.
    Refused(String),
}

type Done = (Key, u64, Result<Standing, Failure>);

struct Writer {
    client: Client,
    controller: Arc<str>,
    counters: Arc<Counters>,
    statuses: Arc<Published>,
    snapshot: Arc<Snapshot>,
    nodes: Arc<Nodes>,
    truth: Truth,
    hold: Hold,
    turn: Turn,
    /// The objects as they were last read or written.
    standings: BTreeMap<Key, Standing>,
    /// What was last written and what became of it, to notice an API server that never keeps what it is told.
    written: BTreeMap<Key, (u64, Standing)>,
    queue: Queue,
    under_way: JoinSet<Done>,
    refused: BTreeMap<Key, Problem>,
    problems: watch::Sender<Arc<Vec<Problem>>>,
}

/// Runs until its inputs end.
pub(crate) async fn run(inputs: Inputs) {
    let Inputs {
        client,
        mut published,
        mut snapshots,
        mut nodes,
        turn: mut turns,
        mut standings,
        handover,
        controller,
        counters,
        problems,
    } = inputs;
    let now = Instant::now();
    let mut writer = Writer {
        client,
        controller,
        counters,
        statuses: Arc::clone(&published.borrow_and_update()),
        snapshot: snapshots
            .borrow_and_update()
            .as_ref()
            .map_or_else(Arc::default, |one| Arc::clone(&one.snapshot)),
        nodes: Arc::clone(&nodes.borrow_and_update()),
        truth: Truth::default(),
        hold: Hold::new(now),
        turn: *turns.borrow_and_update(),
        standings: BTreeMap::new(),
        written: BTreeMap::new(),
        queue: Queue::new(MOST),
        under_way: JoinSet::new(),
        refused: BTreeMap::new(),
        problems,
    };
    writer.begin();
    loop {
        writer.pump();
        let due = writer.queue.next_due().filter(|_| writer.turn > Turn::Nothing);
        tokio::select! {
            // What should be said is known before what is said now is looked at.
            biased;
            changed = turns.changed() => {
                if changed.is_err() {
                    return;
                }
                writer.take_turn(*turns.borrow_and_update());
            }
            batch = standings.recv() => {
                let Some(batch) = batch else { return };
                // What these objects came to is said together with them.
                let _both = handover.take();
                writer.see(batch);
                while let Ok(batch) = standings.try_recv() {
                    writer.see(batch);
                }
                match published.has_changed() {
                    Ok(true) => writer.publish(&mut published, &mut snapshots),
                    Ok(false) => {}
                    Err(_) => return,
                }
            }
            // Without an object that was seen: something else has changed.
            changed = published.changed() => {
                if changed.is_err() {
                    return;
                }
                writer.publish(&mut published, &mut snapshots);
            }
            changed = nodes.changed() => {
                if changed.is_err() {
                    return;
                }
                let nodes = Arc::clone(&nodes.borrow_and_update());
                writer.hear(nodes);
            }
            Some(done) = writer.under_way.join_next() => {
                // A write that panicked is a defect; its object is looked at again when something about it changes.
                if let Ok((key, written, result)) = done {
                    writer.end(key, written, result);
                }
            }
            () = sleep_until(due), if due.is_some() => {}
        }
    }
}

/// What nodes have a say in is written only by who knows them.
fn may_write(turn: Turn, key: &Key) -> bool {
    match turn {
        Turn::Nothing => false,
        Turn::WithoutNodes => !depends_on_nodes(key),
        Turn::Everything => true,
    }
}

async fn sleep_until(due: Option<Instant>) {
    if let Some(due) = due {
        tokio::time::sleep_until(due.into()).await;
    }
}

impl Writer {
    /// What is so when we may write more than before.
    fn begin(&mut self) {
        let now = Instant::now();
        self.hold = Hold::new(now);
        self.hold.see(&self.nodes, now);
        self.truth = Truth::of(&self.snapshot, &self.nodes);
        self.touch_all();
    }

    fn take_turn(&mut self, turn: Turn) {
        let before = std::mem::replace(&mut self.turn, turn);
        if turn > before {
            self.begin();
        } else if turn < before {
            self.queue.forget();
        }
    }

    fn touch_all(&mut self) {
        let now = Instant::now();
        let known: Vec<Key> = self.standings.keys().cloned().collect();
        for key in known.into_iter().chain(change::all(self.statuses())) {
            self.touch(key, now);
        }
    }

    fn statuses(&self) -> &Statuses {
        &self.statuses.translation.statuses
    }

    fn touch(&mut self, key: Key, now: Instant) {
        // What may not be written need not be remembered: whoever may write more looks at everything.
        if may_write(self.turn, &key) {
            self.queue.touch(key, now);
        }
    }

    fn publish(
        &mut self,
        published: &mut watch::Receiver<Arc<Published>>,
        snapshots: &mut watch::Receiver<Option<Numbered>>,
    ) {
        let now = Instant::now();
        let numbered = snapshots.borrow_and_update().clone();
        let numbered = numbered.as_ref();
        let published = Arc::clone(&published.borrow_and_update());
        let before = std::mem::replace(&mut self.statuses, published);
        let (before, after) = (&before.translation.statuses, &self.statuses.translation.statuses);
        let changed = change::between(before, after);
        for key in &changed {
            self.hold
                .expect(key, before, after, numbered.map_or(0, |one| one.version), now);
        }
        for key in changed {
            self.touch(key, now);
        }
        if let Some(numbered) = numbered
            && !Arc::ptr_eq(&self.snapshot, &numbered.snapshot)
        {
            self.snapshot = Arc::clone(&numbered.snapshot);
            self.judge(now);
        }
    }

    fn hear(&mut self, nodes: Arc<Nodes>) {
        let now = Instant::now();
        let first = self.hold.see(&nodes, now);
        self.nodes = nodes;
        self.judge(now);
        // Some may have waited for just this.
        let waiting = match first {
            true => gateways(self.statuses()),
            false => self.hold.awaiting(),
        };
        for key in waiting {
            self.touch(key, now);
        }
    }

    fn judge(&mut self, now: Instant) {
        let truth = Truth::of(&self.snapshot, &self.nodes);
        if truth != self.truth {
            self.truth = truth;
            for key in gateways(self.statuses()) {
                self.touch(key, now);
            }
            self.tell_problems();
        }
    }

    fn see(&mut self, batch: Vec<Standings>) {
        let now = Instant::now();
        for Standings { kind, name, standing } in batch {
            let key = Key { kind, name };
            match standing {
                None => {
                    self.standings.remove(&key);
                    self.written.remove(&key);
                    self.relieve(&key);
                }
                Some(standing) => {
                    let known = self.standings.get(&key);
                    // Our own write is answered before the watch tells of it.
                    if known.is_none_or(|known| known.uid != standing.uid || standing.is_newer(known)) {
                        self.standings.insert(key.clone(), standing);
                        self.touch(key, now);
                    }
                }
            }
        }
    }

    /// Begins as many writes as there may be.
    fn pump(&mut self) {
        let now = Instant::now();
        while self.turn > Turn::Nothing
            && let Some(key) = self.queue.next(now)
        {
            // Its write ended after we ceased to decide.
            if !may_write(self.turn, &key) {
                self.queue.end(key, Ended::Well, now);
                continue;
            }
            if let Some(until) = self.hold.until(&key, &self.nodes, now) {
                self.queue.defer(key, until);
                continue;
            }
            match self.decide(&key) {
                Some((written, standing, write)) => {
                    let api = api(&self.client, &key, &standing);
                    self.under_way.spawn(async move {
                        let result = tokio::time::timeout(PATIENCE, send(api, &key, &standing, write)).await;
                        let late = |_| Err(Failure::Refused(format!("no answer within {PATIENCE:?}")));
                        (key, written, result.unwrap_or_else(late))
                    });
                }
                None => {
                    self.relieve(&key);
                    self.queue.end(key, Ended::Well, now);
                }
            }
        }
        let pending = u64::try_from(self.queue.len()).unwrap_or(u64::MAX);
        self.counters.status_pending.store(pending, Ordering::Relaxed);
    }

    /// The write that is needed, with what tells it from others. Without the object there is nothing to write to.
    fn decide(&self, key: &Key) -> Option<(u64, Standing, Write)> {
        let standing = self.standings.get(key)?;
        let now = Timestamp::now();
        let context = Context {
            statuses: self.statuses(),
            truth: &self.truth,
            controller: &self.controller,
            now: now.round(Unit::Second).unwrap_or(now),
        };
        let write = plan(key, standing, &context)?;
        let written = write.fingerprint();
        let futile = |(before, left): &(u64, Standing)| *before == written && left == standing;
        if self.written.get(key).is_some_and(futile) {
            return None;
        }
        Some((written, standing.clone(), write))
    }

    fn end(&mut self, key: Key, written: u64, result: Result<Standing, Failure>) {
        let now = Instant::now();
        match result {
            Ok(standing) => {
                count(&self.counters.status_writes);
                self.relieve(&key);
                self.written.insert(key.clone(), (written, standing.clone()));
                self.adopt(&key, standing);
                self.queue.end(key, Ended::Well, now);
            }
            Err(Failure::Overtaken(standing)) => {
                count(&self.counters.status_conflicts);
                if let Some(standing) = standing {
                    self.adopt(&key, standing);
                }
                self.queue.end(key, Ended::Overtaken, now);
            }
            Err(Failure::Gone) => {
                self.standings.remove(&key);
                self.relieve(&key);
                self.queue.end(key, Ended::Well, now);
            }
            Err(Failure::Refused(why)) => {
                count(&self.counters.status_errors);
                let failures = self.queue.end(key.clone(), Ended::Badly, now);
                tracing::debug!("cannot write the status of {} {}: {why}", key.kind, key.name);
                if failures >= PROBLEM_AFTER && !self.refused.contains_key(&key) {
                    tracing::warn!("cannot write the status of {} {}: {why}", key.kind, key.name);
                    let problem = Problem {
                        origin: origin(&key),
                        field: "status".into(),
                        severity: Severity::Error,
                        message: format!("cannot be written: {why}"),
                        fix: "look at the admission webhooks and policies of the cluster".into(),
                    };
                    self.refused.insert(key, problem);
                    self.tell_problems();
                }
            }
        }
    }

    /// Takes what a request found, unless a watch has told of something newer meanwhile.
    fn adopt(&mut self, key: &Key, standing: Standing) {
        let known = self.standings.get(key);
        if known.is_some_and(|known| known.uid != standing.uid || standing.is_newer(known)) {
            self.standings.insert(key.clone(), standing);
        }
    }

    fn relieve(&mut self, key: &Key) {
        if self.refused.remove(key).is_some() {
            self.tell_problems();
        }
    }

    fn tell_problems(&self) {
        let of_nodes = self.truth.faults().map(|(listener, why)| Problem {
            origin: listener.owner.clone(),
            field: format!("listener {}", listener.name),
            severity: Severity::Error,
            message: why.to_owned(),
            fix: "look at the log of that node's pod".into(),
        });
        let mut problems: Vec<Problem> = self.refused.values().cloned().chain(of_nodes).collect();
        problems.sort();
        problems.dedup();
        self.problems.send_if_modified(|told| {
            let changed = **told != problems;
            if changed {
                *told = problems.into();
            }
            changed
        });
    }
}

fn origin(key: &Key) -> Origin {
    Origin::new(key.kind, &key.name.namespace, &key.name.name)
}

/// The objects on which nodes have a say.
fn gateways(statuses: &Statuses) -> Vec<Key> {
    let of = |kind: &'static str| {
        move |name: &pierhead_translate::ObjectName| Key {
            kind,
            name: name.clone(),
        }
    };
    let gateways = statuses.gateways.keys().map(of("Gateway"));
    let sets = statuses.listener_sets.keys().map(of("ListenerSet"));
    let ingresses = statuses.ingresses.keys().map(of("Ingress"));
    gateways.chain(sets).chain(ingresses).collect()
}

fn api(client: &Client, key: &Key, standing: &Standing) -> Option<Api<DynamicObject>> {
    let resource = Source::of(key.kind)?.resource(standing.version);
    Some(match &*key.name.namespace {
        "" => Api::all_with(client.clone(), &resource),
        namespace => Api::namespaced_with(client.clone(), namespace, &resource),
    })
}

async fn send(api: Option<Api<DynamicObject>>, key: &Key, base: &Standing, write: Write) -> Result<Standing, Failure> {
    // Only kinds with a source have standings.
    let Some(api) = api else { return Err(Failure::Gone) };
    let name = &*key.name.name;
    let standing = |object: &DynamicObject| Standing::of(base.version, &object.metadata, object.data.get("status"));
    let written = match write {
        Write::Merge(body) => {
            let params = PatchParams {
                field_manager: Some(FIELD_MANAGER.into()),
                ..PatchParams::default()
            };
            api.patch_status(name, &params, &Patch::Merge(body)).await
        }
        Write::Apply(body) => {
            let params = PatchParams::apply(FIELD_MANAGER).force();
            api.patch_status(name, &params, &Patch::Apply(body)).await
        }
    };
    match written {
        Ok(object) => Ok(standing(&object)),
        Err(kube::Error::Api(status)) if status.code == 404 => Err(Failure::Gone),
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let fresh = api
                .get_opt(name)
                .await
                .map_err(|error| Failure::Refused(error.to_string()))?;
            match fresh {
                // Refused for another reason than its age.
                Some(object) if standing(&object) == *base => Err(Failure::Refused(status.message)),
                Some(object) => Err(Failure::Overtaken(Some(standing(&object)))),
                None => Err(Failure::Gone),
            }
        }
        Err(kube::Error::Api(status)) => Err(Failure::Refused(status.message)),
        Err(error) => Err(Failure::Refused(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use pierhead_translate::ObjectName;

    use super::*;

    #[test]
    fn what_nodes_have_a_say_in_is_written_only_by_who_decides() {
        let may = |leads, decides, kind| {
            let name = ObjectName::new("ns", "name");
            may_write(Turn::of(leads, decides), &Key { kind, name })
        };
        for kind in ["HTTPRoute", "TCPRoute", "GatewayClass", "BackendTLSPolicy"] {
            assert!(may(true, true, kind) && may(true, false, kind), "{kind}");
            assert!(!may(false, true, kind) && !may(false, false, kind), "{kind}");
        }
        for kind in ["Gateway", "ListenerSet", "Ingress"] {
            assert!(may(true, true, kind) && !may(true, false, kind), "{kind}");
            assert!(
                !may(false, true, kind),
                "{kind}: what was decided before it lost the Lease is not written"
            );
        }
    }
}
