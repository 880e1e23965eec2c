//! Gateways, ListenerSets and their listeners: what is valid, and who is in whose way.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use pierhead_api::gateway_parameters::Addresses;
use pierhead_gateway_api::{
    AllowedListeners, GROUP, Gateway, Listener, ListenerSet, ProtocolType, RouteGroupKind, TLSModeType,
};
use pierhead_model::{
    Age, CertificateId, ClientAddress, ClientAuth, Filter, HostPattern, L4Route, ListenerId, Origin, SniRoute,
    TlsTermination, WildcardDepth,
};

use super::{
    address,
    class::Classes,
    condition::{Fault, PENDING, Verdict, fault},
    grant, listener_filter, policy, tls,
};
use crate::{
    Builder, ObjectName,
    address::{Assigned, Wish},
    age, origin, parameters, world,
};

/// All Gateways that are ours, with everything that listens for them.
pub(super) struct Gateways<'w> {
    pub(super) gateways: Vec<GatewayState<'w>>,
    pub(super) sets: Vec<SetState<'w>>,
    pub(super) listeners: Vec<ListenerState<'w>>,
    /// By namespace and name.
    gateway_parents: Parents<'w>,
    set_parents: Parents<'w>,
}

type Parents<'w> = BTreeMap<&'w str, BTreeMap<&'w str, Owner>>;

/// Where a listener is written: an index into [`Gateways::gateways`] or [`Gateways::sets`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Gateway(usize),
    Set(usize),
}

pub(super) struct GatewayState<'w> {
    pub(super) object: &'w Gateway,
    pub(super) origin: Origin,
    pub(super) age: Age,
    /// Its own, in [`Gateways::listeners`].
    listeners: Range<usize>,
    /// Whatever does not concern a single listener: class, parameters, kinds of addresses.
    /// `Ok` is where its addresses come from.
    pub(super) accepted: Result<Arc<Addresses>, Fault>,
    /// `spec.addresses`.
    pub(super) wishes: Vec<Wish>,
    pub(super) assigned: Assigned,
    /// Whether all addresses asked for were given.
    pub(super) addressed: Verdict,
    /// Why no Service is made for it, although one should be.
    pub(super) serviceless: Option<Fault>,
    pub(super) client_address: ClientAddress,
    /// `spec.tls.backend`.
    pub(super) client_certificate: Option<Result<CertificateId, Fault>>,
    /// `spec.tls.frontend` lets clients without a valid certificate in somewhere.
    pub(super) insecure: bool,
}

pub(super) struct SetState<'w> {
    pub(super) object: &'w ListenerSet,
    pub(super) origin: Origin,
    pub(super) gateway: usize,
    /// Its own, in [`Gateways::listeners`].
    listeners: Range<usize>,
    /// Whether the Gateway lets it in.
    pub(super) allowed: Verdict,
}

pub(super) struct ListenerState<'w> {
    pub(super) spec: &'w Listener,
    pub(super) owner: Owner,
    pub(super) gateway: usize,
    pub(super) id: ListenerId,
    /// Of the owner.
    pub(super) namespace: &'w str,
    pub(super) age: Age,
    pub(super) field: String,
    pub(super) host: HostPattern,
    /// Kinds of routes it takes.
    pub(super) kinds: Vec<RouteGroupKind>,
    pub(super) accepted: Verdict,
    pub(super) conflicted: Option<Fault>,
    pub(super) refs: Verdict,
    /// Something can be served: certificates are there, or not needed.
    pub(super) usable: bool,
    pub(super) overlapping: Option<Fault>,
    pub(super) tls: Option<TlsTermination>,
    pub(super) client_auth: Option<ClientAuth>,
    /// Before routing; filled by `listener_filter`.
    pub(super) filters: Vec<Filter>,
    pub(super) attached: u32,
    pub(super) sni_routes: Vec<(Age, SniRoute)>,
    pub(super) l4_routes: Vec<(Age, Arc<L4Route>)>,
}

