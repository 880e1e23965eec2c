//! The API server, for objects of any kind as plain values.

use anyhow::{Context, Result, bail, ensure};
use futures_util::TryStreamExt as _;
use http::{Method, Request, StatusCode};
use kube::Client;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::WatchEvent;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::time::timeout;

/// Whose fields these are, for server-side apply.
const MANAGER: &str = "pierhead-tests";

/// Kinds that live in no namespace.
const CLUSTER_WIDE: &[&str] = &[
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "GatewayClass",
    "IngressClass",
    "Namespace",
    "Node",
];

/// A blocking client of the API server; any thread may use it.
#[derive(Clone)]
pub struct Api {
    client: Client,
    runtime: Arc<Runtime>,
}

/// Which object: enough to find it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    /// `apps/v1`, or `v1`.
    pub api_version: String,
    pub kind: String,
    /// Empty for a kind that lives in no namespace.
    pub namespace: String,
    pub name: String,
}

impl Api {
    /// Connects as this kubeconfig says.
    ///
    /// # Errors
    /// The file is no kubeconfig.
    pub fn new(kubeconfig: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let client = runtime.block_on(async {
            let config = Kubeconfig::read_from(kubeconfig)
                .with_context(|| format!("cannot read {}: is the cluster up?", kubeconfig.display()))?;
            let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
            anyhow::Ok(Client::try_from(config)?)
        })?;
        Ok(Self {
            client,
            runtime: Arc::new(runtime),
        })
    }

    /// Makes the object what it says, whoever else manages it.
    ///
    /// # Errors
    /// The API server refuses it.
    pub fn apply(&self, object: &Value) -> Result<Value> {
        let id = Id::of(object)?;
        let path = format!("{}?fieldManager={MANAGER}&force=true", id.path());
        self.send(Method::PATCH, &path, Some("application/apply-patch+yaml"), object)
            .and_then(|answer| answer.context("no such kind"))
            .with_context(|| format!("cannot apply {id}"))
    }

    /// Makes the object, which must not be there yet; the moment at which the API server acknowledged it.
    ///
    /// # Errors
    /// The API server refuses it.
    pub fn create(&self, object: &Value) -> Result<Instant> {
        let id = Id::of(object)?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(id.collection())
            .header("content-type", "application/json")
            .body(Body::from(serde_json::to_vec(object)?))?;
        self.runtime.block_on(async {
            let answer = self.client.send(request).await?;
            // The head is the acknowledgement; reading the object that follows is our own business.
            let acknowledged = Instant::now();
            let status = answer.status();
            let body = answer.into_body().collect_bytes().await?;
            ensure!(
                status == StatusCode::CREATED,
                "cannot create {id}: {status}: {}",
                String::from_utf8_lossy(&body)
            );
            Ok(acknowledged)
        })
    }

    /// Tells every object that a path lists, and then each as it changes, until it is enough. `heard` says whether it is.
    ///
    /// # Errors
    /// The API server ends the watch, or it is never enough.
    pub fn watch<T: Clone + DeserializeOwned>(
        &self,
        path: &str,
        patience: Duration,
        mut heard: impl FnMut(T) -> bool,
    ) -> Result<()> {
        let request = Request::builder().uri(format!("{path}?watch=true")).body(Vec::new())?;
        let watching = async {
            let mut events = pin!(self.client.request_events::<T>(request).await?);
            while let Some(event) = events.try_next().await? {
                let enough = match event {
                    WatchEvent::Added(object) | WatchEvent::Modified(object) => heard(object),
                    WatchEvent::Deleted(_) | WatchEvent::Bookmark(_) => false,
                    WatchEvent::Error(status) => bail!("watch {path}: {status:?}"),
                };
                if enough {
                    return Ok(());
                }
            }
            bail!("the API server ended the watch of {path}")
        };
        let within = self.runtime.block_on(async { timeout(patience, watching).await });
        within.with_context(|| format!("not within {patience:?}"))?
    }

    /// Changes what a merge patch names. `sub` is empty, or a sub-resource: `/status`, `/scale`.
    ///
    /// # Errors
    /// There is no such object, or the API server refuses it.
    pub fn merge(&self, id: &Id, sub: &str, patch: &Value) -> Result<Value> {
        let path = format!("{}{sub}", id.path());
        self.send(Method::PATCH, &path, Some("application/merge-patch+json"), patch)?
            .with_context(|| format!("{id} is not there"))
    }

    /// The object, if it is there.
    ///
    /// # Errors
    /// The API server does not answer.
    pub fn get(&self, id: &Id) -> Result<Option<Value>> {
        self.send(Method::GET, &id.path(), None, &Value::Null)
    }

