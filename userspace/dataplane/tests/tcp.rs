//! TCP listeners on loopback.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use pierhead_dataplane::{AcceptMode, AccessLog, Config, WorkerLoads};
use pierhead_model::{BackendTarget, BindAddress, BindKey, BindPort, DataPath, Hostname, ListenerKind, Transport};
use support::{World, connect, echo, eventually, free, gate, gate_of, gate_with, key, metric, nobody, read, server};

#[test]
fn the_server_may_speak_first() {
    let gate = gate();
    let at = free(Transport::Tcp);
    let report = gate.apply(
        World::default()
            .backend("a", &[echo("hello")])
            .tcp(at, &[("a", 1)])
            .build(),
    );
    assert!(report.is_complete(), "{report:?}");
    let mut client = connect(at);
    assert_eq!(read(&mut client, 5), "hello");
    client.write_all(b"ping").unwrap();
    assert_eq!(read(&mut client, 4), "ping");
}

#[test]
fn each_side_may_finish_before_the_other() {
    let gate = gate();
    let at = free(Transport::Tcp);
    // Answers only after the client has finished.
    let counting = server(|mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        stream.write_all(all.len().to_string().as_bytes()).unwrap();
    });
    gate.apply(World::default().backend("a", &[counting]).tcp(at, &[("a", 1)]).build());
    let mut client = connect(at);
    client.write_all(&vec![7; 300_000]).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "300000");
    eventually("the stream is recorded", || {
        metric(
            &gate,
            &format!("pierhead_received_bytes_total{{listener=\"Gateway default/gate#tcp-{at}\"}}"),
        ) == 300_000.0
    });
}

/// Connections now and ever, over all workers.
#[derive(Debug, Default)]
struct Counted {
    now: AtomicUsize,
    ever: AtomicUsize,
}

impl WorkerLoads for Counted {
    fn add(&self, worker: usize) {
        assert!(worker < 2, "there are two workers");
        self.now.fetch_add(1, Ordering::Relaxed);
        self.ever.fetch_add(1, Ordering::Relaxed);
    }

    fn sub(&self, _: usize) {
        self.now.fetch_sub(1, Ordering::Relaxed);
    }
}

#[test]
fn whoever_steers_is_told_of_every_connection() {
    let counted = Arc::new(Counted::default());
    let gate = gate_of(Config {
        loads: Some(Arc::clone(&counted) as Arc<dyn WorkerLoads>),
        ..Config::default()
    });
    let at = free(Transport::Tcp);
    gate.apply(
        World::default()
            .backend("a", &[echo("hello")])
            .tcp(at, &[("a", 1)])
            .build(),
    );
    let mut clients = [connect(at), connect(at), connect(at)];
    for client in &mut clients {
        assert_eq!(read(client, 5), "hello");
    }
    assert_eq!(counted.now.load(Ordering::Relaxed), 3);
    drop(clients);
    eventually("all are counted out", || counted.now.load(Ordering::Relaxed) == 0);
    assert_eq!(counted.ever.load(Ordering::Relaxed), 3);
}

#[test]
fn a_stalled_reader_stops_the_writer() {
    let gate = gate();
    let at = free(Transport::Tcp);
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let flood = server(move |mut stream| {
        let chunk = [1; 64 * 1024];
        while let Ok(count) = stream.write(&chunk) {
            counter.fetch_add(count, Ordering::Relaxed);
        }
    });
    gate.apply(World::default().backend("a", &[flood]).tcp(at, &[("a", 1)]).build());
    let mut client = connect(at);
    // Wait until the flood stands still.
    let mut before = 0;
    eventually("the writer is stopped", || {
        std::thread::sleep(Duration::from_millis(100));
        let now = sent.load(Ordering::Relaxed);
        let still = now > 0 && now == before;
        before = now;
        still
    });
    // Four socket buffers (at most 6 MB each by default) and a pipe; without back-pressure there is no end.
    assert!(before < 32 << 20, "{before} bytes were taken from the writer");
    let mut got = 0;
    let mut buffer = [0; 64 * 1024];
    while got < before + (4 << 20) {
        got += client.read(&mut buffer).unwrap();
    }
}

