//! Every rule of RFC 9113 whose breach has a code: the connection's, then a stream's; then what must be taken.
#![allow(clippy::unwrap_used, reason = "a test that finds nothing fails")]

mod support;

use pierhead_http2::{Code, Connection, Error, Event, PREFACE, Policy, Role};
use support::*;

fn breaks(name: &str, mut connection: Connection<()>, input: &[u8], error: Error) {
    let got = feed(&mut connection, input);
    assert_eq!(got.map(|events| format!("{events:?}")), Err(error), "{name}");
    assert_eq!(goodbyes(&connection), [error.code()], "{name}");
    assert!(!connection.can_open(), "{name}");
}

fn setting(name: u16, value: u32) -> Vec<u8> {
    let mut payload = name.to_be_bytes().to_vec();
    payload.extend(value.to_be_bytes());
    frame(SETTINGS, 0, 0, &payload)
}

fn two(mut one: Vec<u8>, other: Vec<u8>) -> Vec<u8> {
    one.extend(other);
    one
}

#[test]
fn a_server_ends_connections_that_break_its_rules() {
    let get = || request(1, false, &[]);
    let table: Vec<(&str, Vec<u8>, Error)> = vec![
        ("DATA on 0", frame(DATA, 0, 0, b"x"), Error::NoStream),
        (
            "HEADERS on 0",
            frame(HEADERS, END_HEADERS, 0, &block(&POST)),
            Error::NoStream,
        ),
        ("PRIORITY on 0", frame(PRIORITY, 0, 0, &[0; 5]), Error::NoStream),
        ("RST_STREAM on 0", frame(RST_STREAM, 0, 0, &[0; 4]), Error::NoStream),
        ("CONTINUATION on 0", frame(CONTINUATION, 0, 0, &[]), Error::Continuation),
        ("SETTINGS on 1", frame(SETTINGS, 0, 1, &[]), Error::OnStream),
        ("PING on 1", frame(PING, 0, 1, &[0; 8]), Error::OnStream),
        ("GOAWAY on 1", frame(GOAWAY, 0, 1, &[0; 8]), Error::OnStream),
        ("DATA idle", frame(DATA, 0, 1, b"x"), Error::IdleStream),
        ("RST_STREAM idle", frame(RST_STREAM, 0, 1, &[0; 4]), Error::IdleStream),
        (
            "WINDOW_UPDATE idle",
            frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
            Error::IdleStream,
        ),
        ("even stream", request(2, true, &[]), Error::StreamNumber),
        (
            "PUSH_PROMISE",
            frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]),
            Error::Push,
        ),
        ("long frame", frame(PING, 0, 0, &[0; 16_385]), Error::FrameTooLong),
        (
            "long DATA",
            two(get(), frame(DATA, 0, 1, &[0; 16_385])),
            Error::FrameTooLong,
        ),
        ("short PING", frame(PING, 0, 0, &[0; 7]), Error::FrameLength),
        ("SETTINGS of 5", frame(SETTINGS, 0, 0, &[0; 5]), Error::FrameLength),
        (
            "ack with settings",
            frame(SETTINGS, ACK, 0, &[0; 6]),
            Error::FrameLength,
        ),
        ("ack of nothing", frame(SETTINGS, ACK, 0, &[]), Error::Ack),
        (
            "short RST_STREAM",
            two(get(), frame(RST_STREAM, 0, 1, &[0; 3])),
            Error::FrameLength,
        ),
        (
            "short WINDOW_UPDATE",
            frame(WINDOW_UPDATE, 0, 0, &[0; 3]),
            Error::FrameLength,
        ),
        ("short GOAWAY", frame(GOAWAY, 0, 0, &[0; 7]), Error::FrameLength),
        ("short PRIORITY", frame(PRIORITY, 0, 1, &[0; 4]), Error::FrameLength),
        (
            "short prioritised HEADERS",
            frame(HEADERS, END_HEADERS | PRIORITIZED, 1, &[0; 4]),
            Error::FrameLength,
        ),
        (
            "padding as long as DATA",
            two(get(), frame(DATA, PADDED, 1, &[1])),
            Error::Padding,
        ),
        (
            "no padding length",
            two(get(), frame(DATA, PADDED, 1, &[])),
            Error::Padding,
        ),
        (
            "padding of HEADERS",
            frame(HEADERS, END_HEADERS | PADDED, 1, &[5, 0, 0]),
            Error::Padding,
        ),
        (
            "no padding length of HEADERS",
            frame(HEADERS, END_HEADERS | PADDED, 1, &[]),
            Error::Padding,
        ),
    ];
    for (name, input, error) in table {
        breaks(name, server(), &input, error);
    }
}

