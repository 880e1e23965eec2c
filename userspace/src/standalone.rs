//! `pierhead standalone`: controller and node in one process, fed by a folder.
//!
//! The order of a start: lock, admin address (so that probes get an answer), workers, configuration, and only when that
//! is in force, ready. The order of an end: not ready, drain, gone.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use pierhead_controller::files::{FileSource, Options, Published};
use pierhead_model::Severity;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::admin::{self, Shared};
use crate::check::{Finding, settings};
use crate::cli::Standalone;
use crate::instance;
use crate::node::Node;

pub(crate) fn run(options: &Standalone) -> Result<ExitCode> {
    let state_dir = instance::state_dir(options.state_dir.as_deref());
    let _lock = instance::lock(&state_dir)?;
    // The control plane's own runtime: it never runs on a worker's thread.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("control")
        .max_blocking_threads(4)
        .enable_all()
        .build()
        .context("cannot start the control runtime")?;
    runtime.block_on(serve(options, &state_dir))
}

async fn serve(options: &Standalone, state_dir: &std::path::Path) -> Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shared = Arc::new(Shared::new(options.config.clone()));
    let admin = admin::listen(options.admin).await?;
    let address = admin.local_addr().unwrap_or(options.admin);
    tokio::spawn(admin::serve(admin, Arc::clone(&shared)));

    let node = Arc::new(Node::start(options)?);
    tracing::info!(
        "ebpf mode {} (asked for {}): {}",
        node.mode.chosen.as_str(),
        node.mode.asked.as_str(),
        node.mode.why
    );
    let meaning = options.meaning.clone();
    let source = FileSource::start(Options {
        folder: options.config.clone(),
        settings: Box::new(move || settings(&meaning)),
        allocations: Some(instance::allocations(state_dir)),
    })?;
    let mut published = source.subscribe();
    shared.set_live(Arc::clone(&node), published.clone());

    let mut teller = Teller::default();
    let first = published.borrow_and_update().clone();
    apply(&node, &first, &mut teller)?;
    shared.set_ready(true);
    tracing::info!(admin = %address, "ready: {} objects from {}", first.objects, options.config.display());
    drop(first);

    let end = follow(&node, &mut published, &mut teller, &mut terminate, &mut interrupt).await?;

    shared.set_ready(false);
    tracing::info!(
        "draining for at most {} s; stop at once with a second signal",
        options.drain_seconds
    );
    let deadline = Duration::from_secs(options.drain_seconds);
    let draining = tokio::task::spawn_blocking(move || node.drain(deadline, end == End::Superseded));
    tokio::select! {
        done = draining => done.context("the drain ended early")?,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("ended");
    Ok(ExitCode::SUCCESS)
}

/// Why it is time to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Signal,
    Superseded,
}

/// Applies every configuration that is published, until it is time to end.
async fn follow(
    node: &Arc<Node>,
    published: &mut watch::Receiver<Arc<Published>>,
    teller: &mut Teller,
    terminate: &mut tokio::signal::unix::Signal,
    interrupt: &mut tokio::signal::unix::Signal,
) -> Result<End> {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = second.tick() => {
                if node.tick() {
                    tracing::info!("another pierhead has taken over");
                    return Ok(End::Superseded);
                }
            }
            changed = published.changed() => {
                changed.context("the watching of the folder ended")?;
                let now = published.borrow_and_update().clone();
                let started = Instant::now();
                // The main thread of this runtime: the admin address is served by the other one meanwhile.
                apply(node, &now, teller)?;
                tracing::info!(
                    version = now.version,
                    objects = now.objects,
                    translate_us = u64::try_from(now.took.as_micros()).unwrap_or(u64::MAX),
                    apply_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
                    "configuration changed"
                );
            }
            _ = terminate.recv() => return Ok(End::Signal),
            _ = interrupt.recv() => return Ok(End::Signal),
        }
    }
}

fn apply(node: &Node, published: &Published, teller: &mut Teller) -> Result<()> {
    teller.tell(published);
    node.apply(&Arc::new(published.translation.snapshot.clone()))
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
