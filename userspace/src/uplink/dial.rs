//! Connections to the controller: its name to addresses, TCP, TLS.
//!
//! Names are asked of the servers of `/etc/resolv.conf` with its search list, as `pierhead-controller.pierhead-system.svc`
//! needs; a static program has no other resolver.

use std::fmt::{self, Display};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use super::identity::Credentials;

/// For one address, and for all of it.
const TCP: Duration = Duration::from_secs(2);
const CONNECT: Duration = Duration::from_secs(8);
/// A controller that is gone without a word is noticed after the sum of these.
const PING_EVERY: Duration = Duration::from_secs(1);
const PING_PATIENCE: Duration = Duration::from_secs(2);

/// The controller's address, checked.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    uri: Uri,
    host: String,
    port: u16,
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
        Ok(Self { uri, host, port })
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
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_PATIENCE)
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
        Box::pin(async move {
            let mut addresses = resolve(&target.host).await?;
            // Any replica will do: each node begins with another.
            let random = RandomState::new();
            addresses.sort_by_cached_key(|address| random.hash_one(address));
            let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{} has no address", target.host));
            for address in addresses {
                match timeout(TCP, TcpStream::connect(SocketAddr::new(address, target.port))).await {
                    Ok(Ok(stream)) => {
                        stream.set_nodelay(true)?;
                        return Ok(TokioIo::new(stream));
                    }
                    Ok(Err(error)) => last = io::Error::new(error.kind(), format!("{address}: {error}")),
                    Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, format!("{address} does not answer")),
                }
            }
            Err(last)
        })
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
}