#[test]
fn a_server_ends_connections_whose_settings_windows_or_blocks_are_wrong() {
    let get = || request(1, false, &[]);
    let ended = || request(1, true, &[]);
    let table: Vec<(&str, Vec<u8>, Error)> = vec![
        ("ENABLE_PUSH 2", setting(2, 2), Error::Setting),
        ("INITIAL_WINDOW_SIZE", setting(4, 1 << 31), Error::InitialWindow),
        ("MAX_FRAME_SIZE small", setting(5, 16_383), Error::Setting),
        ("MAX_FRAME_SIZE large", setting(5, 1 << 24), Error::Setting),
        ("ENABLE_CONNECT_PROTOCOL 2", setting(8, 2), Error::Setting),
        ("zero update", frame(WINDOW_UPDATE, 0, 0, &[0; 4]), Error::ZeroUpdate),
        (
            "window overflow",
            frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
            Error::WindowOverflow,
        ),
        (
            "CONTINUATION alone",
            two(get(), frame(CONTINUATION, END_HEADERS, 1, &[])),
            Error::Continuation,
        ),
        (
            "interrupted block",
            two(frame(HEADERS, 0, 1, &block(&POST)), frame(PING, 0, 0, &[0; 8])),
            Error::Continuation,
        ),
        (
            "block continued on another stream",
            two(
                frame(HEADERS, 0, 1, &block(&POST)),
                frame(CONTINUATION, END_HEADERS, 3, &[]),
            ),
            Error::Continuation,
        ),
        (
            "block with an unknown frame inside",
            two(frame(HEADERS, 0, 1, &block(&POST)), frame(200, 0, 0, &[])),
            Error::Continuation,
        ),
        (
            "malformed block",
            frame(HEADERS, END_HEADERS, 1, &[0x80]),
            Error::Hpack(pierhead_http2::HpackError::Index),
        ),
        (
            "HEADERS for a stream that was skipped",
            two(request(3, true, &[]), request(1, true, &[])),
            Error::ClosedStream,
        ),
        (
            "PRIORITY on itself, idle",
            frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 0]),
            Error::SelfDependency,
        ),
        (
            "windows of streams overflow with the setting",
            [
                ended(),
                frame(WINDOW_UPDATE, 0, 1, &[0x7f, 0xff, 0, 0]),
                setting(4, 0x7fff_ffff),
            ]
            .concat(),
            Error::InitialWindow,
        ),
    ];
    for (name, input, error) in table {
        breaks(name, server(), &input, error);
    }
}

