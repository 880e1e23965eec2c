//! A socket buffer: reading, and rewriting one end with right checksums.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{TC_ACT_REDIRECT, bpf_redir_neigh, bpf_redir_neigh__bindgen_ty_1};
use aya_ebpf::helpers::{
    bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_redirect_neigh, bpf_skb_load_bytes, bpf_skb_store_bytes,
};
use aya_ebpf::programs::TcContext;
use core::arch::asm;
use core::mem::MaybeUninit;
use pierhead_abi::icmp::{self, End, Inner};
use pierhead_abi::l4::{Hop, Outcome, relayed};
use pierhead_abi::packet::{Ip, Packet, UDP, field};
use pierhead_abi::{Addr, Port, checksum};

/// `BPF_F_PSEUDO_HDR`: the change is in the pseudo header too, so a checksum left to the NIC is adjusted as well.
const PSEUDO: u64 = 1 << 4;
/// `BPF_F_MARK_MANGLED_0`: no checksum (UDP over IPv4) stays none, and a computed zero becomes all ones.
const MANGLED_0: u64 = 1 << 5;
/// `BPF_F_IPV6`: no IPv4 header checksum balances the changed address, so a full sum from the NIC stays as it is.
const IPV6: u64 = 1 << 7;

/// `BPF_F_RECOMPUTE_CSUM`: a full sum from the NIC follows the change.
const RECOMPUTE: u64 = 1;

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;

/// A helper failed: the packet may be half rewritten.
pub struct Broken;

pub struct Skb<'a>(pub &'a TcContext);

/// Headers lie within this many bytes. What is beyond is read with a helper.
const NEAR: usize = 0x1ff;

impl Skb<'_> {
    /// Bytes that lie in the linear part of the packet, as nearly all headers do. `None` says nothing of the others.
    #[inline(always)]
    fn near<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let (mut offset, mut start, end) = (offset as usize, self.0.data(), self.0.data_end());
        if offset > NEAR {
            return None;
        }
        // SAFETY: neither touches memory. The bound is said in a way that the compiler does not see through: verifiers before Linux
        // 5.17 forget the one above when the number was kept on the stack meanwhile. And the sum is made once, for what is
        // checked below must be the very pointer that is read.
        unsafe {
            asm!("{0} &= {1}", inout(reg) offset, const NEAR, options(pure, nomem, nostack));
            asm!("{0} += {1}", inout(reg) start, in(reg) offset, options(pure, nomem, nostack));
        }
        if start + N > end {
            return None;
        }
        let mut bytes = MaybeUninit::<[u8; N]>::uninit();
        let at: *mut u8 = bytes.as_mut_ptr().cast();
        let mut done = 0;
        while done + 4 <= N {
            let word: u32;
            // SAFETY: reads bytes that are within the packet. Any alignment will do for the kernel (it is asked for none where the
            // machine has none), but not for the compiler, which would take them apart.
            unsafe {
                asm!("{0} = *(u32 *)({1} + 0)", out(wreg) word, in(reg) start + done, options(pure, readonly, nostack));
                at.add(done).cast::<u32>().write_unaligned(word);
            }
            done += 4;
        }
        while done < N {
            let byte: u8;
            // SAFETY: as above.
            unsafe {
                byte = core::ptr::read((start + done) as *const u8);
                at.add(done).write(byte);
            }
            done += 1;
        }
        // SAFETY: each byte was written.
        Some(unsafe { bytes.assume_init() })
    }
}

/// The headers that every packet has: read without a call where they can be. The verifier has more to look at then, so the
/// packet inside an ICMP error is read otherwise.
pub struct Headers<'a>(pub &'a Skb<'a>);

impl Packet for Headers<'_> {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        match self.0.near(offset) {
            Some(bytes) => Some(bytes),
            None => self.0.load(offset),
        }
    }
}

impl Packet for Skb<'_> {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let mut bytes = MaybeUninit::<[u8; N]>::uninit();
        // SAFETY: the destination has N bytes; the helper checks the packet's end and fills it or fails.
        let ret = unsafe { bpf_skb_load_bytes(self.0.as_ptr().cast(), offset, bytes.as_mut_ptr().cast(), N as u32) };
        // SAFETY: the helper filled it. (On failure it zeroes it.)
        if ret == 0 {
            Some(unsafe { bytes.assume_init() })
        } else {
            None
        }
    }
}

#[inline(always)]
fn check(ret: i64) -> Result<(), Broken> {
    if ret == 0 { Ok(()) } else { Err(Broken) }
}

