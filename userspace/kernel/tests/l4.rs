//! Layer 4 with real stacks at both ends: only a receiving stack proves a checksum.
//!
//! Client, node and endpoint are network namespaces, wired by veth. Needs root and Linux 6.6; without them these tests
//! fail and say so.
#![allow(clippy::unwrap_used, reason = "a test says what failed by panicking")]

#[path = "support/host.rs"]
mod host;
mod support;

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::num::NonZero;
use std::thread;
use std::time::Duration;

use host::{Host, dial, exchange, read_line, tcp_echo, udp_echo};
use pierhead_kernel::{DEFAULT_MAX_FLOWS, Kernel, Mode, Options};
use pierhead_model::{DataPath, OnMiss, Transport};
use support::{Snap, bind, counter, eventually, in_netns, ip, share};

struct Street {
    client: Host,
    pod: Host,
}

const VIP: &str = "198.51.100.1";
const VIP6: &str = "2001:db8:100::1";
const POD: &str = "10.1.0.10";
const POD6: &str = "fd01::10";

/// Client — this namespace — pod.
fn street() -> Street {
    let client = Host::wired(
        "ext0",
        ["203.0.113.1/24", "2001:db8:5::1/64"],
        ["203.0.113.5/24", "2001:db8:5::5/64"],
        true,
    );
    let pod = Host::wired(
        "int0",
        ["10.1.0.1/24", "fd01::1/64"],
        ["10.1.0.10/24", "fd01::10/64"],
        true,
    );
    for switch in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        std::fs::write(format!("/proc/sys/net/{switch}"), "1").unwrap();
    }
    Street { client, pod }
}

fn options() -> Options {
    Options {
        mode: Mode::Full,
        nics: vec!["ext0".to_owned()],
        ..Options::default()
    }
}

fn snapshot(port: u16) -> Snap {
    let mut snap = Snap::default()
        .own("198.51.100.0/24", OnMiss::Drop)
        .own("2001:db8:100::/64", OnMiss::Drop);
    for (vip, pod) in [
        (VIP.to_owned(), POD.to_owned()),
        (format!("[{VIP6}]"), format!("[{POD6}]")),
    ] {
        for transport in [Transport::Tcp, Transport::Udp] {
            snap = snap.l4(
                bind(transport, &format!("{vip}:80")),
                &[share(1, &[&format!("{pod}:{port}")])],
            );
        }
    }
    snap
}

fn start(snapshot: &Snap) -> Kernel {
    let mut kernel = Kernel::open(options()).unwrap();
    let reports = kernel.apply(&snapshot.0).unwrap();
    assert!(
        reports.iter().all(|report| report.path == DataPath::Kernel),
        "{reports:?}"
    );
    kernel.activate().unwrap();
    kernel
}

#[test]
fn tcp_streams_pass_in_both_families_and_the_endpoint_sees_the_client() {
    in_netns(|| {
        let street = street();
        tcp_echo(&street.pod, &format!("{POD}:5000"));
        tcp_echo(&street.pod, &format!("[{POD6}]:5000"));
        let kernel = start(&snapshot(5000));
        street.client.does(|| {
            for (to, peer) in [
                (format!("{VIP}:80"), "203.0.113.5"),
                (format!("[{VIP6}]:80"), "2001:db8:5::5"),
            ] {
                let mut stream = dial(to.parse().unwrap());
                assert_eq!(read_line(&mut stream), peer);
                // Segments of all sizes, with offloads as they are: the sums must be right in each form.
                for bytes in [1, 1_000, 3_000_000] {
                    exchange(&mut stream, bytes);
                }
            }
        });
        let counters = kernel.counters().unwrap();
        assert_eq!(counter(&counters.outcomes, "opened"), 2);
        assert_eq!(counter(&counters.outcomes, "broken"), 0);
        assert_eq!(counter(&counters.steered, "assigned"), 0, "userspace saw nothing");
        let traffic = counters.binds[&bind(Transport::Tcp, &format!("{VIP}:80"))];
        assert!(
            traffic.bytes_in > 3_000_000 && traffic.bytes_out > 3_000_000,
            "{traffic:?}"
        );
    });
}

