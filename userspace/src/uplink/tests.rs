//! Against a controller made for the purpose: real TLS, real gRPC.

use std::fs;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use futures_util::Stream;
use pierhead_model::{BindAddress, BindKey, BindPort, DataPath, OnMiss, OwnedPrefix, Ownership, Transport};
use pierhead_protocol::identity::{SignRequest, SignResponse};
use pierhead_protocol::{Encoder, Identity, IdentityServer, ResourceMessage, Snapshots, SnapshotsServer};
use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Server, ServerTlsConfig};
use tonic::{Request, Response, Streaming};

use super::*;

const TOKEN: &str = "the token";
const PATIENCE: Duration = Duration::from_secs(20);

type Responses = Pin<Box<dyn Stream<Item = Result<DeltaResponse, Status>> + Send>>;

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    fn serving(&self) -> tonic::transport::Identity {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        tonic::transport::Identity::from_pem(certificate.pem(), key.serialize_pem())
    }
}

/// A controller that sends what the test tells it to, and remembers what it hears.
struct Fake {
    authority: Authority,
    signed: AtomicU32,
    heard: mpsc::UnboundedSender<DeltaRequest>,
    /// Of the latest stream.
    say: Mutex<Option<mpsc::UnboundedSender<Result<DeltaResponse, Status>>>>,
    /// How long certificates live, in seconds from now.
    life: u64,
}

impl Snapshots for Fake {
    type Responses = Responses;

    async fn delta(&self, request: Request<Streaming<DeltaRequest>>) -> Result<Response<Responses>, Status> {
        if request.peer_certs().is_none_or(|certificates| certificates.is_empty()) {
            return Err(Status::unauthenticated("no certificate"));
        }
        let mut stream = request.into_inner();
        let heard = self.heard.clone();
        tokio::spawn(async move {
            while let Ok(Some(request)) = stream.message().await {
                let _ = heard.send(request);
            }
        });
        let (say, said) = mpsc::unbounded_channel();
        *self.say.lock().unwrap() = Some(say);
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(said))))
    }
}

impl Identity for Fake {
    async fn sign(&self, request: Request<SignRequest>) -> Result<Response<SignResponse>, Status> {
        let request = request.into_inner();
        if request.token != TOKEN {
            return Err(Status::unauthenticated("an unknown token"));
        }
        self.signed.fetch_add(1, Ordering::Relaxed);
        let der = request.csr_der.to_vec();
        let mut csr = CertificateSigningRequestParams::from_der(&der.into()).unwrap();
        let now = std::time::SystemTime::now();
        csr.params.not_before = (now - Duration::from_secs(2)).into();
        csr.params.not_after = (now + Duration::from_secs(self.life)).into();
        let certificate = csr.signed_by(&self.authority.issuer).unwrap();
        Ok(Response::new(SignResponse {
            chain: vec![Bytes::copy_from_slice(certificate.der())],
            ca: Bytes::new(),
        }))
    }
}

impl Fake {
    fn say(&self, response: DeltaResponse) {
        let say = self.say.lock().unwrap().clone();
        say.expect("a stream").send(Ok(response)).unwrap();
    }
}

struct Rig {
    fake: Arc<Fake>,
    server: JoinHandle<()>,
    address: SocketAddr,
    heard: mpsc::UnboundedReceiver<DeltaRequest>,
    folder: TempDir,
}