impl ListenerState<'_> {
    /// Whether it is to be served, as far as its own object can tell.
    pub(super) fn stands(&self) -> bool {
        self.accepted.is_ok() && self.conflicted.is_none()
    }

    /// What can share a port: cleartext HTTP with its like, anything in TLS with its like, TCP and UDP with nothing.
    fn family(&self) -> Option<Family> {
        Some(match self.spec.protocol {
            ProtocolType::Http => Family::Cleartext,
            ProtocolType::Https | ProtocolType::Tls => Family::Tls,
            ProtocolType::Tcp => Family::Tcp,
            ProtocolType::Udp => Family::Udp,
            ProtocolType::Unknown(_) => return None,
        })
    }

    pub(super) fn tls_mode(&self) -> TLSModeType {
        self.spec
            .tls
            .as_ref()
            .map_or(TLSModeType::Terminate, |tls| tls.mode.clone())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Cleartext,
    Tls,
    Tcp,
    Udp,
}

/// What a route's translation reads of Gateways, ListenerSets, their listeners and policies. Equal contexts number them
/// equally.
#[derive(Clone, PartialEq)]
pub(crate) struct Context {
    gateways: Vec<(Origin, Option<CertificateId>)>,
    sets: Vec<(Origin, usize, Verdict)>,
    listeners: Vec<(ListenerId, Owner, String, Listener, HostPattern, Vec<RouteGroupKind>)>,
    policies: Vec<policy::Target>,
}

impl<'w> Gateways<'w> {
    pub(super) fn context(&self, policies: &policy::Policies<'_>) -> Context {
        let certificate = |g: &GatewayState<'_>| g.client_certificate.as_ref()?.as_ref().ok().cloned();
        Context {
            gateways: self
                .gateways
                .iter()
                .map(|g| (g.origin.clone(), certificate(g)))
                .collect(),
            sets: self
                .sets
                .iter()
                .map(|set| (set.origin.clone(), set.gateway, set.allowed.clone()))
                .collect(),
            listeners: self
                .listeners
                .iter()
                .map(|l| {
                    let namespace = l.namespace.to_owned();
                    (
                        l.id.clone(),
                        l.owner,
                        namespace,
                        l.spec.clone(),
                        l.host.clone(),
                        l.kinds.clone(),
                    )
                })
                .collect(),
            policies: policies.targets(),
        }
    }

    pub(super) fn new(builder: &mut Builder<'w>, classes: &Classes) -> Self {
        let world = builder.world;
        let mut all = Self {
            gateways: Vec::new(),
            sets: Vec::new(),
            listeners: Vec::new(),
            gateway_parents: BTreeMap::new(),
            set_parents: BTreeMap::new(),
        };
        for object in world.gateways.iter() {
            let Some(class) = classes.verdict(&object.spec.gateway_class_name) else {
                continue;
            };
            let name = (world::namespace(&object.metadata), world::name(&object.metadata));
            let index = all.gateways.len();
            let parents = all.gateway_parents.entry(name.0).or_default();
            parents.insert(name.1, Owner::Gateway(index));
            let accepted = accepted(builder, object, class);
            let (accepted, wishes) = match accepted.and_then(|mode| Ok((mode, address::wishes(object)?))) {
                Ok((mode, wishes)) => (Ok(mode), wishes),
                Err(fault) => (Err(fault), Vec::new()),
            };
            all.gateways.push(GatewayState {
                object,
                origin: origin("Gateway", &object.metadata),
                age: age(&object.metadata),
                listeners: all.listeners.len()..all.listeners.len() + object.spec.listeners.len(),
                accepted,
                wishes,
                assigned: Assigned::default(),
                addressed: Ok(()),
                serviceless: None,
                client_address: client_address(builder, object),
                client_certificate: None,
                insecure: false,
            });
            for (n, spec) in object.spec.listeners.iter().enumerate() {
                let state = &all.gateways[index];
                let listener = listener(spec, Owner::Gateway(index), index, &state.origin, &state.age, name.0, n);
                all.listeners.push(listener);
            }
        }
        all.add_sets(builder);
        address::demand(builder, &all);
        all
    }

    /// Addresses, conflicts and certificates, once addresses are given.
    pub(super) fn resolve(&mut self, builder: &mut Builder<'w>) {
        address::take(builder, self);
        for index in 0..self.gateways.len() {
            self.settle_conflicts(index);
            tls::resolve(builder, self, index);
        }
    }