#[test]
fn a_connection_begins_with_the_preface_and_settings() {
    let fresh = || Connection::<()>::new(&config(Role::Server));
    breaks("HTTP/1", fresh(), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", Error::Preface);
    breaks("nearly", fresh(), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r ", Error::Preface);
    let first = two(PREFACE.to_vec(), frame(PING, 0, 0, &[0; 8]));
    breaks("PING first", fresh(), &first, Error::NoSettings);
    let ack = two(PREFACE.to_vec(), frame(SETTINGS, ACK, 0, &[]));
    breaks("an ack first", fresh(), &ack, Error::NoSettings);
    let mut client = Connection::<()>::new(&config(Role::Client));
    clear(&mut client);
    breaks(
        "HTTP/1 server",
        client,
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        Error::NoSettings,
    );
    // What we say first ourselves.
    let server = frames(fresh().output());
    assert_eq!((server[0].0, server[1].0), (SETTINGS, WINDOW_UPDATE));
    assert_eq!(server[1].3, (200_000u32 - 65_535).to_be_bytes());
    let client = Connection::<()>::new(&config(Role::Client));
    let said = client.output().strip_prefix(PREFACE).unwrap();
    // No push.
    assert_eq!(frames(said)[0].3[..6], [0, 2, 0, 0, 0, 0]);
}

#[test]
fn a_client_ends_connections_that_break_its_rules() {
    let ok = [(":status", "200")];
    let table = [
        ("push", frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]), Error::Push),
        ("ENABLE_PUSH from a server", setting(2, 1), Error::Setting),
        ("a response nobody asked for", response(3, true, &ok), Error::IdleStream),
        ("an even stream", response(2, true, &ok), Error::StreamNumber),
        (
            "DATA of a stream nobody opened",
            frame(DATA, 0, 5, b"x"),
            Error::IdleStream,
        ),
    ];
    for (name, input, error) in table {
        breaks(name, client(1), &input, error);
    }
}

fn ends(name: &str, mut connection: Connection<()>, input: &[u8], error: Error) {
    let events = feed(&mut connection, input).unwrap_or_else(|fault| panic!("{name}: {fault}"));
    let gone = Event::Gone {
        stream: 1,
        code: error.code(),
        by_peer: false,
    };
    let new = !events.iter().any(|event| matches!(event, Event::Request { .. }));
    let told = events.contains(&gone);
    assert!(told || (new && connection.stream(1).is_none()), "{name}: {events:?}");
    assert_eq!(resets(&connection), [(1, error.code())], "{name}");
    assert!(goodbyes(&connection).is_empty(), "{name}");
    // The connection lives on.
    if connection.stream(3).is_none() {
        assert_eq!(feed(&mut connection, &frame(PING, 0, 0, &[7; 8])), Ok(vec![]), "{name}");
    }
    assert_eq!(frames(connection.output()).last().unwrap().3, [7; 8], "{name}");
}

#[test]
fn a_server_ends_streams_that_break_their_rules() {
    let open = || request(1, false, &[]);
    let with_length = |length| request(1, false, &[("content-length", length)]);
    let table: Vec<(&str, Vec<u8>, Error)> = vec![
        (
            "upper case",
            frame(
                HEADERS,
                END_HEADERS,
                1,
                &block(&[POST[0], POST[1], POST[2], ("X", "y")]),
            ),
            Error::FieldName,
        ),
        (
            "no path",
            frame(HEADERS, END_HEADERS, 1, &block(&POST[..2])),
            Error::PseudoField,
        ),
        (
            "connection field",
            request(1, true, &[("connection", "close")]),
            Error::ConnectionField,
        ),
        ("te", request(1, true, &[("te", "gzip")]), Error::ConnectionField),
        ("newline", request(1, true, &[("a", "b\r\nc: d")]), Error::FieldValue),
        (
            "late pseudo field",
            request(1, true, &[("a", "b"), (":path", "/")]),
            Error::PseudoField,
        ),
        (
            "length and no body",
            request(1, true, &[("content-length", "1")]),
            Error::LengthMismatch,
        ),
        (
            "two lengths",
            request(1, false, &[("content-length", "1"), ("content-length", "2")]),
            Error::ContentLength,
        ),
        (
            "too much data",
            two(with_length("2"), frame(DATA, 0, 1, b"abc")),
            Error::LengthMismatch,
        ),
        (
            "too little data",
            two(with_length("4"), frame(DATA, END_STREAM, 1, b"abc")),
            Error::LengthMismatch,
        ),
        (
            "too little data before trailers",
            [
                with_length("4"),
                frame(DATA, 0, 1, b"abc"),
                response(1, true, &[("a", "b")]),
            ]
            .concat(),
            Error::LengthMismatch,
        ),
        (
            "trailers that do not end",
            two(open(), response(1, false, &[("a", "b")])),
            Error::TrailersNotLast,
        ),
        (
            "pseudo fields in trailers",
            two(open(), response(1, true, &[(":path", "/")])),
            Error::PseudoField,
        ),
        (
            "DATA after the end",
            two(request(1, true, &[]), frame(DATA, 0, 1, b"x")),
            Error::ClosedStream,
        ),
        (
            "HEADERS after the end",
            two(request(1, true, &[]), response(1, true, &[("a", "b")])),
            Error::ClosedStream,
        ),
        (
            "zero update",
            two(open(), frame(WINDOW_UPDATE, 0, 1, &[0; 4])),
            Error::ZeroUpdate,
        ),
        (
            "window overflow",
            two(open(), frame(WINDOW_UPDATE, 0, 1, &[0x7f, 0xff, 0xff, 0xff])),
            Error::WindowOverflow,
        ),
        (
            "short PRIORITY",
            two(open(), frame(PRIORITY, 0, 1, &[0; 4])),
            Error::FrameLength,
        ),
        (
            "PRIORITY on itself",
            two(open(), frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 0])),
            Error::SelfDependency,
        ),
        (
            "HEADERS that depend on themselves",
            frame(
                HEADERS,
                END_HEADERS | PRIORITIZED,
                1,
                &[&[0, 0, 0, 1, 0][..], &block(&POST)].concat(),
            ),
            Error::SelfDependency,
        ),
        (
            "more data than the window",
            [open(), vec![frame(DATA, 0, 1, &[0; 16_384]); 7].concat()].concat(),
            Error::WindowExceeded,
        ),
    ];
    for (name, input, error) in table {
        ends(name, server(), &input, error);
    }
}

