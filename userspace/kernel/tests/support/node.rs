//! A node with the programs loaded, and what they make of single frames.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "a module of several test files, each of which uses its own part"
)]
#![allow(clippy::unwrap_used, reason = "a test says what failed by panicking")]

use std::collections::BTreeMap;

use pierhead_kernel::{Direction, Kernel, Mode, Options};
use pierhead_model::DataPath;

use crate::packet::Packet;
use crate::support::{Snap, ip};

/// Next program in the chain: the packet goes on.
pub const NEXT: i32 = -1;
/// Out of the interface that the program named.
pub const REDIRECT: i32 = 7;

/// A node: an external interface towards clients, an internal one towards endpoints.
pub struct Node {
    pub kernel: Kernel,
}

pub fn node_with(options: Options, activate: bool, snapshot: &Snap) -> Node {
    for (name, peer, v4, v6) in [
        ("ext0", "ext1", "10.9.0.1/24", "2001:db8:9::1/64"),
        ("int0", "int1", "10.1.0.1/24", "fd01::1/64"),
    ] {
        ip(&format!("link add {name} type veth peer name {peer}"));
        ip(&format!("link set {name} up"));
        ip(&format!("link set {peer} up"));
        ip(&format!("addr add {v4} dev {name}"));
        ip(&format!("addr add {v6} dev {name} nodad"));
    }
    for switch in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        std::fs::write(format!("/proc/sys/net/{switch}"), "1").unwrap();
    }
    let options = Options {
        mode: Mode::Full,
        nics: vec!["ext0".to_owned()],
        seed: Some(7),
        ..options
    };
    let mut node = Node {
        kernel: Kernel::open(options).unwrap(),
    };
    node.apply(snapshot);
    if activate {
        node.kernel.activate().unwrap();
    }
    node
}

pub fn node(snapshot: &Snap) -> Node {
    node_with(Options::default(), true, snapshot)
}

/// What became of a frame.
#[derive(Debug, PartialEq)]
pub struct Result {
    pub outcome: &'static str,
    pub verdict: i32,
    pub frame: Vec<u8>,
}

impl Node {
    pub fn apply(&mut self, snapshot: &Snap) {
        let reports = self.kernel.apply(&snapshot.0).unwrap();
        assert!(
            reports.iter().all(|report| report.path == DataPath::Kernel),
            "{reports:?}"
        );
    }

    pub fn outcomes(&self) -> BTreeMap<&'static str, u64> {
        self.kernel.counters().unwrap().outcomes.into_iter().collect()
    }

    pub fn run(&mut self, direction: Direction, frame: &[u8]) -> Result {
        let before = self.outcomes();
        let run = self.kernel.run_on(direction, frame).unwrap();
        let after = self.outcomes();
        let mut changed: Vec<_> = after.iter().filter(|(name, count)| before[*name] != **count).collect();
        // The interfaces have packets of their own (neighbour and router discovery).
        if changed.len() > 1 {
            changed.retain(|(name, _)| **name != "foreign");
        }
        assert_eq!(changed.len(), 1, "one packet, one outcome: {changed:?}");
        Result {
            outcome: changed[0].0,
            verdict: run.verdict,
            frame: run.frame,
        }
    }

    /// From the client's side, and what must leave towards the endpoint.
    pub fn comes_in(&mut self, packet: &Packet, outcome: &str, expected: &Packet) {
        let got = self.run(Direction::Ingress, &packet.frame());
        assert_eq!((got.outcome, got.verdict), (outcome, NEXT), "{packet:?}");
        assert_eq!(hex(&got.frame), hex(&expected.frame()), "{packet:?}");
    }

    /// From the client's side, and passed on to another node with this hop limit, otherwise as it came.
    pub fn passes_on(&mut self, packet: &Packet, hop_limit: u8) {
        let got = self.run(Direction::Ingress, &packet.frame());
        assert_eq!((got.outcome, got.verdict), ("relayed", REDIRECT), "{packet:?}");
        assert_eq!(
            hex(&got.frame),
            hex(&packet.clone().hops(hop_limit).frame()),
            "{packet:?}"
        );
    }

    pub fn goes_out(&mut self, packet: &Packet, outcome: &str, expected: &Packet) {
        let got = self.run(Direction::Egress, &packet.frame());
        assert_eq!((got.outcome, got.verdict), (outcome, NEXT), "{packet:?}");
        assert_eq!(hex(&got.frame), hex(&expected.frame()), "{packet:?}");
    }

    pub fn stays(&mut self, direction: Direction, frame: &[u8], outcome: &str) {
        let got = self.run(direction, frame);
        assert_eq!((got.outcome, got.verdict), (outcome, NEXT));
        assert_eq!(hex(&got.frame), hex(frame), "not a byte is touched");
    }

    /// The endpoint that a new flow from this port of the client goes to.
    pub fn endpoint_of(&mut self, packet: &Packet) -> String {
        let got = self.run(Direction::Ingress, &packet.frame());
        assert_eq!(got.outcome, "opened");
        let f = &got.frame;
        format!(
            "{}.{}.{}.{}:{}",
            f[30],
            f[31],
            f[32],
            f[33],
            u16::from_be_bytes([f[36], f[37]])
        )
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes
        .chunks(2)
        .map(|pair| pair.iter().map(|b| format!("{b:02x}")).collect::<String>())
        .collect::<Vec<_>>()
        .join(" ")
}
