use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsFd, AsRawFd},
};

use nix::{
    cmsg_space,
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage, recvmsg, sendmsg,
    },
};

/// What came with a datagram.
#[derive(Clone, Copy, Debug)]
pub(super) struct Datagram {
    pub(super) length: usize,
    pub(super) peer: Option<SocketAddr>,
    /// Where the client sent it to, port included (`IP_RECVORIGDSTADDR`).
    pub(super) local: Option<SocketAddr>,
}

/// Receives one datagram into `buffer`.
///
/// # Errors
/// As recvmsg(2); `WouldBlock` when there is none.
pub(super) fn receive(socket: &impl AsRawFd, buffer: &mut [u8]) -> io::Result<Datagram> {
    let mut parts = [IoSliceMut::new(buffer)];
    // Room for one of them: a socket has one family.
    let mut space = cmsg_space!(libc::sockaddr_in6);
    let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_DONTWAIT)?;
    let local = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::Ipv4OrigDstAddr(address) => Some(SocketAddr::V4(SockaddrIn::from(address).into())),
        ControlMessageOwned::Ipv6OrigDstAddr(address) => Some(SocketAddr::V6(SockaddrIn6::from(address).into())),
        _ => None,
    });
    let peer = message.address.as_ref().and_then(|address| {
        let v4 = address.as_sockaddr_in().map(|a| SocketAddr::V4(SocketAddrV4::from(*a)));
        v4.or_else(|| {
            address
                .as_sockaddr_in6()
                .map(|a| SocketAddr::V6(SocketAddrV6::from(*a)))
        })
    });
    Ok(Datagram {
        length: message.bytes,
        peer,
        local,
    })
}

/// Sends `bytes` from the address `from` of `socket` to `to`. The port is the socket's.
///
/// # Errors
/// As sendmsg(2); `WouldBlock` when there is no room.
pub(super) fn answer(socket: &impl AsFd, bytes: &[u8], from: SocketAddr, to: SocketAddr) -> io::Result<usize> {
    let parts = [IoSlice::new(bytes)];
    let fd = socket.as_fd().as_raw_fd();
    let to = SockaddrStorage::from(to);
    let flags = MsgFlags::MSG_DONTWAIT;
    let sent = match from {
        SocketAddr::V4(from) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr {
                    s_addr: u32::from_ne_bytes(from.ip().octets()),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            sendmsg(fd, &parts, &[ControlMessage::Ipv4PacketInfo(&info)], flags, Some(&to))
        }
        SocketAddr::V6(from) => {
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr {
                    s6_addr: from.ip().octets(),
                },
                ipi6_ifindex: from.scope_id(),
            };
            sendmsg(fd, &parts, &[ControlMessage::Ipv6PacketInfo(&info)], flags, Some(&to))
        }
    };
    Ok(sent?)
}
