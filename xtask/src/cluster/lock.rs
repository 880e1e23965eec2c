//! One `up` or `down` at a time: others wait.

use std::fs::{self, File, TryLockError};

use anyhow::{Context, Result};

use super::place::Place;
use crate::sh::say;

/// Held until dropped. The file is never removed: whoever waits for it holds it open.
pub(crate) struct Lock(#[expect(dead_code, reason = "closing the file gives the lock back")] File);

/// # Errors
/// The cluster's folder cannot be written.
pub(crate) fn take(place: &Place) -> Result<Lock> {
    fs::create_dir_all(place.dir()).with_context(|| format!("cannot make {}", place.dir().display()))?;
    let file = File::create(place.dir().join("lock")).context("cannot make the cluster's lock")?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            say("cluster: waiting for another up or down");
            file.lock().context("cannot lock the cluster")?;
        }
        Err(TryLockError::Error(error)) => return Err(error).context("cannot lock the cluster"),
    }
    Ok(Lock(file))
}
