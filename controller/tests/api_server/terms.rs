//! One replica that leads, ceases to, and leads again.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use pierhead_controller::run::{Options, Serving, run};
use pierhead_controller::{Counters, Settings};
use serde_json::json;
use tokio::time::timeout;

use crate::controller::{BASE, SOON};
use crate::server::ApiServer;

const NAMESPACE: &str = "pierhead-system";
const LEASE: &str = "pierhead-controller";

/// Others led meanwhile: addresses have moved, routes have changed. A node that comes must not hear what was true then.
#[test]
fn what_it_gave_when_it_led_is_withdrawn_until_it_has_decided_anew() {
    let server = ApiServer::start();
    server.install_crds(&[]);
    server.apply(BASE);
    let options = Options {
        kubeconfig: Some(server.kubeconfig()),
        namespace: NAMESPACE.into(),
        identity: "a".into(),
        lease: LEASE.into(),
        address: None,
        settings: Box::new(|| Settings::new(Timestamp::now())),
        serving: Serving::Nodes {
            listener: TcpListener::bind("127.0.0.1:0").expect("a port"),
            service_name: "pierhead-controller".into(),
        },
        counters: Arc::new(Counters::default()),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let running = run(options).await.expect("a controller");
        let mut snapshots = running.snapshots();
        let mut next = async |is_wanted: fn(bool) -> bool| {
            let found = timeout(SOON, snapshots.wait_for(|snapshot| is_wanted(snapshot.is_some()))).await;
            let found = found.expect("in time").expect("a controller at work");
            found.as_ref().map(|numbered| numbered.version)
        };
        let first = next(|is_there| is_there).await;
        let taken = json!({"spec": {"holderIdentity": "somebody", "leaseDurationSeconds": 600}});
        server.patch("lease", NAMESPACE, LEASE, &taken);
        assert_eq!(next(|is_there| !is_there).await, None);
        server.kubectl(&["delete", "lease", "-n", NAMESPACE, LEASE]);
        let mut leader = running.leader();
        timeout(SOON, leader.wait_for(|leads| *leads))
            .await
            .expect("it leads again")
            .expect("a controller at work");
        // Nodes come now, and are given a while to.
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(running.snapshots().borrow().is_none(), "nothing is decided yet");
        assert!(
            next(|is_there| is_there).await > first,
            "numbers grow from term to term"
        );
        running.stop().await;
    });
}
