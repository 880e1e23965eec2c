//! How long the kernel programs take for one packet or lookup (`BPF_PROG_TEST_RUN`), and how many instructions the verifier looked
//! at. `cargo bench -p pierhead-kernel`. Needs root and Linux 6.6.
//!
//! A frame is run once per measurement, since a second run would see what the first made of it; the clock is part of it.
//!
//! `--baseline FILE` holds it against what it was, as a share of what a program takes in the same run that only computes, and ends
//! badly beyond [`MARGIN`]. `--update` writes the file instead.
#![allow(clippy::unwrap_used, reason = "a bench says what failed by panicking")]
#![allow(clippy::print_stdout, reason = "a bench talks to its terminal")]

#[path = "../tests/support/packet.rs"]
mod packet;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "../tests/support/verifier.rs"]
mod verifier;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::num::NonZero;
use std::os::fd::AsFd;
use std::path::PathBuf;

use packet::{ACK, Packet, SYN, tcp, udp};
use pierhead_kernel::{Direction, Kernel, Mode, Options, TestRun, WorkerSockets, test_run};
use pierhead_model::{DataPath, Transport};
use support::{Snap, bind, in_netns, ip, share};

const RUNS: u32 = 20_000;
const BINDS: [u16; 3] = [1, 100, 10_000];
const CLIENT: &str = "203.0.113.5:40000";

/// What all is measured by: a program of 2,000 instructions.
const REFERENCE: &str = "reference";
const REFERENCE_ROUNDS: i32 = 500;

/// How many times what it was something may take. Wide: beside what only computes, machines differ by more than two in what memory
/// takes, and caches are others' too. It is for what grows with the binds; what a program grows by itself, the verifier counts.
const MARGIN: f64 = 5.0;
/// How often it may be measured again before it is said to be slower.
const TRIES: usize = 2;

