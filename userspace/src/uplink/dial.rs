//! Connections to the controller: its name to addresses, TCP, TLS.
//!
//! Names are asked of the servers of `/etc/resolv.conf` with its search list, as `pierhead-controller.pierhead-system.svc`
//! needs; a static program has no other resolver. What they said last is tried without waiting for them: they may have died
//! with the controller.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::{self, Display};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use hyper_util::rt::TokioIo;
use pierhead_protocol::pace::{self, NODE_PING};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use super::identity::Credentials;

/// For one address: one frame may get lost. For names. For all of it.
const TCP: Duration = Duration::from_millis(1500);
const NAMES: Duration = Duration::from_secs(3);
const CONNECT: Duration = Duration::from_secs(6);
/// Attempts at the address behind which any replica is, after those at each of them.
const SPARE: usize = 6;

/// The controller's address, checked.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    uri: Uri,
    host: String,
    /// A name of all replicas, each by its own address; where there is none, `host` is that of any.
    replicas: Option<String>,
    port: u16,
    known: Arc<Mutex<Known>>,
}

/// What names said last.
#[derive(Debug, Default)]
struct Known {
    /// Of replicas, the one that was used last at the end: whatever became of that, the next attempt begins with another.
    each: Vec<IpAddr>,
    /// Behind which any of them is, another one with each attempt: replicas that are newer than the last answer too.
    any: Vec<IpAddr>,
}

impl Known {
    /// What names say now. Who was known keeps its place; others come in an order that is different on each node.
    fn learn(&mut self, found: &[IpAddr]) {
        self.each.retain(|known| found.contains(known));
        let random = RandomState::new();
        let mut new: Vec<IpAddr> = found.iter().copied().filter(|one| !self.each.contains(one)).collect();
        new.sort_by_cached_key(|address| random.hash_one(address));
        new.dedup();
        self.each.splice(0..0, new);
    }

    fn used(&mut self, address: IpAddr) {
        self.each.retain(|known| *known != address);
        self.each.push(address);
    }
}

impl Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        write!(f, ":{}", self.port)
    }
}

impl Target {
    /// # Errors
    /// When it is not `https://HOST[:PORT]`.
    pub(crate) fn parse(url: &str) -> Result<Self> {
        let wrong = || format!("--controller {url}: write it as https://NAME:PORT");
        let uri: Uri = url.parse().with_context(wrong)?;
        if uri.scheme_str() != Some("https") || !matches!(uri.path(), "" | "/") {
            bail!(wrong());
        }
        let host = uri.host().with_context(wrong)?.trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(9901);
        Ok(Self {
            uri,
            host,
            replicas: None,
            port,
            known: Arc::default(),
        })
    }

    /// Where this name leads to, each replica is.
    pub(crate) fn with_replicas(mut self, name: Option<String>) -> Self {
        self.replicas = name;
        self
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where replicas are, by their names.
    pub(super) async fn resolve(&self) -> io::Result<()> {
        let mut each = Vec::new();
        if let Some(replicas) = &self.replicas {
            // The name may be newer than the cluster's objects.
            each = resolve(replicas).await.unwrap_or_default();
        }
        let any = resolve(&self.host).await?;
        let mut known = self.known();
        if each.is_empty() {
            known.learn(&any);
        } else {
            known.learn(&each);
            known.any = any;
        }
        Ok(())
    }
}

/// Connects and makes sure that the controller is one, by the CA in this file. Without credentials it is one to have them
/// signed with.
///
/// # Errors
/// When it cannot be reached, or is not believed.
pub(super) async fn connect(target: &Target, ca: &Path, credentials: Option<&Credentials>) -> Result<Channel> {
    // Read each time: it may be replaced.
    let authority = std::fs::read(ca).with_context(|| {
        format!(
            "cannot read the controller's CA {}; fix: mount the ConfigMap pierhead-ca there, or name it with --ca",
            ca.display()
        )
    })?;
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(authority))
        .domain_name(&*target.host);
    if let Some(credentials) = credentials {
        tls = tls.identity(credentials.identity());
    }
    let endpoint = Endpoint::from(target.uri.clone())
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(NODE_PING.every)
        .keep_alive_timeout(NODE_PING.patience)
        .keep_alive_while_idle(true)
        .tls_config(tls)
        .context("the CA or the certificate cannot be used")?;
    let dial = Dial(target.clone());
    endpoint
        .connect_with_connector(dial)
        .await
        .map_err(|error| anyhow::anyhow!("the controller cannot be reached: {}", chain(&error)))
}