#[test]
fn a_client_ends_streams_that_break_their_rules() {
    let ok = || response(1, false, &[(":status", "200")]);
    let table = [
        ("no status", response(1, true, &[("a", "b")]), Error::PseudoField),
        ("DATA before a head", frame(DATA, 0, 1, b"x"), Error::LengthMismatch),
        (
            "an interim response that ends",
            response(1, true, &[(":status", "103")]),
            Error::PseudoField,
        ),
        (
            "switching protocols",
            response(1, false, &[(":status", "101")]),
            Error::PseudoField,
        ),
        (
            "length and no body",
            response(1, true, &[(":status", "200"), ("content-length", "3")]),
            Error::LengthMismatch,
        ),
        (
            "too many fields",
            response(1, true, &[(":status", "200"), ("big", &"x".repeat(5000))]),
            Error::FieldsTooLarge,
        ),
        (
            "two heads",
            two(ok(), response(1, false, &[(":status", "200")])),
            Error::TrailersNotLast,
        ),
    ];
    for (name, input, error) in table {
        ends(name, client(1), &input, error);
    }
}

#[test]
fn the_windows_of_the_connection_bound_all_streams() {
    // 200,000 for the connection, 100,000 for each stream.
    let mut connection = server();
    let mut input = [request(1, false, &[]), request(3, false, &[]), request(5, false, &[])].concat();
    for stream in [1, 3, 5] {
        for _ in 0..6 {
            input.extend(frame(DATA, 0, stream, &[0; 16_384]));
        }
    }
    breaks("connection window", server(), &input, Error::WindowExceeded);
    // Consumed data is given back, in large pieces.
    let half = [
        request(1, false, &[]),
        vec![frame(DATA, 0, 1, &[0; 16_384]); 6].concat(),
    ]
    .concat();
    feed(&mut connection, &half).unwrap();
    assert!(!connection.consumed(1, 10_000));
    assert!(connection.output().is_empty());
    assert!(connection.consumed(1, 50_000));
    let updates = frames(connection.output());
    assert_eq!(updates, [(WINDOW_UPDATE, 0, 1, 60_000u32.to_be_bytes().to_vec())]);
    clear(&mut connection);
    // What is forgotten is given back to the connection.
    connection.forget(1, Code::CANCEL);
    let last = frames(connection.output()).pop();
    assert_eq!(last, Some((RST_STREAM, 0, 1, vec![0, 0, 0, 8])));
    let more = [request(3, false, &[]), frame(DATA, 0, 3, &[0; 10_000])].concat();
    feed(&mut connection, &more).unwrap();
    clear(&mut connection);
    connection.consumed(3, 10_000);
    assert_eq!(frames(connection.output())[0].2, 0, "the connection's window");
}

