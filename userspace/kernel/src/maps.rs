//! The maps, opened: reading what is in them, and doing one operation of a plan.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use aya::Ebpf;
use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, HashOfMaps, LpmTrie, Map, MapData, MapError, PerCpuArray, PerCpuValues, SockMap};
use pierhead_abi::l4::{Backend, Flow, FlowKey, Head, Outcome, Place, Replies, Slot, Traffic};
use pierhead_abi::layout::{F_INNER_MAP, MAX_BACKENDS, MAX_VIPS, PORT_WORDS, control, map};
use pierhead_abi::steer::{Binding, BindingKey, Owned, Steered};
use pierhead_abi::{Addr, Port};
use rustix::thread::CapabilitySet;

use crate::error::KernelError;
use crate::plan::{Ids, MapOp, State, Table, Target};
use crate::table::slots;
use crate::{recall, sys};

type Inner = Array<MapData, [u8; Slot::SIZE]>;

/// Tables that are made before they are put: each is a descriptor until then.
const TABLES_AT_ONCE: usize = 128;

pub(crate) struct Maps {
    pub(crate) control: Array<MapData, u64>,
    pub(crate) sockets: SockMap<MapData>,
    loads: Map,
    bindings: LpmTrie<MapData, [u8; BindingKey::SIZE], [u8; Binding::SIZE]>,
    owned: LpmTrie<MapData, [u8; 16], [u8; Owned::SIZE]>,
    vips: HashOfMaps<MapData, [u8; Place::SIZE], Inner>,
    /// The same map.
    tables: OwnedFd,
    ports: Array<MapData, u64>,
    backends: Array<MapData, [u8; Backend::SIZE]>,
    replies: HashMap<MapData, [u8; Place::SIZE], [u8; Replies::SIZE]>,
    flows: Map,
    steered: PerCpuArray<MapData, u64>,
    outcomes: PerCpuArray<MapData, u64>,
    traffic: PerCpuArray<MapData, [u8; Traffic::SIZE]>,
    /// Endpoints have retired since [`Maps::settle`].
    unsettled: bool,
}

