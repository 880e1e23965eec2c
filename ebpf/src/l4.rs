//! Layer 4: from a bind to an endpoint on this node, and back; or on to the node that has the endpoint.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{bpf_sock, bpf_sock_tuple};
use aya_ebpf::helpers::{bpf_fib_lookup, bpf_ktime_get_ns, bpf_sk_release, bpf_skc_lookup_tcp};
use aya_ebpf::programs::TcContext;
use core::ptr;
use pierhead_abi::icmp::{self, End};
use pierhead_abi::l4::{Backend, Flow, FlowKey, Hop, Outcome, PieceKey, Place, Replies, Side, Slot};
use pierhead_abi::layout::{GATE_WINDOW_SHIFT, MAX_VIPS_PER_ENDPOINT, TICK_SHIFT, control};
use pierhead_abi::packet::{self, Fragment, ICMP, ICMPV6, Ip, TCP, TcpFlags, UDP, Unreadable};
use pierhead_abi::{Addr, Port, hash};

use crate::maps::{self, BACKENDS, FLOWS, GATES, OUTCOMES, PIECES, REPLIES, TRAFFIC, Table};
use crate::skb::{Broken, Headers, Skb};

/// Ethernet. Other link layers are not attached to.
const L3: u32 = 14;

const BPF_ANY: u64 = 0;

/// Counts an outcome and hands it on.
#[inline(always)]
pub fn count(outcome: Outcome) -> Outcome {
    maps::bump(&OUTCOMES, outcome as u32);
    outcome
}

#[inline(always)]
fn done(result: Result<(), Broken>, outcome: Outcome) -> Outcome {
    match result {
        Ok(()) => outcome,
        Err(Broken) => Outcome::Broken,
    }
}

/// Client to bind.
#[inline(always)]
pub fn ingress(ctx: &TcContext) -> Outcome {
    let skb = Skb(ctx);
    let ip = match packet::ip(&Headers(&skb), skb.ethertype(), L3) {
        Ok(ip) => ip,
        Err(Unreadable::Fragment(_)) => return Outcome::Fragment,
        Err(Unreadable::NotIp | Unreadable::Malformed) => return Outcome::Foreign,
    };
    match ip.protocol {
        TCP | UDP => transport_in(ctx, &skb, &ip),
        ICMP | ICMPV6 => error_in(ctx, &skb, &ip),
        _ => Outcome::Foreign,
    }
}

/// Endpoint to client.
#[inline(always)]
pub fn egress(ctx: &TcContext) -> Outcome {
    let skb = Skb(ctx);
    let (ip, piece) = match packet::ip(&Headers(&skb), skb.ethertype(), L3) {
        Ok(ip) => (ip, None),
        // The first piece has the ports, and says for the others where they come from.
        Err(Unreadable::Fragment(f)) if f.first && f.ip.protocol == UDP => (f.ip, Some(f.id)),
        Err(Unreadable::Fragment(f)) => return later_piece(&skb, &f),
        Err(Unreadable::NotIp | Unreadable::Malformed) => return Outcome::Foreign,
    };
    match ip.protocol {
        TCP | UDP => transport_out(ctx, &skb, &ip, piece),
        ICMP | ICMPV6 => error_out(&skb, &ip),
        _ => Outcome::Foreign,
    }
}

#[inline(always)]
fn piece_key(ip: &Ip, id: u32) -> PieceKey {
    PieceKey {
        src: ip.src.0,
        dst: ip.dst.0,
        id,
        protocol: ip.protocol,
        reserved: 0,
        reserved_word: 0,
    }
}

#[inline(always)]
fn later_piece(skb: &Skb<'_>, piece: &Fragment) -> Outcome {
    let Some(vip) = PIECES.get_ptr(&piece_key(&piece.ip, piece.id)) else {
        return Outcome::Fragment;
    };
    // SAFETY: a map value, valid until the program ends; copied at once.
    let vip = unsafe { ptr::read(vip) };
    done(skb.rewrite_piece(&piece.ip, &Addr(vip)), Outcome::Returned)
}

