//! Hosts with stacks of their own, and what they say to each other.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "a module of several test files, each of which uses its own part"
)]
#![allow(clippy::unwrap_used, reason = "a test says what failed by panicking")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::support::{enter_netns, ip};

type Job = Box<dyn FnOnce() + Send>;

/// A host: a thread in a network namespace of its own, which does what it is given.
pub struct Host {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    pub tid: String,
}

impl Host {
    pub fn new() -> Self {
        let (jobs, todo) = channel::<Job>();
        let (tell, told) = channel();
        let thread = thread::spawn(move || {
            enter_netns();
            let tid = std::fs::read_link("/proc/thread-self").unwrap();
            tell.send(tid.file_name().unwrap().to_string_lossy().into_owned())
                .unwrap();
            for job in todo {
                job();
            }
        });
        Self {
            jobs: Some(jobs),
            thread: Some(thread),
            tid: told.recv().unwrap(),
        }
    }

    pub fn does<T: Send + 'static>(&self, what: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = channel();
        let job: Job = Box::new(move || {
            let _ = tell.send(what());
        });
        self.jobs.as_ref().unwrap().send(job).unwrap();
        told.recv().expect("the host panicked")
    }

    /// A host at the other end of a veth, `name` here, with the first address of each network here and the given one
    /// there.
    pub fn wired(name: &str, here: [&str; 2], there: [&str; 2], gateway: bool) -> Self {
        let host = Self::new();
        ip(&format!("link add {name} type veth peer name eth0 netns {}", host.tid));
        ip(&format!("link set {name} up"));
        for address in here {
            ip(&format!(
                "addr add {address} dev {name} {}",
                if address.contains(':') { "nodad" } else { "" }
            ));
        }
        let there = there.map(str::to_owned);
        let gateways = here.map(|address| address.split('/').next().unwrap().to_owned());
        host.does(move || {
            ip("link set eth0 up");
            for address in &there {
                ip(&format!(
                    "addr add {address} dev eth0 {}",
                    if address.contains(':') { "nodad" } else { "" }
                ));
            }
            if gateway {
                for via in &gateways {
                    ip(&format!("route add default via {via}"));
                }
            }
        });
        host
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Answers every connection with what it gets, and says who connected.
pub fn tcp_echo(on: &Host, address: &str) {
    let address: SocketAddr = address.parse().unwrap();
    on.does(move || {
        let listener = TcpListener::bind(address).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || {
                    let mut stream = stream;
                    let peer = format!("{}\n", stream.peer_addr().unwrap().ip());
                    stream.write_all(peer.as_bytes()).unwrap();
                    let mut buffer = vec![0; 65_536];
                    while let Ok(n @ 1..) = stream.read(&mut buffer) {
                        if stream.write_all(&buffer[..n]).is_err() {
                            break;
                        }
                    }
                });
            }
        });
    });
}

pub fn udp_echo(on: &Host, address: &str) {
    udp_named(on, address, Vec::new());
}

/// Answers with its name and what it was sent.
pub fn udp_named(on: &Host, address: &str, name: Vec<u8>) {
    let address: SocketAddr = address.parse().unwrap();
    on.does(move || {
        let socket = UdpSocket::bind(address).unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 2_048];
            while let Ok((n, from)) = socket.recv_from(&mut buffer) {
                socket.send_to(&[&name, &buffer[..n]].concat(), from).unwrap();
            }
        });
    });
}

pub fn read_line(stream: &mut TcpStream) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while byte != *b"\n" {
        stream.read_exact(&mut byte).unwrap();
        line.extend(byte);
    }
    String::from_utf8_lossy(&line).trim().to_owned()
}

pub fn dial(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&to, Duration::from_secs(5)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream
}

/// Sends `bytes` bytes and reads them back.
pub fn exchange(stream: &mut TcpStream, bytes: usize) {
    let data: Vec<u8> = (0..bytes).map(|i| (i * 7 % 251) as u8).collect();
    let mut writer = stream.try_clone().unwrap();
    let sent = data.clone();
    let sender = thread::spawn(move || writer.write_all(&sent).unwrap());
    let mut got = vec![0; bytes];
    stream.read_exact(&mut got).unwrap();
    sender.join().unwrap();
    assert!(got == data, "the bytes come back as they were");
}
