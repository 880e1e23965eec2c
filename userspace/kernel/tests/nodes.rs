//! Two nodes with real stacks behind a router that moves flows from one to the other, as ECMP does when a path comes or goes.
//!
//! Client, router, nodes and endpoints are network namespaces, wired by veth. Needs root and Linux 6.6; without them these
//! tests fail and say so.
#![allow(clippy::unwrap_used, reason = "a test says what failed by panicking")]

#[path = "support/host.rs"]
mod host;
mod support;

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use host::{Host, dial, exchange, read_line, tcp_echo, udp_named};
use pierhead_kernel::{Counters, Kernel, Mode, Options, uninstall};
use pierhead_model::{DataPath, OnMiss, Transport};
use support::{Snap, bind, counter, in_netns, ip, share};

const VIP: &str = "198.51.100.1";
const VIP6: &str = "2001:db8:100::1";
const PODS: [&str; 2] = ["10.1.0.10:5000", "10.2.0.10:5000"];
const PODS6: [&str; 2] = ["[fd01::10]:5000", "[fd02::10]:5000"];

thread_local! {
    /// Of the node whose thread this is.
    static KERNEL: RefCell<Option<Kernel>> = const { RefCell::new(None) };
}

/// A node with a pod behind it. Number 1 or 2.
struct Node {
    host: Host,
    pod: Host,
}

impl Node {
    /// On the router's bridge.
    fn new(number: usize) -> Self {
        let (host, pod) = (Host::new(), Host::new());
        ip(&format!(
            "link add node{number} type veth peer name eth0 netns {}",
            host.tid
        ));
        ip(&format!("link set node{number} master bridge up"));
        let pod_tid = pod.tid.clone();
        host.does(move || {
            ip("link set eth0 up");
            ip(&format!("addr add 10.9.0.{number}/24 dev eth0"));
            ip(&format!("addr add 2001:db8:9::{number}/64 dev eth0 nodad"));
            ip("route add default via 10.9.0.254");
            ip("route add default via 2001:db8:9::fe");
            ip(&format!("link add int0 type veth peer name eth0 netns {pod_tid}"));
            ip("link set int0 up");
            ip(&format!("addr add 10.{number}.0.1/24 dev int0"));
            ip(&format!("addr add fd0{number}::1/64 dev int0 nodad"));
            for switch in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                std::fs::write(format!("/proc/sys/net/{switch}"), "1").unwrap();
            }
        });
        pod.does(move || {
            ip("link set eth0 up");
            ip(&format!("addr add 10.{number}.0.10/24 dev eth0"));
            ip(&format!("addr add fd0{number}::10/64 dev eth0 nodad"));
            ip(&format!("route add default via 10.{number}.0.1"));
            ip(&format!("route add default via fd0{number}::1"));
        });
        for at in [PODS[number - 1], PODS6[number - 1]] {
            tcp_echo(&pod, at);
            udp_named(&pod, at, vec![number as u8]);
        }
        Self { host, pod }
    }

    fn start(&self, number: usize, snapshot: Snap) {
        self.host.does(move || {
            // The number of a namespace comes back, and with it what a killed test left pinned.
            uninstall().unwrap();
            let mut kernel = Kernel::open(Options {
                mode: Mode::Full,
                nics: vec!["eth0".to_owned()],
                node: Some(format!("node-{number}")),
                ..Options::default()
            })
            .unwrap();
            let reports = kernel.apply(&snapshot.0).unwrap();
            assert!(
                reports.iter().all(|report| report.path == DataPath::Kernel),
                "{reports:?}"
            );
            kernel.activate().unwrap();
            KERNEL.set(Some(kernel));
        });
    }

    fn counters(&self) -> Counters {
        self.host
            .does(|| KERNEL.with_borrow(|kernel| kernel.as_ref().unwrap().counters().unwrap()))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // A host whose work has panicked does none any more, and what it said is what counts.
        if thread::panicking() {
            return;
        }
        self.host.does(|| {
            KERNEL.take();
            let _ = uninstall();
        });
    }
}

struct Street {
    client: Host,
    nodes: [Node; 2],
}

