//! `standalone --kubeconfig` against a real API server: one process is controller and node of a cluster. Part of the cluster
//! tier, which tells where the programs of `cargo xtask cluster` and the CRDs of the Gateway API are.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/program.rs"]
mod program;
#[allow(dead_code, reason = "shared with the controller's own tests, which use all of it")]
#[path = "../../controller/tests/api_server/server.rs"]
mod server;

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use program::Program;
use serde_json::Value;
use server::{ApiServer, eventually};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(30);

const CLUSTER: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: pierhead}
spec: {controllerName: pierhead.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: default}
spec:
  gatewayClassName: pierhead
  addresses: [{value: 127.0.0.1}]
  listeners:
  - {name: one, port: ONE, protocol: HTTP}
  - {name: two, port: TWO, protocol: HTTP}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: default}
spec:
  parentRefs: [{name: gw}]
  rules: [{backendRefs: [{name: web, port: 80}]}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {ports: [{port: 80, targetPort: BACKEND}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [MACHINE]}]
ports: [{port: BACKEND}]
";

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// An address of this machine that is none of loopback: an API server takes no other for an endpoint.
fn machine() -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // Nothing is sent: the kernel only says from where it would be (RFC 5737: nobody has this address).
    socket
        .connect("192.0.2.1:9")
        .expect("a route, for the address it begins at");
    socket.local_addr().unwrap().ip()
}

/// The cluster's objects for these ports of the Gateway.
fn cluster(one: u16, two: u16) -> String {
    CLUSTER
        .replace("ONE", &one.to_string())
        .replace("TWO", &two.to_string())
        .replace("BACKEND", &backend("hello").to_string())
        .replace("MACHINE", &machine().to_string())
}

/// Answers every request with the word.
fn backend(word: &'static str) -> u16 {
    let listener = TcpListener::bind((machine(), 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
                head.push(byte[0]);
            }
            let length = word.len();
            // Who goes away misses the answer.
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{word}"
            );
        }
    });
    port
}

/// Status and body.
fn get(port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    // The admin address answers to its own name only.
    let head = format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

struct Standalone {
    program: Program,
    admin: SocketAddr,
    log: PathBuf,
    _state: TempDir,
}

impl Standalone {
    fn start(server: &ApiServer, name: &str) -> Self {
        let state = tempfile::tempdir().unwrap();
        let admin = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let log = state.path().join("log");
        let child = Command::new(env!("CARGO_BIN_EXE_pierhead"))
            .args(["standalone", "--ebpf", "off", "--workers", "1", "--node-name", name])
            .args(["--admin", &admin.to_string(), "--namespace", "pierhead-system"])
            .arg("--admin-socket")
            .arg(state.path().join("admin.sock"))
            .arg("--kubeconfig")
            .arg(server.kubeconfig())
            .arg("--state-dir")
            .arg(state.path())
            .env_remove("RUST_BACKTRACE")
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self {
            program: Program(child),
            admin,
            log,
            _state: state,
        }
    }

    #[track_caller]
    fn ready(&self) {
        let mut last = None;
        let is_ready = || {
            last = get(self.admin.port(), "/readyz");
            last.as_ref().is_some_and(|(status, _)| *status == 200)
        };
        let said = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually(SOON, "it is ready", is_ready)
        }));
        assert!(said.is_ok(), "{}", fs::read_to_string(&self.log).unwrap_or_default());
    }

    fn stop(self) -> i32 {
        self.program.stop()
    }
}

fn is_true(object: &Value, conditions: &Value, kind: &str) -> bool {
    let all = conditions.as_array().cloned().unwrap_or_default();
    let current = |one: &Value| one["observedGeneration"] == object["metadata"]["generation"];
    all.iter()
        .any(|one| one["type"] == kind && one["status"] == "True" && current(one))
}

fn is_programmed(server: &ApiServer) -> bool {
    let gateway = server.get("gateway", "default", "gw").unwrap_or_default();
    is_true(&gateway, &gateway["status"]["conditions"], "Programmed")
}

