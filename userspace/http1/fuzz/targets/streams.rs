//! Any bytes as a stream of requests or as a response: the promises of the codec hold.
#![no_main]

#[path = "../../tests/support/fuzz_body.rs"]
mod fuzz_body;
#[path = "../../tests/support/stream.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod stream;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz_body::run(input));
