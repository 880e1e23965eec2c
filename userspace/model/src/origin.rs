use std::{fmt, sync::Arc};

use serde::Serialize;

use crate::intern;

/// The Kubernetes object that caused something, for logs, metrics, problems and status.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Origin {
    /// The object's kind, as in its manifest: `HTTPRoute`, `Ingress`, ….
    pub kind: Arc<str>,
    /// Empty for cluster-scoped objects.
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl Origin {
    pub fn new(kind: &str, namespace: &str, name: &str) -> Self {
        Self {
            kind: intern(kind),
            namespace: intern(namespace),
            name: intern(name),
        }
    }
}

impl fmt::Display for Origin {
    /// `HTTPRoute default/shop`, or `GatewayClass pierhead` for cluster-scoped objects.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}
