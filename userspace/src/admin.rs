//! The admin address: health, readiness, metrics and status over plain HTTP/1.1, one request per connection.
//!
//! For loopback. Nothing here changes anything, and no secret is ever shown.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinHandle};

use crate::shared::Shared;
use crate::{metrics, picture};

/// Longest request head read.
const MAX_HEAD: usize = 8 << 10;
/// Most requests at one time, per address.
const MAX_CONNECTIONS: usize = 32;
/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often an address that a predecessor has is tried again, and when that is worth a word.
const RETRY: Duration = Duration::from_millis(50);
const TOO_LONG: Duration = Duration::from_secs(60);

/// An address that answers until this is dropped or closed.
#[derive(Debug)]
pub(crate) struct Admin {
    task: AbortHandle,
}

impl Admin {
    /// Answers on `address`. `patient`: a predecessor may still have it, and will let go of it.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub(crate) async fn open(address: SocketAddr, shared: &Arc<Shared>, patient: bool) -> Result<Self> {
        let shared = Arc::clone(shared);
        let task: JoinHandle<()> = if patient {
            tokio::spawn(async move {
                let listener = obtain(address).await;
                serve(&listener, &shared).await;
            })
        } else {
            let listener = listen(address).await?;
            let address = listener.local_addr().unwrap_or(address);
            tracing::info!(%address, "health, metrics and status are here");
            tokio::spawn(async move { serve(&listener, &shared).await })
        };
        Ok(Self {
            task: task.abort_handle(),
        })
    }

    /// Answers on a Unix socket at `path`, for this user only; what lies there is replaced.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn open_socket(path: &Path, shared: &Arc<Shared>) -> Result<Self> {
        let fault = || format!("cannot make the admin socket {}", path.display());
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).with_context(fault),
            _ => {}
        }
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder).with_context(fault)?;
        }
        let listener = UnixListener::bind(path).with_context(fault)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).with_context(fault)?;
        let shared = Arc::clone(shared);
        let task = tokio::spawn(async move { serve(&listener, &shared).await });
        Ok(Self {
            task: task.abort_handle(),
        })
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener> {
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

/// Tries until it succeeds.
async fn obtain(address: SocketAddr) -> TcpListener {
    let mut waited = Duration::ZERO;
    loop {
        match listen(address).await {
            Ok(listener) => return listener,
            Err(error) if waited == TOO_LONG => tracing::warn!("{error:#}"),
            Err(_) => {}
        }
        waited += RETRY;
        tokio::time::sleep(RETRY).await;
    }
}

/// What connections come from.
trait Listener {
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;
    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listener for TcpListener {
    type Stream = tokio::net::TcpStream;

    async fn next(&self) -> io::Result<Self::Stream> {
        Ok(self.accept().await?.0)
    }
}

impl Listener for UnixListener {
    type Stream = tokio::net::UnixStream;

    async fn next(&self) -> io::Result<Self::Stream> {
        Ok(self.accept().await?.0)
    }
}

async fn serve<L: Listener + Sync>(listener: &L, shared: &Arc<Shared>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // Never closed.
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        match listener.next().await {
            Ok(stream) => {
                let shared = Arc::clone(shared);
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

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, shared: &Shared) -> io::Result<()> {
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
    let published = shared.published();
    match (target.split('?').next().unwrap_or_default(), published) {
        ("/", _) => text("200 OK", "/healthz /readyz /metrics /status /snapshot /statuses\n"),
        ("/healthz", _) => text("200 OK", "ok\n"),
        ("/readyz", _) => match shared.not_ready() {
            None => text("200 OK", "ready\n"),
            Some(why) => text("503 Service Unavailable", format!("not ready: {why}\n")),
        },
        ("/metrics", _) => Response {
            status: "200 OK",
            kind: "text/plain; version=0.0.4; charset=utf-8",
            body: metrics::text(shared),
        },
        ("/status", _) => json(serde_json::to_string_pretty(&picture::take(shared))),
        ("/snapshot", _) => match shared.snapshot() {
            Some(snapshot) => json(serde_json::to_string_pretty(&*snapshot)),
            None => text("503 Service Unavailable", "not started up yet\n"),
        },
        ("/statuses", Some(published)) => json(serde_json::to_string_pretty(&published.translation.statuses)),
        ("/statuses", None) => text("503 Service Unavailable", "no statuses are known here\n"),
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
        let shared = Shared::default();
        assert_eq!(ask(&shared, "GET /readyz").0, "503 Service Unavailable");
        assert_eq!(ask(&shared, "GET /healthz").0, "200 OK");
        shared.set_ready();
        assert_eq!(ask(&shared, "GET /readyz").0, "200 OK");
        shared.set_not_ready("a successor has taken over");
        let (status, why) = ask(&shared, "GET /readyz");
        assert!(status.starts_with("503") && why.contains("a successor"), "{why}");
    }

    #[test]
    fn a_socket_is_for_this_user_and_replaces_what_a_dead_process_left() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("new/admin.sock");
            let shared = Arc::new(Shared::default());
            drop(Admin::open_socket(&path, &shared).unwrap());
            let _admin = Admin::open_socket(&path, &shared).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
            stream.write_all(b"GET /readyz HTTP/1.1\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        });
    }

    #[test]
    fn what_is_not_there_and_what_is_not_allowed() {
        let shared = Shared::default();
        assert_eq!(ask(&shared, "GET /nothing").0, "404 Not Found");
        assert_eq!(ask(&shared, "POST /healthz").0, "405 Method Not Allowed");
        assert_eq!(ask(&shared, "GET /snapshot").0, "503 Service Unavailable");
        assert!(ask(&shared, "GET /status?x=1").1.contains("\"ready\": false"));
        let foreign = respond("GET /status HTTP/1.1\r\nHost: evil.example\r\n\r\n", &shared);
        assert_eq!(foreign.status, "403 Forbidden");
        assert!(is_local("[::1]:9900") && is_local("LOCALHOST") && !is_local("localhost.evil.example:9900"));
    }
}
