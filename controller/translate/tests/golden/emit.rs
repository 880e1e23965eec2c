//! A translation as readable YAML: selected sections, defaults left out, short values in one line.

use pierhead_model::{Limits, Problem};
use pierhead_translate::Translation;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::case::Options;

const WIDTH: usize = 118;

pub(crate) fn sections(translation: &Translation, options: &Options) -> String {
    let snapshot = &translation.snapshot;
    let problems: Vec<String> = translation.problems.iter().map(problem).collect();
    let all = [
        ("problems", value(&problems)),
        ("statuses", value(&translation.statuses)),
        ("binds", value(&snapshot.binds)),
        ("routes", value(&snapshot.routes)),
        ("backends", value(&snapshot.backends)),
        ("endpoints", value(&snapshot.endpoints)),
        ("certificates", value(&snapshot.certificates)),
        ("trust", value(&snapshot.trust)),
        ("owned", value(&snapshot.owned)),
        ("fleet", value(&snapshot.fleet)),
        ("services", value(&translation.services)),
        ("allocations", value(&translation.allocations)),
    ];
    if let Some(unknown) = options.show.iter().find(|s| !all.iter().any(|(name, _)| name == s)) {
        return format!("# there is no section {unknown}\n");
    }
    let mut out = String::new();
    for (name, value) in all {
        let selected = options.show.is_empty() || options.show.iter().any(|s| s == name);
        // A selected section that is empty says so: that nothing came out is what the case is about.
        if selected && (!options.show.is_empty() || !is_empty(&value)) {
            field(&mut out, 0, name, &value);
        }
    }
    out
}

fn problem(problem: &Problem) -> String {
    format!("{:?}: {problem}", problem.severity)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

fn value(what: &impl Serialize) -> Value {
    let mut value = serde_json::to_value(what).expect("model values serialise");
    tidy(
        &mut value,
        &serde_json::to_value(Limits::default()).expect("limits serialise"),
    );
    value
}

/// Leaves out what is not there or as by default, and the ids that stand in the key already.
fn tidy(value: &mut Value, limits: &Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| tidy(item, limits)),
        Value::Object(map) => {
            let noise = |key: &str, value: &Value| {
                value.is_null()
                    || (key == "limits" && value == limits)
                    || (key == "timeouts" && is_empty(value))
                    || (key == "age" && value["created"] == i64::MAX)
                    || (key == "fallback" && value == &Value::Bool(false))
                    || (key == "lastTransitionTime")
                    || (key == "message" && value == "")
            };
            let kept: Map<String, Value> = std::mem::take(map)
                .into_iter()
                .filter(|(key, value)| !noise(key, value))
                .collect();
            *map = kept;
            for (key, value) in map.iter_mut() {
                tidy(value, limits);
                if let Value::Object(inner) = value
                    && inner.get("id").or_else(|| inner.get("key")).is_some_and(|id| id == key)
                {
                    inner.shift_remove("id");
                    inner.shift_remove("key");
                }
            }
        }
        _ => {}
    }
}

fn field(out: &mut String, indent: usize, key: &str, value: &Value) {
    let key = scalar(key);
    let flow = flow(value);
    let pad = " ".repeat(indent);
    if pad.len() + key.len() + 2 + flow.chars().count() <= WIDTH || is_empty(value) {
        out.push_str(&format!("{pad}{key}: {flow}\n"));
        return;
    }
    match value {
        Value::Array(items) => {
            out.push_str(&format!("{pad}{key}:\n"));
            items.iter().for_each(|item| self::item(out, indent, item));
        }
        Value::Object(map) => {
            out.push_str(&format!("{pad}{key}:\n"));
            map.iter().for_each(|(key, value)| field(out, indent + 2, key, value));
        }
        _ => out.push_str(&format!("{pad}{key}: {flow}\n")),
    }
}

fn item(out: &mut String, indent: usize, value: &Value) {
    let flow = flow(value);
    let pad = " ".repeat(indent);
    match value {
        Value::Object(map) if pad.len() + 2 + flow.chars().count() > WIDTH => {
            let mut inner = String::new();
            map.iter()
                .for_each(|(key, value)| field(&mut inner, indent + 2, key, value));
            out.push_str(&format!("{pad}- {}", &inner[indent + 2..]));
        }
        _ => out.push_str(&format!("{pad}- {flow}\n")),
    }
}

fn flow(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let fields: Vec<String> = map.iter().map(|(k, v)| format!("{}: {}", scalar(k), flow(v))).collect();
            format!("{{{}}}", fields.join(", "))
        }
        Value::String(text) => scalar(text),
        other => other.to_string(),
    }
}

/// Plain where YAML reads it back as the same string, even inside `[]` and `{}`.
fn scalar(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && !text.contains([',', '[', ']', '{', '}', '"', '\'', '\n'])
        && !text.contains(": ")
        && !text.contains(" #")
        && !text.ends_with([' ', ':'])
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&text.to_ascii_lowercase().as_str());
    if plain {
        text.to_owned()
    } else {
        Value::String(text.to_owned()).to_string()
    }
}
