//! Controller and nodes over loopback, with real TLS: how a node gets its certificate, what travels, who is refused.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    future::Future,
    net::{SocketAddr, TcpListener},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use pierhead_controller::{
    identity::{Authority, Identity, ReviewError, Reviewed, Reviewer},
    nodes::{NodeState, Nodes, Registry},
    publish::{Numbered, Publisher},
};
use pierhead_model::{
    Backend, BackendId, BackendProtocol, BackendTarget, Certificate, CertificateId, Endpoints, EndpointsId, Origin,
    PrivateKey, Snapshot,
};
use pierhead_protocol::{
    Client, DeltaRequest, DeltaResponse, IdentityClient, NOT_THE_LEADER, Received, ResourceName, SnapshotsClient,
    identity::{SignRequest, SignResponse},
};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Status, Streaming,
    transport::{Certificate as Pem, Channel, ClientTlsConfig, Endpoint, Identity as PemIdentity},
};

const USER: &str = "system:serviceaccount:pierhead-system:pierhead-node";
const PATIENCE: Duration = Duration::from_secs(20);

/// Tokens are `user node`.
struct Tokens;

impl Reviewer for Tokens {
    fn review<'a>(
        &'a self,
        token: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<Reviewed, ReviewError>> + Send + 'a>> {
        Box::pin(async move {
            match token.split_once(' ') {
                Some((user, node)) => Ok(Reviewed {
                    user: user.to_owned(),
                    node: (!node.is_empty()).then(|| node.to_owned()),
                }),
                None if token == "later" => Err(ReviewError::Unavailable("away".to_owned())),
                None => Err(ReviewError::Refused("not a token".to_owned())),
            }
        })
    }
}

struct Controller {
    publisher: Publisher,
    snapshots: watch::Sender<Option<Numbered>>,
    authority: watch::Sender<Option<Arc<Authority>>>,
    leader: watch::Sender<bool>,
    nodes: watch::Receiver<Arc<Nodes>>,
}

fn ca() -> Arc<Authority> {
    Authority::create(Timestamp::now()).unwrap().into()
}

impl Controller {
    fn start() -> Self {
        let (snapshots, receiver) = watch::channel(None);
        let (authority, authorities) = watch::channel(Some(ca()));
        let identity = Identity {
            authority: authorities,
            reviewer: Arc::new(Tokens),
            node_user: Identity::node_user("pierhead-system"),
            server_names: Identity::server_names("pierhead-controller", "pierhead-system"),
        };
        let (leader, is_leader) = watch::channel(true);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let publisher = Publisher::start(listener, receiver, is_leader, identity, Registry::default()).unwrap();
        let nodes = publisher.nodes();
        Self {
            publisher,
            snapshots,
            authority,
            leader,
            nodes,
        }
    }

    fn publish(&self, version: u64, snapshot: &Arc<Snapshot>) {
        self.snapshots.send_replace(Some(Numbered {
            version,
            snapshot: Arc::clone(snapshot),
        }));
    }

    fn authority(&self) -> Arc<Authority> {
        self.authority.borrow().clone().unwrap()
    }

    fn tls(&self) -> ClientTlsConfig {
        ClientTlsConfig::new()
            .domain_name("pierhead-controller.pierhead-system.svc")
            .ca_certificate(Pem::from_pem(self.authority().certificate_pem()))
    }

    async fn channel(&self, tls: ClientTlsConfig) -> Result<Channel, tonic::transport::Error> {
        channel(self.publisher.address(), tls).await
    }

    /// The same by way of a connection that breaks, without a word, when the task is aborted: as when a process is killed.
    async fn fragile(&self, tls: ClientTlsConfig) -> (Channel, tokio::task::JoinHandle<()>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (near, far) = (listener.local_addr().unwrap(), self.publisher.address());
        let relay = tokio::spawn(async move {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut far = tokio::net::TcpStream::connect(far).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        });
        (channel(near, tls).await.unwrap(), relay)
    }