    /// Every object that a path lists, such as `/api/v1/namespaces/default/pods?labelSelector=app%3Dred`.
    ///
    /// # Errors
    /// The API server does not answer, or knows no such path.
    pub fn list(&self, path: &str) -> Result<Vec<Value>> {
        let mut list = self
            .send(Method::GET, path, None, &Value::Null)?
            .with_context(|| format!("the API server knows no {path}"))?;
        match list["items"].take() {
            Value::Array(items) => Ok(items),
            _ => bail!("{path} is no list"),
        }
    }

    /// Deletes the object; it may be gone already. Returns at once, while it may still be going.
    ///
    /// # Errors
    /// The API server refuses it.
    pub fn delete(&self, id: &Id) -> Result<()> {
        self.send(Method::DELETE, &id.path(), None, &Value::Null)
            .map(drop)
            .with_context(|| format!("cannot delete {id}"))
    }

    /// The answer to a request; nothing when there is no such thing.
    fn send(&self, method: Method, path: &str, content: Option<&str>, body: &Value) -> Result<Option<Value>> {
        let mut request = Request::builder().method(method.clone()).uri(path);
        if let Some(content) = content {
            request = request.header("content-type", content);
        }
        let body = if body.is_null() {
            Vec::new()
        } else {
            serde_json::to_vec(body)?
        };
        let request = request.body(body)?;
        match self.runtime.block_on(self.client.request::<Value>(request)) {
            Ok(answer) => Ok(Some(answer)),
            Err(kube::Error::Api(status)) if status.code == StatusCode::NOT_FOUND.as_u16() => Ok(None),
            Err(error) => Err(error).with_context(|| format!("{method} {path}")),
        }
    }
}

impl Id {
    /// An object of a kind that lives in a namespace.
    pub fn new(api_version: &str, kind: &str, namespace: &str, name: &str) -> Self {
        Self {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// Which object this is.
    ///
    /// # Errors
    /// It is none: something of its identity is missing.
    pub fn of(object: &Value) -> Result<Self> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let id = Self {
            api_version: text(&object["apiVersion"]),
            kind: text(&object["kind"]),
            namespace: text(&object["metadata"]["namespace"]),
            name: text(&object["metadata"]["name"]),
        };
        ensure!(
            !id.api_version.is_empty() && !id.kind.is_empty() && !id.name.is_empty(),
            "no Kubernetes object: {object}"
        );
        Ok(id)
    }

    /// Whether objects of this kind live in namespaces.
    pub fn is_namespaced(kind: &str) -> bool {
        !CLUSTER_WIDE.contains(&kind)
    }

    /// Where the API server has it.
    pub fn path(&self) -> String {
        format!("{}/{}", self.collection(), self.name)
    }

    /// Where the API server has all of its kind, in its namespace.
    pub fn collection(&self) -> String {
        let root = if self.api_version.contains('/') { "apis" } else { "api" };
        let plural = plural(&self.kind);
        let within = if self.namespace.is_empty() {
            String::new()
        } else {
            format!("namespaces/{}/", self.namespace)
        };
        format!("/{root}/{}/{within}{plural}", self.api_version)
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// How the API server spells many of a kind.
fn plural(kind: &str) -> String {
    let lower = kind.to_lowercase();
    if lower.ends_with("parameters") || lower.ends_with("endpoints") {
        return lower;
    }
    match lower.strip_suffix('y') {
        Some(stem) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{stem}ies"),
        Some(stem) => format!("{stem}ys"),
        None if lower.ends_with('s') => format!("{lower}es"),
        None => format!("{lower}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn where_an_object_is() {
        let object = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"namespace": "a", "name": "b"},
        });
        assert_eq!(
            Id::of(&object).unwrap().path(),
            "/apis/networking.k8s.io/v1/namespaces/a/ingresses/b"
        );
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}});
        assert_eq!(Id::of(&object).unwrap().path(), "/api/v1/namespaces/a");
        assert!(Id::of(&json!({"kind": "Namespace"})).is_err());
    }

    #[test]
    fn many_of_a_kind() {
        for (kind, expected) in [
            ("Gateway", "gateways"),
            ("GatewayClass", "gatewayclasses"),
            ("BackendTLSPolicy", "backendtlspolicies"),
            ("NetworkPolicy", "networkpolicies"),
            ("GatewayParameters", "gatewayparameters"),
            ("Service", "services"),
        ] {
            assert_eq!(plural(kind), expected);
        }
    }
}
