//! Which files a folder holds, with links followed, and their text, bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Largest file read. 40,000 routes are some 24 MB.
const MAX_FILE_BYTES: u64 = 64 << 20;
/// Most files of one folder.
pub(crate) const MAX_FILES: usize = 20_000;
/// Deepest sub-folder; also what ends a circle of links.
const MAX_DEPTH: usize = 16;

/// Why a folder cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{path} does not exist; fix: create the folder, or name another with --config")]
    Missing { path: PathBuf },
    #[error("{path} is not a folder; fix: name the folder that holds the manifests")]
    NotAFolder { path: PathBuf },
    #[error("cannot read {path}: {source}; fix: let this user read it (chmod, chown)")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("cannot watch {path}: {reason}; fix: raise fs.inotify.max_user_watches or max_user_instances (sysctl)")]
    Watch { path: PathBuf, reason: String },
}

/// What tells two states of a file apart without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Could the file change once more within the grain of its time stamps?
    pub(crate) fn is_fresh(&self, now: SystemTime) -> bool {
        let (seconds, nanoseconds) = self.changed;
        let since = Duration::new(
            u64::try_from(seconds).unwrap_or(0),
            u32::try_from(nanoseconds).unwrap_or(0),
        );
        now.duration_since(SystemTime::UNIX_EPOCH + since)
            .is_ok_and(|age| age < Duration::from_millis(100))
    }
}

/// The manifests of a folder by their path in it, and what could not be listed.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) files: BTreeMap<PathBuf, Stamp>,
    pub(crate) faults: BTreeMap<PathBuf, String>,
    /// Every folder that was read, the whole's own under the empty path.
    pub(crate) folders: BTreeSet<PathBuf>,
    /// Some of it is reached by links: what they lead to is not watched.
    pub(crate) linked: bool,
}

/// What one path is, links not followed.
#[derive(Debug)]
pub(crate) enum Look {
    File(Stamp),
    Gone,
    /// A folder, a link, or it cannot be told.
    Other,
}

pub(crate) fn look(path: &Path) -> Look {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => Look::File(Stamp::of(&metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Look::Gone,
        Ok(_) | Err(_) => Look::Other,
    }
}

/// Whether it is a name that manifests have.
pub(crate) fn is_manifest(path: &Path) -> bool {
    path.extension()
        .is_some_and(|end| end == "yaml" || end == "yml" || end == "json")
}

/// Whether a name, or that of a folder it is in, keeps it out.
pub(crate) fn is_hidden(path: &Path) -> bool {
    path.iter().any(|name| name.as_encoded_bytes().starts_with(b"."))
}

pub(crate) fn check(folder: &Path) -> Result<(), OpenError> {
    let path = folder.to_owned();
    match fs::metadata(folder) {
        Ok(metadata) if !metadata.is_dir() => Err(OpenError::NotAFolder { path }),
        Ok(_) => fs::read_dir(folder)
            .map(drop)
            .map_err(|source| OpenError::Unreadable { path, source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(OpenError::Missing { path }),
        Err(source) => Err(OpenError::Unreadable { path, source }),
    }
}

/// Every `.yaml`, `.yml` and `.json` below `folder`, without those whose name, or whose folder's name, starts with a
/// dot: editors keep their own there, and Kubernetes the versions of a mounted ConfigMap, which links lead to.
pub(crate) fn list(folder: &Path) -> Result<Listing, OpenError> {
    check(folder)?;
    let mut listing = Listing::default();
    let own = fs::metadata(folder).map(|metadata| (metadata.dev(), metadata.ino()));
    let mut seen: BTreeSet<_> = own.into_iter().collect();
    walk(folder, Path::new(""), 0, &mut seen, &mut listing);
    Ok(listing)
}

fn walk(folder: &Path, inner: &Path, depth: usize, seen: &mut BTreeSet<(u64, u64)>, listing: &mut Listing) {
    let here = folder.join(inner);
    let fault = |listing: &mut Listing, path: &Path, what: String| {
        listing.faults.insert(path.to_owned(), what);
    };
    let names = fs::read_dir(&here).and_then(|entries| {
        entries
            .map(|entry| {
                let entry = entry?;
                // Says the folder itself, so no further look is needed.
                listing.linked |= entry.file_type().is_ok_and(|kind| kind.is_symlink());
                Ok(entry.file_name())
            })
            .collect::<io::Result<Vec<_>>>()
    });
    let mut names = match names {
        Ok(names) => names,
        Err(error) => return fault(listing, inner, format!("cannot read this folder: {error}")),
    };
    listing.folders.insert(inner.to_owned());
    // Of two links to one folder the first by name counts, on every machine.
    names.sort();
    for name in names {
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = inner.join(&name);
        let manifest = is_manifest(&path);
        let metadata = match fs::metadata(here.join(&name)) {
            Ok(metadata) => metadata,
            // A link to nothing, or a file that went away meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !is_link(&here.join(&name)) => continue,
            Err(error) => {
                if manifest {
                    fault(listing, &path, format!("cannot read this file: {error}"));
                }
                continue;
            }
        };
        if metadata.is_dir() {
            if depth == MAX_DEPTH {
                fault(listing, &path, format!("more than {MAX_DEPTH} folders deep"));
            } else if seen.insert((metadata.dev(), metadata.ino())) {
                walk(folder, &path, depth + 1, seen, listing);
            }
        } else if manifest && metadata.is_file() {
            if listing.files.len() == MAX_FILES {
                return fault(
                    listing,
                    Path::new(""),
                    format!("more than {MAX_FILES} files: the rest is not read"),
                );
            }
            listing.files.insert(path, Stamp::of(&metadata));
        } else if manifest {
            fault(listing, &path, "is neither a file nor a folder".into());
        }
    }
}

fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink())
}

/// The text of a file, or what is wrong with it and the fix.
pub(crate) fn text(path: &Path) -> Result<String, (String, &'static str)> {
    let unreadable = |error: io::Error| (format!("cannot read this file: {error}"), "let this user read it");
    let too_large = || (format!("is larger than {} MiB", MAX_FILE_BYTES >> 20), "split it");
    let file = fs::File::open(path).map_err(unreadable)?;
    if file.metadata().map_err(unreadable)?.size() > MAX_FILE_BYTES {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    // The size may grow while it is read.
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(too_large());
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count();
        (format!("is not UTF-8 (line {line})"), "save it as UTF-8")
    })
}
