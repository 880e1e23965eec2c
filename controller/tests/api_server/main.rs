//! The control plane against a real API server: part of the cluster tier, which tells where the programs of
//! `cargo xtask cluster` and the CRDs of the Gateway API are.

mod server;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::discovery::ApiResource;
use kube::{Api, Client, Config};
use pierhead_controller::nodes::{Membership, Registry};
use pierhead_controller::run::{Options, Running, Serving, run};
use pierhead_controller::{CounterValues, Counters, Settings};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use server::{ApiServer, eventually};

const SOON: Duration = Duration::from_secs(20);
const OURS: &str = "pierhead.dev/gateway-controller";

/// A controller with one node, which accepts everything. Ends with the value, giving its Lease back.
struct Controller {
    counters: Arc<Counters>,
    registry: Registry,
    stop: Option<oneshot::Sender<bool>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Controller {
    fn start(server: &ApiServer, identity: &str) -> Self {
        let counters = Arc::new(Counters::default());
        let registry = Registry::default();
        let (stop, stopped) = oneshot::channel();
        let options = Options {
            kubeconfig: Some(server.kubeconfig()),
            namespace: "pierhead-system".into(),
            identity: identity.into(),
            lease: "pierhead-controller".into(),
            settings: Box::new(|| Settings {
                address_pools: vec!["10.200.0.0/24".parse().expect("a prefix")],
                ..Settings::new(Timestamp::now())
            }),
            serving: Serving::Local(registry.clone()),
            counters: Arc::clone(&counters),
        };
        let node = registry.join("node", Timestamp::now());
        node.update(Timestamp::now(), |state| state.addresses = vec![[192, 0, 2, 1].into()]);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        let runtime = runtime.expect("a runtime");
        let thread = thread::spawn(move || runtime.block_on(control(options, node, stopped)));
        Self {
            counters,
            registry,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    fn values(&self) -> CounterValues {
        self.counters.values()
    }

    fn wait_until_it_leads(&self) {
        eventually(SOON, "the controller leads", || {
            self.values().leader && self.values().published > 0
        });
    }

    /// As if its process had died.
    fn die(mut self) {
        self.end(false);
    }

    fn end(&mut self, orderly: bool) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(orderly);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.end(true);
    }
}

async fn control(options: Options, node: Membership, mut stopped: oneshot::Receiver<bool>) {
    let running: Running = tokio::select! {
        running = run(options) => running.expect("it starts"),
        _ = &mut stopped => return,
    };
    let mut snapshots = running.snapshots();
    loop {
        let version = snapshots.borrow_and_update().as_ref().map_or(0, |one| one.version);
        node.update(Timestamp::now(), |state| state.acked = version);
        tokio::select! {
            changed = snapshots.changed() => changed.expect("it runs"),
            orderly = &mut stopped => {
                if orderly.unwrap_or(false) {
                    running.stop().await;
                }
                return;
            }
        }
    }
}

const BASE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: pierhead}
spec: {controllerName: pierhead.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: default}
spec: {gatewayClassName: pierhead, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {ports: [{port: 80}]}
";

fn route(name: &str, host: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: default}}\n\
         spec: {{parentRefs: [{{name: gw}}], hostnames: ['{host}'], rules: [{{backendRefs: [{{name: web, port: 80}}]}}]}}\n"
    )
}

/// The status of a condition that speaks of the object's present generation.
fn condition(object: &Value, conditions: &Value, kind: &str) -> Option<String> {
    let found = conditions.as_array()?.iter().find(|one| one["type"] == kind)?;
    let current = found["observedGeneration"] == object["metadata"]["generation"];
    current.then(|| found["status"].as_str().unwrap_or_default().to_owned())
}

fn route_is_accepted(server: &ApiServer, name: &str) -> bool {
    let Some(route) = server.get("httproute", "default", name) else {
        return false;
    };
    let parents = route["status"]["parents"].as_array().cloned().unwrap_or_default();
    let ours = parents.iter().find(|parent| parent["controllerName"] == OURS);
    ours.is_some_and(|parent| condition(&route, &parent["conditions"], "Accepted").as_deref() == Some("True"))
}

