//! What is served now, as plain values: made by the running process, printed by `pierhead status`.

use std::collections::BTreeMap;
use std::sync::Arc;

use pierhead_controller::Published;
use pierhead_controller::nodes::{NodeState, Nodes};
use pierhead_dataplane::Status;
use pierhead_model::{BackendTarget, BindKey, DataPath, DataPathReport, EndpointState, ListenerKind, Snapshot};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::check::Finding;
use crate::node::Node;
use crate::shared::{Shared, Source};

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Picture {
    pub(crate) version: String,
    pub(crate) pid: u32,
    pub(crate) uptime_seconds: u64,
    pub(crate) ready: bool,
    /// Why not; empty when it is.
    pub(crate) not_ready: String,
    pub(crate) ebpf: Ebpf,
    pub(crate) configuration: Configuration,
    pub(crate) gateways: Vec<Gateway>,
    /// Of a controller: those it serves.
    pub(crate) nodes: Vec<ServedNode>,
    pub(crate) binds: Vec<Bind>,
    pub(crate) routes: Vec<Route>,
    pub(crate) backends: Vec<Backend>,
    pub(crate) certificates: Vec<Certificate>,
    /// Addresses made local here.
    pub(crate) owned: Vec<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Ebpf {
    pub(crate) asked: String,
    pub(crate) chosen: String,
    pub(crate) why: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Configuration {
    /// A folder, an API server or a controller.
    pub(crate) from: String,
    /// Of a node: how it stands with its controller.
    pub(crate) link: Option<String>,
    /// Of a controller: whether it is the one that writes statuses.
    pub(crate) leader: Option<bool>,
    pub(crate) version: u64,
    pub(crate) objects: usize,
    pub(crate) problems: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Gateway {
    pub(crate) name: String,
    pub(crate) addresses: Vec<String>,
    pub(crate) programmed: bool,
    pub(crate) why: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ServedNode {
    pub(crate) name: String,
    pub(crate) connected: bool,
    pub(crate) since: String,
    pub(crate) addresses: Vec<String>,
    /// The newest version it answered.
    pub(crate) version: u64,
    /// What it could not apply, and what it cannot serve.
    pub(crate) problems: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Bind {
    pub(crate) bind: String,
    /// `kernel`, `steered`, `bound` or `none`; empty in a controller.
    pub(crate) path: String,
    pub(crate) why: String,
    pub(crate) listeners: Vec<Listener>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Listener {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) hosts: Vec<String>,
    pub(crate) routes: usize,
    pub(crate) connections: u64,
    pub(crate) requests: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Route {
    pub(crate) id: String,
    pub(crate) rules: usize,
    pub(crate) listeners: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Backend {
    pub(crate) id: String,
    pub(crate) target: String,
    pub(crate) problem: String,
    pub(crate) endpoints: Vec<Endpoint>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    pub(crate) address: String,
    pub(crate) state: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Certificate {
    pub(crate) id: String,
    pub(crate) names: Vec<String>,
    pub(crate) not_after: String,
    pub(crate) days_left: i64,
}

pub(crate) fn take(shared: &Shared) -> Picture {
    let not_ready = shared.not_ready();
    let mut picture = Picture {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_seconds: shared.started.elapsed().as_secs(),
        ready: not_ready.is_none(),
        not_ready: not_ready.unwrap_or_default().into_owned(),
        ..Picture::default()
    };
    match shared.source() {
        Some(Source::Folder { path, .. }) => picture.configuration.from = path.display().to_string(),
        Some(Source::Controller(link)) => {
            let link = link.borrow();
            picture.configuration.from = link.controller.clone();
            picture.configuration.version = link.version;
            picture.configuration.link = Some(link.to_string());
            let nacks = link.nacks.iter();
            picture.configuration.problems = nacks.map(|(name, why)| format!("{name}: {why}")).collect();
        }
        Some(Source::Cluster(cluster)) => {
            let counters = cluster.counters.values();
            picture.configuration.from = "the cluster".to_owned();
            picture.configuration.leader = Some(counters.leader);
            picture.nodes = cluster.nodes().map(|nodes| served(&nodes)).unwrap_or_default();
        }
        None => {}
    }
    if let Some(published) = shared.published() {
        picture.configuration.version = published.version;
        picture.configuration.objects = published.objects;
        picture.configuration.problems = problems(&published);
        picture.gateways = gateways(&published);
    }
    if let Some(node) = shared.node() {
        let mode = &node.mode;
        picture.ebpf = Ebpf {
            asked: mode.asked.as_str().into(),
            chosen: mode.chosen.as_str().into(),
            why: mode.why.clone(),
        };
    }
    let Some(snapshot) = shared.snapshot() else {
        return picture;
    };
    let carried = shared.node().map(Carried::of);
    if carried.is_some() {
        picture.owned = snapshot.owned.keys().map(|prefix| prefix.0.to_string()).collect();
    }
    let carried = carried.unwrap_or_default();
    picture.binds = binds(&carried, &snapshot);
    picture.routes = routes(&snapshot);
    picture.backends = backends(&carried, &snapshot);
    picture.certificates = certificates(&snapshot);
    picture
}

/// What the data plane says; nothing in a controller, which has none.
#[derive(Default)]
struct Carried {
    paths: BTreeMap<BindKey, DataPathReport>,
    status: Status,
}

impl Carried {
    fn of(node: &Arc<Node>) -> Self {
        Self {
            paths: node.paths().into_iter().map(|path| (path.bind, path)).collect(),
            status: node.dataplane.status(),
        }
    }
}

fn problems(published: &Published) -> Vec<String> {
    let files = published.file_problems.iter().map(ToString::to_string);
    let meaning = published.translation.problems.iter();
    files
        .chain(meaning.map(|problem| Finding::of_meaning(problem, None).text))
        .collect()
}

fn served(nodes: &Nodes) -> Vec<ServedNode> {
    let node = |(name, node): (&Arc<str>, &Arc<NodeState>)| {
        let nacks = node.nacks.iter().map(|(resource, why)| format!("{resource}: {why}"));
        let rejected = node.rejected.iter().map(|why| format!("the last change: {why}"));
        let unserved = node.paths.iter().filter(|(_, (path, _))| *path == DataPath::None);
        ServedNode {
            name: name.to_string(),
            connected: node.connected,
            since: node.since.to_string(),
            addresses: node.addresses.iter().map(ToString::to_string).collect(),
            version: node.acked,
            problems: rejected
                .chain(nacks)
                .chain(unserved.map(|(bind, (_, why))| format!("{bind} is not served: {why}")))
                .collect(),
        }
    };
    nodes.by_name.iter().map(node).collect()
}

/// From the status each Gateway would have in a cluster. Read as JSON: Kubernetes types are not named in this crate.
fn gateways(published: &Published) -> Vec<Gateway> {
    let statuses = serde_json::to_value(&published.translation.statuses).unwrap_or_default();
    let words = |list: &Value, field: &str| -> Vec<String> {
        let items = list.as_array().into_iter().flatten();
        items
            .filter_map(|item| Some(item[field].as_str()?.to_owned()))
            .collect()
    };
    let mut found = Vec::new();
    for (name, status) in statuses["gateways"].as_object().into_iter().flatten() {
        let conditions = status["conditions"].as_array();
        let failed = conditions.into_iter().flatten().find(|one| one["status"] == "False");
        let why = failed.map(|one| {
            format!(
                "{}: {}",
                one["reason"].as_str().unwrap_or_default(),
                one["message"].as_str().unwrap_or_default()
            )
        });
        let mut programmed = conditions
            .into_iter()
            .flatten()
            .filter(|one| one["type"] == "Programmed");
        found.push(Gateway {
            name: name.clone(),
            addresses: words(&status["addresses"], "value"),
            programmed: programmed.any(|one| one["status"] == "True"),
            why: why.unwrap_or_default(),
        });
    }
    found
}

fn binds(carried: &Carried, snapshot: &Snapshot) -> Vec<Bind> {
    let counts: BTreeMap<String, (u64, u64)> = carried
        .status
        .binds
        .iter()
        .flat_map(|bind| &bind.listeners)
        .map(|one| (one.listener.to_string(), (one.connections, one.requests)))
        .collect();
    let attached = |id: &pierhead_model::ListenerId| {
        snapshot
            .routes
            .values()
            .filter(|route| route.attachments.iter().any(|one| one.listener == *id))
            .count()
    };
    let listener = |one: &pierhead_model::Listener| {
        let (kind, routes) = match &one.kind {
            ListenerKind::Http(_) => ("HTTP", attached(&one.id)),
            ListenerKind::Https { .. } => ("HTTPS", attached(&one.id)),
            ListenerKind::TlsPassthrough { routes } => ("TLS passthrough", routes.len()),
            ListenerKind::TlsTerminate { routes, .. } => ("TLS", routes.len()),
            ListenerKind::Tcp { route } => ("TCP", usize::from(route.is_some())),
            ListenerKind::Udp { route } => ("UDP", usize::from(route.is_some())),
        };
        let (connections, requests) = counts.get(&one.id.to_string()).copied().unwrap_or_default();
        Listener {
            id: one.id.to_string(),
            kind: kind.to_owned(),
            hosts: one.hosts.iter().map(ToString::to_string).collect(),
            routes,
            connections,
            requests,
        }
    };
    snapshot
        .binds
        .iter()
        .map(|(key, bind)| {
            let path = carried.paths.get(key);
            Bind {
                bind: key.to_string(),
                path: path.map(|path| path_name(path.path).to_owned()).unwrap_or_default(),
                why: path.map(|path| path.why.clone()).unwrap_or_default(),
                listeners: bind.listeners.iter().map(|one| listener(one)).collect(),
            }
        })
        .collect()
}

/// One word for a data path, in status and metrics.
pub(crate) fn path_name(path: DataPath) -> &'static str {
    match path {
        DataPath::Kernel => "kernel",
        DataPath::Steered => "steered",
        DataPath::Bound => "bound",
        DataPath::None => "none",
    }
}

fn routes(snapshot: &Snapshot) -> Vec<Route> {
    let http = snapshot.routes.values().map(|route| Route {
        id: route.id.to_string(),
        rules: route.rules.len(),
        listeners: route.attachments.iter().map(|one| one.listener.to_string()).collect(),
    });
    let mut all: Vec<Route> = http.collect();
    let mut layer4: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for listener in snapshot.binds.values().flat_map(|bind| &bind.listeners) {
        let origins: Vec<String> = match &listener.kind {
            ListenerKind::TlsPassthrough { routes } | ListenerKind::TlsTerminate { routes, .. } => {
                routes.iter().map(|one| one.route.origin.to_string()).collect()
            }
            ListenerKind::Tcp { route } | ListenerKind::Udp { route } => {
                route.iter().map(|one| one.origin.to_string()).collect()
            }
            ListenerKind::Http(_) | ListenerKind::Https { .. } => Vec::new(),
        };
        for origin in origins {
            layer4.entry(origin).or_default().push(listener.id.to_string());
        }
    }
    all.extend(layer4.into_iter().map(|(id, mut listeners)| {
        listeners.dedup();
        Route {
            id,
            rules: 1,
            listeners,
        }
    }));
    all
}

fn backends(carried: &Carried, snapshot: &Snapshot) -> Vec<Backend> {
    snapshot
        .backends
        .iter()
        .map(|(id, backend)| {
            let (target, problem) = match &backend.target {
                BackendTarget::Endpoints(endpoints) => (endpoints.to_string(), String::new()),
                BackendTarget::Dns { name, port } => (format!("{name}:{port} by DNS"), String::new()),
                BackendTarget::Invalid { reason, message } => (String::new(), format!("{reason:?}: {message}")),
            };
            let now = carried.status.backends.iter().find(|one| one.backend == *id);
            let problem = if problem.is_empty() {
                now.map(|one| one.problem.clone()).unwrap_or_default()
            } else {
                problem
            };
            Backend {
                id: id.to_string(),
                target,
                problem,
                endpoints: endpoints(snapshot, &backend.target, now),
            }
        })
        .collect()
}

fn endpoints(
    snapshot: &Snapshot,
    target: &BackendTarget,
    now: Option<&pierhead_dataplane::BackendStatus>,
) -> Vec<Endpoint> {
    if let BackendTarget::Endpoints(id) = target
        && let Some(set) = snapshot.endpoints.get(id)
    {
        let state = |state: EndpointState| match state {
            EndpointState::Ready => "ready",
            EndpointState::Draining => "draining",
        };
        let all = set.endpoints.iter();
        return all
            .map(|one| Endpoint {
                address: one.address.to_string(),
                state: state(one.state).into(),
            })
            .collect();
    }
    let resolved = now.into_iter().flat_map(|now| &now.endpoints);
    resolved
        .map(|one| Endpoint {
            address: one.address.to_string(),
            state: if one.ready { "ready" } else { "draining" }.to_owned(),
        })
        .collect()
}

fn certificates(snapshot: &Snapshot) -> Vec<Certificate> {
    let now = jiff::Timestamp::now().as_second();
    let date = |seconds: i64| {
        jiff::Timestamp::from_second(seconds)
            .map(|time| time.to_string())
            .unwrap_or_default()
    };
    snapshot
        .certificates
        .values()
        .map(|one| Certificate {
            id: one.id.to_string(),
            names: one.names.iter().map(ToString::to_string).collect(),
            not_after: date(one.not_after),
            days_left: (one.not_after - now).div_euclid(86_400),
        })
        .collect()
}
