//! Backends that speak HTTP/2 and break its rules, each in its own way: the client is told once, the backend is told what was
//! wrong, and nobody else notices.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use pierhead_wire::client::Client;
use pierhead_wire::config::service_speaking;
use pierhead_wire::gate::Mode;
use pierhead_wire::net::{GATE, HOST_A};
use pierhead_wire::street::{HTTP, Street, gateway, route};

/// Kinds of frames, and flags (RFC 9113 §6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Error codes (RFC 9113 §7).
const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const FRAME_SIZE_ERROR: u32 = 6;
const CANCEL: u32 = 8;
const COMPRESSION_ERROR: u32 = 9;
const ENHANCE_YOUR_CALM: u32 = 11;

/// `:status: 200` in the static table (RFC 7541 Appendix A).
const OK: u8 = 0x88;

/// The port of the first backend.
const FIRST: u16 = 7100;

/// The first stream of a connection.
const ONE: u32 = 1;

/// What a backend does when its first connection has its first request. All others it answers as it should.
struct Attack {
    name: &'static str,
    /// The request has a body that the backend never lets come to its end.
    long_request: bool,
    /// Said once.
    says: Vec<u8>,
    /// And then this, over and over, until somebody ends it.
    repeats: Vec<u8>,
    client: Told,
    backend: Heard,
    /// Requests that reach the backend because of one of the client's.
    requests: usize,
}

/// What comes of the client's request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Status(u16),
    /// An answer that had begun and breaks off.
    Cut,
}

/// What a backend hears from the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    Connection,
    Request,
    /// The connection is ended with this code.
    Goodbye(u32),
    /// A stream is ended with this code.
    Reset(u32),
    /// The connection is closed.
    End,
}

impl Attack {
    /// The client is told 502.
    fn new(name: &'static str, says: Vec<u8>, backend: Heard) -> Self {
        Self {
            name,
            long_request: false,
            says,
            repeats: Vec::new(),
            client: Told::Status(502),
            backend,
            requests: 1,
        }
    }

    fn repeating(name: &'static str, says: Vec<u8>, repeats: Vec<u8>, backend: Heard) -> Self {
        Self {
            repeats,
            ..Self::new(name, says, backend)
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
    let [s, t, u, v] = stream.to_be_bytes();
    [&[a, b, c, kind, flags, s, t, u, v][..], payload].concat()
}

/// A field as a literal that goes into no table.
fn field(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[text.len() as u8][..], text.as_bytes()].concat();
    [vec![0], text(name), text(value)].concat()
}

fn head(block: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, ONE, block)
}

fn settings(name: u16, value: u32) -> Vec<u8> {
    let payload = [&name.to_be_bytes()[..], &value.to_be_bytes()].concat();
    frame(SETTINGS, 0, 0, &payload)
}

fn goodbye(last: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[last.to_be_bytes(), [0; 4]].concat())
}

fn answer(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &[OK])
}

/// Ends a connection.
fn floods() -> Vec<Attack> {
    let calm = Heard::Goodbye(ENHANCE_YOUR_CALM);
    let begun = || frame(HEADERS, 0, ONE, &[OK]);
    let repeating = |name, says, repeats| Attack::repeating(name, says, repeats, calm);
    vec![
        repeating(
            "fields without end",
            begun(),
            frame(CONTINUATION, 0, ONE, &field("a", "b").repeat(100)),
        ),
        repeating("empty fields without end", begun(), frame(CONTINUATION, 0, ONE, &[])),
        repeating("resets", Vec::new(), frame(RST_STREAM, 0, ONE, &CANCEL.to_be_bytes())),
        repeating("settings", Vec::new(), frame(SETTINGS, 0, 0, &[])),
        repeating("pings", Vec::new(), frame(PING, 0, 0, &[0; 8])),
        repeating(
            "updates of the window",
            Vec::new(),
            frame(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes()),
        ),
        repeating("kinds that nobody knows", Vec::new(), frame(0xee, 0, 0, &[])),
    ]
}

/// Ends a connection too.
fn faults_of_the_connection() -> Vec<Attack> {
    let fault = |name, says, code| Attack::new(name, says, Heard::Goodbye(code));
    let most = 0x7fff_ffff_u32.to_be_bytes();
    vec![
        fault("HPACK index 0", head(&[0x80]), COMPRESSION_ERROR),
        fault("an HPACK index of no entry", head(&[0xfe]), COMPRESSION_ERROR),
        fault("data of an idle stream", frame(DATA, 0, 3, b"x"), PROTOCOL_ERROR),
        fault("fields of an idle stream", answer(3), PROTOCOL_ERROR),
        fault(
            "a pushed stream",
            frame(PUSH_PROMISE, END_HEADERS, ONE, &[0, 0, 0, 2, 0x82, 0x84]),
            PROTOCOL_ERROR,
        ),
        fault(
            "a window of the connection beyond 2^31-1",
            frame(WINDOW_UPDATE, 0, 0, &most),
            FLOW_CONTROL_ERROR,
        ),
        fault(
            "an initial window beyond 2^31-1",
            settings(4, 1 << 31),
            FLOW_CONTROL_ERROR,
        ),
        fault("frames too small", settings(5, 100), PROTOCOL_ERROR),
        fault("a frame too long", frame(DATA, 0, ONE, &[0; 16_385]), FRAME_SIZE_ERROR),
        fault(
            "data in the middle of fields",
            [frame(HEADERS, 0, ONE, &[OK]), frame(DATA, 0, ONE, b"x")].concat(),
            PROTOCOL_ERROR,
        ),
    ]
}