impl Maps {
    /// Takes the maps out of a loaded object.
    pub(crate) fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        macro_rules! take {
            ($name:ident) => {
                ebpf.take_map(map::$name)
                    .ok_or_else(|| MapError::InvalidName {
                        name: map::$name.to_owned(),
                    })
                    .and_then(TryInto::try_into)
                    .map_err(KernelError::map(map::$name))?
            };
        }
        let raw = |ebpf: &mut Ebpf, name: &'static str| {
            ebpf.take_map(name)
                .ok_or_else(|| KernelError::map(name)(MapError::InvalidName { name: name.to_owned() }))
        };
        let vips = raw(ebpf, map::VIPS)?;
        let tables = match &vips {
            Map::HashOfMaps(data) => data.fd().as_fd().try_clone_to_owned(),
            _ => Err(io::ErrorKind::InvalidData.into()),
        };
        Ok(Self {
            control: take!(CONTROL),
            sockets: take!(SOCKETS),
            loads: raw(ebpf, map::LOADS)?,
            bindings: take!(BINDINGS),
            owned: take!(OWNED),
            vips: vips.try_into().map_err(KernelError::map(map::VIPS))?,
            tables: tables.map_err(KernelError::system("share the map of binds"))?,
            ports: take!(PORTS),
            backends: take!(BACKENDS),
            replies: take!(REPLIES),
            flows: raw(ebpf, map::FLOWS)?,
            steered: take!(STEERED),
            outcomes: take!(OUTCOMES),
            traffic: take!(TRAFFIC),
            unsettled: false,
        })
    }

    pub(crate) fn control(&self, slot: u32) -> Result<u64, KernelError> {
        self.control.get(&slot, 0).map_err(KernelError::map(map::CONTROL))
    }

    pub(crate) fn set_control(&mut self, slot: u32, value: u64) -> Result<(), KernelError> {
        self.control.set(slot, value, 0).map_err(KernelError::map(map::CONTROL))
    }

    pub(crate) fn loads_fd(&self) -> Option<BorrowedFd<'_>> {
        fd(&self.loads)
    }

    pub(crate) fn flows_fd(&self) -> Option<BorrowedFd<'_>> {
        fd(&self.flows)
    }

    /// Room in the table of flows.
    pub(crate) fn max_flows(&self) -> Result<u32, KernelError> {
        let Map::HashMap(flows) = &self.flows else {
            let name = map::FLOWS.to_owned();
            return Err(KernelError::map(map::FLOWS)(MapError::InvalidName { name }));
        };
        Ok(flows.info().map_err(KernelError::map(map::FLOWS))?.max_entries())
    }

    pub(crate) fn remove_flow(&mut self, key: &[u8; FlowKey::SIZE]) -> Result<(), KernelError> {
        let mut flows: HashMap<_, [u8; FlowKey::SIZE], [u8; Flow::SIZE]> =
            (&mut self.flows).try_into().map_err(KernelError::map(map::FLOWS))?;
        match flows.remove(key) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(MapError::SyscallError(error)) if not_found(&error.io_error) => Ok(()),
            Err(error) => Err(KernelError::map(map::FLOWS)(error)),
        }
    }

    /// What a predecessor left. Its tables are known by id only, so a plan writes each of them anew.
    pub(crate) fn state(&self) -> Result<State, KernelError> {
        let mut state = State {
            seed: self.control(control::SEED)?,
            ..State::default()
        };
        for entry in self.bindings.iter() {
            let (key, value) = entry.map_err(KernelError::map(map::BINDINGS))?;
            state.bindings.insert(
                (key.prefix_len(), BindingKey::from_bytes(key.data())),
                Binding::from_bytes(value),
            );
        }
        for entry in self.owned.iter() {
            let (key, value) = entry.map_err(KernelError::map(map::OWNED))?;
            state
                .owned
                .insert((key.prefix_len(), Addr::v6(key.data()).0), Owned::from_bytes(value));
        }
        for entry in self.replies.iter() {
            let (key, value) = entry.map_err(KernelError::map(map::REPLIES))?;
            state.replies.insert(Place::from_bytes(key), Replies::from_bytes(value));
        }
        for index in 0..PORT_WORDS as u32 {
            match self.ports.get(&index, 0).map_err(KernelError::map(map::PORTS))? {
                0 => {}
                ports => drop(state.ports.insert(index, ports)),
            }
        }
        let backends = self.all_backends()?;
        state.vip_ids = self.vip_ids(&state.replies, &backends)?;
        restore_ids(&mut state, &backends);
        Ok(state)
    }

    /// The endpoints of every id that was ever used. Ids are given out in order, so the first that never was ends the search.
    fn all_backends(&self) -> Result<Vec<Backend>, KernelError> {
        let mut all = Vec::new();
        for id in 0..MAX_BACKENDS as u32 {
            let bytes = self.backends.get(&id, 0).map_err(KernelError::map(map::BACKENDS))?;
            let backend = Backend::from_bytes(bytes);
            if backend.generation == 0 {
                break;
            }
            all.push(backend);
        }
        Ok(all)
    }

    fn vip_ids(
        &self,
        replies: &BTreeMap<Place, Replies>,
        backends: &[Backend],
    ) -> Result<BTreeMap<Place, u32>, KernelError> {
        let keys: Result<Vec<_>, _> = self.vips.keys().collect();
        let keys = keys.map_err(KernelError::map(map::VIPS))?;
        if !may_open_tables() {
            let places = keys.into_iter().map(Place::from_bytes).collect();
            return Ok(recall::ids(&places, replies, backends.iter().copied()));
        }
        let id = |key: [u8; Place::SIZE]| {
            let table = self.vips.get(&key, 0)?;
            Ok((Place::from_bytes(key), Head::from_bytes(table.get(&0, 0)?).vip))
        };
        let ids: Result<_, MapError> = keys.into_iter().map(id).collect();
        ids.map_err(KernelError::map(map::VIPS))
    }

    /// Does steps that go together ([`MapOp::goes_with`]), except local routes: those are not in maps.
    pub(crate) fn perform(&mut self, steps: &[MapOp]) -> Result<(), KernelError> {
        match steps {
            [MapOp::PutTable { .. }, ..] => self.put_tables(steps),
            [MapOp::DropTable { .. }, ..] => self.drop_tables(steps),
            [MapOp::RetireBackend { .. }, ..] => self.retire_backends(steps),
            _ => steps.iter().try_for_each(|step| self.perform_one(step)),
        }
    }

    fn perform_one(&mut self, op: &MapOp) -> Result<(), KernelError> {
        match op {
            MapOp::PutSeed(seed) => self.set_control(control::SEED, *seed),
            MapOp::PutPorts { index, ports } => self.ports.set(*index, ports, 0).map_err(KernelError::map(map::PORTS)),
            MapOp::PutBackend { id, backend } => self.put_backend(*id, backend),
            MapOp::PutReplies { endpoint, replies } => self
                .replies
                .insert(endpoint.to_bytes(), replies.to_bytes(), 0)
                .map_err(KernelError::map(map::REPLIES)),
            MapOp::PutTable { .. } | MapOp::DropTable { .. } | MapOp::RetireBackend { .. } => {
                self.perform(std::slice::from_ref(op))
            }
            MapOp::PutBinding {
                key: (bits, key),
                binding,
            } => self
                .bindings
                .insert(&Key::new(*bits, key.to_bytes()), binding.to_bytes(), 0)
                .map_err(KernelError::map(map::BINDINGS)),
            MapOp::PutOwned {
                key: (bits, addr),
                owned,
            } => self
                .owned
                .insert(&Key::new(*bits, Addr(*addr).octets()), owned.to_bytes(), 0)
                .map_err(KernelError::map(map::OWNED)),
            MapOp::DropOwned { key: (bits, addr) } => {
                gone(map::OWNED, self.owned.remove(&Key::new(*bits, Addr(*addr).octets())))
            }
            MapOp::DropBinding { key: (bits, key) } => {
                gone(map::BINDINGS, self.bindings.remove(&Key::new(*bits, key.to_bytes())))
            }
            MapOp::DropReplies { endpoint } => gone(map::REPLIES, self.replies.remove(&endpoint.to_bytes())),
            MapOp::AddLocal(_) | MapOp::RemoveLocal(_) => Ok(()),
        }
    }

    fn put_backend(&mut self, id: u32, backend: &Backend) -> Result<(), KernelError> {
        self.backends
            .set(id, backend.to_bytes(), 0)
            .map_err(KernelError::map(map::BACKENDS))
    }

    /// Does steps that retire endpoints, and has every flow look again whether its own lives.
    fn retire_backends(&mut self, ops: &[MapOp]) -> Result<(), KernelError> {
        let done = ops.iter().try_for_each(|op| match op {
            MapOp::RetireBackend { id, backend } => self.put_backend(*id, backend),
            _ => Ok(()),
        });
        self.unsettled = true;
        self.next_epoch().and(done)
    }

    /// Once more, some time after endpoints retired: a program on a CPU that reorders what it reads may have seen the new epoch
    /// and an endpoint that still lived.
    pub(crate) fn settle(&mut self) -> Result<(), KernelError> {
        if std::mem::take(&mut self.unsettled) {
            self.next_epoch()?;
        }
        Ok(())
    }

    /// What flows remember of their endpoints holds no longer, until it was looked up again.
    pub(crate) fn next_epoch(&mut self) -> Result<(), KernelError> {
        let epoch = self.control(control::EPOCH)?;
        self.set_control(control::EPOCH, epoch.wrapping_add(1))
    }

    /// Does steps that put tables, many at a time.
    ///
    /// The kernel answers for a map of maps only when no program uses any more what was there before: some milliseconds, but
    /// from Linux 6.8 on once for all of a batch.
    fn put_tables(&mut self, ops: &[MapOp]) -> Result<(), KernelError> {
        for ops in ops.chunks(TABLES_AT_ONCE) {
            let mut tables = Vec::with_capacity(ops.len());
            for op in ops {
                if let MapOp::PutTable { vip, table, fresh } = op {
                    if *fresh {
                        self.clear_traffic(table.vip)?;
                    }
                    tables.push((vip.to_bytes(), new_table(table)?));
                }
            }
            let (keys, fds): (Vec<_>, Vec<_>) = tables
                .iter()
                .map(|(key, table)| (*key, table.as_raw_fd().to_ne_bytes()))
                .unzip();
            sys::update_batch(&self.tables, &keys, &fds).map_err(KernelError::system("put tables of binds"))?;
        }
        Ok(())
    }

    /// Does steps that drop tables, many at a time.
    fn drop_tables(&self, ops: &[MapOp]) -> Result<(), KernelError> {
        let key = |op: &MapOp| match op {
            MapOp::DropTable { vip } => Some(vip.to_bytes()),
            _ => None,
        };
        let keys: Vec<_> = ops.iter().filter_map(key).collect();
        let mut left = keys.as_slice();
        while !left.is_empty() {
            left = match sys::delete_batch(&self.tables, left) {
                (_, Ok(())) => &[],
                // One that is gone already ends a batch.
                (done, Err(error)) if not_found(&error) => left.get(done + 1..).unwrap_or_default(),
                (_, Err(error)) => return Err(KernelError::system("drop tables of binds")(error)),
            };
        }
        Ok(())
    }

    fn clear_traffic(&mut self, vip: u32) -> Result<(), KernelError> {
        let cpus = aya::util::nr_cpus().map_err(|(what, source)| KernelError::System { what, source })?;
        PerCpuValues::try_from(vec![[0; Traffic::SIZE]; cpus])
            .map_err(MapError::from)
            .and_then(|zero| self.traffic.set(vip, zero, 0))
            .map_err(KernelError::map(map::TRAFFIC))
    }

    pub(crate) fn steered(&self) -> Result<Vec<u64>, KernelError> {
        sums(&self.steered, Steered::COUNT).map_err(KernelError::map(map::STEERED))
    }

    pub(crate) fn outcomes(&self) -> Result<Vec<u64>, KernelError> {
        sums(&self.outcomes, Outcome::COUNT).map_err(KernelError::map(map::OUTCOMES))
    }

    /// All CPUs' share of a bind's traffic.
    pub(crate) fn traffic(&self, vip: u32) -> Result<Traffic, KernelError> {
        let all = self.traffic.get(&vip, 0).map_err(KernelError::map(map::TRAFFIC))?;
        let add = |a: Traffic, bytes: &[u8; Traffic::SIZE]| {
            let b = Traffic::from_bytes(*bytes);
            Traffic {
                packets_in: a.packets_in + b.packets_in,
                bytes_in: a.bytes_in + b.bytes_in,
                packets_out: a.packets_out + b.packets_out,
                bytes_out: a.bytes_out + b.bytes_out,
                flows: a.flows + b.flows,
                to_stack: a.to_stack + b.to_stack,
            }
        };
        Ok(all.iter().fold(Traffic::default(), add))
    }
}

