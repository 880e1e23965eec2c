//! What the nodes say of themselves: who is there, what they run, what they refuse.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use pierhead_model::{BindKey, DataPath};
use pierhead_protocol::ResourceName;
use tokio::sync::watch;

/// How long a node that is gone is still listed.
const GONE_KEPT: Duration = Duration::from_mins(10);

/// All nodes that are there, or were a short while ago.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nodes {
    pub by_name: BTreeMap<Arc<str>, Arc<NodeState>>,
}

impl Nodes {
    /// Those that have a stream.
    pub fn connected(&self) -> impl Iterator<Item = (&Arc<str>, &NodeState)> {
        let all = self.by_name.iter().map(|(name, state)| (name, &**state));
        all.filter(|(_, state)| state.connected)
    }

    /// Whether every connected node has answered this snapshot, or a later one. Also true when none is connected.
    pub fn have_answered(&self, version: u64) -> bool {
        self.connected().all(|(_, state)| state.acked >= version)
    }
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeState {
    pub connected: bool,
    pub addresses: Vec<IpAddr>,
    /// For which it answered ARP and NDP when it came, elected by whoever led then.
    pub announced: Vec<IpAddr>,
    /// Number of the last snapshot that it answered, whatever the answer was; 0: none yet.
    pub acked: u64,
    /// What it holds back, and why. It serves the last good value of these, if it ever had one.
    pub nacks: BTreeMap<ResourceName, String>,
    /// Why it could apply nothing of the last snapshot that it answered; it serves what it had before.
    pub rejected: Option<String>,
    /// How each bind is carried there, and why nothing better does.
    pub paths: Arc<BTreeMap<BindKey, (DataPath, String)>>,
    /// When it became connected, or ceased to be.
    pub since: Timestamp,
    /// Its program's version, for people.
    pub program: String,
}

impl NodeState {
    fn new(now: Timestamp) -> Self {
        Self {
            connected: true,
            addresses: Vec::new(),
            announced: Vec::new(),
            acked: 0,
            nacks: BTreeMap::new(),
            rejected: None,
            paths: Arc::default(),
            since: now,
            program: String::new(),
        }
    }
}

/// Where streams tell what nodes say. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Registry {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    nodes: watch::Sender<Arc<Nodes>>,
    /// The streams of each connected node, the newest last: while a node's program is replaced there are two, and the newer
    /// one speaks for the node.
    streams: Mutex<Streams>,
}

#[derive(Debug, Default)]
struct Streams {
    last: u64,
    by_name: BTreeMap<Arc<str>, Vec<(u64, NodeState)>>,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            shared: Arc::new(Shared {
                nodes: watch::Sender::new(Arc::default()),
                streams: Mutex::default(),
            }),
        }
    }
}

impl Registry {
    pub fn nodes(&self) -> watch::Receiver<Arc<Nodes>> {
        self.shared.nodes.subscribe()
    }

    /// A node has come: it is connected for as long as the result lives.
    pub fn join(&self, node: &str, now: Timestamp) -> Membership {
        let name: Arc<str> = node.into();
        let mut streams = self.shared.streams();
        streams.last += 1;
        let number = streams.last;
        let states = streams.by_name.entry(Arc::clone(&name)).or_default();
        states.push((number, NodeState::new(now)));
        self.shared.show(&name, states.last().map(|(_, state)| state), now);
        drop(streams);
        Membership {
            shared: Arc::clone(&self.shared),
            name,
            number,
        }
    }
}

impl Shared {
    fn streams(&self) -> std::sync::MutexGuard<'_, Streams> {
        // Nothing panics while it is held; and if, every state is whole.
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes what speaks for the node; `None`: nothing does any more.
    fn show(&self, name: &Arc<str>, state: Option<&NodeState>, now: Timestamp) {
        self.nodes.send_if_modified(|nodes| {
            let shown = nodes.by_name.get(name).map(|shown| &**shown);
            let next = match (state, shown) {
                (Some(state), shown) if shown == Some(state) => return false,
                (Some(state), _) => state.clone(),
                (None, Some(shown)) => NodeState {
                    connected: false,
                    since: now,
                    ..shown.clone()
                },
                (None, None) => return false,
            };
            let by_name = &mut Arc::make_mut(nodes).by_name;
            by_name.retain(|_, state| state.connected || state.since + GONE_KEPT > now);
            by_name.insert(Arc::clone(name), next.into());
            true
        });
    }
}

/// A stream's place among the nodes; dropping it says that the stream has ended.
#[derive(Debug)]
pub struct Membership {
    shared: Arc<Shared>,
    name: Arc<str>,
    number: u64,
}

impl Membership {
    /// The stream broke off, which nobody announced: it ends this much later.
    pub async fn lapse(self, grace: Duration) {
        tokio::time::sleep(grace).await;
    }

    /// Changes what the stream says of its node.
    pub fn update(&self, now: Timestamp, change: impl FnOnce(&mut NodeState)) {
        let mut streams = self.shared.streams();
        let Some(states) = streams.by_name.get_mut(&self.name) else {
            return;
        };
        let newest = states.last().map(|(number, _)| *number);
        let Some((_, state)) = states.iter_mut().find(|(number, _)| *number == self.number) else {
            return;
        };
        change(state);
        if newest == Some(self.number) {
            self.shared.show(&self.name, Some(state), now);
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let now = Timestamp::now();
        let mut streams = self.shared.streams();
        let Some(states) = streams.by_name.get_mut(&self.name) else {
            return;
        };
        states.retain(|(number, _)| *number != self.number);
        self.shared.show(&self.name, states.last().map(|(_, state)| state), now);
        if states.is_empty() {
            streams.by_name.remove(&self.name);
        }
    }
}
