//! Names, versions and limits of what is pinned.

/// Part of the pin path. Raise it whenever a key, a value, a limit or the meaning of one changes: a process with
/// another layout then opens its own maps beside the old ones, instead of reading them wrongly.
pub const LAYOUT: u32 = 5;

/// Slots of the `CONTROL` array, each one `u64` that is written whole.
pub mod control {
    /// Which of the two socket generations answers now: 0 or 1.
    pub const ACTIVE: u32 = 0;
    /// Workers in generation 0; generation 1 is the slot after it.
    pub const WORKERS: u32 = 1;
    /// New L4 flows are accepted until this `CLOCK_MONOTONIC` nanosecond; afterwards they go up the stack, so that
    /// a process that died does not leave stale endpoints in charge.
    pub const LEASE: u32 = 3;
    /// Seed of every flow hash, the same in all processes that share the maps, and on all nodes that share addresses.
    pub const SEED: u32 = 4;
    /// New flows that one CPU may insert per window; beyond it they go up the stack, where SYN cookies work.
    pub const GATE: u32 = 5;
    /// Token of the process that activated last: a random number above its process id.
    pub const OWNER: u32 = 6;
    /// Token of the process that changed other maps last. Another one reads them again before it changes them.
    pub const WRITER: u32 = 7;
    /// Grows whenever an endpoint retires: what a flow remembers of its endpoint holds as long as this is what it was then.
    pub const EPOCH: u32 = 8;
    /// The present tick (see [`super::TICK_SHIFT`]), written with each new lease: nearly as good as a look at the clock, and at
    /// hand.
    pub const TICK: u32 = 9;
    pub const SLOTS: usize = 10;
}

/// Two generations of sockets, so that a new process fills one while the old one still answers from the other.
pub const GENERATIONS: usize = 2;
pub const MAX_WORKERS: usize = 256;
/// Sockets of one worker: TCP and UDP, IPv4 and IPv6.
pub const SOCKETS_PER_WORKER: usize = 4;
pub const MAX_SOCKETS: usize = GENERATIONS * MAX_WORKERS * SOCKETS_PER_WORKER;
/// Connection counters: one per worker and generation, so that a process that drains does not count in its successor's.
pub const MAX_LOADS: usize = GENERATIONS * MAX_WORKERS;

pub const MAX_BINDINGS: usize = 65_536;
pub const MAX_OWNED: usize = 16_384;

/// Words of `PORTS`: see [`crate::l4::port_bit`].
pub const PORT_WORDS: usize = 4_096;

/// Ids of L4 binds and of endpoints. Half of them may be held by what is about to retire, so as many as the other half are in the
/// kernel at once.
pub const MAX_VIPS: usize = 20_480;
pub const MAX_BACKENDS: usize = 65_536;
/// Unless whoever makes the map asks for another number.
pub const MAX_FLOWS: usize = 262_144;
/// Fragmented replies under way at once. The oldest is forgotten first; losing one costs a datagram.
pub const MAX_PIECES: usize = 8_192;
/// L4 binds that may share one endpoint in the kernel. A reply looks at each of them.
pub const MAX_VIPS_PER_ENDPOINT: usize = 4;

/// `BPF_F_INNER_MAP`: inner arrays may differ in length (kernel 5.10).
pub const F_INNER_MAP: u32 = 1 << 12;
/// `BPF_F_NO_PREALLOC`.
pub const F_NO_PREALLOC: u32 = 1;
/// `BPF_F_MMAPABLE`.
pub const F_MMAPABLE: u32 = 1 << 10;

/// A window of the insert gate, as a power of two of nanoseconds: about 134 ms.
pub const GATE_WINDOW_SHIFT: u32 = 27;
/// Ticks of [`crate::l4::Flow::seen`], as a power of two of nanoseconds: about 1.07 s.
pub const TICK_SHIFT: u32 = 30;

/// Map names, as they stand in the object and in the pin directory.
pub mod map {
    pub const CONTROL: &str = "CONTROL";
    pub const BINDINGS: &str = "BINDINGS";
    pub const OWNED: &str = "OWNED";
    pub const SOCKETS: &str = "SOCKETS";
    pub const LOADS: &str = "LOADS";
    pub const STEERED: &str = "STEERED";
    pub const PORTS: &str = "PORTS";
    pub const VIPS: &str = "VIPS";
    pub const BACKENDS: &str = "BACKENDS";
    pub const REPLIES: &str = "REPLIES";
    pub const FLOWS: &str = "FLOWS";
    pub const PIECES: &str = "PIECES";
    pub const GATES: &str = "GATES";
    pub const OUTCOMES: &str = "OUTCOMES";
    pub const TRAFFIC: &str = "TRAFFIC";

    /// All of them: pinned and removed together.
    pub const ALL: [&str; 15] = [
        CONTROL, BINDINGS, OWNED, SOCKETS, LOADS, STEERED, PORTS, VIPS, BACKENDS, REPLIES, FLOWS, PIECES, GATES,
        OUTCOMES, TRAFFIC,
    ];
}

/// Program names, as they stand in the object.
pub mod program {
    pub const STEER: &str = "pierhead_steer";
    pub const INGRESS: &str = "pierhead_in";
    pub const EGRESS: &str = "pierhead_out";
}