    /// ListenerSets in the order of their precedence: "ordered by creation time (oldest first)", then
    /// `namespace/name`.
    fn add_sets(&mut self, builder: &Builder<'w>) {
        let world = builder.world;
        let mut sets: Vec<&'w ListenerSet> = world.listener_sets.iter().map(|set| &**set).collect();
        sets.sort_by_key(|set| age(&set.metadata));
        for object in sets {
            let reference = &object.spec.parent_ref;
            let own = world::namespace(&object.metadata);
            let namespace = reference.namespace.as_deref().unwrap_or(own);
            if reference.group != GROUP || reference.kind != "Gateway" {
                continue;
            }
            let Some(Owner::Gateway(gateway)) = self.parent("Gateway", namespace, &reference.name) else {
                continue;
            };
            let state = &self.gateways[gateway];
            let allowed = allowed(builder, state, own);
            let index = self.sets.len();
            let origin = origin("ListenerSet", &object.metadata);
            let parents = self.set_parents.entry(own).or_default();
            parents.insert(world::name(&object.metadata), Owner::Set(index));
            let first = self.listeners.len();
            if allowed.is_ok() {
                for (n, spec) in object.spec.listeners.iter().enumerate() {
                    let age = age(&object.metadata);
                    let listener = listener(spec, Owner::Set(index), gateway, &origin, &age, own, n);
                    self.listeners.push(listener);
                }
            }
            self.sets.push(SetState {
                object,
                origin,
                gateway,
                listeners: first..self.listeners.len(),
                allowed,
            });
        }
    }

    /// `kind` is as in a parentRef.
    pub(super) fn parent(&self, kind: &str, namespace: &str, name: &str) -> Option<Owner> {
        let parents = match kind {
            "Gateway" => &self.gateway_parents,
            "ListenerSet" => &self.set_parents,
            _ => return None,
        };
        parents.get(namespace)?.get(name).copied()
    }

    pub(super) fn of_gateway(&self, gateway: usize) -> impl Iterator<Item = &ListenerState<'w>> {
        self.listeners.iter().filter(move |l| l.gateway == gateway)
    }

    pub(super) fn of_owner(&self, owner: Owner) -> impl Iterator<Item = (usize, &ListenerState<'w>)> {
        let range = match owner {
            Owner::Gateway(index) => self.gateways[index].listeners.clone(),
            Owner::Set(index) => self.sets[index].listeners.clone(),
        };
        range.map(|index| (index, &self.listeners[index]))
    }

    /// Inside one object there is no winner: all indistinct listeners are conflicted. Between a Gateway and its
    /// ListenerSets, and between those, the first in the order of precedence wins.
    fn settle_conflicts(&mut self, gateway: usize) {
        let mut held: Vec<usize> = Vec::new();
        let mut owners = vec![Owner::Gateway(gateway)];
        let sets = self.sets.iter().enumerate().filter(|(_, set)| set.gateway == gateway);
        owners.extend(sets.map(|(index, _)| Owner::Set(index)));
        for owner in owners {
            let candidates: Vec<usize> = self
                .of_owner(owner)
                .filter(|(_, l)| l.accepted.is_ok())
                .map(|(index, _)| index)
                .collect();
            // Whoever lost to an earlier object is in nobody's way.
            let (mut standing, mut conflicts) = (Vec::new(), Vec::new());
            for &index in &candidates {
                match self.first_conflict(index, &held) {
                    Some(fault) => conflicts.push((index, fault)),
                    None => standing.push(index),
                }
            }
            let mut good = Vec::new();
            for &index in &standing {
                match self.first_conflict(index, &standing) {
                    Some(fault) => conflicts.push((index, fault)),
                    None => good.push(index),
                }
            }
            for (index, fault) in conflicts {
                self.listeners[index].conflicted = Some(fault);
            }
            held.append(&mut good);
        }
    }

    fn first_conflict(&self, index: usize, others: &[usize]) -> Option<Fault> {
        others
            .iter()
            .filter(|other| **other != index)
            .find_map(|other| conflict(&self.listeners[index], &self.listeners[*other]))
    }
}

