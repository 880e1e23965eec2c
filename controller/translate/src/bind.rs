//! Who listens where, when several owners want one address and port.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use pierhead_model::{
    Age, Bind, BindAddress, BindKey, BindPort, HostPattern, Listener, ListenerId, ListenerKind, Origin, Problem,
    Severity, Transport,
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

/// What one listener was refused, by bind.
pub(crate) fn refusals<'a>(
    refused: &'a Refused,
    listener: &ListenerId,
) -> impl Iterator<Item = (BindKey, &'a Refusal)> {
    let first = BindKey {
        transport: Transport::Tcp,
        address: BindAddress::Any,
        port: BindPort::Port(0),
    };
    refused
        .range((listener.clone(), first)..)
        .take_while(move |((id, _), _)| id == listener)
        .flat_map(|((_, key), refusals)| refusals.iter().map(|refusal| (*key, refusal)))
}

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
            let hosts = claim.listener.hosts.iter().zip(&claim.host_ages);
            hosts.map(move |(host, age)| (host, age, *claim))
        })
        .collect();
    wishes.sort_by(|a, b| (a.1, &a.2.listener.id).cmp(&(b.1, &b.2.listener.id)));
    let mut holders: BTreeMap<HostClaim<'_>, &Claim> = BTreeMap::new();
    let mut lost: BTreeMap<&ListenerId, Lost<'_>> = BTreeMap::new();
    for (host, _, claim) in wishes {
        let holder = *holders.entry(HostClaim::of(host)).or_insert(claim);
        if holder.listener.id != claim.listener.id {
            let lost = lost.entry(&claim.listener.id).or_default();
            lost.hosts.insert(host);
            lost.to.entry(&holder.listener.id).or_default().push(host.clone());
        }
    }

    let mut listeners = Vec::new();
    for claim in admitted {
        let Some(lost) = lost.remove(&claim.listener.id) else {
            listeners.push(Arc::clone(&claim.listener));
            continue;
        };
        let hosts = claim.listener.hosts.iter();
        let kept: Vec<HostPattern> = hosts.filter(|host| !lost.hosts.contains(host)).cloned().collect();
        let refusals = lost.to.into_iter().map(|(holder, hosts)| Refusal {
            reason: RefusalReason::Hostname,
            holder: holder.clone(),
            hosts,
            entire: kept.is_empty(),
        });
        settled
            .refused
            .entry((claim.listener.id.clone(), key))
            .or_default()
            .extend(refusals);
        if !kept.is_empty() {
            listeners.push(with_hosts(&claim.listener, kept));
        }
    }
    listeners.sort_by(|a, b| a.id.cmp(&b.id));
    if !listeners.is_empty() {
        settled.binds.insert(key, Arc::new(Bind { key, listeners }));
    }
}

/// The hosts of one listener that others have.
#[derive(Default)]
struct Lost<'a> {
    hosts: BTreeSet<&'a HostPattern>,
    to: BTreeMap<&'a ListenerId, Vec<HostPattern>>,
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

#[cfg(test)]
mod tests {
    use pierhead_model::{HostSelection, HttpOptions, Limits, WildcardDepth};

    use super::*;

    fn http() -> ListenerKind {
        ListenerKind::Http(HttpOptions {
            host_selection: HostSelection::FallThrough,
            detect_misdirected: false,
            filters: Vec::new(),
        })
    }

    fn key(address: &str) -> BindKey {
        BindKey {
            transport: Transport::Tcp,
            address: address.parse().map_or(BindAddress::Any, BindAddress::Ip),
            port: BindPort::Port(80),
        }
    }

    /// `created` of the owner is that of its hosts too. Wildcards are as in `depth`.
    fn claim(
        address: &str,
        name: &str,
        created: i64,
        kind: ListenerKind,
        hosts: &[&str],
        depth: WildcardDepth,
    ) -> Claim {
        let id = ListenerId {
            owner: Origin::new("Gateway", "ns", name),
            name: "web".into(),
        };
        let listener = Listener {
            id,
            hosts: hosts
                .iter()
                .map(|host| HostPattern::parse(host, depth).unwrap())
                .collect(),
            port: 80,
            kind,
            limits: Limits::default(),
            client_address: pierhead_model::ClientAddress::default(),
        };
        let age = Age {
            created,
            namespace: "ns".into(),
            name: name.into(),
        };
        Claim::new(key(address), listener.into(), age)
    }

    fn web(address: &str, name: &str, created: i64, hosts: &[&str]) -> Claim {
        claim(address, name, created, http(), hosts, WildcardDepth::Many)
    }

    fn tcp(address: &str, name: &str, created: i64) -> Claim {
        claim(
            address,
            name,
            created,
            ListenerKind::Tcp { route: None },
            &[""],
            WildcardDepth::Many,
        )
    }

    /// `bind: owner host host, owner host; …` and `owner reason entire: hosts; …`.
    fn show(settled: &Settled) -> (String, String) {
        let hosts = |hosts: &[HostPattern]| hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let binds: Vec<String> = settled
            .binds
            .iter()
            .map(|(key, bind)| {
                let listeners: Vec<String> = bind
                    .listeners
                    .iter()
                    .map(|l| format!("{} {}", l.id.owner.name, hosts(&l.hosts)))
                    .collect();
                format!("{key}: {}", listeners.join(", "))
            })
            .collect();
        let refused: Vec<String> = settled
            .refused
            .iter()
            .flat_map(|((id, _), refusals)| refusals.iter().map(move |r| (id, r)))
            .map(|(id, r)| {
                let entire = if r.entire { "entirely" } else { "partly" };
                format!(
                    "{} {:?} {entire} by {}: {}",
                    id.owner.name,
                    r.reason,
                    r.holder.owner.name,
                    hosts(&r.hosts)
                )
            })
            .collect();
        (binds.join("; "), refused.join("; "))
    }

