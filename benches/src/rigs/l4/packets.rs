//! UDP packets over a way: CPU per packet for few and many flows, few and many binds.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use aya::{Ebpf, TestRun as _, TestRunAttrs, TestRunOptions, include_bytes_aligned, maps::Array, programs::Xdp};
use nix::sys::socket::{setsockopt, sockopt::RcvBuf};
use pierhead_wire::net::{CLIENT, HOST_A};

use super::{
    Cost,
    way::{BINDS_OF_AN_ENDPOINT, Kind, ORDINARY_FLOWS, Way, servers},
};
use crate::{
    plan::Plan,
    report::{Book, Sample, Scenario},
};

const WAYS: [Kind; 3] = [Kind::Route, Kind::Full, Kind::Nft];
/// Flows and binds of each table.
const SHAPES: [(usize, u16); 5] = [(1, 1), (65_536, 1), (1_000_000, 1), (65_536, 100), (65_536, 10_000)];
/// Frames that are passed up the stack at once, as a NIC's driver does.
const BATCH: u32 = 64;
/// The shortest Ethernet frame.
const FRAME: usize = 60;
/// Of it, after the headers of Ethernet, IPv4 and UDP.
const PAYLOAD: usize = FRAME - 42;
/// The node's end of the link to the client.
const CLIENT_LINK: &str = "client";
/// So many flows have one address, each a port of it: the first the client's own, …
const FLOWS_OF_A_SOURCE: u32 = 32_768;
/// … the others one from here on.
const OTHER_CLIENTS: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 0);

pub(super) fn run(plan: &Plan, book: &mut Book) -> Result<()> {
    let kinds = WAYS
        .into_iter()
        .filter(|kind| *kind == Kind::Route || plan.candidates.contains(&kind.name()));
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
            let mut rate = 0.0;
            let cost = Cost::of(way, |way| {
                let (packets, took) = flood(way, plan.time_of(round), flows, binds)?;
                rate = packets / took.as_secs_f64();
                Ok(packets)
            });
            let cost = cost.with_context(|| way.kind.name())?;
            let plain = *plain.get_or_insert(cost.all);
            if round > 0 {
                scenario.add(
                    way.kind.name(),
                    Sample(vec![
                        ("CPU-ns in all", cost.all * 1e9),
                        ("beyond a plain route", (cost.all - plain) * 1e9),
                        ("per s", rate),
                    ]),
                );
            }
        }
    }
    Ok(scenario)
}