#[test]
fn an_invalid_share_is_reset_and_the_rest_is_served() {
    let gate = gate();
    let at = free(Transport::Tcp);
    let world = World::default().backend("good", &[echo("good")]).invalid("bad");
    gate.apply(world.tcp(at, &[("good", 3), ("bad", 1)]).build());
    let mut reset = 0;
    for _ in 0..40 {
        let mut client = connect(at);
        let mut buffer = [0; 4];
        match client.read_exact(&mut buffer) {
            Ok(()) => assert_eq!(&buffer, b"good"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                reset += 1;
            }
        }
    }
    assert_eq!(reset, 10);
}

#[test]
fn what_leads_nowhere_is_reset() {
    let gate = gate();
    let [empty, weightless, routeless, dead] = std::array::from_fn(|_| free(Transport::Tcp));
    let world = World::default()
        .backend("none", &[])
        .backend("dead", &[nobody()])
        .backend("good", &[echo("good")])
        .tcp(empty, &[("none", 1)])
        .tcp(weightless, &[("good", 0)])
        .tcp(dead, &[("dead", 1)])
        .listener(
            Transport::Tcp,
            routeless,
            "routeless",
            &[""],
            ListenerKind::Tcp { route: None },
        );
    gate.apply(world.build());
    for at in [empty, weightless, routeless, dead] {
        let error = connect(at).read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{at}");
    }
}

#[test]
fn the_next_endpoint_takes_over_from_a_dead_one() {
    let gate = gate();
    let at = free(Transport::Tcp);
    gate.apply(
        World::default()
            .backend("a", &[nobody(), echo("alive")])
            .tcp(at, &[("a", 1)])
            .build(),
    );
    for _ in 0..10 {
        assert_eq!(read(&mut connect(at), 5), "alive");
    }
}

#[test]
fn a_stream_survives_two_hundred_snapshots() {
    let gate = gate();
    let at = free(Transport::Tcp);
    let base = World::default().backend("a", &[echo("a")]).tcp(at, &[("a", 1)]);
    gate.apply(base.build());
    let mut client = connect(at);
    assert_eq!(read(&mut client, 1), "a");
    let (other, backend) = (free(Transport::Tcp), echo("b"));
    for round in 0..200 {
        let mut world = base.clone().backend("b", &[backend]);
        if round % 2 == 0 {
            world = world.tcp(other, &[("b", round + 1)]);
        }
        if round % 3 == 0 {
            world = world.backend("a", &[echo("new")]);
        }
        assert!(gate.apply(world.build()).is_complete());
        client.write_all(b"x").unwrap();
        assert_eq!(read(&mut client, 1), "x");
    }
}

