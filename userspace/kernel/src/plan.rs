//! From what is in the maps and what is wanted to the operations between them. Pure.
//!
//! Order: endpoints before the binds that use them, local addresses last; retired in reverse. A packet that arrives in
//! the middle finds either the old or the new, never a bind without its endpoints.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ipnet::IpNet;
use pierhead_abi::Port;
use pierhead_abi::l4::{Backend, Hop, Place, Replies, Side, Slot, VipRef, port_bit};
use pierhead_abi::layout::{MAX_BACKENDS, MAX_VIPS, MAX_VIPS_PER_ENDPOINT};
use pierhead_abi::steer::{Binding, BindingKey, Owned};

/// A binding's key with its prefix length in bits.
pub type BindingPrefix = (u32, BindingKey);
/// An owned prefix: bits of the 16-byte address, and the address.
pub type OwnedBits = (u32, [u32; 4]);

/// What is wanted, before ids are given out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub bindings: BTreeMap<BindingPrefix, Binding>,
    pub owned: BTreeMap<OwnedBits, Owned>,
    /// Prefixes to make local by a route.
    pub local: BTreeSet<IpNet>,
    /// L4 bind → its endpoints with their weights. Weight 0: keeps its flows, takes no new ones.
    pub vips: BTreeMap<Place, BTreeMap<Target, u32>>,
    /// Of flow hashes and tables: the same on all nodes that share addresses. `None`: what the kernel has already.
    pub seed: Option<u64>,
}

/// An endpoint, and the way to its node. One that moved is another one: what the kernel knew of its flows was for its old place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    pub place: Place,
    pub hop: Hop,
}

impl Target {
    /// On this node.
    pub fn here(place: Place) -> Self {
        Self { place, hop: Hop::HERE }
    }
}

/// An endpoint of one bind. The same address behind two binds is two of them, so that each bind lets go of it alone.
pub type Pair = (Place, Target);

/// A bind's table as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    pub vip: u32,
    pub seed: u64,
    /// In order of endpoint; weight 0 included.
    pub members: Vec<(Place, Slot, u32)>,
}

/// What is in the maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub seed: u64,
    pub bindings: BTreeMap<BindingPrefix, Binding>,
    pub owned: BTreeMap<OwnedBits, Owned>,
    pub local: BTreeSet<IpNet>,
    pub pairs: BTreeMap<Pair, Slot>,
    pub replies: BTreeMap<Place, Replies>,
    /// Tables whose members are known. A restarted process knows only ids, in `vip_ids`, and writes each table anew.
    pub tables: BTreeMap<Place, Table>,
    pub vip_ids: BTreeMap<Place, u32>,
    /// Words of `PORTS` that are not zero, by index.
    pub ports: BTreeMap<u32, u64>,
    pub ids: Ids,
}

/// Ids that are free. The one that was given back longest ago is used first, so that a stale flow finds a dead
/// endpoint rather than a new one; the generation catches the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    /// Backend ids given back, with the last generation each had.
    pub free: VecDeque<Slot>,
    /// First backend id never used.
    pub fresh: u32,
    pub free_vips: VecDeque<u32>,
    pub fresh_vip: u32,
}

/// One step. Each is idempotent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapOp {
    PutSeed(u64),
    /// A word of `PORTS`.
    PutPorts {
        index: u32,
        ports: u64,
    },
    PutBackend {
        id: u32,
        backend: Backend,
    },
    PutReplies {
        endpoint: Place,
        replies: Replies,
    },
    /// `fresh`: the id had another bind before, so its counters start at zero.
    PutTable {
        vip: Place,
        table: Table,
        fresh: bool,
    },
    PutBinding {
        key: BindingPrefix,
        binding: Binding,
    },
    PutOwned {
        key: OwnedBits,
        owned: Owned,
    },
    AddLocal(IpNet),
    RemoveLocal(IpNet),
    DropOwned {
        key: OwnedBits,
    },
    DropBinding {
        key: BindingPrefix,
    },
    DropTable {
        vip: Place,
    },
    DropReplies {
        endpoint: Place,
    },
    /// No flow uses it any more, also none that remembers it.
    RetireBackend {
        id: u32,
        backend: Backend,
    },
}

