//! One process's hold on the kernel data plane of its network namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZero;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

use aya::maps::{Array, MapData};
use aya::programs::links::{FdLink, LinkOrder};
use aya::programs::tc::TcAttachOptions;
use aya::programs::{SchedClassifier, SkLookup, TcAttachType};
use aya::{Ebpf, EbpfLoader};
use ipnet::IpNet;
use pierhead_abi::l4::{Outcome, Traffic};
use pierhead_abi::layout::{MAX_FLOWS, MAX_WORKERS, TICK_SHIFT, control, map, program};
use pierhead_abi::steer::{SocketKind, Steered, socket_index};
use pierhead_model::{BindAddress, BindKey, BindPort, DataPath, DataPathReport, Snapshot, Transport};

use crate::error::KernelError;
use crate::flows::Sweeper;
use crate::loads::Loads;
use crate::maps::Maps;
use crate::neighbours::Remembered;
use crate::netlink::Netlink;
use crate::object::OBJECT;
use crate::pins::{self, Lock, Pins, STEER_LINK, Turn, pin};
use crate::plan::{MapOp, State, plan};
use crate::probe::probe;
use crate::{announce, surroundings, sys, wanted};

/// How much is done in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Sockets are steered; all traffic is served in userspace.
    Steer,
    /// And TCP and UDP routes to endpoints of this node are balanced in the kernel.
    Full,
}

/// How to open.
#[derive(Clone, Debug)]
pub struct Options {
    pub mode: Mode,
    /// External interfaces. Empty: those that a default route leaves by.
    pub nics: Vec<String>,
    /// Kubernetes' name of this node.
    pub node: Option<String>,
    /// Seed of flow hashes. `None`: the snapshot's, or where it has none that of a predecessor, or random.
    pub seed: Option<u64>,
    /// Run beside a process that has the namespace, and take over from it with [`Kernel::activate`].
    pub takeover: bool,
    /// New flows that one CPU may open in about 134 ms; more go up the stack.
    pub gate: u64,
    /// TCP and UDP flows in the table at once; more go up the stack. A table that is pinned already keeps its size.
    pub max_flows: NonZero<u32>,
}

/// Flows in the table at once, unless something else is asked for.
pub const DEFAULT_MAX_FLOWS: NonZero<u32> = NonZero::new(MAX_FLOWS as u32).unwrap();

impl Default for Options {
    fn default() -> Self {
        Self {
            mode: Mode::Steer,
            nics: Vec::new(),
            node: None,
            seed: None,
            takeover: false,
            gate: 16_000,
            max_flows: DEFAULT_MAX_FLOWS,
        }
    }
}

/// The sockets of one worker that wait for steered connections: TCP ones listen, UDP ones are bound.
#[derive(Clone, Copy, Debug, Default)]
pub struct WorkerSockets<'a> {
    pub tcp4: Option<BorrowedFd<'a>>,
    pub tcp6: Option<BorrowedFd<'a>>,
    pub udp4: Option<BorrowedFd<'a>>,
    pub udp6: Option<BorrowedFd<'a>>,
}

/// Counters since the maps were made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Socket lookups by outcome.
    pub steered: Vec<(&'static str, u64)>,
    /// Packets on external interfaces by outcome.
    pub outcomes: Vec<(&'static str, u64)>,
    /// Traffic of each bind that is in the kernel.
    pub binds: BTreeMap<BindKey, Traffic>,
    /// Flows in the table, as last counted.
    pub flows: u64,
    /// How many it has room for.
    pub max_flows: u64,
}

/// New flows are taken this long after the last [`Kernel::tick`].
const LEASE_NS: u64 = 60_000_000_000;

/// The kernel data plane of this network namespace. Dropping it leaves everything pinned, for a successor.
///
/// Order: [`Self::open`], [`Self::take_charge`]; then [`Self::apply`] for each change and [`Self::tick`] every second. When
/// [`Self::superseded`] says so, [`Self::release`].
pub struct Kernel {
    options: Options,
    pins: Pins,
    ebpf: Ebpf,
    maps: Maps,
    state: State,
    netlink: Netlink,
    neighbours: Remembered,
    generation: u32,
    workers: usize,
    active: bool,
    token: u64,
    sweeper: Sweeper,
    /// `None` while a predecessor has it.
    lock: Option<Lock>,
    successor: Option<Lock>,
    attached: BTreeSet<u32>,
    /// Given out once, so that all that count do so in the same generation.
    loads: Option<Loads>,
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernel")
            .field("pins", &self.pins)
            .field("active", &self.active)
            .finish_non_exhaustive()
    }
}