impl Rig {
    async fn new(life: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (fake, heard, server) = serve(listener, Authority::new(), life);
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("token"), format!("{TOKEN}\n")).unwrap();
        fs::write(folder.path().join("ca.crt"), &fake.authority.pem).unwrap();
        Self {
            fake,
            server,
            address,
            heard,
            folder,
        }
    }

    /// Another controller in the same place.
    async fn replace(&mut self, authority: Authority) {
        self.server.abort();
        let _ = (&mut self.server).await;
        // Connections that were accepted live on; their streams end.
        self.fake.say.lock().unwrap().take();
        let listener = loop {
            match TcpListener::bind(self.address).await {
                Ok(listener) => break listener,
                Err(_) => sleep(Duration::from_millis(10)).await,
            }
        };
        (self.fake, self.heard, self.server) = serve(listener, authority, 3600);
    }

    fn uplink(&self, kept: Option<&Arc<Snapshot>>) -> Uplink {
        let path = |name| self.folder.path().join(name);
        let options = Options {
            target: Target::parse(&format!("https://{}", self.address)).unwrap(),
            node: "node-1".to_owned(),
            token: path("token"),
            ca: path("ca.crt"),
            folder: self.folder.path().to_owned(),
        };
        Uplink::start(options, kept)
    }

    async fn hear(&mut self) -> DeltaRequest {
        timeout(PATIENCE, self.heard.recv())
            .await
            .expect("in time")
            .expect("a request")
    }
}

fn serve(
    listener: TcpListener,
    authority: Authority,
    life: u64,
) -> (Arc<Fake>, mpsc::UnboundedReceiver<DeltaRequest>, JoinHandle<()>) {
    let (heard, hearing) = mpsc::unbounded_channel();
    let tls = ServerTlsConfig::new()
        .identity(authority.serving())
        .client_ca_root(Certificate::from_pem(&authority.pem))
        .client_auth_optional(true);
    let fake = Arc::new(Fake {
        authority,
        signed: AtomicU32::new(0),
        heard,
        say: Mutex::new(None),
        life,
    });
    let services = (
        SnapshotsServer::new(Arc::clone(&fake)),
        IdentityServer::new(Arc::clone(&fake)),
    );
    let server = tokio::spawn(async move {
        let mut server = Server::builder().tls_config(tls).unwrap();
        let router = server.add_service(services.0).add_service(services.1);
        let _ = router.serve_with_incoming(TcpIncoming::from(listener)).await;
    });
    (fake, hearing, server)
}

fn snapshot(nets: &[&str]) -> Arc<Snapshot> {
    let ownership = Ownership {
        on_miss: OnMiss::Drop,
        announcer: None,
        round: 0,
    };
    let owned = nets
        .iter()
        .map(|net| (OwnedPrefix(net.parse().unwrap()), ownership.clone()));
    Arc::new(Snapshot {
        owned: owned.collect(),
        ..Snapshot::default()
    })
}

fn response(nonce: u64, snapshot: &Arc<Snapshot>) -> DeltaResponse {
    let changed = Encoder::default().encode(snapshot).changed;
    DeltaResponse {
        nonce,
        system_version: 100 + nonce,
        resources: changed.iter().map(ResourceMessage::from).collect(),
        ..DeltaResponse::default()
    }
}

fn facts() -> Facts {
    Facts {
        paths: vec![DataPathReport {
            bind: BindKey {
                transport: Transport::Tcp,
                address: BindAddress::Any,
                port: BindPort::Port(80),
            },
            path: DataPath::None,
            why: "taken".to_owned(),
        }],
        addresses: vec!["192.0.2.7".parse().unwrap()],
    }
}

async fn apply(uplink: &mut Uplink) -> Arc<Snapshot> {
    let change = timeout(PATIENCE, uplink.changes.recv())
        .await
        .expect("in time")
        .expect("a change");
    let done = Done {
        facts: facts(),
        refused: Vec::new(),
    };
    change.done.send(done).unwrap();
    change.snapshot
}

async fn until(link: &mut watch::Receiver<Link>, what: impl Fn(&Link) -> bool) -> Link {
    let found = timeout(PATIENCE, link.wait_for(|link| what(link))).await;
    found.expect("in time").unwrap().clone()
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.unwrap().block_on(test);
}

