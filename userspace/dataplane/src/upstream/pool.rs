//! Connections to endpoints that wait for work, per worker, and what the worker knows of each endpoint.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::SocketAddr,
    rc::{Rc, Weak},
    time::Duration,
};

use foldhash::fast::RandomState;
use pierhead_model::BackendProtocol;
use tokio::{
    sync::Notify,
    task::spawn_local,
    time::{Instant, sleep},
};

use super::{Backend, ConnectError, Connected, Http1Exchange, connect, http2::Shared};
use crate::http::{Buffers, Wire};

/// Idle HTTP/1 connections kept per endpoint and worker.
const IDLE_PER_ENDPOINT: usize = 128;

/// How long one may wait. Shorter than what common servers grant (60 s and more), so that it is us who close.
const IDLE_TIME: Duration = Duration::from_secs(50);

/// How often expired and dead ones are looked for.
const SWEEP: Duration = Duration::from_secs(5);

/// An endpoint that could not be connected to is avoided, while others can be had, until a connection succeeds. It is probed
/// after so long, and then after twice as long each time …
const PROBED_AFTER: Duration = Duration::from_secs(1);
/// … up to this, …
const PROBED_AT_LEAST_EVERY: Duration = Duration::from_secs(8);
/// … for so long.
const PROBED_FOR: Duration = Duration::from_secs(2);

/// Everything that must be equal for a connection to be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    address: SocketAddr,
    protocol: BackendProtocol,
    /// Number of the TLS identity (server name, names accepted, trust anchors, client certificate); zero in cleartext.
    tls: u64,
}

/// An endpoint as this worker knows it.
pub(crate) struct Slot {
    key: Key,
    in_flight: Cell<u32>,
    avoided: Cell<bool>,
    /// A task tries to connect to it while it is avoided.
    probed: Cell<bool>,
    last_used: Cell<Instant>,
    idle: RefCell<Vec<Idle>>,
    pub(super) shared: RefCell<Vec<Rc<Shared>>>,
    pub(super) opening: Cell<bool>,
    /// Counts attempts to open a shared connection that failed.
    pub(super) failures: Cell<u64>,
    pub(super) opened: Notify,
}

struct Idle {
    exchange: Box<Http1Exchange>,
    since: Instant,
}

/// All endpoints of one worker.
pub(crate) struct Pool {
    slots: RefCell<HashMap<Key, Rc<Slot>, RandomState>>,
    buffers: Rc<Buffers>,
    random: Cell<u64>,
    sweeping: Cell<bool>,
}

impl Pool {
    /// `seed` is not zero.
    pub(crate) fn new(buffers: Rc<Buffers>, seed: u64) -> Rc<Self> {
        Rc::new(Self {
            slots: RefCell::default(),
            buffers,
            random: Cell::new(seed | 1),
            sweeping: Cell::new(false),
        })
    }

