//! Names, labels and other words: who may be called what, and which word was meant.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Kind, Schema, Violation, validate};
use crate::yaml::Step;

/// All annotations together (`k8s.io/apimachinery` `TotalAnnotationSizeLimitB`).
const MAX_ANNOTATIONS: usize = 256 << 10;

/// `a.b-c`: at most 253 characters of labels joined by dots (RFC 1123).
pub(crate) fn is_dns1123_subdomain(text: &str) -> bool {
    text.len() <= 253 && !text.is_empty() && text.split('.').all(is_dns1123_part)
}

/// `b-c`: at most 63 lower-case letters, digits and inner dashes (RFC 1123).
pub(crate) fn is_dns1123_label(text: &str) -> bool {
    text.len() <= 63 && is_dns1123_part(text)
}

fn is_dns1123_part(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// `prefix.example/Name`, or `Name` alone: the form of label keys, annotation keys and `appProtocol`.
pub(crate) fn is_qualified_name(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_dns1123_subdomain(prefix) && is_label_word(name) && !name.is_empty(),
        None => is_label_word(text) && !text.is_empty(),
    }
}

fn is_label_word(text: &str) -> bool {
    let edge = |byte: Option<u8>| byte.is_none_or(|byte| byte.is_ascii_alphanumeric());
    text.len() <= 63
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        && edge(text.bytes().next())
        && edge(text.bytes().last())
}

/// The name of a port as `targetPort` gives it (RFC 6335 §5.1, lower case).
pub(crate) fn is_port_name(text: &str) -> bool {
    text.len() <= 15
        && is_dns1123_part(text)
        && text.bytes().any(|byte| byte.is_ascii_lowercase())
        && !text.contains("--")
}

/// Standard base64 with padding.
pub(crate) fn is_base64(text: &str) -> bool {
    // Go's decoder skips line ends.
    let bytes: Vec<u8> = text.bytes().filter(|byte| !matches!(byte, b'\n' | b'\r')).collect();
    let body = bytes
        .strip_suffix(b"==")
        .or_else(|| bytes.strip_suffix(b"="))
        .unwrap_or(&bytes);
    bytes.len().is_multiple_of(4)
        && body
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
}

/// RFC 3339, as `metav1.Time` reads it.
pub(crate) fn is_date_time(text: &str) -> bool {
    let shape = b"0000-00-00T00:00:00";
    let bytes = text.as_bytes();
    let Some(head) = bytes.get(..shape.len()) else {
        return false;
    };
    let fits = head.iter().zip(shape).all(|(byte, form)| {
        if *form == b'0' {
            byte.is_ascii_digit()
        } else {
            byte == form
        }
    });
    let number = |at: usize| u32::from(head[at] - b'0') * 10 + u32::from(head[at + 1] - b'0');
    if !fits || !(1..=12).contains(&number(5)) || !(1..=31).contains(&number(8)) {
        return false;
    }
    if number(11) > 23 || number(14) > 59 || number(17) > 60 {
        return false;
    }
    let rest = &text[shape.len()..];
    let rest = match rest.strip_prefix('.') {
        Some(fraction) => fraction.trim_start_matches(|c: char| c.is_ascii_digit()),
        None => rest,
    };
    let zone = rest.as_bytes();
    rest == "Z"
        || (zone.len() == 6
            && matches!(zone[0], b'+' | b'-')
            && zone[3] == b':'
            && [1, 2, 4, 5].into_iter().all(|at| zone[at].is_ascii_digit()))
}