#[inline(always)]
fn transport_in(ctx: &TcContext, skb: &Skb<'_>, ip: &Ip) -> Outcome {
    let Some((client_port, vip_port)) = packet::ports(&Headers(skb), ip.l4) else {
        return Outcome::Foreign;
    };
    if !maps::has_port(Side::Bind, ip.protocol, vip_port) {
        return Outcome::Foreign;
    }
    let flags = if ip.protocol != TCP {
        // A datagram is neither first nor last.
        TcpFlags(0)
    } else if let Some(flags) = TcpFlags::read(&Headers(skb), ip.l4) {
        flags
    } else {
        return Outcome::Foreign;
    };
    let key = FlowKey::new(ip.protocol, ip.src, client_port, ip.dst, vip_port);
    // A SYN must be told from an earlier one, whoever looks after the maps or does not.
    let now = if flags.opens() { tick(clock()) } else { recent_tick() };
    let known = known(&key, flags, now);
    let (vip, outcome, way) = if let Known::Alive(way) = known {
        // Without a look at the bind: with many binds that is memory far away.
        (way.vip, Outcome::Forwarded, Some(way))
    } else {
        let Some(table) = maps::table(&Place::new(ip.protocol, ip.dst, vip_port)) else {
            return Outcome::Foreign;
        };
        let Some(head) = table.get(0) else {
            return Outcome::NoEndpoint;
        };
        // A `Head` in the shape of a `Slot`: bind and number of slots.
        let (vip, slots) = (head.backend, head.generation);
        match known {
            Known::Dead if ip.protocol == TCP => (vip, Outcome::DeadBackend, None),
            // A datagram flow moves on to an endpoint that lives.
            _ => match open(ctx, ip, &key, flags, table, slots) {
                Ok(backend) => (vip, Outcome::Opened, Some(Way::to(backend))),
                Err(outcome) => (vip, outcome, None),
            },
        }
    };
    let outcome = match way {
        Some(Way { hop: Some(hop), .. }) => skb.relay(ip, hop),
        Some(way) => {
            let ports = (client_port, vip_port);
            done(skb.rewrite(ip, ports, End::Dst, &way.addr, way.port), outcome)
        }
        None => outcome,
    };
    traffic_in(vip, ctx.len(), outcome);
    outcome
}

/// Where a packet goes.
struct Way {
    addr: Addr,
    port: Port,
    vip: u32,
    /// By way of another node.
    hop: Option<&'static Hop>,
}

impl Way {
    #[inline(always)]
    fn to(backend: &'static Backend) -> Self {
        Self {
            addr: Addr(backend.addr),
            port: Port(backend.port),
            vip: backend.vip,
            hop: if backend.hop.is_here() {
                None
            } else {
                Some(&backend.hop)
            },
        }
    }

    /// As the flow itself says. For one that remembers it.
    #[inline(always)]
    fn remembered(flow: &Flow) -> Self {
        Self {
            addr: Addr::from_v4_word(flow.addr),
            port: Port(flow.port),
            vip: flow.vip,
            hop: None,
        }
    }
}

enum Known {
    None,
    Dead,
    Alive(Way),
}

/// Nanoseconds of `CLOCK_MONOTONIC`.
#[inline(always)]
fn clock() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_ns() }
}

#[inline(always)]
fn tick(now: u64) -> u32 {
    (now >> TICK_SHIFT) as u32
}

/// The tick as userspace wrote it, a second ago at most while it lives.
#[inline(always)]
fn recent_tick() -> u32 {
    maps::control(control::TICK) as u32
}

/// The endpoint of a flow that has an entry, and the packet noted in it.
#[inline(always)]
fn known(key: &FlowKey, flags: TcpFlags, now: u32) -> Known {
    let Some(flow) = FLOWS.get_ptr_mut(key) else {
        return Known::None;
    };
    // SAFETY: a map value, valid until the program ends; copied at once, since others write it.
    let copy = unsafe { ptr::read(flow) };
    if flags.opens() && !copy.syn_repeats(now) {
        // A new connection on a reused port.
        return Known::None;
    }
    let epoch = epoch();
    let way = if copy.addr != 0 && copy.epoch == epoch {
        Way::remembered(&copy)
    } else {
        let Some(backend) = alive(copy.backend, copy.generation) else {
            return match BACKENDS.get(copy.backend) {
                // There was nothing of the flow but its endpoint: whatever is chosen now knows no less.
                Some(gone) if gone.generation == copy.generation && !gone.hop.is_here() => Known::None,
                _ => Known::Dead,
            };
        };
        if copy.epoch != epoch {
            // What was read before the look at the endpoint: one that retires in between is looked at again.
            // SAFETY: a map value, valid until the program ends; a word that is stored alone.
            unsafe { (*flow).epoch = epoch };
        }
        Way::to(backend)
    };
    // SAFETY: as above; each byte and word is stored alone. Written only when it changes, to keep the line shared.
    unsafe {
        if copy.seen != now {
            (*flow).seen = now;
        }
        if copy.established == 0 && !flags.opens() && (key.protocol == UDP || flags.ack()) {
            (*flow).established = 1;
        }
        if flags.fin() && copy.fin_in == 0 {
            (*flow).fin_in = 1;
            if way.hop.is_some() {
                (*flow).fin_out = 1;
            }
        }
        if flags.rst() {
            (*flow).reset = 1;
        }
    }
    Known::Alive(way)
}