#[test]
fn padding_counts_against_windows_and_is_given_back() {
    let mut connection = server();
    feed(&mut connection, &request(1, false, &[])).unwrap();
    let mut payload = vec![200];
    payload.extend(b"hello");
    payload.extend([0; 200]);
    let mut whole = frame(DATA, PADDED, 1, &payload);
    for _ in 0..2000 {
        // 412 kB of padding would not fit in the windows.
        let events = feed(&mut connection, &whole).unwrap();
        assert_eq!(
            events,
            [Event::Data {
                stream: 1,
                bytes: 10..15,
                end: false
            }]
        );
        connection.consumed(1, 5);
        clear(&mut connection);
    }
    whole[4] |= END_STREAM;
    let events = feed(&mut connection, &whole).unwrap();
    assert!(matches!(events[..], [Event::Data { end: true, .. }]));
}

#[test]
fn data_comes_as_it_arrives_and_frames_may_be_cut_anywhere() {
    let input = [
        request(1, false, &[("x", "y")]),
        frame(DATA, PADDED, 1, b"\x03hello\0\0\0"),
        frame(DATA, 0, 1, b" world"),
        frame(PING, 0, 0, &[1; 8]),
        response(1, true, &[("sum", "1")]),
    ]
    .concat();
    let mut connection = server();
    let (mut body, mut trailers, mut pending) = (Vec::new(), false, Vec::new());
    for byte in input {
        pending.push(byte);
        loop {
            let step = connection.read(&pending).unwrap();
            if let Some(Event::Data { bytes, .. }) = &step.event {
                body.extend_from_slice(&pending[bytes.clone()]);
            }
            trailers |= step.event == Some(Event::Trailers { stream: 1 });
            pending.drain(..step.consumed);
            if step.event.is_none() {
                break;
            }
        }
    }
    assert_eq!((body.as_slice(), trailers), (&b"hello world"[..], true));
    assert!(connection.fields().all().eq([(&b"sum"[..], &b"1"[..])]));
}

#[test]
fn what_we_gave_up_may_still_be_spoken_to() {
    let mut connection = server();
    feed(&mut connection, &request(1, false, &[])).unwrap();
    connection.forget(1, Code::NO_ERROR);
    assert_eq!(resets(&connection), [(1, Code::NO_ERROR)]);
    clear(&mut connection);
    let late = [
        frame(DATA, 0, 1, &[0; 1000]),
        frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
        response(1, true, &[("a", "b")]),
        frame(RST_STREAM, 0, 1, &[0; 4]),
    ];
    assert_eq!(feed(&mut connection, &late.concat()), Ok(vec![]));
    assert!(connection.output().is_empty());
    // A stream that ended in order is another matter.
    let ended = || {
        let mut connection = server();
        feed(&mut connection, &request(1, true, &[])).unwrap();
        connection.head(1).unwrap().finish(true);
        connection.forget(1, Code::CANCEL);
        clear(&mut connection);
        connection
    };
    let mut connection = ended();
    assert_eq!(feed(&mut connection, &frame(DATA, 0, 1, b"x")), Ok(vec![]));
    assert_eq!(resets(&connection), [(1, Code::STREAM_CLOSED)]);
    breaks("HEADERS", ended(), &request(1, true, &[]), Error::ClosedStream);
}

