//! The CA of controller and nodes, in its Secret and its ConfigMap, from one to the next.

use std::sync::Arc;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use pierhead_controller::identity::{ApiVault, Authority, Keeper};
use tokio::sync::watch;

use crate::server::{ApiServer, eventually};

const NAMESPACE: &str = "pierhead-system";
const NAME: &str = "pierhead-ca";
/// The Secret is read every 30 s.
const SOON: Duration = Duration::from_secs(60);

/// Certificates in the ConfigMap that nodes trust.
fn published(server: &ApiServer) -> usize {
    let map = server.get("configmap", NAMESPACE, NAME).unwrap_or_default();
    let text = map["data"]["ca.crt"].as_str().unwrap_or_default();
    text.matches("BEGIN CERTIFICATE").count()
}

fn is_asked(server: &ApiServer) -> bool {
    let secret = server.get("secret", NAMESPACE, NAME).unwrap_or_default();
    !secret["metadata"]["annotations"]["pierhead.dev/rotate"].is_null()
}

#[test]
fn a_new_ca_is_published_beside_the_old_one_and_a_stolen_one_is_replaced() {
    let server = ApiServer::start();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let (_leads, is_leader) = watch::channel(true);
    let (keeper, authority) = runtime.block_on(async {
        let file = Kubeconfig::read_from(server.kubeconfig()).expect("a kubeconfig");
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
        let client = Client::try_from(config.expect("a configuration")).expect("a client");
        Keeper::new(ApiVault::new(&client, NAMESPACE), is_leader)
    });
    runtime.spawn(keeper.run());
    let signer = || authority.borrow().as_ref().map(|ca: &Arc<Authority>| ca.fingerprint());
    eventually(SOON, "there is a CA", || signer().is_some() && published(&server) == 1);
    let first = signer();

    server.kubectl(&["annotate", "secret", "-n", NAMESPACE, NAME, "pierhead.dev/rotate=now"]);
    eventually(SOON, "the new one is published too", || published(&server) == 2);
    assert!(!is_asked(&server), "and asked for no longer");
    assert_eq!(signer(), first, "it signs nothing before everybody knows it");

    // Of a key that was stolen nothing is to remain.
    server.kubectl(&["delete", "secret", "-n", NAMESPACE, NAME]);
    eventually(SOON, "there is another CA alone", || {
        published(&server) == 1 && signer().is_some() && signer() != first
    });
}
