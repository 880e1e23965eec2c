use std::{net::SocketAddr, time::Duration};

use pierhead_model::{BackendId, ListenerId, Origin};

/// How an exchange, a stream or a session ended. One list for all protocols: it is a label of metrics and a field of the
/// access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Reason {
    /// Well.
    Done,
    // The client's doing.
    ClientClosed,
    ClientReset,
    ClientTimeout,
    BadRequest,
    TooLarge,
    HandshakeFailed,
    HandshakeTimeout,
    NoSuchHost,
    NoRoute,
    // Ours.
    Refused,
    LimitReached,
    Redirected,
    Answered,
    /// By an authorization service.
    Denied,
    Draining,
    Internal,
    // The configuration's.
    BackendInvalid,
    NoBackend,
    // The backend's.
    NoEndpoint,
    ConnectFailed,
    ConnectTimeout,
    BackendTls,
    BackendReset,
    BackendProtocol,
    BackendTimeout,
    RequestTimeout,
    IdleTimeout,
    /// An authorization service gave no answer, or none that can be used.
    AuthFailed,
}

impl Reason {
    pub(crate) const ALL: [Self; 29] = [
        Self::Done,
        Self::ClientClosed,
        Self::ClientReset,
        Self::ClientTimeout,
        Self::BadRequest,
        Self::TooLarge,
        Self::HandshakeFailed,
        Self::HandshakeTimeout,
        Self::NoSuchHost,
        Self::NoRoute,
        Self::Refused,
        Self::LimitReached,
        Self::Redirected,
        Self::Answered,
        Self::Denied,
        Self::Draining,
        Self::Internal,
        Self::BackendInvalid,
        Self::NoBackend,
        Self::NoEndpoint,
        Self::ConnectFailed,
        Self::ConnectTimeout,
        Self::BackendTls,
        Self::BackendReset,
        Self::BackendProtocol,
        Self::BackendTimeout,
        Self::RequestTimeout,
        Self::IdleTimeout,
        Self::AuthFailed,
    ];
    pub(crate) const COUNT: usize = Self::ALL.len();

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::ClientClosed => "client_closed",
            Self::ClientReset => "client_reset",
            Self::ClientTimeout => "client_timeout",
            Self::BadRequest => "bad_request",
            Self::TooLarge => "too_large",
            Self::HandshakeFailed => "handshake_failed",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::NoSuchHost => "no_such_host",
            Self::NoRoute => "no_route",
            Self::Refused => "refused",
            Self::LimitReached => "limit_reached",
            Self::Redirected => "redirected",
            Self::Answered => "answered",
            Self::Denied => "denied",
            Self::Draining => "draining",
            Self::Internal => "internal",
            Self::BackendInvalid => "backend_invalid",
            Self::NoBackend => "no_backend",
            Self::NoEndpoint => "no_endpoint",
            Self::ConnectFailed => "connect_failed",
            Self::ConnectTimeout => "connect_timeout",
            Self::BackendTls => "backend_tls",
            Self::BackendReset => "backend_reset",
            Self::BackendProtocol => "backend_protocol",
            Self::BackendTimeout => "backend_timeout",
            Self::RequestTimeout => "request_timeout",
            Self::IdleTimeout => "idle_timeout",
            Self::AuthFailed => "auth_failed",
        }
    }

    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

/// One request and its response, or one stream, at its end. `None` and zero where it does not apply.
#[derive(Debug)]
pub(crate) struct Exchange<'a> {
    /// `HTTP/1.1`, `HTTP/2`, `tcp`, `tls`, `udp`.
    pub(crate) protocol: &'static str,
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
    pub(crate) listener: Option<&'a ListenerId>,
    pub(crate) sni: Option<&'a str>,
    pub(crate) route: Option<&'a Origin>,
    pub(crate) backend: Option<&'a BackendId>,
    pub(crate) endpoint: Option<SocketAddr>,
    pub(crate) request: Option<RequestFacts<'a>>,
    pub(crate) reason: Reason,
    pub(crate) duration: Duration,
    /// From the client, bodies or stream bytes.
    pub(crate) bytes_in: u64,
    /// To the client.
    pub(crate) bytes_out: u64,
    pub(crate) attempts: u32,
}

/// What only HTTP has.
#[derive(Debug)]
pub(crate) struct RequestFacts<'a> {
    pub(crate) method: &'a [u8],
    pub(crate) host: &'a [u8],
    /// Path and query as received.
    pub(crate) target: &'a [u8],
    /// 0: none was sent.
    pub(crate) status: u16,
    pub(crate) user_agent: Option<&'a [u8]>,
    pub(crate) request_id: Option<&'a [u8]>,
    /// From the choice of an endpoint to the head of its answer.
    pub(crate) upstream: Option<Duration>,
}
