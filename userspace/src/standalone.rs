//! `pierhead standalone`: controller and node in one process, fed by a folder or by an API server.
//!
//! The order of a start: claim, admin address (so that probes get an answer), workers, configuration, and only when that
//! is in force, ready. The order of an end: not ready, drain, gone.

use std::collections::BTreeSet;
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use pierhead_controller::Published;
use pierhead_model::Severity;
use tokio::time::{MissedTickBehavior, interval};

use crate::check::Finding;
use crate::cli::Standalone;
use crate::feed::Feed;
use crate::heap::Heap;
use crate::life::{Afterwards, Life};
use crate::node::Node;
use crate::shared::Shared;
use crate::supervise::Ward;
use crate::{control, state};

pub(crate) fn run(options: &Standalone) -> Result<ExitCode> {
    let state_dir = state::folder(options.node.state_dir.as_deref());
    let ward = Ward::begin(&options.node.supervised)?;
    control::runtime_beside_workers()?.block_on(serve(options, &state_dir, ward))
}

async fn serve(options: &Standalone, state_dir: &Path, ward: Ward) -> Result<ExitCode> {
    let shared = Arc::new(Shared::default());
    let mut life = Life::begin(&options.node, state_dir, options.takeover, ward, &shared).await?;
    let node = Node::start(&options.node, life.claim.is_successor(), life.ward.take_doors())?;
    let node = Arc::new(node);
    // The workers run; what is started from here on, a thread that translates among them, makes way for them.
    control::step_back();
    shared.set_node(Arc::clone(&node));
    let mut feed = tokio::select! {
        feed = Feed::open(options, state_dir, &shared) => feed?,
        () = life.signalled() => return Ok(ExitCode::SUCCESS),
    };
    let mut teller = Teller::default();
    let first = loop {
        match feed.latest() {
            Some(first) => break first,
            None => tokio::select! {
                changed = feed.changed() => changed?,
                () = life.signalled() => return Ok(ExitCode::SUCCESS),
            },
        }
    };
    teller.tell(&first.published);
    node.take_charge(&first.snapshot)?;
    feed.tell(&node, &first);
    life.succeed(&node);
    shared.set_ready();
    tracing::info!("ready: {} objects from {}", first.published.objects, feed.name());
    drop(first);
    let mut heap = Heap::default();
    heap.used();

    let end = {
        let mut over = pin!(life.over(&node));
        let mut second = interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                end = &mut over => break end,
                changed = feed.changed() => {
                    changed?;
                    follow(&node, &mut feed, &mut teller);
                    heap.used();
                }
                _ = second.tick() => {
                    feed.tell_again(&node);
                    heap.tick();
                }
            }
        }
    };
    feed.close().await;
    let drain = Duration::from_secs(options.drain_seconds);
    life.end(end, node, &shared, drain, Afterwards::End).await?;
    Ok(ExitCode::SUCCESS)
}

/// Applies what is new.
fn follow(node: &Node, feed: &mut Feed, teller: &mut Teller) {
    let Some(latest) = feed.latest() else { return };
    let now = &latest.published;
    let started = Instant::now();
    teller.tell(now);
    // The main thread of this runtime: the admin address is served by the other one meanwhile.
    node.apply(&latest.snapshot);
    feed.tell(node, &latest);
    tracing::info!(
        version = now.version,
        objects = now.objects,
        translate_us = u64::try_from(now.took.as_micros()).unwrap_or(u64::MAX),
        apply_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
        "configuration changed"
    );
}

/// Says each problem once, when it comes and when it goes.
#[derive(Debug, Default)]
struct Teller {
    said: BTreeSet<Finding>,
    ignored: BTreeSet<(String, String)>,
}

impl Teller {
    fn tell(&mut self, published: &Published) {
        let files = published.file_problems.iter().map(Finding::of_file);
        let meaning = published
            .translation
            .problems
            .iter()
            .map(|problem| Finding::of_meaning(problem, None));
        let now: BTreeSet<Finding> = files.chain(meaning).collect();
        for finding in now.difference(&self.said) {
            let object = finding.object.as_deref().unwrap_or_default();
            match finding.severity {
                Severity::Error => tracing::error!(object, field = finding.field, "{}", finding.text),
                Severity::Warning => tracing::warn!(object, field = finding.field, "{}", finding.text),
            }
        }
        for finding in self.said.difference(&now) {
            tracing::info!("no longer: {}", finding.text);
        }
        self.said = now;
        for one in &published.ignored {
            if self.ignored.insert((one.api_version.clone(), one.kind.clone())) {
                let place = format!("{}:{}", one.file.display(), one.line);
                tracing::info!(
                    "{} × {} {} not used (first: {place})",
                    one.count,
                    one.api_version,
                    one.kind
                );
            }
        }
    }
}