#[test]
fn datagrams_pass_in_both_families() {
    in_netns(|| {
        let street = street();
        udp_echo(&street.pod, &format!("{POD}:5000"));
        udp_echo(&street.pod, &format!("[{POD6}]:5000"));
        let kernel = start(&snapshot(5000));
        street.client.does(|| {
            for (own, to) in [("0.0.0.0:0", format!("{VIP}:80")), ("[::]:0", format!("[{VIP6}]:80"))] {
                let socket = UdpSocket::bind(own).unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                // Connected: an answer from any other address would not be delivered.
                socket.connect(to).unwrap();
                for size in [0, 1, 512, 1_400] {
                    socket.send(&vec![7; size]).unwrap();
                    let mut got = [0; 2_048];
                    assert_eq!(socket.recv(&mut got).unwrap(), size);
                }
            }
        });
        assert_eq!(counter(&kernel.counters().unwrap().outcomes, "opened"), 2);
    });
}

#[test]
fn a_reply_larger_than_the_mtu_arrives_whole() {
    in_netns(|| {
        let street = street();
        for address in [format!("{POD}:5000"), format!("[{POD6}]:5000")] {
            let address: SocketAddr = address.parse().unwrap();
            street.pod.does(move || {
                let socket = UdpSocket::bind(address).unwrap();
                thread::spawn(move || {
                    while let Ok((_, from)) = socket.recv_from(&mut [0; 64]) {
                        socket.send_to(&[9; 8_000], from).unwrap();
                    }
                });
            });
        }
        let _kernel = start(&snapshot(5000));
        street.client.does(|| {
            for (own, to) in [("0.0.0.0:0", format!("{VIP}:80")), ("[::]:0", format!("[{VIP6}]:80"))] {
                let socket = UdpSocket::bind(own).unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                socket.connect(to).unwrap();
                for _ in 0..3 {
                    socket.send(b"more").unwrap();
                    let mut got = [0; 9_000];
                    assert_eq!(socket.recv(&mut got).unwrap(), 8_000);
                    assert!(got[..8_000].iter().all(|byte| *byte == 9));
                }
            }
        });
    });
}

#[test]
fn a_closed_port_of_the_endpoint_is_told_to_the_client() {
    in_netns(|| {
        let street = street();
        let _kernel = start(&snapshot(5999));
        street.client.does(|| {
            for (own, to) in [("0.0.0.0:0", format!("{VIP}:80")), ("[::]:0", format!("[{VIP6}]:80"))] {
                let error = TcpStream::connect_timeout(&to.parse().unwrap(), Duration::from_secs(5)).unwrap_err();
                assert_eq!(
                    error.kind(),
                    std::io::ErrorKind::ConnectionRefused,
                    "the reset is translated"
                );
                let socket = UdpSocket::bind(own).unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                socket.connect(to).unwrap();
                socket.send(b"x").unwrap();
                let error = socket.recv(&mut [0; 8]).unwrap_err();
                assert_eq!(
                    error.kind(),
                    std::io::ErrorKind::ConnectionRefused,
                    "and so is the ICMP error"
                );
            }
        });
    });
}

#[test]
fn a_narrow_way_to_the_endpoint_is_discovered() {
    in_netns(|| {
        let street = street();
        tcp_echo(&street.pod, &format!("{POD}:5000"));
        tcp_echo(&street.pod, &format!("[{POD6}]:5000"));
        // Narrower behind the node: its "fragmentation needed" must reach the client as one about the bind. (The
        // endpoint announces its own MTU, so it is left wide there.)
        ip("link set int0 mtu 1300");
        let kernel = start(&snapshot(5000));
        street.client.does(|| {
            for to in [format!("{VIP}:80"), format!("[{VIP6}]:80")] {
                let mut stream = dial(to.parse().unwrap());
                read_line(&mut stream);
                exchange(&mut stream, 200_000);
            }
        });
        assert!(counter(&kernel.counters().unwrap().outcomes, "icmp_out") >= 2);
    });
}

