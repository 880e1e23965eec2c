use std::time::Duration;

use serde::Serialize;

/// Bounds and timeouts of one listener. They are per Gateway, so that a noisy one cannot starve its neighbours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Header fields per message; HTTP/2 cookie crumbs count one each.
    pub header_count: u32,
    /// Bytes of a request head, start line included.
    pub header_bytes: u32,
    /// Bytes of a request body; `None` is unlimited. More is answered 413.
    pub body_bytes: Option<u64>,
    /// Connections open at once per Gateway and node; more are closed on arrival.
    pub connections: u32,
    /// TLS handshakes in flight per Gateway and worker.
    pub handshakes: u32,
    /// Concurrent HTTP/2 streams per connection.
    pub streams: u32,
    /// From the first byte of a head to its end.
    #[serde(serialize_with = "millis")]
    pub header_timeout: Duration,
    /// Between requests on a kept-alive connection.
    #[serde(serialize_with = "millis")]
    pub idle_timeout: Duration,
    /// Between two reads of a body, or two writes.
    #[serde(serialize_with = "millis")]
    pub body_idle_timeout: Duration,
    /// From accept to the end of the TLS handshake, ClientHello and PROXY header included.
    #[serde(serialize_with = "millis")]
    pub handshake_timeout: Duration,
    /// A TCP or tunnelled stream with no byte in either direction.
    #[serde(serialize_with = "millis")]
    pub stream_idle_timeout: Duration,
    /// A UDP session with no datagram in either direction.
    #[serde(serialize_with = "millis")]
    pub udp_idle_timeout: Duration,
    /// UDP sessions at once per bind and worker; the oldest idle one makes room.
    pub udp_sessions: u32,
    /// Establishing one connection to an endpoint, TLS included.
    #[serde(serialize_with = "millis")]
    pub connect_timeout: Duration,
}

fn millis<S: serde::Serializer>(duration: &Duration, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(&format_args!("{}ms", duration.as_millis()))
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_count: 100,
            header_bytes: 60 * 1024,
            body_bytes: None,
            connections: 50_000,
            handshakes: 512,
            streams: 100,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            body_idle_timeout: Duration::from_secs(60),
            handshake_timeout: Duration::from_secs(10),
            stream_idle_timeout: Duration::from_secs(3600),
            udp_idle_timeout: Duration::from_secs(60),
            udp_sessions: 16_384,
            connect_timeout: Duration::from_secs(2),
        }
    }
}
