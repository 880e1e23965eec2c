//! How fast statuses are written, against the bare API server in the same run.

use std::time::{Duration, Instant};

use kube::api::{DynamicObject, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::discovery::ApiResource;
use kube::{Api, Client, Config};
use serde_json::{Value, json};

use crate::controller::{BASE, Controller, OURS, route};
use crate::server::{ApiServer, eventually};

/// So many writes are measured, to know what all would take.
const SAMPLE: u32 = 1000;
const ROUTES: u32 = 3000;

#[test]
fn three_thousand_routes_have_their_status_within_ten_seconds_of_a_cold_start() {
    let server = ApiServer::start();
    server.install_crds(&[]);
    server.apply(BASE);
    make_routes(&server, ROUTES);
    let before_us = bare_writes(&server, SAMPLE);
    let start = Instant::now();
    let before = server.spent();
    let controller = Controller::start(&server, "a");
    eventually(Duration::from_secs(120), "every status is written", || {
        let values = controller.values();
        values.status_writes >= u64::from(ROUTES) && values.status_pending == 0
    });
    let (took, spent) = (start.elapsed(), server.spent() - before);
    let values = controller.values();
    drop(controller);
    let all = server.list("httproute", "default");
    assert_eq!(all.len(), ROUTES as usize);
    let is_written = |route: &Value| {
        let parents = route["status"]["parents"].as_array();
        parents.is_some_and(|parents| parents.iter().any(|parent| parent["controllerName"] == OURS))
    };
    assert!(all.iter().all(is_written));
    let after_us = bare_writes(&server, SAMPLE);
    println!("{ROUTES} statuses after {took:?}, {spent:?} of the API server's time");
    println!("{SAMPLE} bare writes: {before_us:?} before, {after_us:?} after; {values:?}");
    // A write costs an API server milliseconds of processor time, whoever asks and however (a patch of any kind, an update):
    // it validates by the CRD's rules. So its own pace is the measure, and that we give it little else to do: lists, watches
    // and its own upkeep made 9 to 26 % more. The time on the clock says mostly what else the machine was doing meanwhile.
    let each = |one: Duration| one * ROUTES / SAMPLE;
    let bare_took = each(before_us.took.max(after_us.took));
    let bare_spent = each(before_us.spent.max(after_us.spent));
    assert!(
        spent < bare_spent * 3 / 2,
        "it had {spent:?} of work with us, and {bare_spent:?} with bare writes"
    );
    assert!(
        took < Duration::from_secs(10).max(bare_took * 2),
        "{took:?}, and bare writes {bare_took:?}"
    );
    assert_eq!((values.status_conflicts, values.status_errors), (0, 0));
}

fn make_routes(server: &ApiServer, count: u32) {
    for hundred in 0..count / 100 {
        let numbers = hundred * 100..(hundred + 1) * 100;
        let routes = numbers.map(|number| route(&format!("r{number}"), &format!("h{number}.example")));
        server.apply(&routes.collect::<String>());
    }
}

#[derive(Debug)]
struct Cost {
    took: Duration,
    /// Of the API server's processor time.
    spent: Duration,
}

/// What so many writes cost that need no thought: each makes a status of the size of ours, as many at a time.
fn bare_writes(server: &ApiServer, count: u32) -> Cost {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let routes = api(server).await;
        let condition = |kind: &str| {
            json!({"type": kind, "status": "True", "reason": kind, "message": "", "observedGeneration": 1,
                "lastTransitionTime": "2026-01-01T00:00:00Z"})
        };
        let parent = json!({
            "controllerName": "example.com/other",
            "parentRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "elsewhere"},
            "conditions": [condition("Accepted"), condition("ResolvedRefs")],
        });
        let patch = Patch::Merge(json!({"status": {"parents": [parent]}}));
        let (start, before) = (Instant::now(), server.spent());
        let mut under_way = tokio::task::JoinSet::new();
        for index in 0..count {
            if under_way.len() >= 24
                && let Some(done) = under_way.join_next().await
            {
                done.expect("written");
            }
            let (routes, patch) = (routes.clone(), patch.clone());
            under_way.spawn(async move {
                let name = format!("r{index}");
                let written = routes.patch_status(&name, &PatchParams::default(), &patch).await;
                written.expect("it is written");
            });
        }
        under_way.join_all().await;
        Cost {
            took: start.elapsed(),
            spent: server.spent() - before,
        }
    })
}

async fn api(server: &ApiServer) -> Api<DynamicObject> {
    let file = Kubeconfig::read_from(server.kubeconfig()).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
    let client = Client::try_from(config.expect("a configuration")).expect("a client");
    let resource = ApiResource {
        group: "gateway.networking.k8s.io".into(),
        version: "v1".into(),
        api_version: "gateway.networking.k8s.io/v1".into(),
        kind: "HTTPRoute".into(),
        plural: "httproutes".into(),
    };
    Api::namespaced_with(client, "default", &resource)
}
