//! What a peer must not be able to make us do without end. Each ends in ENHANCE_YOUR_CALM, with little memory held before.
#![allow(clippy::unwrap_used, reason = "a test that finds nothing fails")]

mod support;

use pierhead_http2::{Code, Connection, Error, Event};
use support::*;

/// What is said in a turn, by its number.
type Said<'s> = &'s dyn Fn(u32) -> Vec<u8>;

/// Feeds `input(n)` until it is too much; how many it took.
fn until(mut connection: Connection<()>, error: Error, input: impl Fn(u32) -> Vec<u8>) -> u32 {
    for number in 0..100_000 {
        match feed(&mut connection, &input(number)) {
            Ok(events) => {
                for event in events {
                    if let Event::Gone { stream, .. } = event {
                        connection.forget(stream, Code::CANCEL);
                    }
                }
                // Nobody reads what we answer.
                assert!(connection.output().len() < 300_000, "output is bounded");
            }
            Err(got) => {
                assert_eq!(got, error);
                assert_eq!(error.code(), Code::ENHANCE_YOUR_CALM);
                assert_eq!(goodbyes(&connection), [Code::ENHANCE_YOUR_CALM]);
                return number;
            }
        }
    }
    panic!("never too much");
}

#[test]
fn rapid_reset() {
    // CVE-2023-44487.
    let count = until(server(), Error::ResetFlood, |number| {
        let stream = number * 2 + 1;
        [request(stream, false, &[]), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
    });
    assert!(count <= 200, "{count}");
}

#[test]
fn rapid_reset_after_a_whole_request_is_no_better() {
    let count = until(server(), Error::ResetFlood, |number| {
        let stream = number * 2 + 1;
        [request(stream, true, &[]), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
    });
    assert!(count <= 200, "{count}");
}

#[test]
fn made_you_reset() {
    // CVE-2025-8671: faults that make us end streams.
    let faults: [Said<'_>; 4] = [
        &|stream| frame(WINDOW_UPDATE, 0, stream, &[0; 4]),
        &|stream| frame(WINDOW_UPDATE, 0, stream, &[0x7f, 0xff, 0xff, 0xff]),
        &|stream| frame(PRIORITY, 0, stream, &[0; 4]),
        &|stream| response(stream, false, &[("a", "b")]),
    ];
    for fault in faults {
        let count = until(server(), Error::ResetFlood, |number| {
            let stream = number * 2 + 1;
            [request(stream, false, &[]), fault(stream)].concat()
        });
        assert!(count <= 200, "{count}");
    }
}

#[test]
fn malformed_requests() {
    let count = until(server(), Error::ResetFlood, |number| {
        request(number * 2 + 1, true, &[("connection", "x")])
    });
    assert!(count <= 200, "{count}");
}

#[test]
fn streams_beyond_the_limit() {
    let count = until(server(), Error::ControlFlood, |number| {
        request(number * 2 + 1, false, &[])
    });
    assert!(count <= 3000, "{count}");
}

#[test]
fn frames_that_carry_nothing() {
    let frames: [(&str, Said<'_>); 8] = [
        ("PING", &|_| frame(PING, 0, 0, &[0; 8])),
        ("pong", &|_| frame(PING, ACK, 0, &[0; 8])),
        ("SETTINGS", &|_| frame(SETTINGS, 0, 0, &[])),
        ("PRIORITY", &|_| frame(PRIORITY, 0, 1, &[0; 5])),
        ("WINDOW_UPDATE", &|_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        ("unknown", &|_| frame(99, 0, 0, &[])),
        ("GOAWAY", &|_| frame(GOAWAY, 0, 0, &[0; 8])),
        ("DATA", &|_| frame(DATA, 0, 1, &[])),
    ];
    for (name, input) in frames {
        let mut connection = server();
        feed(&mut connection, &request(1, false, &[])).unwrap();
        clear(&mut connection);
        let count = until(connection, Error::ControlFlood, input);
        assert!(count <= 2100, "{name}: {count}");
    }
}

#[test]
fn late_frames_for_what_was_given_up() {
    let mut connection = server();
    feed(&mut connection, &request(1, false, &[])).unwrap();
    connection.forget(1, Code::CANCEL);
    clear(&mut connection);
    // Their data is given back, so windows do not stop it.
    let count = until(connection, Error::ControlFlood, |_| frame(DATA, 0, 1, &[]));
    assert!(count <= 2100, "{count}");
}

#[test]
fn a_block_that_never_ends() {
    // CVE-2024-27316 and its kin.
    let mut connection = server();
    feed(&mut connection, &frame(HEADERS, 0, 1, &[0x82])).unwrap();
    let count = until(connection, Error::BlockTooLong, |_| {
        frame(CONTINUATION, 0, 1, &[0x82; 1000])
    });
    assert!(count <= 10, "{count}");
    let mut connection = server();
    feed(&mut connection, &frame(HEADERS, 0, 1, &[0x82])).unwrap();
    let count = until(connection, Error::ControlFlood, |_| frame(CONTINUATION, 0, 1, &[]));
    assert!(count <= 2100, "{count}");
}

#[test]
fn interim_responses() {
    let count = until(client(1), Error::ControlFlood, |_| {
        response(1, false, &[(":status", "103")])
    });
    assert!(count <= 2100, "{count}");
}

#[test]
fn work_and_time_make_good() {
    let mut connection = server();
    // A client that gives up half of its streams for ever.
    for number in 0..10_000 {
        let stream = number * 4 + 1;
        let input = [
            request(stream, false, &[]),
            frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]),
            request(stream + 2, true, &[]),
        ];
        feed(&mut connection, &input.concat()).unwrap();
        connection.forget(stream, Code::CANCEL);
        connection.head(stream + 2).unwrap().finish(true);
        connection.forget(stream + 2, Code::CANCEL);
        clear(&mut connection);
    }
    // Pings every now and then.
    for _ in 0..10 {
        for _ in 0..500 {
            feed(&mut connection, &frame(PING, 0, 0, &[0; 8])).unwrap();
        }
        clear(&mut connection);
        connection.pass(1);
    }
}

#[test]
fn a_peer_that_does_not_read_chokes_itself() {
    let mut connection = server();
    let mut fed = 0;
    while !connection.is_choked() {
        // Slowly enough for the budget.
        if fed % 500 == 0 {
            connection.pass(1);
        }
        feed(&mut connection, &frame(PING, 0, 0, &[0; 8])).unwrap();
        fed += 1;
        assert!(fed < 20_000);
    }
    assert!(connection.output().len() < 300_000);
    clear(&mut connection);
    assert!(!connection.is_choked());
}
