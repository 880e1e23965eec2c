//! The last good snapshot on disk: what a node serves after a restart while its controller is away.
//!
//! It holds private keys, so it is for this user only. It is written beside and renamed over, so a reader finds the old one
//! or the new one; a checksum tells what a broken disk made of it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pierhead_model::Snapshot;
use pierhead_protocol::disk;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The file's name in the node's folder.
const SNAPSHOT: &str = "snapshot";
/// How long changes are gathered before they are written.
const QUIET: Duration = Duration::from_secs(1);
/// Least time between two writes: under constant change requests would wait for each of them, on a machine of few cores.
const PAUSE: Duration = Duration::from_secs(5);
/// Writing may take one part in so many of the time.
const SHARE: u32 = 20;

/// A node's folder, for itself and nobody else.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn folder(state_dir: &Path, node: &str) -> io::Result<PathBuf> {
    // Of each node its own: nodes of one machine may share the folder above.
    let folder = state_dir.join(node);
    DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    Ok(folder)
}

/// Writes a file that only this user can read, whole or not at all.
///
/// # Errors
/// When it cannot be written; the old one is still there then.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // Two processes may be at it while one takes over from the other, and both may be number 1 in their containers.
    let beside = folder.join(format!(".{name}.{:016x}", RandomState::new().hash_one(&*name)));
    let done = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        // The rename too must outlive a loss of power.
        File::open(folder)?.sync_all()
    })();
    if done.is_err() {
        let _ = fs::remove_file(&beside);
    }
    done
}

/// Removes what writers that were killed left beside.
pub(crate) fn sweep(folder: &Path) {
    let old = |entry: &fs::DirEntry| {
        let age = entry.metadata().and_then(|metadata| metadata.modified());
        age.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > Duration::from_secs(60)))
    };
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry
            .file_name()
            .to_string_lossy()
            .starts_with(&format!(".{SNAPSHOT}."))
            && old(&entry)
        {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The last good snapshot; `None` when there is none, or none that can be used: that is said.
pub(crate) fn load(folder: &Path) -> Option<Arc<Snapshot>> {
    let path = folder.join(SNAPSHOT);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::error!("the last good snapshot {} cannot be read: {error}", path.display());
            return None;
        }
    };
    match disk::decode(&bytes) {
        Ok(candidate) => {
            for (name, why) in &candidate.held_back {
                tracing::warn!("{name} of the last good snapshot is left out: {why}");
            }
            Some(candidate.snapshot)
        }
        Err(error) => {
            tracing::error!("the last good snapshot {} is ignored: {error}", path.display());
            None
        }
    }
}

/// Writes what is sent: after a second, or a few where changes do not end. Ends when the sender is gone, with the last one
/// written at once.
pub(crate) fn keep(folder: &Path, mut snapshots: watch::Receiver<Option<Arc<Snapshot>>>) -> JoinHandle<()> {
    let path = folder.join(SNAPSHOT);
    tokio::spawn(async move {
        let mut said = None;
        while snapshots.changed().await.is_ok() {
            rest(&snapshots, QUIET).await;
            let Some(snapshot) = snapshots.borrow_and_update().clone() else {
                continue;
            };
            let started = Instant::now();
            let path = path.clone();
            let written = tokio::task::spawn_blocking(move || write(&path, &disk::encode(&snapshot)));
            let outcome = written.await.unwrap_or_else(|error| Err(io::Error::other(error)));
            let now = outcome.err().map(|error| error.to_string());
            if let Some(error) = now.as_ref().filter(|_| now != said) {
                tracing::error!("the last good snapshot cannot be kept for a restart: {error}");
            }
            said = now;
            rest(&snapshots, PAUSE.max(started.elapsed() * SHARE)).await;
        }
    })
}

/// Waits so long, but no longer than there is somebody who sends.
async fn rest<T>(snapshots: &watch::Receiver<T>, time: Duration) {
    // What comes meanwhile is not seen by who reads.
    let mut watched = snapshots.clone();
    let gone = async { while watched.changed().await.is_ok() {} };
    let _ = tokio::time::timeout(time, gone).await;
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use pierhead_model::{OnMiss, OwnedPrefix, Ownership};

    use super::*;

    fn snapshot() -> Arc<Snapshot> {
        in_round(0)
    }

    fn in_round(round: u32) -> Arc<Snapshot> {
        let mut snapshot = Snapshot::default();
        let net = "192.0.2.0/28".parse().unwrap();
        let ownership = Ownership {
            on_miss: OnMiss::Drop,
            announcer: None,
            round,
        };
        snapshot.owned.insert(OwnedPrefix(net), ownership);
        Arc::new(snapshot)
    }

    #[test]
    fn what_was_kept_is_found_by_the_next_process_and_by_nobody_else() {
        let state = tempfile::tempdir().unwrap();
        let folder = folder(state.path(), "node-1").unwrap();
        assert_eq!(load(&folder), None);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (sender, receiver) = watch::channel(None);
            let keeping = keep(&folder, receiver);
            sender.send(Some(snapshot())).unwrap();
            drop(sender);
            keeping.await.unwrap();
        });
        assert_eq!(load(&folder), Some(snapshot()));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join(SNAPSHOT))), (0o700, 0o600));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing is left beside");
    }

    #[tokio::test(start_paused = true)]
    async fn where_changes_do_not_end_it_is_written_now_and_then_and_in_the_end_at_once() {
        let state = tempfile::tempdir().unwrap();
        let folder = folder(state.path(), "node-1").unwrap();
        let (sender, receiver) = watch::channel(None);
        let keeping = keep(&folder, receiver);
        let began = tokio::time::Instant::now();
        let (mut kept, mut writes) = (None, Vec::new());
        for round in 0..100 {
            sender.send(Some(in_round(round))).unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = load(&folder);
            if now != kept {
                writes.push(began.elapsed().as_secs());
                kept = now;
            }
        }
        // The second comes after 7 s, or later where a disk is slow.
        assert_eq!(writes.first(), Some(&1));
        assert!(writes.len() <= 2, "{writes:?}");
        let left = began.elapsed();
        drop(sender);
        keeping.await.unwrap();
        assert_eq!(load(&folder), Some(in_round(99)));
        assert!(
            began.elapsed() - left < Duration::from_secs(1),
            "nobody is left to wait for"
        );
    }

    #[test]
    fn a_damaged_file_is_ignored_wherever_it_is_damaged() {
        let state = tempfile::tempdir().unwrap();
        let folder = folder(state.path(), "n").unwrap();
        let path = folder.join(SNAPSHOT);
        let good = disk::encode(&snapshot());
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, &bad).unwrap();
            assert_eq!(load(&folder), None, "byte {at}");
            fs::write(&path, &good[..at]).unwrap();
            assert_eq!(load(&folder), None, "{at} bytes");
        }
        write(&path, &good).unwrap();
        assert_eq!(load(&folder), Some(snapshot()));
    }
}
