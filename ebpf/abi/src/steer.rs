//! Steering: which socket answers for an address and port.

use crate::addr::{Addr, Port};
use crate::layout::{MAX_WORKERS, SOCKETS_PER_WORKER};
use crate::plain::plain;

plain! {
    /// Data part of a binding's LPM key. The protocol and the port come first and are always matched whole; the
    /// prefix is one of the address.
    pub struct BindingKey: 20 {
        /// IP protocol in the second byte; two bytes keep the address aligned.
        pub protocol: [u8; 2],
        /// Wire order; 0 for all ports.
        pub port: u16,
        /// Wire order, IPv4 mapped.
        pub addr: [u32; 4],
    }
}

/// Bits of a [`BindingKey`] before the address.
pub const BINDING_FIXED_BITS: u32 = 32;

impl BindingKey {
    #[inline(always)]
    pub const fn new(protocol: u8, port: Port, addr: Addr) -> Self {
        Self {
            protocol: [0, protocol],
            port: port.0,
            addr: addr.0,
        }
    }

    /// LPM prefix length for `addr_bits` bits of the 16-byte address (an IPv4 prefix counts its 96 mapped bits too).
    #[inline(always)]
    pub const fn prefix_len(addr_bits: u32) -> u32 {
        BINDING_FIXED_BITS + addr_bits
    }
}

/// What a binding does: [`Binding::action`].
pub mod action {
    /// No binding. Never stored.
    pub const NONE: u8 = 0;
    /// To a worker's socket.
    pub const STEER: u8 = 1;
    /// Leave it to ordinary sockets: an exception inside a wider binding.
    pub const PASS: u8 = 2;
}

/// What happens when no worker's socket answers, or an owned address has no binding.
pub mod on_miss {
    /// Ordinary socket lookup goes on.
    pub const PASS: u8 = 0;
    /// Refused: TCP reset, ICMP port unreachable.
    pub const REFUSE: u8 = 1;
}

plain! {
    /// Value of a binding.
    pub struct Binding: 4 {
        /// Bits of the address that this binding fixes, to choose between an exact port and all ports.
        pub addr_bits: u8,
        pub action: u8,
        /// When no worker is there.
        pub on_miss: u8,
        pub reserved: u8,
    }
}

plain! {
    /// Value of an owned prefix; its key is the 16-byte address.
    pub struct Owned: 4 {
        pub on_miss: u8,
        pub reserved: [u8; 3],
    }
}

/// Which of a worker's four sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketKind {
    Tcp4 = 0,
    Tcp6 = 1,
    Udp4 = 2,
    Udp6 = 3,
}

/// Index into `SOCKETS`. Generation and worker beyond their limits wrap: a caller bounds them first.
#[inline(always)]
pub const fn socket_index(generation: u32, worker: u32, kind: SocketKind) -> u32 {
    ((generation & 1) * MAX_WORKERS as u32 + worker % MAX_WORKERS as u32) * SOCKETS_PER_WORKER as u32 + kind as u32
}

/// Index into `LOADS`. Generation and worker beyond their limits wrap, as above.
#[inline(always)]
pub const fn load_index(generation: u32, worker: u32) -> u32 {
    (generation & 1) * MAX_WORKERS as u32 + worker % MAX_WORKERS as u32
}

/// Of the two workers a flow's hash names, the second only when the first is clearly busier.
///
/// The plain choice is the first, so that it does not change between a SYN and the ACK that ends its handshake: with
/// SYN cookies both pass through socket lookup, and only the listener that sent the cookie accepts it. Long
/// connections that pile up on one worker (HTTP/2) are what the second choice corrects.
#[inline(always)]
pub const fn busier(first_load: u64, second_load: u64) -> bool {
    first_load > second_load + second_load / 4 + 8
}

/// Outcomes of a socket lookup, each a counter in `STEERED`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Steered {
    /// Neither bound nor owned: ordinary lookup.
    Foreign = 0,
    /// A worker's socket answers.
    Assigned = 1,
    /// The same, by the second choice.
    AssignedSecond = 2,
    /// Bound, or owned without a binding; nobody answers; passed on as configured.
    MissPassed = 3,
    /// The same, refused as configured.
    MissRefused = 4,
    /// A binding that says so left it to ordinary sockets.
    Exempt = 5,
}

impl Steered {
    pub const COUNT: usize = 6;
    pub const ALL: [Self; Self::COUNT] = [
        Self::Foreign,
        Self::Assigned,
        Self::AssignedSecond,
        Self::MissPassed,
        Self::MissRefused,
        Self::Exempt,
    ];

    /// Label in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Foreign => "foreign",
            Self::Assigned => "assigned",
            Self::AssignedSecond => "assigned_second",
            Self::MissPassed => "miss_passed",
            Self::MissRefused => "miss_refused",
            Self::Exempt => "exempt",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// What an LPM trie does with a key: compares `len` bits from the first byte on.
    fn covers(prefix: &[u8], len: u32, data: &[u8]) -> bool {
        (0..len as usize).all(|i| (prefix[i / 8] ^ data[i / 8]) >> (7 - i % 8) & 1 == 0)
    }

    proptest! {
        #[test]
        fn a_binding_covers_exactly_its_prefix(proto in 0u8..2, port in 0u16..2, ip: u32, other: u32, bits in 0u32..=32) {
            let key = BindingKey::new(6, Port::new(80), Addr::v4(ip.to_be_bytes()));
            let data = BindingKey::new(6 + proto, Port::new(80 + port), Addr::v4(other.to_be_bytes()));
            let mask = if bits == 0 { 0 } else { u32::MAX << (32 - bits) };
            let expected = proto == 0 && port == 0 && ip & mask == other & mask;
            prop_assert_eq!(covers(&key.to_bytes(), BindingKey::prefix_len(96 + bits), &data.to_bytes()), expected);
        }
    }

    #[test]
    fn the_key_lies_as_the_trie_reads_it() {
        let bytes = BindingKey::new(17, Port::new(53), Addr::v4([192, 0, 2, 1])).to_bytes();
        assert_eq!(
            bytes,
            [0, 17, 0, 53, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1]
        );
        assert_eq!(BindingKey::prefix_len(128), 160);
    }

    #[test]
    fn every_socket_has_its_own_slot() {
        let mut seen = BTreeSet::new();
        for generation in 0..2 {
            for worker in 0..MAX_WORKERS as u32 {
                for kind in [SocketKind::Tcp4, SocketKind::Tcp6, SocketKind::Udp4, SocketKind::Udp6] {
                    let index = socket_index(generation, worker, kind);
                    assert!((index as usize) < crate::layout::MAX_SOCKETS);
                    assert!(seen.insert(index));
                }
                assert!((load_index(generation, worker) as usize) < crate::layout::MAX_LOADS);
            }
            assert_eq!(load_index(generation, 1), load_index(generation, 0) + 1);
        }
    }

    #[test]
    fn the_second_worker_only_takes_over_from_a_clearly_busier_one() {
        assert!(!busier(0, 0));
        assert!(!busier(8, 0));
        assert!(busier(9, 0));
        assert!(!busier(133, 100));
        assert!(busier(134, 100));
    }

    #[test]
    fn counters_are_numbered_in_order() {
        for (i, outcome) in Steered::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, i);
        }
    }
}
