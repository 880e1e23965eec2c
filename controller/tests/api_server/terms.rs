//! One replica that leads, ceases to, and leads again.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use pierhead_controller::run::{Options, Serving, run};
use pierhead_controller::{Counters, Settings};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::controller::{BASE, SOON, route};
use crate::server::{ApiServer, eventually};

const NAMESPACE: &str = "pierhead-system";
const LEASE: &str = "pierhead-controller";

/// A replica that nodes may come to.
fn options(server: &ApiServer) -> Options {
    Options {
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
    }
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().expect("a runtime")
}

/// Nodes are waited for, and routes need not be: what is said of them does not speak of nodes.
#[test]
fn routes_have_their_status_before_anything_is_decided_and_gateways_have_not() {
    let server = ApiServer::start();
    server.install_crds(&[]);
    server.apply(BASE);
    server.apply(&route("r", "r.example"));
    let has_ours = |object: &Value| object["status"].to_string().contains("\"True\"");
    let is_ours = |kind: &str, name: &str| server.get(kind, "default", name).is_some_and(|it| has_ours(&it));
    runtime().block_on(async {
        let running = run(options(&server)).await.expect("a controller");
        eventually(SOON, "the route has its status", || is_ours("httproute", "r"));
        assert!(!is_ours("gateway", "gw"), "the Gateway's is not known yet");
        assert!(running.snapshots().borrow().is_none(), "nothing is decided");
        eventually(SOON, "the Gateway has its status too", || is_ours("gateway", "gw"));
        running.stop().await;
    });
}

/// Nobody reads what it translates, so it need not keep up with each change; what it writes when it leads is of the last.
#[test]
fn who_does_not_lead_translates_once_a_second() {
    let server = ApiServer::start();
    server.install_crds(&[]);
    server.apply(BASE);
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": LEASE, "namespace": NAMESPACE},
        "spec": {"holderIdentity": "somebody", "leaseDurationSeconds": 600, "renewTime": "2126-11-27T00:00:00.000000Z"},
    });
    server.apply(&lease.to_string());
    let options = options(&server);
    let counters = Arc::clone(&options.counters);
    let translations = || counters.values().translations;
    runtime().block_on(async {
        let running = run(options).await.expect("a controller");
        let (before, start) = (translations(), Instant::now());
        for edit in 0..20 {
            server.apply(&route("r", &format!("e{edit}.example")));
        }
        tokio::time::sleep(Duration::from_millis(1200)).await;
        let most = start.elapsed().as_secs() + 1;
        let translated = translations() - before;
        assert!((1..=most).contains(&translated), "{translated} in {most} s");
        assert!(!*running.leader().borrow());
        server.kubectl(&["delete", "lease", "-n", NAMESPACE, LEASE]);
        server.apply(&route("r", "last.example"));
        eventually(SOON, "the route has the status of its last edit", || {
            let route = server.get("httproute", "default", "r").unwrap_or_default();
            let of = &route["status"]["parents"][0]["conditions"][0]["observedGeneration"];
            of.is_u64() && *of == route["metadata"]["generation"]
        });
        running.stop().await;
    });
}

/// Others led meanwhile: addresses have moved, routes have changed. A node that comes must not hear what was true then.
#[test]
fn what_it_gave_when_it_led_is_withdrawn_until_it_has_decided_anew() {
    let server = ApiServer::start();
    server.install_crds(&[]);
    server.apply(BASE);
    runtime().block_on(async {
        let running = run(options(&server)).await.expect("a controller");
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
