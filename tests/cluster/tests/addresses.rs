//! Addresses of a pool: who answers for them, and what becomes of them when that one is gone.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pierhead_cluster::api::Id;
use pierhead_cluster::ingress::backends;
use pierhead_cluster::lab::{Lab, eventually};
use pierhead_cluster::neighbours::Mac;
use pierhead_wire::client::H1;
use serde_json::{Value, json};

const NODES: [&str; 2] = ["node-1", "node-2"];
const HOST: &str = "pool.example.com";
const PATIENCE: Duration = Duration::from_secs(30);

/// Within this somebody else has the addresses of a node that was cut off.
const MOVED: Duration = Duration::from_secs(3);

/// Elections come to rest after a node has come back.
const REST: Duration = Duration::from_secs(4);

/// One test at a time: a node that is cut off is so for all.
static ALONE: Mutex<()> = Mutex::new(());

/// A namespace of its own; gone when dropped.
struct Stage {
    lab: Lab,
    namespace: &'static str,
    _alone: MutexGuard<'static, ()>,
}

impl Stage {
    fn set(namespace: &'static str) -> Result<Self> {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let lab = Lab::here()?;
        lab.running().context("Pierhead must be installed")?;
        lab.api
            .apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}))?;
        Ok(Self {
            lab,
            namespace,
            _alone: alone,
        })
    }

    fn apply(&self, mut object: Value) -> Result<()> {
        object["metadata"]["namespace"] = json!(self.namespace);
        self.lab.api.apply(&object).map(drop)
    }

    /// A Gateway with this in its `spec`, and a route on its port 80 that Pierhead answers by itself. Its addresses.
    fn gateway(&self, spec: Value) -> Result<Vec<IpAddr>> {
        let mut gateway = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "pool"}, "spec": spec,
        });
        gateway["spec"]["gatewayClassName"] = json!("pierhead");
        self.apply(gateway)?;
        self.apply(json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "answer"},
            "spec": {
                "parentRefs": [{"name": "pool", "sectionName": "http"}],
                "hostnames": [HOST],
                "rules": [{"filters": [{"type": "RequestRedirect", "requestRedirect": {"statusCode": 302, "path": {
                    "type": "ReplaceFullPath", "replaceFullPath": "/there",
                }}}]}],
            },
        }))?;
        let id = Id::new("gateway.networking.k8s.io/v1", "Gateway", self.namespace, "pool");
        eventually("the Gateway has its addresses", PATIENCE, || {
            let gateway = self.lab.api.get(&id)?.context("no Gateway")?;
            let addresses = gateway["status"]["addresses"].as_array().context("none yet")?;
            ensure!(addresses.len() == 2, "{} addresses", addresses.len());
            let parsed = addresses
                .iter()
                .map(|one| Ok(one["value"].as_str().unwrap_or_default().parse()?));
            parsed.collect()
        })
    }

    fn is_served(&self, address: IpAddr) -> Result<()> {
        let to = SocketAddr::new(address, 80);
        let stream = self.lab.client.tcp_within(to, Duration::from_millis(200))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        let response = H1::new(stream).get(HOST, "/")?;
        ensure!(response.status == 302, "status {}", response.status);
        Ok(())
    }

    /// Has the client reach this by way of these nodes.
    fn route(&self, prefix: &str, nodes: &[&str]) -> Result<()> {
        let v6 = prefix.contains(':');
        let hops = nodes.iter().map(|node| {
            let number = if *node == "node-1" { 11 } else { 12 };
            let hop = if v6 {
                format!("fd00:250::{number}")
            } else {
                format!("10.250.0.{number}")
            };
            format!("nexthop via {hop} dev eth0")
        });
        let hops: Vec<String> = hops.collect();
        let family = if v6 { "-6" } else { "-4" };
        self.lab
            .client_ip(&format!("{family} route replace {prefix} {}", hops.join(" ")))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // What stays is seen by whoever looks, and overwritten by the next run.
        let _ = self.lab.api.delete(&Id::new("v1", "Namespace", "", self.namespace));
    }
}

/// Plugs the node in again, however the test ends.
struct CutOff<'a>(&'a Lab, &'static str);

impl Drop for CutOff<'_> {
    fn drop(&mut self) {
        let _ = self.0.link(self.1, true);
    }
}