fn is_accepted(server: &ApiServer, route: &str) -> bool {
    let route = server.get("httproute", "default", route).unwrap_or_default();
    is_true(&route, &route["status"]["parents"][0]["conditions"], "Accepted")
}

#[test]
fn one_process_serves_a_cluster_and_another_goes_on_after_it() {
    let mut server = ApiServer::start();
    server.install_crds(&[]);
    let (one, two) = (free_port(), free_port());
    server.apply(&cluster(one, two));
    let first = Standalone::start(&server, "node-1");
    first.ready();
    for port in [one, two] {
        assert_eq!(get(port, "/"), Some((200, "hello".to_owned())));
    }
    eventually(SOON, "the Gateway is programmed", || is_programmed(&server));
    eventually(SOON, "the route is accepted", || is_accepted(&server, "web"));
    let gateway = server.get("gateway", "default", "gw").unwrap();
    assert_eq!(
        gateway["status"]["addresses"],
        serde_json::json!([{"type": "IPAddress", "value": "127.0.0.1"}])
    );

    // What changes is followed.
    let (elsewhere, machine) = (backend("elsewhere"), machine());
    server.apply(&format!(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: new, namespace: default}}
spec:
  parentRefs: [{{name: gw}}]
  rules: [{{matches: [{{path: {{value: /new}}}}], backendRefs: [{{name: new, port: 80}}]}}]
---
apiVersion: v1
kind: Service
metadata: {{name: new, namespace: default}}
spec: {{ports: [{{port: 80, targetPort: {elsewhere}}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: new-1, namespace: default, labels: {{kubernetes.io/service-name: new}}}}
addressType: IPv4
endpoints: [{{addresses: [{machine}]}}]
ports: [{{port: {elsewhere}}}]
"
    ));
    eventually(SOON, "the new route is served", || {
        get(one, "/new") == Some((200, "elsewhere".to_owned()))
    });
    eventually(SOON, "and its status written", || is_accepted(&server, "new"));

    // Without its API server it goes on with what it had, also past the end of its lease.
    server.down();
    thread::sleep(Duration::from_secs(20));
    assert_eq!(get(one, "/new"), Some((200, "elsewhere".to_owned())));
    server.up();
    server.kubectl(&["delete", "httproute", "-n", "default", "new"]);
    eventually(SOON, "it follows again", || {
        get(one, "/new") == Some((200, "hello".to_owned()))
    });

    // One that does not lead serves too: with sockets alone two cannot have one port, so it is tried where the first is gone.
    assert_eq!(first.stop(), 0);
    let lease = server.get("lease", "pierhead-system", "pierhead-standalone").unwrap();
    let holder = &lease["spec"]["holderIdentity"];
    assert!(holder.is_null() || holder == "", "the lease was given back: {lease}");
    let second = Standalone::start(&server, "node-2");
    second.ready();
    assert_eq!(get(two, "/"), Some((200, "hello".to_owned())));
    eventually(SOON, "the Gateway is programmed", || is_programmed(&server));
}

#[test]
fn one_that_does_not_lead_serves_all_the_same() {
    let server = ApiServer::start();
    server.install_crds(&[]);
    let (one, two) = (free_port(), free_port());
    server.apply(&cluster(one, two));
    // Somebody leads, and does not go.
    server.apply(
        "
apiVersion: coordination.k8s.io/v1
kind: Lease
metadata: {name: pierhead-standalone, namespace: pierhead-system}
spec: {holderIdentity: another, leaseDurationSeconds: 3600, renewTime: '2100-01-01T00:00:00.000000Z', leaseTransitions: 1}
",
    );
    let second = Standalone::start(&server, "node-2");
    second.ready();
    assert_eq!(get(one, "/"), Some((200, "hello".to_owned())));
    thread::sleep(Duration::from_secs(2));
    assert!(!is_programmed(&server), "only who leads writes");
}
