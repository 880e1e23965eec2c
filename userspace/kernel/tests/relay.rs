//! Single frames (`BPF_PROG_TEST_RUN`) of flows whose endpoint is on another node: they go there as they came.
//!
//! Needs root and Linux 6.6; without them these tests fail and say so.
#![allow(clippy::unwrap_used, reason = "a test says what failed by panicking")]

#[path = "support/node.rs"]
mod node;
#[path = "support/packet.rs"]
mod packet;
mod support;

use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;

use node::{Node, node_with};
use packet::{ACK, FIN, Packet, RST, SYN, error, tcp, udp};
use pierhead_kernel::{Direction, Kernel, Mode, Options, WorkerSockets};
use pierhead_model::{EndpointState, OnMiss, Transport};
use support::{Share, Snap, bind, in_netns, share};

const CLIENT: &str = "203.0.113.5:40000";
const VIP: &str = "198.51.100.1:80";
const CLIENT6: &str = "[2001:db8:5::5]:40000";
const VIP6: &str = "[2001:db8:100::1]:80";
const ROUTER: &str = "203.0.113.254:0";
const ROUTER6: &str = "[2001:db8:5::fe]:0";
const POD: &str = "10.1.0.10:5000";
/// On the other node.
const FAR: &str = "10.2.0.10:5000";
const FAR6: &str = "[fd02::10]:5000";

const MOST: u8 = 8;

fn options() -> Options {
    Options {
        node: Some("here".to_owned()),
        ..Options::default()
    }
}

/// With the other node as a neighbour.
fn with_neighbour(snap: Snap) -> Snap {
    snap.on(FAR, "there")
        .on(FAR6, "there")
        .fleet(7, &[("here", &["10.9.0.1"]), ("there", &["10.9.0.2", "2001:db8:9::2"])])
}

/// Binds of both transports and families with all endpoints on the other node.
fn all_there() -> Snap {
    let snap = [Transport::Tcp, Transport::Udp]
        .into_iter()
        .fold(Snap::default(), |snap, transport| {
            snap.l4(bind(transport, VIP), &[share(1, &[FAR])])
                .l4(bind(transport, VIP6), &[share(1, &[FAR6])])
        });
    with_neighbour(snap)
}

fn node(snapshot: &Snap) -> Node {
    node_with(options(), true, snapshot)
}

fn from_port(port: u16) -> String {
    format!("203.0.113.5:{port}")
}

/// Of an endpoint on the other node, which is in this state, and one here.
fn both(far: EndpointState) -> Snap {
    let endpoints = vec![
        (FAR.parse().unwrap(), far),
        (POD.parse().unwrap(), EndpointState::Ready),
    ];
    with_neighbour(Snap::default().l4(bind(Transport::Tcp, VIP), &[Share { weight: 1, endpoints }]))
}

#[test]
fn packets_go_to_the_node_of_their_endpoint_as_they_came() {
    in_netns(|| {
        let mut node = node(&all_there());
        for (client, vip) in [(CLIENT, VIP), (CLIENT6, VIP6)] {
            for flags in [SYN, ACK, ACK, FIN | ACK, ACK, RST] {
                node.passes_on(&tcp(client, vip, flags), MOST);
            }
            node.passes_on(&tcp(client, vip, ACK).payload(&[0xab; 1400]), MOST);
            for _ in 0..2 {
                node.passes_on(&udp(client, vip), MOST);
            }
        }
        node.passes_on(&udp(CLIENT, VIP).no_checksum(), MOST);
        node.passes_on(&tcp(&from_port(1), VIP, SYN).options(&[1; 20]), MOST);
        node.passes_on(&udp(CLIENT6, VIP6).extension(60, &[1, 4, 0, 0, 0, 0]), MOST);
        let traffic = node.kernel.counters().unwrap().binds[&bind(Transport::Tcp, VIP)];
        assert_eq!(
            (traffic.packets_in, traffic.flows, traffic.to_stack),
            (0, 0, 0),
            "the other node counts them"
        );
        // Fragments are put together by the stack, here as ever.
        node.stays(
            Direction::Ingress,
            &udp(CLIENT, VIP).fragment(0x2000).frame(),
            "fragment",
        );
        // Nothing of the flow comes back by way of this node.
        node.stays(Direction::Egress, &tcp(FAR, CLIENT, ACK).frame(), "foreign");
        node.stays(Direction::Egress, &tcp(CLIENT, VIP, ACK).frame(), "foreign");
    });
}

