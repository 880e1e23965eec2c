//! What every HTTP rig needs: backends, a certificate, and the candidates running.

use anyhow::Result;
use tempfile::TempDir;
use tokio::task::LocalSet;

use crate::{
    cpu,
    peers::{Peer, Site},
    plan::Plan,
    traffic::{backend, grpc, pki::Pki},
};

/// Everything runs; the candidates end when it is dropped.
pub(crate) struct Stage {
    pub(crate) peers: Vec<Peer>,
    pub(crate) pki: Pki,
    _directory: TempDir,
}

impl Stage {
    /// Those that can do the work: `for_proxies` where it takes TLS or another protocol on each side.
    pub(crate) fn able(&self, for_proxies: bool) -> impl Iterator<Item = &Peer> {
        self.peers.iter().filter(move |peer| !for_proxies || peer.is_proxy())
    }
}

/// Runs `rig` on a thread pinned to the client's core, with the plan's candidates.
pub(crate) fn with(plan: &Plan, rig: impl AsyncFnOnce(Stage) -> Result<()>) -> Result<()> {
    on_core(async {
        let directory = tempfile::tempdir()?;
        let pki = Pki::make(directory.path())?;
        let (backend, grpc) = (backend::serve().await?, grpc::serve().await?);
        let mut site = Site::new(directory.path(), backend, grpc, &plan.envoy);
        site.plain = Some([backend::serve_plain().await?, grpc::serve_plain().await?]);
        let peers = site.start(&plan.candidates)?;
        rig(Stage {
            peers,
            pki,
            _directory: directory,
        })
        .await
    })
}

/// Runs a future, and what it spawns locally, on the client's core.
pub(crate) fn on_core(work: impl Future<Output = Result<()>>) -> Result<()> {
    cpu::pin(cpu::CLIENT_CORE)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, work)
}