/// Client — this namespace, the router — two nodes on one link, each with its pod.
fn street(snapshot: impl Fn() -> Snap) -> Street {
    for switch in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        std::fs::write(format!("/proc/sys/net/{switch}"), "1").unwrap();
    }
    let client = Host::wired(
        "client",
        ["203.0.113.1/24", "2001:db8:5::1/64"],
        ["203.0.113.5/24", "2001:db8:5::5/64"],
        true,
    );
    ip("link add bridge type bridge");
    ip("link set bridge up");
    ip("addr add 10.9.0.254/24 dev bridge");
    ip("addr add 2001:db8:9::fe/64 dev bridge nodad");
    let nodes = [Node::new(1), Node::new(2)];
    for (node, number) in nodes.iter().zip(1..) {
        node.start(number, snapshot());
    }
    Street { client, nodes }
}

/// Every node owns the addresses: nobody announces them.
fn snapshot() -> Snap {
    let mut snap = Snap::default()
        .own("198.51.100.0/24", OnMiss::Drop)
        .own("2001:db8:100::/64", OnMiss::Drop);
    for (vip, pods) in [(VIP.to_owned(), PODS), (format!("[{VIP6}]"), PODS6)] {
        for transport in [Transport::Tcp, Transport::Udp] {
            snap = snap.l4(bind(transport, &format!("{vip}:80")), &[share(1, &pods)]);
        }
    }
    let snap = snap.fleet(
        9,
        &[
            ("node-1", &["10.9.0.1", "2001:db8:9::1"]),
            ("node-2", &["10.9.0.2", "2001:db8:9::2"]),
        ],
    );
    let on = |snap: Snap, (pod, number): (&&str, usize)| snap.on(pod, &format!("node-{number}"));
    let snap = PODS.iter().zip(1..).fold(snap, on);
    PODS6.iter().zip(1..).fold(snap, on)
}

/// From now on everything goes by way of this node.
fn by_way_of(number: usize) {
    ip(&format!("route replace 198.51.100.0/24 via 10.9.0.{number}"));
    ip(&format!("route replace 2001:db8:100::/64 via 2001:db8:9::{number}"));
}

fn vips() -> [SocketAddr; 2] {
    [format!("{VIP}:80"), format!("[{VIP6}]:80")].map(|text| text.parse().unwrap())
}

#[test]
fn flows_go_on_when_a_router_moves_them_to_another_node() {
    in_netns(|| {
        let street = street(snapshot);
        by_way_of(1);
        let (mut streams, sockets) = street.client.does(|| {
            let mut streams = Vec::new();
            let mut sockets = Vec::new();
            for (to, own, peer) in [
                (vips()[0], "0.0.0.0:0", "203.0.113.5"),
                (vips()[1], "[::]:0", "2001:db8:5::5"),
            ] {
                for _ in 0..12 {
                    let mut stream = dial(to);
                    assert_eq!(read_line(&mut stream), peer);
                    streams.push(stream);
                    let socket = UdpSocket::bind(own).unwrap();
                    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                    // Connected: an answer from any other address would not be delivered.
                    socket.connect(to).unwrap();
                    sockets.push((socket, None));
                }
            }
            (streams, sockets)
        });
        let mut sockets: Vec<(UdpSocket, Option<u8>)> = sockets;
        for number in [1, 2, 1, 2] {
            by_way_of(number);
            for stream in &mut streams {
                exchange(stream, 20_000);
            }
            for (socket, pod) in &mut sockets {
                for word in [&b"one"[..], b"two"] {
                    socket.send(word).unwrap();
                    let mut got = [0; 64];
                    let n = socket.recv(&mut got).unwrap();
                    assert_eq!(&got[1..n], word);
                    assert_eq!(*pod.get_or_insert(got[0]), got[0], "one endpoint all along");
                }
            }
        }
        // They end by way of the node that does not have them.
        drop(streams);
        let pods: Vec<u8> = sockets.iter().filter_map(|(_, pod)| *pod).collect();
        // One chance in 2^23 that all of them hash to one.
        assert!(pods.contains(&1) && pods.contains(&2), "{pods:?}");
        for node in &street.nodes {
            let counters = node.counters();
            for (name, some) in [
                ("opened", true),
                ("relayed", true),
                ("returned", true),
                ("broken", false),
                ("hop_limit", false),
            ] {
                let count = counter(&counters.outcomes, name);
                assert_eq!(count > 0, some, "{name}: {count}");
            }
            assert_eq!(counter(&counters.steered, "assigned"), 0, "userspace saw nothing");
        }
        assert!(street.nodes.iter().all(|node| node.pod.does(|| true)));
    });
}