#[test]
fn nodes_that_disagree_do_not_pass_a_packet_on_for_ever() {
    in_netns(|| {
        let mut node = node(&all_there());
        for packet in [
            tcp(CLIENT, VIP, ACK),
            udp(CLIENT, VIP),
            tcp(CLIENT6, VIP6, SYN),
            udp(CLIENT6, VIP6),
        ] {
            for (came, goes) in [(255, MOST), (9, MOST), (8, 7), (2, 1)] {
                node.passes_on(&packet.clone().hops(came), goes);
            }
            for came in [1, 0] {
                node.stays(Direction::Ingress, &packet.clone().hops(came).frame(), "hop_limit");
            }
        }
    });
}

#[test]
fn what_was_sent_to_another_machine_is_not_passed_on() {
    in_netns(|| {
        let mut node = node(&all_there());
        let mut frame = tcp(CLIENT, VIP, ACK).frame();
        frame[0] = 2;
        node.stays(Direction::Ingress, &frame, "foreign");
    });
}

#[test]
fn a_flow_keeps_its_endpoint_on_another_node_while_that_drains() {
    use EndpointState::{Draining, Ready};
    in_netns(|| {
        let mut node = node(&both(Ready));
        let mut far: Vec<String> = (1..200).map(from_port).collect();
        far.retain(|client| node.run(Direction::Ingress, &tcp(client, VIP, SYN).frame()).outcome == "relayed");
        let (known, handshake) = far.split_at(far.len() / 2);
        assert!(known.len() > 20, "{}", known.len());
        for client in known {
            node.passes_on(&tcp(client, VIP, ACK), MOST);
        }
        node.apply(&both(Draining));
        for client in known {
            node.passes_on(&tcp(client, VIP, ACK), MOST);
        }
        // A SYN alone, which may be one of a flood, takes no room: these were never heard of.
        for client in handshake {
            node.comes_in(&tcp(client, VIP, SYN), "opened", &tcp(client, POD, SYN));
        }
        // When it is gone they are as new as to a node that never saw them.
        node.apply(&with_neighbour(
            Snap::default().l4(bind(Transport::Tcp, VIP), &[share(1, &[POD])]),
        ));
        for client in known {
            node.comes_in(&tcp(client, VIP, ACK), "opened", &tcp(client, POD, ACK));
        }
    });
}

#[test]
fn a_new_connection_on_the_ports_of_a_finished_one_goes_where_it_is_sent_now() {
    in_netns(|| {
        let only =
            |endpoint: &str| with_neighbour(Snap::default().l4(bind(Transport::Tcp, VIP), &[share(1, &[endpoint])]));
        let mut node = node(&only(POD));
        node.comes_in(&tcp(CLIENT, VIP, SYN), "opened", &tcp(CLIENT, POD, SYN));
        node.comes_in(&tcp(CLIENT, VIP, FIN | ACK), "forwarded", &tcp(CLIENT, POD, FIN | ACK));
        node.apply(&only(FAR));
        for flags in [SYN, ACK, FIN | ACK] {
            node.passes_on(&tcp(CLIENT, VIP, flags), MOST);
        }
        // And back.
        node.apply(&only(POD));
        node.comes_in(&tcp(CLIENT, VIP, SYN), "opened", &tcp(CLIENT, POD, SYN));
        node.comes_in(&tcp(CLIENT, VIP, ACK), "forwarded", &tcp(CLIENT, POD, ACK));
    });
}

#[test]
fn a_connection_in_the_middle_is_taken_up_where_its_endpoint_is() {
    in_netns(|| {
        let mut node = node(&both(EndpointState::Ready));
        let (mut here, mut there) = (0, 0);
        for client in (1..200).map(from_port) {
            let got = node.run(Direction::Ingress, &tcp(&client, VIP, ACK).frame());
            match got.outcome {
                "opened" => here += 1,
                "relayed" => there += 1,
                other => panic!("{other}"),
            }
            // And stays there.
            let again = node.run(Direction::Ingress, &tcp(&client, VIP, ACK).frame());
            assert_eq!(again.outcome == "forwarded", got.outcome == "opened");
            assert_eq!(again.frame, got.frame);
        }
        // About a hundred each; seven sigma.
        assert!(
            (50..150).contains(&here) && (50..150).contains(&there),
            "{here} and {there}"
        );
    });
}

