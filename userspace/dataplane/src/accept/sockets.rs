//! Opens the sockets connections and datagrams come in by.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use nix::sys::socket::{setsockopt, sockopt};
use pierhead_model::{BindAddress, BindKey, BindPort, Transport};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use crate::BindError;

/// Connections that wait to be accepted, per worker. The kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// The addresses to bind for `key`, or why none can be.
///
/// # Errors
/// [`BindError::NeedsSteering`] for prefixes and all ports.
pub(crate) fn addresses(key: BindKey) -> Result<Vec<SocketAddr>, BindError> {
    let BindPort::Port(port) = key.port else {
        return Err(BindError::NeedsSteering { bind: key });
    };
    match key.address {
        BindAddress::Any => Ok(vec![
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
        ]),
        BindAddress::Ip(ip) => Ok(vec![SocketAddr::new(ip.to_canonical(), port)]),
        BindAddress::Prefix(_) => Err(BindError::NeedsSteering { bind: key }),
    }
}

/// Opens one set of sockets per worker for `key`: a socket per address. With `exclusive` it first makes sure that no
/// other process has the port (`SO_REUSEPORT` would share it without a word).
///
/// # Errors
/// When a socket cannot be had; none is then open. A family the machine does not have is left out for `Any`.
pub(crate) fn open(key: BindKey, workers: usize, exclusive: bool) -> Result<Vec<Vec<Socket>>, BindError> {
    let mut sets: Vec<Vec<Socket>> = (0..workers).map(|_| Vec::new()).collect();
    let mut last = None;
    for address in addresses(key)? {
        let opened = (|| {
            if exclusive {
                bound(key.transport, address, false)?;
            }
            (0..workers)
                .map(|_| {
                    let socket = bound(key.transport, address, true)?;
                    finish(&socket, key.transport)?;
                    Ok(socket)
                })
                .collect::<io::Result<Vec<_>>>()
        })();
        match opened {
            Ok(sockets) => {
                for (set, socket) in sets.iter_mut().zip(sockets) {
                    set.push(socket);
                }
            }
            Err(error) if key.address == BindAddress::Any && is_family_missing(&error) => last = Some(error),
            Err(error) => return Err(explain(key, error)),
        }
    }
    match last {
        Some(error) if sets.iter().all(Vec::is_empty) => Err(explain(key, error)),
        _ => Ok(sets),
    }
}

/// Opens a socket for steered traffic, on the wildcard address of the family and a port of the kernel's choice; `None`
/// when the machine does not have the family.
///
/// # Errors
/// When it cannot be had for another reason.
pub(crate) fn steered(transport: Transport, v6: bool) -> io::Result<Option<Socket>> {
    let any = if v6 {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    } else {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    };
    let opened = bound(transport, SocketAddr::new(any, 0), false).and_then(|socket| {
        finish(&socket, transport)?;
        Ok(socket)
    });
    match opened {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if is_family_missing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A socket that answers datagrams in the name of `from`, which is no address it was bound to before: UDP replies of
/// steered flows.
///
/// # Errors
/// When the address cannot be bound.
pub(crate) fn replying(from: SocketAddr) -> io::Result<Socket> {
    let socket = new(Transport::Udp, from)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    match from {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => socket.set_freebind_v6(true)?,
    }
    socket.bind(&from.into())?;
    // It only sends: what the kernel may deliver to it is not kept.
    let _ = socket.set_recv_buffer_size(0);
    Ok(socket)
}

fn new(transport: Transport, address: SocketAddr) -> io::Result<Socket> {
    let domain = Domain::for_address(address);
    let socket = match transport {
        Transport::Tcp => Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?,
        Transport::Udp => Socket::new(domain, Type::DGRAM.nonblocking(), Some(Protocol::UDP))?,
    };
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

fn bound(transport: Transport, address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = new(transport, address)?;
    if transport == Transport::Tcp {
        // Old connections in TIME_WAIT do not keep the port.
        socket.set_reuse_address(true)?;
    }
    if shared {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        // A local route is enough for IPv4; for IPv6 only an address of an interface would be.
        socket.set_freebind_v6(true)?;
    }
    socket.bind(&address.into())?;
    if !shared && transport == Transport::Tcp && address.port() != 0 {
        // Two sockets with SO_REUSEADDR may be bound at once; only one may listen.
        socket.listen(1)?;
    }
    Ok(socket)
}

fn finish(socket: &Socket, transport: Transport) -> io::Result<()> {
    match transport {
        Transport::Tcp => socket.listen(BACKLOG),
        Transport::Udp => {
            // Each datagram says where it was sent to: the bind of steered ones, the source address of the answer.
            let v6 = socket.domain()? == Domain::IPV6;
            if v6 {
                setsockopt(socket, sockopt::Ipv6OrigDstAddr, &true)?;
            } else {
                setsockopt(socket, sockopt::Ipv4OrigDstAddr, &true)?;
            }
            let _ = socket.set_recv_buffer_size(1 << 20);
            Ok(())
        }
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

fn is_family_missing(error: &io::Error) -> bool {
    is(error, Errno::AFNOSUPPORT) || is(error, Errno::ADDRNOTAVAIL)
}

fn explain(bind: BindKey, error: io::Error) -> BindError {
    if is(&error, Errno::ADDRINUSE) {
        BindError::InUse { bind }
    } else if is(&error, Errno::ACCESS) || is(&error, Errno::PERM) {
        BindError::Forbidden { bind }
    } else if is(&error, Errno::ADDRNOTAVAIL) {
        BindError::NotLocal { bind }
    } else {
        BindError::Other { bind, source: error }
    }
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, time::Duration};

    use super::*;

    #[test]
    fn answers_of_steered_flows_leave_from_the_address_that_was_asked() {
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let asked = UdpSocket::bind("127.77.0.1:0").unwrap().local_addr().unwrap();
        // Several sessions answer from one address at once.
        for socket in [replying(asked).unwrap(), replying(asked).unwrap()] {
            socket.send_to(b"answer", &client.local_addr().unwrap().into()).unwrap();
            let mut buffer = [0; 16];
            assert_eq!(client.recv_from(&mut buffer).unwrap(), (6, asked));
        }
    }

    #[test]
    fn steered_sockets_listen_on_the_wildcard_address_and_some_port() {
        for transport in [Transport::Tcp, Transport::Udp] {
            let socket = steered(transport, false).unwrap().unwrap();
            let address = socket.local_addr().unwrap().as_socket().unwrap();
            assert!(address.ip().is_unspecified() && address.port() != 0);
        }
    }
}
