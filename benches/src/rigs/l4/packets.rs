//! UDP packets over a way: CPU per packet for few and many flows, few and many binds.

use std::{
    fs,
    io::IoSlice,
    net::{SocketAddr, SocketAddrV4, UdpSocket},
    os::fd::{AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::socket::{
    AddressFamily, MsgFlags, MultiHeaders, SockFlag, SockProtocol, SockType, SockaddrIn, sendmmsg, setsockopt, socket,
    sockopt::RcvBuf,
};
use pierhead_wire::net::{CLIENT, HOST_A};

use super::{
    Cost,
    way::{Kind, ORDINARY_FLOWS, Way, servers},
};
use crate::{
    plan::Plan,
    report::{Book, Sample, Scenario},
};

const WAYS: [Kind; 3] = [Kind::Route, Kind::Full, Kind::Nft];
/// Flows and binds of each table.
const SHAPES: [(usize, u16); 5] = [(1, 1), (65_536, 1), (1_000_000, 1), (65_536, 100), (65_536, 10_000)];
/// Packets per call.
const BATCH: usize = 64;
const PAYLOAD: usize = 18;
/// IPv4 and UDP headers, and a payload that fills the shortest Ethernet frame.
const PACKET: usize = 28 + PAYLOAD;

pub(super) fn run(plan: &Plan, book: &mut Book) -> Result<()> {
    let kinds = WAYS.into_iter().filter(|kind| {
        let named = plan.peers.iter().any(|peer| peer == kind.name());
        *kind == Kind::Route || plan.peers.is_empty() || named
    });
    let wanted = |(flows, binds): &(usize, u16)| plan.wants(&title(*flows, *binds));
    let wanted: Vec<_> = SHAPES.into_iter().filter(wanted).collect();
    // Those with the same tables have their ways in common.
    let tables = |(flows, binds): (usize, u16)| (binds, flows > ORDINARY_FLOWS);
    for shapes in wanted.chunk_by(|one, other| tables(*one) == tables(*other)) {
        let Some((flows, binds)) = shapes.last().copied() else {
            continue;
        };
        let ways = kinds
            .clone()
            .map(|kind| Way::lay(kind, binds, flows).with_context(|| kind.name()))
            .collect::<Result<Vec<_>>>()?;
        for (flows, binds) in shapes {
            book.add(scenario(plan, &ways, *flows, *binds)?);
        }
    }
    Ok(())
}

fn title(flows: usize, binds: u16) -> String {
    format!("UDP packets, {flows} flows, {binds} binds")
}

fn scenario(plan: &Plan, ways: &[Way], flows: usize, binds: u16) -> Result<Scenario> {
    let mut scenario = Scenario::new(&title(flows, binds), "packet");
    for round in 0..=plan.rounds {
        let mut plain = None;
        for way in ways {
            open(way, flows, binds)?;
            let cost = Cost::of(way, |way| flood(way, plan.time_of(round), flows, binds));
            let cost = cost.with_context(|| way.kind.name())?;
            let plain = *plain.get_or_insert(cost.all);
            if round > 0 {
                scenario.add(
                    way.kind.name(),
                    Sample(vec![
                        ("CPU-ns in all", cost.all * 1e9),
                        ("beyond a plain route", (cost.all - plain) * 1e9),
                        ("per s", cost.rate),
                    ]),
                );
            }
        }
    }
    Ok(scenario)
}

/// Sends a packet of each flow, no faster than Pierhead lets flows begin in its table: what is measured is not their beginning.
fn open(way: &Way, flows: usize, binds: u16) -> Result<()> {
    const PIECE: usize = 8_192;
    way.net.client.enter(|| {
        let mut packets = Packets::new(flows, binds)?;
        let mut sent = 0;
        while sent < flows {
            for _ in 0..PIECE / BATCH {
                sent += packets.send(way)?;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    })?
}

/// Sends packets as fast as one thread can; how many arrived. Those that fell out of a full queue between two namespaces are
/// few, or the figure is worth nothing.
fn flood(way: &Way, time: Duration, flows: usize, binds: u16) -> Result<f64> {
    // Nobody reads meanwhile: what does not fit is thrown away when it has arrived.
    let sinks = way
        .net
        .a
        .enter(|| servers(binds).map(sink).collect::<Result<Vec<_>>>())??;
    let before = arrived(way)?;
    let sent = way.net.client.enter(|| send(way, time, flows, binds))??;
    // What nobody took is not counted yet.
    let mut nothing = [0; PAYLOAD];
    for sink in &sinks {
        while sink.recv(&mut nothing).is_ok() {}
    }
    // What is in a queue is on its way.
    let mut got = arrived(way)? - before;
    for _ in 0..100 {
        std::thread::sleep(Duration::from_millis(2));
        let now = arrived(way)? - before;
        if now == got {
            break;
        }
        got = now;
    }
    ensure!(got <= sent, "{got} packets of {sent} arrived");
    ensure!(
        got * 100 >= sent * 95,
        "of {sent} packets only {got} arrived at the server's port"
    );
    Ok(got as f64)
}

fn send(way: &Way, time: Duration, flows: usize, binds: u16) -> Result<u64> {
    let mut packets = Packets::new(flows, binds)?;
    let until = Instant::now() + time;
    let mut sent = 0;
    while Instant::now() < until {
        // The clock is asked every few thousand packets.
        for _ in 0..64 {
            sent += packets.send(way)?;
        }
    }
    Ok(sent as u64)
}

/// One packet of each flow, again and again.
struct Packets {
    socket: OwnedFd,
    packets: Vec<[u8; PACKET]>,
    headers: MultiHeaders<SockaddrIn>,
    flow: usize,
    flows: usize,
    binds: u16,
}

impl Packets {
    fn new(flows: usize, binds: u16) -> Result<Self> {
        Ok(Self {
            socket: raw_socket()?,
            packets: vec![[0; PACKET]; BATCH],
            headers: MultiHeaders::preallocate(BATCH, None),
            flow: 0,
            flows,
            binds,
        })
    }

    /// The next [`BATCH`] of them.
    fn send(&mut self, way: &Way) -> Result<usize> {
        let mut targets = Vec::with_capacity(BATCH);
        for packet in &mut self.packets {
            let target = target(way, self.flow, self.binds)?;
            write(packet, source(self.flow), target);
            targets.push(Some(SockaddrIn::from(target)));
            self.flow = (self.flow + 1) % self.flows;
        }
        let slices: Vec<_> = self.packets.iter().map(|packet| [IoSlice::new(packet)]).collect();
        let fd = self.socket.as_raw_fd();
        let went = sendmmsg(fd, &mut self.headers, &slices, &targets, [], MsgFlags::empty())
            .context("send packets")?
            .count();
        ensure!(went == BATCH, "only {went} of {BATCH} packets were sent");
        Ok(went)
    }
}

/// A socket of the server with next to no room.
fn sink(port: u16) -> Result<UdpSocket> {
    let sink = UdpSocket::bind(HOST_A.v4_at(port)).context("a sink")?;
    sink.set_nonblocking(true)?;
    setsockopt(&sink, RcvBuf, &0)?;
    Ok(sink)
}

/// A socket that is given whole IPv4 packets.
fn raw_socket() -> Result<OwnedFd> {
    let socket = socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), SockProtocol::Raw);
    match socket {
        Ok(socket) => Ok(socket),
        Err(error) => Err(error).context("a raw socket: this needs root"),
    }
}

/// 32,768 ports of each address from `10.200.0.0` on; the client's own for the first.
fn source(flow: usize) -> SocketAddrV4 {
    let base = u32::from(if flow < 32_768 {
        CLIENT.v4
    } else {
        std::net::Ipv4Addr::new(10, 200, 0, 0)
    });
    SocketAddrV4::new((base + (flow / 32_768) as u32).into(), 16_384 + (flow % 32_768) as u16)
}

fn target(way: &Way, flow: usize, binds: u16) -> Result<SocketAddrV4> {
    match way.address((flow % usize::from(binds)) as u16) {
        SocketAddr::V4(target) => Ok(target),
        SocketAddr::V6(_) => anyhow::bail!("IPv4 only"),
    }
}

fn write(packet: &mut [u8; PACKET], from: SocketAddrV4, to: SocketAddrV4) {
    packet[..20].copy_from_slice(&[
        0x45,
        0,
        0,
        PACKET as u8,
        0,
        0,
        0x40,
        0,
        64,
        17,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    ]);
    packet[12..16].copy_from_slice(&from.ip().octets());
    packet[16..20].copy_from_slice(&to.ip().octets());
    packet[20..22].copy_from_slice(&from.port().to_be_bytes());
    packet[22..24].copy_from_slice(&to.port().to_be_bytes());
    packet[24..26].copy_from_slice(&((PACKET - 20) as u16).to_be_bytes());
    packet[26..28].fill(0);
    // Pseudo-header, header, payload. The kernel fills in the checksum of the IPv4 header.
    let pseudo = [0, 17, 0, (PACKET - 20) as u8];
    let sum: u32 = packet[12..]
        .chunks(2)
        .chain(pseudo.chunks(2))
        .map(|two| u32::from(u16::from_be_bytes([two[0], two.get(1).copied().unwrap_or(0)])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = !((folded & 0xffff) + (folded >> 16)) as u16;
    packet[26..28].copy_from_slice(&(if folded == 0 { 0xffff } else { folded }).to_be_bytes());
}

/// UDP datagrams that came to a port with a socket in the server's namespace: taken, or thrown away for want of room.
fn arrived(way: &Way) -> Result<u64> {
    let text = way.net.a.enter(|| fs::read_to_string("/proc/thread-self/net/snmp"))??;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = (lines.next().context("names")?, lines.next().context("values")?);
    let value = |wanted: &str| -> Result<u64> {
        let all = names.split(' ').zip(values.split(' '));
        let (_, value) = all.into_iter().find(|(name, _)| *name == wanted).context("a counter")?;
        Ok(value.parse()?)
    };
    ensure!(value("InCsumErrors")? == 0, "packets with wrong checksums arrived");
    Ok(value("InDatagrams")? + value("RcvbufErrors")?)
}
