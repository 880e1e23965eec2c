//! Layer 4 in the kernel: binds, endpoints, flows.
//!
//! A flow is one entry, keyed as the client sees it. A reply finds it through the endpoint it comes from: `REPLIES`
//! names the few binds that use the endpoint, and the flow of one of them must exist and name it. There is no second
//! entry that could be lost alone.
//!
//! A flow lives on the node that has its endpoint. Another node that gets its packets passes them on as they are: it only
//! remembers, as long as it can, which endpoint that is, so that the flow keeps it while others come and go.

use crate::addr::{Addr, Port};
use crate::layout::MAX_VIPS_PER_ENDPOINT;
use crate::plain::plain;

plain! {
    /// Protocol, address and port: of a bind in `VIPS`, of an endpoint in `REPLIES`.
    pub struct Place: 20 {
        pub addr: [u32; 4],
        pub port: u16,
        pub protocol: u8,
        pub reserved: u8,
    }
}

impl Place {
    #[inline(always)]
    pub const fn new(protocol: u8, addr: Addr, port: Port) -> Self {
        Self {
            addr: addr.0,
            port: port.0,
            protocol,
            reserved: 0,
        }
    }
}

plain! {
    /// First element of a bind's table: which bind it is, and how many slots follow. 0 slots: no endpoint.
    pub struct Head: 8 {
        pub vip: u32,
        pub slots: u32,
    }
}

plain! {
    /// Every further element: an endpoint. The generation tells a reused id from the endpoint that was meant.
    pub struct Slot: 8 {
        pub backend: u32,
        pub generation: u32,
    }
}

plain! {
    /// The way to another node. All zero: none is needed, it is this one.
    pub struct Hop: 20 {
        pub addr: [u32; 4],
        /// Index of the interface that leaves towards it; 0: this node.
        pub link: u32,
    }
}

impl Hop {
    pub const HERE: Self = Self { addr: [0; 4], link: 0 };

    #[inline(always)]
    pub const fn is_here(&self) -> bool {
        self.link == 0
    }
}

/// How often a packet is passed on at most, should nodes disagree about who has its endpoint.
pub const MOST_RELAYS: u8 = 8;

/// The hop limit (TTL) with which a packet is passed on to the node of its endpoint; `None`: it must not be.
///
/// What comes from afar is cut to [`MOST_RELAYS`] at once: a loop of 64 rounds would multiply a flood.
#[inline(always)]
pub const fn relayed(hop_limit: u8) -> Option<u8> {
    if hop_limit <= 1 {
        None
    } else if hop_limit > MOST_RELAYS {
        Some(MOST_RELAYS)
    } else {
        Some(hop_limit - 1)
    }
}

plain! {
    /// An endpoint, indexed by id.
    pub struct Backend: 48 {
        pub addr: [u32; 4],
        pub port: u16,
        pub protocol: u8,
        /// 1 while flows may use it. Written alone and last when an id is used again.
        pub alive: u8,
        pub generation: u32,
        /// The bind it belongs to: the same address behind two binds is two endpoints, which retire apart.
        pub vip: u32,
        /// The node it is on.
        pub hop: Hop,
    }
}

plain! {
    /// A bind that uses an endpoint.
    pub struct VipRef: 20 {
        pub addr: [u32; 4],
        pub port: u16,
        pub reserved: u16,
    }
}

plain! {
    /// Value of `REPLIES`: the binds that use an endpoint.
    pub struct Replies: 84 {
        pub count: u32,
        pub vips: [VipRef; MAX_VIPS_PER_ENDPOINT],
    }
}

plain! {
    /// Key of a flow, as the client sees it.
    pub struct FlowKey: 40 {
        pub client: [u32; 4],
        pub vip: [u32; 4],
        pub client_port: u16,
        pub vip_port: u16,
        pub protocol: u8,
        pub reserved: u8,
        pub reserved_word: u16,
    }
}

impl FlowKey {
    #[inline(always)]
    pub const fn new(protocol: u8, client: Addr, client_port: Port, vip: Addr, vip_port: Port) -> Self {
        Self {
            client: client.0,
            vip: vip.0,
            client_port: client_port.0,
            vip_port: vip_port.0,
            protocol,
            reserved: 0,
            reserved_word: 0,
        }
    }
}

