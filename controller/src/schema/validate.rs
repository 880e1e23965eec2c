//! A value against a schema: nulls dropped, defaults set, everything wrong named. No knowledge of kinds.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use super::compile::{Format, ListType, Schema, Type};
use super::{Violation, names};
use crate::cel;
use crate::yaml::Step;

/// Checks `value` and completes it in place. `path` is where it stands; the same on return.
pub(crate) fn visit(schema: &Schema, value: &mut Value, path: &mut Vec<Step>, found: &mut Vec<Violation>) {
    let before = found.len();
    if !type_fits(schema.kind, value) {
        found.push(mismatch(schema, value, path));
        return;
    }
    match value {
        Value::Object(_) => object(schema, value, path, found),
        Value::Array(_) => array(schema, value, path, found),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    if let Some((what, fix)) = leaf(schema, value) {
        found.push(Violation {
            path: path.clone(),
            what,
            fix,
        });
    }
    let alternatives = |list: &[Schema]| list.iter().filter(|schema| fits(schema, value)).count();
    if !schema.any_of.is_empty() && alternatives(&schema.any_of) == 0
        || !schema.one_of.is_empty() && alternatives(&schema.one_of) != 1
        || schema.not.as_ref().is_some_and(|schema| fits(schema, value))
    {
        found.push(Violation {
            path: path.clone(),
            what: misfit(value),
            fix: String::new(),
        });
    }
    // The API server evaluates rules only on what the schema accepts.
    if found.len() == before {
        for rule in &schema.rules {
            let broken = match cel::holds(&rule.expr, value) {
                Ok(true) => continue,
                Ok(false) => rule.message.clone(),
                Err(failure) => format!("{} (cannot be evaluated: {failure})", rule.message),
            };
            found.push(Violation {
                path: path.clone(),
                what: broken,
                fix: String::new(),
            });
        }
    }
}

fn object(schema: &Schema, value: &mut Value, path: &mut Vec<Step>, found: &mut Vec<Violation>) {
    let Value::Object(map) = value else { return };
    // "Null values for fields that either don't have the nullable flag … will be pruned before defaulting happens."
    if !schema.properties.is_empty() {
        map.retain(|name, value| !value.is_null() || !schema.properties.contains_key(name));
    }
    for (name, property) in &schema.properties {
        if let Some(default) = &property.default
            && !map.contains_key(name)
        {
            map.insert(name.clone(), default.clone());
        }
    }
    for (name, value) in map.iter_mut() {
        path.push(Step::Field(name.clone()));
        if let Some(property) = schema.properties.get(name) {
            visit(property, value, path, found);
        } else if let Some(additional) = &schema.additional {
            visit(additional, value, path, found);
        } else if !schema.properties.is_empty() {
            let known: Vec<&str> = schema.properties.keys().map(String::as_str).collect();
            found.push(Violation {
                path: path.clone(),
                what: format!("unknown field {name:?}"),
                fix: names::suggest(name, &known),
            });
        }
        path.pop();
    }
    for name in &schema.required {
        if !map.contains_key(name) {
            path.push(Step::Field(name.clone()));
            found.push(Violation {
                path: path.clone(),
                what: "required field is missing".into(),
                fix: format!("add {name:?}"),
            });
            path.pop();
        }
    }
    if let Some(most) = schema.max_properties.filter(|most| map.len() as u64 > *most) {
        found.push(Violation {
            path: path.clone(),
            what: format!("has {} entries", map.len()),
            fix: format!("give at most {most}"),
        });
    }
}

fn array(schema: &Schema, value: &mut Value, path: &mut Vec<Step>, found: &mut Vec<Violation>) {
    let Value::Array(list) = value else { return };
    let length = list.len() as u64;
    let fix = match schema.count {
        (Some(least), _) if length < least => Some(format!("give at least {least}")),
        (_, Some(most)) if length > most => Some(format!("give at most {most}")),
        _ => None,
    };
    if let Some(fix) = fix {
        found.push(Violation {
            path: path.clone(),
            what: format!("has {length} items"),
            fix,
        });
        // What is too long for the API server is not walked: its size was bounded for a reason.
        return;
    }
    if let Some(items) = &schema.items {
        for (index, item) in list.iter_mut().enumerate() {
            path.push(Step::Item(index));
            visit(items, item, path, found);
            path.pop();
        }
    }
    let key = |item: &Value| match &schema.list {
        ListType::Atomic => None,
        ListType::Set => Some(item.to_string()),
        ListType::Map(keys) => Some(keys.iter().map(|key| format!("{key} {} ", item[key])).collect()),
    };
    let mut seen = BTreeSet::new();
    for (index, item) in list.iter().enumerate() {
        if let Some(key) = key(item)
            && !seen.insert(key.clone())
        {
            path.push(Step::Item(index));
            let what = format!("is given twice ({})", key.trim_end());
            found.push(Violation {
                path: path.clone(),
                what,
                fix: "keep one".into(),
            });
            path.pop();
        }
    }
}

fn type_fits(kind: Type, value: &Value) -> bool {
    match kind {
        Type::Any => true,
        Type::Object => value.is_object(),
        Type::Array => value.is_array(),
        Type::String => value.is_string(),
        Type::Integer => value.is_i64(),
        Type::Number => value.is_number(),
        Type::Boolean => value.is_boolean(),
        Type::IntOrString => value.is_i64() || value.is_string(),
    }
}

fn mismatch(schema: &Schema, value: &Value, path: &[Step]) -> Violation {
    let wanted = match schema.kind {
        Type::Any => "anything",
        Type::Object => "an object",
        Type::Array => "a list",
        Type::String => "a string",
        Type::Integer => "a whole number",
        Type::Number => "a number",
        Type::Boolean => "true or false",
        Type::IntOrString => "a whole number or a string",
    };
    let got = match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(value) => format!("the boolean {value}"),
        Value::Number(value) => format!("the number {value}"),
        Value::String(_) => "a string".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    };
    let fix = match (schema.kind, value) {
        (Type::String, Value::Bool(_) | Value::Number(_)) => "put it in quotes".to_owned(),
        (Type::Array, Value::Null) => "write a list, or remove the field".to_owned(),
        (Type::Array, _) => "start each item with `- `".to_owned(),
        (Type::Integer | Type::Number | Type::Boolean, Value::String(_)) => "remove the quotes".to_owned(),
        _ => format!("write {wanted}"),
    };
    Violation {
        path: path.to_vec(),
        what: format!("must be {wanted}, not {got}"),
        fix,
    }
}