fn accepted(
    builder: &Builder<'_>,
    object: &Gateway,
    class: &Result<Arc<Addresses>, Fault>,
) -> Result<Arc<Addresses>, Fault> {
    if let Err(why) = class {
        let name = &object.spec.gateway_class_name;
        return Err(fault(
            PENDING,
            format!("GatewayClass {name} is not accepted: {}", why.message),
            "repair the GatewayClass",
        ));
    }
    let infrastructure = object.spec.infrastructure.as_ref();
    let Some(reference) = infrastructure.and_then(|i| i.parameters_ref.as_ref()) else {
        return class.clone();
    };
    if !parameters::is_known(&reference.group, &reference.kind) {
        return Err(fault(
            "InvalidParameters",
            format!(
                "infrastructure.parametersRef names kind {} of group {:?}, which this version does not know",
                reference.kind, reference.group
            ),
            "name a GatewayParameters of group pierhead.dev, or remove spec.infrastructure.parametersRef",
        ));
    }
    let namespace = world::namespace(&object.metadata);
    builder.parameters(namespace, &reference.name).map_err(|why| {
        fault(
            "InvalidParameters",
            format!("infrastructure.parametersRef: {why}"),
            "create or repair the GatewayParameters",
        )
    })
}

/// What the parameters of a Gateway, or of its class, say about clients.
fn client_address(builder: &Builder<'_>, object: &Gateway) -> ClientAddress {
    let infrastructure = object.spec.infrastructure.as_ref();
    if let Some(own) = infrastructure.and_then(|i| i.parameters_ref.as_ref()) {
        return builder.client_address(world::namespace(&object.metadata), &own.name);
    }
    let class = builder.world.gateway_classes.get("", &object.spec.gateway_class_name);
    let reference = class.and_then(|class| class.spec.parameters_ref.as_ref());
    match reference {
        Some(reference) if parameters::is_known(&reference.group, &reference.kind) => {
            builder.client_address(reference.namespace.as_deref().unwrap_or_default(), &reference.name)
        }
        _ => ClientAddress::default(),
    }
}

fn allowed(builder: &Builder<'_>, gateway: &GatewayState<'_>, namespace: &str) -> Verdict {
    let AllowedListeners { namespaces } = gateway.object.spec.allowed_listeners.clone().unwrap_or_default();
    let owner = &gateway.origin.namespace;
    if !grant::selects(
        builder.world,
        &namespaces.from,
        namespaces.selector.as_ref(),
        owner,
        namespace,
    ) {
        return Err(fault(
            "NotAllowed",
            format!("{} lets no ListenerSet of namespace {namespace} in", gateway.origin),
            "set spec.allowedListeners of the Gateway",
        ));
    }
    gateway.accepted.as_ref().map(|_| ()).map_err(|why| {
        fault(
            "ParentNotAccepted",
            format!("{} is not accepted: {}", gateway.origin, why.message),
            "repair the Gateway",
        )
    })
}

fn listener<'w>(
    spec: &'w Listener,
    owner: Owner,
    gateway: usize,
    origin: &Origin,
    age: &Age,
    namespace: &'w str,
    index: usize,
) -> ListenerState<'w> {
    let (supported, mut accepted): (&[&str], Verdict) = match &spec.protocol {
        ProtocolType::Http | ProtocolType::Https => (&["HTTPRoute", "GRPCRoute"], Ok(())),
        ProtocolType::Tls => (&["TLSRoute"], Ok(())),
        ProtocolType::Tcp => (&["TCPRoute"], Ok(())),
        ProtocolType::Udp => (&["UDPRoute"], Ok(())),
        ProtocolType::Unknown(text) => (
            &[],
            Err(fault(
                "UnsupportedProtocol",
                format!("protocol {text} is not supported"),
                "use HTTP, HTTPS, TLS, TCP or UDP",
            )),
        ),
    };
    let (kinds, refs) = kinds(spec, supported);
    let named = matches!(
        spec.protocol,
        ProtocolType::Http | ProtocolType::Https | ProtocolType::Tls
    );
    let text = spec.hostname.as_deref().filter(|_| named).unwrap_or_default();
    let host = HostPattern::parse(text, WildcardDepth::Many).unwrap_or_else(|why| {
        accepted = Err(fault("UnsupportedValue", why.to_string(), "write a DNS name"));
        HostPattern::Any
    });
    accepted = accepted.and_then(|()| unsupported(spec));
    ListenerState {
        spec,
        owner,
        gateway,
        id: ListenerId {
            owner: origin.clone(),
            name: spec.name.as_str().into(),
        },
        namespace,
        age: age.clone(),
        field: format!("spec.listeners[{index}]"),
        host,
        kinds,
        accepted,
        conflicted: None,
        refs,
        usable: true,
        overlapping: None,
        tls: None,
        client_auth: None,
        filters: Vec::new(),
        attached: 0,
        sni_routes: Vec::new(),
        l4_routes: Vec::new(),
    }
}

