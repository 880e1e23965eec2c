//! Steering in real network namespaces: sockets that are bound nowhere near the address answer for it.
//!
//! Needs root and Linux 5.10; without them these tests fail and say so.
#![allow(clippy::unwrap_used, reason = "a test says what failed by panicking")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use pierhead_kernel::{Kernel, KernelError, Options, WorkerSockets, uninstall};
use pierhead_model::{DataPath, OnMiss, Transport};
use support::{Snap, bind, counter, eventually, in_netns, ip, ip_output};

/// One worker's sockets, on ports of the kernel's choice.
struct Worker {
    tcp4: TcpListener,
    tcp6: TcpListener,
    udp4: UdpSocket,
    udp6: UdpSocket,
}

impl Worker {
    fn new() -> Self {
        let worker = Self {
            tcp4: TcpListener::bind("127.0.0.1:0").unwrap(),
            tcp6: TcpListener::bind("[::1]:0").unwrap(),
            udp4: UdpSocket::bind("127.0.0.1:0").unwrap(),
            udp6: UdpSocket::bind("[::1]:0").unwrap(),
        };
        worker.tcp4.set_nonblocking(true).unwrap();
        worker.tcp6.set_nonblocking(true).unwrap();
        for udp in [&worker.udp4, &worker.udp6] {
            udp.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        }
        worker
    }

    fn sockets(&self) -> WorkerSockets<'_> {
        WorkerSockets {
            tcp4: Some(self.tcp4.as_fd()),
            tcp6: Some(self.tcp6.as_fd()),
            udp4: Some(self.udp4.as_fd()),
            udp6: Some(self.udp6.as_fd()),
        }
    }

    /// The local address of a connection that waits here, if one does.
    fn accepted(&self) -> Option<SocketAddr> {
        [&self.tcp4, &self.tcp6]
            .into_iter()
            .find_map(|tcp| Some(tcp.accept().ok()?.0.local_addr().unwrap()))
    }
}

fn start(options: Options, workers: &[Worker], snapshot: &Snap) -> Kernel {
    let mut kernel = Kernel::open(options).unwrap();
    for (i, worker) in workers.iter().enumerate() {
        kernel.register(i, &worker.sockets()).unwrap();
    }
    let reports = kernel.apply(&snapshot.0).unwrap();
    assert!(
        reports.iter().all(|report| report.path == DataPath::Steered),
        "{reports:?}"
    );
    kernel.activate().unwrap();
    kernel
}

fn connect(to: &str) -> std::io::Result<TcpStream> {
    TcpStream::connect_timeout(&to.parse().unwrap(), Duration::from_secs(2))
}

fn refused(to: &str) -> bool {
    matches!(connect(to), Err(error) if error.kind() == ErrorKind::ConnectionRefused)
}

#[test]
fn a_connection_reaches_a_worker_without_a_bind() {
    in_netns(|| {
        ip("addr add 192.0.2.1/24 dev lo");
        ip("addr add 2001:db8::1/64 dev lo nodad");
        let workers = [Worker::new()];
        let snapshot = Snap::default()
            .steer(bind(Transport::Tcp, "192.0.2.1:80"))
            .steer(bind(Transport::Tcp, "[2001:db8::1]:443"));
        let kernel = start(Options::default(), &workers, &snapshot);
        for to in ["192.0.2.1:80", "[2001:db8::1]:443"] {
            let mut client = connect(to).unwrap();
            let listener = if to.starts_with('[') {
                &workers[0].tcp6
            } else {
                &workers[0].tcp4
            };
            let (mut server, _) = listener.accept().unwrap();
            assert_eq!(
                server.local_addr().unwrap(),
                to.parse().unwrap(),
                "the original destination"
            );
            server.write_all(b"hello").unwrap();
            drop(server);
            let mut text = String::new();
            client.read_to_string(&mut text).unwrap();
            assert_eq!(text, "hello");
        }
        let counters = kernel.counters().unwrap();
        assert_eq!(counter(&counters.steered, "assigned"), 2);
    });
}

#[test]
fn what_is_not_bound_and_not_owned_is_not_touched() {
    in_netns(|| {
        ip("addr add 192.0.2.1/24 dev lo");
        let workers = [Worker::new()];
        let _kernel = start(
            Options::default(),
            &workers,
            &Snap::default().steer(bind(Transport::Tcp, "192.0.2.1:80")),
        );
        // Another port, another address, another protocol, a prefix that does not match.
        let other = TcpListener::bind("192.0.2.1:81").unwrap();
        drop(connect("192.0.2.1:81").unwrap());
        drop(other.accept().unwrap());
        let other = TcpListener::bind("127.0.0.1:80").unwrap();
        drop(connect("127.0.0.1:80").unwrap());
        drop(other.accept().unwrap());
        assert!(refused("127.0.0.2:80"));
        let udp = UdpSocket::bind("192.0.2.1:80").unwrap();
        udp.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .send_to(b"x", "192.0.2.1:80")
            .unwrap();
        assert_eq!(udp.recv(&mut [0; 8]).unwrap(), 1);
        assert_eq!(workers[0].accepted(), None);
    });
}

