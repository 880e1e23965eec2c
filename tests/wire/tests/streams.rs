//! TCP and UDP: the same from outside however they travel, and proof of the way they took.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use pierhead_wire::every_mode;
use pierhead_wire::gate::{Gate, Mode};
use pierhead_wire::net::{CLIENT, FAMILIES, Family, GATE, HOST_A};
use pierhead_wire::street::{Street, gateway, port};

every_mode!(
    a_server_may_speak_first_and_a_half_close_passes,
    many_bytes_pass_both_ways_at_once,
    connections_are_spread_by_weight,
    a_stalled_reader_holds_its_sender_not_our_memory,
    a_refused_connection_is_refused,
    udp_answers_come_from_the_address_that_was_asked,
    udp_keeps_a_flow_on_one_backend,
    traffic_takes_the_way_its_mode_says,
);

const LISTENERS: [&str; 10] = [
    "{name: lines-v4, protocol: TCP, port: 9004}",
    "{name: lines-v6, protocol: TCP, port: 9006}",
    "{name: ask-v4, protocol: UDP, port: 5304}",
    "{name: ask-v6, protocol: UDP, port: 5306}",
    "{name: lines, protocol: TCP, port: 9000}",
    "{name: both, protocol: TCP, port: 9001}",
    "{name: own, protocol: TCP, port: 9002}",
    "{name: none, protocol: TCP, port: 9003}",
    "{name: ask, protocol: UDP, port: 5300}",
    "{name: ask-both, protocol: UDP, port: 5301}",
];

fn start(mode: Mode) -> Result<(Gate, Street)> {
    let street = Street::new()?;
    let table = [
        ("TCPRoute", "lines-v4", "lines-v4", port::TCP),
        ("TCPRoute", "lines-v6", "lines-v6", port::TCP),
        ("UDPRoute", "ask-v4", "ask-v4", port::UDP),
        ("UDPRoute", "ask-v6", "ask-v6", port::UDP),
        ("TCPRoute", "lines", "lines", port::TCP),
        ("TCPRoute", "both", "lines-both", port::TCP),
        ("TCPRoute", "own", "own", port::OWN),
        ("TCPRoute", "none", "none", port::HTTP),
        ("UDPRoute", "ask", "ask", port::UDP),
        ("UDPRoute", "ask-both", "ask-both", port::UDP),
    ];
    let routes: Vec<String> = table
        .iter()
        .map(|(kind, listener, service, port)| {
            format!(
                "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: {listener}}}\nspec:\n  parentRefs: [{{name: gate, sectionName: {listener}}}]\n  rules: [{{backendRefs: [{{name: {service}, port: {port}}}]}}]\n"
            )
        })
        .collect();
    let gate = street.gate(
        mode,
        &[
            ("gate.yaml", &gateway(&LISTENERS)),
            ("routes.yaml", &routes.join("---\n")),
        ],
    )?;
    Ok((gate, street))
}

/// Connects and reads the greeting: `hello from <name> to <address>`.
fn greeted(street: &Street, to: SocketAddr) -> Result<(TcpStream, String, String)> {
    let stream = street.client.tcp(to)?;
    let mut line = String::new();
    // Unbuffered, so that nothing after the line is lost.
    let mut reader = BufReader::with_capacity(1, stream.try_clone()?);
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace().skip(2);
    let (Some(name), Some(_), Some(peer)) = (words.next(), words.next(), words.next()) else {
        bail!("greeted by {line:?}")
    };
    Ok((stream, name.to_owned(), peer.to_owned()))
}

fn a_server_may_speak_first_and_a_half_close_passes(mode: Mode) -> Result<()> {
    let (_gate, street) = start(mode)?;
    for family in FAMILIES {
        let (mut stream, name, _) = greeted(&street, GATE.at(family, 9000))?;
        assert_eq!(name, "a");
        stream.write_all(b"ping")?;
        stream.shutdown(Shutdown::Write)?;
        let mut rest = String::new();
        stream.read_to_string(&mut rest)?;
        assert_eq!(rest, "pingbye\n", "the other half stays open over {family:?}");
    }
    Ok(())
}

fn many_bytes_pass_both_ways_at_once(mode: Mode) -> Result<()> {
    const TOTAL: usize = 20_000_000;
    let (_gate, street) = start(mode)?;
    let (stream, ..) = greeted(&street, GATE.v4_at(9000))?;
    let mut sender = stream.try_clone()?;
    let sending = std::thread::spawn(move || -> Result<()> {
        let piece: Vec<u8> = (0..=250).collect();
        let block = piece.repeat(400);
        let mut left = TOTAL;
        while left > 0 {
            let count = left.min(block.len());
            sender.write_all(&block[..count])?;
            left -= count;
        }
        Ok(sender.shutdown(Shutdown::Write)?)
    });
    let mut received = Vec::with_capacity(TOTAL + 4);
    (&stream).read_to_end(&mut received)?;
    sending.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
    assert_eq!(received.len(), TOTAL + 4);
    let wrong = received[..TOTAL]
        .iter()
        .enumerate()
        .find(|(index, byte)| usize::from(**byte) != index % 251);
    assert_eq!(wrong, None);
    Ok(())
}

