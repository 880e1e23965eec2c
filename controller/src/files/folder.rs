//! The state of a folder: for each file its last good objects and what is wrong with it now.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use pierhead_model::{Origin, Problem};
use pierhead_translate::World;

use super::content::{self, Object, Parts, Unused};
use super::listing::{self, Listing, OpenError, Stamp};
use super::problem::FileProblem;

/// How long a file that went away or became empty is given to come back: editors replace files in two steps.
const GRACE: Duration = Duration::from_millis(50);

/// Objects of a kind that Pierhead has no use for, counted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ignored {
    pub api_version: String,
    pub kind: String,
    pub count: usize,
    /// Where the first one stands.
    pub file: PathBuf,
    pub line: u32,
}

/// A folder of manifests as it was last seen.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    files: BTreeMap<PathBuf, File>,
    /// Those of which there is something to say: problems, or objects that are ignored.
    noted: BTreeSet<PathBuf>,
    /// Objects of all files, also those that stand in two.
    held: usize,
    /// What is wrong with the folder itself, or with what is no file.
    faults: Vec<FileProblem>,
    /// The folders in it, as last listed.
    folders: BTreeSet<PathBuf>,
    /// Some of it is reached by links.
    linked: bool,
    merged: Merged,
    /// The hash of each object's body when it was last read, and its generation.
    generations: HashMap<Origin, (u64, i64)>,
}

/// The objects of all files together, each once: of two with one name the first in path order counts.
#[derive(Debug, Default)]
struct Merged {
    world: World,
    objects: usize,
    /// Those that do not count.
    twice: Vec<FileProblem>,
    /// Is to be made anew.
    stale: bool,
}

#[derive(Debug, Default)]
struct File {
    stamp: Option<Stamp>,
    text_hash: u64,
    /// The last good state of everything in it.
    objects: Vec<Object>,
    parts: Parts,
    ignored: Vec<Unused>,
    problems: Vec<FileProblem>,
    /// Since when it looks removed.
    missing_since: Option<SystemTime>,
}

/// What a scan found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scan {
    /// Objects or problems are not what they were.
    pub(crate) changed: bool,
    /// What may change without a further event: look at it again soon.
    pub(crate) unsettled: BTreeSet<PathBuf>,
    /// The folder itself could not be listed.
    pub(crate) lost: bool,
}

