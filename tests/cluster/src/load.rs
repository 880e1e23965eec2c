//! Constant load from the client outside, and the count of what failed.
//!
//! Every worker asks at its own steady pace, on a connection that it keeps or on a new one each time. A request that
//! was due while the one before hung is left out, not lost: what an outage costs shows as the longest time without a
//! good answer. Or workers catch up, and latency counts from when a request was due: then a stall is charged for everything
//! that should have been asked meanwhile.

use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use pierhead_wire::client::{Client, Exchange, H1};

/// How long a connection or an answer may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// What is asked, where, and how hard.
#[derive(Debug, Clone)]
pub struct Plan {
    pub to: SocketAddr,
    /// Asked for in turn.
    pub hosts: Vec<String>,
    pub path: String,
    /// Workers that keep their connection, and such that make a new one for each request.
    pub keeping: usize,
    pub fresh: usize,
    /// Between two requests of one worker.
    pub pace: Duration,
    /// Whether what was due while the one before hung is asked for afterwards.
    pub catches_up: bool,
}

/// Load that runs until it is ended.
pub struct Load {
    stop: Arc<AtomicBool>,
    tally: Arc<Mutex<Tally>>,
    workers: Vec<JoinHandle<()>>,
}

/// What came of it.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    pub good: u64,
    /// Failed requests by why.
    pub failed: BTreeMap<String, u64>,
    /// Kept connections that the server closed between two requests, where HTTP has the client ask again.
    pub reopened: u64,
    /// The longest time in which nobody got a good answer, and such that a new connection took.
    pub gap: Duration,
    pub slowest: Duration,
    /// Of every good answer.
    pub latencies: Vec<Duration>,
    /// Failed requests by the second in which they failed, counted from the first good answer.
    pub failed_in: BTreeMap<u64, u64>,
    first_good: Option<Instant>,
    last_good: Option<Instant>,
}

impl Load {
    /// Starts it.
    pub fn start(client: &Client, plan: &Plan) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let tally = Arc::new(Mutex::new(Tally::default()));
        let workers = (0..plan.keeping + plan.fresh)
            .map(|number| {
                let worker = Worker {
                    client: client.clone(),
                    plan: plan.clone(),
                    keeps: number < plan.keeping,
                    kept: None,
                };
                let (stop, tally) = (Arc::clone(&stop), Arc::clone(&tally));
                thread::spawn(move || worker.run(number, &stop, &tally))
            })
            .collect();
        Self { stop, tally, workers }
    }

    /// What came of it so far.
    pub fn so_far(&self) -> Tally {
        self.tally.lock().map(|tally| tally.clone()).unwrap_or_default()
    }

    /// Ends it; what came of it.
    ///
    /// # Errors
    /// A worker panicked.
    pub fn end(self) -> Result<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers {
            worker
                .join()
                .map_err(|_panic| anyhow!("a worker of the load panicked"))?;
        }
        let mut tally = self
            .tally
            .lock()
            .map_err(|_poisoned| anyhow!("a worker panicked"))?
            .clone();
        tally.gap_until(Instant::now());
        Ok(tally)
    }
}

struct Worker {
    client: Client,
    plan: Plan,
    keeps: bool,
    kept: Option<H1<TcpStream>>,
}

impl Worker {
    fn run(mut self, number: usize, stop: &AtomicBool, tally: &Mutex<Tally>) {
        let workers = u32::try_from(self.plan.keeping + self.plan.fresh).unwrap_or(1).max(1);
        // Not all at once, and not all the same.
        let mut turn = number * 7919;
        let mut due = Instant::now() + self.plan.pace / workers * u32::try_from(number).unwrap_or_default();
        while !stop.load(Ordering::Relaxed) {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let began = if self.plan.catches_up { due } else { Instant::now() };
            let (result, reopened) = self.once(turn);
            let ended = Instant::now();
            turn += 1;
            if let Ok(mut tally) = tally.lock() {
                tally.reopened += u64::from(reopened);
                match result {
                    Ok(()) => tally.good(ended, ended.saturating_duration_since(began)),
                    Err(why) => tally.bad(ended, short(&why)),
                }
            }
            due += self.plan.pace;
            if !self.plan.catches_up {
                due = due.max(ended);
            }
        }
    }