/// The whole of an error: what tonic says alone is "transport error".
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.ends_with(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        source = inner.source();
    }
    text
}

#[derive(Clone)]
struct Dial(Target);

impl Service<Uri> for Dial {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let target = self.0.clone();
        Box::pin(async move { target.dial().await.map(TokioIo::new) })
    }
}

impl Target {
    fn has_any(&self, spare: usize) -> bool {
        spare > 0 && !self.known().any.is_empty()
    }

    async fn dial(&self) -> io::Result<TcpStream> {
        let target = self.clone();
        self.dial_asking(async move { target.resolve().await }).await
    }

    /// The first connection that comes about. Who is known is tried at once, names are asked meanwhile, and who does not answer
    /// is not waited for before the next is tried.
    async fn dial_asking(&self, names: impl Future<Output = io::Result<()>> + Send + 'static) -> io::Result<TcpStream> {
        let mut waiting: VecDeque<IpAddr> = self.known().each.iter().copied().collect();
        let mut tried: BTreeSet<IpAddr> = BTreeSet::new();
        let mut attempts = JoinSet::new();
        // A task, for the answer counts also when somebody known is faster: who is known may not be who leads.
        let mut names = tokio::spawn(timeout(NAMES, names));
        let mut names_answered = false;
        let mut next = Instant::now();
        let mut spare = SPARE;
        let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{} has no address", self.host));
        while !(names_answered && waiting.is_empty() && attempts.is_empty()) || self.has_any(spare) {
            tokio::select! {
                // Who is known is tried before names have answered.
                biased;
                () = sleep_until(next), if !waiting.is_empty() || self.has_any(spare) => {
                    if let Some(address) = waiting.pop_front() {
                        tried.insert(address);
                        attempts.spawn(attempt(address, self.port));
                    } else {
                        spare -= 1;
                        let known = self.known();
                        if let Some(address) = known.any.get(spare % known.any.len().max(1)) {
                            attempts.spawn(attempt(*address, self.port));
                        }
                    }
                    next = Instant::now() + pace::STAGGER;
                }
                Some(ended) = attempts.join_next(), if !attempts.is_empty() => match ended {
                    Ok(Ok((address, stream))) => {
                        // Which one an address of any led to is not known.
                        if !self.known().any.contains(&address) {
                            self.known().used(address);
                        }
                        stream.set_nodelay(true)?;
                        return Ok(stream);
                    }
                    Ok(Err(error)) => {
                        last = error;
                        next = Instant::now();
                    }
                    Err(error) => last = io::Error::other(error),
                },
                found = &mut names, if !names_answered => {
                    names_answered = true;
                    match found {
                        Ok(Ok(Ok(()))) => {
                            let known = self.known();
                            waiting = known.each.iter().copied().filter(|one| !tried.contains(one)).collect();
                        }
                        Ok(Ok(Err(error))) if tried.is_empty() && waiting.is_empty() => last = error,
                        Ok(Err(_)) if tried.is_empty() && waiting.is_empty() => {
                            last = io::Error::new(io::ErrorKind::TimedOut, format!("nobody tells where {} is", self.host));
                        }
                        Ok(Ok(Err(_)) | Err(_)) => {}
                        Err(error) => last = io::Error::other(error),
                    }
                }
            }
        }
        Err(last)
    }
}

async fn attempt(address: IpAddr, port: u16) -> io::Result<(IpAddr, TcpStream)> {
    match timeout(TCP, TcpStream::connect(SocketAddr::new(address, port))).await {
        Ok(Ok(stream)) => Ok((address, stream)),
        Ok(Err(error)) => Err(io::Error::new(error.kind(), format!("{address}: {error}"))),
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("{address} does not answer"),
        )),
    }
}

