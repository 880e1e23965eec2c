//! `pierhead controller`: the control plane of a cluster. It carries no traffic.
//!
//! The admin address answers from the start; ready means that everything in the cluster was read, translated, and is to be
//! had by nodes.

use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use pierhead_controller::run::{self, Options, Serving};
use pierhead_controller::{Counters, Settings};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::admin::Admin;
use crate::check::cluster_settings;
use crate::cli::Controller;
use crate::heap::Heap;
use crate::shared::{Cluster, Shared, Source};
use crate::{control, machine};

/// How long giving the Lease back may take.
const FAREWELL: Duration = Duration::from_secs(5);

pub(crate) fn run(options: &Controller) -> Result<ExitCode> {
    control::runtime()?.block_on(serve(options))
}

async fn serve(options: &Controller) -> Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut told = pin!(async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    });
    let shared = Arc::new(Shared::default());
    let _admin = Admin::open(options.admin, &shared, false).await?;
    let listener = TcpListener::bind(options.listen).with_context(|| {
        format!(
            "cannot listen for nodes on {}; fix: choose another address with --listen",
            options.listen
        )
    })?;
    let counters = Arc::new(Counters::default());
    let cluster = Arc::new(Cluster::new(Arc::clone(&counters)));
    shared.set_source(Source::Cluster(Arc::clone(&cluster)));
    let (meaning, namespace) = (options.meaning.clone(), options.namespace.clone());
    let starting = run::run(Options {
        kubeconfig: options.kubeconfig.clone(),
        namespace: options.namespace.clone(),
        identity: options.identity.clone().unwrap_or_else(machine::identity),
        lease: options.lease.clone(),
        address: options.pod_ip.map(|ip| SocketAddr::new(ip, options.listen.port())),
        settings: Box::new(move || Settings {
            namespace: namespace.as_str().into(),
            ..cluster_settings(&meaning)
        }),
        serving: Serving::Nodes {
            listener,
            service_name: options.service_name.clone(),
        },
        counters,
    });
    let running = tokio::select! {
        running = starting => running?,
        () = &mut told => return Ok(ExitCode::SUCCESS),
    };
    cluster.set(&running);
    shared.set_ready();
    tracing::info!(nodes = %options.listen, "ready: the cluster was read, nodes are served");
    let mut heap = Heap::default();
    let mut minute = interval(Duration::from_secs(60));
    minute.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = &mut told => break,
            _ = minute.tick() => {
                heap.tick();
                // In most clusters something changes every minute.
                heap.used();
            }
        }
    }
    shared.set_not_ready("it is about to end");
    tracing::info!("told to end; whoever leads next writes statuses");
    timeout(FAREWELL, running.stop())
        .await
        .context("the lease was not given back in time")?;
    Ok(ExitCode::SUCCESS)
}
