//! Watches a folder, translates what changed, publishes what is new.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RemoveKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use pierhead_translate::{Settings, Translation, translate_from};
use tokio::sync::watch;

use super::folder::{Folder, Scan};
use super::listing::OpenError;
use crate::{allocations, published::Published};

/// A burst of events ends when nothing comes for so long …
const QUIET: Duration = Duration::from_millis(5);
/// … but is not waited for longer than this.
const BURST: Duration = Duration::from_millis(50);
/// How often to see whether the folder's name still leads to what is watched, and to look at everything where not every
/// change is told: links may lead to where nobody watches.
const IDLE: Duration = Duration::from_secs(2);
/// How often to look at everything although every change should have been told.
const CHECK: Duration = Duration::from_secs(10);
/// How often to translate again without a change, so that certificates are seen to expire.
const REFRESH: Duration = Duration::from_secs(3600);

/// What a source is started with.
pub struct Options {
    pub folder: PathBuf,
    /// Called before each translation: time and the machine's addresses are those of that moment. Allocations are the
    /// source's own business.
    pub settings: Box<dyn FnMut() -> Settings + Send>,
    /// Where addresses given to Gateways are remembered across restarts. `None`: nowhere.
    pub allocations: Option<PathBuf>,
}

/// A watched folder. Dropping it ends the watching.
#[derive(Debug)]
pub struct FileSource {
    published: watch::Receiver<Arc<Published>>,
    signal: mpsc::Sender<Signal>,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Debug)]
enum Signal {
    Changed(notify::Result<Event>),
    Stop,
}

impl FileSource {
    /// Reads and translates the folder, then watches it on a thread of its own.
    ///
    /// # Errors
    /// When there is no such folder, or it cannot be read or watched.
    pub fn start(options: Options) -> Result<Self, OpenError> {
        let (signal, signals) = mpsc::channel();
        // Watched before it is read: what changes in between is seen twice rather than never.
        let watcher = watch_folder(&options.folder, &signal)?;
        let folder = Folder::open(&options.folder)?;
        let mut settings = options.settings;
        let started = Instant::now();
        let mut first = settings();
        if let Some(path) = &options.allocations {
            first.allocations = allocations::load(path);
        }
        let published = Published {
            translation: translate_from(&folder.world(), &first, None),
            file_problems: folder.problems(),
            ignored: folder.ignored(),
            objects: folder.len(),
            version: 1,
            took: started.elapsed(),
        };
        remember(
            options.allocations.as_deref(),
            &first.allocations,
            &published.translation,
        );
        let (sender, receiver) = watch::channel(Arc::new(published));
        let mut watching = Watching {
            real_path: std::fs::canonicalize(&options.folder).ok(),
            folder,
            settings,
            allocations: options.allocations,
            sender,
            watcher: Some(watcher),
            signal: signal.clone(),
            open: BTreeSet::new(),
            paths: BTreeSet::new(),
            everything: true,
            unseen: false,
            looked: Instant::now(),
            translated: Instant::now(),
        };
        let thread = thread::Builder::new()
            .name("files".into())
            .spawn(move || watching.run(&signals))
            .map_err(|error| OpenError::Watch {
                path: PathBuf::new(),
                reason: error.to_string(),
            })?;
        Ok(Self {
            published: receiver,
            signal,
            thread: Some(thread),
        })
    }

    /// The latest configuration, and every later one.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Published>> {
        self.published.clone()
    }
}