plain! {
    /// State of a flow. Each byte is stored alone, by either direction; none is ever read, changed and written.
    ///
    /// It also says where its packets go, so that those of a flow that is known look up neither bind nor endpoint, however many
    /// there are; but for IPv6 and other nodes. What an id and a generation mean never changes, so only whether the endpoint
    /// still lives must be looked up, and only when one has retired since.
    pub struct Flow: 32 {
        pub backend: u32,
        pub generation: u32,
        /// Last packet, in ticks of [`crate::layout::TICK_SHIFT`].
        pub seen: u32,
        /// 1 once the client answered the endpoint (TCP: an ACK; UDP: any second packet after a reply).
        pub established: u8,
        /// 1 once the client sent FIN.
        pub fin_in: u8,
        /// 1 once the endpoint sent FIN; of one on another node nothing is seen, so there the client's FIN sets it too.
        pub fin_out: u8,
        /// 1 once either side sent RST.
        pub reset: u8,
        /// [`crate::layout::control::EPOCH`] when the endpoint was last seen to live.
        pub epoch: u32,
        /// IPv4 address of the endpoint. 0: not remembered, for it has an IPv6 address or is on another node.
        pub addr: u32,
        /// The endpoint's bind.
        pub vip: u32,
        /// Port of the endpoint.
        pub port: u16,
        pub reserved: u16,
    }
}

/// Whose port: the first half of `PORTS` or the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Side {
    Bind = 0,
    Endpoint = 1,
}

/// Where `PORTS` says whether any bind, or any endpoint on this node, has a port: the element, and the bit in it. A packet of
/// another port is not ours, and nothing else need be looked at to know that.
#[inline(always)]
pub const fn port_bit(side: Side, protocol: u8, port: Port) -> (u32, u64) {
    let half = (side as u32) << 1 | (protocol == crate::packet::TCP) as u32;
    (half << 10 | (port.0 >> 6) as u32, 1 << (port.0 & 63))
}

/// How long a flow may be silent, in ticks (about seconds).
pub mod idle {
    pub const TCP_OPENING: u32 = 15;
    /// RFC 5382 REQ-5: at least 2 hours and 4 minutes.
    pub const TCP_ESTABLISHED: u32 = 7_440;
    /// One side has finished. As conntrack's CLOSE_WAIT and LAST_ACK, generous to slow halves.
    pub const TCP_HALF_CLOSED: u32 = 1_800;
    /// RFC 5382 REQ-5: TIME_WAIT lasts 4 minutes at most; the endpoint's own is 60 s.
    pub const TCP_CLOSED: u32 = 60;
    pub const TCP_RESET: u32 = 5;
    /// RFC 4787 REQ-5: at least 2 minutes once answered.
    pub const UDP_ESTABLISHED: u32 = 120;
    pub const UDP_OPENING: u32 = 30;
}

impl Flow {
    /// Ticks of silence after which the entry may go.
    #[inline(always)]
    pub const fn idle_limit(&self, protocol: u8) -> u32 {
        if protocol == crate::packet::TCP {
            if self.reset != 0 {
                idle::TCP_RESET
            } else if self.fin_in != 0 && self.fin_out != 0 {
                idle::TCP_CLOSED
            } else if self.established == 0 {
                idle::TCP_OPENING
            } else if self.fin_in != 0 || self.fin_out != 0 {
                idle::TCP_HALF_CLOSED
            } else {
                idle::TCP_ESTABLISHED
            }
        } else if self.established != 0 {
            idle::UDP_ESTABLISHED
        } else {
            idle::UDP_OPENING
        }
    }

    /// Whether the connection is over: both sides have finished, or one reset it.
    #[inline(always)]
    pub const fn ended(&self) -> bool {
        self.reset != 0 || (self.fin_in != 0 && self.fin_out != 0)
    }

    /// Silent for longer than it may. Ticks wrap; a flow from "the future" (another CPU's clock) is not silent.
    #[inline(always)]
    pub const fn expired(&self, protocol: u8, now: u32) -> bool {
        let silent = now.wrapping_sub(self.seen);
        silent < 1 << 31 && silent > self.idle_limit(protocol)
    }