impl Skb<'_> {
    /// Host order, 0 for a packet that carries a VLAN tag: it belongs to the VLAN's own interface.
    #[inline(always)]
    pub fn ethertype(&self) -> u16 {
        // SAFETY: fields of the context, part of its UAPI.
        let (protocol, vlan) = unsafe { ((*self.0.skb.skb).protocol, (*self.0.skb.skb).vlan_present) };
        if vlan == 0 { u16::from_be(protocol as u16) } else { 0 }
    }

    #[inline(always)]
    fn store<const N: usize>(&self, offset: u32, bytes: &[u8; N]) -> Result<(), Broken> {
        // SAFETY: N readable bytes; the helper checks the packet's end.
        check(unsafe { bpf_skb_store_bytes(self.0.as_ptr().cast(), offset, bytes.as_ptr().cast(), N as u32, 0) })
    }

    /// Applies a difference to a transport checksum.
    #[inline(always)]
    fn l4_diff(&self, offset: u32, diff: u32, flags: u64) -> Result<(), Broken> {
        // SAFETY: plain numbers; the helper checks the packet's end. Size 0 says that `to` is a difference.
        check(unsafe { bpf_l4_csum_replace(self.0.as_ptr().cast(), offset, 0, diff as u64, flags) })
    }

    /// Applies the difference of a changed address to a transport checksum.
    #[inline(always)]
    fn l4_diff_addr(&self, v4: bool, offset: u32, diff: u32, flags: u64) -> Result<(), Broken> {
        if v4 {
            return self.l4_diff(offset, diff, flags | PSEUDO);
        }
        // Kernels before 6.16 do not know the flag; there a wrong full sum costs a second look in software.
        self.l4_diff(offset, diff, flags | PSEUDO | IPV6)
            .or_else(|_| self.l4_diff(offset, diff, flags | PSEUDO))
    }

    /// Replaces an address in a network header that is not inside another, and the IPv4 header checksum with it.
    #[inline(always)]
    fn outer_addr(&self, ip: &Ip, end: End, addr: &Addr, diff: u32) -> Result<(), Broken> {
        let offset = match end {
            End::Src => ip.src_offset(),
            End::Dst => ip.dst_offset(),
        };
        if ip.v4 {
            // SAFETY: as for the transport checksum.
            check(unsafe {
                bpf_l3_csum_replace(self.0.as_ptr().cast(), ip.l3 + field::IPV4_CHECKSUM, 0, diff as u64, 0)
            })?;
            self.store(offset, &addr.v4_word().to_ne_bytes())
        } else {
            self.store(offset, &addr.octets())
        }
    }

    /// Replaces one end of a TCP segment or UDP datagram that has these ports.
    #[inline(always)]
    pub fn rewrite(&self, ip: &Ip, ports: (Port, Port), end: End, addr: &Addr, port: Port) -> Result<(), Broken> {
        let Some(check) = ip.checksum_offset() else {
            return Err(Broken);
        };
        let (old_addr, old_port, port_offset) = match end {
            End::Src => (&ip.src, ports.0, ip.l4 + field::SRC_PORT),
            End::Dst => (&ip.dst, ports.1, ip.l4 + field::DST_PORT),
        };
        let flags = if ip.protocol == UDP { MANGLED_0 } else { 0 };
        let diff = checksum::diff_addr(&old_addr.0, &addr.0);
        self.l4_diff_addr(ip.v4, check, diff, flags)?;
        if old_port != port {
            self.l4_diff(check, checksum::diff16(old_port.0, port.0), flags)?;
        }
        if ip.v4 && ip.l4 == ip.l3 + field::IPV4_END {
            // The ports of nearly all packets are right behind the addresses: what changes is stored at once.
            let (src, dst, ports) = match end {
                End::Src => (addr, &ip.dst, (port, ports.1)),
                End::Dst => (&ip.src, addr, (ports.0, port)),
            };
            let ip_check = checksum::apply(ip.checksum, diff).to_ne_bytes();
            let (src, dst) = (src.v4_word().to_ne_bytes(), dst.v4_word().to_ne_bytes());
            let (from, to) = (ports.0.0.to_ne_bytes(), ports.1.0.to_ne_bytes());
            let bytes = [
                ip_check[0],
                ip_check[1],
                src[0],
                src[1],
                src[2],
                src[3],
                dst[0],
                dst[1],
                dst[2],
                dst[3],
                from[0],
                from[1],
                to[0],
                to[1],
            ];
            return self.store(ip.l3 + field::IPV4_CHECKSUM, &bytes);
        }
        if old_port != port {
            self.store(port_offset, &port.0.to_ne_bytes())?;
        }
        self.outer_addr(ip, end, addr, diff)
    }

    /// Passes the packet on to another node as it came, but for the hop limit.
    ///
    /// The stack here sees nothing of it, in neither direction: replies come from the other node. What is not for this
    /// machine's own Ethernet address (it listens to all, or a switch floods) is somebody else's to pass on.
    #[inline(always)]
    pub fn relay(&self, ip: &Ip, hop: &Hop) -> Outcome {
        const PACKET_HOST: u32 = 0;
        // SAFETY: a field of the context, part of its UAPI.
        if unsafe { (*self.0.skb.skb).pkt_type } != PACKET_HOST {
            return Outcome::Foreign;
        }
        let at = ip.l3 + if ip.v4 { field::IPV4_TTL } else { field::IPV6_HOP_LIMIT };
        // IPv4 has the protocol behind it: together a word of the header's checksum.
        let Some([limit, protocol]) = self.load::<2>(at) else {
            return Outcome::Foreign;
        };
        let Some(next) = relayed(limit) else {
            return Outcome::HopLimit;
        };
        match self.hop_limit(ip, at, [limit, protocol], next) {
            Ok(()) => {}
            Err(Broken) => return Outcome::Broken,
        }
        let (nh_family, nh) = if Addr(hop.addr).is_v4() {
            (AF_INET, [hop.addr[3], 0, 0, 0])
        } else {
            (AF_INET6, hop.addr)
        };
        let mut to = bpf_redir_neigh {
            nh_family,
            __bindgen_anon_1: bpf_redir_neigh__bindgen_ty_1 { ipv6_nh: nh },
        };
        // SAFETY: the structure has the length that is given; the helper checks family and flags.
        let ret = unsafe { bpf_redirect_neigh(hop.link, &raw mut to, size_of::<bpf_redir_neigh>() as i32, 0) };
        if ret == TC_ACT_REDIRECT as i64 {
            Outcome::Relayed
        } else {
            Outcome::Broken
        }
    }

    #[inline(always)]
    fn hop_limit(&self, ip: &Ip, at: u32, [old, protocol]: [u8; 2], new: u8) -> Result<(), Broken> {
        if !ip.v4 {
            // SAFETY: one readable byte; the helper checks the packet's end.
            return check(unsafe {
                bpf_skb_store_bytes(self.0.as_ptr().cast(), at, [new].as_ptr().cast(), 1, RECOMPUTE)
            });
        }
        let word = |limit| u16::from_ne_bytes([limit, protocol]);
        let diff = checksum::diff16(word(old), word(new));
        // SAFETY: as for the transport checksum.
        check(unsafe { bpf_l3_csum_replace(self.0.as_ptr().cast(), ip.l3 + field::IPV4_CHECKSUM, 0, diff as u64, 0) })?;
        self.store(at, &[new])
    }

    /// Replaces the source of a piece that has no transport header.
    #[inline(always)]
    pub fn rewrite_piece(&self, ip: &Ip, new: &Addr) -> Result<(), Broken> {
        self.outer_addr(ip, End::Src, new, checksum::diff_addr(&ip.src.0, &new.0))
    }

    /// Replaces one end of the packet inside an ICMP error, and the opposite end of the error itself.
    #[inline(always)]
    pub fn rewrite_error(&self, outer: &Ip, inner: &Inner, end: End, new: (&Addr, Port)) -> Result<(), Broken> {
        let edit = icmp::edit(self, inner, end, new.0, new.1);
        if inner.ip.v4 {
            self.store(edit.addr_offset, &new.0.v4_word().to_ne_bytes())?;
        } else {
            self.store(edit.addr_offset, &new.0.octets())?;
        }
        self.store(edit.port_offset, &new.1.0.to_ne_bytes())?;
        for check in [edit.ip_check, edit.l4_check] {
            if check.offset != 0 {
                self.store(check.offset, &check.value.to_ne_bytes())?;
            }
        }
        let check = outer.l4 + field::ICMP_CHECKSUM;
        self.l4_diff(check, edit.diff, 0)?;
        // The error travels against the packet it is about: its destination is the inner source.
        let (outer_end, old) = match end {
            End::Src => (End::Dst, &outer.dst),
            End::Dst => (End::Src, &outer.src),
        };
        let diff = checksum::diff_addr(&old.0, &new.0.0);
        if !outer.v4 {
            // ICMPv6 has a pseudo header (RFC 4443 §2.3), ICMP has none.
            self.l4_diff_addr(false, check, diff, 0)?;
        }
        self.outer_addr(outer, outer_end, new.0, diff)
    }
}
