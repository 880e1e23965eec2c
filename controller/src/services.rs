//! Keeps the Services that translation asks for in the cluster, and takes away those it no longer asks for, as long as this
//! replica leads.
//!
//! What is there is watched, without its content; [`Ledger`] decides what is to be done, and is pure. Fields of others (a
//! load balancer's annotations, a status) are left alone: everything is server-side apply. Somebody else's Service is left
//! alone whole: translation asks for none of a name that is taken, and each write names the very object it is for (its uid), or
//! that there is none, so that no Service that came in between is taken over.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{Config, Event};
use kube::{Api, Client};
use pierhead_model::{Problem, Severity};
use pierhead_translate::{DesiredService, MANAGED_BY, ObjectName};
use serde_json::Value;
use tokio::sync::watch;

use crate::backoff::Backoff;
use crate::cluster::{FIELD_MANAGER, watched};
use crate::counters::{Counters, count};
use crate::published::Published;

/// Without it a Service of that label is somebody else's.
const OWNER: &str = "pierhead.dev/owner";
/// No object has it: a write that is made for an object of this version makes a new one or is refused as a conflict. Without a
/// version it would change whatever is there.
const NEVER: &str = "1";
const RETRY: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(60));
const PATIENCE: Duration = Duration::from_secs(10);
/// A request that failed so often in a row is somebody's problem.
const PROBLEM_AFTER: u32 = 2;

/// One Service that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Present {
    uid: String,
    resource_version: String,
}

impl Present {
    fn of(metadata: &ObjectMeta) -> Self {
        Self {
            uid: metadata.uid.clone().unwrap_or_default(),
            resource_version: metadata.resource_version.clone().unwrap_or_default(),
        }
    }
}

#[derive(Debug)]
struct Item {
    /// What was last written, and what it became.
    written: Option<(u64, Present)>,
    retry: Backoff,
    not_before: Option<Instant>,
    problem: Option<Problem>,
}

/// What is there, and what was done about it.
#[derive(Debug, Default)]
struct Ledger {
    /// `None` until the first list was read: before that nothing is known to be missing.
    present: Option<BTreeMap<ObjectName, Present>>,
    listing: BTreeMap<ObjectName, Present>,
    items: BTreeMap<ObjectName, Item>,
}

/// Something to do.
#[derive(Debug, PartialEq)]
enum Task {
    Apply { name: ObjectName, written: u64 },
    Delete { name: ObjectName, uid: String },
}

impl Task {
    fn name(&self) -> &ObjectName {
        match self {
            Self::Apply { name, .. } | Self::Delete { name, .. } => name,
        }
    }
}

impl Ledger {
    fn note(&mut self, event: Event<PartialObjectMeta<Service>>) {
        match event {
            Event::Init => self.listing = BTreeMap::new(),
            Event::InitApply(object) if is_ours(&object.metadata) => {
                let name = ObjectName::of(&object.metadata);
                self.listing.insert(name, Present::of(&object.metadata));
            }
            Event::InitDone => self.present = Some(std::mem::take(&mut self.listing)),
            Event::Apply(object) if is_ours(&object.metadata) => {
                let name = ObjectName::of(&object.metadata);
                if let Some(present) = &mut self.present {
                    present.insert(name, Present::of(&object.metadata));
                }
            }
            Event::InitApply(_) => {}
            Event::Apply(object) | Event::Delete(object) => {
                let name = ObjectName::of(&object.metadata);
                if let Some(present) = &mut self.present {
                    present.remove(&name);
                }
            }
        }
    }

    /// What is to be done now, and when to look again at what waits.
    fn tasks(&self, desired: &BTreeMap<ObjectName, DesiredService>, now: Instant) -> (Vec<Task>, Option<Instant>) {
        let Some(present) = &self.present else {
            return (Vec::new(), None);
        };
        let apply = desired.iter().filter_map(|(name, service)| {
            let written = fingerprint(service);
            let item = self.items.get(name);
            let settled = item
                .and_then(|item| item.written.as_ref())
                .is_some_and(|(before, left)| *before == written && present.get(name) == Some(left));
            (!settled).then(|| Task::Apply {
                name: name.clone(),
                written,
            })
        });
        let delete = present
            .iter()
            .filter(|(name, _)| !desired.contains_key(*name))
            .map(|(name, there)| Task::Delete {
                name: name.clone(),
                uid: there.uid.clone(),
            });
        let mut next = None;
        let mut tasks = Vec::new();
        for task in apply.chain(delete) {
            match self
                .items
                .get(task.name())
                .and_then(|item| item.not_before)
                .filter(|at| *at > now)
            {
                None => tasks.push(task),
                Some(at) => next = Some(next.map_or(at, |next: Instant| next.min(at))),
            }
        }
        (tasks, next)
    }

