//! The stories of `examples/`, tried: each is applied as it stands, and asked what its README tells to ask.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pierhead_cluster::api::Id;
use pierhead_cluster::helm::shown;
use pierhead_cluster::lab::{Lab, eventually};
use pierhead_wire::client::{Call, Exchange, Response};
use pierhead_wire::pki::Authority;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

/// A story that is being told in a namespace of its own; gone when dropped.
struct Story {
    lab: Lab,
    namespace: String,
    address: IpAddr,
}

impl Story {
    /// Applies the folder, waits for its pods and for the address of its Gateway or Ingress. `before` are objects that the
    /// folder leaves to its reader.
    fn tell(folder: &str, front: (&str, &str, &str), before: &[Value]) -> Result<Self> {
        let lab = Lab::here()?;
        lab.running().context("Pierhead must be installed")?;
        let namespace = format!("story-{folder}");
        lab.api
            .apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}))?;
        for object in before {
            let mut object = object.clone();
            object["metadata"]["namespace"] = json!(namespace);
            lab.api.apply(&object)?;
        }
        let path = shown(
            &Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../../examples")
                .join(folder),
        )?;
        lab.kubectl(&["apply", "--server-side", "-n", &namespace, "-f", &path])?;
        let deployments = lab
            .api
            .list(&format!("/apis/apps/v1/namespaces/{namespace}/deployments"))?;
        for deployment in &deployments {
            let name = deployment["metadata"]["name"]
                .as_str()
                .context("a Deployment without name")?;
            lab.rolled_out("Deployment", &namespace, name, PATIENCE)?;
        }
        let (api_version, kind, name) = front;
        let id = Id::new(api_version, kind, &namespace, name);
        let address = eventually(&format!("{id} has an address"), PATIENCE, || {
            let object = lab.api.get(&id)?.context("it is not there")?;
            let status = &object["status"];
            let text = status["addresses"][0]["value"]
                .as_str()
                .or_else(|| status["loadBalancer"]["ingress"][0]["ip"].as_str())
                .context("none yet")?;
            text.parse::<IpAddr>().context("no IP address")
        })?;
        Ok(Self {
            lab,
            namespace,
            address,
        })
    }

    fn gateway(folder: &str, name: &str, before: &[Value]) -> Result<Self> {
        Self::tell(folder, ("gateway.networking.k8s.io/v1", "Gateway", name), before)
    }

    fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address, port)
    }

    /// One request, until it is answered as `right` says.
    fn ask(
        &self,
        host: &str,
        path: &str,
        header: Option<(&str, &str)>,
        right: impl Fn(&Response) -> Result<()>,
    ) -> Result<()> {
        eventually(&format!("{host}{path}"), PATIENCE, || {
            let mut exchange = Exchange::new("GET", host, path);
            if let Some((name, value)) = header {
                exchange = exchange.field(name, value);
            }
            let response = self.lab.client.h1(self.at(80))?.exchange(&exchange)?;
            right(&response)
        })
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        // What stays is seen by whoever looks, and overwritten by the next run.
        let _ = self.lab.api.delete(&Id::new("v1", "Namespace", "", &self.namespace));
    }
}

/// Whether a pod of this Deployment echoed.
fn is_from(response: &Response, deployment: &str) -> Result<()> {
    ensure!(response.status == 200, "status {}", response.status);
    let echo: Value = serde_json::from_slice(&response.body)?;
    is_pod_of(&echo, deployment)
}

fn is_pod_of(echo: &Value, deployment: &str) -> Result<()> {
    let pod = echo["pod"].as_str().unwrap_or_default();
    // NAME-HASH-HASH.
    let name = pod.rsplitn(3, '-').nth(2).unwrap_or_default();
    ensure!(name == deployment, "{pod} answered instead of {deployment}");
    Ok(())
}