fn gateway_is_programmed(server: &ApiServer) -> bool {
    let gateway = server.get("gateway", "default", "gw").unwrap_or_default();
    condition(&gateway, &gateway["status"]["conditions"], "Programmed").as_deref() == Some("True")
}

#[test]
fn statuses_are_written_and_what_others_wrote_stays() {
    let server = ApiServer::start();
    server.install_crds(&[]);
    server.apply(&format!("{BASE}{}", route("r", "a.example")));
    let foreign = json!({
        "controllerName": "example.com/other", "parentRef": {"name": "elsewhere"},
        "conditions": [{"type": "x/Odd", "status": "Unknown", "reason": "Odd", "message": "m", "observedGeneration": 1,
            "lastTransitionTime": "2020-01-01T00:00:00Z"}],
    });
    server.patch_status("httproute", "default", "r", &json!({"status": {"parents": [foreign]}}));
    let stale = json!({"type": "x/Stale", "status": "True", "reason": "Stale", "message": "m", "observedGeneration": 1,
        "lastTransitionTime": "2020-01-01T00:00:00Z"});
    server.patch_status("gateway", "default", "gw", &json!({"status": {"conditions": [stale]}}));

    let controller = Controller::start(&server, "a");
    controller.wait_until_it_leads();
    eventually(SOON, "the Gateway is programmed", || gateway_is_programmed(&server));
    eventually(SOON, "the route is accepted", || route_is_accepted(&server, "r"));
    let stored = server.get("httproute", "default", "r").unwrap();
    // The API server adds what the CRD defaults.
    let kept = json!({
        "controllerName": "example.com/other",
        "parentRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "elsewhere"},
        "conditions": foreign["conditions"],
    });
    assert_eq!(stored["status"]["parents"][0], kept);
    let gateway = server.get("gateway", "default", "gw").unwrap();
    let conditions = gateway["status"]["conditions"].as_array().unwrap();
    assert!(conditions.contains(&stale), "{conditions:?}");
    assert_eq!(
        gateway["status"]["addresses"],
        json!([{"type": "IPAddress", "value": "10.200.0.1"}])
    );

    // Nothing changes: nothing is written, however often what others write is seen.
    eventually(SOON, "everything is written", || {
        controller.values().status_pending == 0
    });
    thread::sleep(Duration::from_secs(1));
    let before = controller.values();
    server.kubectl(&["annotate", "httproute", "-n", "default", "r", "a=b"]);
    eventually(SOON, "the change was seen", || {
        controller.values().watch_events > before.watch_events
    });
    thread::sleep(Duration::from_secs(1));
    assert_eq!(controller.values().status_writes, before.status_writes);

    // It leaves the Gateway: our entry goes, theirs stays.
    server.kubectl(&[
        "patch",
        "httproute",
        "-n",
        "default",
        "r",
        "--type=merge",
        "-p",
        r#"{"spec":{"parentRefs":[{"name":"elsewhere"}]}}"#,
    ]);
    eventually(SOON, "our entry is gone", || {
        let route = server.get("httproute", "default", "r").unwrap_or_default();
        route["status"]["parents"] == json!([kept])
    });
}

#[test]
fn an_ingress_has_addresses_for_as_long_as_it_is_ours() {
    let server = ApiServer::start();
    server.apply(
        "
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: pierhead}
spec: {controller: pierhead.dev/ingress-controller}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: other}
spec: {controller: example.com/other}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: ours, namespace: default}
spec:
  ingressClassName: pierhead
  defaultBackend: {service: {name: web, port: {number: 80}}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: foreign, namespace: default}
spec:
  ingressClassName: other
  defaultBackend: {service: {name: web, port: {number: 80}}}
