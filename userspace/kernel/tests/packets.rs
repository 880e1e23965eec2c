//! The layer 4 programs on single frames (`BPF_PROG_TEST_RUN`): frame in; verdict, outcome and exact frame out.
//!
//! Needs root and Linux 6.6; without them these tests fail and say so.
#![allow(clippy::unwrap_used, reason = "a test says what failed by panicking")]

#[path = "support/node.rs"]
mod node;
#[path = "support/packet.rs"]
mod packet;
mod support;

use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::num::NonZero;
use std::os::fd::AsFd;

use node::{NEXT, hex, node, node_with};
use packet::{ACK, FIN, Packet, RST, SYN, error, tcp, udp};
use pierhead_kernel::{Direction, Kernel, Mode, Options, WorkerSockets};
use pierhead_model::{BindKey, EndpointState, OnMiss, Transport};
use support::{Share, Snap, bind, eventually, in_netns, ip, share};

const CLIENT: &str = "203.0.113.5:40000";
const VIP: &str = "198.51.100.1:80";
const POD: &str = "10.1.0.10:5000";
const POD_B: &str = "10.1.0.11:5000";
const CLIENT6: &str = "[2001:db8:5::5]:40000";
const VIP6: &str = "[2001:db8:100::1]:80";
const POD6: &str = "[fd01::10]:5000";

fn one(transport: Transport, vip: &str, endpoints: &[&str]) -> Snap {
    Snap::default().l4(bind(transport, vip), &[share(1, endpoints)])
}

fn from_port(port: u16) -> String {
    format!("203.0.113.5:{port}")
}

#[test]
fn tcp_goes_to_its_endpoint_and_comes_back() {
    in_netns(|| {
        let mut node = node(&one(Transport::Tcp, VIP, &[POD]));
        node.comes_in(&tcp(CLIENT, VIP, SYN), "opened", &tcp(CLIENT, POD, SYN));
        node.goes_out(&tcp(POD, CLIENT, SYN | ACK), "returned", &tcp(VIP, CLIENT, SYN | ACK));
        node.comes_in(&tcp(CLIENT, VIP, ACK), "forwarded", &tcp(CLIENT, POD, ACK));
        let long = vec![0xab; 1400];
        node.comes_in(
            &tcp(CLIENT, VIP, ACK).payload(&long),
            "forwarded",
            &tcp(CLIENT, POD, ACK).payload(&long),
        );
        node.goes_out(
            &tcp(POD, CLIENT, ACK).payload(&[1]),
            "returned",
            &tcp(VIP, CLIENT, ACK).payload(&[1]),
        );
        node.goes_out(&tcp(POD, CLIENT, FIN | ACK), "returned", &tcp(VIP, CLIENT, FIN | ACK));
        node.comes_in(&tcp(CLIENT, VIP, FIN | ACK), "forwarded", &tcp(CLIENT, POD, FIN | ACK));
        let traffic = node.kernel.counters().unwrap().binds[&bind(Transport::Tcp, VIP)];
        assert_eq!(
            (traffic.packets_in, traffic.packets_out, traffic.flows, traffic.to_stack),
            (4, 3, 1, 0)
        );
        let sizes = |payloads: &[usize]| payloads.iter().map(|n| 54 + *n as u64).sum::<u64>();
        assert_eq!(traffic.bytes_in, sizes(&[7, 7, 1400, 7]));
        assert_eq!(traffic.bytes_out, sizes(&[7, 1, 7]));
    });
}

#[test]
fn ipv6_is_the_same() {
    in_netns(|| {
        let mut node = node(&one(Transport::Tcp, VIP6, &[POD6]).l4(bind(Transport::Udp, VIP6), &[share(1, &[POD6])]));
        node.comes_in(&tcp(CLIENT6, VIP6, SYN), "opened", &tcp(CLIENT6, POD6, SYN));
        node.goes_out(
            &tcp(POD6, CLIENT6, SYN | ACK),
            "returned",
            &tcp(VIP6, CLIENT6, SYN | ACK),
        );
        node.comes_in(&tcp(CLIENT6, VIP6, ACK), "forwarded", &tcp(CLIENT6, POD6, ACK));
        node.comes_in(&udp(CLIENT6, VIP6), "opened", &udp(CLIENT6, POD6));
        node.goes_out(&udp(POD6, CLIENT6), "returned", &udp(VIP6, CLIENT6));
        node.comes_in(
            &udp(CLIENT6, VIP6).payload(b""),
            "forwarded",
            &udp(CLIENT6, POD6).payload(b""),
        );
    });
}

