//! Constant traffic that counts what fails, to run while something happens to the gate.

use std::fmt::Display;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::client::{H1, TIMEOUT};
use crate::netns::Netns;

/// How long a client of ours waits between two requests.
const PAUSE: Duration = Duration::from_millis(2);
/// Most failures that are told.
const TOLD: usize = 20;

/// What requests are sent by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// One connection for as long as the gate does not say `connection: close`.
    Keep,
    /// A connection for each request.
    Fresh,
}

/// Three clients of each kind.
pub const BOTH_HABITS: [Habit; 6] = [
    Habit::Keep,
    Habit::Keep,
    Habit::Keep,
    Habit::Fresh,
    Habit::Fresh,
    Habit::Fresh,
];

/// Clients that send requests until they are stopped.
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    done: AtomicU64,
    failed: AtomicU64,
    failures: Mutex<Vec<String>>,
}

/// What a load came to.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Requests answered with 200.
    pub done: u64,
    /// All others, and connections that could not be made.
    pub failed: u64,
    /// What the first failures were.
    pub failures: Vec<String>,
}

impl Load {
    /// Starts so many clients in this namespace that ask `at` for `host`.
    pub fn start(from: &Netns, at: SocketAddr, host: &str, clients: &[Habit]) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut threads = Vec::new();
        for (number, habit) in clients.iter().copied().enumerate() {
            let (shared, host) = (Arc::clone(&shared), host.to_owned());
            threads.push(from.spawn(move || shared.drive(at, &host, habit, number))?);
        }
        Ok(Self { shared, threads })
    }

    /// Requests answered so far.
    pub fn done(&self) -> u64 {
        self.shared.done.load(Ordering::Relaxed)
    }

    /// Requests failed so far.
    pub fn failed(&self) -> u64 {
        self.shared.failed.load(Ordering::Relaxed)
    }

    /// Stops it, and says what it came to.
    pub fn end(mut self) -> Tally {
        self.stop();
        let failures = self.shared.failures.lock().unwrap_or_else(PoisonError::into_inner);
        Tally {
            done: self.done(),
            failed: self.failed(),
            failures: failures.clone(),
        }
    }

    fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn drive(&self, at: SocketAddr, host: &str, habit: Habit, number: usize) {
        let mut kept = None;
        while !self.stop.load(Ordering::Relaxed) {
            match request(&mut kept, at, host, habit) {
                Ok(()) => {
                    self.done.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => {
                    kept = None;
                    self.fail(&format!("{habit:?} client {number}"), &error);
                }
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn fail(&self, who: &str, error: &impl Display) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() < TOLD {
            failures.push(format!("{who}: {error:#}"));
        }
    }
}

fn request(kept: &mut Option<H1<TcpStream>>, at: SocketAddr, host: &str, habit: Habit) -> Result<()> {
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => {
            let stream = TcpStream::connect_timeout(&at, TIMEOUT).context("cannot connect")?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            stream.set_nodelay(true)?;
            H1::new(stream)
        }
    };
    let response = connection.get(host, "/").context("no answer")?;
    ensure!(response.status == 200, "status {}", response.status);
    let stays = !response
        .all("connection")
        .any(|value| value.eq_ignore_ascii_case("close"));
    if habit == Habit::Keep && stays {
        *kept = Some(connection);
    }
    Ok(())
}