",
    );
    let theirs = json!({"status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.9"}]}}});
    server.patch_status("ingress", "default", "foreign", &theirs);
    // Without any CRD of the Gateway API.
    let controller = Controller::start(&server, "a");
    controller.wait_until_it_leads();
    let addresses = |name: &str| {
        let ingress = server.get("ingress", "default", name).unwrap_or_default();
        ingress["status"]["loadBalancer"].clone()
    };
    let has_some = |name: &str| {
        addresses(name)["ingress"]
            .as_array()
            .is_some_and(|list| !list.is_empty())
    };
    eventually(SOON, "it has an address", || has_some("ours"));
    server.kubectl(&[
        "patch",
        "ingress",
        "-n",
        "default",
        "ours",
        "--type=merge",
        "-p",
        r#"{"spec":{"ingressClassName":"other"}}"#,
    ]);
    eventually(SOON, "it has none any more", || !has_some("ours"));
    server.kubectl(&[
        "patch",
        "ingress",
        "-n",
        "default",
        "ours",
        "--type=merge",
        "-p",
        r#"{"spec":{"ingressClassName":"pierhead"}}"#,
    ]);
    eventually(SOON, "it has an address again", || has_some("ours"));
    server.kubectl(&["delete", "ingressclass", "pierhead"]);
    eventually(SOON, "its class is gone, and so is the address", || !has_some("ours"));
    assert_eq!(addresses("foreign"), theirs["status"]["loadBalancer"]);
}

#[test]
fn kinds_that_are_missing_are_picked_up_when_they_come_and_let_go_when_they_go() {
    let server = ApiServer::start();
    server.install_crds(&["_httproutes", "_tcproutes"]);
    server.apply(BASE);
    let controller = Controller::start(&server, "a");
    controller.wait_until_it_leads();
    eventually(SOON, "the Gateway is programmed", || gateway_is_programmed(&server));
    server.install_crd_of("httproutes");
    server.apply(&route("r", "a.example"));
    eventually(SOON, "the route is accepted", || route_is_accepted(&server, "r"));
    server.kubectl(&["delete", "crd", "httproutes.gateway.networking.k8s.io"]);
    eventually(SOON, "no route is attached", || {
        let gateway = server.get("gateway", "default", "gw").unwrap_or_default();
        gateway["status"]["listeners"][0]["attachedRoutes"] == 0
    });
    server.install_crd_of("httproutes");
    server.apply(&route("again", "a.example"));
    eventually(SOON, "the new route is accepted", || {
        route_is_accepted(&server, "again")
    });
}

#[test]
fn one_leads_and_the_next_takes_over_at_once_or_after_the_lease() {
    let server = ApiServer::start();
    server.install_crds(&[]);
    server.apply(BASE);
    let first = Controller::start(&server, "a");
    first.wait_until_it_leads();
    let second = Controller::start(&server, "b");
    eventually(SOON, "the second has read everything", || second.values().published > 0);
    eventually(SOON, "the Gateway is programmed", || gateway_is_programmed(&server));
    assert!(!second.values().leader);
    assert_eq!(second.values().status_writes, 0);
    let start = Instant::now();
    drop(first);
    eventually(Duration::from_secs(3), "the second leads", || second.values().leader);
    server.apply(&route("r", "a.example"));
    eventually(SOON, "the second writes", || route_is_accepted(&server, "r"));
    println!("led after {:?}", start.elapsed());

    let third = Controller::start(&server, "c");
    eventually(SOON, "the third has read everything", || third.values().published > 0);
    let start = Instant::now();
    second.die();
    eventually(Duration::from_secs(18), "the third leads", || third.values().leader);
    assert!(
        start.elapsed() > Duration::from_secs(10),
        "not before the lease has ended"
    );
}

#[test]
fn a_status_that_is_refused_neither_spins_nor_blocks_and_is_told() {
    let server = ApiServer::start();
    server.install_crds(&[]);
    server.apply(
        "
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: refuse}
spec:
  matchConstraints:
    resourceRules:
    - {apiGroups: [gateway.networking.k8s.io], apiVersions: ['*'], operations: [UPDATE], resources: [httproutes/status]}
  validations:
  - {expression: \"object.metadata.name != 'refused'\", message: this one never}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: refuse}
spec: {policyName: refuse, validationActions: [Deny]}
",
    );
    server.apply(BASE);
    // A policy takes effect a moment after it is there.
    thread::sleep(Duration::from_secs(2));
    let controller = Controller::start(&server, "a");
    controller.wait_until_it_leads();
    server.apply(&format!(
        "{}{}",
        route("refused", "a.example"),
        route("fine", "b.example")
    ));
    eventually(SOON, "the other is written", || route_is_accepted(&server, "fine"));
    eventually(SOON, "it is told in an event", || {
        let events = server.list("events", "default");
        let about = |event: &&Value| event["involvedObject"]["name"] == "refused";
        events.iter().filter(about).any(|event| {
            event["message"]
                .as_str()
                .is_some_and(|text| text.contains("this one never"))
        })
    });
    let before = controller.values().status_errors;
    thread::sleep(Duration::from_secs(5));
    let errors = controller.values().status_errors - before;
    assert!(errors <= 5, "{errors} attempts in 5 s");
    server.kubectl(&["delete", "validatingadmissionpolicybinding", "refuse"]);
    eventually(Duration::from_secs(70), "it is written when it may be", || {
        route_is_accepted(&server, "refused")
    });
}

