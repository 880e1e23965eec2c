//! Who listens where, when several owners want one address and port.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use pierhead_model::{
    Age, Bind, BindAddress, BindKey, HostPattern, Listener, ListenerId, ListenerKind, Origin, Problem, Severity,
};

/// One owner's wish to listen on an address and port.
#[derive(Clone, Debug)]
pub struct Claim {
    pub key: BindKey,
    pub listener: Arc<Listener>,
    /// Of the owner: decides where the whole listener is contested.
    pub age: Age,
    /// Of each of `listener.hosts`, in their order: decides where a host is contested. A Gateway's are its own age; the
    /// Ingress controller's are those of the oldest Ingress that names the host.
    pub host_ages: Vec<Age>,
}

impl Claim {
    /// All hosts are as old as the owner.
    pub fn new(key: BindKey, listener: Arc<Listener>, age: Age) -> Self {
        let host_ages = vec![age.clone(); listener.hosts.len()];
        Self {
            key,
            listener,
            age,
            host_ages,
        }
    }
}

/// Why a listener, or some of its hosts, are not served on a bind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: RefusalReason,
    /// Whoever has it.
    pub holder: ListenerId,
    /// What was refused: all hosts of the listener, or some.
    pub hosts: Vec<HostPattern>,
    /// Nothing of the listener is served on this bind.
    pub entire: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusalReason {
    /// The port carries another family of protocols, or one TCP or UDP listener has all of it.
    Protocol,
    /// The host name belongs to somebody else.
    Hostname,
}

/// Refusals by listener and bind; absent means granted.
pub type Refused = BTreeMap<(ListenerId, BindKey), Vec<Refusal>>;

/// What came of all claims.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    pub(crate) binds: BTreeMap<BindKey, Arc<Bind>>,
    pub(crate) refused: Refused,
    pub(crate) problems: Vec<Problem>,
}

/// What can share one address and port.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Cleartext,
    Tls,
    /// Tcp and Udp share with nobody.
    Sole,
}

fn family(kind: &ListenerKind) -> Family {
    match kind {
        ListenerKind::Http(_) => Family::Cleartext,
        ListenerKind::Https { .. } | ListenerKind::TlsPassthrough { .. } | ListenerKind::TlsTerminate { .. } => {
            Family::Tls
        }
        ListenerKind::Tcp { .. } | ListenerKind::Udp { .. } => Family::Sole,
    }
}

/// Whether two patterns claim the same hosts. The depth of a wildcard is no difference: with equal suffixes neither is the
/// more specific one, so a listener could not be chosen.
fn same_hosts(a: &HostPattern, b: &HostPattern) -> bool {
    match (a, b) {
        (HostPattern::Wildcard { suffix: a, .. }, HostPattern::Wildcard { suffix: b, .. }) => a == b,
        _ => a == b,
    }
}

/// Grants what does not contradict; of what does, the oldest has it (then `namespace/name`, then the listener's name).
///
/// A bind on one address beats the bind on every address of the same port: packets find the former. Where that address is
/// one of the machine's, the latter's listeners are put there too as far as they fit, so that a Gateway that names the
/// machine's address does not take that address from everybody else.
pub(crate) fn settle(mut claims: Vec<Claim>, machine: &[IpAddr]) -> Settled {
    claims.sort_by(|a, b| (&a.key, &a.age, &a.listener.id).cmp(&(&b.key, &b.age, &b.listener.id)));
    let mut settled = Settled::default();
    for contenders in claims.chunk_by(|a, b| a.key == b.key) {
        settle_one(contenders, &mut settled);
    }
    share_machine_addresses(&mut settled, machine);
    settled
}