    fn item(&mut self, name: &ObjectName) -> &mut Item {
        self.items.entry(name.clone()).or_insert_with(|| Item {
            written: None,
            retry: RETRY,
            not_before: None,
            problem: None,
        })
    }

    fn applied(&mut self, name: &ObjectName, written: u64, became: Present) {
        if let Some(present) = &mut self.present {
            present.insert(name.clone(), became.clone());
        }
        let item = self.item(name);
        *item = Item {
            written: Some((written, became)),
            retry: RETRY,
            not_before: None,
            problem: None,
        };
    }

    /// Of the Service of ours that is there.
    fn uid(&self, name: &ObjectName) -> Option<String> {
        Some(self.present.as_ref()?.get(name)?.uid.clone())
    }

    fn deleted(&mut self, name: &ObjectName) {
        self.items.remove(name);
        if let Some(present) = &mut self.present {
            present.remove(name);
        }
    }

    /// Nothing need be remembered of what is neither there nor to be there.
    fn forget(&mut self, desired: &BTreeMap<ObjectName, DesiredService>) {
        let present = self.present.as_ref();
        let is_there = |name: &ObjectName| present.is_some_and(|present| present.contains_key(name));
        self.items
            .retain(|name, _| desired.contains_key(name) || is_there(name));
    }

    fn failed(&mut self, name: &ObjectName, desired: Option<&DesiredService>, why: &str, now: Instant) {
        let item = self.item(name);
        item.not_before = Some(now + item.retry.fail());
        if item.retry.failures() == PROBLEM_AFTER {
            tracing::warn!("cannot write Service {name}: {why}");
        }
        if item.retry.failures() >= PROBLEM_AFTER {
            item.problem = desired.map(|desired| Problem {
                origin: desired.owner.clone(),
                field: String::new(),
                severity: Severity::Error,
                message: format!("its Service {name} cannot be written: {why}"),
                fix: "look at the permissions of the controller, and at the policies and quotas of the namespace"
                    .into(),
            });
        }
    }

    fn problems(&self) -> Vec<Problem> {
        self.items.values().filter_map(|item| item.problem.clone()).collect()
    }
}

fn is_ours(metadata: &ObjectMeta) -> bool {
    metadata
        .annotations
        .as_ref()
        .is_some_and(|annotations| annotations.contains_key(OWNER))
}

fn body(service: &DesiredService) -> Value {
    // A Service serialises into JSON: its keys are strings. Its type and version are in it.
    serde_json::to_value(&service.service).unwrap_or_default()
}

/// What is sent for a Service: only to the object of that uid, or only if there is none.
fn request(service: &DesiredService, uid: Option<&str>) -> Value {
    let mut body = body(service);
    match uid {
        Some(uid) => body["metadata"]["uid"] = uid.into(),
        None => body["metadata"]["resourceVersion"] = NEVER.into(),
    }
    body
}

fn fingerprint(service: &DesiredService) -> u64 {
    let mut hasher = DefaultHasher::new();
    body(service).to_string().hash(&mut hasher);
    hasher.finish()
}

/// What services are made from.
pub(crate) struct Inputs {
    pub(crate) client: Client,
    pub(crate) published: watch::Receiver<Arc<Published>>,
    pub(crate) leader: watch::Receiver<bool>,
    pub(crate) counters: Arc<Counters>,
    /// Services that cannot be written: for events.
    pub(crate) problems: watch::Sender<Arc<Vec<Problem>>>,
}