/// Ends one stream: the connection goes on.
fn faults_of_a_stream() -> Vec<Attack> {
    let fault = |name, says| Attack::new(name, says, Heard::Reset(PROTOCOL_ERROR));
    vec![
        fault("data before the head", frame(DATA, 0, ONE, b"x")),
        fault("no status", head(&field("a", "b"))),
        fault("a status of letters", head(&field(":status", "abc"))),
        fault("a switch of protocols", head(&field(":status", "101"))),
        fault("a name in upper case", head(&[vec![OK], field("A", "b")].concat())),
        fault(
            "a line end in a value",
            head(&[vec![OK], field("a", "b\r\nc: d")].concat()),
        ),
        fault(
            "a field of the connection",
            head(&[vec![OK], field("connection", "a")].concat()),
        ),
        Attack {
            long_request: true,
            backend: Heard::Reset(FLOW_CONTROL_ERROR),
            // Twice, for all of the window may have been used before.
            ..fault(
                "a window of a stream beyond 2^31-1",
                frame(WINDOW_UPDATE, 0, ONE, &0x7fff_ffff_u32.to_be_bytes()).repeat(2),
            )
        },
        Attack {
            client: Told::Cut,
            backend: Heard::Reset(FLOW_CONTROL_ERROR),
            ..Attack::repeating(
                "data beyond its window",
                head(&[OK]),
                frame(DATA, 0, ONE, &[b'x'; 16_384]),
                Heard::End,
            )
        },
    ]
}

/// Ends a connection in order.
fn goodbyes() -> Vec<Attack> {
    let leaves = |name, says, client, requests| Attack {
        client,
        requests,
        ..Attack::new(name, says, Heard::End)
    };
    vec![
        // RFC 9113 §8.7: nothing was done for it, so it is asked again.
        leaves("goodbye before the request", goodbye(0), Told::Status(200), 2),
        leaves(
            "goodbye and an answer",
            [goodbye(1), answer(1)].concat(),
            Told::Status(200),
            1,
        ),
    ]
}

#[test]
fn floods_end_the_connection() -> Result<()> {
    check(&floods())
}

#[test]
fn faults_of_the_connection_end_it() -> Result<()> {
    check(&faults_of_the_connection())
}

#[test]
fn faults_of_a_stream_end_it_alone() -> Result<()> {
    check(&faults_of_a_stream())
}

#[test]
fn a_goodbye_ends_the_connection_in_order() -> Result<()> {
    check(&goodbyes())
}

fn check(attacks: &[Attack]) -> Result<()> {
    let street = Street::new()?;
    let mut routes = vec![route(
        "HTTPRoute",
        "good",
        "  rules: [{backendRefs: [{name: grpc-a, port: 8080}]}]",
    )];
    for (port, _) in (FIRST..).zip(attacks) {
        let name = format!("bad-{port}");
        routes.push(service_speaking(
            &name,
            "TCP",
            Some("kubernetes.io/h2c"),
            port,
            &[HOST_A.v4.into()],
        ));
        let rules = format!(
            "  rules:\n  - matches: [{{path: {{value: /{port}}}}}]\n    backendRefs: [{{name: {name}, port: {port}}}]"
        );
        routes.push(route("HTTPRoute", &name, &rules));
    }
    let files = [("gate.yaml", gateway(&[HTTP])), ("routes.yaml", routes.join("---\n"))];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    // One worker, so that all share its connections and its time.
    let gate = street.gate_with(Mode::Off, &files, &["--workers", "1"])?;
    let bystander = Bystander::start(street.client.clone());
    for (port, attack) in (FIRST..).zip(attacks) {
        one(&street, attack, port).with_context(|| format!("{}\n{}", attack.name, gate.log()))?;
    }
    let count = bystander.stop()?;
    ensure!(count > 0, "nobody else asked anything");
    gate.ready()
}