/// What is wrong with a value in itself, and the fix.
fn leaf(schema: &Schema, value: &Value) -> Option<(String, String)> {
    if !schema.choices.is_empty() && !schema.choices.contains(value) {
        let known: Vec<&str> = schema.choices.iter().filter_map(Value::as_str).collect();
        let fix = match value.as_str() {
            Some(text) if known.len() > 1 => names::suggest_value(text, &known),
            _ => format!("use {}", known.join(", ")),
        };
        return Some((format!("{value} is not a choice"), fix));
    }
    match value {
        Value::String(text) => string(schema, text),
        Value::Number(number) => {
            let number = number.as_i64()?;
            if schema.format == Some(Format::Int32) && i32::try_from(number).is_err() {
                return Some((format!("{number} does not fit 32 bits"), "use a smaller number".into()));
            }
            match schema.value {
                (Some(least), Some(most)) if number < least || number > most => {
                    Some((format!("{number} is out of range"), format!("use {least} to {most}")))
                }
                (Some(least), _) if number < least => {
                    Some((format!("{number} is too small"), format!("use at least {least}")))
                }
                (_, Some(most)) if number > most => {
                    Some((format!("{number} is too large"), format!("use at most {most}")))
                }
                _ => None,
            }
        }
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn string(schema: &Schema, text: &str) -> Option<(String, String)> {
    let length = text.chars().count() as u64;
    match schema.length {
        (Some(least), _) if length < least => {
            let what = if length == 0 {
                "must not be empty".into()
            } else {
                format!("has {length} characters")
            };
            return Some((what, format!("give at least {least}")));
        }
        (_, Some(most)) if length > most => {
            return Some((format!("has {length} characters"), format!("give at most {most}")));
        }
        _ => {}
    }
    if let Some(pattern) = &schema.pattern
        && !pattern.regex().is_some_and(|regex| regex.is_match(text.as_bytes()))
    {
        return Some((
            format!("{text:?} is not allowed here"),
            names::explain_pattern(&pattern.text),
        ));
    }
    let fits = match schema.format {
        Some(Format::DateTime) => names::is_date_time(text),
        Some(Format::Ipv4) => text.parse::<Ipv4Addr>().is_ok(),
        Some(Format::Ipv6) => text.parse::<Ipv6Addr>().is_ok(),
        Some(Format::Byte) => names::is_base64(text),
        Some(Format::Int32 | Format::Int64) | None => true,
    };
    if fits {
        return None;
    }
    let fix = match schema.format {
        Some(Format::DateTime) => "write it as 2026-01-31T12:00:00Z",
        Some(Format::Byte) => "encode it in base64 (or give it under stringData, as it is)",
        _ => "write an IP address",
    };
    Some((format!("{} is malformed", abridged(text)), fix.into()))
}

/// A value quoted, short enough for one line.
fn abridged(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((at, _)) => format!("{:?}…", &text[..at]),
        None => format!("{text:?}"),
    }
}

/// Does the value satisfy an alternative? Alternatives judge values; they neither complete them nor close objects.
fn fits(schema: &Schema, value: &Value) -> bool {
    let members = value.as_object().is_none_or(|map| {
        schema
            .properties
            .iter()
            .all(|(name, schema)| map.get(name).is_none_or(|value| fits(schema, value)))
            && schema.required.iter().all(|name| map.contains_key(name))
    });
    members
        && type_fits(schema.kind, value)
        && leaf(schema, value).is_none()
        && (schema.any_of.is_empty() || schema.any_of.iter().any(|schema| fits(schema, value)))
        && (schema.one_of.is_empty() || schema.one_of.iter().filter(|schema| fits(schema, value)).count() == 1)
        && !schema.not.as_ref().is_some_and(|schema| fits(schema, value))
}

/// The only alternatives of the schemas are those of addresses.
fn misfit(value: &Value) -> String {
    match (value["type"].as_str(), value["value"].as_str()) {
        (Some("IPAddress"), Some(text)) => {
            format!("{text:?} is not an IP address: write one, or set type to \"Hostname\"")
        }
        _ => "fits none, or more than one, of the alternatives of its schema".into(),
    }
}