/// Runs until its inputs end.
pub(crate) async fn run(inputs: Inputs) {
    let Inputs {
        client,
        mut published,
        mut leader,
        counters,
        problems,
    } = inputs;
    let labels = format!("{}={}", MANAGED_BY.0, MANAGED_BY.1);
    let config = Config::default().labels(&labels).timeout(60);
    let mut events = pin!(watched(Api::<PartialObjectMeta<Service>>::all(client.clone()), config));
    let mut ledger = Ledger::default();
    let mut watching = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    loop {
        let mut next = None;
        if *leader.borrow_and_update() {
            let now = Arc::clone(&published.borrow_and_update());
            let desired = &now.translation.services;
            let (tasks, later) = ledger.tasks(desired, Instant::now());
            next = later;
            let busy = !tasks.is_empty();
            for task in tasks {
                work(&client, &mut ledger, task, desired, &counters).await;
            }
            ledger.forget(desired);
            problems.send_if_modified(|told| {
                let now = ledger.problems();
                let changed = **told != now;
                if changed {
                    *told = now.into();
                }
                changed
            });
            if busy {
                continue;
            }
        }
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(event)) => {
                    watching.succeed();
                    ledger.note(event);
                }
                Some(Err(error)) => {
                    count(&counters.watch_errors);
                    tracing::debug!("cannot watch our Services: {error}");
                    tokio::time::sleep(watching.fail()).await;
                }
                None => return,
            },
            changed = published.changed() => if changed.is_err() { return },
            changed = leader.changed() => if changed.is_err() { return },
            () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now).into()), if next.is_some() => {}
        }
    }
}

async fn work(
    client: &Client,
    ledger: &mut Ledger,
    task: Task,
    desired: &BTreeMap<ObjectName, DesiredService>,
    counters: &Counters,
) {
    let name = task.name().clone();
    let api = Api::<Service>::namespaced(client.clone(), &name.namespace);
    let result = match &task {
        Task::Apply { written, .. } => match desired.get(&name) {
            Some(service) => {
                let uid = ledger.uid(&name);
                let patch = Patch::Apply(request(service, uid.as_deref()));
                // By force, since what others changed in a Service of ours is to be as it was.
                let params = PatchParams::apply(FIELD_MANAGER).force();
                match (within(api.patch(&name.name, &params, &patch)).await, uid) {
                    (Ok(made), _) => {
                        ledger.applied(&name, *written, Present::of(&made.metadata));
                        Ok(())
                    }
                    // A field that cannot change: another Service takes its place.
                    (Err(refusal), Some(uid)) if refusal.code == 422 => {
                        tracing::info!("making Service {name} anew: {}", refusal.why);
                        delete(&api, ledger, &name, &uid).await
                    }
                    // There is one after all, or another one by now: what is watched will tell whose.
                    (Err(refusal), _) if refusal.code == 409 => Err(Refusal {
                        why: format!("there is another Service of that name ({})", refusal.why),
                        ..refusal
                    }),
                    (Err(refusal), _) => Err(refusal),
                }
            }
            None => Ok(()),
        },
        Task::Delete { uid, .. } => delete(&api, ledger, &name, uid).await,
    };
    match result {
        Ok(()) => count(&counters.service_writes),
        Err(refusal) => {
            count(&counters.service_errors);
            ledger.failed(&name, desired.get(&name), &refusal.why, Instant::now());
        }
    }
}

async fn delete(api: &Api<Service>, ledger: &mut Ledger, name: &ObjectName, uid: &str) -> Result<(), Refusal> {
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    match within(api.delete(&name.name, &params)).await {
        // Gone already, or another one of that name by now: what is watched will tell.
        Err(refusal) if !matches!(refusal.code, 404 | 409) => Err(refusal),
        _ => {
            ledger.deleted(name);
            Ok(())
        }
    }
}

/// Why a request came to nothing.
struct Refusal {
    /// Of the API server's answer; 0: there was none.
    code: u16,
    why: String,
}

async fn within<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, Refusal> {
    let refusal = match tokio::time::timeout(PATIENCE, request).await {
        Ok(Ok(done)) => return Ok(done),
        Ok(Err(kube::Error::Api(status))) => Refusal {
            code: status.code,
            why: status.message,
        },
        Ok(Err(error)) => Refusal {
            code: 0,
            why: error.to_string(),
        },
        Err(_) => Refusal {
            code: 0,
            why: format!("no answer within {PATIENCE:?}"),
        },
    };
    Err(refusal)
}

#[cfg(test)]
mod tests {
    use pierhead_model::Origin;

    use super::*;

    fn name(name: &str) -> ObjectName {
        ObjectName::new("ns", name)
    }

    fn desired(names: &[&str], label: &str) -> BTreeMap<ObjectName, DesiredService> {
        let one = |text: &&str| {
            let metadata = ObjectMeta {
                name: Some((*text).to_owned()),
                labels: Some([("l".to_owned(), label.to_owned())].into()),
                ..ObjectMeta::default()
            };
            let service = DesiredService {
                owner: Origin::new("Gateway", "ns", text),
                service: Service {
                    metadata,
                    ..Service::default()
                },
            };
            (name(text), service)
        };
        names.iter().map(one).collect()
    }