#[inline(always)]
fn epoch() -> u32 {
    maps::control(control::EPOCH) as u32
}

#[inline(always)]
fn alive(id: u32, generation: u32) -> Option<&'static Backend> {
    let backend = BACKENDS.get(id)?;
    if backend.alive == 1 && backend.generation == generation {
        Some(backend)
    } else {
        None
    }
}

/// Chooses an endpoint for a flow without an entry, and makes the entry.
///
/// To a flow that lives on another node an entry is a convenience: without one its packets go where they hash to, which is the
/// same. So none is made where it could be missed elsewhere: for a SYN, which may be one of a flood, beyond the gate, or
/// when there is no room.
#[inline(always)]
fn open(
    ctx: &TcContext,
    ip: &Ip,
    key: &FlowKey,
    flags: TcpFlags,
    table: &Table,
    slots: u32,
) -> Result<&'static Backend, Outcome> {
    if slots == 0 {
        return Err(Outcome::NoEndpoint);
    }
    let now = clock();
    if now > maps::control(control::LEASE) {
        return Err(Outcome::LeaseOver);
    }
    if ip.protocol == TCP && local_connection(ctx, ip.v4, key, flags) {
        return Err(Outcome::LocalSocket);
    }
    let epoch = epoch();
    let Some((slot, backend)) = pick(key, table, slots) else {
        return Err(Outcome::NoEndpoint);
    };
    let here = backend.hop.is_here();
    if !here && is_behind(ctx, ip.v4, key, &backend.hop) {
        return Err(Outcome::Hairpin);
    }
    if ip.protocol == TCP && flags.rst() {
        // Nothing to reset here; the stack knows what to do with a stray one.
        return if here { Err(Outcome::LocalSocket) } else { Ok(backend) };
    }
    if !here && flags.opens() {
        // What was known of a finished connection on the same ports is not true of this one.
        let _ = FLOWS.remove(key);
        return Ok(backend);
    }
    if gated(now) {
        return if here { Err(Outcome::Gated) } else { Ok(backend) };
    }
    if here && clashes(key, backend) {
        return Err(Outcome::Clash);
    }
    let entry = Flow {
        backend: slot.backend,
        generation: slot.generation,
        seen: tick(now),
        // Picked up in the middle (its packets came by way of another node, a restart with another layout, a long silence):
        // it was open before.
        established: (ip.protocol == TCP && !flags.opens()) as u8,
        fin_in: flags.fin() as u8,
        fin_out: (flags.fin() && !here) as u8,
        reset: 0,
        epoch,
        addr: remembered(backend),
        vip: backend.vip,
        port: backend.port,
        reserved: 0,
    };
    match FLOWS.insert(key, &entry, BPF_ANY) {
        Err(_) if here => Err(Outcome::TableFull),
        Ok(()) | Err(_) => Ok(backend),
    }
}

/// The address that a flow remembers.
#[inline(always)]
fn remembered(backend: &Backend) -> u32 {
    let addr = Addr(backend.addr);
    if backend.hop.is_here() && addr.is_v4() {
        addr.v4_word()
    } else {
        0
    }
}

/// The endpoint that a flow hashes to, on every node the same.
#[inline(always)]
fn pick(key: &FlowKey, table: &Table, slots: u32) -> Option<(Slot, &'static Backend)> {
    let seed = maps::control(control::SEED);
    let flow = hash::flow(
        seed,
        key.protocol,
        &Addr(key.client),
        Port(key.client_port),
        &Addr(key.vip),
        Port(key.vip_port),
    );
    let slot = *table.get(1 + hash::scale(flow, slots))?;
    Some((slot, alive(slot.backend, slot.generation)?))
}