    /// The one node's state once it is as wanted.
    async fn node(&mut self, name: &str, is_wanted: impl Fn(&NodeState) -> bool) -> Arc<NodeState> {
        let wanted = |nodes: &Arc<Nodes>| nodes.by_name.get(name).is_some_and(|state| is_wanted(state));
        let found = timeout(PATIENCE, self.nodes.wait_for(wanted)).await.is_ok();
        let nodes = self.nodes.borrow().clone();
        assert!(found, "node {name} is not as wanted: {nodes:?}");
        Arc::clone(&nodes.by_name[name])
    }

    async fn sign(&self, token: &str, csr_der: Vec<u8>) -> Result<SignResponse, Status> {
        let channel = self.channel(self.tls()).await.unwrap();
        let request = SignRequest {
            csr_der: csr_der.into(),
            token: token.to_owned(),
        };
        IdentityClient::new(channel).sign(request).await
    }

    /// Proves itself as the node; what it then connects with.
    async fn bootstrap(&self, node: &str) -> ClientTlsConfig {
        let (key, request) = request();
        let response = self.sign(&format!("{USER} {node}"), request).await.unwrap();
        assert_eq!(*response.ca, **self.authority().certificate());
        let chain: Vec<String> = response.chain.iter().map(|der| pem(der)).collect();
        self.tls()
            .identity(PemIdentity::from_pem(chain.concat(), key.serialize_pem()))
    }
}

async fn channel(address: SocketAddr, tls: ClientTlsConfig) -> Result<Channel, tonic::transport::Error> {
    let address = format!("https://{address}");
    Endpoint::from_shared(address)?.tls_config(tls)?.connect().await
}

fn request() -> (KeyPair, Vec<u8>) {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let request = CertificateParams::default().serialize_request(&key).unwrap();
    let der = request.der().to_vec();
    (key, der)
}

fn pem(der: &[u8]) -> String {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        BASE64_STANDARD.encode(der)
    )
}

/// A node's stream.
struct Stream {
    requests: mpsc::Sender<DeltaRequest>,
    responses: Streaming<DeltaResponse>,
}

impl Stream {
    async fn open(channel: Channel, hello: Vec<DeltaRequest>) -> Result<Self, Status> {
        let (requests, receiver) = mpsc::channel(64);
        for request in hello {
            requests.send(request).await.unwrap();
        }
        let response = SnapshotsClient::new(channel)
            .delta(ReceiverStream::new(receiver))
            .await?;
        Ok(Self {
            requests,
            responses: response.into_inner(),
        })
    }

    async fn next(&mut self) -> Result<DeltaResponse, Status> {
        match timeout(PATIENCE, self.responses.message()).await {
            Ok(Ok(Some(response))) => Ok(response),
            Ok(Ok(None)) => Err(Status::cancelled("the stream ended")),
            Ok(Err(status)) => Err(status),
            Err(_) => panic!("no response within {PATIENCE:?}"),
        }
    }

    /// Takes one whole response in; the names that travelled, and what is to be applied.
    async fn take(&mut self, client: &mut Client) -> (Vec<String>, Arc<Snapshot>) {
        let mut names = Vec::new();
        loop {
            let response = self.next().await.unwrap();
            names.extend(response.resources.iter().map(|resource| resource.name.clone()));
            names.extend(response.removed_resources.iter().map(|name| format!("-{name}")));
            if let Received::Apply(snapshot) = client.receive(response).unwrap() {
                return (names, snapshot);
            }
        }
    }

    async fn say(&self, request: Option<DeltaRequest>) {
        self.requests.send(request.unwrap()).await.unwrap();
    }
}

/// Backends with their endpoints, and a certificate.
fn snapshot(names: &[&str]) -> Arc<Snapshot> {
    let mut snapshot = Snapshot::default();
    for name in names {
        let endpoints = Endpoints {
            id: EndpointsId::new(name),
            endpoints: Vec::new(),
        };
        let backend = Backend {
            id: BackendId::new(name),
            origin: Origin::new("Service", "ns", name),
            target: BackendTarget::Endpoints(endpoints.id.clone()),
            protocol: BackendProtocol::Http1,
            tls: None,
        };
        snapshot.endpoints.insert(endpoints.id.clone(), endpoints.into());
        snapshot.backends.insert(backend.id.clone(), backend.into());
    }
    let certificate = Certificate {
        id: CertificateId("ns/web".into()),
        chain: vec![b"der"[..].into()],
        key: PrivateKey::new(b"secret"),
        names: Vec::new(),
        not_before: 0,
        not_after: 1,
    };
    snapshot.certificates.insert(certificate.id.clone(), certificate.into());
    snapshot.into()
}

