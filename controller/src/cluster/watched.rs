//! A watch that lists anew in every case where the API server no longer has the history since the last event.

use std::fmt::Debug;

use futures_util::{Stream, StreamExt, stream};
use kube::runtime::watcher::{Config, Error, Event, Result, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

/// [`watcher`], which by itself begins anew when an event in a watch says that its version is too old (410), and not when the
/// request for a watch is answered so: it would ask for the same version forever.
pub(crate) fn watched<K>(api: Api<K>, config: Config) -> impl Stream<Item = Result<Event<K>>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let begin = move || watcher(api.clone(), config.clone()).boxed();
    stream::unfold((begin(), begin), |(mut events, begin)| async move {
        let event = events.next().await?;
        let is_refused = matches!(
            &event,
            Err(Error::WatchStartFailed(kube::Error::Api(status))) if status.code == 410
        );
        if is_refused {
            events = begin();
        }
        Some((event, (events, begin)))
    })
}
