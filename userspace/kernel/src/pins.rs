//! Where things are pinned, and who may touch them.
//!
//! `/sys/fs/bpf/pierhead/<network namespace>/v<layout>/` holds maps, programs and links. The folder of the namespace is
//! locked (`flock`) by the process that runs there, the one of the layout by a successor that waits to take over. Another
//! layout lies beside, and goes when the process that understands this one is active.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use pierhead_abi::layout::LAYOUT;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::mount::MountFlags;

use crate::error::KernelError;
use crate::sys;

/// The bpf file system.
pub(crate) const BPFFS: &str = "/sys/fs/bpf";
const ROOT: &str = "/sys/fs/bpf/pierhead";
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

pub(crate) const STEER_LINK: &str = "link_steer";

/// Pins of one network namespace.
#[derive(Debug)]
pub(crate) struct Pins {
    /// Of the namespace.
    pub(crate) home: PathBuf,
    /// Of our layout.
    pub(crate) dir: PathBuf,
}

impl Pins {
    /// The current thread's network namespace. Creates nothing.
    pub(crate) fn here() -> Result<Self, KernelError> {
        let netns =
            fs::metadata("/proc/thread-self/ns/net").map_err(KernelError::system("read the network namespace"))?;
        let home = Path::new(ROOT).join(std::os::unix::fs::MetadataExt::ino(&netns).to_string());
        let dir = home.join(format!("v{LAYOUT}"));
        Ok(Self { home, dir })
    }

    /// Makes the folders, mounting the file system where it is missing.
    pub(crate) fn create(&self) -> Result<(), KernelError> {
        mount(Path::new(BPFFS))?;
        // An uninstall in another namespace removes the common folder when it finds it empty: once more, then.
        let create = || fs::create_dir_all(&self.dir);
        create()
            .or_else(|_| create())
            .or_else(|_| create())
            .map_err(pin("create", &self.dir))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn nic_link(&self, direction: &str, index: u32) -> PathBuf {
        self.dir.join(format!("link_{direction}_{index}"))
    }

    /// Links to interfaces that are pinned here, with the index of their interface.
    pub(crate) fn nic_links(&self) -> Vec<(u32, PathBuf)> {
        let index = |path: &Path| -> Option<u32> {
            let name = path.file_name()?.to_str()?;
            name.strip_prefix("link_in_")
                .or_else(|| name.strip_prefix("link_out_"))?
                .parse()
                .ok()
        };
        entries(&self.dir)
            .into_iter()
            .filter_map(|path| Some((index(&path)?, path)))
            .collect()
    }

    /// Folders of other layouts.
    pub(crate) fn others(&self) -> Vec<PathBuf> {
        entries(&self.home)
            .into_iter()
            .filter(|path| *path != self.dir)
            .collect()
    }
}

/// Lock on a folder, held as long as it lives.
#[derive(Debug)]
pub(crate) struct Lock(OwnedFd);

impl Drop for Lock {
    /// Said aloud: a child that is being started holds a copy of the descriptor for a moment, and closing ours alone would
    /// leave the lock with it.
    fn drop(&mut self) {
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

impl Lock {
    /// `None` when another process has it.
    pub(crate) fn take(dir: &Path) -> Result<Option<Self>, KernelError> {
        let fd = rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| pin("open", dir)(error.into()))?;
        match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self(fd))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(pin("lock", dir)(error.into())),
        }
    }
}

/// The right to change the maps of this network namespace, held for the moment of one change: two processes are at them
/// while one takes over from the other.
#[derive(Debug)]
pub(crate) struct Turn(OwnedFd);

/// How long another process's change may take. Half of this is far beyond the longest seen.
const TURN_PATIENCE: Duration = Duration::from_secs(5);

impl Turn {
    /// A lock on the namespace itself: there is no file of ours that every layout has.
    pub(crate) fn take() -> Result<Self, KernelError> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = rustix::fs::open("/proc/thread-self/ns/net", flags, Mode::empty())
            .map_err(|error| KernelError::system("open the network namespace")(error.into()))?;
        let deadline = Instant::now() + TURN_PATIENCE;
        loop {
            match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self(fd)),
                Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(1));
                }
                Err(error) => return Err(KernelError::system("wait for another pierhead's change")(error.into())),
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

pub(crate) fn pin(what: &'static str, path: &Path) -> impl Fn(io::Error) -> KernelError {
    let path = path.to_owned();
    move |source| KernelError::Pin {
        what,
        path: path.clone(),
        source,
    }
}

pub(crate) fn is_bpffs(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|fs| fs.f_type == BPF_FS_MAGIC)
}

fn mount(at: &Path) -> Result<(), KernelError> {
    if is_bpffs(at) {
        return Ok(());
    }
    let fix = |error: &dyn std::fmt::Display| {
        KernelError::Unavailable(format!(
            "no bpf file system at {0}, and it cannot be mounted ({error}); fix: mount -t bpf bpf {0}",
            at.display()
        ))
    };
    if !at.exists() {
        fs::create_dir_all(at).map_err(|error| fix(&error))?;
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("bpf", at, "bpf", flags, c"mode=0700").map_err(|error| fix(&error))
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    found.sort();
    found
}

/// Detaches a pinned link now and removes its pin. Nothing happens when there is none.
pub(crate) fn remove_link(path: &Path) -> Result<(), KernelError> {
    match sys::obj_get(path) {
        // A link whose interface or namespace is gone says so; there is nothing left to detach.
        Ok(link) => drop(sys::link_detach(&link)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(_) => {}
    }
    fs::remove_file(path).map_err(pin("remove", path))
}

/// Removes a folder of pins: links first, so that nothing runs without its maps. Returns what was removed.
pub(crate) fn remove_dir(dir: &Path) -> Result<Vec<PathBuf>, KernelError> {
    let is_link = |path: &PathBuf| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("link_"))
    };
    let (links, rest): (Vec<PathBuf>, Vec<PathBuf>) = entries(dir).into_iter().partition(is_link);
    for link in &links {
        remove_link(link)?;
    }
    for path in &rest {
        fs::remove_file(path).map_err(pin("remove", path))?;
    }
    fs::remove_dir(dir).map_err(pin("remove", dir))?;
    Ok(links.into_iter().chain(rest).collect())
}

/// Folders of all layouts under `home`.
pub(crate) fn layouts(home: &Path) -> Vec<PathBuf> {
    entries(home)
}

/// Removes what was left in network namespaces that are gone: nobody can reach it any more, and it holds memory.
pub(crate) fn sweep(own: &Path) {
    for home in entries(Path::new(ROOT)).into_iter().filter(|home| home != own) {
        let layouts = entries(&home);
        let dead = |layout: &PathBuf| sys::obj_get(&layout.join(STEER_LINK)).is_ok_and(|link| sys::is_orphan(&link));
        if layouts.is_empty() || !layouts.iter().all(dead) {
            continue;
        }
        let Ok(Some(_lock)) = Lock::take(&home) else { continue };
        let removed = layouts.iter().try_for_each(|layout| remove_dir(layout).map(drop));
        if let Err(error) = removed.and_then(|()| fs::remove_dir(&home).map_err(pin("remove", &home))) {
            tracing::debug!("what a network namespace left behind stays: {error}");
        }
    }
}
