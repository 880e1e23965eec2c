//! The text of one file to objects and problems.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use pierhead_model::Origin;
use serde_json::{Map, Value};

use super::problem::FileProblem;
use super::typed::Typed;
use crate::schema::{self, Found};
use crate::yaml::{self, Budget, Document, Lines, Step};

/// Most objects in one file, `List` items included.
const MAX_OBJECTS: usize = yaml::MAX_DOCUMENTS;

/// What a file holds. Objects that were refused are named in `problems` only.
#[derive(Debug, Default)]
pub(crate) struct Content {
    pub(crate) objects: Vec<Object>,
    pub(crate) ignored: Vec<Unused>,
    pub(crate) problems: Vec<FileProblem>,
    /// Objects that are there but were refused: their last good state stays.
    pub(crate) refused: Vec<Origin>,
    /// Something in the file could not even be told by name: nothing of it may be taken for removed.
    pub(crate) unclear: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub(crate) origin: Origin,
    pub(crate) line: u32,
    /// Of the whole object, and of what `metadata.generation` counts the changes of.
    pub(crate) hash: u64,
    pub(crate) body_hash: u64,
    pub(crate) generation: i64,
    pub(crate) typed: Typed,
}

/// An object of a kind we have no use for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unused {
    pub(crate) line: u32,
    pub(crate) api_version: String,
    pub(crate) kind: String,
}

/// What is known of an object from before: its body's hash and its generation.
pub(crate) type Known<'a> = &'a (dyn Fn(&Origin) -> Option<(u64, i64)> + Sync);

/// The documents of a file without a problem, by the hash of their text: those that come again are not read again.
pub(crate) type Parts = HashMap<u64, Part>;

#[derive(Debug)]
pub(crate) struct Part {
    line: u32,
    objects: Vec<Object>,
    ignored: Vec<Unused>,
}

/// From how many bytes on a text is read by a thread of its own.
const LARGE: usize = 256 << 10;

/// Reads the text of `file` (its name, for problems).
///
/// A large one is read by a thread of its own, and what it came to is copied: the values that objects are made of on the way
/// take many times their room, and would leave as many holes between them. The allocator gives each thread its own room,
/// so that this one's is empty at the end.
pub(crate) fn read(file: &Path, text: &str, known: Known<'_>, before: &Parts) -> (Content, Parts) {
    if text.len() < LARGE {
        return read_here(file, text, known, before);
    }
    let there = thread::scope(|scope| {
        let reader = thread::Builder::new().name("reader".into());
        let reading = reader.spawn_scoped(scope, || read_here(file, text, known, before));
        reading.ok()?.join().ok()
    });
    match there {
        Some((content, parts)) => copied(&content, &parts, before),
        // No thread is to be had; or it panicked, as this one will then.
        None => read_here(file, text, known, before),
    }
}

/// The same in memory of this thread, but for what was there before.
fn copied(content: &Content, parts: &Parts, before: &Parts) -> (Content, Parts) {
    let kept = before.values().flat_map(|part| &part.objects);
    let mut copies: HashMap<usize, Typed> = kept.map(|one| (one.typed.address(), one.typed.clone())).collect();
    let mut copy = |object: &Object| {
        let Origin { kind, namespace, name } = &object.origin;
        let typed = copies.entry(object.typed.address());
        Object {
            origin: Origin::new(kind, namespace, name),
            typed: typed.or_insert_with(|| object.typed.copy()).clone(),
            ..*object
        }
    };
    let copied = Content {
        objects: content.objects.iter().map(&mut copy).collect(),
        ignored: content.ignored.clone(),
        problems: content.problems.clone(),
        refused: content.refused.clone(),
        unclear: content.unclear,
    };
    let parts = parts.iter().map(|(hash, part)| {
        let part = Part {
            line: part.line,
            objects: part.objects.iter().map(&mut copy).collect(),
            ignored: part.ignored.clone(),
        };
        (*hash, part)
    });
    (copied, parts.collect())
}

fn read_here(file: &Path, text: &str, known: Known<'_>, before: &Parts) -> (Content, Parts) {
    let mut whole = Content::default();
    let mut parts = Parts::new();
    let mut budget = Budget::default();
    let mut count = 0;
    for (line, text) in yaml::cut(text) {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let hash = hasher.finish();
        let current = |object: &Object| known(&object.origin) == Some((object.body_hash, object.generation));
        let part = match before.get(&hash).filter(|part| part.objects.iter().all(current)) {
            Some(part) => part.moved(line),
            None => {
                let mut reader = Reader {
                    file,
                    known,
                    content: Content::default(),
                    count,
                };
                match yaml::read(text, line, &mut budget) {
                    Ok(documents) => documents
                        .into_iter()
                        .for_each(|Document { value, lines }| reader.value(value, &lines, 0)),
                    Err(error) => reader.unclear(error.line(), error.to_string(), ""),
                }
                let mut content = reader.content;
                // Kept as long as the file says so, and most often one.
                content.objects.shrink_to_fit();
                if !content.problems.is_empty() {
                    whole.add(content);
                    continue;
                }
                Part {
                    line,
                    objects: content.objects,
                    ignored: content.ignored,
                }
            }
        };
        count += part.objects.len() + part.ignored.len();
        whole.objects.extend(part.objects.iter().cloned());
        whole.ignored.extend(part.ignored.iter().cloned());
        parts.insert(hash, part);
    }
    (whole, parts)
}