async fn resolve(host: &str) -> io::Result<Vec<IpAddr>> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let fault = |error: &dyn std::error::Error| io::Error::other(format!("{host} cannot be resolved: {error}"));
    // Made anew each time: /etc/hosts and /etc/resolv.conf are read as they are now.
    let mut builder = TokioResolver::builder_tokio().map_err(|error| fault(&error))?;
    builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    let resolver = builder.build().map_err(|error| fault(&error))?;
    let found = resolver.lookup_ip(host).await.map_err(|error| fault(&error))?;
    Ok(found.iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_checked_before_anything_starts() {
        let target = Target::parse("https://pierhead-controller.pierhead-system.svc:9901").unwrap();
        assert_eq!(
            (&*target.host, target.port),
            ("pierhead-controller.pierhead-system.svc", 9901)
        );
        let target = Target::parse("https://[::1]/").unwrap();
        assert_eq!((&*target.host, target.port), ("::1", 9901));
        for wrong in ["http://a:1", "a:1", "https://a/b", "https://"] {
            let error = Target::parse(wrong).unwrap_err().to_string();
            assert!(error.contains("https://NAME:PORT"), "{wrong}: {error}");
        }
    }

    #[test]
    fn the_next_attempt_begins_with_another_replica() {
        let address = |last: u8| IpAddr::from([192, 0, 2, last]);
        let mut known = Known::default();
        known.learn(&[address(1), address(2), address(2)]);
        assert_eq!(known.each.len(), 2);
        known.used(address(1));
        assert_eq!(known.each, [address(2), address(1)]);
        known.learn(&[address(1), address(2)]);
        assert_eq!(known.each, [address(2), address(1)], "who is known keeps its place");
        known.used(address(2));
        known.learn(&[address(2), address(3)]);
        assert_eq!(known.each, [address(3), address(2)], "who is gone is forgotten");
    }

    fn target(addresses: &[IpAddr], port: u16) -> Target {
        let target = Target::parse(&format!("https://127.0.0.1:{port}")).unwrap();
        target.known().each = addresses.to_vec();
        target
    }

    #[tokio::test]
    async fn a_replica_that_does_not_answer_holds_nobody_up() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        // A queue that is full answers nothing, as a machine that is gone.
        let silent = tokio::net::TcpSocket::new_v4().unwrap();
        silent.bind(SocketAddr::from(([127, 0, 0, 2], port))).unwrap();
        let silent = silent.listen(0).unwrap();
        let mut full = Vec::new();
        while let Ok(stream) = timeout(
            Duration::from_millis(200),
            TcpStream::connect(silent.local_addr().unwrap()),
        )
        .await
        {
            full.push(stream);
        }
        let target = target(&[[127, 0, 0, 2].into(), [127, 0, 0, 1].into()], port);
        let begun = Instant::now();
        let stream = target.dial().await.unwrap();
        assert_eq!(stream.peer_addr().unwrap().ip(), IpAddr::from([127, 0, 0, 1]));
        assert!(begun.elapsed() < pace::STAGGER * 4, "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn a_replica_that_names_do_not_tell_of_yet_is_found_behind_the_address_of_any() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        // Nobody tells where this is.
        let target = Target::parse(&format!("https://nowhere.invalid:{port}")).unwrap();
        target.known().each = vec![[127, 0, 0, 3].into()];
        target.known().any = vec![[127, 0, 0, 1].into()];
        let stream = target.dial().await.unwrap();
        assert_eq!(stream.peer_addr().unwrap().ip(), IpAddr::from([127, 0, 0, 1]));
        assert_eq!(target.known().each, [IpAddr::from([127, 0, 0, 3])]);
    }

    #[tokio::test]
    async fn names_are_heard_although_somebody_known_was_faster() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = target(&[[127, 0, 0, 1].into()], listener.local_addr().unwrap().port());
        let leader = IpAddr::from([127, 0, 0, 9]);
        let told = target.clone();
        let names = async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            told.known().learn(&[[127, 0, 0, 1].into(), leader]);
            Ok(())
        };
        target.dial_asking(names).await.unwrap();
        let heard = async {
            while !target.known().each.contains(&leader) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(2), heard).await.unwrap();
    }

    #[tokio::test]
    async fn a_refusal_is_told_and_the_next_is_tried_at_once() {
        let port = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let error = target(&[[127, 0, 0, 3].into()], port).dial().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(error.to_string().starts_with("127.0.0."), "{error}");
    }
}
