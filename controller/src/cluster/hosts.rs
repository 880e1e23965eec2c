//! The addresses by which the world reaches the nodes, as the cluster knows them: `ExternalIP` in the status of Nodes. A node's
//! program cannot know them where they are translated on the way to it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::runtime::watcher::{Config, Event};
use kube::{Api, Client};

use super::follow::RETRY;
use super::source::Signal;
use super::watched::watched;
use crate::counters::{Counters, count};

/// External addresses by name of the Node; a Node without any is absent.
pub(crate) type Hosts = BTreeMap<Arc<str>, Vec<IpAddr>>;

const KIND: &str = "Node";

/// Tells `signals` once everything was read, or cannot be, and then every change, until nobody listens.
pub(super) async fn follow(client: Client, signals: Sender<Signal>, counters: Arc<Counters>) {
    let mut events = pin!(watched(Api::<Node>::all(client), Config::default().timeout(60)));
    let mut hosts = Hosts::new();
    let mut listing = Hosts::new();
    let mut told: Option<Hosts> = None;
    let mut backoff = RETRY;
    while let Some(event) = events.next().await {
        let failed = event.is_err();
        match event {
            Ok(Event::Init) => {
                listing = Hosts::new();
                continue;
            }
            Ok(Event::InitApply(node)) => {
                put(&mut listing, &node);
                continue;
            }
            Ok(Event::InitDone) => hosts = std::mem::take(&mut listing),
            Ok(Event::Apply(node)) => put(&mut hosts, &node),
            Ok(Event::Delete(node)) => drop(hosts.remove(node.metadata.name.unwrap_or_default().as_str())),
            Err(error) => {
                count(&counters.watch_errors);
                counters.set_failing(KIND, true);
                if backoff.failures().is_multiple_of(100) {
                    tracing::warn!(
                        "cannot watch {KIND}: {error} (the addresses that nodes know of themselves are shown)"
                    );
                }
            }
        }
        if told.as_ref() != Some(&hosts) {
            if signals.send(Signal::Hosts(hosts.clone())).is_err() {
                return;
            }
            told = Some(hosts.clone());
        }
        if failed {
            tokio::time::sleep(backoff.fail()).await;
        } else if backoff.failures() > 0 {
            backoff.succeed();
            counters.set_failing(KIND, false);
        }
    }
}

fn put(hosts: &mut Hosts, node: &Node) {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let external = external(node);
    if external.is_empty() {
        hosts.remove(name);
    } else {
        hosts.insert(name.into(), external);
    }
}

fn external(node: &Node) -> Vec<IpAddr> {
    let all = node.status.as_ref().and_then(|status| status.addresses.as_deref());
    let external = all.unwrap_or_default().iter().filter(|one| one.type_ == "ExternalIP");
    external.filter_map(|one| one.address.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_addresses_that_are_external_count() {
        let node = |addresses| -> Node {
            let node = json!({"metadata": {"name": "n"}, "status": {"addresses": addresses}});
            serde_json::from_value(node).unwrap()
        };
        let all = json!([
            {"type": "InternalIP", "address": "10.0.0.1"},
            {"type": "ExternalIP", "address": "203.0.113.1"},
            {"type": "Hostname", "address": "n"},
            {"type": "ExternalIP", "address": "2001:db8::1"},
            {"type": "ExternalIP", "address": "no address"},
        ]);
        let mut hosts = Hosts::new();
        put(&mut hosts, &node(all));
        let expected: Vec<IpAddr> = vec!["203.0.113.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        assert_eq!(hosts.get("n"), Some(&expected));
        put(
            &mut hosts,
            &node(json!([{"type": "InternalIP", "address": "10.0.0.1"}])),
        );
        assert!(hosts.is_empty());
    }
}
