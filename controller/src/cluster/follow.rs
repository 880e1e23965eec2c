//! One watch, for as long as there is a need: lists, follows, and begins anew where the API server cannot go on.

use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use futures_util::StreamExt;
use kube::api::DynamicObject;
use kube::runtime::watcher::{self, Config, Event};
use kube::{Api, Client};
use pierhead_translate::ObjectName;

use super::kinds::SOURCES;
use super::object;
use super::source::Signal;
use super::store::Change;
use super::watched::watched;
use crate::backoff::Backoff;
use crate::counters::{Counters, count};

/// A watch ends after so many seconds, to begin again where it ended. It is also how long it takes to notice that a
/// connection is dead although nobody closed it.
const TIMEOUT: u32 = 60;
/// Retries: soon at first, and never so rarely that a cluster that came back waits for us.
pub(super) const RETRY: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));

/// Tells `changes` everything about the objects of one source, until it is aborted or nobody listens.
pub(super) async fn follow(
    client: Client,
    index: usize,
    version: &'static str,
    changes: Sender<Signal>,
    counters: Arc<Counters>,
) {
    let source = &SOURCES[index];
    let api = Api::<DynamicObject>::all_with(client, &source.resource(version));
    let mut config = Config::default().timeout(TIMEOUT);
    if let Some(fields) = source.fields {
        config = config.fields(fields);
    }
    let mut events = pin!(watched(api, config));
    let mut backoff = RETRY;
    let label = source.label();
    while let Some(event) = events.next().await {
        let change = match event {
            Ok(event) => {
                // A list that begins says nothing yet about whether it will be answered.
                if !matches!(event, Event::Init) && backoff.failures() > 0 {
                    backoff.succeed();
                    counters.set_failing(&label, false);
                    tracing::info!("watching {label} again");
                }
                match event {
                    Event::Init => Change::Begin(index),
                    Event::InitDone => Change::Complete(index),
                    Event::InitApply(object) | Event::Apply(object) => {
                        count(&counters.watch_events);
                        Change::Seen(index, object::read(source, version, object).into())
                    }
                    Event::Delete(object) => {
                        count(&counters.watch_events);
                        Change::Gone(index, ObjectName::of(&object.metadata))
                    }
                }
            }
            Err(error) => {
                count(&counters.watch_errors);
                if !is_expiry(&error) {
                    complain(&label, &error, backoff.failures());
                    counters.set_failing(&label, true);
                }
                tokio::time::sleep(backoff.fail()).await;
                continue;
            }
        };
        if changes.send(Signal::Watch(change)).is_err() {
            return;
        }
    }
}

/// History the API server no longer has: the list that follows is the answer, nobody need act.
fn is_expiry(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::WatchError(status) => status.code == 410,
        watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::InitialListFailed(kube::Error::Api(status)) => status.code == 410,
        _ => false,
    }
}