#[test]
fn a_steered_port_wins_over_a_bound_one_and_gives_it_back() {
    in_netns(|| {
        ip("addr add 192.0.2.1/24 dev lo");
        let fallback = TcpListener::bind("0.0.0.0:80").unwrap();
        fallback.set_nonblocking(true).unwrap();
        let workers = [Worker::new()];
        let kernel = start(
            Options::default(),
            &workers,
            &Snap::default().steer(bind(Transport::Tcp, "192.0.2.1:80")),
        );
        drop(connect("192.0.2.1:80").unwrap());
        eventually("the worker has it", || workers[0].accepted().is_some());
        assert!(fallback.accept().is_err());
        // The process ends: its sockets close, everything stays pinned.
        drop((kernel, workers));
        // (A program that another test starts has a copy of the sockets for a moment.)
        eventually("the ordinary socket has it", || {
            drop(connect("192.0.2.1:80"));
            fallback.accept().is_ok()
        });
    });
}

#[test]
fn prefixes_all_ports_and_the_more_specific_bind() {
    in_netns(|| {
        let workers = [Worker::new()];
        let snapshot = Snap::default()
            .own("198.51.100.0/24", OnMiss::Drop)
            .steer(bind(Transport::Tcp, "198.51.100.0/24:8000"))
            .steer(bind(Transport::Tcp, "198.51.100.7:*"));
        let _kernel = start(Options::default(), &workers, &snapshot);
        for to in [
            "198.51.100.1:8000",
            "198.51.100.255:8000",
            "198.51.100.7:8000",
            "198.51.100.7:1",
            "198.51.100.7:65535",
        ] {
            drop(connect(to).unwrap_or_else(|error| panic!("{to}: {error}")));
            eventually(to, || workers[0].accepted() == Some(to.parse().unwrap()));
        }
        assert!(refused("198.51.100.1:8001"));
    });
}

#[test]
fn every_address_leaves_the_rest_of_loopback_alone() {
    in_netns(|| {
        ip("addr add 192.0.2.1/24 dev lo");
        let resolver = UdpSocket::bind("127.0.0.53:53").unwrap();
        resolver.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let workers = [Worker::new()];
        let snapshot = Snap::default()
            .steer(bind(Transport::Udp, "*:53"))
            .steer(bind(Transport::Tcp, "*:8080"));
        let _kernel = start(Options::default(), &workers, &snapshot);
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"q", "127.0.0.53:53").unwrap();
        assert_eq!(
            resolver.recv(&mut [0; 8]).unwrap(),
            1,
            "a resolver of the machine keeps its port"
        );
        client.send_to(b"qq", "192.0.2.1:53").unwrap();
        assert_eq!(workers[0].udp4.recv(&mut [0; 8]).unwrap(), 2);
        for to in ["127.0.0.1:8080", "[::1]:8080", "192.0.2.1:8080"] {
            drop(connect(to).unwrap());
            eventually(to, || workers[0].accepted() == Some(to.parse().unwrap()));
        }
    });
}

#[test]
fn udp_reaches_one_worker_per_flow_in_both_families() {
    in_netns(|| {
        ip("addr add 192.0.2.1/24 dev lo");
        ip("addr add 2001:db8::1/64 dev lo nodad");
        let workers = [Worker::new(), Worker::new()];
        let snapshot = Snap::default()
            .steer(bind(Transport::Udp, "192.0.2.1:53"))
            .steer(bind(Transport::Udp, "[2001:db8::1]:53"));
        let _kernel = start(Options::default(), &workers, &snapshot);
        let mut used = [0; 2];
        for _ in 0..16 {
            let client = UdpSocket::bind("192.0.2.1:0").unwrap();
            for _ in 0..3 {
                client.send_to(b"x", "192.0.2.1:53").unwrap();
            }
            let got: Vec<usize> = workers
                .iter()
                .map(|worker| {
                    worker.udp4.set_nonblocking(true).unwrap();
                    std::iter::from_fn(|| worker.udp4.recv(&mut [0; 8]).ok()).count()
                })
                .collect();
            assert!(got == [3, 0] || got == [0, 3], "a flow stays with its worker: {got:?}");
            used[0] += got[0];
            used[1] += got[1];
        }
        assert!(used[0] > 0 && used[1] > 0, "both workers are used: {used:?}");
        UdpSocket::bind("[2001:db8::1]:0")
            .unwrap()
            .send_to(b"x", "[2001:db8::1]:53")
            .unwrap();
        let six = workers.iter().any(|worker| worker.udp6.recv(&mut [0; 8]).is_ok());
        assert!(six);
    });
}