#[test]
fn more_streams_than_granted_are_refused() {
    let mut connection = server();
    for number in 0..10 {
        let events = feed(&mut connection, &request(number * 2 + 1, false, &[])).unwrap();
        assert_eq!(events.len(), 1);
    }
    assert_eq!(connection.open_streams(), 10);
    assert_eq!(feed(&mut connection, &request(21, false, &[])), Ok(vec![]));
    assert_eq!(resets(&connection), [(21, Code::REFUSED_STREAM)]);
    connection.forget(1, Code::CANCEL);
    assert_eq!(feed(&mut connection, &request(23, false, &[])).unwrap().len(), 1);
}

#[test]
fn a_request_that_is_too_large_is_told_and_the_tables_stay_equal() {
    let mut connection = server();
    let large = request(1, true, &[("big", &"x".repeat(5000))]);
    assert_eq!(
        feed(&mut connection, &large),
        Ok(vec![Event::Request { stream: 1, end: true }])
    );
    assert!(connection.fields().is_over());
    feed(&mut connection, &request(3, true, &[])).unwrap();
    assert!(!connection.fields().is_over());
}

#[test]
fn a_client_keeps_to_what_the_server_grants() {
    let mut connection = Connection::<()>::new(&config(Role::Client));
    assert!(connection.open((), false).is_none(), "before SETTINGS");
    clear(&mut connection);
    feed(&mut connection, &[setting(3, 1), setting(4, 10)].concat()).unwrap();
    let id = connection.open((), false).unwrap();
    assert!(connection.open((), false).is_none(), "one stream");
    connection.head(id).unwrap().finish(false);
    clear(&mut connection);
    assert_eq!(connection.data(id, &[0; 100]), 10);
    assert_eq!(connection.data(id, &[0; 90]), 0);
    // The initial window grows, then shrinks below what was sent.
    feed(&mut connection, &setting(4, 15)).unwrap();
    assert_eq!(connection.data(id, &[0; 90]), 5);
    feed(&mut connection, &setting(4, 0)).unwrap();
    feed(&mut connection, &frame(WINDOW_UPDATE, 0, id, &[0, 0, 0, 15])).unwrap();
    assert_eq!(connection.data(id, b"x"), 0);
    feed(&mut connection, &frame(WINDOW_UPDATE, 0, id, &[0, 0, 0, 1])).unwrap();
    assert_eq!(connection.data(id, b"xx"), 1);
    // The connection's window is another.
    feed(&mut connection, &[setting(4, 0x7fff_ff00), setting(3, 5)].concat()).unwrap();
    clear(&mut connection);
    let mut sent = 16;
    loop {
        let count = connection.data(id, &[0; 10_000]);
        clear(&mut connection);
        if count == 0 {
            break;
        }
        sent += count;
    }
    assert_eq!(sent, 65_535);
}

#[test]
fn data_of_one_stream_becomes_one_frame_and_the_end_a_flag() {
    let mut connection = client(2);
    assert_eq!(connection.data(1, b"hello "), 6);
    assert_eq!(connection.data(1, b"world"), 5);
    connection.end(1);
    assert_eq!(
        frames(connection.output()),
        [(DATA, END_STREAM, 1, b"hello world".to_vec())]
    );
    // Not when it has left, nor when another came between.
    clear(&mut connection);
    connection.data(3, b"a");
    connection.sent(5);
    connection.data(3, b"b");
    connection.sent(5);
    assert_eq!(frames(connection.output()), [(DATA, 0, 3, b"b".to_vec())]);
    connection.ping();
    connection.end(3);
    assert_eq!(connection.open_streams(), 2, "the answers are still to come");
    let kinds: Vec<u8> = frames(connection.output()).iter().map(|frame| frame.0).collect();
    assert_eq!(kinds, [DATA, PING, DATA]);
    assert!(connection.head(3).is_none() && connection.data(3, b"x") == 0);
}