fn connections_are_spread_by_weight(mode: Mode) -> Result<()> {
    let (_gate, street) = start(mode)?;
    let mut counts = BTreeMap::new();
    for _ in 0..200 {
        let (_, name, _) = greeted(&street, GATE.v4_at(9001))?;
        *counts.entry(name).or_insert(0) += 1;
    }
    let least = counts.values().min().copied().unwrap_or_default();
    assert!(counts.len() == 2 && least >= 60, "{counts:?}");
    Ok(())
}

fn a_stalled_reader_holds_its_sender_not_our_memory(mode: Mode) -> Result<()> {
    let (gate, street) = start(mode)?;
    street.a.raw(HOST_A.v4_at(port::OWN), |stream| {
        // Reads nothing until its peer gives up.
        while stream.peer_addr().is_ok() && stream.take_error()?.is_none() {
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    })?;
    let mut stream = street.client.tcp(GATE.v4_at(9002))?;
    stream.set_write_timeout(Some(Duration::from_millis(500)))?;
    let before = gate.memory()?;
    let block = vec![0; 1 << 20];
    let mut sent = 0;
    let stalled = loop {
        match stream.write(&block) {
            Ok(count) => sent += count,
            Err(error) => break error,
        }
        assert!(sent < 200 << 20, "200 MB went to a reader that reads nothing");
    };
    assert!(
        matches!(
            stalled.kind(),
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
        ),
        "{stalled}"
    );
    let grown = gate.memory()?.saturating_sub(before);
    assert!(grown < 8 << 20, "memory grew by {grown} bytes");
    Ok(())
}

fn a_refused_connection_is_refused(mode: Mode) -> Result<()> {
    let (_gate, street) = start(mode)?;
    // No endpoint, and a Service whose endpoint refuses: the client learns of it, at once or at its first read.
    for to in [GATE.v4_at(9003), GATE.v4_at(9002)] {
        let ended = match street.client.tcp(to) {
            Err(_) => true,
            Ok(mut stream) => !matches!(stream.read(&mut [0; 1]), Ok(1..)),
        };
        assert!(ended, "{to}");
    }
    Ok(())
}

fn ask(street: &Street, to: SocketAddr) -> Result<(String, String)> {
    // The socket is connected: an answer from any other address or port is not seen.
    let socket = street.client.udp(to)?;
    socket.send(b"hi")?;
    let mut answer = [0; 200];
    let count = socket.recv(&mut answer).context("no answer")?;
    let text = String::from_utf8_lossy(&answer[..count]).into_owned();
    let (name, rest) = text.split_once(' ').context("no name")?;
    let peer = rest.strip_suffix(": hi").context("not echoed")?.parse::<SocketAddr>()?;
    Ok((name.to_owned(), peer.ip().to_string()))
}

fn udp_answers_come_from_the_address_that_was_asked(mode: Mode) -> Result<()> {
    let (_gate, street) = start(mode)?;
    for family in FAMILIES {
        for _ in 0..10 {
            assert_eq!(ask(&street, GATE.at(family, 5300))?.0, "a");
        }
    }
    Ok(())
}

fn udp_keeps_a_flow_on_one_backend(mode: Mode) -> Result<()> {
    let (_gate, street) = start(mode)?;
    let mut seen = BTreeMap::new();
    for _ in 0..40 {
        let socket = street.client.udp(GATE.v4_at(5301))?;
        let mut first = None;
        for _ in 0..5 {
            socket.send(b"hi")?;
            let mut answer = [0; 200];
            let count = socket.recv(&mut answer)?;
            let name = String::from_utf8_lossy(&answer[..count])
                .split(' ')
                .next()
                .unwrap_or_default()
                .to_owned();
            assert_eq!(first.get_or_insert_with(|| name.clone()), &name, "a flow moved");
        }
        *seen.entry(first).or_insert(0) += 1;
    }
    assert_eq!(seen.len(), 2, "flows are spread: {seen:?}");
    Ok(())
}

/// In `full` the packets are rewritten in the kernel: the backend sees the client itself, the kernel counts them, and the
/// proxy sees no connection. Otherwise the backend sees the node.
fn traffic_takes_the_way_its_mode_says(mode: Mode) -> Result<()> {
    let (gate, street) = start(mode)?;
    // Endpoints of one family: what is of both goes through userspace, and works all the same.
    for (family, tcp, udp) in [(Family::V4, 9004, 5304), (Family::V6, 9006, 5306)] {
        let client = CLIENT.of(family).to_string();
        let (_stream, _, tcp_peer) = greeted(&street, GATE.at(family, tcp))?;
        let (_, udp_peer) = ask(&street, GATE.at(family, udp))?;
        if mode == Mode::Full {
            assert_eq!((&tcp_peer, &udp_peer), (&client, &client), "over {family:?}");
        } else {
            assert_ne!(tcp_peer, client, "over {family:?}");
            assert_ne!(udp_peer, client, "over {family:?}");
        }
    }
    for protocol in ["tcp", "udp"] {
        let packets = gate.metric("pierhead_kernel_packets_total", &[("protocol", protocol)])?;
        assert_eq!(
            packets > 0.0,
            mode == Mode::Full,
            "{packets} packets of {protocol} in the kernel"
        );
    }
    Ok(())
}
