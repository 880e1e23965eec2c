//! One `up` or `down` at a time, and one run of the suite: others wait.

use std::fs::{self, File, TryLockError};

use anyhow::{Context, Result};

use super::place::Place;
use crate::sh::say;

/// Held until dropped. The file is never removed: whoever waits for it holds it open.
pub(crate) struct Lock(#[expect(dead_code, reason = "closing the file gives the lock back")] File);

/// For `up` and `down`.
///
/// # Errors
/// The cluster's folder cannot be written.
pub(crate) fn take(place: &Place) -> Result<Lock> {
    wait(place, "lock", "up or down")
}

/// For the official suite: two runs use the same namespaces, and the first to end removes them from the other.
///
/// # Errors
/// The cluster's folder cannot be written.
pub(crate) fn take_suite(place: &Place) -> Result<Lock> {
    wait(place, "suite.lock", "run of the suite")
}

fn wait(place: &Place, name: &str, what: &str) -> Result<Lock> {
    fs::create_dir_all(place.dir()).with_context(|| format!("cannot make {}", place.dir().display()))?;
    let file = File::create(place.dir().join(name)).context("cannot make the cluster's lock")?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            say(&format!("cluster: waiting for another {what}"));
            file.lock().context("cannot lock the cluster")?;
        }
        Err(TryLockError::Error(error)) => return Err(error).context("cannot lock the cluster"),
    }
    Ok(Lock(file))
}