impl Kernel {
    /// Opens or creates the pinned maps and loads the programs. Changes nothing that traffic notices.
    ///
    /// # Errors
    /// When the machine cannot do it, another process has the namespace, or a pin is occupied.
    pub fn open(options: Options) -> Result<Self, KernelError> {
        probe(&options.nics).steer.map_err(KernelError::Unavailable)?;
        let pins = Pins::here()?;
        pins.create()?;
        pins::sweep(&pins.home);
        let (lock, successor) = lock(&pins, options.takeover)?;
        let mut ebpf = load(&pins, options.max_flows)?;
        let mut maps = Maps::take(&mut ebpf)?;
        let (max_flows, asked) = (maps.max_flows()?, options.max_flows.get());
        if max_flows != asked {
            tracing::warn!(
                "the flow table keeps the size it was made with, {max_flows} instead of {asked}; fix: `pierhead uninstall` while \
                 it does not run, or a restart of the machine"
            );
        }
        let netlink = Netlink::open().map_err(KernelError::system("open rtnetlink"))?;
        let mut kernel = {
            let random = RandomState::new().hash_one(std::process::id());
            let seed = match (options.seed, maps.control(control::SEED)?) {
                (Some(seed), _) => seed,
                (None, 0) => random | 1,
                (None, kept) => kept,
            };
            maps.set_control(control::SEED, seed)?;
            maps.set_control(control::GATE, options.gate)?;
            let generation = 1 - (maps.control(control::ACTIVE)? as u32 & 1);
            Self {
                options,
                pins,
                ebpf,
                maps,
                state: State::default(),
                netlink,
                neighbours: Remembered::default(),
                generation,
                workers: 0,
                active: false,
                token: (random << 32) | u64::from(std::process::id()),
                sweeper: Sweeper::default(),
                lock,
                successor,
                attached: BTreeSet::new(),
                loads: None,
            }
        };
        kernel.load_program::<SkLookup>(program::STEER, SkLookup::load)?;
        if kernel.options.mode == Mode::Full {
            kernel.load_program::<SchedClassifier>(program::INGRESS, SchedClassifier::load)?;
            kernel.load_program::<SchedClassifier>(program::EGRESS, SchedClassifier::load)?;
        }
        kernel.reread()?;
        Ok(kernel)
    }

    fn reread(&mut self) -> Result<(), KernelError> {
        self.state = self.maps.state()?;
        let locals = self
            .netlink
            .locals()
            .map_err(KernelError::system("read the local routes"))?;
        self.state.local = locals.into_iter().collect();
        Ok(())
    }

    fn load_program<P>(
        &mut self,
        name: &'static str,
        load: impl Fn(&mut P) -> Result<(), aya::programs::ProgramError>,
    ) -> Result<(), KernelError>
    where
        for<'p> &'p mut P: TryFrom<&'p mut aya::programs::Program, Error = aya::programs::ProgramError>,
    {
        load(self.program(name)?).map_err(KernelError::program(name))
    }

