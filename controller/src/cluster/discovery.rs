//! Which of the kinds that come with a CRD or a feature are served, and in which version: watches begin when a kind
//! appears and end when it goes.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{Config, Event};
use kube::{Api, Client};
use pierhead_translate::Bundle;
use tokio::task::AbortHandle;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::follow::{RETRY, follow};
use super::kinds::{SOURCES, Source};
use super::source::Signal;
use super::store::Change;
use super::watched::watched;
use crate::backoff::Backoff;
use crate::counters::{Counters, count};

/// What comes with a feature of the API server, and not with a CRD, is looked for so often.
const LOOK_AGAIN: Duration = Duration::from_secs(300);
/// A CRD is there before its kind is served, and the kind still served when the CRD is gone: looked at again after.
const SOON: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));

/// A CRD without its schemas, which are large.
type Named = PartialObjectMeta<CustomResourceDefinition>;

/// By source: the version to watch.
type Served = BTreeMap<usize, &'static str>;

pub(super) struct Discovery {
    client: Client,
    changes: Sender<Signal>,
    counters: Arc<Counters>,
    watches: JoinSet<()>,
    running: BTreeMap<usize, (&'static str, AbortHandle)>,
    /// Sources that were told to be unserved.
    absent: BTreeSet<usize>,
    crds: BTreeMap<String, Bundle>,
    /// While the list of CRDs is read.
    listing: Option<BTreeMap<String, Bundle>>,
    soon: Backoff,
    /// When to ask the API server what it serves.
    look: Option<Instant>,
}

impl Discovery {
    pub(super) fn new(client: Client, changes: Sender<Signal>, counters: Arc<Counters>) -> Self {
        Self {
            client,
            changes,
            counters,
            watches: JoinSet::new(),
            running: BTreeMap::new(),
            absent: BTreeSet::new(),
            crds: BTreeMap::new(),
            listing: None,
            soon: SOON,
            look: None,
        }
    }

    /// Watches everything there is to watch; ends only when it is dropped.
    pub(super) async fn run(mut self) {
        for (index, source) in SOURCES.iter().enumerate().filter(|(_, source)| source.built_in) {
            self.start(index, source.versions[0]);
        }
        let api = Api::<Named>::all(self.client.clone());
        let mut events = pin!(watched(api, Config::default().timeout(60)));
        let mut backoff = RETRY;
        loop {
            let look = self.look;
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(event)) => {
                        if !matches!(event, Event::Init) && backoff.failures() > 0 {
                            backoff.succeed();
                            self.counters.set_failing("CustomResourceDefinition", false);
                            // One that was started anew may have been given other features.
                            self.look = Some(Instant::now());
                        }
                        self.note(event);
                    }
                    Some(Err(error)) => {
                        count(&self.counters.watch_errors);
                        self.counters.set_failing("CustomResourceDefinition", true);
                        if backoff.failures().is_multiple_of(100) {
                            tracing::warn!("cannot watch CustomResourceDefinition: {error}");
                        }
                        tokio::time::sleep(backoff.fail()).await;
                    }
                    None => return,
                },
                () = tokio::time::sleep_until(look.unwrap_or_else(Instant::now)), if look.is_some() => self.look().await,
            }
        }
    }

    fn note(&mut self, event: Event<Named>) {
        let matters = |name: &str| {
            let read = |source: &Source| source.comes_with_crd() && source.crd() == name;
            is_of_gateway_api(name) || SOURCES.iter().any(read)
        };
        match event {
            Event::Init => {
                self.listing = Some(BTreeMap::new());
                return;
            }
            Event::InitApply(object) => {
                if let (Some((name, crd)), Some(listing)) = (read(&object.metadata), &mut self.listing)
                    && matters(&name)
                {
                    listing.insert(name, crd);
                }
                return;
            }
            Event::InitDone => self.crds = self.listing.take().unwrap_or_default(),
            Event::Apply(object) => match read(&object.metadata) {
                Some((name, crd)) if matters(&name) => {
                    self.crds.insert(name, crd);
                }
                _ => return,
            },
            Event::Delete(object) => {
                let name = object.metadata.name.unwrap_or_default();
                if self.crds.remove(&name).is_none() {
                    return;
                }
            }
        }
        self.soon = SOON;
        self.look = Some(Instant::now());
        let of_gateway_api = self.crds.iter().filter(|(name, _)| is_of_gateway_api(name));
        self.tell(Change::Crds(
            of_gateway_api.map(|(name, crd)| (name.clone(), crd.clone())).collect(),
        ));
    }

    /// Asks what is served, and starts and ends watches accordingly.
    async fn look(&mut self) {
        let served = match served(&self.client).await {
            Ok(served) => served,
            Err(error) => {
                let wait = self.soon.fail();
                tracing::warn!("cannot ask the API server what it serves: {error}; trying again");
                self.look = Some(Instant::now() + wait);
                return;
            }
        };
        let mut unsettled = false;
        for (index, source) in SOURCES.iter().enumerate().filter(|(_, source)| !source.built_in) {
            match served.get(&index) {
                Some(version) => self.start(index, version),
                None => self.stop(index, source),
            }
            unsettled |=
                source.comes_with_crd() && served.contains_key(&index) != self.crds.contains_key(&source.crd());
        }
        // A CRD of a version that nobody here can read is looked for ever more rarely.
        let wait = if unsettled { self.soon.fail() } else { LOOK_AGAIN };
        self.look = Some(Instant::now() + wait);
    }

    fn start(&mut self, index: usize, version: &'static str) {
        if let Some((running, handle)) = self.running.get(&index) {
            if *running == version {
                return;
            }
            handle.abort();
        }
        if self.absent.remove(&index) {
            tracing::info!("{} is served now ({version})", SOURCES[index].label());
        }
        let watch = follow(
            self.client.clone(),
            index,
            version,
            self.changes.clone(),
            Arc::clone(&self.counters),
        );
        let handle = self.watches.spawn(watch);
        self.running.insert(index, (version, handle));
    }

    fn stop(&mut self, index: usize, source: &Source) {
        if let Some((_, handle)) = self.running.remove(&index) {
            handle.abort();
            self.counters.set_failing(&source.label(), false);
        }
        if self.absent.insert(index) {
            let versions = source.versions.join(", ");
            match self.crds.contains_key(&source.crd()) {
                false => tracing::warn!(
                    "the API server serves no {}: none is read until the CRD {} is installed",
                    source.label(),
                    source.crd()
                ),
                true => tracing::warn!(
                    "the API server serves {} in none of the versions {versions}: none is read until it does",
                    source.label()
                ),
            }
            self.tell(Change::Unserved(index));
        }
    }

    fn tell(&self, change: Change) {
        // Nobody listens any more only when all of this is about to be dropped.
        let _ = self.changes.send(Signal::Watch(change));
    }
}