    fn there(name: &str, version: &str, ours: bool) -> PartialObjectMeta<Service> {
        PartialObjectMeta {
            metadata: ObjectMeta {
                name: Some(name.into()),
                namespace: Some("ns".into()),
                uid: Some("u".into()),
                resource_version: Some(version.into()),
                annotations: ours.then(|| [(OWNER.to_owned(), "Gateway ns/x".to_owned())].into()),
                ..ObjectMeta::default()
            },
            ..PartialObjectMeta::default()
        }
    }

    fn shown(tasks: &[Task]) -> Vec<String> {
        let verb = |task: &Task| match task {
            Task::Apply { name, .. } => format!("apply {}", name.name),
            Task::Delete { name, .. } => format!("delete {}", name.name),
        };
        tasks.iter().map(verb).collect()
    }

    fn listed(objects: Vec<PartialObjectMeta<Service>>) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.note(Event::Init);
        for object in objects {
            ledger.note(Event::InitApply(object));
        }
        ledger.note(Event::InitDone);
        ledger
    }

    #[test]
    fn nothing_is_done_before_it_is_known_what_is_there() {
        let ledger = Ledger::default();
        assert!(ledger.tasks(&desired(&["a"], "x"), Instant::now()).0.is_empty());
    }

    #[test]
    fn what_is_missing_is_made_and_what_nobody_wants_goes_unless_it_is_anothers() {
        let now = Instant::now();
        let mut ledger = listed(vec![there("old", "1", true), there("foreign", "2", false)]);
        let wanted = desired(&["a"], "x");
        let (tasks, _) = ledger.tasks(&wanted, now);
        assert_eq!(shown(&tasks), ["apply a", "delete old"]);
        let Task::Apply { written, .. } = &tasks[0] else {
            panic!()
        };
        ledger.applied(&name("a"), *written, Present::of(&there("a", "3", true).metadata));
        ledger.deleted(&name("old"));
        assert!(ledger.tasks(&wanted, now).0.is_empty());
        // The watch tells of our own write; then somebody changes it, or deletes it.
        ledger.note(Event::Apply(there("a", "3", true)));
        assert!(ledger.tasks(&wanted, now).0.is_empty());
        ledger.note(Event::Apply(there("a", "4", true)));
        assert_eq!(shown(&ledger.tasks(&wanted, now).0), ["apply a"]);
        ledger.applied(&name("a"), *written, Present::of(&there("a", "4", true).metadata));
        ledger.note(Event::Delete(there("a", "5", true)));
        assert_eq!(shown(&ledger.tasks(&wanted, now).0), ["apply a"]);
        assert_eq!(shown(&ledger.tasks(&desired(&["a"], "y"), now).0), ["apply a"]);
    }

    #[test]
    fn what_fails_waits_and_becomes_a_problem_of_its_owner() {
        let mut now = Instant::now();
        let mut ledger = listed(Vec::new());
        let wanted = desired(&["a", "b"], "x");
        for _ in 0..3 {
            ledger.failed(&name("a"), wanted.get(&name("a")), "no", now);
            let (tasks, next) = ledger.tasks(&wanted, now);
            assert_eq!(shown(&tasks), ["apply b"]);
            now = next.unwrap();
            assert_eq!(shown(&ledger.tasks(&wanted, now).0), ["apply a", "apply b"]);
        }
        assert_eq!(ledger.problems()[0].origin, Origin::new("Gateway", "ns", "a"));
        ledger.applied(&name("a"), 0, Present::of(&there("a", "1", true).metadata));
        assert!(ledger.problems().is_empty());
        // Nobody wants it any more.
        for _ in 0..2 {
            ledger.failed(&name("b"), wanted.get(&name("b")), "no", now);
        }
        assert_eq!(ledger.problems().len(), 1);
        ledger.forget(&desired(&["a"], "x"));
        assert!(ledger.problems().is_empty());
    }

    #[test]
    fn a_write_is_for_the_object_that_is_there_or_for_none() {
        let wanted = desired(&["a"], "x");
        let one = &wanted[&name("a")];
        let metadata = |uid| request(one, uid)["metadata"].clone();
        assert_eq!(metadata(Some("u"))["uid"], "u");
        assert_eq!(metadata(Some("u"))["resourceVersion"], Value::Null);
        assert_eq!(metadata(None)["uid"], Value::Null);
        assert_eq!(metadata(None)["resourceVersion"], NEVER);
    }
}