    /// Whether a SYN for this flow is a retransmission rather than a new connection on a reused port.
    ///
    /// While the handshake is open every SYN is one. Later only within a tick: an initial timeout is 1 s (RFC 6298).
    #[inline(always)]
    pub const fn syn_repeats(&self, now: u32) -> bool {
        if self.reset != 0 || self.fin_in != 0 || self.fin_out != 0 {
            return false;
        }
        let silent = now.wrapping_sub(self.seen);
        if self.established == 0 {
            silent <= idle::TCP_OPENING
        } else {
            silent == 0
        }
    }
}

plain! {
    /// Key of `PIECES`: the packet that a fragment from an endpoint belongs to.
    pub struct PieceKey: 40 {
        pub src: [u32; 4],
        pub dst: [u32; 4],
        pub id: u32,
        pub protocol: u8,
        pub reserved: u8,
        pub reserved_word: u16,
    }
}

plain! {
    /// Per CPU: new flows in the current window.
    pub struct Gate: 16 {
        pub window: u64,
        pub count: u64,
    }
}

plain! {
    /// Per CPU and bind.
    pub struct Traffic: 48 {
        pub packets_in: u64,
        pub bytes_in: u64,
        pub packets_out: u64,
        pub bytes_out: u64,
        /// Flows opened here.
        pub flows: u64,
        /// Packets for the bind that went up the stack.
        pub to_stack: u64,
    }
}

/// What became of a packet. Each is a counter in `OUTCOMES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[must_use]
pub enum Outcome {
    /// Not ours: untouched.
    Foreign = 0,
    /// To the endpoint of a known flow.
    Forwarded = 1,
    /// To the endpoint of a flow that begins here.
    Opened = 2,
    /// A reply, rewritten to come from the bind.
    Returned = 3,
    /// An ICMP error to the endpoint it concerns.
    IcmpIn = 4,
    /// An ICMP error to the client it concerns.
    IcmpOut = 5,
    /// To the stack: a fragment.
    Fragment = 6,
    /// To the stack: the bind has no endpoint here.
    NoEndpoint = 7,
    /// To the stack: the flow's endpoint is gone; TCP resets it.
    DeadBackend = 8,
    /// To the stack: the flow table is full.
    TableFull = 9,
    /// To the stack: more new flows than the gate lets in.
    Gated = 10,
    /// To the stack: nobody looks after the maps any more.
    LeaseOver = 11,
    /// To the stack: a local socket has this connection.
    LocalSocket = 12,
    /// To the stack: the same client port already talks to this endpoint through another bind.
    Clash = 13,
    /// Dropped: half rewritten when a helper failed. Must not leave the machine.
    Broken = 14,
    /// As it came to the node that has the endpoint, or about whose flow it is an ICMP error.
    Relayed = 15,
    /// To the stack: the endpoint is on another node, but the packet was passed on often enough.
    HopLimit = 16,
    /// To the stack: the client is behind the node that has the endpoint, where answers would not pass the programs on their way
    /// to it.
    Hairpin = 17,
}

impl Outcome {
    pub const COUNT: usize = 18;
    pub const ALL: [Self; Self::COUNT] = [
        Self::Foreign,
        Self::Forwarded,
        Self::Opened,
        Self::Returned,
        Self::IcmpIn,
        Self::IcmpOut,
        Self::Fragment,
        Self::NoEndpoint,
        Self::DeadBackend,
        Self::TableFull,
        Self::Gated,
        Self::LeaseOver,
        Self::LocalSocket,
        Self::Clash,
        Self::Broken,
        Self::Relayed,
        Self::HopLimit,
        Self::Hairpin,
    ];

    /// Label in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Foreign => "foreign",
            Self::Forwarded => "forwarded",
            Self::Opened => "opened",
            Self::Returned => "returned",
            Self::IcmpIn => "icmp_in",
            Self::IcmpOut => "icmp_out",
            Self::Fragment => "fragment",
            Self::NoEndpoint => "no_endpoint",
            Self::DeadBackend => "dead_backend",
            Self::TableFull => "table_full",
            Self::Gated => "gated",
            Self::LeaseOver => "lease_over",
            Self::LocalSocket => "local_socket",
            Self::Clash => "clash",
            Self::Broken => "broken",
            Self::Relayed => "relayed",
            Self::HopLimit => "hop_limit",
            Self::Hairpin => "hairpin",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::PORT_WORDS;
    use crate::packet::{TCP, UDP};
    use core::mem::offset_of;
    use proptest::prelude::*;

