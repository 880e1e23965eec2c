use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use pierhead_model::{Bind, HostPattern, HttpOptions, L4Route, Limits, Listener};
use pierhead_route::{HostMap, RouteTable};

use super::Gauge;
use crate::{
    http::{Filters, RouteHandle},
    observe::{ListenerCells, PerWorker},
    tls::TlsServer,
    upstream::{Backends, Weighted},
};

/// What listens on one address and port.
#[derive(Debug)]
pub(crate) struct BindRuntime {
    pub(crate) model: Arc<Bind>,
    pub(crate) listeners: Vec<Arc<ListenerRuntime>>,
    /// Index into `listeners`.
    hosts: HostMap<usize>,
    /// Peers that begin with a header of the PROXY protocol.
    proxies: Vec<IpNet>,
}

impl BindRuntime {
    pub(crate) fn new(model: Arc<Bind>, listeners: Vec<Arc<ListenerRuntime>>) -> Self {
        let mut hosts = HostMap::default();
        for (number, listener) in listeners.iter().enumerate() {
            for host in &listener.model.hosts {
                // Patterns of one bind are distinct; were they not, the first would keep its claim.
                if let Some(first) = hosts.insert(host, number) {
                    hosts.insert(host, first);
                }
            }
        }
        // The header stands before whatever tells the listeners of a bind apart.
        let mut proxies: Vec<IpNet> = Vec::new();
        for net in listeners.iter().flat_map(|l| &l.model.client_address.proxy_protocol) {
            if !proxies.contains(net) {
                proxies.push(*net);
            }
        }
        Self {
            model,
            listeners,
            hosts,
            proxies,
        }
    }

    /// Whether a connection of `peer` begins with a header of the PROXY protocol.
    pub(crate) fn is_proxy(&self, peer: IpAddr) -> bool {
        self.proxies.iter().any(|net| net.contains(&peer))
    }

    #[cfg(test)]
    pub(crate) fn without_listeners(model: Arc<Bind>) -> Self {
        Self::new(model, Vec::new())
    }

    /// The listener with the most specific pattern for `host` (lower case, no port, no trailing dot; empty when the
    /// client named none, which only a listener for any host takes).
    pub(crate) fn listener(&self, host: &str) -> Option<&Arc<ListenerRuntime>> {
        self.hosts.best(host).and_then(|number| self.listeners.get(*number))
    }

    /// The listener whose protocol and limits hold before a host is known. Listeners of a bind are of one family.
    pub(crate) fn first(&self) -> Option<&Arc<ListenerRuntime>> {
        self.listeners.first()
    }

    /// The same listener in a later snapshot.
    pub(crate) fn same(&self, listener: &ListenerRuntime) -> Option<&Arc<ListenerRuntime>> {
        self.listeners.iter().find(|other| other.model.id == listener.model.id)
    }
}

#[derive(Debug)]
pub(crate) struct ListenerRuntime {
    pub(crate) model: Arc<Listener>,
    pub(crate) protocol: Protocol,
    pub(crate) cells: Arc<PerWorker<ListenerCells>>,
    pub(crate) gauge: Arc<Gauge>,
}

impl ListenerRuntime {
    pub(crate) fn limits(&self) -> &Limits {
        &self.model.limits
    }

    /// Streams or sessions open now; HTTP: the connections of the whole Gateway.
    pub(crate) fn open_now(&self) -> u64 {
        if self.http().is_some() {
            return u64::from(self.gauge.open());
        }
        // A closing may be read before its opening was.
        let closed: u64 = self.cells.iter().map(|cells| cells.closed.value()).sum();
        let opened: u64 = self.cells.iter().map(|cells| cells.opened.value()).sum();
        opened.saturating_sub(closed)
    }

    /// What HTTP needs; `None` for other protocols.
    pub(crate) fn http(&self) -> Option<&HttpSite> {
        match &self.protocol {
            Protocol::Http(site) | Protocol::Https { http: site, .. } => Some(site),
            Protocol::TlsPassthrough(_) | Protocol::TlsTerminate { .. } | Protocol::Tcp(_) | Protocol::Udp(_) => None,
        }
    }
}

#[derive(Debug)]
pub(crate) enum Protocol {
    Http(HttpSite),
    Https { tls: TlsServer, http: HttpSite },
    TlsPassthrough(SniTargets),
    TlsTerminate { tls: TlsServer, targets: SniTargets },
    Tcp(Option<L4Target>),
    Udp(Option<L4Target>),
}

/// The routes of an HTTP listener.
#[derive(Debug)]
pub(crate) struct HttpSite {
    pub(crate) options: HttpOptions,
    /// Before routing.
    pub(crate) filters: Arc<Filters>,
    pub(crate) table: Arc<RouteTable<RouteHandle>>,
}

/// Where the streams or flows of one route go.
#[derive(Clone, Debug)]
pub(crate) struct L4Target {
    pub(crate) route: Arc<L4Route>,
    pub(crate) backends: Arc<Weighted>,
}

impl L4Target {
    /// Takes the turns of `previous` over when nothing changed.
    pub(crate) fn compile(route: &Arc<L4Route>, backends: &Backends, previous: Option<&Self>) -> Self {
        if let Some(old) = previous.filter(|old| old.route == *route && old.backends.is_current(backends)) {
            return old.clone();
        }
        Self {
            route: Arc::clone(route),
            backends: Arc::new(Weighted::compile(&route.backends, backends)),
        }
    }
}

/// The targets of a TLS listener, by server name; the first match wins (the model keeps them sorted).
#[derive(Debug, Default)]
pub(crate) struct SniTargets(Vec<(HostPattern, L4Target)>);

impl SniTargets {
    pub(crate) fn new(targets: Vec<(HostPattern, L4Target)>) -> Self {
        Self(targets)
    }

    pub(crate) fn find(&self, sni: &str) -> Option<&L4Target> {
        self.0
            .iter()
            .find(|(host, _)| host.matches(sni))
            .map(|(_, target)| target)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &(HostPattern, L4Target)> {
        self.0.iter()
    }
}