    fn program<P>(&mut self, name: &'static str) -> Result<&mut P, KernelError>
    where
        for<'p> &'p mut P: TryFrom<&'p mut aya::programs::Program, Error = aya::programs::ProgramError>,
    {
        let program = self.ebpf.program_mut(name).ok_or_else(|| KernelError::System {
            what: "find a program in the embedded object",
            source: io::Error::other(name),
        })?;
        program.try_into().map_err(KernelError::program(name))
    }

    /// Makes a worker's sockets known, in the generation that is not active. Descriptors may be closed afterwards; the
    /// sockets themselves must stay open.
    ///
    /// # Errors
    /// When the kernel does not take a socket (TCP must listen, UDP must be bound), or there are too many workers.
    pub fn register(&mut self, worker: usize, sockets: &WorkerSockets<'_>) -> Result<(), KernelError> {
        if worker >= MAX_WORKERS {
            return Err(KernelError::TooManyWorkers {
                worker,
                limit: MAX_WORKERS,
            });
        }
        for (kind, socket) in [
            (SocketKind::Tcp4, sockets.tcp4),
            (SocketKind::Tcp6, sockets.tcp6),
            (SocketKind::Udp4, sockets.udp4),
            (SocketKind::Udp6, sockets.udp6),
        ] {
            let index = socket_index(self.generation, worker as u32, kind);
            match socket {
                Some(socket) => self
                    .maps
                    .sockets
                    .set(index, &socket.as_raw_fd(), 0)
                    .map_err(KernelError::map(map::SOCKETS))?,
                // Nothing there is fine; something is from a process two generations ago.
                None => drop(self.maps.sockets.clear_index(&index)),
            }
        }
        self.workers = self.workers.max(worker + 1);
        Ok(())
    }

    /// Puts the registered sockets and the programs of this process in charge. A predecessor's connections stay with
    /// it, also those in their handshake, as long as its sockets are open.
    ///
    /// # Errors
    /// When a program cannot be attached. The sockets may be in charge then; dropping them is safe.
    pub fn activate(&mut self) -> Result<(), KernelError> {
        let _turn = Turn::take()?;
        self.activate_in_turn()
    }

    /// Registers the workers' sockets, brings the maps to what the snapshot wants and activates, with nobody else at the
    /// maps in between. A predecessor serves until the end of it, and its connections stay with it.
    ///
    /// # Errors
    /// As of [`Self::register`], [`Self::apply`] and [`Self::activate`]. A predecessor stays in charge when registering
    /// fails, and finds what was changed with its next change.
    pub fn take_charge(
        &mut self,
        workers: &[WorkerSockets<'_>],
        snapshot: &Snapshot,
    ) -> Result<Vec<DataPathReport>, KernelError> {
        let _turn = Turn::take()?;
        // Whoever opened these maps in the meantime may have activated: his sockets are not to be overwritten.
        self.generation = 1 - (self.maps.control(control::ACTIVE)? as u32 & 1);
        for (worker, sockets) in workers.iter().enumerate() {
            self.register(worker, sockets)?;
        }
        let reports = self.apply_in_turn(snapshot)?;
        self.activate_in_turn()?;
        Ok(reports)
    }

    fn activate_in_turn(&mut self) -> Result<(), KernelError> {
        let generation = self.generation;
        self.loads()?.begin(generation);
        self.maps
            .set_control(control::WORKERS + generation, self.workers as u64)?;
        self.renew(sys::monotonic_ns())?;
        self.maps.set_control(control::OWNER, self.token)?;
        self.maps.set_control(control::ACTIVE, u64::from(generation))?;
        self.active = true;
        self.attach_steer()?;
        self.attach_nics()?;
        for other in self.pins.others() {
            pins::remove_dir(&other)?;
        }
        self.pin_programs()
    }

    /// Whether a successor has taken over: time to drain and end.
    pub fn superseded(&self) -> bool {
        self.active && (self.maps.control(control::OWNER).is_ok_and(|owner| owner != self.token) || self.is_replaced())
    }

    /// A successor of another layout has maps of its own, and removed ours.
    fn is_replaced(&self) -> bool {
        !self.pins.path(STEER_LINK).exists() && self.pins.others().iter().any(|other| other.join(STEER_LINK).exists())
    }

    /// Lets go of the namespace once a successor has it; sockets stay, for what is on its way to them.
    pub fn release(&mut self) {
        self.lock = None;
        self.successor = None;
        if let Some(loads) = &self.loads {
            loads.end();
        }
    }

    /// Brings the maps to what the snapshot wants, and says what carries each bind. On an error the maps are between the
    /// two; the next call starts from what is really there.
    ///
    /// # Errors
    /// When the kernel refuses a change, or a successor has taken over.
    pub fn apply(&mut self, snapshot: &Snapshot) -> Result<Vec<DataPathReport>, KernelError> {
        let _turn = Turn::take()?;
        if self.superseded() {
            return Err(KernelError::Superseded);
        }
        self.apply_in_turn(snapshot)
    }

    fn apply_in_turn(&mut self, snapshot: &Snapshot) -> Result<Vec<DataPathReport>, KernelError> {
        if self.maps.control(control::WRITER)? != self.token {
            self.reread()?;
            // Another process may have died while endpoints retired.
            self.maps.next_epoch()?;
            self.maps.set_control(control::WRITER, self.token)?;
        }
        let mut around = self.look(snapshot)?;
        if self.options.mode == Mode::Steer {
            around.no_l4 = Some("layer 4 in the kernel is switched off".to_owned());
        }
        let (mut wanted, mut reports) = wanted::wanted(snapshot, &around);
        wanted.seed = self.options.seed.or(wanted.seed);
        let (ops, new) = plan(&self.state, &wanted);
        let mut unreachable: BTreeMap<IpNet, io::Error> = BTreeMap::new();
        for run in ops.chunk_by(MapOp::goes_with) {
            let done = match run {
                [MapOp::AddLocal(net)] => {
                    if let Err(error) = self.netlink.add_local(*net) {
                        unreachable.insert(*net, error);
                    }
                    Ok(())
                }
                [MapOp::RemoveLocal(net)] => self
                    .netlink
                    .remove_local(*net)
                    .map_err(KernelError::system("remove a local route")),
                run => self.maps.perform(run),
            };
            if let Err(error) = done {
                self.reread()?;
                return Err(error);
            }
        }
        self.state = new;
        self.state.local.retain(|net| !unreachable.contains_key(net));
        for report in &mut reports {
            let BindAddress::Ip(ip) = report.bind.address else {
                continue;
            };
            if let Some((net, error)) = unreachable.iter().find(|(net, _)| net.contains(&ip)) {
                report.path = DataPath::None;
                report.why = format!("{net} cannot be made local: {error}");
            }
        }
        if self.active {
            self.attach_nics()?;
        }
        Ok(reports)
    }

    fn look(&mut self, snapshot: &Snapshot) -> Result<wanted::Surroundings, KernelError> {
        if self.options.mode == Mode::Steer {
            return Ok(wanted::Surroundings::default());
        }
        // An interface that went away takes the fast path with it, not the configuration.
        let external = match surroundings::external(&mut self.netlink, &self.options.nics) {
            Ok(external) => external,
            Err(error) => {
                let no_l4 = Some(error.to_string());
                return Ok(wanted::Surroundings {
                    no_l4,
                    ..wanted::Surroundings::default()
                });
            }
        };
        let endpoints: BTreeSet<IpAddr> = wanted::endpoint_addresses(snapshot);
        let nodes = wanted::endpoint_nodes(snapshot);
        let node = self.options.node.as_deref();
        let mut around = surroundings::look(&mut self.netlink, &external, node, &endpoints, &nodes)?;
        self.neighbours.fill(&mut around.neighbours, sys::monotonic_ns());
        around.no_l4 = probe(&self.options.nics).l4.err();
        Ok(around)
    }

    /// Whether the same snapshot means something else by now: another node that was missing for a while is given up.
    pub fn is_due(&self) -> bool {
        self.neighbours.is_due(sys::monotonic_ns())
    }

    /// Looks after the flow table, and tells the kernel that somebody does. Call it every second.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn tick(&mut self) -> Result<(), KernelError> {
        if self.superseded() {
            return Ok(());
        }
        let now = sys::monotonic_ns();
        if self.active {
            self.renew(now)?;
        }
        self.maps.settle()?;
        if self.lock.is_none() {
            self.lock = Lock::take(&self.pins.home)?;
            if self.lock.is_some() {
                self.successor = None;
            }
        }
        if self.active
            && self.options.mode == Mode::Full
            && let Some(fd) = self.maps.flows_fd()
        {
            let alive: BTreeSet<_> = self.state.pairs.values().copied().collect();
            let forget = self
                .sweeper
                .sweep(fd, (now >> TICK_SHIFT) as u32, |slot| alive.contains(&slot))
                .map_err(KernelError::system("read the flow table"))?;
            for key in &forget {
                self.maps.remove_flow(key)?;
            }
        }
        Ok(())
    }

    /// Tells the kernel that somebody looks after the maps, and the time.
    fn renew(&mut self, now: u64) -> Result<(), KernelError> {
        let (before, tick) = (self.maps.control(control::TICK)?, now >> TICK_SHIFT);
        self.sweeper.passed(before as u32, tick as u32);
        self.maps.set_control(control::TICK, tick)?;
        self.maps.set_control(control::LEASE, now + LEASE_NS)
    }

    /// Shared connection counters, for the workers to keep.
    ///
    /// # Errors
    /// When the memory cannot be mapped.
    pub fn loads(&mut self) -> Result<Loads, KernelError> {
        if let Some(loads) = &self.loads {
            return Ok(loads.clone());
        }
        let fd = self.maps.loads_fd().ok_or_else(|| KernelError::System {
            what: "map the connection counters",
            source: io::ErrorKind::InvalidData.into(),
        })?;
        let loads = Loads::map(fd, self.generation).map_err(KernelError::system("map the connection counters"))?;
        self.loads = Some(loads.clone());
        Ok(loads)
    }

    /// All counters.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn counters(&self) -> Result<Counters, KernelError> {
        let mut binds = BTreeMap::new();
        for (vip, id) in &self.state.vip_ids {
            let key = BindKey {
                transport: if vip.protocol == pierhead_abi::packet::TCP {
                    Transport::Tcp
                } else {
                    Transport::Udp
                },
                address: BindAddress::Ip(pierhead_abi::Addr(vip.addr).into()),
                port: BindPort::Port(pierhead_abi::Port(vip.port).host_order()),
            };
            binds.insert(key, self.maps.traffic(*id)?);
        }
        Ok(Counters {
            steered: Steered::ALL
                .iter()
                .map(|outcome| outcome.name())
                .zip(self.maps.steered()?)
                .collect(),
            outcomes: Outcome::ALL
                .iter()
                .map(|outcome| outcome.name())
                .zip(self.maps.outcomes()?)
                .collect(),
            binds,
            flows: self.sweeper.flows,
            max_flows: self.maps.max_flows()?.into(),
        })
    }