#[test]
fn a_node_proves_itself_applies_what_it_is_sent_and_says_so() {
    run(async {
        let mut rig = Rig::new(3600).await;
        let mut uplink = rig.uplink(None);
        let hello = rig.hear().await;
        assert_eq!((&*hello.node, hello.initial_resource_versions.len()), ("node-1", 0));
        let wanted = snapshot(&["192.0.2.0/28"]);
        rig.fake.say(response(1, &wanted));
        assert_eq!(apply(&mut uplink).await, wanted);
        let ack = rig.hear().await;
        assert_eq!((ack.response_nonce, &*ack.error_detail), (1, ""));
        assert!(ack.resource_errors.is_empty() && ack.paths.is_some() && ack.addresses.is_some());
        let link = until(&mut uplink.link, |link| link.version == 101).await;
        assert!(link.is_connected() && link.certificate_until.is_some());

        // What changes later is told without being asked for; what does not is not.
        uplink.report(facts());
        uplink.report(Facts::default());
        let report = rig.hear().await;
        assert!(report.response_nonce == 0 && report.paths.is_some());

        // What cannot be understood is named, and the rest goes on.
        let mut odd = response(2, &snapshot(&["192.0.2.0/28", "198.51.100.0/28"]));
        odd.resources.push(ResourceMessage {
            name: "bind/tcp *:80".to_owned(),
            version: vec![7; 16].into(),
            body: vec![0xff; 3].into(),
        });
        rig.fake.say(odd);
        assert_eq!(apply(&mut uplink).await.owned.len(), 2);
        let nack = rig.hear().await;
        assert_eq!(
            (nack.response_nonce, &*nack.resource_errors[0].name),
            (2, "bind/tcp *:80")
        );
        let link = until(&mut uplink.link, |link| link.version == 102).await;
        assert!(link.nacks.contains_key("bind/tcp *:80") && link.refusals == 1);
    });
}

#[test]
fn another_controller_is_found_again_and_told_what_is_there() {
    run(async {
        let mut rig = Rig::new(3600).await;
        let kept = snapshot(&["192.0.2.0/28"]);
        let mut uplink = rig.uplink(Some(&kept));
        assert_eq!(rig.hear().await.initial_resource_versions.len(), 1, "what the disk had");
        assert_eq!(rig.fake.signed.load(Ordering::Relaxed), 1);
        rig.fake.say(response(1, &kept));
        apply(&mut uplink).await;
        rig.hear().await;

        // It has the same CA file but another CA: the certificate is worth nothing there.
        let authority = Authority::new();
        fs::write(rig.folder.path().join("ca.crt"), &authority.pem).unwrap();
        rig.replace(authority).await;
        let hello = rig.hear().await;
        assert_eq!((&*hello.node, hello.initial_resource_versions.len()), ("node-1", 1));
        assert_eq!(rig.fake.signed.load(Ordering::Relaxed), 1);
        until(&mut uplink.link, |link| link.is_connected() && link.connections == 2).await;

        // A new process finds the certificate on its disk.
        drop(uplink);
        let uplink = rig.uplink(None);
        rig.hear().await;
        assert_eq!(rig.fake.signed.load(Ordering::Relaxed), 1);
        drop(uplink);
    });
}

#[test]
fn a_certificate_is_renewed_before_it_expires() {
    run(async {
        // Two thirds of five seconds, two of which are gone.
        let mut rig = Rig::new(3).await;
        let uplink = rig.uplink(None);
        rig.hear().await;
        assert_eq!(rig.hear().await.node, "node-1", "the stream is opened again");
        assert_eq!(rig.fake.signed.load(Ordering::Relaxed), 2);
        drop(uplink);
    });
}

#[test]
fn why_there_is_no_connection_is_told() {
    run(async {
        let rig = Rig::new(3600).await;
        fs::write(rig.folder.path().join("token"), "another").unwrap();
        let mut uplink = rig.uplink(None);
        let away = |part: &'static str| move |link: &Link| link.to_string().contains(part);
        until(&mut uplink.link, away("an unknown token")).await;
        fs::remove_file(rig.folder.path().join("token")).unwrap();
        let link = until(&mut uplink.link, away("cannot read the ServiceAccount token")).await;
        assert!(link.to_string().contains("fix:"), "{link}");
        fs::write(rig.folder.path().join("ca.crt"), Authority::new().pem).unwrap();
        until(&mut uplink.link, away("invalid peer certificate")).await;
        rig.server.abort();
        until(&mut uplink.link, away("refused")).await;
        assert!(!uplink.link.borrow().is_connected());
    });
}
