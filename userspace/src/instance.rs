//! One instance per network namespace and state folder, and where that folder is.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use anyhow::{Context, Result, bail};

use crate::machine;

/// Held while the process lives; the kernel lets go of it when the process ends, however that happens.
#[derive(Debug)]
pub(crate) struct Lock {
    _listener: UnixListener,
}

/// Claims this network namespace and state folder. An abstract socket, because its name belongs to the namespace and
/// leaves nothing behind.
pub(crate) fn lock(state_dir: &Path) -> Result<Lock> {
    let mut name = b"pierhead ".to_vec();
    name.extend(state_dir.as_os_str().as_encoded_bytes());
    // The kernel takes at most 107 bytes; the end tells folders apart better than the beginning.
    let name = &name[name.len().saturating_sub(100)..];
    let address = SocketAddr::from_abstract_name(name).context("no name for the instance lock")?;
    match UnixListener::bind_addr(&address) {
        Ok(listener) => Ok(Lock { _listener: listener }),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => bail!(
            "another pierhead runs in this network namespace with state folder {}; fix: stop it, or give this one a --state-dir and --admin of its own",
            state_dir.display()
        ),
        Err(error) => Err(error).context("cannot take the instance lock"),
    }
}

/// The folder given, or the usual place for this user.
pub(crate) fn state_dir(given: Option<&Path>) -> PathBuf {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_instance_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let first = lock(folder.path()).unwrap();
        let error = lock(folder.path()).unwrap_err().to_string();
        assert!(
            error.contains("another pierhead") && error.contains("fix: stop it"),
            "{error}"
        );
        drop(first);
        lock(folder.path()).unwrap();
    }
}
