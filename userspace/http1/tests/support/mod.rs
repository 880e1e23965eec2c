//! What the integration tests share: one way to run our codec over a whole byte stream.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

pub mod case;
pub mod fuzz_body;
pub mod stream;
