//! Facts of this machine: who runs us, and by which addresses it is reached.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pierhead_model::Snapshot;

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A name for this process that no other has: that of the machine (in a pod the pod's), and something random.
pub(crate) fn identity() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{host}-{:08x}", RandomState::new().hash_one(std::process::id()) >> 32)
}

/// The addresses of this network namespace that others can reach, IPv4 first: neither loopback nor link-local.
pub(crate) fn addresses() -> Vec<IpAddr> {
    // Absent where /proc is hidden; then status shows no addresses, and nothing else changes.
    let trie = fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let inet6 = fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    let mut all: Vec<IpAddr> = local_v4(&trie).into_iter().map(IpAddr::from).collect();
    all.extend(local_v6(&inet6).into_iter().map(IpAddr::from));
    all.dedup();
    all
}

/// The same without those that Gateways own: they are here because of us.
pub(crate) fn own_addresses(snapshot: &Snapshot) -> Vec<IpAddr> {
    let mut all = addresses();
    all.retain(|address| !snapshot.owned.keys().any(|prefix| prefix.0.contains(address)));
    all
}

/// Local host entries of the routing trie: `|-- 192.0.2.1` followed by `/32 host LOCAL`.
fn local_v4(trie: &str) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    let mut last = None;
    for line in trie.lines() {
        let line = line.trim();
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse().ok();
        } else if line == "/32 host LOCAL"
            && let Some(address) =
                last.take_if(|address: &mut Ipv4Addr| !address.is_loopback() && !address.is_link_local())
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found.sort();
    found
}

/// `32 hex digits, index, prefix length, scope, flags, name`.
fn local_v6(table: &str) -> Vec<Ipv6Addr> {
    let mut found: Vec<Ipv6Addr> = table
        .lines()
        .filter_map(|line| u128::from_str_radix(line.split_whitespace().next()?, 16).ok())
        .map(Ipv6Addr::from_bits)
        .filter(|address| !address.is_loopback() && !address.is_unicast_link_local())
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_link_local_broadcast_and_networks_are_left_out() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\nLocal:\n\
            |-- 127.0.0.1\n   /32 host LOCAL\n  |-- 192.0.2.7\n     /32 host LOCAL\n  |-- 192.0.2.255\n   /32 link BROADCAST\n\
            |-- 169.254.1.1\n   /32 host LOCAL\n";
        assert_eq!(local_v4(trie), [Ipv4Addr::new(192, 0, 2, 7)]);
        let inet6 = "00000000000000000000000000000001 01 80 10 80       lo\n\
            fe80000000000000021122fffe334455 02 40 20 80     eth0\n\
            20010db8000000000000000000000001 02 40 00 80     eth0\n";
        assert_eq!(local_v6(inet6), ["2001:db8::1".parse::<Ipv6Addr>().unwrap()]);
    }
}