#[test]
fn a_stream_loses_no_byte_while_its_way_changes_all_the_time() {
    const BYTES: usize = 24_000_000;
    /// One chance in 2^23 that all of both families hash to one node.
    const STREAMS: usize = 12;
    in_netns(|| {
        let street = street(snapshot);
        by_way_of(1);
        for to in vips() {
            let streams: Vec<TcpStream> = street.client.does(move || {
                (0..STREAMS)
                    .map(|_| {
                        let mut stream = dial(to);
                        read_line(&mut stream);
                        stream
                    })
                    .collect()
            });
            let done = Arc::new(AtomicBool::new(false));
            let transfers: Vec<_> = streams
                .into_iter()
                .map(|stream| thread::spawn(move || transfer(stream, BYTES / STREAMS)))
                .collect();
            let watch = Arc::clone(&done);
            let waiter = thread::spawn(move || {
                for transfer in transfers {
                    transfer.join().unwrap();
                }
                watch.store(true, Ordering::Release);
            });
            let mut turns = 0;
            while !done.load(Ordering::Acquire) && !waiter.is_finished() {
                turns += 1;
                by_way_of(1 + turns % 2);
                thread::sleep(Duration::from_millis(20));
            }
            waiter.join().unwrap();
            assert!(turns >= 4, "the way changed only {turns} times");
        }
        for node in &street.nodes {
            let counters = node.counters();
            assert!(counter(&counters.outcomes, "relayed") > 0);
            assert_eq!(counter(&counters.outcomes, "broken"), 0);
            assert_eq!(counter(&counters.outcomes, "hop_limit"), 0);
        }
    });
}

/// Sends and reads back bytes that say where they belong.
fn transfer(mut stream: TcpStream, bytes: usize) {
    let byte = |at: usize| (at.wrapping_mul(2_654_435_761) >> 7) as u8;
    let mut writer = stream.try_clone().unwrap();
    let sender = thread::spawn(move || {
        let mut at = 0;
        while at < bytes {
            let chunk: Vec<u8> = (at..bytes.min(at + 16_384)).map(byte).collect();
            writer.write_all(&chunk).unwrap();
            at += chunk.len();
            // At leisure, so that the way changes often on the way.
            thread::sleep(Duration::from_millis(3));
        }
    });
    let mut at = 0;
    let mut buffer = vec![0; 65_536];
    while at < bytes {
        let n = stream.read(&mut buffer).unwrap();
        assert!(n > 0, "the stream ended at {at}");
        for (i, got) in buffer[..n].iter().enumerate() {
            assert_eq!(*got, byte(at + i), "at {}", at + i);
        }
        at += n;
    }
    sender.join().unwrap();
}

/// An error about a reply, which a router on the way to the client sends, comes by way of any node.
#[test]
fn a_narrow_way_to_the_client_is_discovered_by_the_node_that_has_the_flow() {
    in_netns(|| {
        let street = street(snapshot);
        // The client does not know how narrow its way is; the router's answers hash to nodes as everything does.
        ip("route add 203.0.113.5/32 dev client mtu lock 1300");
        ip("route add 2001:db8:5::5/128 dev client mtu lock 1300");
        for (number, to) in [(1, vips()[0]), (2, vips()[0]), (1, vips()[1]), (2, vips()[1])] {
            by_way_of(number);
            for _ in 0..6 {
                street.client.does(move || {
                    let mut stream = dial(to);
                    read_line(&mut stream);
                    exchange(&mut stream, 100_000);
                });
            }
        }
        let errors: u64 = street
            .nodes
            .iter()
            .map(|node| counter(&node.counters().outcomes, "icmp_in"))
            .sum();
        assert!(errors >= 2, "{errors}");
    });
}