impl MapOp {
    /// Whether both can be done in one step.
    pub(crate) fn goes_with(&self, next: &Self) -> bool {
        matches!(
            (self, next),
            (Self::PutTable { .. }, Self::PutTable { .. })
                | (Self::DropTable { .. }, Self::DropTable { .. })
                | (Self::RetireBackend { .. }, Self::RetireBackend { .. })
        )
    }
}

/// Binds in the kernel at once.
pub const MOST_VIPS: usize = MAX_VIPS / 2;
/// Endpoints in the kernel at once; of two binds they are two.
pub const MOST_BACKENDS: usize = MAX_BACKENDS / 2;

/// Why a bind cannot be in the kernel although its endpoints are here: [`bounded`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    Vips,
    Backends,
    SharedEndpoint,
}

impl Full {
    pub fn why(self) -> String {
        match self {
            Self::Vips => format!("the kernel already has its {MOST_VIPS} layer 4 binds"),
            Self::Backends => format!("the kernel already has its {MOST_BACKENDS} endpoints"),
            Self::SharedEndpoint => {
                format!("an endpoint of it is already shared by {MAX_VIPS_PER_ENDPOINT} layer 4 binds")
            }
        }
    }
}

/// Takes the binds out of `wanted.vips` that go beyond a limit, the last in order first.
pub fn bounded(wanted: &mut Wanted) -> BTreeMap<Place, Full> {
    let mut refused = BTreeMap::new();
    let mut users: BTreeMap<Place, usize> = BTreeMap::new();
    let mut pairs = 0;
    for (count, (vip, endpoints)) in wanted.vips.iter().enumerate() {
        let full = if count - refused.len() >= MOST_VIPS {
            Some(Full::Vips)
        } else if pairs + endpoints.len() > MOST_BACKENDS {
            Some(Full::Backends)
        } else if endpoints
            .keys()
            .any(|endpoint| users.get(&endpoint.place).is_some_and(|n| *n >= MAX_VIPS_PER_ENDPOINT))
        {
            Some(Full::SharedEndpoint)
        } else {
            None
        };
        if let Some(full) = full {
            refused.insert(*vip, full);
            continue;
        }
        pairs += endpoints.len();
        // Those on other nodes too, whose replies do not pass here: all nodes must refuse the same.
        for endpoint in endpoints.keys() {
            *users.entry(endpoint.place).or_default() += 1;
        }
    }
    wanted.vips.retain(|vip, _| !refused.contains_key(vip));
    refused
}

/// The operations from `old` to `wanted`, in a safe order, and what the maps hold after them.
///
/// `wanted` must be [`bounded`].
pub fn plan(old: &State, wanted: &Wanted) -> (Vec<MapOp>, State) {
    let mut ops = Vec::new();
    let mut new = State {
        bindings: wanted.bindings.clone(),
        owned: wanted.owned.clone(),
        local: wanted.local.clone(),
        ids: old.ids.clone(),
        seed: wanted.seed.unwrap_or(old.seed),
        ports: ports(wanted),
        ..State::default()
    };
    if new.seed != old.seed {
        ops.push(MapOp::PutSeed(new.seed));
    }
    widen_ports(old, &new, &mut ops);
    name_vips(old, wanted, &mut new);
    put_backends(old, wanted, &mut new, &mut ops);
    put_replies(old, &mut new, &mut ops);
    put_tables(old, wanted, &mut new, &mut ops);
    ops.extend(
        changed(&old.bindings, &new.bindings).map(|(key, binding)| MapOp::PutBinding {
            key: *key,
            binding: *binding,
        }),
    );
    ops.extend(changed(&old.owned, &new.owned).map(|(key, owned)| MapOp::PutOwned {
        key: *key,
        owned: *owned,
    }));
    ops.extend(new.local.difference(&old.local).map(|net| MapOp::AddLocal(*net)));

    ops.extend(old.local.difference(&new.local).map(|net| MapOp::RemoveLocal(*net)));
    ops.extend(gone(&old.owned, &new.owned).map(|(key, _)| MapOp::DropOwned { key: *key }));
    ops.extend(gone(&old.bindings, &new.bindings).map(|(key, _)| MapOp::DropBinding { key: *key }));
    for (vip, id) in gone(&old.vip_ids, &new.vip_ids) {
        ops.push(MapOp::DropTable { vip: *vip });
        new.ids.free_vips.push_back(*id);
    }
    narrow_replies(old, &new, &mut ops);
    ops.extend(gone(&old.replies, &new.replies).map(|(endpoint, _)| MapOp::DropReplies { endpoint: *endpoint }));
    narrow_ports(old, &new, &mut ops);
    for ((vip, endpoint), slot) in gone(&old.pairs, &new.pairs) {
        let vip = old.vip_ids.get(vip).copied().unwrap_or_default();
        ops.push(MapOp::RetireBackend {
            id: slot.backend,
            backend: backend(vip, endpoint, slot.generation, 0),
        });
        new.ids.free.push_back(*slot);
    }
    (ops, new)
}

