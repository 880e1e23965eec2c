//! What idle connections hold. A file of its own, for it weighs its process: no other test may run beside it.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    thread::sleep,
    time::Duration,
};

use pierhead_model::{HostSelection, HttpOptions, ListenerKind, Transport};
use support::{World, connect, free, gate};

/// Of each kind: with their other ends within the 1,024 files that a process may have open by default.
const CONNECTIONS: usize = 200;

/// Asks on a new connection, waits for the whole answer, and leaves the connection open.
type Ask = fn(SocketAddr) -> TcpStream;

fn http1(at: SocketAddr) -> TcpStream {
    let mut client = connect(at);
    client
        .write_all(b"GET /none HTTP/1.1\r\nHost: a.example\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 404"));
    let text = String::from_utf8(answer).unwrap().to_ascii_lowercase();
    let length = text.split("content-length: ").nth(1).unwrap();
    let length = length.split('\r').next().unwrap().parse().unwrap();
    client.read_exact(&mut vec![0; length]).unwrap();
    client
}

fn http2(at: SocketAddr) -> TcpStream {
    let mut client = connect(at);
    let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // SETTINGS, its acknowledgement, and HEADERS that end stream 1.
    hello.extend([0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0]);
    let mut block = vec![0x82, 0x86];
    for (name, value) in [(1, "a.example"), (4, "/none")] {
        block.extend([0x40 | name, value.len() as u8]);
        block.extend(value.bytes());
    }
    hello.extend([0, 0, block.len() as u8, 1, 5, 0, 0, 0, 1]);
    client.write_all(&[hello, block].concat()).unwrap();
    loop {
        let mut head = [0; 9];
        client.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        client.read_exact(&mut vec![0; length as usize]).unwrap();
        // RST_STREAM and GOAWAY.
        assert!(head[3] != 3 && head[3] != 7, "{head:?}");
        if head[3] <= 1 && head[4] & 1 != 0 {
            return client;
        }
    }
}

/// Bytes of this process that are in no file.
fn held() -> u64 {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
    let number = line.trim().trim_end_matches(" kB");
    number.parse::<u64>().unwrap() * 1024
}

#[test]
fn an_idle_connection_holds_little() {
    let gate = gate();
    let at = free(Transport::Tcp);
    let options = HttpOptions {
        host_selection: HostSelection::FallThrough,
        detect_misdirected: true,
        filters: Vec::new(),
    };
    let world = World::default().listener(Transport::Tcp, at, "http", &[""], ListenerKind::Http(options));
    assert!(gate.apply(world.build()).is_complete());
    let mut open = Vec::new();
    for (name, ask, most) in [("HTTP/1.1", http1 as Ask, 6 * 1024), ("HTTP/2", http2 as Ask, 8 * 1024)] {
        // What is made once is made.
        open.extend((0..20).map(|_| ask(at)));
        let before = held();
        open.extend((0..CONNECTIONS).map(|_| ask(at)));
        sleep(Duration::from_millis(100));
        let each = held().saturating_sub(before) / CONNECTIONS as u64;
        println!("{name}: {each} bytes");
        // Less than one thousand: nothing was weighed.
        assert!((1_000..=most).contains(&each), "{name}: {each} bytes");
    }
}