#[test]
fn udp_keeps_its_endpoint_and_its_kind_of_checksum() {
    in_netns(|| {
        let mut node = node(&one(Transport::Udp, VIP, &[POD]));
        node.comes_in(&udp(CLIENT, VIP), "opened", &udp(CLIENT, POD));
        node.goes_out(&udp(POD, CLIENT), "returned", &udp(VIP, CLIENT));
        // RFC 768: none stays none, both ways.
        node.comes_in(
            &udp(CLIENT, VIP).no_checksum(),
            "forwarded",
            &udp(CLIENT, POD).no_checksum(),
        );
        node.goes_out(
            &udp(POD, CLIENT).no_checksum(),
            "returned",
            &udp(VIP, CLIENT).no_checksum(),
        );
        // A sum that comes out as zero is sent as all ones.
        let all_ones = (0..=u16::MAX)
            .map(u16::to_be_bytes)
            .find(|payload| udp(CLIENT, POD).payload(payload).frame()[40..42] == [0xff, 0xff])
            .unwrap();
        node.comes_in(
            &udp(CLIENT, VIP).payload(&all_ones),
            "forwarded",
            &udp(CLIENT, POD).payload(&all_ones),
        );
    });
}

#[test]
fn options_and_extension_headers_move_the_ports() {
    in_netns(|| {
        let mut node = node(&one(Transport::Tcp, VIP, &[POD]).l4(bind(Transport::Udp, VIP6), &[share(1, &[POD6])]));
        for (i, words) in [1usize, 5, 10].into_iter().enumerate() {
            let options = vec![1u8; words * 4];
            let client = from_port(41_000 + i as u16);
            node.comes_in(
                &tcp(&client, VIP, SYN).options(&options),
                "opened",
                &tcp(&client, POD, SYN).options(&options),
            );
            node.goes_out(
                &tcp(POD, &client, ACK).options(&options),
                "returned",
                &tcp(VIP, &client, ACK).options(&options),
            );
        }
        let extended = |p: Packet| {
            p.extension(0, &[1, 4, 0, 0, 0, 0])
                .extension(60, &[1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        };
        node.comes_in(&extended(udp(CLIENT6, VIP6)), "opened", &extended(udp(CLIENT6, POD6)));
        node.goes_out(&extended(udp(POD6, CLIENT6)), "returned", &extended(udp(VIP6, CLIENT6)));
        // Longer than what the programs read without asking the kernel; and just so long, and so short.
        for words in [50usize, 54, 55, 56, 57, 58, 150, 255] {
            let extended = |p: Packet| p.extension(60, &vec![0; 6 + words * 8]);
            node.comes_in(
                &extended(udp(CLIENT6, VIP6)),
                "forwarded",
                &extended(udp(CLIENT6, POD6)),
            );
            node.goes_out(&extended(udp(POD6, CLIENT6)), "returned", &extended(udp(VIP6, CLIENT6)));
        }
    });
}

#[test]
fn fragments_go_up_the_stack() {
    in_netns(|| {
        let mut node = node(&one(Transport::Udp, VIP, &[POD]).l4(bind(Transport::Udp, VIP6), &[share(1, &[POD6])]));
        for fragment in [0x2000, 0x2010, 0x0010] {
            node.stays(
                Direction::Ingress,
                &udp(CLIENT, VIP).fragment(fragment).frame(),
                "fragment",
            );
        }
        let six = udp(CLIENT6, VIP6).extension(44, &[0, 1, 0, 0, 0, 9]);
        node.stays(Direction::Ingress, &six.frame(), "fragment");
        node.comes_in(&udp(CLIENT, VIP).fragment(0), "opened", &udp(CLIENT, POD).fragment(0));
    });
}

#[test]
fn a_fragmented_reply_comes_from_the_bind_in_all_its_pieces() {
    in_netns(|| {
        let mut node = node(&one(Transport::Udp, VIP, &[POD]).l4(bind(Transport::Udp, VIP6), &[share(1, &[POD6])]));
        node.comes_in(&udp(CLIENT, VIP), "opened", &udp(CLIENT, POD));
        node.comes_in(&udp(CLIENT6, VIP6), "opened", &udp(CLIENT6, POD6));
        // The others have no ports, so only addresses change; before the first nothing is known of them.
        let later = |from: &str| udp(from, CLIENT).fragment(0x2003).frame();
        let later_expected = [&later(VIP)[..34], &later(POD)[34..]].concat();
        node.stays(Direction::Egress, &later(POD), "fragment");
        node.goes_out(
            &udp(POD, CLIENT).fragment(0x2000),
            "returned",
            &udp(VIP, CLIENT).fragment(0x2000),
        );
        let got = node.run(Direction::Egress, &later(POD));
        assert_eq!(
            (got.outcome, got.verdict, hex(&got.frame)),
            ("returned", NEXT, hex(&later_expected))
        );

        let piece = |from: &str, offset: [u8; 2]| udp(from, CLIENT6).extension(44, &[offset[0], offset[1], 9, 8, 7, 6]);
        node.stays(Direction::Egress, &piece(POD6, [0, 0x11]).frame(), "fragment");
        node.goes_out(&piece(POD6, [0, 1]), "returned", &piece(VIP6, [0, 1]));
        let expected = [
            &piece(VIP6, [0, 0x11]).frame()[..54],
            &piece(POD6, [0, 0x11]).frame()[54..],
        ]
        .concat();
        let got = node.run(Direction::Egress, &piece(POD6, [0, 0x11]).frame());
        assert_eq!(
            (got.outcome, got.verdict, hex(&got.frame)),
            ("returned", NEXT, hex(&expected))
        );
        // Of another packet, or not from an endpoint of a flow.
        node.stays(
            Direction::Egress,
            &udp("10.1.0.99:1", CLIENT).fragment(0x0003).frame(),
            "fragment",
        );
        node.stays(
            Direction::Egress,
            &udp(POD, "203.0.113.6:1").fragment(0x2000).frame(),
            "foreign",
        );
    });
}

#[test]
fn what_is_not_ours_is_not_touched() {
    in_netns(|| {
        let mut node = node(&one(Transport::Tcp, VIP, &[POD]).l4(bind(Transport::Tcp, VIP6), &[share(1, &[POD6])]));
        node.comes_in(&tcp(CLIENT, VIP, SYN), "opened", &tcp(CLIENT, POD, SYN));
        let ours = tcp(CLIENT, VIP, ACK);
        let mut frames: Vec<Vec<u8>> = [
            tcp(CLIENT, "198.51.100.1:81", SYN),
            tcp(CLIENT, "198.51.100.2:80", SYN),
            udp(CLIENT, VIP),
            tcp(CLIENT6, "[2001:db8:100::2]:80", SYN),
            udp(CLIENT6, VIP6),
            // Straight to the endpoint, by somebody who knows it.
            tcp("203.0.113.6:40000", POD, SYN),
        ]
        .iter()
        .map(Packet::frame)
        .collect();
        let edited = |edit: &dyn Fn(&mut Vec<u8>)| {
            let mut frame = ours.frame();
            edit(&mut frame);
            frame
        };
        frames.push(edited(&|f| f[12..14].copy_from_slice(&[0x08, 0x06])));
        frames.push(edited(&|f| f[14] = 0x44));
        frames.push(edited(&|f| f[14] = 0x65));
        frames.push(edited(&|f| f[23] = 47));
        frames.push(edited(&|f| f.truncate(36)));
        frames.push(edited(&|f| f.truncate(46)));
        for frame in &frames {
            node.stays(Direction::Ingress, frame, "foreign");
        }
        // Replies: another client, another port of the endpoint, another protocol, an endpoint that is none.
        for packet in [
            tcp(POD, "203.0.113.6:40000", ACK),
            tcp(POD, "203.0.113.5:40001", ACK),
            tcp("10.1.0.10:5001", CLIENT, ACK),
            udp(POD, CLIENT),
            tcp("10.1.0.99:5000", CLIENT, ACK),
        ] {
            node.stays(Direction::Egress, &packet.frame(), "foreign");
        }
    });
}

#[test]
fn flows_spread_by_weight_and_stay() {
    in_netns(|| {
        let snapshot = Snap::default().l4(
            bind(Transport::Tcp, VIP),
            &[share(3, &[POD]), share(1, &[POD_B]), share(0, &["10.1.0.12:5000"])],
        );
        let mut node = node(&snapshot);
        let mut chosen = BTreeMap::<String, u32>::new();
        let mut first = Vec::new();
        for port in 1..=2_000 {
            let endpoint = node.endpoint_of(&tcp(&from_port(port), VIP, SYN));
            *chosen.entry(endpoint.clone()).or_default() += 1;
            first.push((port, endpoint));
        }
        // 1,500 expected, sigma about 20; the table itself is off by less than 1 %.
        let heavy = chosen[POD];
        assert!((1_370..=1_630).contains(&heavy), "{chosen:?}");
        assert_eq!(heavy + chosen[POD_B], 2_000, "weight 0 gets nothing: {chosen:?}");
        for (port, endpoint) in first.iter().step_by(97) {
            let client = from_port(*port);
            node.comes_in(&tcp(&client, VIP, ACK), "forwarded", &tcp(&client, endpoint, ACK));
        }
    });
}

/// The same bind with one endpoint draining.
fn draining(key: BindKey, ready: &str, draining: &str) -> Snap {
    let endpoints = vec![
        (ready.parse().unwrap(), EndpointState::Ready),
        (draining.parse().unwrap(), EndpointState::Draining),
    ];
    Snap::default().l4(key, &[Share { weight: 1, endpoints }])
}

#[test]
fn a_draining_endpoint_keeps_its_flows_and_gets_no_new_ones() {
    in_netns(|| {
        let key = bind(Transport::Tcp, VIP);
        let mut node = node(&Snap::default().l4(key, &[share(1, &[POD])]));
        node.comes_in(&tcp(CLIENT, VIP, SYN), "opened", &tcp(CLIENT, POD, SYN));
        node.apply(&draining(key, POD_B, POD));
        // Its handshake is still open: the repeated SYN is no new connection.
        node.comes_in(&tcp(CLIENT, VIP, SYN), "forwarded", &tcp(CLIENT, POD, SYN));
        node.goes_out(&tcp(POD, CLIENT, SYN | ACK), "returned", &tcp(VIP, CLIENT, SYN | ACK));
        node.comes_in(&tcp(CLIENT, VIP, ACK), "forwarded", &tcp(CLIENT, POD, ACK));
        for port in 1..50 {
            let client = from_port(port);
            node.comes_in(&tcp(&client, VIP, SYN), "opened", &tcp(&client, POD_B, SYN));
        }
        // A SYN on the port of a finished connection is a new one: the table is not trusted.
        node.comes_in(&tcp(CLIENT, VIP, FIN | ACK), "forwarded", &tcp(CLIENT, POD, FIN | ACK));
        node.comes_in(&tcp(CLIENT, VIP, SYN), "opened", &tcp(CLIENT, POD_B, SYN));
        node.goes_out(&tcp(POD_B, CLIENT, SYN | ACK), "returned", &tcp(VIP, CLIENT, SYN | ACK));
        node.stays(Direction::Egress, &tcp(POD, CLIENT, ACK).frame(), "foreign");
    });
}

#[test]
fn when_none_is_ready_a_draining_endpoint_takes_new_flows() {
    in_netns(|| {
        let endpoints = vec![(POD.parse().unwrap(), EndpointState::Draining)];
        let mut node = node(&Snap::default().l4(bind(Transport::Tcp, VIP), &[Share { weight: 1, endpoints }]));
        node.comes_in(&tcp(CLIENT, VIP, SYN), "opened", &tcp(CLIENT, POD, SYN));
    });
}

/// Client, another client, bind, and two endpoints, of each family: a flow remembers only an IPv4 endpoint.
const FAMILIES: [[&str; 5]; 2] = [
    [CLIENT, "203.0.113.6:40000", VIP, POD, POD_B],
    [CLIENT6, "[2001:db8:5::6]:40000", VIP6, POD6, "[fd01::11]:5000"],
];

#[test]
fn a_dead_endpoint_is_noticed() {
    for [client, other, vip, pod, pod_b] in FAMILIES {
        in_netns(move || {
            let snapshot = |pod| one(Transport::Tcp, vip, &[pod]).l4(bind(Transport::Udp, vip), &[share(1, &[pod])]);
            let mut node = node(&snapshot(pod));
            node.comes_in(&tcp(client, vip, SYN), "opened", &tcp(client, pod, SYN));
            node.comes_in(&udp(client, vip), "opened", &udp(client, pod));
            node.apply(&snapshot(pod_b));
            // The stack has no such connection and resets it; a datagram flow moves on.
            node.stays(Direction::Ingress, &tcp(client, vip, ACK).frame(), "dead_backend");
            node.comes_in(&udp(client, vip), "opened", &udp(client, pod_b));
            node.goes_out(&udp(pod_b, client), "returned", &udp(vip, client));
            node.stays(Direction::Egress, &udp(pod, client).frame(), "foreign");
            // The endpoint comes back under another id: the old flow is not its own.
            node.apply(&snapshot(pod));
            node.stays(Direction::Ingress, &tcp(client, vip, ACK).frame(), "dead_backend");
            node.comes_in(&tcp(other, vip, SYN), "opened", &tcp(other, pod, SYN));
        });
    }
}

#[test]
fn a_flow_lives_on_while_other_endpoints_retire() {
    for [client, _, vip, pod, pod_b] in FAMILIES {
        in_netns(move || {
            let (udp_vip, all) = (bind(Transport::Udp, vip), share(1, &[pod, pod_b]));
            let mut node = node(&one(Transport::Tcp, vip, &[pod]).l4(udp_vip, std::slice::from_ref(&all)));
            node.comes_in(&tcp(client, vip, SYN), "opened", &tcp(client, pod, SYN));
            // One endpoint goes and comes back, then the bind it was of.
            for snapshot in [
                one(Transport::Tcp, vip, &[pod]).l4(udp_vip, &[share(1, &[pod])]),
                one(Transport::Tcp, vip, &[pod]).l4(udp_vip, std::slice::from_ref(&all)),
                one(Transport::Tcp, vip, &[pod]),
            ] {
                node.apply(&snapshot);
                for _twice in 0..2 {
                    node.comes_in(&tcp(client, vip, ACK), "forwarded", &tcp(client, pod, ACK));
                    node.goes_out(&tcp(pod, client, ACK), "returned", &tcp(vip, client, ACK));
                }
            }
            let traffic = node.kernel.counters().unwrap().binds[&bind(Transport::Tcp, vip)];
            assert_eq!((traffic.packets_in, traffic.packets_out, traffic.flows), (7, 6, 1));
        });
    }
}

#[test]
fn a_port_is_looked_at_no_more_when_its_last_bind_is_gone() {
    in_netns(|| {
        // The second has the same ports, of bind and endpoint.
        let other_vip = "198.51.100.2:80";
        let both = || one(Transport::Tcp, VIP, &[POD]).l4(bind(Transport::Tcp, other_vip), &[share(1, &[POD_B])]);
        let mut node = node(&both());
        node.comes_in(&tcp(CLIENT, VIP, SYN), "opened", &tcp(CLIENT, POD, SYN));
        node.comes_in(&tcp(CLIENT, other_vip, SYN), "opened", &tcp(CLIENT, POD_B, SYN));
        node.apply(&one(Transport::Tcp, VIP, &[POD]));
        node.comes_in(&tcp(CLIENT, VIP, ACK), "forwarded", &tcp(CLIENT, POD, ACK));
        node.goes_out(&tcp(POD, CLIENT, ACK), "returned", &tcp(VIP, CLIENT, ACK));
        node.apply(&Snap::default());
        node.stays(Direction::Ingress, &tcp(CLIENT, VIP, ACK).frame(), "foreign");
        node.apply(&both());
        let client = from_port(1);
        node.comes_in(&tcp(&client, other_vip, SYN), "opened", &tcp(&client, POD_B, SYN));
    });
}

#[test]
fn nobody_in_charge_means_no_new_flows() {
    in_netns(|| {
        let mut node = node_with(Options::default(), false, &one(Transport::Tcp, VIP, &[POD]));
        node.stays(Direction::Ingress, &tcp(CLIENT, VIP, SYN).frame(), "lease_over");
        node.kernel.activate().unwrap();
        node.comes_in(&tcp(CLIENT, VIP, SYN), "opened", &tcp(CLIENT, POD, SYN));
    });
}

#[test]
fn beyond_the_gate_new_flows_go_up_the_stack() {
    in_netns(|| {
        let options = Options {
            gate: 5,
            ..Options::default()
        };
        let mut node = node_with(options, true, &one(Transport::Tcp, VIP, &[POD]));
        node.kernel
            .run_on(Direction::Ingress, &tcp(CLIENT, VIP, SYN).frame())
            .unwrap();
        let frames: Vec<_> = (1..1_000).map(|port| tcp(&from_port(port), VIP, SYN).frame()).collect();
        for frame in &frames {
            node.kernel.run_on(Direction::Ingress, frame).unwrap();
        }
        let outcomes = node.outcomes();
        assert_eq!(outcomes["opened"] + outcomes["gated"], 1_000);
        assert!(outcomes["gated"] > 500, "{outcomes:?}");
        // A flow that is known is not new.
        node.comes_in(&tcp(CLIENT, VIP, ACK), "forwarded", &tcp(CLIENT, POD, ACK));
    });
}

#[test]
fn a_full_table_sends_new_flows_up_and_keeps_the_old() {
    // More than one sweep reads.
    const MAX_FLOWS: u32 = 100_000;
    in_netns(|| {
        let options = Options {
            gate: u64::MAX,
            max_flows: NonZero::new(MAX_FLOWS).unwrap(),
            ..Options::default()
        };
        let mut node = node_with(options, true, &one(Transport::Udp, VIP, &[POD]));
        let mut frame = udp(CLIENT, VIP).no_checksum().frame();
        for i in 0..MAX_FLOWS {
            frame[26..30].copy_from_slice(&(0x0b00_0000 + i).to_be_bytes());
            node.kernel.run_on(Direction::Ingress, &frame).unwrap();
        }
        assert_eq!(node.outcomes()["opened"], u64::from(MAX_FLOWS));
        assert_eq!(node.kernel.counters().unwrap().max_flows, u64::from(MAX_FLOWS));
        node.stays(Direction::Ingress, &udp(CLIENT, VIP).frame(), "table_full");
        let old = udp("11.0.0.0:40000", VIP);
        node.comes_in(&old, "forwarded", &udp("11.0.0.0:40000", POD));
        // A sweep reads a part; several count all of them, and forget none that lives.
        eventually("all are counted", || {
            node.kernel.tick().unwrap();
            node.kernel.counters().unwrap().flows == u64::from(MAX_FLOWS)
        });
        // Flows of an endpoint that is gone make room.
        node.apply(&one(Transport::Udp, VIP, &[POD_B]));
        eventually("they are forgotten", || {
            node.kernel.tick().unwrap();
            node.kernel.counters().unwrap().flows == 0
        });
        node.comes_in(&udp(CLIENT, VIP), "opened", &udp(CLIENT, POD_B));
    });
}

#[test]
fn a_connection_of_userspace_stays_in_userspace() {
    in_netns(|| {
        let mut node = node(&one(Transport::Tcp, VIP, &[POD]).own("198.51.100.1/32", OnMiss::Drop));
        ip("addr add 203.0.113.5/32 dev lo");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let sockets = WorkerSockets {
            tcp4: Some(listener.as_fd()),
            ..WorkerSockets::default()
        };
        // The generation in charge has no workers yet; a successor brings one.
        let mut kernel = Kernel::open(Options {
            takeover: true,
            mode: Mode::Full,
            nics: vec!["ext0".to_owned()],
            ..Options::default()
        })
        .unwrap();
        kernel.register(0, &sockets).unwrap();
        kernel.activate().unwrap();
        std::mem::swap(&mut node.kernel, &mut kernel);
        let socket = TcpStream::connect(VIP).unwrap();
        let (_server, client) = listener.accept().unwrap();
        let client = client.to_string();
        assert_eq!(socket.local_addr().unwrap().to_string(), client);
        node.stays(Direction::Ingress, &tcp(&client, VIP, ACK).frame(), "local_socket");
        node.stays(
            Direction::Ingress,
            &tcp(&client, VIP, FIN | ACK).frame(),
            "local_socket",
        );
        node.stays(Direction::Ingress, &tcp(&client, VIP, SYN).frame(), "local_socket");
        // The listener alone does not claim anybody.
        node.comes_in(&tcp(CLIENT, VIP, SYN), "opened", &tcp(CLIENT, POD, SYN));
        // A reset of nothing opens nothing.
        node.stays(
            Direction::Ingress,
            &tcp(&from_port(9), VIP, RST).frame(),
            "local_socket",
        );
        // Picked up in the middle: it was ours before, and the table chooses the same endpoint.
        let other = from_port(10);
        node.comes_in(&tcp(&other, VIP, ACK), "opened", &tcp(&other, POD, ACK));
    });
}

#[test]
fn binds_that_share_an_endpoint_tell_their_clients_apart() {
    const VIP_B: &str = "198.51.100.2:8080";
    in_netns(|| {
        let both = || one(Transport::Tcp, VIP, &[POD]).l4(bind(Transport::Tcp, VIP_B), &[share(1, &[POD])]);
        let mut node = node(&both());
        let other = from_port(40_001);
        node.comes_in(&tcp(CLIENT, VIP, SYN), "opened", &tcp(CLIENT, POD, SYN));
        node.comes_in(&tcp(&other, VIP_B, SYN), "opened", &tcp(&other, POD, SYN));
        node.goes_out(&tcp(POD, CLIENT, SYN | ACK), "returned", &tcp(VIP, CLIENT, SYN | ACK));
        node.goes_out(&tcp(POD, &other, SYN | ACK), "returned", &tcp(VIP_B, &other, SYN | ACK));
        // Behind the rewrite both would be one connection.
        node.stays(Direction::Ingress, &tcp(CLIENT, VIP_B, SYN).frame(), "clash");
        // One bind lets go of the endpoint, the other keeps it: its flow goes on, the first one's does not.
        node.apply(&one(Transport::Tcp, VIP, &[POD_B]).l4(bind(Transport::Tcp, VIP_B), &[share(1, &[POD])]));
        node.stays(Direction::Ingress, &tcp(CLIENT, VIP, ACK).frame(), "dead_backend");
        node.comes_in(&tcp(&other, VIP_B, ACK), "forwarded", &tcp(&other, POD, ACK));
    });
}

/// A client that reaches the endpoint directly may use the port of a connection that it had through the bind.
#[test]
fn a_finished_flow_does_not_catch_the_replies_of_a_direct_connection() {
    let flags = [(FIN | ACK, FIN | ACK, ACK), (RST, ACK, ACK)];
    for (client_ends, endpoint_ends, last) in flags {
        in_netns(move || {
            let mut node = node(&one(Transport::Tcp, VIP, &[POD]));
            node.comes_in(&tcp(CLIENT, VIP, SYN), "opened", &tcp(CLIENT, POD, SYN));
            node.goes_out(&tcp(POD, CLIENT, SYN | ACK), "returned", &tcp(VIP, CLIENT, SYN | ACK));
            // Not before it is over: this may be the same answer once more.
            node.goes_out(&tcp(POD, CLIENT, SYN | ACK), "returned", &tcp(VIP, CLIENT, SYN | ACK));
            for (from_client, from_endpoint) in [(client_ends, endpoint_ends), (last, ACK)] {
                node.comes_in(
                    &tcp(CLIENT, VIP, from_client),
                    "forwarded",
                    &tcp(CLIENT, POD, from_client),
                );
                node.goes_out(
                    &tcp(POD, CLIENT, from_endpoint),
                    "returned",
                    &tcp(VIP, CLIENT, from_endpoint),
                );
            }
            for direct in [SYN | ACK, ACK, FIN | ACK] {
                let direct = tcp(POD, CLIENT, direct);
                node.goes_out(&direct, "foreign", &direct);
            }
            // Nothing is remembered against a new one.
            node.comes_in(&tcp(CLIENT, VIP, SYN), "opened", &tcp(CLIENT, POD, SYN));
            node.goes_out(&tcp(POD, CLIENT, SYN | ACK), "returned", &tcp(VIP, CLIENT, SYN | ACK));
        });
    }
}

#[test]
fn many_binds_come_and_go_at_once() {
    // More than are put in one call.
    const BINDS: u16 = 300;
    let vip = |number: u16| format!("198.51.100.1:{}", 1_000 + number);
    let pod = |number: u16| format!("10.1.0.10:{}", 5_000 + number);
    let all = move |range: std::ops::Range<u16>| {
        range.fold(Snap::default(), move |snap, number| {
            snap.l4(bind(Transport::Udp, &vip(number)), &[share(1, &[&pod(number)])])
        })
    };
    in_netns(move || {
        let mut node = node(&all(0..BINDS));
        for number in 0..BINDS {
            let (vip, pod) = (vip(number), pod(number));
            node.comes_in(&udp(CLIENT, &vip), "opened", &udp(CLIENT, &pod));
        }
        node.apply(&all(0..1));
        for number in 1..BINDS {
            let packet = udp(CLIENT, &vip(number));
            node.comes_in(&packet, "foreign", &packet);
        }
        node.comes_in(&udp(CLIENT, &vip(0)), "forwarded", &udp(CLIENT, &pod(0)));
        node.apply(&all(0..BINDS));
        let last = BINDS - 1;
        node.comes_in(&udp(CLIENT, &vip(last)), "opened", &udp(CLIENT, &pod(last)));
    });
}

#[test]
fn errors_about_replies_reach_the_endpoint() {
    const ROUTER: &str = "203.0.113.254:0";
    const ROUTER6: &str = "[2001:db8:5::fe]:0";
    in_netns(|| {
        let both = one(Transport::Tcp, VIP, &[POD]).l4(bind(Transport::Udp, VIP), &[share(1, &[POD])]);
        let both = both.l4(bind(Transport::Tcp, VIP6), &[share(1, &[POD6])]);
        let mut node = node(&both.l4(bind(Transport::Udp, VIP6), &[share(1, &[POD6])]));
        node.comes_in(&tcp(CLIENT, VIP, SYN), "opened", &tcp(CLIENT, POD, SYN));
        node.comes_in(&udp(CLIENT, VIP), "opened", &udp(CLIENT, POD));
        node.comes_in(&tcp(CLIENT6, VIP6, SYN), "opened", &tcp(CLIENT6, POD6, SYN));
        node.comes_in(&udp(CLIENT6, VIP6), "opened", &udp(CLIENT6, POD6));
        // Fragmentation needed, the whole packet quoted; the minimum of eight bytes; time exceeded.
        for (kind, code, rest, bytes) in [(3, 4, 1280, 1500), (3, 4, 1280, 28), (3, 1, 0, 40), (11, 0, 0, 28)] {
            node.comes_in(
                &error(ROUTER, VIP, kind, code, rest, &tcp(VIP, CLIENT, ACK), bytes),
                "icmp_in",
                &error(ROUTER, POD, kind, code, rest, &tcp(POD, CLIENT, ACK), bytes),
            );
        }
        // The client's own port unreachable.
        node.comes_in(
            &error(CLIENT, VIP, 3, 3, 0, &udp(VIP, CLIENT), 1500),
            "icmp_in",
            &error(CLIENT, POD, 3, 3, 0, &udp(POD, CLIENT), 1500),
        );
        node.comes_in(
            &error(CLIENT, VIP, 3, 3, 0, &udp(VIP, CLIENT).no_checksum(), 1500),
            "icmp_in",
            &error(CLIENT, POD, 3, 3, 0, &udp(POD, CLIENT).no_checksum(), 1500),
        );
        for (kind, code, rest, bytes) in [(2, 0, 1280, 1500), (2, 0, 1280, 48), (1, 3, 0, 1500), (3, 0, 0, 60)] {
            node.comes_in(
                &error(ROUTER6, VIP6, kind, code, rest, &tcp(VIP6, CLIENT6, ACK), bytes),
                "icmp_in",
                &error(ROUTER6, POD6, kind, code, rest, &tcp(POD6, CLIENT6, ACK), bytes),
            );
        }
        node.comes_in(
            &error(CLIENT6, VIP6, 1, 4, 0, &udp(VIP6, CLIENT6), 1500),
            "icmp_in",
            &error(CLIENT6, POD6, 1, 4, 0, &udp(POD6, CLIENT6), 1500),
        );
        // Not about a flow of ours; not to the address it is about; no error at all; cut before the ports.
        for packet in [
            error(ROUTER, VIP, 3, 4, 1280, &tcp(VIP, "203.0.113.5:1", ACK), 1500),
            error(ROUTER, "198.51.100.9:0", 3, 4, 1280, &tcp(VIP, CLIENT, ACK), 1500),
            error(ROUTER, VIP, 8, 0, 1, &tcp(VIP, CLIENT, ACK), 1500),
            error(ROUTER, VIP, 3, 4, 1280, &tcp(VIP, CLIENT, ACK), 22),
            error(ROUTER6, VIP6, 128, 0, 1, &tcp(VIP6, CLIENT6, ACK), 1500),
        ] {
            node.stays(Direction::Ingress, &packet.frame(), "foreign");
        }
    });
}

#[test]
fn errors_about_requests_reach_the_client_from_the_bind() {
    in_netns(|| {
        let both = one(Transport::Tcp, VIP, &[POD]).l4(bind(Transport::Udp, VIP6), &[share(1, &[POD6])]);
        let mut node = node(&both);
        node.comes_in(&tcp(CLIENT, VIP, SYN), "opened", &tcp(CLIENT, POD, SYN));
        node.comes_in(&udp(CLIENT6, VIP6), "opened", &udp(CLIENT6, POD6));
        // From the endpoint, and from this node, whose way to it is narrower than the client's packet.
        for source in [POD, "10.9.0.1:0"] {
            for (kind, code, rest, bytes) in [(3, 4, 1400, 1500), (3, 4, 1400, 28), (3, 3, 0, 28)] {
                node.goes_out(
                    &error(source, CLIENT, kind, code, rest, &tcp(CLIENT, POD, ACK), bytes),
                    "icmp_out",
                    &error(VIP, CLIENT, kind, code, rest, &tcp(CLIENT, VIP, ACK), bytes),
                );
            }
        }
        for source in [POD6, "[2001:db8:9::1]:0"] {
            for (kind, code, rest, bytes) in [(2, 0, 1280, 1500), (1, 4, 0, 48)] {
                node.goes_out(
                    &error(source, CLIENT6, kind, code, rest, &udp(CLIENT6, POD6), bytes),
                    "icmp_out",
                    &error(VIP6, CLIENT6, kind, code, rest, &udp(CLIENT6, VIP6), bytes),
                );
            }
        }
        for packet in [
            error(POD, CLIENT, 3, 3, 0, &tcp("203.0.113.5:1", POD, ACK), 1500),
            error(POD, "203.0.113.9:0", 3, 3, 0, &tcp(CLIENT, POD, ACK), 1500),
            error(POD, CLIENT, 0, 0, 0, &tcp(CLIENT, POD, ACK), 1500),
        ] {
            node.stays(Direction::Egress, &packet.frame(), "foreign");
        }
    });
}