/// Sends a packet of each flow, no faster than Pierhead lets flows begin in its table: what is measured is not their beginning.
fn open(way: &Way, flows: usize, binds: u16) -> Result<()> {
    const PIECE: u32 = 8_192;
    if way.kind == Kind::Route {
        // Nobody remembers anything.
        return Ok(());
    }
    let flows = flows as u32;
    way.net.node.enter(|| {
        let mut frames = Frames::new(way, flows, binds)?;
        for sent in (0..flows).step_by(PIECE as usize) {
            frames.send(PIECE.min(flows - sent))?;
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    })?
}

/// Sends packets as fast as one thread can; how many arrived, and how long it took to send them. Those that fell out of a full
/// queue between two namespaces are few, or the figure is worth nothing.
fn flood(way: &Way, time: Duration, flows: usize, binds: u16) -> Result<(f64, Duration)> {
    // Nobody reads meanwhile: what does not fit is thrown away when it has arrived.
    let sinks = way
        .net
        .a
        .enter(|| servers(binds).map(sink).collect::<Result<Vec<_>>>())??;
    let before = arrived(way)?;
    let (sent, took) = way.net.node.enter(|| send(way, time, flows, binds))??;
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
    Ok((got as f64, took))
}

fn send(way: &Way, time: Duration, flows: usize, binds: u16) -> Result<(u64, Duration)> {
    // So many that what a call takes to begin and end does not count.
    const PIECE: u32 = 65_536;
    let mut frames = Frames::new(way, flows as u32, binds)?;
    let began = Instant::now();
    let mut sent = 0;
    while began.elapsed() < time {
        frames.send(PIECE)?;
        sent += u64::from(PIECE);
    }
    Ok((sent, began.elapsed()))
}

/// One packet of each flow, again and again, as if it had come to the node from the client: made by a program that runs on
/// live frames of the link (`BPF_F_TEST_XDP_LIVE_FRAMES`). No socket, client or wire takes part.
struct Frames {
    kernel: Ebpf,
    /// `struct xdp_md`: where the packet begins and ends, and the link it comes from.
    context: [u8; 24],
}

impl Frames {
    /// In the namespace of the node, as is all sending.
    fn new(way: &Way, flows: u32, binds: u16) -> Result<Self> {
        let link = Link::named(CLIENT_LINK)?;
        let SocketAddr::V4(to) = way.address(0) else {
            bail!("IPv4 only");
        };
        // Only where the client knows the server itself do several have a port in common.
        let binds_of_a_port = if way.kind == Kind::Route {
            u32::from(BINDS_OF_AN_ENDPOINT)
        } else {
            1
        };
        let mut kernel = Ebpf::load(include_bytes_aligned!(concat!(env!("OUT_DIR"), "/pierhead-frames.o")))?;
        let mut template: Array<_, [u8; FRAME]> = Array::try_from(kernel.map_mut("TEMPLATE").context("TEMPLATE")?)?;
        template.set(0, template_frame(link.address, *to.ip()), 0)?;
        let mut shape: Array<_, [u32; 8]> = Array::try_from(kernel.map_mut("SHAPE").context("SHAPE")?)?;
        let values = [
            0,
            flows,
            u32::from(binds),
            u32::from(to.port()),
            binds_of_a_port,
            CLIENT.v4.into(),
            OTHER_CLIENTS.into(),
            FLOWS_OF_A_SOURCE,
        ];
        shape.set(0, values, 0)?;
        Self::program(&mut kernel)?.load()?;
        let mut context = [0; 24];
        context[4..8].copy_from_slice(&(FRAME as u32).to_ne_bytes());
        context[12..16].copy_from_slice(&link.index.to_ne_bytes());
        Ok(Self { kernel, context })
    }

    fn program(kernel: &mut Ebpf) -> Result<&mut Xdp> {
        let program = kernel.program_mut("pierhead_frames").context("pierhead_frames")?;
        Ok(program.try_into()?)
    }

    /// The next `count` packets.
    fn send(&mut self, count: u32) -> Result<()> {
        // What lies in it is written anew for each packet.
        let frame = [0; FRAME];
        let mut options = TestRunOptions::new();
        options.data_in = Some(&frame);
        options.ctx_in = Some(&self.context);
        options.repeat = count;
        options.attrs = TestRunAttrs::new().xdp_live_frames(BATCH);
        Self::program(&mut self.kernel)?
            .test_run(options)
            .context("run a program on live frames: this needs root and Linux 5.18")?;
        Ok(())
    }
}

/// A link of the current namespace.
struct Link {
    index: u32,
    address: [u8; 6],
}

impl Link {
    fn named(name: &str) -> Result<Self> {
        let all = nix::ifaddrs::getifaddrs().context("links")?;
        let mut found = all.filter(|one| one.interface_name == name);
        let link = found.find_map(|one| {
            let link = *one.address?.as_link_addr()?;
            Some(Self {
                index: link.ifindex() as u32,
                address: link.addr()?,
            })
        });
        link.with_context(|| format!("there is no link {name}"))
    }
}

/// A socket of the server with next to no room.
fn sink(port: u16) -> Result<UdpSocket> {
    let sink = UdpSocket::bind(HOST_A.v4_at(port)).context("a sink")?;
    sink.set_nonblocking(true)?;
    setsockopt(&sink, RcvBuf, &0)?;
    Ok(sink)
}

/// A frame for the link of address `to`: without identification, source and ports, and with checksums that are right when those
/// amount to nothing.
fn template_frame(to: [u8; 6], target: Ipv4Addr) -> [u8; FRAME] {
    const LENGTH: u16 = (FRAME - 14) as u16;
    const UDP_LENGTH: u16 = LENGTH - 20;
    let mut frame = [0; FRAME];
    let mut put = |at: usize, bytes: &[u8]| frame[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &to);
    // Anybody.
    put(6, &[2, 0, 0, 0, 0, 1]);
    put(12, &[8, 0, 0x45, 0]);
    put(16, &LENGTH.to_be_bytes());
    // Whole; 64 hops; UDP.
    put(20, &[0x40, 0, 64, 17]);
    put(30, &target.octets());
    put(38, &UDP_LENGTH.to_be_bytes());
    let of_header = checksum(&frame[14..34], 0);
    let of_packet = checksum(&frame[30..], 17 + UDP_LENGTH);
    frame[24..26].copy_from_slice(&of_header);
    // Nought would say that there is none.
    frame[40..42].copy_from_slice(&if of_packet == [0, 0] { [0xff; 2] } else { of_packet });
    frame
}

/// RFC 1071, of whole halfwords and one more.
fn checksum(bytes: &[u8], more: u16) -> [u8; 2] {
    let halfwords = bytes
        .as_chunks()
        .0
        .iter()
        .map(|two| u32::from(u16::from_be_bytes(*two)));
    let sum = halfwords.sum::<u32>() + u32::from(more);
    let once = (sum & 0xffff) + (sum >> 16);
    (!((once & 0xffff) + (once >> 16)) as u16).to_be_bytes()
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
