//! Where an instance keeps what it remembers.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{env, fs};

use crate::machine;

/// The folder given, or the usual place for this user.
pub(crate) fn folder(given: Option<&Path>) -> PathBuf {
    let below = |variable: &str, rest: &str| env::var_os(variable).map(|home| Path::new(&home).join(rest));
    match given {
        Some(path) => path.to_owned(),
        None if machine::is_root() => PathBuf::from("/var/lib/pierhead"),
        None => below("XDG_STATE_HOME", "pierhead")
            .or_else(|| below("HOME", ".local/state/pierhead"))
            .unwrap_or_else(|| env::temp_dir().join("pierhead")),
    }
}

/// The file of given addresses. Network namespaces other than the machine's own have one each.
pub(crate) fn allocations(state_dir: &Path) -> PathBuf {
    let inode = |path: &str| fs::metadata(path).map(|metadata| metadata.ino()).ok();
    match (inode("/proc/self/ns/net"), inode("/proc/1/ns/net")) {
        (Some(own), Some(first)) if own != first => state_dir.join(format!("addresses-{own}.json")),
        _ => state_dir.join("addresses.json"),
    }
}