/// Says the first failure of a row, and every hundredth.
fn complain(label: &str, error: &watcher::Error, failures: u32) {
    if !failures.is_multiple_of(100) {
        tracing::debug!("cannot watch {label}: {error}");
        return;
    }
    let fix = match error {
        watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::InitialListFailed(kube::Error::Api(status))
            if status.code == 403 =>
        {
            "; fix: give our ServiceAccount the ClusterRole of the installation"
        }
        _ => "",
    };
    tracing::warn!("cannot watch {label}: {error}{fix} (what is known stays in force; trying again)");
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::sync::{Mutex, mpsc};
    use std::task::{Context, Poll};

    use kube::client::Body;
    use serde_json::{Value, json};
    use tonic::codegen::Service;
    use tonic::codegen::http::{Request, Response};

    use super::*;

    /// An API server that gives one answer after the other, and then none.
    #[derive(Clone, Default)]
    struct Script {
        answers: Arc<Mutex<VecDeque<(u16, String)>>>,
        asked: Arc<Mutex<Vec<String>>>,
    }

    impl Service<Request<Body>> for Script {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<Body>) -> Self::Future {
            let query = request.uri().query().unwrap_or_default().to_owned();
            let fields: Vec<&str> = query.split('&').collect();
            let version = fields.iter().find_map(|field| field.strip_prefix("resourceVersion="));
            let asked = match fields.contains(&"watch=true") {
                true => format!("watch from {}", version.unwrap_or_default()),
                false => "list".to_owned(),
            };
            self.asked.lock().unwrap().push(asked);
            let answer = self.answers.lock().unwrap().pop_front();
            Box::pin(async move {
                let Some((code, body)) = answer else {
                    return std::future::pending().await;
                };
                let response = Response::builder().status(code).body(Body::from(body.into_bytes()));
                Ok(response.expect("a response"))
            })
        }
    }

    fn object(name: &str, version: u32) -> Value {
        json!({"metadata": {"name": name, "namespace": "ns", "resourceVersion": version.to_string()}, "data": {}})
    }

    fn list(version: u32, names: &[&str]) -> (u16, String) {
        let items: Vec<Value> = names.iter().map(|name| object(name, version)).collect();
        let metadata = json!({"resourceVersion": version.to_string()});
        let list = json!({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": metadata, "items": items});
        (200, list.to_string())
    }

    fn fault(code: u16) -> Value {
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "m", "reason": "r",
            "code": code})
    }

    fn watch(events: &[(&str, Value)]) -> (u16, String) {
        let line = |(kind, object): &(&str, Value)| format!("{}\n", json!({"type": kind, "object": object}));
        (200, events.iter().map(line).collect())
    }

    /// What is asked, and what is told, until there are no more answers.
    async fn follow_through(answers: Vec<(u16, String)>) -> (Vec<String>, Vec<String>, Arc<Counters>) {
        let count = answers.len();
        let script = Script::default();
        *script.answers.lock().unwrap() = answers.into();
        let client = Client::new(script.clone(), "ns");
        let (changes, told) = mpsc::channel();
        let counters = Arc::new(Counters::default());
        let index = SOURCES.iter().position(|source| source.kind == "ConfigMap").unwrap();
        let following = tokio::spawn(follow(client, index, "v1", changes, Arc::clone(&counters)));
        while script.asked.lock().unwrap().len() <= count {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        following.abort();
        let say = |signal| match signal {
            Signal::Watch(Change::Begin(_)) => "begin".to_owned(),
            Signal::Watch(Change::Seen(_, object)) => object.name.name.to_string(),
            Signal::Watch(Change::Gone(_, name)) => format!("without {}", name.name),
            Signal::Watch(Change::Complete(_)) => "complete".to_owned(),
            other => format!("{other:?}"),
        };
        let asked = script.asked.lock().unwrap().clone();
        (asked, told.try_iter().map(say).collect(), counters)
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_expires_goes_on_where_it_was() {
        let bookmark = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"resourceVersion": "15"}});
        let (asked, told, counters) = follow_through(vec![
            list(10, &["a"]),
            watch(&[("ADDED", object("b", 11)), ("BOOKMARK", bookmark)]),
            watch(&[]),
            watch(&[("DELETED", object("a", 16))]),
        ])
        .await;
        assert_eq!(
            asked,
            [
                "list",
                "watch from 10",
                "watch from 15",
                "watch from 15",
                "watch from 16"
            ]
        );
        assert_eq!(told, ["begin", "a", "complete", "b", "without a"]);
        assert!(counters.values().failing.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn when_history_is_lost_everything_is_read_anew_however_that_is_said() {
        let (asked, told, counters) = follow_through(vec![
            list(10, &["a", "b"]),
            // In a watch that was begun, and instead of one.
            watch(&[("ERROR", fault(410))]),
            list(20, &["b"]),
            (410, fault(410).to_string()),
            list(30, &["b", "c"]),
        ])
        .await;
        assert_eq!(
            asked,
            [
                "list",
                "watch from 10",
                "list",
                "watch from 20",
                "list",
                "watch from 30"
            ]
        );
        assert_eq!(
            told,
            [
                "begin", "a", "b", "complete", "begin", "b", "complete", "begin", "b", "c", "complete"
            ]
        );
        assert!(counters.values().failing.is_empty(), "nobody need act");
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_fails_says_nothing_of_what_there_is() {
        let (asked, told, counters) = follow_through(vec![
            (503, fault(503).to_string()),
            (200, "{".to_owned()),
            list(10, &["a"]),
            (500, fault(500).to_string()),
        ])
        .await;
        assert_eq!(asked, ["list", "list", "list", "watch from 10", "watch from 10"]);
        assert_eq!(told.last().map(String::as_str), Some("complete"));
        assert!(!told.contains(&"without a".to_owned()));
        assert_eq!(counters.values().watch_errors, 3);
        assert_eq!(counters.values().failing, ["ConfigMap"]);
    }
}