    /// Instructions the verifier looked at, per loaded program.
    ///
    /// # Errors
    /// When a program cannot be asked.
    pub fn verified_instructions(&self) -> Result<BTreeMap<String, u32>, KernelError> {
        let mut found = BTreeMap::new();
        for (name, program) in self.ebpf.programs() {
            if let Ok(info) = program.info() {
                found.insert(name.to_owned(), info.verified_instruction_count().unwrap_or_default());
            }
        }
        Ok(found)
    }

    /// Runs the ingress or egress program on one frame, against the live maps. Nothing leaves the machine.
    ///
    /// # Errors
    /// When the mode has no such program, or the frame is not one.
    pub fn run_on(&mut self, direction: Direction, frame: &[u8]) -> Result<sys::TestRun, KernelError> {
        let name = match direction {
            Direction::Ingress => program::INGRESS,
            Direction::Egress => program::EGRESS,
        };
        let classifier: &mut SchedClassifier = self.program(name)?;
        let fd = classifier.fd().map_err(KernelError::program(name))?;
        sys::test_run(fd, frame).map_err(KernelError::system("run a program on a frame"))
    }

    /// Runs the program that steers once, on the lookup of a socket for a first packet from `remote` to `local`, without one: what
    /// it took and said, and whether it chose a socket. Linux 5.14.
    ///
    /// # Errors
    /// When the two are of different families, or the kernel does not do it.
    pub fn look_up(
        &mut self,
        transport: Transport,
        remote: SocketAddr,
        local: SocketAddr,
    ) -> Result<(sys::TestRun, bool), KernelError> {
        let steer: &mut SkLookup = self.program(program::STEER)?;
        let fd = steer.fd().map_err(KernelError::program(program::STEER))?;
        let protocol = match transport {
            Transport::Tcp => libc::IPPROTO_TCP,
            Transport::Udp => libc::IPPROTO_UDP,
        };
        sys::test_lookup(fd, protocol, remote, local).map_err(KernelError::system("run a program on a lookup"))
    }

