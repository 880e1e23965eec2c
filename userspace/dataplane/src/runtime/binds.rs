use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use foldhash::fast::RandomState;
use ipnet::IpNet;
use pierhead_model::{BindAddress, BindKey, BindPort, Transport};

use super::BindRuntime;

/// Finds the bind of a connection by where it was addressed to: the longest prefix wins, and among equal prefixes the
/// port before all ports. An address is a prefix of full length, `Any` one of length zero.
#[derive(Debug, Default)]
pub(crate) struct BindTable {
    by_prefix: HashMap<(Transport, IpNet, BindPort), Arc<BindRuntime>, RandomState>,
    /// The prefix lengths there are, longest first: few, so a lookup is few hashes whatever the number of binds.
    lengths4: Vec<u8>,
    lengths6: Vec<u8>,
}

impl BindTable {
    pub(crate) fn insert(&mut self, bind: &Arc<BindRuntime>) {
        for net in nets(bind.model.key.address) {
            let lengths = match net {
                IpNet::V4(_) => &mut self.lengths4,
                IpNet::V6(_) => &mut self.lengths6,
            };
            if let Err(at) = lengths.binary_search_by(|length| net.prefix_len().cmp(length)) {
                lengths.insert(at, net.prefix_len());
            }
            let key = (bind.model.key.transport, net, bind.model.key.port);
            self.by_prefix.insert(key, Arc::clone(bind));
        }
    }

    /// The bind that `address` and `port` belong to. `address` is canonical (no v4-mapped IPv6).
    pub(crate) fn find(&self, transport: Transport, address: IpAddr, port: u16) -> Option<&Arc<BindRuntime>> {
        let lengths = match address {
            IpAddr::V4(_) => &self.lengths4,
            IpAddr::V6(_) => &self.lengths6,
        };
        lengths.iter().find_map(|length| {
            let net = IpNet::new(address, *length).ok()?.trunc();
            let at = |port| self.by_prefix.get(&(transport, net, port));
            at(BindPort::Port(port)).or_else(|| at(BindPort::All))
        })
    }

    /// The bind of exactly this key.
    pub(crate) fn get(&self, key: BindKey) -> Option<&Arc<BindRuntime>> {
        let net = nets(key.address).next()?;
        self.by_prefix.get(&(key.transport, net, key.port))
    }
}

fn nets(address: BindAddress) -> impl Iterator<Item = IpNet> {
    let (first, second) = match address {
        BindAddress::Any => (
            IpNet::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0).ok(),
            IpNet::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0).ok(),
        ),
        BindAddress::Ip(ip) => (Some(IpNet::from(ip.to_canonical())), None),
        BindAddress::Prefix(net) => (Some(net.trunc()), None),
    };
    first.into_iter().chain(second)
}

#[cfg(test)]
mod tests {
    use pierhead_model::Bind;

    use super::*;

    fn table(binds: &[(BindAddress, BindPort)]) -> BindTable {
        let mut table = BindTable::default();
        for (address, port) in binds {
            let key = BindKey {
                transport: Transport::Tcp,
                address: *address,
                port: *port,
            };
            table.insert(&Arc::new(BindRuntime::without_listeners(Arc::new(Bind {
                key,
                listeners: Vec::new(),
            }))));
        }
        table
    }

    fn found(table: &BindTable, address: &str, port: u16) -> Option<String> {
        table
            .find(Transport::Tcp, address.parse().unwrap(), port)
            .map(|bind| bind.model.key.to_string())
    }

    #[test]
    fn the_longest_prefix_wins_then_the_port_before_all_ports() {
        let ip = |text: &str| BindAddress::Ip(text.parse().unwrap());
        let net = |text: &str| BindAddress::Prefix(text.parse().unwrap());
        let table = table(&[
            (BindAddress::Any, BindPort::Port(80)),
            (BindAddress::Any, BindPort::All),
            (net("10.0.0.0/8"), BindPort::Port(80)),
            (net("10.1.0.0/16"), BindPort::All),
            (net("2001:db8::/32"), BindPort::Port(80)),
            (ip("10.1.2.3"), BindPort::Port(80)),
            (ip("2001:db8::1"), BindPort::Port(80)),
        ]);
        for (address, port, expected) in [
            ("10.1.2.3", 80, "tcp 10.1.2.3:80"),
            ("10.1.2.4", 80, "tcp 10.1.0.0/16:*"),
            ("10.1.2.3", 81, "tcp 10.1.0.0/16:*"),
            ("10.2.0.1", 80, "tcp 10.0.0.0/8:80"),
            ("10.2.0.1", 81, "tcp *:*"),
            ("192.0.2.1", 80, "tcp *:80"),
            ("2001:db8::1", 80, "tcp [2001:db8::1]:80"),
            ("2001:db8::2", 80, "tcp 2001:db8::/32:80"),
            ("::1", 80, "tcp *:80"),
        ] {
            assert_eq!(
                found(&table, address, port).as_deref(),
                Some(expected),
                "{address} {port}"
            );
        }
    }

    #[test]
    fn other_transports_and_ports_find_nothing() {
        let table = table(&[(BindAddress::Any, BindPort::Port(80))]);
        assert_eq!(found(&table, "10.0.0.1", 81), None);
        assert!(table.find(Transport::Udp, "10.0.0.1".parse().unwrap(), 80).is_none());
    }
}
