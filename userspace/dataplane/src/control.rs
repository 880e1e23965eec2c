//! The thread for what is not urgent: names, and sockets that could not be opened.

use std::{
    collections::BTreeSet,
    io,
    sync::Weak,
    thread::{Builder as ThreadBuilder, JoinHandle},
    time::Duration,
};

use pierhead_model::Hostname;
use tokio::{
    runtime::{Builder, LocalOptions},
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    time::interval,
};

use crate::{dataplane::Inner, dns::Names};

/// How often sockets that could not be opened are tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Starts the thread; it ends when `wanted` closes.
///
/// # Errors
/// When it cannot be started.
pub(crate) fn start(inner: Weak<Inner>, wanted: UnboundedReceiver<BTreeSet<Hostname>>) -> io::Result<JoinHandle<()>> {
    ThreadBuilder::new().name("control".to_owned()).spawn(move || {
        match Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
        {
            Ok(runtime) => runtime.block_on(run(inner, wanted)),
            Err(error) => tracing::error!(%error, "names of backends cannot be resolved, nor failed binds retried"),
        }
    })
}

async fn run(inner: Weak<Inner>, mut wanted: UnboundedReceiver<BTreeSet<Hostname>>) {
    let (sender, mut answers) = unbounded_channel();
    let mut names = Names::new(sender);
    let mut retry = interval(RETRY);
    loop {
        tokio::select! {
            set = wanted.recv() => match set {
                Some(set) => names.want(&set),
                None => return,
            },
            Some(answer) = answers.recv() => {
                if let Some(inner) = inner.upgrade() {
                    inner.resolved(answer);
                }
            }
            _ = retry.tick() => {
                if let Some(inner) = inner.upgrade() {
                    inner.retry();
                }
            }
        }
    }
}