    /// One request; whether a kept connection had been closed and was opened again.
    fn once(&mut self, turn: usize) -> (Result<()>, bool) {
        let Some(kept) = self.kept.take() else {
            return (self.on(None, turn), false);
        };
        match self.on(Some(kept), turn) {
            // RFC 9110 9.2.2 and 9112 9.3.1: an idempotent request on a connection that ended without an answer is
            // sent again.
            Err(error) if is_clean_end(&error) => (self.on(None, turn), true),
            other => (other, false),
        }
    }

    fn on(&mut self, kept: Option<H1<TcpStream>>, turn: usize) -> Result<()> {
        let hosts = &self.plan.hosts;
        let host = hosts.get(turn % hosts.len().max(1)).context("no host to ask for")?;
        let mut connection = match kept {
            Some(kept) => kept,
            None => {
                let stream = self.client.tcp_within(self.plan.to, PATIENCE)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                H1::new(stream)
            }
        };
        let mut request = Exchange::new("GET", host, &self.plan.path);
        if !self.keeps {
            request = request.field("Connection", "close");
        }
        let response = connection.exchange(&request)?;
        ensure!(response.status == 200, "status {}", response.status);
        let closes = response
            .header("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if self.keeps && !closes {
            self.kept = Some(connection);
        }
        Ok(())
    }
}

/// The other side closed in an orderly way before it said anything.
fn is_clean_end(error: &anyhow::Error) -> bool {
    error
        .to_string()
        .contains("the connection ended where a line was expected")
}

/// The cause, without what differs from one to the next.
fn short(error: &anyhow::Error) -> String {
    match error.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
        Some(ErrorKind::WouldBlock | ErrorKind::TimedOut) => "no answer in time".to_owned(),
        Some(ErrorKind::ConnectionReset) => "reset".to_owned(),
        Some(ErrorKind::ConnectionRefused) => "refused".to_owned(),
        Some(ErrorKind::BrokenPipe) => "closed while sending".to_owned(),
        _ => format!("{error:#}"),
    }
}

impl Tally {
    fn good(&mut self, now: Instant, took: Duration) {
        self.gap_until(now);
        self.good += 1;
        self.first_good.get_or_insert(now);
        self.last_good = Some(now);
        self.slowest = self.slowest.max(took);
        self.latencies.push(took);
    }

    fn bad(&mut self, now: Instant, why: String) {
        let since = |first| now.saturating_duration_since(first).as_secs();
        *self.failed.entry(why).or_default() += 1;
        *self.failed_in.entry(self.first_good.map_or(0, since)).or_default() += 1;
    }

    fn gap_until(&mut self, now: Instant) {
        if let Some(last) = self.last_good {
            self.gap = self.gap.max(now.saturating_duration_since(last));
        }
    }

    /// How many failed.
    pub fn lost(&self) -> u64 {
        self.failed.values().sum()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} failed of {}, longest without an answer {} ms, slowest answer {} ms",
            self.lost(),
            self.good + self.lost(),
            self.gap.as_millis(),
            self.slowest.as_millis()
        )?;
        for (why, count) in &self.failed {
            write!(f, "; {count}× {why}")?;
        }
        for (at, (second, count)) in self.failed_in.iter().enumerate() {
            let lead = if at == 0 { "; " } else { ", " };
            write!(f, "{lead}{count} in second {second}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gap_is_between_good_answers_and_to_the_end() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut tally = Tally::default();
        for ms in [0, 10, 60, 70] {
            tally.good(at(ms), Duration::from_millis(1));
        }
        assert_eq!(tally.gap, Duration::from_millis(50));
        tally.gap_until(at(200));
        assert_eq!(tally.gap, Duration::from_millis(130));
    }

    #[test]
    fn it_is_told_when_requests_failed() {
        let start = Instant::now();
        let mut tally = Tally::default();
        tally.good(start, Duration::ZERO);
        for ms in [2_100, 2_900, 14_000] {
            tally.bad(start + Duration::from_millis(ms), "reset".to_owned());
        }
        assert_eq!(tally.lost(), 3);
        let told = tally.to_string();
        assert!(told.ends_with("; 3× reset; 2 in second 2, 1 in second 14"), "{told}");
    }

    #[test]
    fn failures_are_counted_by_why() {
        let reset = anyhow::Error::from(std::io::Error::from(ErrorKind::ConnectionReset)).context("GET");
        assert_eq!(short(&reset), "reset");
        assert_eq!(short(&anyhow!("status 503")), "status 503");
    }
}