    fn attach_steer(&mut self) -> Result<(), KernelError> {
        let path = self.pins.path(STEER_LINK);
        let steer: &mut SkLookup = self.program(program::STEER)?;
        if update_link(&path, steer.fd().map_err(KernelError::program(program::STEER))?)? {
            return Ok(());
        }
        let netns =
            File::open("/proc/thread-self/ns/net").map_err(KernelError::system("open the network namespace"))?;
        let link = steer
            .attach(netns)
            .and_then(|id| steer.take_link(id))
            .map_err(KernelError::program(program::STEER))?;
        pin_link(link.into(), &path)
    }

    /// Attaches to external interfaces that are new, and leaves those that are external no more.
    fn attach_nics(&mut self) -> Result<(), KernelError> {
        let external = match self.options.mode {
            Mode::Steer => Vec::new(),
            Mode::Full => match surroundings::external(&mut self.netlink, &self.options.nics) {
                Ok(external) => external,
                Err(error) => {
                    tracing::warn!("layer 4 stays in userspace: {error}");
                    return Ok(());
                }
            },
        };
        let wanted: BTreeSet<u32> = external.iter().map(|link| link.index).collect();
        for (index, path) in self.pins.nic_links() {
            if !wanted.contains(&index) {
                pins::remove_link(&path)?;
            }
        }
        for link in &external {
            if self.attached.contains(&link.index) && self.pins.nic_link("in", link.index).exists() {
                continue;
            }
            // Ingress first: another program's verdict would end the chain before us. Egress last: whoever else looks
            // sees endpoint and client, as on the way in.
            for (direction, name, kind, order) in [
                ("in", program::INGRESS, TcAttachType::Ingress, LinkOrder::first()),
                ("out", program::EGRESS, TcAttachType::Egress, LinkOrder::last()),
            ] {
                let path = self.pins.nic_link(direction, link.index);
                let classifier: &mut SchedClassifier = self.program(name)?;
                if update_link(&path, classifier.fd().map_err(KernelError::program(name))?)? {
                    continue;
                }
                let attached = classifier
                    .attach_with_options(&link.name, kind, TcAttachOptions::TcxOrder(order))
                    .and_then(|id| classifier.take_link(id))
                    .map_err(KernelError::program(name))?;
                let attached = FdLink::try_from(attached).map_err(|_| KernelError::Interface {
                    name: link.name.clone(),
                    reason: "the kernel gave no link".to_owned(),
                })?;
                pin_link(attached, &path)?;
            }
        }
        self.attached = wanted;
        Ok(())
    }