/// Kinds of the experimental group, which we do not read, are of the same bundle.
fn is_of_gateway_api(name: &str) -> bool {
    name.ends_with(".gateway.networking.k8s.io") || name.ends_with(".gateway.networking.x-k8s.io")
}

fn read(metadata: &ObjectMeta) -> Option<(String, Bundle)> {
    let annotation = |name: &str| {
        let value = metadata.annotations.as_ref().and_then(|all| all.get(name));
        value.cloned().unwrap_or_default()
    };
    let crd = Bundle {
        version: annotation("gateway.networking.k8s.io/bundle-version"),
        channel: annotation("gateway.networking.k8s.io/channel"),
    };
    Some((metadata.name.clone()?, crd))
}

/// Of every source that is not built in and is served, the best version.
async fn served(client: &Client) -> kube::Result<Served> {
    let optional = || SOURCES.iter().enumerate().filter(|(_, source)| !source.built_in);
    let wanted: BTreeSet<String> = optional()
        .flat_map(|(_, source)| source.versions.iter().map(|version| source.api_version(version)))
        .collect();
    let mut lists: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for api_version in wanted {
        match client.list_api_group_resources(&api_version).await {
            Ok(list) => {
                let names = list.resources.into_iter().map(|resource| resource.name);
                lists.insert(api_version, names.collect());
            }
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    Ok(choose(&lists))
}

fn choose(lists: &BTreeMap<String, BTreeSet<String>>) -> Served {
    let best = |source: &'static Source| {
        let is_served = |version: &&&'static str| {
            let list = lists.get(&source.api_version(version));
            list.is_some_and(|names| names.contains(source.plural))
        };
        source.versions.iter().find(is_served).copied()
    };
    let optional = SOURCES.iter().enumerate().filter(|(_, source)| !source.built_in);
    optional
        .filter_map(|(index, source)| Some((index, best(source)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_version_that_is_served_is_watched() {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let lists = BTreeMap::from([
            (
                "gateway.networking.k8s.io/v1".into(),
                list(&["gateways", "gateways/status", "referencegrants"]),
            ),
            (
                "gateway.networking.k8s.io/v1beta1".into(),
                list(&["gateways", "referencegrants"]),
            ),
            ("gateway.networking.k8s.io/v1alpha2".into(), list(&["tcproutes"])),
        ]);
        let served: BTreeMap<&str, &str> = choose(&lists)
            .into_iter()
            .map(|(index, version)| (SOURCES[index].kind, version))
            .collect();
        let expected = [("Gateway", "v1"), ("ReferenceGrant", "v1"), ("TCPRoute", "v1alpha2")];
        assert_eq!(served, BTreeMap::from(expected));
    }

    #[test]
    fn trust_bundles_are_read_in_whatever_version_the_cluster_has() {
        let chosen = |versions: &[&str]| {
            let lists = versions.iter().map(|version| {
                let names = BTreeSet::from([
                    "certificatesigningrequests".to_owned(),
                    "clustertrustbundles".to_owned(),
                ]);
                (format!("certificates.k8s.io/{version}"), names)
            });
            let served = choose(&lists.collect());
            let found = served.iter().map(|(index, version)| (SOURCES[*index].kind, *version));
            found.collect::<Vec<_>>()
        };
        // Kubernetes 1.31 has the first where it is switched on, 1.33 the second, and 1.37 always the third.
        assert_eq!(chosen(&["v1alpha1"]), [("ClusterTrustBundle", "v1alpha1")]);
        assert_eq!(chosen(&["v1alpha1", "v1beta1"]), [("ClusterTrustBundle", "v1beta1")]);
        assert_eq!(chosen(&["v1", "v1beta1"]), [("ClusterTrustBundle", "v1")]);
        assert_eq!(chosen(&[]), []);
    }

    #[test]
    fn a_crd_is_known_by_its_annotations() {
        let annotations = [
            (
                "gateway.networking.k8s.io/bundle-version".to_owned(),
                "v1.7.0".to_owned(),
            ),
            ("gateway.networking.k8s.io/channel".to_owned(), "standard".to_owned()),
        ];
        let metadata = ObjectMeta {
            name: Some("gateways.gateway.networking.k8s.io".into()),
            annotations: Some(annotations.into()),
            ..ObjectMeta::default()
        };
        let (name, crd) = read(&metadata).unwrap();
        assert_eq!(name, "gateways.gateway.networking.k8s.io");
        assert_eq!((&*crd.version, &*crd.channel), ("v1.7.0", "standard"));
    }
}
