//! `pierhead node`: one node of a cluster, fed by its controller.
//!
//! The order of a start: claim, admin address, workers, and then what the disk remembers is in force at once, so that a
//! node needs nobody to serve again. Beside a predecessor it first waits for what the controller says now: until then the
//! predecessor serves.

use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use pierhead_model::Snapshot;
use pierhead_protocol::ResourceId;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::cli::NodeVerb;
use crate::heap::Heap;
use crate::life::{Afterwards, Life};
use crate::node::Node;
use crate::shared::{Shared, Source};
use crate::supervise::Ward;
use crate::uplink::{Change, Done, Facts, Target, Uplink};
use crate::{control, keep, machine, state, uplink};

/// How long writing the last snapshot may delay the end.
const KEEPING: Duration = Duration::from_secs(3);
/// How long a successor waits for its controller before it takes over with what the disk remembers.
const FRESH: Duration = Duration::from_secs(5);

pub(crate) fn run(options: &NodeVerb) -> Result<ExitCode> {
    let state_dir = state::folder(options.node.state_dir.as_deref());
    let ward = Ward::begin(&options.node.supervised)?;
    control::runtime_beside_workers()?.block_on(serve(options, &state_dir, ward))
}

async fn serve(options: &NodeVerb, state_dir: &Path, ward: Ward) -> Result<ExitCode> {
    let name = options.node.node_name.clone();
    let name =
        name.context("this node has no name; fix: give it with --node-name or in NODE_NAME, as Kubernetes has it")?;
    let target = Target::parse(&options.controller)?.with_replicas(options.controller_replicas.clone());
    let folder = keep::folder(state_dir, &name)
        .with_context(|| format!("cannot make the state folder {}", state_dir.join(&name).display()))?;
    keep::sweep(&folder);
    let shared = Arc::new(Shared::default());
    let mut life = Life::begin(&options.node, state_dir, options.takeover, ward, &shared).await?;
    let node = Node::start(&options.node, life.claim.is_successor(), life.ward.take_doors())?;
    let node = Arc::new(node);
    // What the disk remembers may be another node's by now.
    node.speak(false);
    shared.set_node(Arc::clone(&node));

    let kept = keep::load(&folder);
    let mut member = Member {
        node: Arc::clone(&node),
        addresses: options.addresses.clone(),
        uplink: Uplink::start(
            uplink::Options {
                target,
                node: name,
                token: options.token.clone(),
                ca: options.ca.clone(),
                folder: folder.clone(),
            },
            kept.as_ref(),
        ),
        keeper: watch::Sender::new(None),
    };
    let keeping = keep::keep(&folder, member.keeper.subscribe());
    shared.set_source(Source::Controller(member.uplink.link.clone()));

    let orphaned = life.claim.is_successor().then(|| life.claim.orphaned());
    let first = tokio::select! {
        first = member.first(kept, orphaned) => first?,
        () = life.signalled() => return Ok(ExitCode::SUCCESS),
    };
    life.succeed(&node);
    shared.set_ready();
    // Not earlier: until now whoever connects waits.
    control::step_back();
    tracing::info!("ready, with {first}");

    let end = {
        let mut over = pin!(life.over(&node));
        tokio::select! {
            end = &mut over => end,
            () = member.follow() => anyhow::bail!("the way to the controller ended"),
        }
    };
    // What a successor is told, and keeps, is its own business from here on.
    if end.superseded {
        keeping.abort();
    }
    drop(member);
    let drain = Duration::from_secs(options.drain_seconds);
    life.end(end, node, &shared, drain, Afterwards::Wait).await?;
    // It ends with what was to be written last.
    let _ = timeout(KEEPING, keeping).await;
    Ok(ExitCode::SUCCESS)
}

struct Member {
    node: Arc<Node>,
    uplink: Uplink,
    /// Given on the command line; empty: those of the machine.
    addresses: Vec<std::net::IpAddr>,
    keeper: watch::Sender<Option<Arc<Snapshot>>>,
}

impl Member {
    /// Puts the first snapshot in force, and says where it came from. `orphaned`: when a predecessor is gone, if there is one.
    async fn first(
        &mut self,
        kept: Option<Arc<Snapshot>>,
        orphaned: Option<impl Future<Output = ()>>,
    ) -> Result<&'static str> {
        const DISK: &str = "what the disk remembers";
        let Some(kept) = kept else {
            return self.first_of_controller().await;
        };
        if let Some(orphaned) = orphaned {
            tokio::select! {
                first = self.first_of_controller() => return first,
                () = orphaned => tracing::warn!("the pierhead that ran here is gone"),
                () = sleep(FRESH) => {}
            }
        }
        self.node.take_charge(&kept)?;
        Ok(DISK)
    }

    async fn first_of_controller(&mut self) -> Result<&'static str> {
        let change = self
            .uplink
            .changes
            .recv()
            .await
            .context("the way to the controller ended")?;
        let Change { snapshot, done } = change;
        self.node.speak(true);
        self.node.take_charge(&snapshot)?;
        let _ = done.send(self.done(&Snapshot::default()));
        self.keeper.send_replace(Some(snapshot));
        Ok("what the controller says")
    }

    /// Applies what comes, and reports what becomes of it later.
    async fn follow(&mut self) {
        let mut second = interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heap = Heap::default();
        heap.used();
        loop {
            tokio::select! {
                change = self.uplink.changes.recv() => match change {
                    Some(change) => {
                        self.apply(change);
                        heap.used();
                    }
                    None => return,
                },
                _ = second.tick() => {
                    if !self.uplink.link.borrow().is_connected() {
                        self.node.speak(false);
                    }
                    self.uplink.report(self.facts());
                    heap.tick();
                }
            }
        }
    }

    fn apply(&self, Change { snapshot, done }: Change) {
        let started = Instant::now();
        let before = self.node.snapshot();
        // The main thread of this runtime: the controller and the admin address are served by the other one meanwhile.
        self.node.speak(true);
        self.node.apply(&snapshot);
        // Gone with its stream: the next one says it again.
        let _ = done.send(self.done(&before));
        tracing::debug!(
            apply_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
            "configuration changed"
        );
        self.keeper.send_replace(Some(snapshot));
    }

    /// Refused is only what has an old state to keep: without one, all that names it would go too.
    fn done(&self, before: &Snapshot) -> Done {
        let unusable = self.node.unusable().into_iter();
        let unusable = unusable.filter(|(id, _)| before.certificates.contains_key(id));
        Done {
            facts: self.facts(),
            refused: unusable.map(|(id, why)| (ResourceId::Certificate(id), why)).collect(),
        }
    }

    fn facts(&self) -> Facts {
        Facts {
            paths: self.node.paths(),
            addresses: if self.addresses.is_empty() {
                machine::own_addresses(&self.node.snapshot())
            } else {
                self.addresses.clone()
            },
        }
    }
}