impl Folder {
    /// Reads the folder once.
    ///
    /// # Errors
    /// When there is no such folder, or it cannot be listed. What is wrong inside is data: see [`Self::problems`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let mut folder = Self {
            path: path.to_owned(),
            files: BTreeMap::new(),
            noted: BTreeSet::new(),
            held: 0,
            faults: Vec::new(),
            folders: BTreeSet::new(),
            linked: false,
            merged: Merged {
                stale: true,
                ..Merged::default()
            },
            generations: HashMap::new(),
        };
        let listing = listing::list(path)?;
        folder.take_in(listing, SystemTime::now());
        Ok(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether some of it is reached by links, so that not all changes are told.
    pub(crate) fn is_linked(&self) -> bool {
        self.linked
    }

    /// Reads what changed of `paths`, and nothing else. `None`: that is not enough, everything is to be looked at, for a folder
    /// came or went, or there are links.
    pub(crate) fn look(&mut self, paths: &BTreeSet<PathBuf>, now: SystemTime) -> Option<Scan> {
        if self.linked || !self.faults.is_empty() {
            return None;
        }
        let mut found = Vec::new();
        for path in paths {
            let inner = path.strip_prefix(&self.path).ok()?;
            if listing::is_hidden(inner) {
                continue;
            }
            if !self.folders.contains(inner.parent()?) {
                return None;
            }
            match listing::look(path) {
                listing::Look::File(_) if !listing::is_manifest(inner) => {}
                listing::Look::File(stamp) => {
                    let known = self.files.contains_key(inner);
                    if !known && self.files.len() >= listing::MAX_FILES {
                        return None;
                    }
                    found.push((inner.to_owned(), Some(stamp)));
                }
                listing::Look::Gone if self.files.contains_key(inner) => found.push((inner.to_owned(), None)),
                listing::Look::Gone if !self.folders.contains(inner) => {}
                listing::Look::Gone | listing::Look::Other => return None,
            }
        }
        let mut scan = Scan::default();
        for (inner, stamp) in found {
            match stamp {
                Some(stamp) => self.seen(inner, stamp, now, &mut scan),
                None => self.missed(inner, now, &mut scan),
            }
        }
        self.merge();
        Some(scan)
    }

    /// Reads what changed since the last time. Files whose time stamps could hide a change are compared by content.
    pub(crate) fn scan(&mut self, now: SystemTime) -> Scan {
        match listing::list(&self.path) {
            Ok(listing) => self.take_in(listing, now),
            Err(error) => {
                // Everything keeps its last good state: a folder that is gone is a mistake, not a wish.
                let fault = self.fault(Path::new(""), &error.to_string());
                let changed = self.faults != [fault.clone()];
                self.faults = vec![fault];
                Scan {
                    changed,
                    lost: true,
                    ..Scan::default()
                }
            }
        }
    }

    fn fault(&self, file: &Path, what: &str) -> FileProblem {
        let kept = !file.as_os_str().is_empty() && self.files.get(file).is_some_and(|file| !file.objects.is_empty());
        FileProblem {
            file: if file.as_os_str().is_empty() {
                self.path.clone()
            } else {
                file.to_owned()
            },
            line: 0,
            origin: None,
            field: String::new(),
            message: what.to_owned(),
            fix: String::new(),
            last_good_kept: kept,
        }
    }

    fn take_in(&mut self, listing: Listing, now: SystemTime) -> Scan {
        let mut scan = Scan::default();
        let faults: Vec<_> = listing
            .faults
            .iter()
            .map(|(file, what)| self.fault(file, what))
            .collect();
        scan.changed |= faults != self.faults;
        self.faults = faults;
        self.folders = listing.folders;
        self.linked = listing.linked;

        let gone: Vec<PathBuf> = self
            .files
            .keys()
            .filter(|path| !listing.files.contains_key(*path))
            .cloned()
            .collect();
        for path in gone {
            // Unreadable, not removed.
            if listing.faults.keys().any(|fault| path.starts_with(fault)) {
                continue;
            }
            self.missed(path, now, &mut scan);
        }
        for (path, stamp) in listing.files {
            self.seen(path, stamp, now, &mut scan);
        }
        self.merge();
        scan
    }

    /// A known file is not there.
    fn missed(&mut self, path: PathBuf, now: SystemTime, scan: &mut Scan) {
        let Some(file) = self.files.get_mut(&path) else {
            return;
        };
        let since = *file.missing_since.get_or_insert(now);
        if now.duration_since(since).is_ok_and(|gone| gone >= GRACE) {
            self.held -= file.objects.len();
            self.files.remove(&path);
            self.noted.remove(&path);
            self.merged.stale = true;
            scan.changed = true;
        } else {
            scan.unsettled.insert(path);
        }
    }

    /// A file is there.
    fn seen(&mut self, path: PathBuf, stamp: Stamp, now: SystemTime, scan: &mut Scan) {
        let fresh = stamp.is_fresh(now);
        let same = self.files.get(&path).is_some_and(|file| file.stamp == Some(stamp));
        if !same || fresh {
            self.read_file(&path, stamp, now, scan);
        } else if let Some(file) = self.files.get_mut(&path) {
            file.missing_since = None;
        }
        if fresh {
            scan.unsettled.insert(path);
        }
    }

    fn read_file(&mut self, path: &Path, stamp: Stamp, now: SystemTime, scan: &mut Scan) {
        let text = match listing::text(&self.path.join(path)) {
            Ok(text) => text,
            Err((message, fix)) => {
                let file = self.files.entry(path.to_owned()).or_default();
                file.stamp = Some(stamp);
                file.text_hash = 0;
                let problem = FileProblem {
                    file: path.to_owned(),
                    line: 0,
                    origin: None,
                    field: String::new(),
                    message,
                    fix: fix.to_owned(),
                    last_good_kept: !file.objects.is_empty(),
                };
                scan.changed |= file.problems != [problem.clone()];
                file.problems = vec![problem];
                self.noted.insert(path.to_owned());
                return;
            }
        };
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let text_hash = hasher.finish();
        if let Some(file) = self.files.get_mut(path) {
            file.stamp = Some(stamp);
            if file.text_hash == text_hash {
                file.missing_since = None;
                return;
            }
            // Truncated, to be written in a moment.
            if text.trim().is_empty() && !file.objects.is_empty() {
                let since = *file.missing_since.get_or_insert(now);
                if now.duration_since(since).is_ok_and(|gone| gone < GRACE) {
                    file.stamp = None;
                    scan.unsettled.insert(path.to_owned());
                    return;
                }
            }
        }
        let known = |origin: &Origin| self.generations.get(origin).copied();
        let no_parts = Parts::new();
        let before = self.files.get(path).map_or(&no_parts, |file| &file.parts);
        let (made, parts) = content::read(path, &text, &known, before);
        for object in &made.objects {
            self.generations
                .insert(object.origin.clone(), (object.body_hash, object.generation));
        }
        let file = self.files.entry(path.to_owned()).or_default();
        let before: Vec<(Origin, u64)> = file.objects.iter().map(|one| (one.origin.clone(), one.hash)).collect();
        *file = File {
            stamp: Some(stamp),
            text_hash,
            parts,
            ..merge(std::mem::take(file), made)
        };
        self.merged.replace(&before, &file.objects);
        self.held = self.held + file.objects.len() - before.len();
        if file.problems.is_empty() && file.ignored.is_empty() {
            self.noted.remove(path);
        } else {
            self.noted.insert(path.to_owned());
        }
        self.forget_generations();
        scan.changed = true;
    }

    /// Keeps the memory of what is gone within that of what is there.
    fn forget_generations(&mut self) {
        if self.generations.len() > 2 * self.held + 1024 {
            let all = self.files.values().flat_map(|file| &file.objects);
            let kept = all
                .map(|one| (one.origin.clone(), (one.body_hash, one.generation)))
                .collect();
            self.generations = kept;
        }
    }

    /// All objects, each once: of two with one name the first in path order counts.
    fn chosen(&self) -> (BTreeMap<&Origin, (&Path, &Object)>, Vec<FileProblem>) {
        let mut chosen: BTreeMap<&Origin, (&Path, &Object)> = BTreeMap::new();
        let mut twice = Vec::new();
        for (path, file) in &self.files {
            for object in &file.objects {
                if let Some((first, other)) = chosen.get(&object.origin) {
                    twice.push(FileProblem {
                        file: path.clone(),
                        line: object.line,
                        origin: Some(object.origin.clone()),
                        field: String::new(),
                        message: format!("is also in {}:{}, which counts", first.display(), other.line),
                        fix: "remove or rename one".into(),
                        last_good_kept: false,
                    });
                } else {
                    chosen.insert(&object.origin, (path, object));
                }
            }
        }
        (chosen, twice)
    }

    /// Everything that is in force, as `translate` reads it.
    pub fn world(&self) -> World {
        self.merged.world.clone()
    }

    /// Puts all files together again, where that was not done on the way.
    fn merge(&mut self) {
        if !std::mem::take(&mut self.merged.stale) {
            return;
        }
        let mut world = World::default();
        let mut namespaces = BTreeSet::from(["default"]);
        let (chosen, twice) = self.chosen();
        for (origin, (_, object)) in &chosen {
            object.typed.insert(&origin.namespace, &origin.name, &mut world);
            if !origin.namespace.is_empty() {
                namespaces.insert(&origin.namespace);
            }
        }
        for name in namespaces {
            if world.namespaces.get("", name).is_none() {
                world.namespaces.insert("", name, content::implied_namespace(name));
            }
        }
        self.merged = Merged {
            objects: chosen.len(),
            world,
            twice,
            stale: false,
        };
    }

    fn noted(&self) -> impl Iterator<Item = (&PathBuf, &File)> {
        self.noted.iter().filter_map(|path| self.files.get_key_value(path))
    }

    /// What is wrong with the files, in path order.
    pub fn problems(&self) -> Vec<FileProblem> {
        let mut problems = self.faults.clone();
        problems.extend(self.noted().flat_map(|(_, file)| file.problems.iter().cloned()));
        problems.extend(self.merged.twice.iter().cloned());
        problems.sort();
        problems
    }

    /// What is in the folder and not used, by kind.
    pub fn ignored(&self) -> Vec<Ignored> {
        let mut kinds: BTreeMap<(&str, &str), Ignored> = BTreeMap::new();
        for (path, file) in self.noted() {
            for one in &file.ignored {
                let entry = kinds.entry((&one.api_version, &one.kind)).or_insert_with(|| Ignored {
                    api_version: one.api_version.clone(),
                    kind: one.kind.clone(),
                    count: 0,
                    file: path.clone(),
                    line: one.line,
                });
                entry.count += 1;
            }
        }
        kinds.into_values().collect()
    }

    /// The file and line of what each problem of a translation is about.
    pub fn places(&self, problems: &[Problem]) -> Vec<Option<(PathBuf, u32)>> {
        let (chosen, _) = self.chosen();
        let mut texts: BTreeMap<&Path, Option<String>> = BTreeMap::new();
        let place = |problem: &Problem| {
            let (path, object) = chosen.get(&problem.origin)?;
            let text = texts
                .entry(path)
                .or_insert_with(|| listing::text(&self.path.join(path)).ok());
            let line = text
                .as_ref()
                .map_or(object.line, |text| content::line_of(text, object.line, &problem.field));
            Some((path.to_path_buf(), line))
        };
        problems.iter().map(place).collect()
    }

    /// How many objects are in force.
    pub fn len(&self) -> usize {
        self.merged.objects
    }

    /// Whether nothing is in force.
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }
}

