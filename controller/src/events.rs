//! Kubernetes Events for problems that users must see, on the objects that have them.
//!
//! [`Ledger`] decides which problem is told when, and is pure: each once, again after a while for as long as it lasts, and
//! never more than the API server should have to bear.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use pierhead_model::{Origin, Problem, Severity};
use tokio::sync::watch;

use crate::cluster::Source;
use crate::counters::{Counters, count};
use crate::published::Published;

/// Events are forgotten by the API server after an hour: what lasts is told again before.
const AGAIN: Duration = Duration::from_secs(50 * 60);
/// As many at once …
const BURST: u32 = 50;
/// … and then one more each.
const REFILL: Duration = Duration::from_millis(200);
/// Problems of one object told at most: the first are the worst, and the rest stands in its status.
const PER_OBJECT: usize = 5;
/// `note` "should not be longer than 1 kB".
const NOTE: usize = 1024;
const REPORTER: &str = "pierhead.dev/controller";
/// A request that takes longer is given up.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was told.
#[derive(Debug)]
struct Ledger {
    told: HashMap<u64, Told>,
    tokens: u32,
    refilled: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Told {
    at: Instant,
    count: i32,
}

/// A problem to tell now, for the `count`th time.
#[derive(Debug, PartialEq)]
struct Telling {
    problem: Problem,
    count: i32,
}

impl Ledger {
    fn new(now: Instant) -> Self {
        Self {
            told: HashMap::new(),
            tokens: BURST,
            refilled: now,
        }
    }

    /// Of the problems there are, those to tell now; and how many had to be left for later.
    fn take(&mut self, problems: &[Problem], now: Instant) -> (Vec<Telling>, usize) {
        self.refill(now);
        let mut per_object: BTreeMap<&Origin, usize> = BTreeMap::new();
        let mut tell = Vec::new();
        let mut left = 0;
        let mut present = HashMap::with_capacity(problems.len());
        for problem in problems {
            let of_object = per_object.entry(&problem.origin).or_default();
            *of_object += 1;
            if *of_object > PER_OBJECT {
                continue;
            }
            let id = id(problem);
            let told = self.told.get(&id).copied();
            let due = told.is_none_or(|told| now.duration_since(told.at) >= AGAIN);
            if !due {
                present.extend(told.map(|told| (id, told)));
                continue;
            }
            if self.tokens == 0 {
                present.extend(told.map(|told| (id, told)));
                left += 1;
                continue;
            }
            self.tokens -= 1;
            let count = told.map_or(1, |told| told.count.saturating_add(1));
            present.insert(id, Told { at: now, count });
            tell.push(Telling {
                problem: problem.clone(),
                count,
            });
        }
        // What is gone is forgotten: should it come again, that is news. Not at once, or what flaps would fill the store.
        for (id, told) in &self.told {
            if now.duration_since(told.at) < Duration::from_secs(60) {
                present.entry(*id).or_insert(*told);
            }
        }
        self.told = present;
        (tell, left)
    }