/// Claims of one key, oldest first.
fn settle_one(claims: &[Claim], settled: &mut Settled) {
    let first = &claims[0];
    let key = first.key;
    let chosen = family(&first.listener.kind);
    let mut admitted = Vec::new();
    for (index, claim) in claims.iter().enumerate() {
        if index == 0 || (family(&claim.listener.kind) == chosen && chosen != Family::Sole) {
            admitted.push(claim);
        } else {
            let refusal = Refusal {
                reason: RefusalReason::Protocol,
                holder: first.listener.id.clone(),
                hosts: claim.listener.hosts.clone(),
                entire: true,
            };
            settled
                .refused
                .entry((claim.listener.id.clone(), key))
                .or_default()
                .push(refusal);
        }
    }

    let mut wishes: Vec<(&HostPattern, &Age, &Claim)> = admitted
        .iter()
        .flat_map(|claim| {
            claim
                .listener
                .hosts
                .iter()
                .zip(&claim.host_ages)
                .map(move |(host, age)| (host, age, *claim))
        })
        .collect();
    wishes.sort_by(|a, b| (a.1, &a.2.listener.id).cmp(&(b.1, &b.2.listener.id)));
    let mut holders: BTreeMap<HostClaim<'_>, &Claim> = BTreeMap::new();
    let mut lost: BTreeMap<(&ListenerId, &ListenerId), Vec<HostPattern>> = BTreeMap::new();
    for (host, _, claim) in wishes {
        let holder = *holders.entry(HostClaim::of(host)).or_insert(claim);
        if holder.listener.id != claim.listener.id {
            lost.entry((&claim.listener.id, &holder.listener.id))
                .or_default()
                .push(host.clone());
        }
    }

    let mut listeners = Vec::new();
    for claim in admitted {
        let id = &claim.listener.id;
        let refused: Vec<_> = lost.iter().filter(|((loser, _), _)| *loser == id).collect();
        let kept: Vec<HostPattern> = claim
            .listener
            .hosts
            .iter()
            .filter(|host| !refused.iter().any(|(_, hosts)| hosts.contains(host)))
            .cloned()
            .collect();
        for ((_, holder), hosts) in refused {
            settled.refused.entry((id.clone(), key)).or_default().push(Refusal {
                reason: RefusalReason::Hostname,
                holder: (*holder).clone(),
                hosts: hosts.clone(),
                entire: kept.is_empty(),
            });
        }
        if !kept.is_empty() {
            listeners.push(with_hosts(&claim.listener, kept));
        }
    }
    listeners.sort_by(|a, b| a.id.cmp(&b.id));
    if !listeners.is_empty() {
        settled.binds.insert(key, Arc::new(Bind { key, listeners }));
    }
}

/// A host pattern as the subject of a dispute: see [`same_hosts`].
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum HostClaim<'a> {
    Any,
    Wildcard(&'a str),
    Exact(&'a str),
}

impl<'a> HostClaim<'a> {
    fn of(host: &'a HostPattern) -> Self {
        match host {
            HostPattern::Any => Self::Any,
            HostPattern::Wildcard { suffix, .. } => Self::Wildcard(suffix.as_str()),
            HostPattern::Exact(name) => Self::Exact(name.as_str()),
        }
    }
}

fn with_hosts(listener: &Arc<Listener>, hosts: Vec<HostPattern>) -> Arc<Listener> {
    if listener.hosts == hosts {
        return Arc::clone(listener);
    }
    Arc::new(Listener {
        hosts,
        ..Listener::clone(listener)
    })
}

fn share_machine_addresses(settled: &mut Settled, machine: &[IpAddr]) {
    let specific: Vec<BindKey> = settled
        .binds
        .keys()
        .filter(|key| matches!(key.address, BindAddress::Ip(ip) if ip.is_loopback() || machine.contains(&ip)))
        .copied()
        .collect();
    for key in specific {
        let any = BindKey {
            address: BindAddress::Any,
            ..key
        };
        let (Some(general), Some(bind)) = (settled.binds.get(&any).cloned(), settled.binds.get_mut(&key)) else {
            continue;
        };
        let own = Arc::clone(bind);
        for listener in &general.listeners {
            if own.listeners.iter().any(|l| l.id == listener.id) {
                continue;
            }
            let fits = |l: &Arc<Listener>| family(&l.kind) == family(&listener.kind) && family(&l.kind) != Family::Sole;
            let kept: Vec<HostPattern> = if own.listeners.iter().all(fits) {
                let taken = |host: &&HostPattern| {
                    own.listeners
                        .iter()
                        .any(|l| l.hosts.iter().any(|h| same_hosts(h, host)))
                };
                listener.hosts.iter().filter(|host| !taken(host)).cloned().collect()
            } else {
                Vec::new()
            };
            if kept.len() < listener.hosts.len() {
                settled
                    .problems
                    .push(shadowed(&listener.id.owner, &listener.hosts, &kept, key, &own));
            }
            if !kept.is_empty() {
                Arc::make_mut(bind).listeners.push(with_hosts(listener, kept));
            }
        }
        Arc::make_mut(bind).listeners.sort_by(|a, b| a.id.cmp(&b.id));
    }
}

fn shadowed(owner: &Origin, wanted: &[HostPattern], kept: &[HostPattern], key: BindKey, bind: &Bind) -> Problem {
    let hosts: Vec<String> = wanted
        .iter()
        .filter(|h| !kept.contains(h))
        .map(ToString::to_string)
        .collect();
    let holders: Vec<String> = bind.listeners.iter().map(|l| l.id.to_string()).collect();
    Problem {
        origin: owner.clone(),
        field: String::new(),
        severity: Severity::Warning,
        message: format!(
            "not served on {key}, only on the machine's other addresses: host {} belongs to {}",
            hosts.join(", "),
            holders.join(", ")
        ),
        fix: "give one of the two another address, port or host name".to_owned(),
    }
}