    fn check(claims: Vec<Claim>, machine: &[&str], binds: &str, refused: &str) {
        let machine: Vec<IpAddr> = machine.iter().map(|ip| ip.parse().unwrap()).collect();
        let mut reversed = claims.clone();
        reversed.reverse();
        for order in [claims, reversed] {
            assert_eq!(show(&settle(order, &machine)), (binds.to_owned(), refused.to_owned()));
        }
    }

    #[test]
    fn owners_share_a_port_where_their_hosts_differ() {
        let claims = vec![
            web("*", "a", 1, &["x.test"]),
            web("*", "b", 2, &["y.test", "*.x.test"]),
            web("*", "c", 3, &[""]),
        ];
        check(claims, &[], "tcp *:80: a x.test, b y.test *.x.test, c *", "");
    }

    #[test]
    fn a_host_belongs_to_the_oldest_and_the_younger_keeps_its_others() {
        let claims = vec![
            web("*", "young", 2, &["x.test", "y.test"]),
            web("*", "old", 1, &["x.test"]),
        ];
        check(
            claims,
            &[],
            "tcp *:80: old x.test, young y.test",
            "young Hostname partly by old: x.test",
        );
        let claims = vec![web("*", "young", 2, &["x.test"]), web("*", "old", 1, &["x.test"])];
        check(
            claims,
            &[],
            "tcp *:80: old x.test",
            "young Hostname entirely by old: x.test",
        );
    }

    #[test]
    fn of_one_age_the_first_name_has_it() {
        let claims = vec![web("*", "b", 1, &["x.test"]), web("*", "a", 1, &["x.test"])];
        check(claims, &[], "tcp *:80: a x.test", "b Hostname entirely by a: x.test");
    }

    #[test]
    fn wildcards_of_both_apis_over_one_suffix_contend() {
        let many = web("*", "gateway", 1, &["*.x.test"]);
        let one = claim("*", "ingress", 2, http(), &["*.x.test"], WildcardDepth::One);
        check(
            vec![many, one],
            &[],
            "tcp *:80: gateway *.x.test",
            "ingress Hostname entirely by gateway: *.x.test",
        );
    }

    #[test]
    fn a_host_can_be_older_than_its_listener_is_young() {
        let mut ingress = web("*", "ingress", 1, &["old.test", "new.test"]);
        ingress.host_ages[1].created = 9;
        let gateway = web("*", "gateway", 5, &["old.test"]);
        let other = web("*", "other", 5, &["new.test"]);
        check(
            vec![ingress, gateway, other],
            &[],
            "tcp *:80: ingress old.test, other new.test",
            "gateway Hostname entirely by ingress: old.test; ingress Hostname partly by other: new.test",
        );
    }

    #[test]
    fn a_port_speaks_one_family_and_tcp_shares_with_nobody() {
        let claims = vec![
            tcp("*", "tcp", 2),
            web("*", "old", 1, &["x.test"]),
            web("*", "young", 3, &["y.test"]),
        ];
        check(
            claims,
            &[],
            "tcp *:80: old x.test, young y.test",
            "tcp Protocol entirely by old: *",
        );
        let claims = vec![tcp("*", "a", 1), tcp("*", "b", 2), web("*", "c", 3, &["x.test"])];
        check(
            claims,
            &[],
            "tcp *:80: a *",
            "b Protocol entirely by a: *; c Protocol entirely by a: x.test",
        );
    }

    #[test]
    fn a_dedicated_address_beats_every_address_and_keeps_the_others_out() {
        let claims = vec![
            web("10.1.0.1", "own", 2, &["x.test"]),
            web("*", "all", 1, &["x.test", "y.test"]),
        ];
        check(
            claims,
            &["192.0.2.10"],
            "tcp *:80: all x.test y.test; tcp 10.1.0.1:80: own x.test",
            "",
        );
    }

    #[test]
    fn on_the_machines_own_address_those_who_fit_share_and_the_others_are_warned() {
        let claims = vec![
            web("192.0.2.10", "own", 2, &["x.test"]),
            web("*", "all", 1, &["x.test", "y.test"]),
        ];
        let binds = "tcp *:80: all x.test y.test; tcp 192.0.2.10:80: all y.test, own x.test";
        check(claims.clone(), &["192.0.2.10"], binds, "");
        let settled = settle(claims, &["192.0.2.10".parse().unwrap()]);
        assert_eq!(settled.problems.len(), 1);
        assert!(
            settled.problems[0]
                .to_string()
                .contains("not served on tcp 192.0.2.10:80"),
            "{}",
            settled.problems[0]
        );

        let claims = vec![tcp("127.0.0.1", "own", 2), web("*", "all", 1, &["x.test"])];
        check(claims, &[], "tcp *:80: all x.test; tcp 127.0.0.1:80: own *", "");
    }
}