#[test]
fn new_connections_follow_the_snapshot_and_a_removed_bind_refuses() {
    let gate = gate();
    let at = free(Transport::Tcp);
    gate.apply(World::default().backend("a", &[echo("a")]).tcp(at, &[("a", 1)]).build());
    assert_eq!(read(&mut connect(at), 1), "a");
    gate.apply(World::default().backend("a", &[echo("b")]).tcp(at, &[("a", 1)]).build());
    assert_eq!(read(&mut connect(at), 1), "b");
    gate.apply(World::default().build());
    let refused = std::net::TcpStream::connect(at).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_port_in_use_is_reported_hurts_nothing_else_and_is_taken_when_free() {
    let gate = gate();
    let [taken, other] = std::array::from_fn(|_| free(Transport::Tcp));
    let squatter = TcpListener::bind(taken).unwrap();
    let world = World::default().backend("a", &[echo("a")]);
    let report = gate.apply(world.tcp(taken, &[("a", 1)]).tcp(other, &[("a", 1)]).build());
    assert!(!report.is_complete());
    for bind in report.binds {
        let expected = if bind.bind == key(Transport::Tcp, taken) {
            assert!(bind.why.contains("in use"), "{}", bind.why);
            DataPath::None
        } else {
            DataPath::Bound
        };
        assert_eq!(bind.path, expected);
    }
    assert_eq!(read(&mut connect(other), 1), "a");
    drop(squatter);
    eventually("the port is taken", || {
        gate.status().binds.iter().all(|bind| bind.path == DataPath::Bound)
    });
    assert_eq!(read(&mut connect(taken), 1), "a");
}

#[test]
fn prefixes_and_all_ports_ask_for_steering() {
    let gate = gate();
    let at = free(Transport::Tcp);
    let mut world = World::default().backend("a", &[echo("a")]).tcp(at, &[("a", 1)]);
    let (_, bind) = world.snapshot.binds.pop_first().unwrap();
    let all_ports = BindKey {
        port: BindPort::All,
        ..bind.key
    };
    let prefix = BindKey {
        address: BindAddress::Prefix("127.1.0.0/16".parse().unwrap()),
        ..bind.key
    };
    for key in [all_ports, prefix] {
        let mut bind = (*bind).clone();
        bind.key = key;
        world.snapshot.binds.insert(key, Arc::new(bind));
    }
    let report = gate.apply(world.build());
    assert_eq!(report.binds.len(), 2);
    for bind in report.binds {
        assert_eq!(bind.path, DataPath::None);
        assert!(bind.why.contains("--ebpf=steer"), "{}", bind.why);
    }
}

#[test]
fn connections_beyond_the_limit_of_a_gateway_are_reset() {
    let gate = gate();
    let at = free(Transport::Tcp);
    let mut world = World::default();
    world.limits.connections = 2;
    gate.apply(world.backend("a", &[echo("a")]).tcp(at, &[("a", 1)]).build());
    let mut held: Vec<_> = (0..2).map(|_| connect(at)).collect();
    for client in &mut held {
        assert_eq!(read(client, 1), "a");
    }
    assert_eq!(
        connect(at).read(&mut [0; 1]).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    held.pop();
    eventually("a place is free", || {
        connect(at).read(&mut [0; 1]).is_ok_and(|count| count == 1)
    });
}

#[test]
fn idle_streams_end() {
    let gate = gate();
    let at = free(Transport::Tcp);
    let mut world = World::default();
    world.limits.stream_idle_timeout = Duration::from_millis(200);
    gate.apply(world.backend("a", &[echo("a")]).tcp(at, &[("a", 1)]).build());
    let mut client = connect(at);
    assert_eq!(read(&mut client, 1), "a");
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(80));
        client.write_all(b"x").unwrap();
        assert_eq!(read(&mut client, 1), "x");
    }
    assert_eq!(client.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_drain_waits_for_streams_and_cuts_them_at_the_deadline() {
    let gate = gate();
    let at = free(Transport::Tcp);
    gate.apply(World::default().backend("a", &[echo("a")]).tcp(at, &[("a", 1)]).build());
    let mut client = connect(at);
    assert_eq!(read(&mut client, 1), "a");
    let draining = std::thread::spawn(move || gate.drain(Duration::from_secs(1)));
    eventually("nothing new is accepted", || std::net::TcpStream::connect(at).is_err());
    client.write_all(b"x").unwrap();
    assert_eq!(read(&mut client, 1), "x");
    let report = draining.join().unwrap();
    assert_eq!(report.cut, 1);
    assert!(report.took >= Duration::from_secs(1));
    assert!(matches!(client.read(&mut [0; 1]), Ok(0) | Err(_)));
}

#[test]
fn every_stream_leaves_a_line_in_the_access_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let gate = gate_with(AcceptMode::Bound, AccessLog::File(path.clone()));
    let at = free(Transport::Tcp);
    gate.apply(
        World::default()
            .backend("a", &[echo("hi")])
            .tcp(at, &[("a", 1)])
            .build(),
    );
    let mut client = connect(at);
    assert_eq!(read(&mut client, 2), "hi");
    drop(client);
    eventually("the line is written", || {
        let text = std::fs::read_to_string(&path).unwrap();
        let Some(line) = text.lines().next() else { return false };
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["protocol"], "tcp");
        assert_eq!(line["bytes_out"], 2);
        assert_eq!(line["reason"], "done");
        assert_eq!(line["backend"], "a");
        true
    });
}

#[test]
fn a_name_is_resolved_and_its_addresses_are_endpoints() {
    let gate = gate();
    let at = free(Transport::Tcp);
    let target = BackendTarget::Dns {
        name: Hostname::parse("localhost").unwrap(),
        port: echo("named").port(),
    };
    gate.apply(World::default().target("a", target).tcp(at, &[("a", 1)]).build());
    // ::1 is an address of it too, where nobody listens: the next one is tried.
    let mut buffer = [0; 5];
    eventually("the name is resolved", || connect(at).read_exact(&mut buffer).is_ok());
    assert_eq!(&buffer, b"named");
    let status = gate.status();
    assert_eq!(status.backends[0].endpoints.len(), 2);
}