/// Whether this CPU has opened its share of flows in the current window.
#[inline(always)]
fn gated(now: u64) -> bool {
    let Some(gate) = GATES.get_ptr_mut(0) else { return true };
    let window = now >> GATE_WINDOW_SHIFT;
    // SAFETY: this CPU's own element.
    unsafe {
        if (*gate).window != window {
            (*gate).window = window;
            (*gate).count = 0;
        }
        (*gate).count += 1;
        (*gate).count > maps::control(control::GATE)
    }
}

/// Whether a socket of this machine already has the connection: it was accepted in userspace, before the bind moved
/// into the kernel or while the table was full. It must go on there.
#[inline(always)]
fn local_connection(ctx: &TcContext, v4: bool, key: &FlowKey, flags: TcpFlags) -> bool {
    const LISTEN: u32 = 10;
    const TIME_WAIT: u32 = 6;
    // The namespace of the packet's device.
    const CURRENT_NETNS: u64 = u64::MAX;
    let (v4_tuple, v6_tuple);
    let (tuple, size) = if v4 {
        v4_tuple = [key.client[3], key.vip[3], ports_word(key)];
        (ptr::from_ref(&v4_tuple).cast::<bpf_sock_tuple>(), 12)
    } else {
        let (c, v) = (&key.client, &key.vip);
        v6_tuple = [c[0], c[1], c[2], c[3], v[0], v[1], v[2], v[3], ports_word(key)];
        (ptr::from_ref(&v6_tuple).cast::<bpf_sock_tuple>(), 36)
    };
    // SAFETY: the tuple has `size` bytes, in the layout of the kernel's union: addresses, then ports.
    let sock: *mut bpf_sock = unsafe { bpf_skc_lookup_tcp(ctx.as_ptr(), tuple.cast_mut(), size, CURRENT_NETNS, 0) };
    if sock.is_null() {
        return false;
    }
    // SAFETY: not null, and held until the release below, which is on every path.
    let state = unsafe { ptr::read_volatile(&raw const (*sock).state) };
    // SAFETY: the reference taken above.
    unsafe { bpf_sk_release(sock.cast()) };
    match state {
        LISTEN => false,
        // A new connection may follow a finished one at once (RFC 6191).
        TIME_WAIT => !flags.opens(),
        _ => true,
    }
}

#[inline(always)]
fn ports_word(key: &FlowKey) -> u32 {
    key.client_port as u32 | (key.vip_port as u32) << 16
}

/// Whether the same client port already talks to this endpoint through another bind: behind the rewrite the two
/// could not be told apart.
#[inline(always)]
fn clashes(key: &FlowKey, backend: &Backend) -> bool {
    let place = Place::new(backend.protocol, Addr(backend.addr), Port(backend.port));
    let Some(replies) = REPLIES.get_ptr(&place) else {
        return false;
    };
    // SAFETY: a map value, valid until the program ends.
    let replies: &Replies = unsafe { &*replies };
    if replies.count < 2 {
        return false;
    }
    for i in 0..MAX_VIPS_PER_ENDPOINT {
        let vip = &replies.vips[i];
        if vip.port == 0 || (vip.port == key.vip_port && vip.addr == key.vip) {
            continue;
        }
        let other = FlowKey {
            vip: vip.addr,
            vip_port: vip.port,
            ..*key
        };
        if let Some(flow) = FLOWS.get_ptr(&other) {
            // SAFETY: as above; copied at once.
            let flow = unsafe { ptr::read(flow) };
            if let Some(used) = alive(flow.backend, flow.generation)
                && used.addr == backend.addr
                && used.port == backend.port
            {
                return true;
            }
        }
    }
    false
}

/// Whose flow a reply is, before it is known of which bind: the endpoint stands in its place.
#[inline(always)]
fn reply_key(place: &Place, client: &Addr, client_port: Port) -> FlowKey {
    FlowKey::new(place.protocol, *client, client_port, Addr(place.addr), Port(place.port))
}

