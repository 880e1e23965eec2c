//! Who may speak to the controller, and how anybody knows that it is the controller.
//!
//! One CA per installation signs both ends. Its key lies in the Secret `pierhead-ca`, made by the leader when it is absent
//! and read by every replica; its certificate is published in the ConfigMap of that name, which nodes trust. A node proves
//! itself once a day with its ServiceAccount token and gets a certificate with its name; with that it opens its stream.
//!
//! A CA is followed by a new one a year before it ends, or when the Secret is annotated with `pierhead.dev/rotate`: both are
//! published together and trusted together for a while, and nobody notices. Deleting the Secret is for a key that was stolen:
//! every certificate of the old CA is refused from then on, and nodes ask for new ones.

mod authority;
mod keeper;
mod kubernetes;
mod reviewer;
mod rotation;
mod sign;

use std::sync::Arc;

use tokio::sync::watch;

pub use authority::{Authority, AuthorityError, NodeIdentity, NotOurs};
pub use keeper::{Created, Keeper, StoredAuthority, Vault, VaultError};
pub use kubernetes::{ApiReviewer, ApiVault};
pub use reviewer::{ReviewError, Reviewed, Reviewer};
pub(crate) use sign::Signer;

/// What a controller needs to know nodes, and to be known by them.
#[derive(Clone)]
pub struct Identity {
    /// `None` until the CA was read or made.
    pub authority: watch::Receiver<Option<Arc<Authority>>>,
    pub reviewer: Arc<dyn Reviewer>,
    /// The user name that a node's token must have: `system:serviceaccount:<namespace>:pierhead-node`.
    pub node_user: String,
    /// Names in the serving certificate.
    pub server_names: Vec<String>,
}

impl Identity {
    /// The names under which nodes reach a controller: its Service in its namespace, and this machine.
    pub fn server_names(service: &str, namespace: &str) -> Vec<String> {
        vec![
            format!("{service}.{namespace}.svc"),
            format!("{service}.{namespace}.svc.cluster.local"),
            format!("{service}.{namespace}"),
            "localhost".to_owned(),
        ]
    }

    /// The user of the nodes' ServiceAccount.
    pub fn node_user(namespace: &str) -> String {
        format!("system:serviceaccount:{namespace}:pierhead-node")
    }
}
