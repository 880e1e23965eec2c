//! When a process that carries traffic ends, and how: a signal, or a successor that has taken over.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::admin::Admin;
use crate::claim::{Claim, Manner};
use crate::cli::NodeOptions;
use crate::node::Node;
use crate::shared::Shared;
use crate::supervise::Ward;

/// How long a process that is told to end waits for a successor that is about to take over.
const HANDOVER: Duration = Duration::from_secs(10);
/// How long a node of a cluster that is told to end still serves what comes: until others have its addresses, and load
/// balancers know that it is not ready.
const RETREAT: Duration = Duration::from_secs(4);
const POLL: Duration = Duration::from_millis(20);
/// Signals so close to each other are one: who tells every process of a group tells the supervisor too, which passes it on.
const ECHO: Duration = Duration::from_millis(100);

/// What a process holds from its start to its end.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) claim: Claim,
    pub(crate) ward: Ward,
    signals: Signals,
    /// The address is one for all that run on this machine, the socket is this process's own.
    address: Admin,
    _socket: Option<Admin>,
}

#[derive(Debug)]
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    last: Option<Instant>,
}

impl Signals {
    async fn recv(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
            }
            if self.last.is_none_or(|last| last.elapsed() > ECHO) {
                self.last = Some(Instant::now());
                return;
            }
        }
    }
}

/// Why it is time to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// A successor has taken over.
    pub(crate) superseded: bool,
    /// It was told to end.
    signalled: bool,
}

/// What becomes of a process that a successor has taken over from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Afterwards {
    /// It drains and ends.
    End,
    /// It drains and waits to be told to end: whoever started it would start it again.
    Wait,
}

impl Life {
    /// Claims the place, and answers on the admin address: probes get an answer from here on.
    ///
    /// # Errors
    /// When the place is taken, or the admin address cannot be had.
    pub(crate) async fn begin(
        options: &NodeOptions,
        state_dir: &Path,
        takeover: bool,
        ward: Ward,
        shared: &Arc<Shared>,
    ) -> Result<Self> {
        let mut signals = Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            last: None,
        };
        let _ = shared.deaths.set(ward.deaths);
        let manner = match takeover {
            _ if ward.is_again() => Manner::Again,
            true => Manner::TakeOver,
            false => Manner::Alone,
        };
        let claim = tokio::select! {
            claim = Claim::take(state_dir, manner) => claim.inspect_err(|_| if ward.is_again() { ward.left() })?,
            () = signals.recv() => bail!("told to end while it waited for its turn"),
        };
        let socket = options.admin_socket.as_deref();
        Ok(Self {
            address: Admin::open(options.admin, shared, claim.is_successor()).await?,
            _socket: socket.map(|path| Admin::open_socket(path, shared)).transpose()?,
            signals,
            claim,
            ward,
        })
    }

    /// Ends when it is told to. For before the process is in charge of anything.
    pub(crate) async fn signalled(&mut self) {
        self.signals.recv().await;
    }

    /// This process is in charge: tells a predecessor.
    pub(crate) fn succeed(&mut self, node: &Node) {
        if self.claim.is_successor() {
            tracing::info!("took over from the pierhead that ran here");
        }
        self.claim.succeed();
        node.alone();
        self.ward.serving(&node.dataplane.steered_sockets());
    }

    /// Looks after the node until it is time to end.
    pub(crate) async fn over(&mut self, node: &Node) -> End {
        let mut second = interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = second.tick() => {
                    node.tick();
                    if node.is_superseded() {
                        return End { superseded: true, signalled: false };
                    }
                }
                () = self.claim.told() => {
                    // Where the kernel knows who is in charge, its word counts.
                    if node.steering.is_none() || node.is_superseded() {
                        return End { superseded: true, signalled: false };
                    }
                }
                () = self.signals.recv() => break,
            }
        }
        let superseded = self.claim.has_successor() && self.awaits_successor(node).await;
        End {
            superseded,
            signalled: true,
        }
    }

    /// A successor is on its way: nothing is lost when it gets the time to take over. Whether it did.
    async fn awaits_successor(&mut self, node: &Node) -> bool {
        tracing::info!("told to end; a successor is about to take over, which is waited for");
        let deadline = Instant::now() + HANDOVER;
        while Instant::now() < deadline && self.claim.has_successor() {
            tokio::select! {
                () = self.claim.told() => {
                    if node.steering.is_none() {
                        return true;
                    }
                }
                () = self.signals.recv() => return false,
                () = sleep(POLL) => {}
            }
            if node.is_superseded() {
                return true;
            }
        }
        node.is_superseded()
    }

    /// Lets what is in flight finish within `drain`. A second signal ends it at once.
    pub(crate) async fn end(
        mut self,
        end: End,
        node: Arc<Node>,
        shared: &Shared,
        drain: Duration,
        afterwards: Afterwards,
    ) -> Result<()> {
        if end.superseded {
            self.ward.left();
            shared.set_not_ready("a successor has taken over");
            tracing::info!("a successor has taken over; connections end with their next answer");
            node.leave();
            drop(self.address);
            self.claim.release();
        } else {
            shared.set_not_ready("it is about to end");
            if afterwards == Afterwards::Wait {
                node.retreat();
                tokio::select! {
                    () = sleep(RETREAT) => {}
                    () = self.signals.recv() => {}
                }
            }
        }
        if end.superseded && !end.signalled && afterwards == Afterwards::Wait {
            let empty = async {
                while !node.is_left() {
                    sleep(POLL).await;
                }
                tracing::info!("no connection is left; waiting to be stopped");
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = empty => {}
                () = self.signals.recv() => {}
            }
        }
        tracing::info!(
            "draining for at most {} s; stop at once with a second signal",
            drain.as_secs()
        );
        let draining = tokio::task::spawn_blocking(move || node.drain(drain));
        tokio::select! {
            done = draining => done.context("the drain ended early")?,
            () = self.signals.recv() => {}
        }
        tracing::info!("ended");
        Ok(())
    }
}
