//! Waiting for something to become true, with a deadline instead of a sleep.

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const STEP: Duration = Duration::from_millis(10);

/// How long anything may take to become true, unless a test says otherwise.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Tries until it succeeds; the last error when it never does.
pub fn eventually<T>(what: impl Display, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= deadline => bail!("{what}: not within {PATIENCE:?}: {error:#}"),
            Err(_) => std::thread::sleep(STEP),
        }
    }
}
