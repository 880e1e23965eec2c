//! An open-loop client: requests are due at times that do not depend on answers, and latency counts from when one was due.
//! A proxy that stalls is charged for everything that should have been asked meanwhile.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Notify,
    task::JoinSet,
};
use tokio_rustls::TlsConnector;

use super::{
    Yield,
    closed::{Work, connect},
    exchange, pki,
};

/// What one run gave.
#[derive(Debug, Default)]
pub(crate) struct Paced {
    pub(crate) gave: Yield,
    /// Wrong or missing answers, with the first one's reason.
    pub(crate) failed: u64,
    pub(crate) why: Option<String>,
}

#[derive(Default)]
struct Queue {
    due: RefCell<VecDeque<Instant>>,
    more: Notify,
    closed: Cell<bool>,
    total: RefCell<Paced>,
}

/// Asks at random times, `rate` a second on average, for `time`. A failed request is counted, not fatal: the connection is
/// made again.
///
/// # Errors
/// When connections cannot be made before the start.
pub(crate) async fn run(work: &Work, rate: f64, time: Duration) -> Result<Paced> {
    let queue = Rc::new(Queue::default());
    let mut clients = JoinSet::new();
    for number in 0..work.connections {
        clients.spawn_local(client(work.clone(), number, Rc::clone(&queue)));
    }
    // Connections are made first.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let start = Instant::now();
    let mut next = start;
    while next < start + time {
        // The timer of the runtime counts milliseconds; this asks the clock, and the sockets, all the time.
        while Instant::now() < next {
            tokio::task::yield_now().await;
        }
        queue.due.borrow_mut().push_back(next);
        queue.more.notify_one();
        next += Duration::from_secs_f64(gap(&mut random) / rate);
    }
    queue.closed.set(true);
    queue.more.notify_waiters();
    while let Some(ended) = clients.join_next().await {
        ended?.context("a client")?;
    }
    let mut total = queue.total.take();
    total.gave = total.gave.sorted();
    Ok(total)
}

/// A gap between arrivals that know nothing of each other, one on average.
fn gap(random: &mut u64) -> f64 {
    *random ^= *random >> 12;
    *random ^= *random << 25;
    *random ^= *random >> 27;
    let number = random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11;
    -((number as f64 + 1.0) / (1_u64 << 53) as f64).ln()
}

async fn client(work: Work, number: usize, queue: Rc<Queue>) -> Result<()> {
    let mut turn = number * 7;
    loop {
        let stream = connect(work.address).await?;
        let broke = match &work.tls {
            None => ask(stream, &work, &mut turn, &queue).await,
            Some(config) => {
                let stream = TlsConnector::from(Arc::clone(config))
                    .connect(pki::server_name(), stream)
                    .await
                    .context("TLS handshake")?;
                ask(stream, &work, &mut turn, &queue).await
            }
        };
        let Err(error) = broke else { return Ok(()) };
        let mut total = queue.total.borrow_mut();
        total.failed += 1;
        total.why.get_or_insert_with(|| format!("{error:#}"));
    }
}

async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    work: &Work,
    turn: &mut usize,
    queue: &Queue,
) -> Result<()> {
    let mut buffer = Vec::with_capacity(exchange::BUFFER);
    loop {
        let due = loop {
            let more = queue.more.notified();
            if let Some(due) = queue.due.borrow_mut().pop_front() {
                break due;
            }
            if queue.closed.get() {
                return Ok(());
            }
            more.await;
        };
        *turn += 1;
        let request = work
            .requests
            .get(*turn % work.requests.len())
            .context("nothing to ask")?;
        exchange::ask(&mut stream, request, &mut buffer).await?;
        queue.total.borrow_mut().gave.add(due.elapsed());
    }
}