#[test]
fn an_api_server_that_goes_away_and_comes_back_is_followed_on() {
    let mut server = ApiServer::start();
    server.install_crds(&[]);
    server.apply(BASE);
    let controller = Controller::start(&server, "a");
    controller.wait_until_it_leads();
    eventually(SOON, "the Gateway is programmed", || gateway_is_programmed(&server));
    let before = controller.values();
    server.down();
    thread::sleep(Duration::from_secs(15));
    let during = controller.values();
    assert!(!during.leader, "it cannot renew");
    assert!(!during.failing.is_empty());
    assert_eq!(during.published, before.published, "what was known stays in force");
    assert_eq!(controller.registry.nodes().borrow().connected().count(), 1);
    server.up();
    server.apply(&route("r", "a.example"));
    eventually(SOON, "it leads again", || controller.values().leader);
    eventually(SOON, "the new route is accepted", || route_is_accepted(&server, "r"));
    eventually(SOON, "every watch works", || controller.values().failing.is_empty());
}

#[test]
fn three_thousand_routes_have_their_status_within_ten_seconds_of_a_cold_start() {
    let server = ApiServer::start();
    server.install_crds(&[]);
    server.apply(BASE);
    for hundred in 0..30 {
        let routes: String = (0..100)
            .map(|index| {
                let number = hundred * 100 + index;
                route(&format!("r{number}"), &format!("h{number}.example"))
            })
            .collect();
        server.apply(&routes);
    }
    let bare = bare_writes(&server, 300) * 10;
    let start = Instant::now();
    let controller = Controller::start(&server, "a");
    eventually(Duration::from_secs(120), "every status is written", || {
        let values = controller.values();
        values.status_writes >= 3000 && values.status_pending == 0
    });
    let took = start.elapsed();
    let values = controller.values();
    println!("3,000 statuses after {took:?}, bare writes take {bare:?}: {values:?}");
    // On a machine that is busy with other things, the API server's own pace is the measure.
    assert!(
        took < Duration::from_secs(10).max(bare * 3 / 2),
        "{took:?} and {bare:?}"
    );
    let all = server.list("httproute", "default");
    assert_eq!(all.len(), 3000);
    let is_written = |route: &Value| {
        let parents = route["status"]["parents"].as_array();
        parents.is_some_and(|parents| parents.iter().any(|parent| parent["controllerName"] == OURS))
    };
    assert!(all.iter().all(is_written));
}

/// How long so many writes of a status take that need no thought.
fn bare_writes(server: &ApiServer, count: usize) -> Duration {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
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
        let routes = Api::<DynamicObject>::namespaced_with(client, "default", &resource);
        let condition = json!({"type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let parent = json!({"controllerName": "example.com/other", "parentRef": {"name": "elsewhere"},
            "conditions": [condition]});
        let patch = Patch::Merge(json!({"status": {"parents": [parent]}}));
        let start = Instant::now();
        let mut under_way = tokio::task::JoinSet::new();
        for index in 0..count {
            if under_way.len() >= 24 {
                under_way.join_next().await;
            }
            let (routes, patch) = (routes.clone(), patch.clone());
            under_way.spawn(async move {
                let name = format!("r{index}");
                routes
                    .patch_status(&name, &PatchParams::default(), &patch)
                    .await
                    .expect("written")
            });
        }
        under_way.join_all().await;
        start.elapsed()
    })
}
