//! One watch, for as long as there is a need: lists, follows, and begins anew where the API server cannot go on.

use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use futures_util::StreamExt;
use kube::api::DynamicObject;
use kube::runtime::watcher::{self, Config, Event, watcher};
use kube::{Api, Client};
use pierhead_translate::ObjectName;

use super::kinds::SOURCES;
use super::object;
use super::source::Signal;
use super::store::Change;
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
    let mut events = pin!(watcher(api, config));
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