#[test]
fn the_busier_worker_is_spared() {
    in_netns(|| {
        ip("addr add 192.0.2.1/24 dev lo");
        let workers = [Worker::new(), Worker::new()];
        let mut kernel = start(
            Options::default(),
            &workers,
            &Snap::default().steer(bind(Transport::Tcp, "192.0.2.1:80")),
        );
        let loads = kernel.loads().unwrap();
        for _ in 0..1_000 {
            loads.add(0);
        }
        assert_eq!((loads.of(0), loads.of(1)), (1_000, 0));
        let clients: Vec<_> = (0..64).map(|_| connect("192.0.2.1:80").unwrap()).collect();
        let count = |worker: &Worker| std::iter::from_fn(|| worker.accepted()).count();
        let (busy, idle) = (count(&workers[0]), count(&workers[1]));
        assert_eq!(busy + idle, clients.len());
        // Worker 0 is chosen only where both choices name it: a quarter, here sixteen; six sigma are 21.
        assert!(busy < 37, "{busy} of 64 went to the busy worker");
        assert!(counter(&kernel.counters().unwrap().steered, "assigned_second") > 0);
    });
}

#[test]
fn a_miss_on_an_owned_address_is_refused_or_passed() {
    in_netns(|| {
        let fallback = TcpListener::bind("0.0.0.0:8080").unwrap();
        let workers = [Worker::new()];
        let mut kernel = start(
            Options::default(),
            &workers,
            &Snap::default()
                .own("198.51.100.1/32", OnMiss::Drop)
                .own("198.51.100.2/32", OnMiss::Pass)
                .own("2001:db8:1::/64", OnMiss::Drop),
        );
        assert!(
            refused("198.51.100.1:8080"),
            "although a socket is bound to every address"
        );
        assert!(refused("[2001:db8:1::5]:80"));
        drop(connect("198.51.100.2:8080").unwrap());
        drop(fallback.accept().unwrap());
        let counters = kernel.counters().unwrap();
        assert_eq!(counter(&counters.steered, "miss_refused"), 2);
        assert_eq!(counter(&counters.steered, "miss_passed"), 1);
        assert!(ip_output("route show table local").contains("198.51.100.1"));
        // Retired addresses are not local any more, and other routes stay.
        kernel.apply(&Snap::default().0).unwrap();
        assert!(!ip_output("route show table local").contains("198.51.100"));
        assert!(ip_output("route show table local").contains("127.0.0.1"));
        assert!(connect("198.51.100.2:8080").is_err());
    });
}

#[test]
fn a_second_instance_is_refused_and_names_the_first() {
    in_netns(|| {
        let workers = [Worker::new()];
        let kernel = start(Options::default(), &workers, &Snap::default());
        let error = Kernel::open(Options::default()).unwrap_err();
        assert!(
            matches!(error, KernelError::SecondInstance { pid: Some(pid) } if pid == u64::from(std::process::id()))
        );
        assert!(error.to_string().contains("fix:"), "{error}");
        assert!(!error.to_string().contains('\n'));
        assert!(
            matches!(uninstall(), Err(KernelError::SecondInstance { .. })),
            "not under a running process"
        );
        drop(kernel);
        drop(Kernel::open(Options::default()).unwrap());
    });
}

