//! How long the layer 4 programs take for one packet (`BPF_PROG_TEST_RUN`), and how many instructions the verifier looked at.
//! `cargo bench -p pierhead-kernel`. Needs root and Linux 6.6.
//!
//! A frame is run once per measurement, since a second run would see what the first made of it; the clock is part of it.
#![allow(clippy::unwrap_used, reason = "a bench says what failed by panicking")]
#![allow(clippy::print_stdout, reason = "a bench talks to its terminal")]

#[path = "../tests/support/packet.rs"]
mod packet;
#[path = "../tests/support/mod.rs"]
mod support;

use packet::{ACK, Packet, SYN, tcp, udp};
use pierhead_kernel::{Direction, Kernel, Mode, Options};
use pierhead_model::{DataPath, Transport};
use support::{Snap, bind, in_netns, ip, share};

const RUNS: u32 = 20_000;
const CLIENT: &str = "203.0.113.5:40000";

fn main() {
    // `cargo test --benches` and `cargo bench -- --list` ask for no run.
    if std::env::args().any(|word| word == "--list" || word == "--test") {
        return;
    }
    for binds in [1, 100, 10_000] {
        in_netns(move || measure(binds));
    }
}

fn vip(bind: u16) -> String {
    format!("198.51.100.1:{}", 10_000 + bind)
}

/// Four binds have their endpoints in common, as many as can be told apart.
fn pods(bind: u16) -> [String; 2] {
    [10, 11].map(|host| format!("10.1.0.{host}:{}", 5_000 + bind / 4))
}

fn measure(binds: u16) {
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
        ..Options::default()
    };
    let mut kernel = Kernel::open(options).unwrap();
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
    if binds == 1 {
        for (name, count) in kernel.verified_instructions().unwrap() {
            println!("{name}: {count} verified instructions");
        }
    }
    let target = |flow: u32| vip((flow % u32::from(binds)) as u16);
    let target_tcp = |flow: u32| vip((flow % u32::from(of_tcp)) as u16);
    let client = |flow: u32| format!("203.0.113.{}:{}", 1 + flow / 40_000 % 250, 20_000 + flow % 40_000);
    let mut row = |what: &str, direction, frame: &dyn Fn(u32) -> Packet| {
        let mut times: Vec<u32> = (0..RUNS)
            .map(|flow| kernel.run_on(direction, &frame(flow).frame()).unwrap().nanoseconds)
            .collect();
        times.sort_unstable();
        let at = |share: usize| times[times.len() * share / 100];
        println!(
            "{binds:>6} binds  {what:<34} median {:>5} ns   10 % {:>5}   90 % {:>5}",
            at(50),
            at(10),
            at(90)
        );
    };
    row("not ours", Direction::Ingress, &|_| tcp(CLIENT, "192.0.2.9:80", ACK));
    row("TCP, new flow", Direction::Ingress, &|flow| {
        tcp(&client(flow), &target_tcp(flow), SYN)
    });
    row("TCP, known flow", Direction::Ingress, &|flow| {
        tcp(&client(flow), &target_tcp(flow), ACK)
    });
    row("UDP, new flow", Direction::Ingress, &|flow| {
        udp(&client(flow), &target(flow))
    });
    row("UDP, known flow", Direction::Ingress, &|flow| {
        udp(&client(flow), &target(flow))
    });
    row("TCP, known flow, 1400 B", Direction::Ingress, &|flow| {
        tcp(&client(flow), &target_tcp(flow), ACK).payload(&[0xab; 1400])
    });
    row("reply, not ours", Direction::Egress, &|_| {
        tcp("10.1.0.77:80", CLIENT, ACK)
    });
}