#[test]
fn beyond_the_gate_packets_still_go_to_their_node() {
    in_netns(|| {
        let closed = Options { gate: 0, ..options() };
        let mut node = node_with(closed, true, &all_there());
        node.passes_on(&tcp(CLIENT, VIP, ACK), MOST);
        node.apply(&with_neighbour(
            Snap::default().l4(bind(Transport::Tcp, VIP), &[share(1, &[POD])]),
        ));
        node.stays(Direction::Ingress, &tcp(CLIENT, VIP, ACK).frame(), "gated");
    });
}

#[test]
fn a_connection_of_userspace_is_not_passed_on() {
    in_netns(|| {
        let snapshot = all_there().own("198.51.100.1/32", OnMiss::Drop);
        let mut node = node(&snapshot);
        support::ip("addr add 203.0.113.5/32 dev lo");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let sockets = WorkerSockets {
            tcp4: Some(listener.as_fd()),
            ..WorkerSockets::default()
        };
        let mut kernel = Kernel::open(Options {
            takeover: true,
            mode: Mode::Full,
            nics: vec!["ext0".to_owned()],
            ..options()
        })
        .unwrap();
        kernel.register(0, &sockets).unwrap();
        kernel.activate().unwrap();
        std::mem::swap(&mut node.kernel, &mut kernel);
        let _socket = TcpStream::connect(VIP).unwrap();
        let (_server, client) = listener.accept().unwrap();
        let client = client.to_string();
        for flags in [ACK, FIN | ACK, RST | ACK, SYN] {
            node.stays(Direction::Ingress, &tcp(&client, VIP, flags).frame(), "local_socket");
        }
        let about = |client: &str| error(ROUTER, VIP, 3, 4, 1280, &tcp(VIP, client, ACK), 1500);
        node.stays(Direction::Ingress, &about(&client).frame(), "foreign");
        node.passes_on(&about(CLIENT), MOST);
        node.passes_on(&tcp(CLIENT, VIP, ACK), MOST);
    });
}

#[test]
fn errors_go_to_the_node_of_the_flow_they_are_about() {
    in_netns(|| {
        let mut node = node(&all_there());
        let errors = |replies: [Packet; 2]| {
            let [four, six] = replies;
            [
                error(ROUTER, VIP, 3, 4, 1280, &four, 1500),
                error(ROUTER, VIP, 11, 0, 0, &four, 28),
                error(ROUTER6, VIP6, 2, 0, 1280, &six, 1500),
            ]
        };
        let replies = || [tcp(VIP, CLIENT, ACK), tcp(VIP6, CLIENT6, ACK)];
        let datagrams = || [udp(VIP, CLIENT), udp(VIP6, CLIENT6)];
        // First by what the flow hashes to, then by what is known of it.
        for _ in 0..2 {
            for packet in errors(replies()).iter().chain(&errors(datagrams())) {
                node.passes_on(packet, MOST);
            }
            node.passes_on(&tcp(CLIENT, VIP, ACK), MOST);
            node.passes_on(&udp(CLIENT6, VIP6), MOST);
        }
        for packet in [
            error(ROUTER, "198.51.100.9:0", 3, 4, 1280, &tcp(VIP, CLIENT, ACK), 1500),
            error(ROUTER, VIP, 3, 4, 1280, &tcp("198.51.100.1:81", CLIENT, ACK), 1500),
            error(ROUTER, VIP, 8, 0, 1, &tcp(VIP, CLIENT, ACK), 1500),
        ] {
            node.stays(Direction::Ingress, &packet.frame(), "foreign");
        }
    });
}

#[test]
fn a_client_behind_the_node_of_the_endpoint_is_served_in_userspace() {
    in_netns(|| {
        let mut node = node(&all_there());
        // Pods there, as a cluster without an overlay reaches them.
        support::ip("route add 10.2.0.0/24 via 10.9.0.2");
        support::ip("route add fd02::/64 via 2001:db8:9::2");
        for (client, vip) in [
            ("10.9.0.2:40000", VIP),
            ("10.2.0.77:40000", VIP),
            ("[2001:db8:9::2]:40000", VIP6),
            ("[fd02::77]:40000", VIP6),
        ] {
            for packet in [tcp(client, vip, SYN), tcp(client, vip, ACK), udp(client, vip)] {
                node.stays(Direction::Ingress, &packet.frame(), "hairpin");
            }
        }
        // Neighbours of it are not behind it.
        node.passes_on(&tcp("10.9.0.3:40000", VIP, SYN), MOST);
        node.passes_on(&udp("[2001:db8:9::3]:40000", VIP6), MOST);
    });
}