impl Drop for FileSource {
    fn drop(&mut self) {
        // The thread may be gone already; then there is nothing to stop.
        let _ = self.signal.send(Signal::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn watch_folder(folder: &std::path::Path, signal: &mpsc::Sender<Signal>) -> Result<RecommendedWatcher, OpenError> {
    super::listing::check(folder)?;
    let fault = |error: notify::Error| OpenError::Watch {
        path: folder.to_owned(),
        reason: error.to_string(),
    };
    let signal = signal.clone();
    let mut watcher = notify::recommended_watcher(move |event| {
        // The receiver is gone only when the source is.
        let _ = signal.send(Signal::Changed(event));
    })
    .map_err(fault)?;
    watcher.watch(folder, RecursiveMode::Recursive).map_err(fault)?;
    Ok(watcher)
}

struct Watching {
    folder: Folder,
    /// What the folder's name led to when it was last watched.
    real_path: Option<PathBuf>,
    settings: Box<dyn FnMut() -> Settings + Send>,
    allocations: Option<PathBuf>,
    sender: watch::Sender<Arc<Published>>,
    /// `None` while watching fails: looking every [`IDLE`] goes on.
    watcher: Option<RecommendedWatcher>,
    signal: mpsc::Sender<Signal>,
    /// Files that are being written: changed and not closed yet.
    open: BTreeSet<PathBuf>,
    /// To be looked at.
    paths: BTreeSet<PathBuf>,
    /// So is everything else.
    everything: bool,
    /// Something changed without being told: a file system of another machine, for one.
    unseen: bool,
    /// When everything was looked at.
    looked: Instant,
    translated: Instant,
}

impl Watching {
    fn run(&mut self, signals: &mpsc::Receiver<Signal>) {
        let mut wait = BURST;
        loop {
            let mut told = true;
            match signals.recv_timeout(wait) {
                Ok(Signal::Stop) | Err(mpsc::RecvTimeoutError::Disconnected) => return,
                Ok(Signal::Changed(event)) => {
                    if !self.note(event) {
                        continue;
                    }
                    if self.collect(signals) {
                        return;
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    told = !self.paths.is_empty() || self.everything;
                    self.rewatch();
                }
            }
            let every = if self.folder.is_linked() || self.watcher.is_none() || self.unseen {
                IDLE
            } else {
                CHECK
            };
            self.everything |= self.looked.elapsed() >= every;
            let started = Instant::now();
            let scan = self.look();
            self.unseen |= scan.changed && !told && !self.folder.is_linked();
            if scan.changed || self.translated.elapsed() > REFRESH {
                self.publish(started);
            }
            self.everything = scan.lost;
            wait = if scan.lost || !scan.unsettled.is_empty() {
                BURST
            } else {
                IDLE
            };
            self.paths = scan
                .unsettled
                .iter()
                .map(|inner| self.folder.path().join(inner))
                .collect();
        }
    }

    /// At what was told to have changed, or at everything.
    fn look(&mut self) -> Scan {
        let now = SystemTime::now();
        if !self.everything
            && let Some(scan) = self.folder.look(&self.paths, now)
        {
            return scan;
        }
        self.looked = Instant::now();
        self.folder.scan(now)
    }

    /// Waits for the end of a burst of changes. True: stop.
    fn collect(&mut self, signals: &mpsc::Receiver<Signal>) -> bool {
        let end = Instant::now() + BURST;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            // A file that is open for writing is probably half written.
            let wait = if self.open.is_empty() { left.min(QUIET) } else { left };
            match signals.recv_timeout(wait) {
                Ok(Signal::Stop) | Err(mpsc::RecvTimeoutError::Disconnected) => return true,
                Ok(Signal::Changed(event)) => {
                    self.note(event);
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    self.open.clear();
                    return false;
                }
            }
        }
    }

    /// Keeps track of open files. False: the event changes nothing.
    fn note(&mut self, event: notify::Result<Event>) -> bool {
        // Lost events and the like: looking at everything is the answer to all of them.
        let Ok(event) = event else {
            self.everything = true;
            return true;
        };
        self.everything |= event.need_rescan();
        match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => {}
            EventKind::Access(_) => return false,
            EventKind::Modify(ModifyKind::Data(_)) => {
                self.open.extend(event.paths.iter().cloned());
                self.paths.extend(event.paths);
                return true;
            }
            EventKind::Create(CreateKind::File)
            | EventKind::Remove(RemoveKind::File)
            | EventKind::Modify(ModifyKind::Name(_) | ModifyKind::Metadata(_)) => {}
            // Folders, and whatever else there may be.
            EventKind::Create(_) | EventKind::Remove(_) | EventKind::Modify(_) | EventKind::Any | EventKind::Other => {
                self.everything = true
            }
        }
        for path in &event.paths {
            self.open.remove(path);
        }
        self.paths.extend(event.paths);
        true
    }

    /// Watches again when the folder's name leads elsewhere, or when watching failed.
    fn rewatch(&mut self) {
        let real_path = std::fs::canonicalize(self.folder.path()).ok();
        if real_path.is_some() && (real_path != self.real_path || self.watcher.is_none()) {
            self.real_path = real_path;
            self.watcher = None;
            match watch_folder(self.folder.path(), &self.signal) {
                Ok(watcher) => {
                    self.watcher = Some(watcher);
                    // What changed in between was not told.
                    self.everything = true;
                }
                Err(error) => tracing::warn!("{error}; changes are seen within {IDLE:?} only"),
            }
        }
    }

    fn publish(&mut self, started: Instant) {
        self.translated = Instant::now();
        let last = Arc::clone(&self.sender.borrow());
        let mut settings = (self.settings)();
        settings.allocations = last.translation.allocations.clone();
        let translation = translate_from(&self.folder.world(), &settings, Some(&last.translation));
        remember(self.allocations.as_deref(), &settings.allocations, &translation);
        let (file_problems, ignored) = (self.folder.problems(), self.folder.ignored());
        let objects = self.folder.len();
        let same = (&translation, &file_problems, &ignored, objects)
            == (&last.translation, &last.file_problems, &last.ignored, last.objects);
        if same {
            return;
        }
        self.sender.send_replace(Arc::new(Published {
            translation,
            file_problems,
            ignored,
            objects,
            version: last.version + 1,
            took: started.elapsed(),
        }));
    }
}

fn remember(
    path: Option<&std::path::Path>,
    before: &pierhead_translate::address::Allocations,
    translation: &Translation,
) {
    let Some(path) = path else { return };
    if translation.allocations != *before
        && let Err(error) = allocations::store(path, &translation.allocations)
    {
        tracing::warn!(
            "cannot remember addresses in {}: {error}; fix: name a writable folder with --state-dir (Gateways may get other addresses after a restart)",
            path.display()
        );
    }
}