/// The ports of all binds, and of all endpoints here.
fn ports(wanted: &Wanted) -> BTreeMap<u32, u64> {
    let endpoints = wanted.vips.values().flat_map(BTreeMap::keys);
    let here = endpoints.filter(|endpoint| endpoint.hop.is_here());
    let binds = wanted.vips.keys().map(|vip| (Side::Bind, vip));
    let mut words = BTreeMap::new();
    for (side, place) in binds.chain(here.map(|endpoint| (Side::Endpoint, &endpoint.place))) {
        let (index, bit) = port_bit(side, place.protocol, Port(place.port));
        *words.entry(index).or_default() |= bit;
    }
    words
}

/// While binds and endpoints change, the ports of the old and of the new are looked at.
fn widen_ports(old: &State, new: &State, ops: &mut Vec<MapOp>) {
    for (&index, ports) in &new.ports {
        let before = old.ports.get(&index).copied().unwrap_or_default();
        if before | ports != before {
            ops.push(MapOp::PutPorts {
                index,
                ports: before | ports,
            });
        }
    }
}

/// What [`widen_ports`] left wider than it should be.
fn narrow_ports(old: &State, new: &State, ops: &mut Vec<MapOp>) {
    for (&index, before) in &old.ports {
        let ports = new.ports.get(&index).copied().unwrap_or_default();
        if before | ports != ports {
            ops.push(MapOp::PutPorts { index, ports });
        }
    }
}

fn name_vips(old: &State, wanted: &Wanted, new: &mut State) {
    for vip in wanted.vips.keys() {
        let id = old.vip_ids.get(vip).copied().unwrap_or_else(|| {
            if (new.ids.fresh_vip as usize) < MAX_VIPS {
                new.ids.fresh_vip += 1;
                new.ids.fresh_vip - 1
            } else {
                new.ids.free_vips.pop_front().unwrap_or_default()
            }
        });
        new.vip_ids.insert(*vip, id);
    }
}

fn put_backends(old: &State, wanted: &Wanted, new: &mut State, ops: &mut Vec<MapOp>) {
    for (vip, endpoints) in &wanted.vips {
        let id = new.vip_ids.get(vip).copied().unwrap_or_default();
        for endpoint in endpoints.keys() {
            let pair = (*vip, *endpoint);
            let slot = match old.pairs.get(&pair) {
                Some(slot) => *slot,
                None => {
                    let slot = next_slot(&mut new.ids);
                    // First everything but `alive`, which says that the rest is there.
                    for alive in [0, 1] {
                        let backend = backend(id, endpoint, slot.generation, alive);
                        ops.push(MapOp::PutBackend {
                            id: slot.backend,
                            backend,
                        });
                    }
                    slot
                }
            };
            new.pairs.insert(pair, slot);
        }
    }
}