    /// xorshift64*: for choices, not for secrets.
    pub(crate) fn random(&self) -> u64 {
        let mut x = self.random.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.random.set(x);
        x.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Chooses an endpoint of `backend`: the one with less in flight of two taken at random. Those in `tried` and those
    /// that just failed come last. `None` when there is no endpoint at all.
    pub(crate) fn pick(self: &Rc<Self>, backend: &Backend, tried: &[SocketAddr]) -> Option<Lease> {
        let endpoints = backend.endpoints();
        let choice = endpoints.choice();
        let slot = match choice {
            [] => return None,
            [only] => self.slot(backend, *only),
            _ => {
                let random = self.random();
                let count = choice.len();
                let first = (random >> 32) as usize % count;
                let second = (first + 1 + (random as u32) as usize % (count - 1)) % count;
                let pair = [first, second].map(|at| self.slot(backend, choice[at]));
                let [one, other] = &pair;
                let better = if other.burden(tried) < one.burden(tried) {
                    other
                } else {
                    one
                };
                if better.burden(tried).0 {
                    // Both are bad: look at all, from a random place on.
                    let all = choice.iter().cycle().skip(first).take(count);
                    let slots = all.map(|address| self.slot(backend, *address));
                    slots.min_by_key(|slot| slot.burden(tried))?
                } else {
                    Rc::clone(better)
                }
            }
        };
        slot.in_flight.set(slot.in_flight.get() + 1);
        Some(Lease {
            slot,
            pool: Rc::clone(self),
        })
    }

    fn slot(&self, backend: &Backend, address: SocketAddr) -> Rc<Slot> {
        let key = Key {
            address,
            protocol: backend.protocol(),
            tls: backend.tls().map_or(0, |tls| tls.number),
        };
        let mut slots = self.slots.borrow_mut();
        Rc::clone(slots.entry(key).or_insert_with(|| {
            Rc::new(Slot {
                key,
                in_flight: Cell::new(0),
                avoided: Cell::new(false),
                probed: Cell::new(false),
                last_used: Cell::new(Instant::now()),
                idle: RefCell::default(),
                shared: RefCell::default(),
                opening: Cell::new(false),
                failures: Cell::new(0),
                opened: Notify::new(),
            })
        }))
    }

    /// Closes what has waited too long or was closed by the other side, and forgets endpoints nobody uses.
    fn sweep(&self) {
        let now = Instant::now();
        self.slots.borrow_mut().retain(|_, slot| {
            slot.idle
                .borrow_mut()
                .retain_mut(|idle| now - idle.since < IDLE_TIME && idle.exchange.is_quiet());
            slot.shared
                .borrow_mut()
                .retain(|shared| !shared.is_stale(now, IDLE_TIME));
            slot.in_flight.get() > 0
                || !slot.idle.borrow().is_empty()
                || !slot.shared.borrow().is_empty()
                || now - slot.last_used.get() < IDLE_TIME
        });
    }

    /// Sweeps for as long as there is something to sweep.
    fn keep_clean(self: &Rc<Self>) {
        if self.sweeping.replace(true) {
            return;
        }
        let pool: Weak<Self> = Rc::downgrade(self);
        spawn_local(async move {
            loop {
                sleep(SWEEP).await;
                let Some(pool) = pool.upgrade() else { return };
                pool.sweep();
                if pool.slots.borrow().is_empty() {
                    pool.sweeping.set(false);
                    return;
                }
            }
        });
    }
}

impl Slot {
    /// Smaller is better: first whether it should be avoided, then what is in flight.
    fn burden(&self, tried: &[SocketAddr]) -> (bool, bool, u32) {
        let tried = !tried.is_empty() && tried.contains(&self.key.address);
        let avoided = self.avoided.get();
        if avoided {
            // It would be used: worth to be probed.
            self.last_used.set(Instant::now());
        }
        (tried || avoided, tried, self.in_flight.get())
    }
}

/// The use of an endpoint by one attempt.
pub(crate) struct Lease {
    pub(super) slot: Rc<Slot>,
    pool: Rc<Pool>,
}

impl Lease {
    pub(crate) fn address(&self) -> SocketAddr {
        self.slot.key.address
    }

    pub(super) fn slot(&self) -> &Rc<Slot> {
        &self.slot
    }

    /// A connection that waited and is still alive.
    pub(crate) fn checkout(&self) -> Option<Box<Http1Exchange>> {
        let mut idle = self.slot.idle.borrow_mut();
        loop {
            let mut candidate = idle.pop()?;
            if candidate.exchange.is_quiet() {
                return Some(candidate.exchange);
            }
        }
    }

    /// Opens a connection; remembers a failure, so that the next choice falls on others.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub(crate) async fn connect(&self, backend: &Backend, limit: Duration) -> Result<Connected, ConnectError> {
        let connected = connect(self.address(), backend.tls().map(AsRef::as_ref), limit).await;
        match &connected {
            Ok(_) => self.slot.avoided.set(false),
            Err(_) => self.avoid(backend),
        }
        connected
    }

    pub(super) fn buffers(&self) -> Rc<Buffers> {
        Rc::clone(&self.pool.buffers)
    }

    pub(crate) fn wire(&self, stream: Connected) -> Wire<Connected> {
        Wire::new(stream, Rc::clone(&self.pool.buffers))
    }

    /// Has the next choices fall on other endpoints until this one can be connected to.
    pub(crate) fn avoid(&self, backend: &Backend) {
        self.slot.avoided.set(true);
        if self.slot.probed.replace(true) {
            return;
        }
        self.slot.last_used.set(Instant::now());
        self.pool.keep_clean();
        let slot = Rc::downgrade(&self.slot);
        let (address, tls) = (self.address(), backend.tls().cloned());
        spawn_local(async move {
            let mut pause = PROBED_AFTER;
            loop {
                sleep(pause).await;
                pause = PROBED_AT_LEAST_EVERY.min(pause * 2);
                // Forgotten when nobody has wanted it for a while.
                if slot.upgrade().is_none_or(|slot| !slot.avoided.get()) {
                    break;
                }
                if connect(address, tls.as_deref(), PROBED_FOR).await.is_ok() {
                    break;
                }
            }
            if let Some(slot) = slot.upgrade() {
                slot.avoided.set(false);
                slot.probed.set(false);
            }
        });
    }

    /// Keeps a connection for the next request; it is now about `since`.
    pub(crate) fn checkin(&self, exchange: Box<Http1Exchange>, since: Instant) {
        let mut idle = self.slot.idle.borrow_mut();
        if idle.len() < IDLE_PER_ENDPOINT {
            idle.push(Idle { exchange, since });
            self.slot.last_used.set(since);
            drop(idle);
            self.pool.keep_clean();
        }
    }

    pub(super) fn keep_clean(&self) {
        self.pool.keep_clean();
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.slot.in_flight.set(self.slot.in_flight.get() - 1);
    }
}