/// Without a kernel that steers, the socket's own port stands for the destination.
#[test]
fn a_steered_connection_finds_its_bind_by_its_destination() {
    let gate = gate_with(AcceptMode::Steered, AccessLog::Off);
    let sockets = gate.steered_sockets();
    assert_eq!(sockets.len(), 2);
    let mut world = World::default().backend("a", &[echo("0")]).backend("b", &[echo("1")]);
    let mut ports = Vec::new();
    for (socket, backend) in sockets.iter().zip(["a", "b"]) {
        let listener = TcpListener::from(socket.tcp4.as_ref().unwrap().try_clone().unwrap());
        let port = listener.local_addr().unwrap().port();
        ports.push(port);
        world = world.tcp(support::localhost(port), &[(backend, 1)]);
    }
    let report = gate.apply(world.build());
    assert!(report.binds.iter().all(|bind| bind.path == DataPath::Steered));
    for (port, name) in ports.iter().zip(["0", "1"]) {
        assert_eq!(read(&mut connect(support::localhost(*port)), 1), name);
        // Another address of the machine is no bind: reset.
        let stray = std::net::SocketAddr::from(([127, 0, 0, 2], *port));
        assert_eq!(
            connect(stray).read(&mut [0; 1]).unwrap_err().kind(),
            ErrorKind::ConnectionReset
        );
    }
    assert_eq!(metric(&gate, "pierhead_strays_total"), 2.0);
}

/// What a load balancer says of `192.0.2.7:1234` before the client's own bytes.
fn announcement(version: u8) -> Vec<u8> {
    if version == 1 {
        return b"PROXY TCP4 192.0.2.7 10.0.0.1 1234 80\r\n".to_vec();
    }
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0f".to_vec();
    header.extend([192, 0, 2, 7, 10, 0, 0, 1, 4, 210, 0, 80]);
    // A type-length-value of no length.
    header.extend([4, 0, 0]);
    header
}

#[test]
fn a_trusted_load_balancer_names_the_client_and_nobody_else_does() {
    let gate = gate();
    let (at, plain) = (free(Transport::Tcp), free(Transport::Tcp));
    let mut world = World::default().backend("a", &[echo("hello")]);
    world.client_address.proxy_protocol = vec!["127.0.0.0/8".parse().unwrap()];
    world = world.tcp(at, &[("a", 1)]);
    world.client_address.proxy_protocol = vec!["10.0.0.0/8".parse().unwrap()];
    world = world.tcp(plain, &[("a", 1)]);
    gate.apply(world.build());
    for version in [1, 2] {
        // In one piece with what follows, and byte by byte.
        let mut client = connect(at);
        client
            .write_all(&[announcement(version), b"ping".to_vec()].concat())
            .unwrap();
        assert_eq!(read(&mut client, 9), "helloping");
        let mut client = connect(at);
        for byte in announcement(version) {
            client.write_all(&[byte]).unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(read(&mut client, 5), "hello");
        client.write_all(b"pong").unwrap();
        assert_eq!(read(&mut client, 4), "pong");
    }
    // LOCAL: the load balancer's own health check.
    let mut client = connect(at);
    client.write_all(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0").unwrap();
    assert_eq!(read(&mut client, 5), "hello");
    // Without a header, or with a broken one.
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"PROXY TCP4 x y 1 2\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0",
    ] {
        let mut client = connect(at);
        client.write_all(bytes).unwrap();
        let mut rest = Vec::new();
        let _ = client.read_to_end(&mut rest);
        assert!(rest.is_empty(), "{:?}", String::from_utf8_lossy(&rest));
    }
    // Whoever is not trusted is not asked, and what it says is content.
    let mut client = connect(plain);
    client.write_all(&announcement(1)).unwrap();
    assert_eq!(
        read(&mut client, 5 + announcement(1).len()),
        format!("hello{}", String::from_utf8(announcement(1)).unwrap())
    );
}