fn next_slot(ids: &mut Ids) -> Slot {
    // An id that was never used is better than any that was.
    if (ids.fresh as usize) < MAX_BACKENDS {
        ids.fresh += 1;
        return Slot {
            backend: ids.fresh - 1,
            generation: 1,
        };
    }
    let slot = ids.free.pop_front().unwrap_or_default();
    Slot {
        generation: slot.generation.wrapping_add(1),
        ..slot
    }
}

fn backend(vip: u32, Target { place, hop }: &Target, generation: u32, alive: u8) -> Backend {
    Backend {
        addr: place.addr,
        port: place.port,
        protocol: place.protocol,
        alive,
        generation,
        vip,
        hop: *hop,
    }
}

fn put_replies(old: &State, new: &mut State, ops: &mut Vec<MapOp>) {
    for (vip, endpoint) in new.pairs.keys().filter(|(_, endpoint)| endpoint.hop.is_here()) {
        let replies = new.replies.entry(endpoint.place).or_default();
        if let Some(free) = replies.vips.get_mut(replies.count as usize) {
            *free = VipRef {
                addr: vip.addr,
                port: vip.port,
                reserved: 0,
            };
            replies.count += 1;
        }
    }
    // While tables change, both the binds that had the endpoint and those that get it may be answered from it.
    for (endpoint, replies) in changed(&old.replies, &new.replies) {
        let early = old.replies.get(endpoint).map_or(*replies, |old| union(old, replies));
        if old.replies.get(endpoint) != Some(&early) {
            ops.push(MapOp::PutReplies {
                endpoint: *endpoint,
                replies: early,
            });
        }
    }
}

/// The binds of `new`, and of `old` as many as there is room for.
fn union(old: &Replies, new: &Replies) -> Replies {
    let mut all = *new;
    for vip in old
        .vips
        .iter()
        .take(old.count as usize)
        .filter(|vip| !new.vips.contains(vip))
    {
        if let Some(free) = all.vips.get_mut(all.count as usize) {
            *free = *vip;
            all.count += 1;
        }
    }
    all
}

/// What [`put_replies`] left wider than it should be.
fn narrow_replies(old: &State, new: &State, ops: &mut Vec<MapOp>) {
    for (endpoint, replies) in changed(&old.replies, &new.replies) {
        if old
            .replies
            .get(endpoint)
            .is_some_and(|old| union(old, replies) != *replies)
        {
            ops.push(MapOp::PutReplies {
                endpoint: *endpoint,
                replies: *replies,
            });
        }
    }
}

fn put_tables(old: &State, wanted: &Wanted, new: &mut State, ops: &mut Vec<MapOp>) {
    for (vip, endpoints) in &wanted.vips {
        let id = new.vip_ids.get(vip).copied().unwrap_or_default();
        let slot = |endpoint: &Target| new.pairs.get(&(*vip, *endpoint)).copied().unwrap_or_default();
        let members = endpoints
            .iter()
            .map(|(endpoint, weight)| (endpoint.place, slot(endpoint), *weight))
            .collect();
        let table = Table {
            vip: id,
            seed: new.seed,
            members,
        };
        if old.tables.get(vip) != Some(&table) {
            ops.push(MapOp::PutTable {
                vip: *vip,
                table: table.clone(),
                fresh: !old.vip_ids.contains_key(vip),
            });
        }
        new.tables.insert(*vip, table);
    }
}

/// Entries of `new` that `old` lacks or has otherwise.
fn changed<'a, K: Ord, V: PartialEq>(
    old: &'a BTreeMap<K, V>,
    new: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, &'a V)> {
    new.iter().filter(|(key, value)| old.get(key) != Some(value))
}

/// Entries of `old` that `new` lacks.
fn gone<'a, K: Ord, V>(old: &'a BTreeMap<K, V>, new: &'a BTreeMap<K, V>) -> impl Iterator<Item = (&'a K, &'a V)> {
    old.iter().filter(|(key, _)| !new.contains_key(key))
}
