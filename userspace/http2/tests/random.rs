//! Whatever comes, nothing panics, nothing grows without bound, and it does not matter where the input was cut.
#![allow(clippy::unwrap_used, reason = "a test that finds nothing fails")]

mod support;

use pierhead_http2::{Code, Connection, Error, Event};
use proptest::prelude::*;
use support::*;

/// Frames that are mostly right.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let stream = prop_oneof![4 => (0..12u32).prop_map(|number| number * 2 + 1), 1 => 0..20u32];
    let payload = proptest::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        4 => (stream.clone(), any::<bool>()).prop_map(|(stream, end)| request(stream, end, &[("a", "b")])),
        2 => (stream.clone(), any::<bool>()).prop_map(|(stream, end)| response(stream, end, &[(":status", "200")])),
        2 => stream.clone().prop_map(|stream| response(stream, true, &[("t", "u")])),
        4 => (stream.clone(), payload.clone(), any::<bool>())
            .prop_map(|(stream, payload, end)| frame(DATA, u8::from(end), stream, &payload)),
        1 => (stream.clone(), 0..20u32).prop_map(|(stream, code)| frame(RST_STREAM, 0, stream, &code.to_be_bytes())),
        1 => (stream.clone(), any::<u32>()).prop_map(|(stream, count)| frame(WINDOW_UPDATE, 0, stream, &(count >> 8).to_be_bytes())),
        1 => (0..10u8, any::<u32>()).prop_map(|(name, value)| {
            let mut payload = vec![0, name];
            payload.extend(value.to_be_bytes());
            frame(SETTINGS, 0, 0, &payload)
        }),
        1 => Just(frame(PING, 0, 0, &[9; 8])),
        2 => (0..12u8, any::<u8>(), stream, payload).prop_map(|(kind, flags, stream, payload)| frame(kind, flags, stream, &payload)),
        1 => proptest::collection::vec(any::<u8>(), 0..60),
    ]
}

/// Events with neighbouring data joined, for where data is cut is where input is cut; and how it ended.
fn told(connection: &mut Connection<()>, input: &[u8], cuts: &[usize]) -> (Vec<String>, Option<Error>) {
    let mut all: Vec<String> = Vec::new();
    let mut pending = Vec::new();
    let mut at = 0;
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (input.len() + 1)).collect();
    ends.push(input.len());
    ends.sort_unstable();
    let mut last: Option<(u32, Vec<u8>)> = None;
    for end in ends {
        pending.extend_from_slice(&input[at..end]);
        at = end;
        loop {
            let step = match connection.read(&pending) {
                Ok(step) => step,
                Err(error) => {
                    all.extend(last.map(|last| format!("{last:?}")));
                    return (all, Some(error));
                }
            };
            assert!(step.consumed <= pending.len());
            match &step.event {
                Some(Event::Data { stream, bytes, end }) => {
                    let data = &pending[bytes.clone()];
                    match &mut last {
                        Some((of, before)) if of == stream => before.extend_from_slice(data),
                        last => {
                            all.extend(last.take().map(|last| format!("{last:?}")));
                            *last = Some((*stream, data.to_vec()));
                        }
                    }
                    connection.consumed(*stream, bytes.len());
                    if *end {
                        all.extend(last.take().map(|last| format!("{last:?} end")));
                    }
                }
                Some(event) => {
                    all.extend(last.take().map(|last| format!("{last:?}")));
                    all.push(format!("{event:?}"));
                }
                None => {}
            }
            pending.drain(..step.consumed);
            if step.event.is_none() {
                break;
            }
        }
    }
    all.extend(last.map(|last| format!("{last:?}")));
    (all, None)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_panics_and_cuts_do_not_matter(
        pieces in proptest::collection::vec(piece(), 0..40),
        cuts in proptest::collection::vec(any::<usize>(), 0..30),
        as_client in any::<bool>(),
    ) {
        let input = pieces.concat();
        let fresh = || if as_client { client(4) } else { server() };
        let mut whole = fresh();
        let one = told(&mut whole, &input, &[]);
        let other = told(&mut fresh(), &input, &cuts);
        prop_assert_eq!(one, other);
        prop_assert!(whole.output().len() <= 64 + input.len() * 4);
        prop_assert!(whole.open_streams() <= 10);
        let mut ids = Vec::new();
        whole.for_each(|id, ()| ids.push(id));
        for id in ids {
            whole.data(id, b"x");
            whole.end(id);
            whole.forget(id, Code::CANCEL);
        }
        prop_assert_eq!(whole.open_streams(), 0);
        // What was said are whole frames.
        frames(whole.output());
    }
}
