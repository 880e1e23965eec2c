//! A cold start beside many routes writes each status once, and nothing else. How long that takes, `cargo xtask bench cluster`
//! measures: nearly all of it is the API server's time, which validates each write by the rules of the CRD.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::controller::{BASE, Controller, OURS, route};
use crate::server::{ApiServer, eventually};

const ROUTES: u32 = 3000;
/// For the class and the Gateway, whose status follows as routes come.
const OTHERS: u64 = 20;

#[test]
fn three_thousand_routes_have_their_status_with_one_write_each_after_a_cold_start() {
    let server = ApiServer::start();
    server.install_crds(&[]);
    server.apply(BASE);
    make_routes(&server, ROUTES);
    let start = Instant::now();
    let controller = Controller::start(&server, "a");
    eventually(Duration::from_secs(300), "every status is written", || {
        let values = controller.values();
        values.status_writes >= u64::from(ROUTES) && values.status_pending == 0
    });
    println!("{ROUTES} statuses after {:?}", start.elapsed());
    let values = controller.values();
    drop(controller);
    let all = server.list("httproute", "default");
    assert_eq!(all.len(), ROUTES as usize);
    let is_written = |route: &Value| {
        let parents = route["status"]["parents"].as_array();
        parents.is_some_and(|parents| parents.iter().any(|parent| parent["controllerName"] == OURS))
    };
    assert!(all.iter().all(is_written));
    assert!(values.status_writes <= u64::from(ROUTES) + OTHERS, "{values:?}");
    assert_eq!((values.status_conflicts, values.status_errors), (0, 0));
}

#[test]
fn an_edit_costs_one_write_that_is_not_refused() {
    const EDITS: u64 = 20;
    let server = ApiServer::start();
    server.install_crds(&[]);
    server.apply(BASE);
    make_routes(&server, 100);
    let controller = Controller::start(&server, "a");
    eventually(Duration::from_secs(60), "every status is written", || {
        let values = controller.values();
        values.status_writes >= 100 && values.status_pending == 0
    });
    let before = controller.values();
    for edit in 0..EDITS {
        let written = controller.values().status_writes;
        server.apply(&route(&format!("r{edit}"), &format!("edited{edit}.example")));
        eventually(Duration::from_secs(10), "the edit's status is written", || {
            controller.values().status_writes > written
        });
    }
    let values = controller.values();
    assert_eq!(values.status_writes - before.status_writes, EDITS);
    assert_eq!((values.status_conflicts, values.status_errors), (0, 0));
}

fn make_routes(server: &ApiServer, count: u32) {
    for hundred in 0..count / 100 {
        let numbers = hundred * 100..(hundred + 1) * 100;
        let routes = numbers.map(|number| route(&format!("r{number}"), &format!("h{number}.example")));
        server.apply(&routes.collect::<String>());
    }
}
