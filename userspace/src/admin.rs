//! The admin address: health, readiness, metrics and status over plain HTTP/1.1, one request per connection.
//!
//! For loopback. Nothing here changes anything, and no secret is ever shown.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use pierhead_controller::files::Published;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use crate::node::Node;
use crate::{metrics, picture};

/// Longest request head read.
const MAX_HEAD: usize = 8 << 10;
/// Most requests at one time.
const MAX_CONNECTIONS: usize = 32;
/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the admin address shows.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) folder: PathBuf,
    pub(crate) started: Instant,
    ready: AtomicBool,
    live: OnceLock<Live>,
}

/// What exists once the process has started up.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) node: Arc<Node>,
    pub(crate) published: watch::Receiver<Arc<Published>>,
}

impl Shared {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            started: Instant::now(),
            ready: AtomicBool::new(false),
            live: OnceLock::new(),
        }
    }

    pub(crate) fn set_live(&self, node: Arc<Node>, published: watch::Receiver<Arc<Published>>) {
        // Set once, by the one that starts up.
        let _ = self.live.set(Live { node, published });
    }

    pub(crate) fn live(&self) -> Option<&Live> {
        self.live.get()
    }

    /// Ready: the configuration is in force, and the process is not about to end.
    pub(crate) fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }
}

pub(crate) async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => anyhow!(
            "admin address {address} is in use; fix: stop what uses it (`ss -lntp` names it; another pierhead?), or choose another with --admin"
        ),
        io::ErrorKind::AddrNotAvailable => {
            anyhow!("admin address {address} is not of this machine; fix: choose a loopback address with --admin")
        }
        io::ErrorKind::PermissionDenied => {
            anyhow!("no permission for admin address {address}; fix: choose a port above 1023 with --admin")
        }
        _ => anyhow!("cannot listen on admin address {address}: {error}"),
    })
}

pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // Never closed.
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    // A client that is slow or gone is its own problem.
                    let _ = tokio::time::timeout(PATIENCE, answer(stream, &shared)).await;
                    drop(slot);
                });
            }
            // Out of descriptors, most likely: wait for some to be freed.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Response {
    status: &'static str,
    kind: &'static str,
    body: String,
}

fn text(status: &'static str, body: impl Into<String>) -> Response {
    Response {
        status,
        kind: "text/plain; charset=utf-8",
        body: body.into(),
    }
}

async fn answer(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if head.len() >= MAX_HEAD || stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let response = respond(&head, shared);
    let body = if head.starts_with("HEAD ") { "" } else { &*response.body };
    let message = format!(
        "HTTP/1.1 {}\r\ncontent-type: {}\r\ncontent-length: {}\r\ncache-control: no-store\r\nconnection: close\r\n\r\n{body}",
        response.status,
        response.kind,
        response.body.len(),
    );
    stream.write_all(message.as_bytes()).await?;
    stream.shutdown().await
}

fn respond(head: &str, shared: &Shared) -> Response {
    let mut lines = head.split("\r\n");
    let mut request = lines.next().unwrap_or_default().split(' ');
    let (method, target) = (request.next().unwrap_or_default(), request.next().unwrap_or_default());
    if !matches!(method, "GET" | "HEAD") {
        return text("405 Method Not Allowed", "only GET\n");
    }
    let host = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("host"));
    if !host.is_none_or(|(_, host)| is_local(host.trim())) {
        // A web page whose name was made to point here must not read it (DNS rebinding).
        return text("403 Forbidden", "call it by its address or as localhost\n");
    }
    let json = |body: serde_json::Result<String>| match body {
        Ok(body) => Response {
            status: "200 OK",
            kind: "application/json",
            body: body + "\n",
        },
        Err(error) => text("500 Internal Server Error", format!("{error}\n")),
    };
    match (target.split('?').next().unwrap_or_default(), shared.live()) {
        ("/", _) => text("200 OK", "/healthz /readyz /metrics /status /snapshot /statuses\n"),
        ("/healthz", _) => text("200 OK", "ok\n"),
        ("/readyz", _) if shared.is_ready() => text("200 OK", "ready\n"),
        ("/readyz", _) => text("503 Service Unavailable", "not ready: no configuration is in force\n"),
        ("/metrics", _) => Response {
            status: "200 OK",
            kind: "text/plain; version=0.0.4; charset=utf-8",
            body: metrics::text(shared),
        },
        ("/status", _) => json(serde_json::to_string_pretty(&picture::take(shared))),
        ("/snapshot", Some(live)) => json(serde_json::to_string_pretty(
            &live.published.borrow().translation.snapshot,
        )),
        ("/statuses", Some(live)) => json(serde_json::to_string_pretty(
            &live.published.borrow().translation.statuses,
        )),
        ("/snapshot" | "/statuses", None) => text("503 Service Unavailable", "not started up yet\n"),
        _ => text(
            "404 Not Found",
            "there are /healthz /readyz /metrics /status /snapshot /statuses\n",
        ),
    }
}

/// An address, or `localhost`, with any port.
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(shared: &Shared, request: &str) -> (&'static str, String) {
        let response = respond(&format!("{request} HTTP/1.1\r\nHost: 127.0.0.1:9900\r\n\r\n"), shared);
        (response.status, response.body)
    }

    #[test]
    fn readiness_is_503_until_the_configuration_is_live() {
        let shared = Shared::new("x".into());
        assert_eq!(ask(&shared, "GET /readyz").0, "503 Service Unavailable");
        assert_eq!(ask(&shared, "GET /healthz").0, "200 OK");
        shared.set_ready(true);
        assert_eq!(ask(&shared, "GET /readyz").0, "200 OK");
        shared.set_ready(false);
        assert_eq!(ask(&shared, "GET /readyz").0, "503 Service Unavailable");
    }

    #[test]
    fn what_is_not_there_and_what_is_not_allowed() {
        let shared = Shared::new("x".into());
        assert_eq!(ask(&shared, "GET /nothing").0, "404 Not Found");
        assert_eq!(ask(&shared, "POST /healthz").0, "405 Method Not Allowed");
        assert_eq!(ask(&shared, "GET /snapshot").0, "503 Service Unavailable");
        assert!(ask(&shared, "GET /status?x=1").1.contains("\"ready\": false"));
        let foreign = respond("GET /status HTTP/1.1\r\nHost: evil.example\r\n\r\n", &shared);
        assert_eq!(foreign.status, "403 Forbidden");
        assert!(is_local("[::1]:9900") && is_local("LOCALHOST") && !is_local("localhost.evil.example:9900"));
    }
}