/// The flow and the id of the bind whose client the endpoint at `place` is talking to, if it is one of ours. The bind's address
/// goes into `key`.
#[inline(always)]
fn replying(place: &Place, key: &mut FlowKey) -> Option<(*mut Flow, u32)> {
    let replies = REPLIES.get_ptr(place)?;
    // SAFETY: a map value, valid until the program ends.
    let replies: &Replies = unsafe { &*replies };
    for i in 0..MAX_VIPS_PER_ENDPOINT {
        let vip = &replies.vips[i];
        if vip.port == 0 {
            break;
        }
        let [a, b, c, d] = vip.addr;
        // Word by word, and without a second key: the programs have 512 bytes of stack, with those of what they call.
        key.vip = [a, b, c, d];
        key.vip_port = vip.port;
        if let Some(flow) = FLOWS.get_ptr_mut(&*key) {
            // SAFETY: as above; copied at once.
            let copy = unsafe { ptr::read(flow) };
            if copy.addr != 0 {
                if Addr::from_v4_word(copy.addr).0 == place.addr && copy.port == place.port {
                    return Some((flow, copy.vip));
                }
            } else if let Some(backend) = BACKENDS.get(copy.backend)
                && backend.generation == copy.generation
                && backend.addr == place.addr
                && backend.port == place.port
            {
                return Some((flow, backend.vip));
            }
        }
    }
    None
}

#[inline(always)]
fn transport_out(ctx: &TcContext, skb: &Skb<'_>, ip: &Ip, piece: Option<u32>) -> Outcome {
    let Some((port, client_port)) = packet::ports(&Headers(skb), ip.l4) else {
        return Outcome::Foreign;
    };
    if !maps::has_port(Side::Endpoint, ip.protocol, port) {
        return Outcome::Foreign;
    }
    let place = Place::new(ip.protocol, ip.src, port);
    let mut key = reply_key(&place, &ip.dst, client_port);
    let Some((flow, vip)) = replying(&place, &mut key) else {
        return Outcome::Foreign;
    };
    let now = recent_tick();
    let flags = if ip.protocol == TCP {
        TcpFlags::read(&Headers(skb), ip.l4)
    } else {
        None
    };
    // SAFETY: a map value, valid until the program ends; copied at once.
    if flags.is_some_and(TcpFlags::syn) && unsafe { ptr::read(flow) }.ended() {
        // Part of a connection on the same ports that did not come by way of the bind: what is known is of an earlier one.
        let _ = FLOWS.remove(&key);
        return Outcome::Foreign;
    }
    // SAFETY: a map value, valid until the program ends; each byte and word is stored alone.
    unsafe {
        if (*flow).seen != now {
            (*flow).seen = now;
        }
        if let Some(flags) = flags {
            if flags.fin() && (*flow).fin_out == 0 {
                (*flow).fin_out = 1;
            }
            if flags.rst() {
                (*flow).reset = 1;
            }
        }
    }
    if let Some(id) = piece {
        // A failure costs this datagram its other pieces.
        let _ = PIECES.insert(&piece_key(ip, id), &key.vip, BPF_ANY);
    }
    let outcome = done(
        skb.rewrite(ip, (port, client_port), End::Src, &Addr(key.vip), Port(key.vip_port)),
        Outcome::Returned,
    );
    if let Some(traffic) = TRAFFIC.get_ptr_mut(vip) {
        // SAFETY: this CPU's own element.
        unsafe {
            (*traffic).packets_out += 1;
            (*traffic).bytes_out += ctx.len() as u64;
        }
    }
    outcome
}

#[inline(always)]
fn traffic_in(vip: u32, len: u32, outcome: Outcome) {
    let Some(traffic) = TRAFFIC.get_ptr_mut(vip) else {
        return;
    };
    // SAFETY: this CPU's own element.
    unsafe {
        match outcome {
            Outcome::Forwarded | Outcome::Opened => {
                (*traffic).packets_in += 1;
                (*traffic).bytes_in += len as u64;
                (*traffic).flows += (outcome as u32 == Outcome::Opened as u32) as u64;
            }
            // The node that has the endpoint counts it.
            Outcome::Relayed => {}
            _ => (*traffic).to_stack += 1,
        }
    }
}