    #[test]
    fn counters_are_numbered_in_order() {
        for (i, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, i);
        }
    }

    #[test]
    fn fields_lie_where_the_other_side_expects_them() {
        assert_eq!((offset_of!(Place, port), offset_of!(Place, protocol)), (16, 18));
        assert_eq!(
            (
                offset_of!(Backend, alive),
                offset_of!(Backend, generation),
                offset_of!(Backend, hop),
                offset_of!(Hop, link)
            ),
            (19, 20, 28, 16)
        );
        assert_eq!(
            (
                offset_of!(FlowKey, vip),
                offset_of!(FlowKey, vip_port),
                offset_of!(FlowKey, protocol)
            ),
            (16, 34, 36)
        );
        assert_eq!(
            (
                offset_of!(Flow, seen),
                offset_of!(Flow, established),
                offset_of!(Flow, reset),
                offset_of!(Flow, epoch),
                offset_of!(Flow, addr),
                offset_of!(Flow, port)
            ),
            (8, 12, 15, 16, 20, 28)
        );
        assert_eq!(offset_of!(Replies, vips), 4);
    }

    #[test]
    fn every_port_has_a_bit_of_its_own() {
        let mut seen = std::vec![0u64; PORT_WORDS];
        for side in [Side::Bind, Side::Endpoint] {
            for protocol in [TCP, UDP] {
                for port in 0..=u16::MAX {
                    let (word, bit) = port_bit(side, protocol, Port(port));
                    let word = &mut seen[word as usize];
                    assert_eq!(*word & bit, 0, "{side:?} {protocol} {port}");
                    *word |= bit;
                }
            }
        }
        assert!(seen.iter().all(|word| *word == u64::MAX));
    }

    #[test]
    fn a_key_has_these_bytes() {
        let key = FlowKey::new(
            6,
            Addr::v4([192, 0, 2, 1]),
            Port::new(40_000),
            Addr::v4([198, 51, 100, 1]),
            Port::new(80),
        );
        let mut expected = [0u8; 40];
        expected[10..16].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 1]);
        expected[26..32].copy_from_slice(&[0xff, 0xff, 198, 51, 100, 1]);
        expected[32..37].copy_from_slice(&[0x9c, 0x40, 0, 80, 6]);
        assert_eq!(key.to_bytes(), expected);
        assert_eq!(FlowKey::from_bytes(expected), key);
    }

    #[test]
    fn a_syn_is_trusted_only_as_a_retransmission() {
        let opening = Flow {
            seen: 100,
            ..Flow::default()
        };
        assert!(opening.syn_repeats(107));
        assert!(!opening.syn_repeats(100 + idle::TCP_OPENING + 1));
        let open = Flow {
            established: 1,
            ..opening
        };
        assert!(open.syn_repeats(100));
        assert!(!open.syn_repeats(101));
        for closing in [
            Flow { fin_in: 1, ..open },
            Flow { fin_out: 1, ..open },
            Flow { reset: 1, ..opening },
        ] {
            assert!(!closing.syn_repeats(100), "{closing:?}");
        }
    }

    #[test]
    fn no_packet_is_passed_on_for_ever() {
        for from in 0..=u8::MAX {
            let mut limit = from;
            let mut times = 0;
            while let Some(next) = relayed(limit) {
                assert!(next >= 1 && next <= limit, "{limit}");
                limit = next;
                times += 1;
            }
            assert_eq!(times, from.saturating_sub(1).min(MOST_RELAYS), "{from}");
        }
    }

    proptest! {
        #[test]
        fn expiry_survives_the_wrap_of_ticks(seen: u32, silent in 0u32..20_000, tcp: bool, established in 0u8..2) {
            let protocol = if tcp { TCP } else { UDP };
            let flow = Flow { seen, established, ..Flow::default() };
            prop_assert_eq!(flow.expired(protocol, seen.wrapping_add(silent)), silent > flow.idle_limit(protocol));
            prop_assert!(!flow.expired(protocol, seen.wrapping_sub(1)));
        }
    }
}