#[test]
fn a_long_head_is_continued() {
    let mut connection = client(0);
    let id = connection.open((), false).unwrap();
    let mut head = connection.head(id).unwrap();
    let long = "x".repeat(40_000);
    head.field(b"long", long.as_bytes(), Policy::Once);
    head.finish(true);
    let all = frames(connection.output());
    let kinds: Vec<_> = all.iter().map(|frame| (frame.0, frame.1)).collect();
    assert_eq!(
        kinds,
        [(HEADERS, END_STREAM), (CONTINUATION, 0), (CONTINUATION, END_HEADERS)]
    );
}

#[test]
fn leaving_is_said_twice_and_what_was_on_its_way_is_served() {
    let mut connection = server();
    feed(&mut connection, &request(1, true, &[])).unwrap();
    connection.leave();
    let said = frames(connection.output());
    assert_eq!((said[0].0, &said[0].3[..4]), (GOAWAY, &[0x7f, 0xff, 0xff, 0xff][..]));
    assert_eq!(said[1].0, PING);
    let pong = frame(PING, ACK, 0, &said[1].3);
    clear(&mut connection);
    // On its way when the warning was said.
    assert_eq!(feed(&mut connection, &request(3, true, &[])).unwrap().len(), 1);
    assert_eq!(feed(&mut connection, &pong), Ok(vec![Event::Pong]));
    assert_eq!(frames(connection.output())[0].3[..4], [0, 0, 0, 3]);
    assert!(!connection.is_finished());
    assert_eq!(feed(&mut connection, &request(5, true, &[])), Ok(vec![]));
    for id in [1, 3] {
        connection.head(id).unwrap().finish(true);
        connection.forget(id, Code::CANCEL);
    }
    assert!(connection.is_finished());
}

#[test]
fn a_goodbye_names_the_streams_that_were_not_begun() {
    let mut connection = client(3);
    let goodbye = frame(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]);
    let event = Event::GoAway {
        last: 1,
        code: Code::NO_ERROR,
    };
    assert_eq!(feed(&mut connection, &goodbye), Ok(vec![event]));
    let mut above = Vec::new();
    connection.close_above(1, |id, ()| above.push(id));
    assert_eq!(above, [3, 5]);
    assert!(connection.is_closing() && connection.open((), false).is_none());
    let ok = response(1, true, &[(":status", "200")]);
    assert_eq!(feed(&mut connection, &ok).unwrap().len(), 1);
}

#[test]
fn interim_responses_come_before_the_final_one() {
    let mut connection = client(1);
    let input = [
        response(1, false, &[(":status", "103"), ("link", "</a>")]),
        response(1, false, &[(":status", "200")]),
        frame(DATA, END_STREAM, 1, b"x"),
    ];
    let events = feed(&mut connection, &input.concat()).unwrap();
    let heads: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Response { status, .. } => Some(*status),
            _ => None,
        })
        .collect();
    assert_eq!(heads, [103, 200]);
}

#[test]
fn an_answer_to_head_and_204_and_304_may_state_a_length() {
    let length = ("content-length", "5");
    for status in ["204", "304"] {
        let mut connection = client(1);
        let input = response(1, true, &[(":status", status), length]);
        assert!(matches!(
            feed(&mut connection, &input).unwrap()[..],
            [Event::Response { end: true, .. }]
        ));
    }
    let mut connection = client(0);
    let id = connection.open((), true).unwrap();
    connection.head(id).unwrap().finish(true);
    let input = response(1, true, &[(":status", "200"), length]);
    assert!(matches!(
        feed(&mut connection, &input).unwrap()[..],
        [Event::Response { end: true, .. }]
    ));
}

#[test]
fn unknown_frames_settings_and_pings_of_others_are_ignored() {
    let mut connection = server();
    let input = [
        frame(200, 0xff, 77, &[1; 1000]),
        setting(77, 77),
        frame(PING, ACK, 0, b"whatever"),
        frame(PRIORITY, 0, 99, &[0, 0, 0, 1, 0]),
        request(1, true, &[]),
    ];
    let events = feed(&mut connection, &input.concat()).unwrap();
    assert_eq!(events, [Event::Settings, Event::Request { stream: 1, end: true }]);
}
