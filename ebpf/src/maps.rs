//! The maps. Names, sizes, keys and values are the ABI's.

use aya_ebpf::btf_maps::{Array, HashMap, HashOfMaps, LpmTrie, LruHashMap, PerCpuArray, SockMap};
use aya_ebpf::macros::btf_map;
use pierhead_abi::Port;
use pierhead_abi::l4::{
    Backend, Flow, FlowKey, Gate, Outcome, PieceKey, Place, Replies, Side, Slot, Traffic, port_bit,
};
use pierhead_abi::layout::{
    F_INNER_MAP, F_MMAPABLE, F_NO_PREALLOC, MAX_BACKENDS, MAX_BINDINGS, MAX_FLOWS, MAX_LOADS, MAX_OWNED, MAX_PIECES,
    MAX_SOCKETS, MAX_VIPS, PORT_WORDS, control,
};
use pierhead_abi::maglev::SIZES;
use pierhead_abi::steer::{Binding, BindingKey, Owned, Steered};

/// Scalars that change at run time.
#[btf_map]
pub static CONTROL: Array<u64, { control::SLOTS }> = Array::new();

/// Protocol, port and address prefix → what to do.
#[btf_map]
pub static BINDINGS: LpmTrie<BindingKey, Binding, MAX_BINDINGS> = LpmTrie::new();

/// Address prefix → it is ours.
#[btf_map]
pub static OWNED: LpmTrie<[u32; 4], Owned, MAX_OWNED> = LpmTrie::new();

/// Workers' sockets, by generation, worker and kind.
#[btf_map]
pub static SOCKETS: SockMap<MAX_SOCKETS> = SockMap::new();

/// Connections of each worker, by generation and worker; workers write it through shared memory.
#[btf_map]
pub static LOADS: Array<u64, MAX_LOADS, { F_MMAPABLE as usize }> = Array::new();

#[btf_map]
pub static STEERED: PerCpuArray<u64, { Steered::COUNT }> = PerCpuArray::new();

/// Which ports binds and endpoints have, a bit each: most packets of a node are of none of them.
#[btf_map]
pub static PORTS: Array<u64, PORT_WORDS> = Array::new();

/// A bind's table: the first element is a `Head`, the others are `Slot`s.
pub type Table = Array<Slot, { SIZES[4] as usize + 1 }, { F_INNER_MAP as usize }>;

/// L4 bind → its table, replaced whole.
#[btf_map]
pub static VIPS: HashOfMaps<Place, Table, MAX_VIPS> = HashOfMaps::new();

/// Endpoint id → endpoint.
#[btf_map]
pub static BACKENDS: Array<Backend, MAX_BACKENDS> = Array::new();

/// Endpoint → the binds that use it.
#[btf_map]
pub static REPLIES: HashMap<Place, Replies, MAX_BACKENDS, { F_NO_PREALLOC as usize }> = HashMap::new();

/// Not preallocated: memory follows use. Not LRU: an entry that still carries packets must not be evicted, since the
/// reply could no longer be rewritten. When it is full, new flows go up the stack.
#[btf_map]
pub static FLOWS: HashMap<FlowKey, Flow, MAX_FLOWS, { F_NO_PREALLOC as usize }> = HashMap::new();

/// Fragmented reply → address of the bind it comes from, for the pieces without ports.
#[btf_map]
pub static PIECES: LruHashMap<PieceKey, [u32; 4], MAX_PIECES> = LruHashMap::new();

#[btf_map]
pub static GATES: PerCpuArray<Gate, 1> = PerCpuArray::new();

#[btf_map]
pub static OUTCOMES: PerCpuArray<u64, { Outcome::COUNT }> = PerCpuArray::new();

#[btf_map]
pub static TRAFFIC: PerCpuArray<Traffic, MAX_VIPS> = PerCpuArray::new();

/// A scalar of `CONTROL`.
#[inline(always)]
pub fn control(slot: u32) -> u64 {
    match CONTROL.get(slot) {
        Some(value) => *value,
        None => 0,
    }
}

/// Whether any bind or endpoint has the port.
#[inline(always)]
pub fn has_port(side: Side, protocol: u8, port: Port) -> bool {
    let (word, bit) = port_bit(side, protocol, port);
    match PORTS.get(word) {
        Some(ports) => *ports & bit != 0,
        None => false,
    }
}

/// Adds one to this CPU's counter.
#[inline(always)]
pub fn bump<const N: usize>(counters: &PerCpuArray<u64, N>, index: u32) {
    if let Some(counter) = counters.get_ptr_mut(index) {
        // SAFETY: the kernel gave a valid pointer to this CPU's own element; nobody else writes it meanwhile.
        unsafe { *counter = (*counter).wrapping_add(1) };
    }
}

/// The table of an L4 bind.
#[inline(always)]
pub fn table(place: &Place) -> Option<&'static Table> {
    // SAFETY: the program runs under RCU, which keeps an inner map alive until it ends, replaced or not.
    unsafe { VIPS.get(place) }
}