    fn pin_programs(&mut self) -> Result<(), KernelError> {
        let dir = self.pins.dir.clone();
        for name in [program::STEER, program::INGRESS, program::EGRESS] {
            let path = dir.join(name);
            let Some(program) = self.ebpf.program_mut(name) else {
                continue;
            };
            if path.exists() {
                fs::remove_file(&path).map_err(pin("remove", &path))?;
            }
            if program.fd().is_ok() {
                program
                    .pin(&path)
                    .map_err(|error| pin("pin", &path)(io::Error::other(error)))?;
            }
        }
        Ok(())
    }
}

/// A direction on an external interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Ingress,
    Egress,
}

/// Removes everything this product left in the current network namespace: links, programs, maps, local routes. Returns
/// what was removed, a line each.
///
/// # Errors
/// When a process is still running on it, or something cannot be removed.
pub fn uninstall() -> Result<Vec<String>, KernelError> {
    let pins = Pins::here()?;
    let mut removed = Vec::new();
    if pins.home.exists() {
        let Some(_lock) = Lock::take(&pins.home)? else {
            return Err(KernelError::SecondInstance { pid: owner(&pins) });
        };
        for layout in pins::layouts(&pins.home) {
            removed.extend(pins::remove_dir(&layout)?.iter().map(|path| path.display().to_string()));
        }
        fs::remove_dir(&pins.home).map_err(pin("remove", &pins.home))?;
        // Other namespaces may still have theirs.
        if let Some(root) = pins.home.parent() {
            let _ = fs::remove_dir(root);
        }
    }
    let mut netlink = Netlink::open().map_err(KernelError::system("open rtnetlink"))?;
    for net in netlink.locals().map_err(KernelError::system("read the local routes"))? {
        netlink
            .remove_local(net)
            .map_err(KernelError::system("remove a local route"))?;
        removed.push(format!("local route {net}"));
    }
    announce::forget(&mut netlink).map_err(KernelError::system("remove announced addresses"))?;
    Ok(removed)
}

