//! A controller to try, objects to try it with, and what is looked at.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use pierhead_controller::nodes::{Membership, Registry};
use pierhead_controller::run::{Options, Running, Serving, run};
use pierhead_controller::{CounterValues, Counters, Settings};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::server::{ApiServer, eventually};

pub(crate) const SOON: Duration = Duration::from_secs(20);
pub(crate) const OURS: &str = "pierhead.dev/gateway-controller";

/// What answers those that ask whether a controller is alive: a port that accepts connections.
pub(crate) struct Answers {
    is_over: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Answers {
    fn start() -> (Self, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("an address");
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                if listener.accept().is_err() {
                    thread::sleep(Duration::from_millis(10));
                }
            }
        });
        let thread = Some(thread);
        (Self { is_over, thread }, address)
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A controller with one node, which accepts everything. Ends with the value, giving its Lease back.
pub(crate) struct Controller {
    /// Until it has ended.
    answers: Option<Answers>,
    counters: Arc<Counters>,
    pub(crate) registry: Registry,
    stop: Option<oneshot::Sender<bool>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Controller {
    pub(crate) fn start(server: &ApiServer, identity: &str) -> Self {
        let counters = Arc::new(Counters::default());
        let registry = Registry::default();
        let (stop, stopped) = oneshot::channel();
        let (answers, address) = Answers::start();
        let options = Options {
            kubeconfig: Some(server.kubeconfig()),
            namespace: "pierhead-system".into(),
            identity: identity.into(),
            lease: "pierhead-controller".into(),
            address: Some(address),
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
            answers: Some(answers),
            counters,
            registry,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub(crate) fn values(&self) -> CounterValues {
        self.counters.values()
    }

    pub(crate) fn wait_until_it_leads(&self) {
        eventually(SOON, "the controller leads", || {
            self.values().leader && self.values().published > 0
        });
    }

    /// As if its process had died.
    pub(crate) fn die(mut self) {
        self.end(false);
    }

    /// As if its process did nothing any more: it still answers, as long as the result lives.
    pub(crate) fn freeze(mut self) -> Option<Answers> {
        let answers = self.answers.take();
        self.end(false);
        answers
    }

    fn end(&mut self, orderly: bool) {
        self.answers = None;
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

pub(crate) const BASE: &str = "
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

pub(crate) fn route(name: &str, host: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: default}}\n\
         spec: {{parentRefs: [{{name: gw}}], hostnames: ['{host}'], rules: [{{backendRefs: [{{name: web, port: 80}}]}}]}}\n"
    )
}

/// The status of a condition that speaks of the object's present generation.
pub(crate) fn condition(object: &Value, conditions: &Value, kind: &str) -> Option<String> {
    let found = conditions.as_array()?.iter().find(|one| one["type"] == kind)?;
    let current = found["observedGeneration"] == object["metadata"]["generation"];
    current.then(|| found["status"].as_str().unwrap_or_default().to_owned())
}

pub(crate) fn route_is_accepted(server: &ApiServer, name: &str) -> bool {
    let Some(route) = server.get("httproute", "default", name) else {
        return false;
    };
    let parents = route["status"]["parents"].as_array().cloned().unwrap_or_default();
    let ours = parents.iter().find(|parent| parent["controllerName"] == OURS);
    ours.is_some_and(|parent| condition(&route, &parent["conditions"], "Accepted").as_deref() == Some("True"))
}

pub(crate) fn gateway_is_programmed(server: &ApiServer) -> bool {
    let gateway = server.get("gateway", "default", "gw").unwrap_or_default();
    condition(&gateway, &gateway["status"]["conditions"], "Programmed").as_deref() == Some("True")
}

/// The message of a condition, whatever its status.
pub(crate) fn message(conditions: &Value, kind: &str) -> String {
    let found = conditions
        .as_array()
        .and_then(|all| all.iter().find(|one| one["type"] == kind));
    found
        .and_then(|one| one["message"].as_str())
        .unwrap_or_default()
        .to_owned()
}

/// Whether an event about an object says that.
pub(crate) fn is_told(server: &ApiServer, namespace: &str, name: &str, text: &str) -> bool {
    let events = server.list("events", namespace);
    events.iter().any(|event| {
        let says = event["message"].as_str().is_some_and(|message| message.contains(text));
        event["involvedObject"]["name"] == name && says
    })
}