/// Checks and completes `metadata`: the same for every kind.
pub(crate) fn metadata(kind: &Kind, metadata: &mut Value, schema: &Schema, found: &mut Vec<Violation>) {
    let start = vec![Step::Field("metadata".into())];
    let before = found.len();
    validate::visit(schema, metadata, &mut start.clone(), found);
    let Value::Object(map) = metadata else { return };
    if found.len() > before {
        return;
    }
    let mut report = |field: &str, what: String, fix: String| {
        let path = [start[0].clone(), Step::Field(field.to_owned())].to_vec();
        found.push(Violation { path, what, fix });
    };
    let label = matches!(&*kind.name, "Namespace" | "Service");
    match map.get("name").and_then(Value::as_str) {
        None if map.contains_key("generateName") => {
            report(
                "name",
                "is missing".into(),
                "give a name: generateName needs an API server".into(),
            );
        }
        None => report("name", "required field is missing".into(), "add \"name\"".into()),
        Some(name) if label && !is_dns1123_label(name) => report(
            "name",
            format!("{name:?} is not a name for a {}", kind.name),
            "use at most 63 lower-case letters, digits and inner dashes".into(),
        ),
        // `signer.example:foo:v1`: what stands before a colon is the name of a signer.
        Some(name) if kind.name == "ClusterTrustBundle" && name.split(':').all(is_dns1123_subdomain) => {}
        Some(name) if !is_dns1123_subdomain(name) => report(
            "name",
            format!("{name:?} is not a name"),
            "use lower-case letters, digits, dashes and dots, at most 253".into(),
        ),
        Some(_) => {}
    }
    match (kind.namespaced, map.get("namespace").and_then(Value::as_str)) {
        (true, None | Some("")) => {
            map.insert("namespace".into(), "default".into());
        }
        (true, Some(namespace)) if !is_dns1123_label(namespace) => report(
            "namespace",
            format!("{namespace:?} is not a namespace name"),
            "use at most 63 lower-case letters, digits and inner dashes".into(),
        ),
        // kubectl drops it too: the kind has no namespaces.
        (false, _) => {
            map.shift_remove("namespace");
        }
        (true, Some(_)) => {}
    }
    let labels = words(map, "labels");
    for (key, value) in &labels {
        if !is_qualified_name(key) || !is_label_word(value) {
            let fix = "keys are [prefix/]name, values at most 63 letters, digits, '-', '_', '.'".into();
            report("labels", format!("\"{key}: {value}\" is not a label"), fix);
        }
    }
    let annotations = words(map, "annotations");
    for key in annotations.keys() {
        if !is_qualified_name(&key.to_ascii_lowercase()) {
            report(
                "annotations",
                format!("{key:?} is not an annotation key"),
                "write [prefix/]name".into(),
            );
        }
    }
    if annotations
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum::<usize>()
        > MAX_ANNOTATIONS
    {
        report(
            "annotations",
            "are larger than 256 KiB together".into(),
            "shorten them".into(),
        );
    }
    // The server's own book-keeping, meaningless without one.
    for name in ["managedFields", "resourceVersion", "uid", "selfLink"] {
        map.shift_remove(name);
    }
}

/// The API server labels every namespace with its name.
pub(crate) fn label_namespace(metadata: &mut Value) {
    let name = metadata["name"].clone();
    if let Value::Object(map) = metadata
        && name.is_string()
        && let Value::Object(labels) = map.entry("labels").or_insert_with(|| Value::Object(Map::new()))
    {
        labels.insert("kubernetes.io/metadata.name".into(), name);
    }
}

fn words(map: &Map<String, Value>, field: &str) -> BTreeMap<String, String> {
    let object = map.get(field).and_then(Value::as_object).into_iter().flatten();
    object
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

/// The fix for an unknown field.
pub(crate) fn suggest(name: &str, known: &[&str]) -> String {
    match closest(name, known) {
        Some(meant) => format!("did you mean {meant:?}?"),
        None => format!("remove it; known here: {}", abridged(known)),
    }
}

/// The fix for a value that is no choice.
pub(crate) fn suggest_value(value: &str, known: &[&str]) -> String {
    match closest(value, known) {
        Some(meant) => format!("did you mean {meant:?}?"),
        None => format!("use one of {}", abridged(known)),
    }
}

fn abridged(known: &[&str]) -> String {
    let mut text = known.iter().take(12).copied().collect::<Vec<_>>().join(", ");
    if known.len() > 12 {
        text.push_str(", …");
    }
    text
}

/// The known word at most a third of its letters away.
pub(crate) fn closest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let word = word.to_ascii_lowercase();
    if word.len() > 64 {
        return None;
    }
    let within: Vec<_> = known
        .iter()
        .filter(|other| other.to_ascii_lowercase().contains(&word))
        .collect();
    if let ([only], true) = (&within[..], word.len() >= 3) {
        return Some(only);
    }
    let near = known
        .iter()
        .map(|other| (distance(&word, &other.to_ascii_lowercase()), *other))
        .min()?;
    (near.0 <= near.1.len().max(3) / 3).then_some(near.1)
}

/// Edits (insert, remove, replace, swap neighbours) from one word to the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut rows: Vec<Vec<usize>> = (0..=a.len()).map(|i| (i..=i + b.len()).collect()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

/// What a pattern of the schemas asks for, in words where it is a known one.
pub(crate) fn explain_pattern(pattern: &str) -> String {
    const LABEL: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?";
    let subdomain = format!(r"{LABEL}(\.{LABEL})*");
    let known = [
        (format!("^{LABEL}$"), "use lower-case letters, digits and inner dashes"),
        (
            format!("^{subdomain}$"),
            "use lower-case letters, digits, dashes and dots",
        ),
        (
            format!("^$|^{subdomain}$"),
            "use lower-case letters, digits, dashes and dots, or leave it empty",
        ),
        (
            format!(r"^(\*\.)?{subdomain}$"),
            "use a host name in lower case, with `*.` at most in front",
        ),
        (
            "^([0-9]{1,5}(h|m|s|ms)){1,4}$".to_owned(),
            "write a duration such as 1h, 30s or 500ms",
        ),
        (
            "^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$".to_owned(),
            "use letters, digits and inner dashes",
        ),
    ];
    let explained = known.iter().find(|(text, _)| text == pattern);
    explained.map_or_else(|| format!("it must match {pattern}"), |(_, words)| (*words).to_owned())
}