/// Makes exactly these prefixes local in the current network namespace, for when no programs are loaded: adds what is
/// missing and takes back what an earlier call or an earlier process added, unless that one is still there (`beside`).
/// Returns those that could not be added, and why.
///
/// # Errors
/// When the routes cannot be read, or one cannot be taken back.
pub fn make_local(wanted: &BTreeSet<IpNet>, beside: bool) -> Result<Vec<(IpNet, io::Error)>, KernelError> {
    let mut netlink = Netlink::open().map_err(KernelError::system("open rtnetlink"))?;
    let there = netlink.locals().map_err(KernelError::system("read the local routes"))?;
    let mut failed = Vec::new();
    for net in wanted.iter().filter(|net| !there.contains(net)) {
        if let Err(error) = netlink.add_local(*net) {
            failed.push((*net, error));
        }
    }
    for net in there.into_iter().filter(|net| !beside && !wanted.contains(net)) {
        netlink
            .remove_local(net)
            .map_err(KernelError::system("remove a local route"))?;
    }
    Ok(failed)
}

/// The namespace's lock, or the successor's beside it.
fn lock(pins: &Pins, takeover: bool) -> Result<(Option<Lock>, Option<Lock>), KernelError> {
    if let Some(lock) = Lock::take(&pins.home)? {
        return Ok((Some(lock), None));
    }
    if takeover && let Some(successor) = Lock::take(&pins.dir)? {
        return Ok((None, Some(successor)));
    }
    Err(KernelError::SecondInstance { pid: owner(pins) })
}

/// The process that activated last, if it can be known.
fn owner(pins: &Pins) -> Option<u64> {
    let data = MapData::from_pin(pins.path(map::CONTROL)).ok()?;
    let control: Array<_, u64> = aya::maps::Map::Array(data).try_into().ok()?;
    let token = control.get(&control::OWNER, 0).ok()?;
    (token != 0).then_some(token & 0xffff_ffff)
}

fn load(pins: &Pins, max_flows: NonZero<u32>) -> Result<Ebpf, KernelError> {
    for name in map::ALL {
        let path = pins.path(name);
        match sys::obj_get(&path) {
            Ok(object) if sys::is_map(&object) => {}
            Ok(_) => {
                return Err(KernelError::OccupiedPin {
                    path,
                    what: "not a map".to_owned(),
                });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(KernelError::OccupiedPin {
                    path,
                    what: error.to_string(),
                });
            }
        }
    }
    let mut loader = EbpfLoader::new();
    loader.map_max_entries(map::FLOWS, max_flows.get());
    for name in map::ALL {
        loader.map_pin_path(name, pins.path(name));
    }
    loader.load(OBJECT).map_err(|error| KernelError::Load(Box::new(error)))
}

/// Gives a pinned link a new program. `false`: there is no link, or the one there is dead and was removed.
fn update_link(path: &Path, program: &aya::programs::ProgramFd) -> Result<bool, KernelError> {
    let link = match sys::obj_get(path) {
        Ok(link) => link,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => {
            return Err(KernelError::OccupiedPin {
                path: path.to_owned(),
                what: error.to_string(),
            });
        }
    };
    match sys::link_update(&link, program) {
        Ok(()) => Ok(true),
        // Its interface or namespace is gone (ENOLINK), or its number has come back for another one.
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => {
            pins::remove_link(path)?;
            Ok(false)
        }
        Err(error) => Err(KernelError::OccupiedPin {
            path: path.to_owned(),
            what: error.to_string(),
        }),
    }
}

fn pin_link(link: FdLink, path: &Path) -> Result<(), KernelError> {
    link.pin(path)
        .map(drop)
        .map_err(|error| pin("pin", path)(io::Error::other(error)))
}