/// What a node that dies and is started again takes to come back, and more.
const COMING_BACK: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_connection_breaks_has_the_time_to_come_back() {
    let mut controller = Controller::start();
    let tls = controller.bootstrap("node-1").await;
    let mut client = Client::new("node-1", "0.1.0");
    let (channel, relay) = controller.fragile(tls.clone()).await;
    let _stream = Stream::open(channel, client.connect()).await.unwrap();
    controller.node("node-1", |state| state.connected).await;
    relay.abort();
    tokio::time::sleep(COMING_BACK).await;
    assert!(controller.nodes.borrow().by_name["node-1"].connected);

    // It is back: nobody else was to have its addresses.
    let (channel, relay) = controller.fragile(tls).await;
    let _stream = Stream::open(channel, client.connect()).await.unwrap();
    let gone = timeout(
        COMING_BACK * 3,
        controller.nodes.wait_for(|nodes| !nodes.by_name["node-1"].connected),
    )
    .await
    .is_ok();
    assert!(!gone);

    // It does not come back.
    relay.abort();
    controller.node("node-1", |state| !state.connected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_proves_itself_and_follows_what_changes() {
    let mut controller = Controller::start();
    let tls = controller.bootstrap("node-1").await;
    let mut client = Client::new("node-1", "0.1.0");
    client.set_addresses(vec!["10.0.0.1".parse().unwrap()]);
    let channel = controller.channel(tls.clone()).await.unwrap();
    let mut stream = Stream::open(channel, client.connect()).await.unwrap();
    let state = controller
        .node("node-1", |state| state.connected && !state.program.is_empty())
        .await;
    assert_eq!((state.acked, state.addresses.len()), (0, 1));

    // The first snapshot comes whole.
    controller.publish(1, &snapshot(&["a", "b"]));
    let (names, applied) = stream.take(&mut client).await;
    assert_eq!(applied, snapshot(&["a", "b"]));
    assert_eq!(names.len(), 5);
    stream.say(client.applied()).await;
    controller.node("node-1", |state| state.acked == 1).await;

    // Then only what changed.
    controller.publish(2, &snapshot(&["b", "c"]));
    let (mut names, applied) = stream.take(&mut client).await;
    names.sort();
    assert_eq!(names, ["-backend/a", "-endpoints/a", "backend/c", "endpoints/c"]);
    assert_eq!(applied, snapshot(&["b", "c"]));

    // The node cannot use one of them.
    let name = ResourceName::new("backend/c");
    client.refuse([(name.clone(), "no such protocol".to_owned())]);
    stream.say(client.applied()).await;
    let state = controller.node("node-1", |state| state.acked == 2).await;
    assert_eq!(state.nacks.get(&name).map(String::as_str), Some("no such protocol"));

    // The connection breaks; while it is away something changes.
    drop(stream);
    controller.node("node-1", |state| !state.connected).await;
    controller.publish(3, &snapshot(&["b", "c", "d"]));
    let channel = controller.channel(tls).await.unwrap();
    let mut stream = Stream::open(channel, client.connect()).await.unwrap();
    let (mut names, _) = stream.take(&mut client).await;
    names.sort();
    assert_eq!(names, ["backend/d", "endpoints/d"], "nothing unchanged is sent again");
    stream.say(client.applied()).await;
    let state = controller
        .node("node-1", |state| state.connected && state.acked == 3)
        .await;
    assert!(state.nacks.contains_key(&name), "the new stream knows too");

    // All of it is refused.
    controller.publish(4, &snapshot(&[]));
    stream.take(&mut client).await;
    stream.say(client.rejected("the kernel has no room")).await;
    let state = controller.node("node-1", |state| state.acked == 4).await;
    assert_eq!(state.rejected.as_deref(), Some("the kernel has no room"));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_good_token_of_our_service_account_is_signed_for() {
    let controller = Controller::start();
    for (token, code) in [
        ("junk", Code::Unauthenticated),
        (
            "system:serviceaccount:other:pierhead-node node-1",
            Code::PermissionDenied,
        ),
        (
            "system:serviceaccount:pierhead-system:default node-1",
            Code::PermissionDenied,
        ),
        (&format!("{USER} "), Code::PermissionDenied),
        ("later", Code::Unavailable),
    ] {
        let status = controller.sign(token, request().1).await.unwrap_err();
        assert_eq!(status.code(), code, "{token}: {status}");
    }
    let token = format!("{USER} node-1");
    let status = controller.sign(&token, b"junk".to_vec()).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    let status = controller.sign(&token, vec![0; 128 << 10]).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
    controller.authority.send_replace(None);
    let status = controller.sign_without_ca(&token).await;
    assert_eq!(status, None, "without a CA nobody is let in");
}

impl Controller {
    /// Whether anybody answers while the CA is not known. The serving certificate of before is still shown.
    async fn sign_without_ca(&self, token: &str) -> Option<SignResponse> {
        let tls = ClientTlsConfig::new().ca_certificate(Pem::from_pem(ca().certificate_pem()));
        let channel = self.channel(tls).await.ok()?;
        let request = SignRequest {
            csr_der: request().1.into(),
            token: token.to_owned(),
        };
        IdentityClient::new(channel).sign(request).await.ok()
    }
}

/// Whether the connection ended before any service was asked. In TLS 1.3 the client is done before the server looks at its
/// certificate: what it hears is the end of the connection, and the alert only if that comes first.
fn is_cut_by_tls(told: &str) -> bool {
    told.contains("(Transport") && !told.contains("Unauthenticated")
}

/// Why a stream that says this is not served.
async fn refused(channel: Result<Channel, tonic::transport::Error>, hello: Vec<DeltaRequest>) -> String {
    let channel = match channel {
        Ok(channel) => channel,
        Err(error) => return format!("{error:?}"),
    };
    match Stream::open(channel, hello).await {
        Ok(mut stream) => format!("{:?}", stream.next().await.unwrap_err()),
        Err(status) => format!("{status:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_no_certificate_of_ours_gets_nothing() {
    let controller = Controller::start();
    controller.publish(1, &snapshot(&["a"]));
    let hello = || Client::new("node-1", "test").connect();

    let told = refused(controller.channel(controller.tls()).await, hello()).await;
    assert!(told.contains("no client certificate was shown"), "{told}");

    // Signed by another CA.
    let (key, csr) = request();
    let foreign = ca().sign_node(&csr, "node-1", Timestamp::now()).unwrap();
    let identity = PemIdentity::from_pem(pem(&foreign), key.serialize_pem());
    let told = refused(controller.channel(controller.tls().identity(identity)).await, hello()).await;
    assert!(is_cut_by_tls(&told), "{told}");

    // Ours, of long ago.
    let past = Timestamp::now() - Duration::from_hours(48);
    let old = controller.authority().sign_node(&csr, "node-1", past).unwrap();
    let identity = PemIdentity::from_pem(pem(&old), key.serialize_pem());
    let told = refused(controller.channel(controller.tls().identity(identity)).await, hello()).await;
    assert!(is_cut_by_tls(&told), "{told}");

    // A good one, of another node.
    let tls = controller.bootstrap("node-2").await;
    let told = refused(controller.channel(tls).await, hello()).await;
    assert!(told.contains("the stream is of node node-2, not of node-1"), "{told}");
    let nodes = controller.nodes.borrow().clone();
    assert!(!nodes.by_name.contains_key("node-1"), "{nodes:?}");

    // A certificate of a server.
    let (serving, key) = controller
        .authority()
        .serving(&["localhost".to_owned()], Timestamp::now())
        .unwrap();
    let key = KeyPair::try_from(key.secret_der()).unwrap();
    let identity = PemIdentity::from_pem(pem(&serving), key.serialize_pem());
    let told = refused(controller.channel(controller.tls().identity(identity)).await, hello()).await;
    assert!(is_cut_by_tls(&told), "{told}");
}

/// A controller with a node that has applied its first snapshot.
async fn with_a_node() -> (Controller, ClientTlsConfig, Client, Stream) {
    let mut controller = Controller::start();
    controller.publish(1, &snapshot(&["a"]));
    let tls = controller.bootstrap("node-1").await;
    let mut client = Client::new("node-1", "test");
    let channel = controller.channel(tls.clone()).await.unwrap();
    let mut stream = Stream::open(channel, client.connect()).await.unwrap();
    stream.take(&mut client).await;
    stream.say(client.applied()).await;
    controller.node("node-1", |state| state.acked == 1).await;
    (controller, tls, client, stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn while_an_old_and_a_new_ca_overlap_nobody_notices() {
    let (mut controller, tls, mut client, mut stream) = with_a_node().await;

    // The new one signs from now on.
    let (old, new) = (controller.authority(), ca());
    let both = |of: fn(&Authority) -> &str| [of(&old), of(&new)].concat();
    let both = Authority::from_pem(&both(Authority::certificate_pem), &both(Authority::secret_key_pem)).unwrap();
    controller.authority.send_replace(Some(both.into()));
    controller.publish(2, &snapshot(&["a", "b"]));
    stream.take(&mut client).await;
    stream.say(client.applied()).await;
    controller.node("node-1", |state| state.acked == 2).await;

    // A node that knows both opens a stream with its old certificate, and with a new one.
    let again = controller.channel(tls.ca_certificate(Pem::from_pem(controller.authority().certificate_pem())));
    let mut later = Client::new("node-1", "test");
    Stream::open(again.await.unwrap(), later.connect())
        .await
        .unwrap()
        .take(&mut later)
        .await;
    let tls = controller.bootstrap("node-2").await;
    let mut other = Client::new("node-2", "test");
    let channel = controller.channel(tls).await.unwrap();
    Stream::open(channel, other.connect())
        .await
        .unwrap()
        .take(&mut other)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_ca_ends_the_streams_of_the_old_one() {
    let (mut controller, tls, mut client, mut stream) = with_a_node().await;

    // The same CA read again disturbs nobody.
    let same = controller.authority();
    let same = Authority::from_pem(same.certificate_pem(), same.secret_key_pem()).unwrap();
    controller.authority.send_replace(Some(same.into()));
    controller.publish(2, &snapshot(&["a", "b"]));
    stream.take(&mut client).await;
    stream.say(client.applied()).await;
    controller.node("node-1", |state| state.acked == 2).await;

    controller.authority.send_replace(Some(ca()));
    let status = stream.next().await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    assert!(status.message().contains("the CA was replaced"), "{status}");
    controller.node("node-1", |state| !state.connected).await;

    // The old certificate opens nothing; a new one does.
    let told = timeout(PATIENCE, async {
        loop {
            // Until the new serving certificate is in place the old one is shown.
            let told = refused(controller.channel(tls.clone()).await, client.connect()).await;
            if !told.contains("the client certificate is not good") {
                return told;
            }
        }
    });
    assert!(
        told.await.unwrap().contains("transport"),
        "the CA that the node knows did not sign the controller's"
    );
    let tls = controller.bootstrap("node-1").await;
    let channel = controller.channel(tls).await.unwrap();
    let mut stream = Stream::open(channel, client.connect()).await.unwrap();
    let (names, _) = stream.take(&mut client).await;
    assert!(names.is_empty(), "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_leader_serves_streams_and_every_replica_signs() {
    let mut controller = Controller::start();
    controller.publish(1, &snapshot(&["a"]));
    controller.leader.send_replace(false);
    let tls = controller.bootstrap("node-1").await;
    let mut client = Client::new("node-1", "test");
    let told = refused(controller.channel(tls.clone()).await, client.connect()).await;
    assert!(told.contains("Unavailable") && told.contains(NOT_THE_LEADER), "{told}");

    controller.leader.send_replace(true);
    let channel = controller.channel(tls.clone()).await.unwrap();
    let mut stream = Stream::open(channel, client.connect()).await.unwrap();
    stream.take(&mut client).await;
    stream.say(client.applied()).await;
    controller.node("node-1", |state| state.acked == 1).await;

    controller.leader.send_replace(false);
    let status = stream.next().await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, NOT_THE_LEADER));
    controller.node("node-1", |state| !state.connected).await;

    // When it leads again, what it said before is not said again.
    controller.snapshots.send_replace(None);
    controller.leader.send_replace(true);
    let channel = controller.channel(tls).await.unwrap();
    let mut stream = Stream::open(channel, client.connect()).await.unwrap();
    controller.node("node-1", |state| state.connected).await;
    let told = timeout(Duration::from_millis(300), stream.next()).await;
    assert!(told.is_err(), "{told:?}");
    controller.publish(2, &snapshot(&["b"]));
    let (names, _) = stream.take(&mut client).await;
    assert_eq!(names, ["backend/b", "endpoints/b", "-backend/a", "-endpoints/a"]);
}

/// A way to the controller that can be cut without a word.
struct Cable {
    address: SocketAddr,
    is_cut: watch::Sender<bool>,
}

impl Cable {
    async fn to(target: SocketAddr) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (is_cut, cut) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut cut = cut.clone();
                tokio::spawn(async move {
                    let mut far = tokio::net::TcpStream::connect(target).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        // Both ends stay open and hear nothing.
                        () = when_cut(&mut cut) => std::future::pending().await,
                    }
                });
            }
        });
        Self { address, is_cut }
    }
}

async fn when_cut(cut: &mut watch::Receiver<bool>) {
    let _ = cut.wait_for(|cut| *cut).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_falls_silent_is_noticed_within_three_seconds() {
    let mut controller = Controller::start();
    controller.publish(1, &snapshot(&["a"]));
    let tls = controller.bootstrap("node-1").await;
    let cable = Cable::to(controller.publisher.address()).await;
    let address = format!("https://{}", cable.address);
    let channel = Endpoint::from_shared(address)
        .unwrap()
        .tls_config(tls)
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut client = Client::new("node-1", "test");
    let mut stream = Stream::open(channel, client.connect()).await.unwrap();
    stream.take(&mut client).await;
    stream.say(client.applied()).await;
    controller.node("node-1", |state| state.acked == 1).await;

    let start = std::time::Instant::now();
    cable.is_cut.send_replace(true);
    controller.node("node-1", |state| !state.connected).await;
    let took = start.elapsed();
    println!("noticed after {took:?}");
    // A busy machine may be late; what must not be is that only TCP's own timeouts would notice.
    assert!(took < Duration::from_secs(6), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_nodes_are_served_what_was_encoded_once() {
    const NODES: usize = 20;
    let mut controller = Controller::start();
    let names: Vec<String> = (0..1_000).map(|n| format!("ns/service-{n:04}:80")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let whole = snapshot(&names);
    controller.publish(1, &whole);
    let ca = controller.authority();
    let mut running = Vec::new();
    for n in 0..NODES {
        let (key, csr) = request();
        let name = format!("node-{n}");
        let certificate = ca.sign_node(&csr, &name, Timestamp::now()).unwrap();
        let tls = controller
            .tls()
            .identity(PemIdentity::from_pem(pem(&certificate), key.serialize_pem()));
        let channel = controller.channel(tls).await.unwrap();
        running.push(tokio::spawn(async move {
            let mut client = Client::new(&name, "test");
            let mut stream = Stream::open(channel, client.connect()).await.unwrap();
            let mut sizes = Vec::new();
            while *client.snapshot() != snapshot(&["ns/only:80"]) {
                let (names, _) = stream.take(&mut client).await;
                sizes.push(names.len());
                stream.say(client.applied()).await;
            }
            (stream, sizes)
        }));
    }
    let all = |nodes: &Arc<Nodes>, version| nodes.connected().count() == NODES && nodes.have_answered(version);
    let first = timeout(PATIENCE * 2, controller.nodes.wait_for(|nodes| all(nodes, 1)))
        .await
        .is_ok();
    assert!(first);
    controller.publish(2, &snapshot(&["ns/only:80"]));
    let second = timeout(PATIENCE * 2, controller.nodes.wait_for(|nodes| all(nodes, 2)))
        .await
        .is_ok();
    assert!(second);
    for node in running {
        let (_stream, sizes) = node.await.unwrap();
        assert_eq!(sizes, [2_001, 2_002]);
    }
}
