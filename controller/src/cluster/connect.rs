//! The way to the API server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// Why there is no way to an API server. That it does not answer is no reason: it is waited for.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(
        "cannot use the kubeconfig {path}: {reason}; fix: name a kubeconfig that kubectl can use with --kubeconfig"
    )]
    Kubeconfig { path: PathBuf, reason: String },
    #[error(
        "found neither a pod's service account nor a kubeconfig: {reason}; fix: run in a cluster, or name a file with --kubeconfig"
    )]
    Nowhere { reason: String },
    #[error("cannot make a client for the API server: {reason}")]
    Client { reason: String },
    #[error("the watching of the API server ended before it began")]
    Ended,
}

/// A client for the API server of `kubeconfig`; of the pod we run in, or the user's own, if none is named.
pub(crate) async fn connect(kubeconfig: Option<&Path>) -> Result<Client, StartError> {
    let mut config = match kubeconfig {
        Some(path) => {
            let fault = |reason: String| StartError::Kubeconfig {
                path: path.to_owned(),
                reason,
            };
            let file = Kubeconfig::read_from(path).map_err(|error| fault(error.to_string()))?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .map_err(|error| fault(error.to_string()))?
        }
        None => Config::infer().await.map_err(|error| StartError::Nowhere {
            reason: error.to_string(),
        })?,
    };
    config.connect_timeout = Some(Duration::from_secs(5));
    // Whoever asks knows best when to ask again.
    config.default_retry = false;
    Client::try_from(config).map_err(|error| StartError::Client {
        reason: error.to_string(),
    })
}