#[test]
fn ingress() {
    let story = Story::tell("ingress", ("networking.k8s.io/v1", "Ingress", "shop"), &[]).unwrap();
    story
        .ask("shop.example.com", "/", None, |response| is_from(response, "shop"))
        .unwrap();
    story
        .ask("shop.example.com", "/api/orders", None, |response| {
            is_from(response, "api")
        })
        .unwrap();
}

#[test]
fn https() {
    let authority = Authority::new().unwrap();
    let leaf = authority.leaf(&["*.example.com"]).unwrap();
    let secret = serde_saphyr::from_str(&leaf.secret("example-com")).unwrap();
    let story = Story::gateway("https", "web", &[secret]).unwrap();
    story
        .ask("shop.example.com", "/cart", None, |response| {
            ensure!(response.status == 301, "status {}", response.status);
            let location = response.header("location");
            ensure!(location == Some("https://shop.example.com/cart"), "{location:?}");
            Ok(())
        })
        .unwrap();
    let trusting = authority.client(&["http/1.1"]).unwrap();
    eventually("HTTPS", PATIENCE, || {
        let mut connection = story.lab.client.h1_tls(story.at(443), "shop.example.com", &trusting)?;
        is_from(&connection.get("shop.example.com", "/")?, "shop")
    })
    .unwrap();
}

#[test]
fn grpc() {
    let story = Story::gateway("grpc", "grpc", &[]).unwrap();
    for (method, deployment) in [("Echo", "echo"), ("EchoTwo", "echo-two")] {
        let path = format!("/gateway_api_conformance.echo_basic.grpcecho.GrpcEcho/{method}");
        let call = Call {
            host: "grpc.example.com",
            path: &path,
        };
        eventually(&path, PATIENCE, || {
            let reply = story.lab.client.h2(story.at(80)).grpc(call, &[b""])?;
            ensure!(reply.status == Some(0), "{reply:?}");
            // The answer holds the name of the pod.
            let text = String::from_utf8_lossy(reply.messages.first().context("no message")?).into_owned();
            let two = text.contains("echo-two-");
            ensure!(
                text.contains("echo-") && two == (deployment == "echo-two"),
                "not from {deployment}: {text:?}"
            );
            Ok(())
        })
        .unwrap();
    }
}

#[test]
fn tcp_and_udp() {
    let story = Story::gateway("tcp-udp", "lines", &[]).unwrap();
    eventually("TCP", PATIENCE, || {
        let stream = story.lab.client.tcp(story.at(9000))?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        // The server speaks first.
        reader.read_line(&mut line)?;
        ensure!(line.contains("TCP Server"), "{line:?}");
        (&stream).write_all(b"TEST\n")?;
        line.clear();
        reader.read_line(&mut line)?;
        is_pod_of(&serde_json::from_str(&line)?, "lines")
    })
    .unwrap();
    eventually("UDP", PATIENCE, || {
        let socket = story.lab.client.udp(story.at(9000))?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        socket.send(b"hello")?;
        let mut answer = [0; 2048];
        let length = socket.recv(&mut answer)?;
        let echo: Value = serde_json::from_slice(&answer[..length])?;
        ensure!(echo["request"] == "hello", "{echo}");
        is_pod_of(&echo, "datagrams")
    })
    .unwrap();
}

#[test]
fn canary() {
    const ALL: usize = 400;
    let story = Story::gateway("canary", "canary", &[]).unwrap();
    story
        .ask("shop.example.com", "/", Some(("x-version", "canary")), |response| {
            is_from(response, "shop-v2")
        })
        .unwrap();
    story
        .ask("shop.example.com", "/", None, |response| {
            ensure!(response.status == 200, "status {}", response.status);
            Ok(())
        })
        .unwrap();
    let mut connection = story.lab.client.h1(story.at(80)).unwrap();
    let new = (0..ALL)
        .filter(|_| is_from(&connection.get("shop.example.com", "/").unwrap(), "shop-v2").is_ok())
        .count();
    // A tenth, give or take five standard deviations.
    assert!((10..=70).contains(&new), "{new} of {ALL}");
}