#[test]
fn a_narrow_way_to_the_client_is_discovered() {
    in_netns(|| {
        let street = street();
        tcp_echo(&street.pod, &format!("{POD}:5000"));
        tcp_echo(&street.pod, &format!("[{POD6}]:5000"));
        // A router between the client and the node, whose way to the client is narrow; the client does not know.
        let far = Host::new();
        let tid = far.tid.clone();
        street.client.does(move || {
            ip(&format!("link add far0 type veth peer name eth0 netns {tid}"));
            ip("link set far0 up");
            ip("addr add 192.0.2.1/24 dev far0");
            ip("addr add 2001:db8:7::1/64 dev far0 nodad");
            ip("route add 192.0.2.9/32 dev far0 mtu lock 1300");
            ip("route add 2001:db8:7::9/128 dev far0 mtu lock 1300");
            for switch in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                std::fs::write(format!("/proc/sys/net/{switch}"), "1").unwrap();
            }
        });
        far.does(|| {
            ip("link set eth0 up");
            ip("addr add 192.0.2.9/24 dev eth0");
            ip("addr add 2001:db8:7::9/64 dev eth0 nodad");
            ip("route add default via 192.0.2.1");
            ip("route add default via 2001:db8:7::1");
        });
        ip("route add 192.0.2.0/24 via 203.0.113.5");
        ip("route add 2001:db8:7::/64 via 2001:db8:5::5");
        let kernel = start(&snapshot(5000));
        far.does(|| {
            for to in [format!("{VIP}:80"), format!("[{VIP6}]:80")] {
                let mut stream = dial(to.parse().unwrap());
                read_line(&mut stream);
                exchange(&mut stream, 200_000);
            }
        });
        assert!(counter(&kernel.counters().unwrap().outcomes, "icmp_in") >= 2);
    });
}

#[test]
fn a_stream_survives_changes_restart_and_removal_of_what_does_not_concern_it() {
    in_netns(|| {
        let street = street();
        tcp_echo(&street.pod, &format!("{POD}:5000"));
        let mut kernel = start(&snapshot(5000));
        let mut stream = street.client.does(|| {
            let mut stream = dial(format!("{VIP}:80").parse().unwrap());
            read_line(&mut stream);
            stream
        });
        let mut still = |what: &str| {
            exchange(&mut stream, 10_000);
            let _ = what;
        };
        still("at first");
        for i in 0..20 {
            let other = bind(Transport::Tcp, &format!("198.51.100.2:{}", 9_000 + i));
            kernel
                .apply(&snapshot(5000).l4(other, &[share(1, &[&format!("{POD}:6000")])]).0)
                .unwrap();
        }
        still("after unrelated changes");
        drop(kernel);
        still("while nobody runs");
        let kernel = start(&snapshot(5000));
        still("after a restart");
        let mut next = Kernel::open(Options {
            takeover: true,
            // The table goes on, with the flows that are in it.
            max_flows: NonZero::<u32>::MIN,
            ..options()
        })
        .unwrap();
        next.apply(&snapshot(5000).0).unwrap();
        next.activate().unwrap();
        drop(kernel);
        still("after a hand-over");
        next.tick().unwrap();
        let counters = next.counters().unwrap();
        assert_eq!(counter(&counters.outcomes, "opened"), 1, "one flow all along");
        assert_eq!(counter(&counters.outcomes, "dead_backend"), 0);
        assert_eq!(counters.max_flows, u64::from(DEFAULT_MAX_FLOWS.get()));
    });
}

#[test]
fn the_endpoint_may_be_this_machine_itself() {
    in_netns(|| {
        let street = street();
        let listener = TcpListener::bind("10.1.0.1:7000").unwrap();
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let _ = stream.write_all(format!("{}\n", stream.peer_addr().unwrap().ip()).as_bytes());
            }
        });
        let snapshot = Snap::default()
            .own("198.51.100.0/24", OnMiss::Drop)
            .l4(bind(Transport::Tcp, "198.51.100.1:80"), &[share(1, &["10.1.0.1:7000"])]);
        let _kernel = start(&snapshot);
        street.client.does(|| {
            assert_eq!(read_line(&mut dial("198.51.100.1:80".parse().unwrap())), "203.0.113.5");
        });
    });
}

#[test]
fn a_removed_endpoint_resets_its_connections() {
    in_netns(|| {
        let street = street();
        tcp_echo(&street.pod, &format!("{POD}:5000"));
        tcp_echo(&street.pod, &format!("{POD}:6000"));
        let mut kernel = start(&snapshot(5000));
        let mut stream = street.client.does(|| {
            let mut stream = dial(format!("{VIP}:80").parse().unwrap());
            read_line(&mut stream);
            stream
        });
        kernel.apply(&snapshot(6000).0).unwrap();
        eventually("the client is told", || stream.write_all(b"x").is_err());
        street.client.does(|| {
            read_line(&mut dial(format!("{VIP}:80").parse().unwrap()));
        });
    });
}