/// An error about a reply we rewrote, from the client or a router before it: to the endpoint that sent the reply, or to the
/// node that rewrote it.
#[inline(always)]
fn error_in(ctx: &TcContext, skb: &Skb<'_>, ip: &Ip) -> Outcome {
    let Some(inner) = icmp::inner(skb, ip) else {
        return Outcome::Foreign;
    };
    // It is about a packet from the bind to the client, and must be addressed to the bind.
    if inner.ip.src != ip.dst {
        return Outcome::Foreign;
    }
    let key = FlowKey::new(inner.ip.protocol, inner.ip.dst, inner.dst, inner.ip.src, inner.src);
    let backend = match FLOWS.get_ptr(&key) {
        Some(flow) => {
            // SAFETY: a map value; copied at once.
            let flow = unsafe { ptr::read(flow) };
            match alive(flow.backend, flow.generation) {
                Some(backend) => backend,
                None => return Outcome::DeadBackend,
            }
        }
        None => match elsewhere(ctx, &key, ip.v4) {
            Some(backend) => backend,
            None => return Outcome::Foreign,
        },
    };
    if !backend.hop.is_here() {
        return skb.relay(ip, &backend.hop);
    }
    done(
        skb.rewrite_error(ip, &inner, End::Src, (&Addr(backend.addr), Port(backend.port))),
        Outcome::IcmpIn,
    )
}

/// The endpoint on another node that a flow without an entry hashes to, unless a socket of this machine has the flow.
#[inline(always)]
fn elsewhere(ctx: &TcContext, key: &FlowKey, v4: bool) -> Option<&'static Backend> {
    let table = maps::table(&Place::new(key.protocol, Addr(key.vip), Port(key.vip_port)))?;
    let slots = table.get(0)?.generation;
    if slots == 0 {
        return None;
    }
    let (_, backend) = pick(key, table, slots)?;
    if backend.hop.is_here()
        || (key.protocol == TCP && local_connection(ctx, v4, key, TcpFlags(0)))
        || is_behind(ctx, v4, key, &backend.hop)
    {
        return None;
    }
    Some(backend)
}

/// Whether the way to the client is by that node.
#[inline(always)]
fn is_behind(ctx: &TcContext, v4: bool, key: &FlowKey, hop: &Hop) -> bool {
    const AF_INET: u32 = 2;
    const AF_INET6: u32 = 10;
    const SKIP_NEIGH: u32 = 1 << 2;
    let words = |addr: &[u32; 4]| if v4 { [addr[3], 0, 0, 0] } else { *addr };
    let ([v0, v1, v2, v3], [c0, c1, c2, c3]) = (words(&key.vip), words(&key.client));
    let family = if v4 { AF_INET } else { AF_INET6 };
    // SAFETY: a field of the context, part of its UAPI.
    let link = unsafe { (*ctx.skb.skb).ifindex };
    // `struct bpf_fib_lookup`: family, interface, source, destination, and room for what is found.
    let mut question = [family, 0, link, 0, v0, v1, v2, v3, c0, c1, c2, c3, 0, 0, 0, 0];
    // SAFETY: 64 bytes, which the helper reads and writes. Whatever it says: the destination is then the gateway, if there is
    // one, or still the client.
    unsafe {
        bpf_fib_lookup(
            ctx.as_ptr(),
            question.as_mut_ptr().cast(),
            size_of_val(&question) as i32,
            SKIP_NEIGH,
        )
    };
    [question[8], question[9], question[10], question[11]] == words(&hop.addr)
}

/// An error about a packet that we rewrote, from the endpoint or on the way to it: to the client that sent it.
///
/// Its source becomes the bind, whoever sent it: the client cannot reach an inner address, and should not learn it.
#[inline(always)]
fn error_out(skb: &Skb<'_>, ip: &Ip) -> Outcome {
    let Some(inner) = icmp::inner(skb, ip) else {
        return Outcome::Foreign;
    };
    if inner.ip.src != ip.dst {
        return Outcome::Foreign;
    }
    let place = Place::new(inner.ip.protocol, inner.ip.dst, inner.dst);
    let mut key = reply_key(&place, &inner.ip.src, inner.src);
    if replying(&place, &mut key).is_none() {
        return Outcome::Foreign;
    }
    done(
        skb.rewrite_error(ip, &inner, End::Dst, (&Addr(key.vip), Port(key.vip_port))),
        Outcome::IcmpOut,
    )
}