/// The one node that answers for the address.
fn only(lab: &Lab, address: IpAddr) -> Result<&'static str> {
    let answers = lab.answers(address)?;
    let nodes: Vec<(&str, Mac)> = NODES
        .into_iter()
        .map(|node| Ok((node, lab.mac(node)?)))
        .collect::<Result<_>>()?;
    let found: Vec<&str> = nodes
        .iter()
        .filter(|(_, mac)| answers.contains(mac))
        .map(|(node, _)| *node)
        .collect();
    ensure!(
        answers.len() == 1 && found.len() == 1,
        "{found:?} answer for {address}: {answers:02x?}"
    );
    Ok(found[0])
}

#[test]
fn one_node_answers_for_an_address_and_another_one_when_it_is_gone() {
    let stage = Stage::set("addresses-elected").unwrap();
    let addresses = stage
        .gateway(json!({
            "addresses": [
                {"type": "IPAddress", "value": "10.200.0.210"}, {"type": "IPAddress", "value": "fd00:200::d2"},
            ],
            "listeners": [{"name": "http", "protocol": "HTTP", "port": 80}],
        }))
        .unwrap();
    for address in addresses {
        eventually("it is served", PATIENCE, || stage.is_served(address)).unwrap();
        let elected = only(&stage.lab, address).unwrap();
        stage.lab.lead_elsewhere(elected).unwrap();
        let (outage, now) = {
            stage.lab.link(elected, false).unwrap();
            let _cut = CutOff(&stage.lab, elected);
            let cut = Instant::now();
            eventually("another node serves it", PATIENCE, || stage.is_served(address)).unwrap();
            let outage = cut.elapsed();
            let now = only(&stage.lab, address).unwrap();
            assert_ne!(now, elected, "{address}");
            (outage, now)
        };
        assert!(outage < MOVED, "{address} moved after {outage:?}");
        // The node that returns gives it up: what others established meanwhile would be cut otherwise.
        eventually("one node answers", PATIENCE, || {
            ensure!(only(&stage.lab, address)? == now);
            stage.is_served(address)
        })
        .unwrap();
        thread::sleep(REST);
        assert_eq!(only(&stage.lab, address).unwrap(), now, "{address}");
    }
}

/// Where routers spread over the nodes there is nothing to elect: all of them take what comes.
#[test]
fn every_node_serves_an_address_that_nobody_announces() {
    const POOLS: [&str; 2] = ["10.201.0.0/29", "fd00:201::/125"];
    let stage = Stage::set("addresses-ecmp").unwrap();
    stage
        .apply(json!({
            "apiVersion": "pierhead.dev/v1alpha1", "kind": "GatewayParameters", "metadata": {"name": "ecmp"},
            "spec": {"addresses": {"type": "Pool", "pool": {"cidrs": POOLS, "announce": "none"}}},
        }))
        .unwrap();
    let mut datagrams = backends::deployment(stage.namespace, "datagrams", 1);
    let container = &mut datagrams["spec"]["template"]["spec"]["containers"][0];
    container["env"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "UDP_ECHO_SERVER", "value": "1"}));
    container.as_object_mut().unwrap().remove("readinessProbe");
    stage.apply(datagrams).unwrap();
    stage
        .apply(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "datagrams"},
            "spec": {"selector": {"app": "datagrams"}, "ports": [{"port": 9000, "targetPort": 8080, "protocol": "UDP"}]},
        }))
        .unwrap();
    stage
        .apply(json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "UDPRoute", "metadata": {"name": "datagrams"},
            "spec": {
                "parentRefs": [{"name": "pool", "sectionName": "udp"}],
                "rules": [{"backendRefs": [{"name": "datagrams", "port": 9000}]}],
            },
        }))
        .unwrap();
    // So many that there are some on either node.
    stage
        .apply(backends::deployment(stage.namespace, "streams", 4))
        .unwrap();
    stage
        .apply(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "streams"},
            "spec": {"selector": {"app": "streams"}, "ports": [{"port": 9001, "targetPort": 3000}]},
        }))
        .unwrap();
    stage
        .apply(json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "TCPRoute", "metadata": {"name": "streams"},
            "spec": {
                "parentRefs": [{"name": "pool", "sectionName": "tcp"}],
                "rules": [{"backendRefs": [{"name": "streams", "port": 9001}]}],
            },
        }))
        .unwrap();
    let addresses = stage
        .gateway(json!({
            "infrastructure": {"parametersRef": {"group": "pierhead.dev", "kind": "GatewayParameters", "name": "ecmp"}},
            "listeners": [
                {"name": "http", "protocol": "HTTP", "port": 80}, {"name": "udp", "protocol": "UDP", "port": 9000},
                {"name": "tcp", "protocol": "TCP", "port": 9001},
            ],
        }))
        .unwrap();
    for nodes in [&NODES[..1], &NODES[1..], &NODES] {
        for prefix in POOLS {
            stage.route(prefix, nodes).unwrap();
        }
        for address in &addresses {
            eventually(&format!("{address} by way of {nodes:?}"), PATIENCE, || {
                stage.is_served(*address)
            })
            .unwrap();
            for _ in 0..20 {
                stage.is_served(*address).unwrap();
            }
        }
    }
    for address in addresses {
        let answers = stage.lab.answers(address).unwrap();
        let all: BTreeSet<Mac> = NODES.iter().map(|node| stage.lab.mac(node).unwrap()).collect();
        if address.is_ipv4() {
            // The kernel answers for whatever is local, which it is on each.
            assert!(answers == all || answers.is_empty(), "{address}: {answers:02x?}");
        } else {
            assert!(answers.is_empty(), "{address}: {answers:02x?}");
        }
        a_flow_goes_on(&stage, address).unwrap();
        // The kernel has those whose endpoints are of the address's family, and these have IPv4.
        if address.is_ipv4() {
            connections_go_on(&stage, address).unwrap();
        }
    }
    for prefix in POOLS {
        let family = if prefix.contains(':') { "-6" } else { "-4" };
        stage.lab.client_ip(&format!("{family} route del {prefix}")).unwrap();
    }
}