impl Part {
    /// The same text, starting on another line.
    fn moved(&self, line: u32) -> Self {
        let place = |own: u32| own - self.line + line;
        let objects = self
            .objects
            .iter()
            .map(|one| Object {
                line: place(one.line),
                ..one.clone()
            })
            .collect();
        let ignored = self
            .ignored
            .iter()
            .map(|one| Unused {
                line: place(one.line),
                ..one.clone()
            })
            .collect();
        Self { line, objects, ignored }
    }
}

impl Content {
    fn add(&mut self, other: Self) {
        self.objects.extend(other.objects);
        self.ignored.extend(other.ignored);
        self.problems.extend(other.problems);
        self.refused.extend(other.refused);
        self.unclear |= other.unclear;
    }
}

struct Reader<'a> {
    file: &'a Path,
    known: Known<'a>,
    content: Content,
    count: usize,
}

impl Reader<'_> {
    fn problem(&mut self, line: u32, origin: Option<Origin>, field: String, message: String, fix: String) {
        let file = self.file.to_owned();
        self.content.problems.push(FileProblem {
            file,
            line,
            origin,
            field,
            message,
            fix,
            last_good_kept: false,
        });
    }

    fn unclear(&mut self, line: u32, message: impl Into<String>, fix: impl Into<String>) {
        self.content.unclear = true;
        self.problem(line, None, String::new(), message.into(), fix.into());
    }

    fn value(&mut self, value: Value, lines: &Lines, depth: usize) {
        let line = lines.start();
        let Value::Object(mut object) = value else {
            return self.unclear(line, "is no object", "start it with apiVersion and kind");
        };
        let word = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (api_version, kind) = (word("apiVersion"), word("kind"));
        if api_version.is_empty() || kind.is_empty() {
            let missing = if api_version.is_empty() { "apiVersion" } else { "kind" };
            return self.unclear(line, format!("an object without {missing}"), format!("add {missing:?}"));
        }
        if is_list(&api_version, &kind) {
            return self.list(&mut object, lines, depth);
        }
        self.count += 1;
        if self.count > MAX_OBJECTS {
            self.content.unclear = true;
            if self.count == MAX_OBJECTS + 1 {
                self.unclear(line, format!("more than {MAX_OBJECTS} objects in one file"), "split it");
            }
            return;
        }
        match schema::find(&api_version, &kind) {
            Found::Kind(kind, schema) => self.object(kind, &schema, object, lines),
            Found::Version(served) => {
                let origin = rough_origin(&kind, &object);
                self.content.refused.extend(origin.clone());
                let what = format!("version {api_version} of {kind} is not served");
                self.problem(
                    line,
                    origin,
                    "apiVersion".into(),
                    what,
                    format!("use {}", served.join(" or ")),
                );
            }
            Found::Other => match schema::group_of(&kind) {
                // Groups without a dot are Kubernetes' own: the kind is ours, the group an old or a mistaken one.
                Some(group)
                    if !api_version
                        .rsplit_once('/')
                        .is_some_and(|(group, _)| group.contains('.')) =>
                {
                    let origin = rough_origin(&kind, &object);
                    self.content.refused.extend(origin.clone());
                    let meant = schema::api_version(group, &kind);
                    let what = format!("{api_version} has no {kind}");
                    self.problem(line, origin, "apiVersion".into(), what, format!("use {meant}"));
                }
                _ => self.content.ignored.push(Unused {
                    line,
                    api_version,
                    kind,
                }),
            },
        }
    }

    fn list(&mut self, list: &mut Map<String, Value>, lines: &Lines, depth: usize) {
        let line = lines.start();
        if depth > 4 {
            return self.unclear(line, "lists within lists within lists", "flatten it");
        }
        match list.shift_remove("items") {
            Some(Value::Array(items)) => {
                let lines_of = lines.items_of("items").to_vec();
                for (index, item) in items.into_iter().enumerate() {
                    self.value(item, lines_of.get(index).unwrap_or(lines), depth + 1);
                }
            }
            None | Some(Value::Null) => {}
            Some(_) => self.unclear(line, "items of a List must be a list", "start each with `- `"),
        }
    }

    fn object(&mut self, kind: &schema::Kind, schema: &schema::Schema, mut object: Map<String, Value>, lines: &Lines) {
        let rough = rough_origin(&kind.name, &object);
        let violations = schema::admit(kind, schema, &mut object);
        if !violations.is_empty() {
            match &rough {
                Some(origin) => self.content.refused.push(origin.clone()),
                None => self.content.unclear = true,
            }
            for violation in violations {
                let line = lines.of(&violation.path);
                let field = schema::path_text(&violation.path);
                self.problem(line, rough.clone(), field, violation.what, violation.fix);
            }
            return;
        }
        let metadata = &object["metadata"];
        let word = |field: &str| metadata[field].as_str().unwrap_or_default().to_owned();
        let origin = Origin::new(&kind.name, &word("namespace"), &word("name"));
        let mut body = DefaultHasher::new();
        for (name, value) in object.iter().filter(|(name, _)| *name != "metadata") {
            (name, value).hash(&mut body);
        }
        let body_hash = body.finish();
        let generation = match (self.known)(&origin) {
            Some((hash, generation)) if hash == body_hash => generation,
            Some((_, generation)) => generation + 1,
            None => 1,
        };
        object["metadata"]["generation"] = generation.into();
        let mut whole = DefaultHasher::new();
        object.hash(&mut whole);
        let hash = whole.finish();
        match Typed::parse(&kind.name, Value::Object(object)) {
            Ok(typed) => {
                let line = lines.start();
                self.content.objects.push(Object {
                    origin,
                    line,
                    hash,
                    body_hash,
                    generation,
                    typed,
                });
            }
            Err(error) => {
                self.content.refused.push(origin.clone());
                self.problem(
                    lines.start(),
                    Some(origin),
                    String::new(),
                    error.to_string(),
                    String::new(),
                );
            }
        }
    }
}

