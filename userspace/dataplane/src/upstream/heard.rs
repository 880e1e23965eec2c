//! Whether the other side of a connection still acknowledges what it is sent.

use nix::sys::socket::{getsockopt, sockopt::GetStruct};
use tokio::net::TcpStream;

/// Times that the oldest segment was sent again without anything coming back: 1.4 s at least after it was first sent (RFC 6298
/// with Linux' least time-out of 0.2 s), and longer on a longer way.
const UNHEARD: u8 = 3;

#[derive(Clone, Copy)]
struct TcpInfo;

nix::getsockopt_impl!(
    TcpInfo,
    libc::IPPROTO_TCP,
    libc::TCP_INFO,
    libc::tcp_info,
    GetStruct<libc::tcp_info>
);

/// Whether what was sent is not acknowledged although it was sent again and again: the machine is off, or the way to it is cut.
/// A receiver that only has no room left is heard.
pub(super) fn is_unheard(stream: &TcpStream) -> bool {
    getsockopt(stream, TcpInfo).is_ok_and(|info| info.tcpi_unacked > 0 && info.tcpi_retransmits >= UNHEARD)
}
