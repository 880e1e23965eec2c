//! What goes through the candidates: backends, clients, and what a body must look like.

pub(crate) mod backend;
pub(crate) mod bodies;
pub(crate) mod closed;
pub(crate) mod exchange;
pub(crate) mod grpc;
pub(crate) mod h2;
pub(crate) mod open;
pub(crate) mod pki;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

/// Serves each connection on a loopback port of the system's choice, on the current local set.
pub(crate) async fn serve<F>(connection: impl Fn(TcpStream) -> F + 'static) -> Result<SocketAddr>
where
    F: Future<Output = ()> + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            spawn_local(connection(stream));
        }
    });
    Ok(address)
}

/// When a closed loop ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    Passed(Duration),
    /// So many were answered, and those under way.
    Answered(u64),
}

impl Until {
    /// Whether it is over, `began` ago and with so many answers.
    pub(crate) fn is_over(self, began: Instant, answers: u64) -> bool {
        match self {
            Self::Passed(time) => began.elapsed() >= time,
            Self::Answered(count) => answers >= count,
        }
    }
}

/// What one run of a client gave.
#[derive(Debug, Default)]
pub(crate) struct Yield {
    /// Requests answered, or handshakes, or whatever the rig counts.
    pub(crate) count: u64,
    /// Sorted by [`Yield::sorted`].
    pub(crate) latencies: Vec<Duration>,
}

impl Yield {
    pub(crate) fn add(&mut self, latency: Duration) {
        self.count += 1;
        self.latencies.push(latency);
    }

    pub(crate) fn sorted(mut self) -> Self {
        self.latencies.sort_unstable();
        self
    }

    /// The latency below which this share of all lies.
    pub(crate) fn quantile(&self, share: f64) -> Option<Duration> {
        let last = self.latencies.len().checked_sub(1)?;
        let place = (self.latencies.len() as f64 * share) as usize;
        self.latencies.get(place.min(last)).copied()
    }
}