/// What the schema allows and we cannot do.
fn unsupported(spec: &Listener) -> Verdict {
    listener_filter::check(spec)?;
    let mode = spec.tls.as_ref().map(|tls| &tls.mode);
    match (&spec.protocol, mode) {
        (ProtocolType::Https, Some(TLSModeType::Terminate) | None) => Ok(()),
        (ProtocolType::Https, Some(mode)) => Err(fault(
            "UnsupportedValue",
            format!("tls.mode {mode} is not possible with protocol HTTPS"),
            "use mode Terminate, or protocol TLS",
        )),
        (ProtocolType::Tls, None) => Err(fault(
            "UnsupportedValue",
            "protocol TLS needs tls.mode",
            "set tls.mode to Terminate or Passthrough",
        )),
        (ProtocolType::Tls, Some(TLSModeType::Unknown(mode))) => Err(fault(
            "UnsupportedValue",
            format!("tls.mode {mode} is not supported"),
            "use Terminate or Passthrough",
        )),
        _ => Ok(()),
    }
}

/// The kinds a listener takes, and whether it asked for one it cannot (`InvalidRouteKinds`).
fn kinds(spec: &Listener, supported: &[&str]) -> (Vec<RouteGroupKind>, Verdict) {
    let all = supported.iter().map(|kind| RouteGroupKind {
        group: GROUP.to_owned(),
        kind: (*kind).to_owned(),
    });
    let asked = &spec.allowed_routes.kinds;
    if asked.is_empty() || supported.is_empty() {
        return (all.collect(), Ok(()));
    }
    let (good, bad): (Vec<_>, Vec<_>) = asked
        .iter()
        .cloned()
        .partition(|kind| kind.group == GROUP && supported.contains(&kind.kind.as_str()));
    let verdict = match bad.first() {
        None => Ok(()),
        Some(kind) => Err(fault(
            "InvalidRouteKinds",
            format!(
                "protocol {} takes no kind {} of group {:?}",
                spec.protocol, kind.kind, kind.group
            ),
            "list kinds that the protocol takes in allowedRoutes.kinds",
        )),
    };
    (good, verdict)
}

/// Why `a` and `b` are not distinct (`Gateway.spec.listeners`, "Distinct Listeners"). HTTP shares its port with HTTP,
/// HTTPS with HTTPS and TLS, each by hostname; TCP and UDP share theirs with nobody.
fn conflict(a: &ListenerState<'_>, b: &ListenerState<'_>) -> Option<Fault> {
    let (family, other) = (a.family()?, b.family()?);
    if a.spec.port != b.spec.port || (family == Family::Udp) != (other == Family::Udp) {
        return None;
    }
    let port = a.spec.port;
    if family != other || matches!(family, Family::Tcp | Family::Udp) {
        return Some(fault(
            "ProtocolConflict",
            format!(
                "port {port} is also asked for by {}, protocol {}",
                b.id, b.spec.protocol
            ),
            "give each its own port",
        ));
    }
    (a.host == b.host).then(|| {
        fault(
            "HostnameConflict",
            format!("port {port} with hostname {} is also asked for by {}", a.host, b.id),
            "give each its own hostname or port",
        )
    })
}

impl GatewayState<'_> {
    pub(super) fn name(&self) -> ObjectName {
        ObjectName::of(&self.object.metadata)
    }
}