/// A UDP flow whose datagrams come by way of the other node, all of a sudden, is answered on.
fn a_flow_goes_on(stage: &Stage, address: IpAddr) -> Result<()> {
    let prefix = if address.is_ipv4() {
        "10.201.0.0/29"
    } else {
        "fd00:201::/125"
    };
    stage.route(prefix, &NODES[..1])?;
    let socket = stage.lab.client.udp(SocketAddr::new(address, 9000))?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    let ask = || {
        socket.send(b"hello")?;
        let mut answer = [0; 2048];
        let length = socket.recv(&mut answer)?;
        let echo: Value = serde_json::from_slice(answer.get(..length).unwrap_or_default())?;
        ensure!(echo["request"] == "hello", "{echo}");
        Ok(echo["pod"].clone())
    };
    let pod = eventually("a datagram is answered", PATIENCE, ask)?;
    for node in [1, 0, 1] {
        stage.route(prefix, &NODES[node..=node])?;
        for _ in 0..5 {
            let now = ask().with_context(|| format!("by way of {}", NODES[node]))?;
            ensure!(now == pod, "{now} answers instead of {pod}");
        }
    }
    Ok(())
}

/// TCP connections whose packets come by way of the other node, all of a sudden, are answered on by the pods that have them.
fn connections_go_on(stage: &Stage, address: IpAddr) -> Result<()> {
    const PREFIX: &str = "10.201.0.0/29";
    let id = Id::new("apps/v1", "Deployment", stage.namespace, "streams");
    eventually("the pods are ready", PATIENCE, || {
        let deployment = stage.lab.api.get(&id)?.context("no Deployment")?;
        ensure!(deployment["status"]["readyReplicas"] == 4, "{}", deployment["status"]);
        Ok(())
    })?;
    stage.route(PREFIX, &NODES[..1])?;
    let open = || -> Result<H1<TcpStream>> {
        let stream = stage
            .lab
            .client
            .tcp_within(SocketAddr::new(address, 9001), Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        Ok(H1::new(stream))
    };
    let ask = |connection: &mut H1<TcpStream>| -> Result<Value> {
        let answer = connection.get(HOST, "/")?;
        ensure!(answer.status == 200, "status {}", answer.status);
        let echo: Value = serde_json::from_slice(&answer.body)?;
        Ok(echo["pod"].clone())
    };
    eventually("a connection is answered", PATIENCE, || ask(&mut open()?))?;
    // What is changing is over: all pods are known to all nodes.
    thread::sleep(REST);
    let mut connections = Vec::new();
    for _ in 0..16 {
        let mut connection = open()?;
        let pod = ask(&mut connection)?;
        connections.push((connection, pod));
    }
    let pods: BTreeSet<String> = connections.iter().map(|(_, pod)| pod.to_string()).collect();
    ensure!(pods.len() > 1, "all connections are with {pods:?}");
    for node in [1, 0, 1] {
        stage.route(PREFIX, &NODES[node..=node])?;
        for (connection, pod) in &mut connections {
            let now = ask(connection).with_context(|| format!("{pod} by way of {}", NODES[node]))?;
            ensure!(now == *pod, "{now} answers instead of {pod}");
        }
    }
    Ok(())
}