    fn refill(&mut self, now: Instant) {
        let whole = now.duration_since(self.refilled).as_millis() / REFILL.as_millis();
        let more = u32::try_from(whole).unwrap_or(BURST).min(BURST);
        if more > 0 {
            self.tokens = (self.tokens + more).min(BURST);
            self.refilled = now;
        }
    }
}

/// Of a problem, wherever and whenever it is told.
fn id(problem: &Problem) -> u64 {
    let mut hasher = DefaultHasher::new();
    problem.origin.hash(&mut hasher);
    problem.field.hash(&mut hasher);
    problem.message.hash(&mut hasher);
    hasher.finish()
}

/// What events are made of.
pub(crate) struct Inputs {
    pub(crate) client: Client,
    pub(crate) published: watch::Receiver<Arc<Published>>,
    /// Problems that no translation knows of.
    pub(crate) others: Vec<watch::Receiver<Arc<Vec<Problem>>>>,
    pub(crate) leader: watch::Receiver<bool>,
    /// The name of this replica.
    pub(crate) identity: String,
    pub(crate) counters: Arc<Counters>,
}

/// Tells until its inputs end.
pub(crate) async fn run(mut inputs: Inputs) {
    let mut ledger = Ledger::new(Instant::now());
    let mut tick = tokio::time::interval(Duration::from_secs(2));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        // Statuses and traffic first: an event may come a second or two later, and much settles in that time.
        tick.tick().await;
        if inputs.published.has_changed().is_err() {
            return;
        }
        if !*inputs.leader.borrow_and_update() {
            continue;
        }
        let published = Arc::clone(&inputs.published.borrow_and_update());
        let others: Vec<Arc<Vec<Problem>>> = inputs
            .others
            .iter_mut()
            .map(|one| Arc::clone(&one.borrow_and_update()))
            .collect();
        let mut problems = published.translation.problems.clone();
        problems.extend(others.iter().flat_map(|one| one.iter().cloned()));
        // The worst first: they must find room.
        problems.sort_by(|a, b| (a.severity != Severity::Error, a).cmp(&(b.severity != Severity::Error, b)));
        problems.dedup();
        let (tell, left) = ledger.take(&problems, Instant::now());
        if left > 0 {
            let left = u64::try_from(left).unwrap_or(u64::MAX);
            inputs
                .counters
                .events_dropped
                .fetch_add(left, std::sync::atomic::Ordering::Relaxed);
        }
        for telling in tell {
            let sent = tokio::time::timeout(PATIENCE, send(&inputs, &telling)).await;
            match sent {
                Ok(Ok(())) => count(&inputs.counters.events_sent),
                // An event is a courtesy: the problem stands in status and log too.
                Ok(Err(error)) => tracing::debug!("cannot send an event about {}: {error}", telling.problem.origin),
                Err(_) => tracing::debug!("cannot send an event about {} in time", telling.problem.origin),
            }
        }
    }
}

async fn send(inputs: &Inputs, telling: &Telling) -> kube::Result<()> {
    let origin = &telling.problem.origin;
    let Some(source) = Source::of(&origin.kind) else {
        return Ok(());
    };
    let version = source.versions[0];
    let resource = source.resource(version);
    let objects = match &*origin.namespace {
        "" => Api::<DynamicObject>::all_with(inputs.client.clone(), &resource),
        namespace => Api::namespaced_with(inputs.client.clone(), namespace, &resource),
    };
    // `kubectl describe` finds events by the uid; and of what is gone nothing need be said.
    let Some(object) = objects.get_metadata_opt(&origin.name).await? else {
        return Ok(());
    };
    let event = event(
        telling,
        &inputs.identity,
        source.api_version(version),
        object.metadata.uid,
        Timestamp::now(),
    );
    let namespace = event.metadata.namespace.clone().unwrap_or_default();
    let name = event.metadata.name.clone().unwrap_or_default();
    let events = Api::<Event>::namespaced(inputs.client.clone(), &namespace);
    match events.create(&PostParams::default(), &event).await {
        // Told before, perhaps by another replica.
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let series = EventSeries {
                count: telling.count.max(2),
                last_observed_time: MicroTime(Timestamp::now()),
            };
            let patch = Patch::Merge(serde_json::json!({"series": series}));
            events.patch(&name, &PatchParams::default(), &patch).await.map(drop)
        }
        other => other.map(drop),
    }
}