/// By what is done: nanoseconds of the tenth of all runs that is the fastest, which a busy machine changes least.
type Times = BTreeMap<String, u32>;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` and `cargo bench -- --list` ask for no run.
    if words.iter().any(|word| word == "--list" || word == "--test") {
        return;
    }
    let baseline = words
        .iter()
        .position(|word| word == "--baseline")
        .map(|at| PathBuf::from(words.get(at + 1).expect("a file after --baseline")));
    let mut times = measure();
    let Some(file) = baseline else { return };
    if words.iter().any(|word| word == "--update") {
        std::fs::write(&file, serde_json::to_string_pretty(&times).unwrap() + "\n").unwrap();
        println!("written to {}", file.display());
        return;
    }
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let before: Times = serde_json::from_str(&text).unwrap();
    let mut worse = regressions(&before, &times);
    for _ in 0..TRIES {
        if worse.is_empty() {
            break;
        }
        println!("once more, for this may be the machine:\n  {}", worse.join("\n  "));
        for (what, again) in measure() {
            times.entry(what).and_modify(|time| *time = again.min(*time));
        }
        worse = regressions(&before, &times);
    }
    assert!(
        worse.is_empty(),
        "more than {MARGIN} times the baseline:\n  {}",
        worse.join("\n  ")
    );
    println!("nothing takes more than {MARGIN} times the baseline");
}

/// What takes too long beside what it took, both as a share of the reference.
fn regressions(before: &Times, now: &Times) -> Vec<String> {
    let share = |times: &Times, what: &str| Some(f64::from(*times.get(what)?) / f64::from(*times.get(REFERENCE)?));
    assert!(
        before.keys().eq(now.keys()),
        "other rows than in the baseline, which --update writes anew: {:?}",
        now.keys()
    );
    let judge = |what: &String| {
        let (was, is) = (share(before, what)?, share(now, what)?);
        (is > was * MARGIN).then(|| format!("{what}: {is:.2} of the reference, was {was:.2}"))
    };
    now.keys().filter_map(judge).collect()
}

fn measure() -> Times {
    let among = |binds| in_netns(move || measure_among(binds));
    BINDS.into_iter().flat_map(among).collect()
}

fn vip(bind: u16) -> String {
    format!("198.51.100.1:{}", 10_000 + bind)
}

/// Four binds have their endpoints in common, as many as can be told apart.
fn pods(bind: u16) -> [String; 2] {
    [10, 11].map(|host| format!("10.1.0.{host}:{}", 5_000 + bind / 4))
}

/// What is done to be measured.
enum Step {
    /// A frame, and whether it is for us.
    Frame(Direction, Packet, bool),
    /// The answer to a frame that is for us; only it is measured.
    Answer(Packet),
    /// A first packet to this address, and whether it is for us.
    Lookup(Transport, String, bool),
}

fn run(kernel: &mut Kernel, step: &Step) -> TestRun {
    match step {
        Step::Frame(direction, packet, ours) => {
            let frame = packet.frame();
            let run = kernel.run_on(*direction, &frame).unwrap();
            assert_eq!(run.frame != frame, *ours, "{packet:?}");
            run
        }
        Step::Answer(packet) => {
            let to_pod = kernel.run_on(Direction::Ingress, &packet.frame()).unwrap().frame;
            let host: [u8; 4] = to_pod[30..34].try_into().unwrap();
            let port = u16::from_be_bytes([to_pod[36], to_pod[37]]);
            let pod = SocketAddr::from((host, port)).to_string();
            let frame = tcp(&pod, &packet.src.to_string(), ACK).frame();
            let run = kernel.run_on(Direction::Egress, &frame).unwrap();
            assert_ne!(run.frame, frame, "{packet:?}");
            run
        }
        Step::Lookup(transport, to, ours) => {
            let address = |text: &str| -> SocketAddr { text.parse().unwrap() };
            let (run, chosen) = kernel.look_up(*transport, address(CLIENT), address(to)).unwrap();
            assert_eq!(chosen, *ours, "{to}");
            run
        }
    }
}

fn measure_among(binds: u16) -> Times {
    for (name, peer, address) in [("ext0", "ext1", "10.9.0.1/24"), ("int0", "int1", "10.1.0.1/24")] {
        ip(&format!("link add {name} type veth peer name {peer}"));
        ip(&format!("link set {name} up"));
        ip(&format!("link set {peer} up"));
        ip(&format!("addr add {address} dev {name}"));
    }
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    let options = Options {
        mode: Mode::Full,
        nics: vec!["ext0".to_owned()],
        seed: Some(7),
        gate: u64::MAX,
        max_flows: NonZero::new(1 << 18).unwrap(),
        ..Options::default()
    };
    let mut kernel = Kernel::open(options).unwrap();
    let tcp_worker = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp_worker = UdpSocket::bind("127.0.0.1:0").unwrap();
    let sockets = WorkerSockets {
        tcp4: Some(tcp_worker.as_fd()),
        udp4: Some(udp_worker.as_fd()),
        ..WorkerSockets::default()
    };
    kernel.register(0, &sockets).unwrap();
    // As many of TCP as there is room for besides.
    let of_tcp = binds.min(200);
    let snapshot = (0..binds).fold(Snap::default(), |snapshot, number| {
        let pods = pods(number);
        let shares = [share(1, &[&pods[0], &pods[1]])];
        let snapshot = snapshot.l4(bind(Transport::Udp, &vip(number)), &shares);
        if number < of_tcp {
            snapshot.l4(bind(Transport::Tcp, &vip(number)), &shares)
        } else {
            snapshot
        }
    });
    let reports = kernel.apply(&snapshot.0).unwrap();
    assert!(reports.iter().all(|report| report.path == DataPath::Kernel));
    kernel.activate().unwrap();
    let mut times = Times::new();
    if binds == 1 {
        for (name, count) in kernel.verified_instructions().unwrap() {
            println!("{name}: {count} verified instructions");
        }
        let spin = verifier::spin(REFERENCE_ROUNDS);
        let frame = tcp(CLIENT, "192.0.2.9:80", ACK).frame();
        let runs = (0..RUNS).map(|_| test_run(&spin, &frame).unwrap().nanoseconds);
        times.insert(REFERENCE.to_owned(), shown(REFERENCE, runs.collect()));
    }
    for (what, step) in rows(binds, of_tcp) {
        let runs = (0..RUNS)
            .map(|flow| run(&mut kernel, &step(flow)).nanoseconds)
            .collect();
        let what = format!("{what}, {binds} binds");
        let fastest = shown(&what, runs);
        times.insert(what, fastest);
    }
    times
}

/// Prints the times of one row; gives the one that a tenth of all are below.
fn shown(what: &str, mut times: Vec<u32>) -> u32 {
    times.sort_unstable();
    let at = |share: usize| times[times.len() * share / 100];
    println!(
        "{what:<48} median {:>5} ns   10 % {:>5}   90 % {:>5}",
        at(50),
        at(10),
        at(90)
    );
    at(10)
}

type Row = (&'static str, Box<dyn Fn(u32) -> Step>);

/// In this order: what is a known flow was a new one before.
fn rows(binds: u16, of_tcp: u16) -> Vec<Row> {
    let target = move |flow: u32| vip((flow % u32::from(binds)) as u16);
    let target_tcp = move |flow: u32| vip((flow % u32::from(of_tcp)) as u16);
    let client = |flow: u32| format!("203.0.113.{}:{}", 1 + flow / 40_000 % 250, 20_000 + flow % 40_000);
    let comes = |packet: Packet| Step::Frame(Direction::Ingress, packet, true);
    vec![
        (
            "pierhead_in, not ours",
            Box::new(|_| Step::Frame(Direction::Ingress, tcp(CLIENT, "192.0.2.9:80", ACK), false)),
        ),
        (
            "pierhead_in, TCP, new flow",
            Box::new(move |flow| comes(tcp(&client(flow), &target_tcp(flow), SYN))),
        ),
        (
            "pierhead_in, TCP, known flow",
            Box::new(move |flow| comes(tcp(&client(flow), &target_tcp(flow), ACK))),
        ),
        (
            "pierhead_in, UDP, new flow",
            Box::new(move |flow| comes(udp(&client(flow), &target(flow)))),
        ),
        (
            "pierhead_in, UDP, known flow",
            Box::new(move |flow| comes(udp(&client(flow), &target(flow)))),
        ),
        (
            "pierhead_in, TCP, known flow, 1400 B",
            Box::new(move |flow| comes(tcp(&client(flow), &target_tcp(flow), ACK).payload(&[0xab; 1400]))),
        ),
        (
            "pierhead_out, not ours",
            Box::new(|_| Step::Frame(Direction::Egress, tcp("10.1.0.77:80", CLIENT, ACK), false)),
        ),
        (
            "pierhead_out, TCP, known flow",
            Box::new(move |flow| Step::Answer(tcp(&client(flow), &target_tcp(flow), ACK))),
        ),
        (
            "pierhead_steer, TCP, not ours",
            Box::new(|_| Step::Lookup(Transport::Tcp, "192.0.2.9:80".to_owned(), false)),
        ),
        (
            "pierhead_steer, TCP",
            Box::new(move |flow| Step::Lookup(Transport::Tcp, target_tcp(flow), true)),
        ),
        (
            "pierhead_steer, UDP",
            Box::new(move |flow| Step::Lookup(Transport::Udp, target(flow), true)),
        ),
    ]
}