fn one(street: &Street, attack: &Attack, port: u16) -> Result<()> {
    let (said, heard) = channel();
    let first = Mutex::new(Some((attack.says.clone(), attack.repeats.clone())));
    street.a.raw(SocketAddr::new(HOST_A.v4.into(), port), move |stream| {
        let attack = first.lock().unwrap_or_else(PoisonError::into_inner).take();
        serve(stream, &said, attack)
    })?;
    let target = format!("/{port}");
    let mut client = street.client.h1(GATE.v4_at(80))?;
    client.send(&if attack.long_request {
        let head = format!("POST {target} HTTP/1.1\r\nHost: any.test\r\nContent-Length: 70000\r\n\r\n");
        [head.as_bytes(), &[b'x'; 70_000]].concat()
    } else {
        format!("GET {target} HTTP/1.1\r\nHost: any.test\r\n\r\n").into_bytes()
    })?;
    let mut all = Vec::new();
    let stays = matches!(attack.backend, Heard::Reset(_));
    if attack.backend != Heard::End {
        // A client that has read nothing must not keep the backend from hearing it.
        until(&heard, attack.backend, &mut all)?;
    }
    let answered = client.response("GET");
    let told = answered
        .as_ref()
        .map_or(Told::Cut, |response| Told::Status(response.status));
    ensure!(told == attack.client, "the client was told {answered:?}");
    all.extend(heard.try_iter());
    let count = |all: &[Heard], what| all.iter().filter(|heard| **heard == what).count();
    ensure!(
        count(&all, Heard::Request) == attack.requests,
        "the backend heard {all:?}"
    );

    let next = street.client.get(GATE.v4_at(80), "any.test", &target)?;
    ensure!(next.status == 200, "the next was told {next:?}");
    if attack.backend == Heard::End {
        until(&heard, Heard::End, &mut all)?;
    }
    all.extend(heard.try_iter());
    ensure!(
        count(&all, Heard::Request) == attack.requests + 1
            && count(&all, Heard::Connection) == if stays { 1 } else { 2 },
        "in all, the backend heard {all:?}"
    );
    Ok(())
}

/// Notes all that is heard up to and with this.
fn until(heard: &Receiver<Heard>, wanted: Heard, all: &mut Vec<Heard>) -> Result<()> {
    while !all.contains(&wanted) {
        let next = heard.recv_timeout(Duration::from_secs(10));
        all.push(next.with_context(|| format!("the backend heard {all:?}, and not {wanted:?}"))?);
    }
    Ok(())
}

/// One connection of a backend, with what it says when the first request has come.
fn serve(mut stream: TcpStream, said: &Sender<Heard>, mut attack: Option<(Vec<u8>, Vec<u8>)>) -> Result<()> {
    said.send(Heard::Connection)?;
    stream.write_all(&frame(SETTINGS, 0, 0, &[]))?;
    let mut preface = [0; 24];
    stream.read_exact(&mut preface)?;
    let output = Arc::new(Mutex::new(stream.try_clone()?));
    let ended = Arc::new(AtomicBool::new(false));
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).is_err() {
            ended.store(true, Ordering::Relaxed);
            return Ok(said.send(Heard::End)?);
        }
        let [_, a, b, kind, flags, id @ ..] = head;
        let mut payload = vec![0; usize::from(u16::from_be_bytes([a, b]))];
        stream.read_exact(&mut payload)?;
        match kind {
            SETTINGS if flags & ACK == 0 => say(&output, &frame(SETTINGS, ACK, 0, &[]))?,
            HEADERS => {
                said.send(Heard::Request)?;
                match attack.take() {
                    Some((says, repeats)) => {
                        let (output, ended) = (Arc::clone(&output), Arc::clone(&ended));
                        thread::spawn(move || {
                            let mut next = say(&output, &says);
                            while next.is_ok() && !repeats.is_empty() && !ended.load(Ordering::Relaxed) {
                                next = say(&output, &repeats);
                            }
                        });
                    }
                    None => say(&output, &answer(u32::from_be_bytes(id)))?,
                }
            }
            RST_STREAM | GOAWAY => {
                ended.store(true, Ordering::Relaxed);
                let code = payload.last_chunk().map_or(u32::MAX, |code| u32::from_be_bytes(*code));
                said.send(if kind == GOAWAY {
                    Heard::Goodbye(code)
                } else {
                    Heard::Reset(code)
                })?;
            }
            _ => {}
        }
    }
}

/// Whole frames, whoever says them.
fn say(output: &Mutex<TcpStream>, frames: &[u8]) -> Result<()> {
    let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(output.write_all(frames)?)
}

/// Somebody who asks a good backend all the time.
struct Bystander {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Result<u32>>,
}

impl Bystander {
    fn start(client: Client) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut client = client.h1(GATE.v4_at(80))?;
            let mut count = 0;
            while !until.load(Ordering::Relaxed) {
                let response = client.get("any.test", "/good")?;
                ensure!(response.status == 200, "a bystander was told {response:?}");
                count += 1;
                thread::sleep(Duration::from_millis(2));
            }
            Ok(count)
        });
        Self { stop, thread }
    }

    /// How many answers it got; fails if one was not good.
    fn stop(self) -> Result<u32> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(count) => count,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}