impl Merged {
    /// A file had these objects, by their hash, and has those now.
    fn replace(&mut self, before: &[(Origin, u64)], now: &[Object]) {
        let same_names = before.len() == now.len() && before.iter().zip(now).all(|(old, new)| old.0 == new.origin);
        // What counts of several is decided over all files.
        if self.stale || !same_names || !self.twice.is_empty() {
            self.stale = true;
            return;
        }
        for ((origin, hash), object) in before.iter().zip(now) {
            if *hash != object.hash {
                object.typed.insert(&origin.namespace, &origin.name, &mut self.world);
            }
        }
    }
}

/// The new state of a file: what is good now, and the last good state of what is not.
fn merge(before: File, mut made: content::Content) -> File {
    let mut old: BTreeMap<Origin, Object> = before
        .objects
        .into_iter()
        .map(|object| (object.origin.clone(), object))
        .collect();
    // Exactly as much room as is needed: of many files with an object each, a growing list of four would be most of what is held.
    let mut objects: Vec<Object> = Vec::with_capacity(made.objects.len());
    let mut seen = BTreeSet::new();
    for mut object in made.objects {
        if let Some(same) = old.remove(&object.origin) {
            content::share(&mut object, &same);
        }
        seen.insert(object.origin.clone());
        objects.push(object);
    }
    for (origin, object) in old {
        if made.unclear || made.refused.contains(&origin) {
            for problem in &mut made.problems {
                problem.last_good_kept |= problem.origin.as_ref().is_none_or(|own| *own == origin);
            }
            if seen.insert(origin) {
                objects.push(object);
            }
        }
    }
    File {
        objects,
        ignored: made.ignored,
        problems: made.problems,
        ..File::default()
    }
}