#[test]
fn a_successor_takes_over_and_loses_no_connection() {
    in_netns(|| {
        ip("addr add 192.0.2.1/24 dev lo");
        let snapshot = Snap::default().steer(bind(Transport::Tcp, "192.0.2.1:80"));
        let old_workers = [Worker::new()];
        let mut old = start(Options::default(), &old_workers, &snapshot);
        let early = connect("192.0.2.1:80").unwrap();

        let new_workers = [Worker::new()];
        let mut new = Kernel::open(Options {
            takeover: true,
            ..Options::default()
        })
        .unwrap();
        new.register(0, &new_workers[0].sockets()).unwrap();
        new.apply(&snapshot.0).unwrap();
        drop(connect("192.0.2.1:80").unwrap());
        assert!(new_workers[0].accepted().is_none(), "registered is not yet in charge");
        assert!(!old.superseded());
        new.activate().unwrap();
        assert!(old.superseded() && !new.superseded());
        assert!(
            matches!(
                Kernel::open(Options {
                    takeover: true,
                    ..Options::default()
                }),
                Err(KernelError::SecondInstance { .. })
            ),
            "one successor at a time"
        );

        drop(connect("192.0.2.1:80").unwrap());
        eventually("the new worker has it", || new_workers[0].accepted().is_some());
        assert!(
            old_workers[0].accepted().is_some(),
            "what the old one accepted is still there"
        );
        old.tick().unwrap();
        drop((old, old_workers, early));
        drop(connect("192.0.2.1:80").unwrap());
        eventually("and goes on without the old one", || {
            new_workers[0].accepted().is_some()
        });
        new.tick().unwrap();
        assert!(
            matches!(
                Kernel::open(Options::default()),
                Err(KernelError::SecondInstance { .. })
            ),
            "it has the lock"
        );
    });
}

#[test]
fn a_restart_finds_its_pins_and_serves_again() {
    in_netns(|| {
        ip("addr add 192.0.2.1/24 dev lo");
        let snapshot = Snap::default()
            .steer(bind(Transport::Tcp, "192.0.2.1:80"))
            .own("198.51.100.1/32", OnMiss::Drop);
        for _ in 0..3 {
            let workers = [Worker::new()];
            let _kernel = start(Options::default(), &workers, &snapshot);
            drop(connect("192.0.2.1:80").unwrap());
            eventually("steered", || workers[0].accepted().is_some());
        }
        // What the last snapshot wanted and this one does not is removed, though another process wrote it.
        let workers = [Worker::new()];
        let _kernel = start(Options::default(), &workers, &Snap::default());
        assert!(!ip_output("route show table local").contains("198.51.100.1"));
        let plain = TcpListener::bind("192.0.2.1:80").unwrap();
        drop(connect("192.0.2.1:80").unwrap());
        drop(plain.accept().unwrap());
    });
}

fn pins() -> PathBuf {
    use std::os::unix::fs::MetadataExt;
    let inode = std::fs::metadata("/proc/thread-self/ns/net").unwrap().ino();
    PathBuf::from(format!("/sys/fs/bpf/pierhead/{inode}"))
}

#[test]
fn uninstall_leaves_nothing() {
    in_netns(|| {
        let workers = [Worker::new()];
        let kernel = start(
            Options::default(),
            &workers,
            &Snap::default()
                .steer(bind(Transport::Tcp, "*:80"))
                .own("198.51.100.0/28", OnMiss::Drop),
        );
        assert!(pins().exists());
        assert!(refused("198.51.100.1:81"));
        drop(kernel);
        let removed = uninstall().unwrap();
        assert!(removed.iter().any(|line| line.contains("link_steer")), "{removed:?}");
        assert!(
            removed.iter().any(|line| line.contains("198.51.100.0/28")),
            "{removed:?}"
        );
        assert!(!pins().exists());
        assert!(!ip_output("route show table local").contains("198.51.100"));
        let plain = TcpListener::bind("0.0.0.0:80").unwrap();
        drop(connect("127.0.0.1:80").unwrap());
        drop(plain.accept().unwrap());
        assert_eq!(uninstall().unwrap(), Vec::<String>::new());
    });
}

#[test]
fn an_occupied_pin_is_named() {
    in_netns(|| {
        drop(Kernel::open(Options::default()).unwrap());
        // A link where a map should be.
        let workers = [Worker::new()];
        drop(start(Options::default(), &workers, &Snap::default()));
        let dir = std::fs::read_dir(pins()).unwrap().next().unwrap().unwrap().path();
        std::fs::remove_file(dir.join("OWNED")).unwrap();
        std::fs::rename(dir.join("link_steer"), dir.join("OWNED")).unwrap();
        let error = Kernel::open(Options::default()).unwrap_err();
        assert!(
            matches!(&error, KernelError::OccupiedPin { path, .. } if path.ends_with("OWNED")),
            "{error}"
        );
        assert!(error.to_string().contains("pierhead uninstall"));
        uninstall().unwrap();
        drop(Kernel::open(Options::default()).unwrap());
    });
}

#[test]
fn what_a_dead_namespace_left_is_swept() {
    in_netns(|| {
        let left = std::thread::spawn(|| {
            support::enter_netns();
            uninstall().unwrap();
            let workers = [Worker::new()];
            drop(start(Options::default(), &workers, &Snap::default()));
            pins()
        });
        let left = left.join().unwrap();
        eventually("it is swept", || {
            drop(Kernel::open(Options::default()).unwrap());
            !left.exists()
        });
    });
}
