//! Frames by hand.
#![allow(dead_code, reason = "each test file uses some of it")]

use pierhead_http2::{Code, Config, Connection, Encoder, Error, Event, PREFACE, Policy, Role};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;
pub(crate) const PRIORITIZED: u8 = 0x20;

pub(crate) fn config(role: Role) -> Config {
    Config {
        role,
        stream_window: 100_000,
        connection_window: 200_000,
        max_streams: 10,
        max_fields_bytes: 4096,
        connect_protocol: true,
    }
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
    let mut out = vec![a, b, c, kind, flags];
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

/// A block that uses no dynamic table, so that it can be said at any time.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        Encoder::new().field(name.as_bytes(), value.as_bytes(), Policy::Once, &mut out);
    }
    out
}

pub(crate) const POST: [(&str, &str); 4] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "a.test"),
];

pub(crate) fn request(stream: u32, end: bool, more: &[(&str, &str)]) -> Vec<u8> {
    let all: Vec<_> = POST.iter().chain(more).copied().collect();
    let flags = END_HEADERS | u8::from(end);
    frame(HEADERS, flags, stream, &block(&all))
}

pub(crate) fn response(stream: u32, end: bool, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | u8::from(end), stream, &block(fields))
}

/// All events of an input, up to a fault.
pub(crate) fn feed<T: Default>(connection: &mut Connection<T>, input: &[u8]) -> Result<Vec<Event>, Error> {
    let mut events = Vec::new();
    let mut at = 0;
    loop {
        let step = connection.read(&input[at..])?;
        at += step.consumed;
        match step.event {
            Some(Event::Data { stream, bytes, end }) => {
                let start = at - step.consumed;
                events.push(Event::Data {
                    stream,
                    bytes: start + bytes.start..start + bytes.end,
                    end,
                });
            }
            Some(event) => events.push(event),
            None => return Ok(events),
        }
    }
}

pub(crate) fn clear<T: Default>(connection: &mut Connection<T>) {
    let count = connection.output().len();
    connection.sent(count);
}

/// A server that has read the preface.
pub(crate) fn server() -> Connection<()> {
    let mut server = Connection::new(&config(Role::Server));
    let mut hello = PREFACE.to_vec();
    hello.extend(frame(SETTINGS, 0, 0, &[]));
    hello.extend(frame(SETTINGS, ACK, 0, &[]));
    assert_eq!(feed(&mut server, &hello), Ok(vec![Event::Settings]));
    clear(&mut server);
    server
}

/// A client that knows the server's SETTINGS and has opened `streams` with a POST that goes on.
pub(crate) fn client(streams: u32) -> Connection<()> {
    let mut client = Connection::new(&config(Role::Client));
    let mut hello = frame(SETTINGS, 0, 0, &[]);
    hello.extend(frame(SETTINGS, ACK, 0, &[]));
    assert_eq!(feed(&mut client, &hello), Ok(vec![Event::Settings]));
    for number in 0..streams {
        let id = client.open((), false).unwrap();
        assert_eq!(id, number * 2 + 1);
        let mut head = client.head(id).unwrap();
        for (name, value) in POST {
            head.field(name.as_bytes(), value.as_bytes(), Policy::Index);
        }
        head.finish(false);
    }
    clear(&mut client);
    client
}

/// One frame of an output: kind, flags, stream, payload.
pub(crate) type Frame = (u8, u8, u32, Vec<u8>);

pub(crate) fn frames(mut output: &[u8]) -> Vec<Frame> {
    let mut all = Vec::new();
    while let Some((head, rest)) = output.split_first_chunk::<9>() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        all.push((head[3], head[4], stream, rest[..length].to_vec()));
        output = &rest[length..];
    }
    assert!(output.is_empty(), "whole frames");
    all
}

/// The codes of GOAWAY frames in an output.
pub(crate) fn goodbyes<T: Default>(connection: &Connection<T>) -> Vec<Code> {
    let all = frames(connection.output());
    all.iter()
        .filter(|frame| frame.0 == GOAWAY)
        .map(|frame| Code(u32::from_be_bytes(frame.3[4..8].try_into().unwrap())))
        .collect()
}

/// The streams and codes of RST_STREAM frames in an output.
pub(crate) fn resets<T: Default>(connection: &Connection<T>) -> Vec<(u32, Code)> {
    let all = frames(connection.output());
    all.iter()
        .filter(|frame| frame.0 == RST_STREAM)
        .map(|frame| (frame.2, Code(u32::from_be_bytes(frame.3[..].try_into().unwrap()))))
        .collect()
}
