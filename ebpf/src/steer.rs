//! Socket lookup: binding → worker → socket.

use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::programs::SkLookupContext;
use core::ptr;
use pierhead_abi::layout::control;
use pierhead_abi::packet::TCP;
use pierhead_abi::steer::{
    Binding, BindingKey, SocketKind, Steered, action, busier, load_index, on_miss, socket_index,
};
use pierhead_abi::{Addr, Port, hash};

use crate::maps::{self, BINDINGS, LOADS, OWNED, SOCKETS, STEERED};

const AF_INET: u32 = 2;
/// `BPF_SK_LOOKUP_F_NO_REUSEPORT`: the worker is chosen here, not by a group the socket may be in.
const NO_REUSEPORT: u64 = 1 << 1;

/// Counts an outcome and hands it on.
#[inline(always)]
pub fn count(outcome: Steered) -> Steered {
    maps::bump(&STEERED, outcome as u32);
    outcome
}

/// What a lookup is about.
struct Lookup {
    v4: bool,
    protocol: u8,
    remote: Addr,
    remote_port: Port,
    local: Addr,
    local_port: Port,
}

#[inline(always)]
fn read(ctx: &SkLookupContext) -> Lookup {
    // The verifier allows each field only in its own width, so none may be merged with its neighbour: volatile.
    macro_rules! field {
        ($($path:tt)+) => {
            // SAFETY: the kernel passes a valid context, and the fields are part of its UAPI.
            unsafe { ptr::read_volatile(&raw const (*ctx.lookup).$($path)+) }
        };
    }
    // Both families are read (the other one's fields are zero): a branch here lets the compiler select between two
    // pointers into the context, which the verifier refuses.
    let (remote_v4, local_v4) = (field!(remote_ip4), field!(local_ip4));
    let remote_v6 = [
        field!(remote_ip6[0]),
        field!(remote_ip6[1]),
        field!(remote_ip6[2]),
        field!(remote_ip6[3]),
    ];
    let local_v6 = [
        field!(local_ip6[0]),
        field!(local_ip6[1]),
        field!(local_ip6[2]),
        field!(local_ip6[3]),
    ];
    let v4 = field!(family) == AF_INET;
    let (remote, local) = if v4 {
        (Addr::from_v4_word(remote_v4), Addr::from_v4_word(local_v4))
    } else {
        (Addr(remote_v6), Addr(local_v6))
    };
    Lookup {
        v4,
        protocol: field!(protocol) as u8,
        remote,
        remote_port: Port(field!(remote_port) as u16),
        local,
        // The kernel gives this one in host order.
        local_port: Port::new(field!(local_port) as u16),
    }
}

/// The binding of the longest address prefix; on a tie the exact port before all ports. `action::NONE`: there is none.
/// (No `Option`: the compiler copies its unset half around, which the verifier refuses.)
#[inline(always)]
fn binding(lookup: &Lookup) -> Binding {
    let find = |port| {
        let key = Key::new(
            BindingKey::prefix_len(128),
            BindingKey::new(lookup.protocol, port, lookup.local),
        );
        match BINDINGS.get(&key) {
            Some(binding) => *binding,
            None => Binding {
                addr_bits: 0,
                action: action::NONE,
                on_miss: 0,
                reserved: 0,
            },
        }
    };
    let (exact, any) = (find(lookup.local_port), find(Port::ANY));
    if exact.action == action::NONE || (any.action != action::NONE && any.addr_bits > exact.addr_bits) {
        any
    } else {
        exact
    }
}

#[inline(always)]
fn miss(policy: u8) -> Steered {
    if policy == on_miss::REFUSE {
        Steered::MissRefused
    } else {
        Steered::MissPassed
    }
}

#[inline(always)]
pub fn steer(ctx: &SkLookupContext) -> Steered {
    let lookup = read(ctx);
    let binding = binding(&lookup);
    if binding.action == action::NONE {
        return match OWNED.get(&Key::new(128, lookup.local.0)) {
            Some(owned) => miss(owned.on_miss),
            None => Steered::Foreign,
        };
    }
    if binding.action != action::STEER {
        return Steered::Exempt;
    }
    let generation = maps::control(control::ACTIVE) as u32 & 1;
    let workers = maps::control(control::WORKERS + generation) as u32;
    if workers == 0 {
        return miss(binding.on_miss);
    }
    let kind = match (lookup.protocol == TCP, lookup.v4) {
        (true, true) => SocketKind::Tcp4,
        (true, false) => SocketKind::Tcp6,
        (false, true) => SocketKind::Udp4,
        (false, false) => SocketKind::Udp6,
    };
    let seed = maps::control(control::SEED);
    let flow = hash::flow(
        seed,
        lookup.protocol,
        &lookup.remote,
        lookup.remote_port,
        &lookup.local,
        lookup.local_port,
    );
    let first = hash::scale(flow, workers);
    let second = hash::scale(hash::mix(flow), workers);
    // A datagram has no connection to count: its worker never changes.
    let swap = lookup.protocol == TCP && busier(load(generation, first), load(generation, second));
    let (chosen, other) = if swap { (second, first) } else { (first, second) };
    if assign(ctx, socket_index(generation, chosen, kind)) {
        return if swap {
            Steered::AssignedSecond
        } else {
            Steered::Assigned
        };
    }
    // That worker is gone; the other may still be there.
    if assign(ctx, socket_index(generation, other, kind)) {
        return Steered::AssignedSecond;
    }
    miss(binding.on_miss)
}

#[inline(always)]
fn load(generation: u32, worker: u32) -> u64 {
    match LOADS.get_ptr(load_index(generation, worker)) {
        // SAFETY: an element of an array map stays valid; workers write it at any time, so it is read once, whole.
        Some(load) => unsafe { ptr::read_volatile(load) },
        None => 0,
    }
}

#[inline(always)]
fn assign(ctx: &SkLookupContext, index: u32) -> bool {
    SOCKETS.redirect_sk_lookup(ctx, index, NO_REUSEPORT).is_ok()
}