/// `List` of `v1`, and `HTTPRouteList` and the like of any kind of ours.
fn is_list(api_version: &str, kind: &str) -> bool {
    match kind.strip_suffix("List") {
        Some("") => api_version == "v1",
        Some(item) => !matches!(schema::find(api_version, item), Found::Other),
        None => false,
    }
}

/// The object's name as far as it can be told before it is admitted.
fn rough_origin(kind: &str, object: &Map<String, Value>) -> Option<Origin> {
    let metadata = object.get("metadata")?;
    let name = metadata["name"].as_str().filter(|name| !name.is_empty())?;
    let cluster = matches!(
        kind,
        "ClusterTrustBundle" | "GatewayClass" | "IngressClass" | "Namespace"
    );
    let namespace = metadata["namespace"]
        .as_str()
        .filter(|namespace| !namespace.is_empty())
        .unwrap_or("default");
    Some(Origin::new(kind, if cluster { "" } else { namespace }, name))
}

/// Where `field` (as in `spec.rules[0].name`) of the object that starts on `line` stands, by reading the text again.
pub(crate) fn line_of(text: &str, line: u32, field: &str) -> u32 {
    fn find(document: &Lines, value: &Value, line: u32, path: &[Step]) -> Option<u32> {
        let items = value["items"]
            .as_array()
            .into_iter()
            .flatten()
            .zip(document.items_of("items"));
        let own = (document.start() == line && value["items"].is_null()).then(|| document.of(path));
        own.or_else(|| {
            items
                .into_iter()
                .find_map(|(item, lines)| find(lines, item, line, path))
        })
    }
    let path = steps(field);
    let part = yaml::cut(text).into_iter().rev().find(|(start, _)| *start <= line);
    let Some((start, text)) = part else { return line };
    let documents = yaml::read(text, start, &mut Budget::default()).unwrap_or_default();
    documents
        .iter()
        .find_map(|one| find(&one.lines, &one.value, line, &path))
        .unwrap_or(line)
}

/// `spec.rules[0].name` as steps.
fn steps(field: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    for part in field.split('.').filter(|part| !part.is_empty()) {
        let mut pieces = part.split('[');
        steps.extend(
            pieces
                .next()
                .filter(|name| !name.is_empty())
                .map(|name| Step::Field(name.to_owned())),
        );
        steps.extend(
            pieces
                .filter_map(|index| index.trim_end_matches(']').parse().ok())
                .map(Step::Item),
        );
    }
    steps
}

/// Takes over what is the same as before, so that what did not change stays the same value in memory.
pub(crate) fn share(object: &mut Object, before: &Object) {
    if object.hash == before.hash {
        object.typed = before.typed.clone();
    }
}

/// A namespace that objects are in without a Namespace object saying so: the API server would have one.
pub(crate) fn implied_namespace(name: &str) -> Arc<k8s_openapi::api::core::v1::Namespace> {
    let mut namespace = k8s_openapi::api::core::v1::Namespace::default();
    namespace.metadata.name = Some(name.to_owned());
    namespace.metadata.labels = Some([("kubernetes.io/metadata.name".to_owned(), name.to_owned())].into());
    Arc::new(namespace)
}