fn event(telling: &Telling, identity: &str, api_version: String, uid: Option<String>, now: Timestamp) -> Event {
    let problem = &telling.problem;
    let origin = &problem.origin;
    let namespace = match &*origin.namespace {
        "" => "default",
        namespace => namespace,
    };
    let mut note = String::new();
    if !problem.field.is_empty() {
        note.push_str(&format!("{}: ", problem.field));
    }
    note.push_str(&problem.message);
    if !problem.fix.is_empty() {
        note.push_str(&format!("; fix: {}", problem.fix));
    }
    // Names of events may be longer than those of most objects, but not of all.
    let prefix: String = origin.name.chars().take(200).collect();
    let uid_text = uid.clone().unwrap_or_default();
    let mut hasher = DefaultHasher::new();
    (id(problem), &uid_text).hash(&mut hasher);
    Event {
        metadata: ObjectMeta {
            name: Some(format!(
                "{}.{:016x}",
                prefix.trim_end_matches(['.', '-', ':']).replace(':', "-"),
                hasher.finish()
            )),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        action: Some("Translate".into()),
        event_time: Some(MicroTime(now)),
        note: Some(cut(note, NOTE)),
        reason: Some(match problem.severity {
            Severity::Error => "ConfigurationError".into(),
            Severity::Warning => "ConfigurationWarning".into(),
        }),
        regarding: Some(ObjectReference {
            api_version: Some(api_version),
            kind: Some(origin.kind.to_string()),
            name: Some(origin.name.to_string()),
            namespace: (!origin.namespace.is_empty()).then(|| origin.namespace.to_string()),
            uid,
            ..ObjectReference::default()
        }),
        reporting_controller: Some(REPORTER.into()),
        // "max 128 characters"
        reporting_instance: Some(cut(identity.to_owned(), 128)),
        type_: Some("Warning".into()),
        ..Event::default()
    }
}

/// At most so many bytes, of whole characters.
fn cut(mut text: String, most: usize) -> String {
    if text.len() > most {
        let mut end = most - '…'.len_utf8();
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(name: &str, message: &str) -> Problem {
        Problem {
            origin: Origin::new("HTTPRoute", "ns", name),
            field: "spec".into(),
            severity: Severity::Error,
            message: message.into(),
            fix: "do".into(),
        }
    }

    fn told(ledger: &mut Ledger, problems: &[Problem], now: Instant) -> Vec<(String, i32)> {
        let (tell, _) = ledger.take(problems, now);
        tell.into_iter().map(|one| (one.problem.message, one.count)).collect()
    }

    #[test]
    fn a_problem_is_told_once_and_again_while_it_lasts() {
        let start = Instant::now();
        let minute = Duration::from_secs(60);
        let mut ledger = Ledger::new(start);
        let problems = [problem("a", "x"), problem("b", "y")];
        assert_eq!(told(&mut ledger, &problems, start), [("x".into(), 1), ("y".into(), 1)]);
        assert_eq!(told(&mut ledger, &problems, start + minute), []);
        assert_eq!(told(&mut ledger, &problems[..1], start + AGAIN), [("x".into(), 2)]);
        // It went, and came again.
        assert_eq!(told(&mut ledger, &[], start + AGAIN + 2 * minute), []);
        assert_eq!(
            told(&mut ledger, &problems[..1], start + AGAIN + 3 * minute),
            [("x".into(), 1)]
        );
    }

    #[test]
    fn what_flaps_is_not_told_each_time() {
        let start = Instant::now();
        let mut ledger = Ledger::new(start);
        let problems = [problem("a", "x")];
        let mut count = 0;
        for second in 0..60 {
            let now = start + Duration::from_secs(second);
            let present: &[Problem] = if second % 2 == 0 { &problems } else { &[] };
            count += told(&mut ledger, present, now).len();
        }
        assert_eq!(count, 1);
    }

    #[test]
    fn a_flood_is_told_little_by_little_and_one_object_does_not_fill_it() {
        let start = Instant::now();
        let mut ledger = Ledger::new(start);
        let many: Vec<Problem> = (0..100).map(|index| problem(&index.to_string(), "x")).collect();
        let (tell, left) = ledger.take(&many, start);
        assert_eq!((tell.len(), left), (50, 50));
        assert_eq!(ledger.take(&many, start).0.len(), 0);
        assert_eq!(ledger.take(&many, start + 10 * REFILL).0.len(), 10);
        let mut ledger = Ledger::new(start);
        let one: Vec<Problem> = (0..100).map(|index| problem("a", &index.to_string())).collect();
        assert_eq!(ledger.take(&one, start).0.len(), PER_OBJECT);
    }

    #[test]
    fn an_event_names_its_object_and_keeps_within_the_limits() {
        let telling = Telling {
            problem: problem("a", &"ä".repeat(2000)),
            count: 1,
        };
        let event = event(
            &telling,
            "me",
            "gateway.networking.k8s.io/v1".into(),
            Some("u".into()),
            Timestamp::UNIX_EPOCH,
        );
        let note = event.note.unwrap();
        assert!(note.len() <= NOTE && note.starts_with("spec: ä") && note.ends_with('…'));
        let regarding = event.regarding.unwrap();
        assert_eq!(
            (regarding.kind.as_deref(), regarding.uid.as_deref()),
            (Some("HTTPRoute"), Some("u"))
        );
        assert!(event.metadata.name.unwrap().starts_with("a."));
    }
}
