//! UDP listeners on loopback.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{
    collections::HashSet,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::Arc,
    thread,
    time::Duration,
};

use pierhead_model::{BindAddress, BindKey, Transport};
use support::{SOON, World, eventually, free, gate, metric, nobody};

/// Answers each datagram with its name and what it got; names the sender's port too.
fn echo(name: &'static str) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 65_535];
        while let Ok((count, from)) = socket.recv_from(&mut buffer) {
            let mut answer = format!("{name} {} ", from.port()).into_bytes();
            answer.extend_from_slice(&buffer[..count]);
            socket.send_to(&answer, from).unwrap();
        }
    });
    address
}

fn client() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

/// Sends `text` and gives the answer's words: name, port of the session, text.
fn ask(client: &UdpSocket, at: SocketAddr, text: &str) -> (String, String, SocketAddr) {
    client.send_to(text.as_bytes(), at).unwrap();
    let mut buffer = [0; 65_535];
    let (count, from) = client.recv_from(&mut buffer).unwrap();
    let answer = String::from_utf8(buffer[..count].to_vec()).unwrap();
    let mut words = answer.splitn(3, ' ').map(str::to_owned);
    let (name, port, rest) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
    assert_eq!(rest, text);
    (name, port, from)
}

#[test]
fn a_client_keeps_its_session_and_hears_from_whom_it_asked() {
    let gate = gate();
    let at = free(Transport::Udp);
    let report = gate.apply(World::default().backend("a", &[echo("a")]).udp(at, &[("a", 1)]).build());
    assert!(report.is_complete(), "{report:?}");
    let (one, other) = (client(), client());
    let first = ask(&one, at, "ping");
    assert_eq!((first.0.as_str(), first.2), ("a", at));
    assert_eq!(ask(&one, at, "again").1, first.1);
    assert_ne!(ask(&other, at, "ping").1, first.1);
    assert_eq!(ask(&one, at, "").1, first.1, "empty datagrams are datagrams");
    assert_eq!(ask(&one, at, &"x".repeat(60_000)).1, first.1);
}

/// On a wildcard bind the kernel would otherwise choose the source address of answers.
#[test]
fn answers_come_from_the_address_that_was_asked() {
    let gate = gate();
    let port = free(Transport::Udp).port();
    let at = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let mut world = World::default().backend("a", &[echo("a")]).udp(at, &[("a", 1)]);
    let (key, bind) = world.snapshot.binds.pop_first().unwrap();
    let key = BindKey {
        address: BindAddress::Any,
        ..key
    };
    let mut bind = (*bind).clone();
    bind.key = key;
    world.snapshot.binds.insert(key, Arc::new(bind));
    assert!(gate.apply(world.build()).is_complete());
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    for ip in [Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(127, 9, 9, 9)] {
        let asked = SocketAddr::from((ip, port));
        assert_eq!(ask(&socket, asked, "ping").2, asked);
    }
    let v6 = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
    v6.set_read_timeout(Some(SOON)).unwrap();
    let asked = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    assert_eq!(ask(&v6, asked, "ping").2, asked);
}

#[test]
fn sessions_are_shared_out_by_weight() {
    let gate = gate();
    let at = free(Transport::Udp);
    let world = World::default().backend("a", &[echo("a")]).backend("b", &[echo("b")]);
    gate.apply(world.udp(at, &[("a", 3), ("b", 1)]).build());
    let from_a = (0..40).filter(|_| ask(&client(), at, "x").0 == "a").count();
    // Each worker keeps the share exactly for the sessions it got, so each may be one off.
    assert!((28..=32).contains(&from_a), "{from_a} of 40");
}

#[test]
fn a_session_moves_on_when_its_endpoint_goes() {
    let gate = gate();
    let at = free(Transport::Udp);
    let world = World::default().udp(at, &[("a", 1)]);
    gate.apply(world.clone().backend("a", &[echo("old")]).build());
    let client = client();
    assert_eq!(ask(&client, at, "x").0, "old");
    gate.apply(world.backend("a", &[echo("new")]).build());
    assert_eq!(ask(&client, at, "x").0, "new");
}

#[test]
fn the_longest_idle_session_makes_room() {
    let gate = gate();
    let at = free(Transport::Udp);
    let mut world = World::default();
    world.limits.udp_sessions = 4;
    gate.apply(world.backend("a", &[echo("a")]).udp(at, &[("a", 1)]).build());
    let clients: Vec<_> = (0..64).map(|_| client()).collect();
    for client in &clients {
        assert_eq!(ask(client, at, "x").0, "a");
    }
    let open = format!("pierhead_listener_streams_open{{listener=\"Gateway default/gate#udp-{at}\"}}");
    // Four per worker.
    eventually("sessions are bounded", || metric(&gate, &open) <= 8.0);
    assert!(metric(&gate, &open) >= 4.0);
}

#[test]
fn idle_sessions_end_and_a_new_one_is_made() {
    let gate = gate();
    let at = free(Transport::Udp);
    let mut world = World::default();
    world.limits.udp_idle_timeout = Duration::from_millis(100);
    gate.apply(world.backend("a", &[echo("a")]).udp(at, &[("a", 1)]).build());
    let client = client();
    let ports: HashSet<_> = (0..2)
        .map(|_| {
            let port = ask(&client, at, "x").1;
            let open = format!("pierhead_listener_streams_open{{listener=\"Gateway default/gate#udp-{at}\"}}");
            eventually("the session ended", || metric(&gate, &open) == 0.0);
            port
        })
        .collect();
    assert!(!ports.is_empty());
}

#[test]
fn a_dead_endpoint_is_left_for_the_next() {
    let gate = gate();
    let at = free(Transport::Udp);
    let dead = nobody();
    gate.apply(
        World::default()
            .backend("a", &[dead, echo("alive")])
            .udp(at, &[("a", 1)])
            .build(),
    );
    let client = client();
    client.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut buffer = [0; 100];
    eventually("the live endpoint answers", || {
        client.send_to(b"x", at).unwrap();
        client.recv(&mut buffer).is_ok()
    });
}

#[test]
fn invalid_and_absent_backends_drop_datagrams() {
    let gate = gate();
    let [invalid, none, other] = std::array::from_fn(|_| free(Transport::Udp));
    let world = World::default()
        .invalid("bad")
        .backend("empty", &[])
        .backend("a", &[echo("a")]);
    let world = world
        .udp(invalid, &[("bad", 1)])
        .udp(none, &[("empty", 1)])
        .udp(other, &[("a", 1)]);
    gate.apply(world.build());
    let client = client();
    for at in [invalid, none] {
        client.send_to(b"x", at).unwrap();
        let series = format!("pierhead_datagrams_dropped_total{{listener=\"Gateway default/gate#udp-{at}\"}}");
        eventually("it is counted", || metric(&gate, &series) == 1.0);
    }
    assert_eq!(ask(&client, other, "x").0, "a");
}