/// A bind's table, filled: a [`Head`] and its slots.
fn new_table(table: &Table) -> Result<OwnedFd, KernelError> {
    let slots = slots(table);
    let head = Head {
        vip: table.vip,
        slots: slots.len() as u32,
    };
    let values: Vec<_> = std::iter::once(head.to_bytes())
        .chain(slots.iter().map(|slot| slot.to_bytes()))
        .collect();
    let keys: Vec<_> = (0..values.len() as u32).map(u32::to_ne_bytes).collect();
    let inner = sys::create_array(Slot::SIZE as u32, values.len() as u32, F_INNER_MAP);
    let inner = inner.map_err(KernelError::system("make the table of a bind"))?;
    sys::update_batch(&inner, &keys, &values).map_err(KernelError::system("fill the table of a bind"))?;
    Ok(inner)
}

/// The kernel opens a table by its number only for this capability, which a container of a node does not have.
fn may_open_tables() -> bool {
    rustix::thread::capabilities(None).is_ok_and(|own| own.effective.contains(CapabilitySet::SYS_ADMIN))
}

fn restore_ids(state: &mut State, backends: &[Backend]) {
    let mut ids = Ids::default();
    let by_id: BTreeMap<u32, Place> = state.vip_ids.iter().map(|(place, id)| (*id, *place)).collect();
    ids.fresh_vip = by_id.keys().max().map_or(0, |id| id + 1).min(MAX_VIPS as u32);
    ids.free_vips = (0..ids.fresh_vip).filter(|id| !by_id.contains_key(id)).collect();
    ids.fresh = backends.len() as u32;
    for (id, backend) in (0..).zip(backends) {
        let slot = Slot {
            backend: id,
            generation: backend.generation,
        };
        let endpoint = Target {
            place: Place::new(backend.protocol, Addr(backend.addr), Port(backend.port)),
            hop: backend.hop,
        };
        match by_id.get(&backend.vip) {
            Some(vip) if backend.alive == 1 => drop(state.pairs.insert((*vip, endpoint), slot)),
            _ => ids.free.push_back(slot),
        }
    }
    state.ids = ids;
}

fn sums(counters: &PerCpuArray<MapData, u64>, count: usize) -> Result<Vec<u64>, MapError> {
    (0..count as u32)
        .map(|index| Ok(counters.get(&index, 0)?.iter().sum()))
        .collect()
}

fn fd(map: &Map) -> Option<BorrowedFd<'_>> {
    match map {
        Map::Array(data) | Map::HashMap(data) => Some(data.fd().as_fd()),
        _ => None,
    }
}

fn not_found(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOENT)
}

/// Removing what is not there is what was wanted.
fn gone(name: &'static str, result: Result<(), MapError>) -> Result<(), KernelError> {
    match result {
        Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if not_found(&error.io_error) => Ok(()),
        Err(error) => Err(KernelError::map(name)(error)),
    }
}
