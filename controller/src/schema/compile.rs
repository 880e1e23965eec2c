//! A vendored schema file to the tree that validates. A keyword that is not evaluated here is an error, so that no
//! part of a schema is ever skipped.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::Kind;
use crate::cel::{self, Expr};

/// Why a schema file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("not JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{0} is missing or of another type")]
    Shape(&'static str),
    #[error("keyword {0:?} is not evaluated")]
    Keyword(String),
    #[error("type {0:?} is not evaluated")]
    Type(String),
    #[error("format {0:?} is not evaluated")]
    Format(String),
    #[error("rule {0:?}: {1}")]
    Rule(String, cel::ParseError),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Any,
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
    IntOrString,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Int32,
    Int64,
    DateTime,
    Ipv4,
    Ipv6,
    Byte,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ListType {
    Atomic,
    Set,
    Map(Vec<String>),
}

#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) expr: Expr,
    pub(crate) message: String,
}

#[derive(Debug)]
pub(crate) struct Schema {
    pub(crate) kind: Type,
    pub(crate) properties: BTreeMap<String, Self>,
    pub(crate) additional: Option<Box<Self>>,
    pub(crate) items: Option<Box<Self>>,
    pub(crate) required: Vec<String>,
    pub(crate) default: Option<Value>,
    pub(crate) choices: Vec<Value>,
    pub(crate) pattern: Option<Arc<cel::Pattern>>,
    pub(crate) format: Option<Format>,
    pub(crate) length: (Option<u64>, Option<u64>),
    pub(crate) value: (Option<i64>, Option<i64>),
    pub(crate) count: (Option<u64>, Option<u64>),
    pub(crate) max_properties: Option<u64>,
    pub(crate) list: ListType,
    pub(crate) any_of: Vec<Self>,
    pub(crate) one_of: Vec<Self>,
    pub(crate) not: Option<Box<Self>>,
    pub(crate) rules: Vec<Rule>,
}

/// Patterns repeat (names, durations, host names): each distinct one is compiled once.
type Patterns = BTreeMap<String, Arc<cel::Pattern>>;

pub(crate) fn kind(text: &str) -> Result<Kind, Error> {
    let file: Value = serde_json::from_str(text)?;
    let word = |name: &'static str| file[name].as_str().map(str::to_owned).ok_or(Error::Shape(name));
    let mut patterns = Patterns::new();
    let mut versions: Vec<(String, Arc<Schema>)> = Vec::new();
    for (version, schema) in file["versions"].as_object().ok_or(Error::Shape("versions"))? {
        let compiled = match schema {
            Value::String(same) => {
                let same = versions.iter().find(|(name, _)| name == same);
                same.map(|(_, schema)| Arc::clone(schema))
                    .ok_or(Error::Shape("version"))?
            }
            schema => Arc::new(compile(schema, &mut patterns)?),
        };
        versions.push((version.clone(), compiled));
    }
    Ok(Kind {
        group: word("group")?,
        name: word("kind")?,
        namespaced: word("scope")? == "Namespaced",
        versions,
    })
}

/// A CustomResourceDefinition of ours.
pub(crate) fn definition(crd: &Value) -> Result<Kind, Error> {
    let spec = &crd["spec"];
    let word = |value: &Value, name: &'static str| value.as_str().map(str::to_owned).ok_or(Error::Shape(name));
    let mut patterns = Patterns::new();
    let mut versions = Vec::new();
    for version in spec["versions"].as_array().ok_or(Error::Shape("versions"))? {
        let mut schema = version["schema"]["openAPIV3Schema"].clone();
        // The envelope is checked for all kinds alike.
        if let Some(properties) = schema["properties"].as_object_mut() {
            properties.retain(|name, _| !["apiVersion", "kind", "metadata", "status"].contains(&name.as_str()));
        }
        versions.push((
            word(&version["name"], "name")?,
            Arc::new(compile(&schema, &mut patterns)?),
        ));
    }
    Ok(Kind {
        group: word(&spec["group"], "group")?,
        name: word(&spec["names"]["kind"], "kind")?,
        namespaced: spec["scope"] == "Namespaced",
        versions,
    })
}

fn compile(schema: &Value, patterns: &mut Patterns) -> Result<Schema, Error> {
    let map: &Map<String, Value> = schema.as_object().ok_or(Error::Shape("schema"))?;
    let mut made = Schema {
        kind: Type::Any,
        properties: BTreeMap::new(),
        additional: None,
        items: None,
        required: Vec::new(),
        default: None,
        choices: Vec::new(),
        pattern: None,
        format: None,
        length: (None, None),
        value: (None, None),
        count: (None, None),
        max_properties: None,
        list: ListType::Atomic,
        any_of: Vec::new(),
        one_of: Vec::new(),
        not: None,
        rules: Vec::new(),
    };
    for (keyword, value) in map {
        match keyword.as_str() {
            "type" => {
                made.kind = match value.as_str() {
                    Some("object") => Type::Object,
                    Some("array") => Type::Array,
                    Some("string") => Type::String,
                    Some("integer") => Type::Integer,
                    Some("number") => Type::Number,
                    Some("boolean") => Type::Boolean,
                    _ => return Err(Error::Type(value.to_string())),
                }
            }
            "x-kubernetes-int-or-string" => made.kind = Type::IntOrString,
            "properties" => {
                for (name, schema) in value.as_object().ok_or(Error::Shape("properties"))? {
                    made.properties.insert(name.clone(), compile(schema, patterns)?);
                }
            }
            "additionalProperties" => made.additional = Some(Box::new(compile(value, patterns)?)),
            "items" => made.items = Some(Box::new(compile(value, patterns)?)),
            "not" => made.not = Some(Box::new(compile(value, patterns)?)),
            "anyOf" => made.any_of = list(value, patterns)?,
            "oneOf" => made.one_of = list(value, patterns)?,
            "required" => made.required = words(value)?,
            "default" => made.default = Some(value.clone()),
            "enum" => made.choices = value.as_array().ok_or(Error::Shape("enum"))?.clone(),
            "pattern" => made.pattern = Some(pattern(value, patterns)?),
            "format" => made.format = Some(format(value)?),
            "minLength" => made.length.0 = value.as_u64(),
            "maxLength" => made.length.1 = value.as_u64(),
            "minimum" => made.value.0 = value.as_i64(),
            "maximum" => made.value.1 = value.as_i64(),
            "minItems" => made.count.0 = value.as_u64(),
            "maxItems" => made.count.1 = value.as_u64(),
            "maxProperties" => made.max_properties = value.as_u64(),
            "x-kubernetes-list-type" => {
                made.list = match value.as_str() {
                    Some("atomic") => ListType::Atomic,
                    Some("set") => ListType::Set,
                    Some("map") => ListType::Map(match map.get("x-kubernetes-list-map-keys") {
                        Some(keys) => words(keys)?,
                        None => return Err(Error::Shape("x-kubernetes-list-map-keys")),
                    }),
                    _ => return Err(Error::Shape("x-kubernetes-list-type")),
                }
            }
            "x-kubernetes-validations" => made.rules = rules(value)?,
            // Read with the list type; and how to merge in server-side apply.
            "x-kubernetes-list-map-keys" | "x-kubernetes-map-type" | "description" => {}
            other => return Err(Error::Keyword(other.to_owned())),
        }
    }
    Ok(made)
}

fn list(value: &Value, patterns: &mut Patterns) -> Result<Vec<Schema>, Error> {
    value
        .as_array()
        .ok_or(Error::Shape("list of schemas"))?
        .iter()
        .map(|schema| compile(schema, patterns))
        .collect()
}

fn words(value: &Value) -> Result<Vec<String>, Error> {
    let list = value.as_array().ok_or(Error::Shape("list of words"))?;
    list.iter()
        .map(|word| word.as_str().map(str::to_owned).ok_or(Error::Shape("word")))
        .collect()
}

fn pattern(value: &Value, patterns: &mut Patterns) -> Result<Arc<cel::Pattern>, Error> {
    let text = value.as_str().ok_or(Error::Shape("pattern"))?;
    let known = patterns
        .entry(text.to_owned())
        .or_insert_with(|| Arc::new(cel::Pattern::new(text.to_owned())));
    Ok(Arc::clone(known))
}

fn format(value: &Value) -> Result<Format, Error> {
    Ok(match value.as_str() {
        Some("int32") => Format::Int32,
        Some("int64") => Format::Int64,
        Some("date-time") => Format::DateTime,
        Some("ipv4") => Format::Ipv4,
        Some("ipv6") => Format::Ipv6,
        Some("byte") => Format::Byte,
        _ => return Err(Error::Format(value.to_string())),
    })
}

fn rules(value: &Value) -> Result<Vec<Rule>, Error> {
    let mut rules = Vec::new();
    for rule in value.as_array().ok_or(Error::Shape("x-kubernetes-validations"))? {
        let known = ["rule", "message"];
        if let Some(other) = rule
            .as_object()
            .into_iter()
            .flatten()
            .find(|(key, _)| !known.contains(&key.as_str()))
        {
            return Err(Error::Keyword(other.0.clone()));
        }
        let text = rule["rule"].as_str().ok_or(Error::Shape("rule"))?;
        let expr = cel::parse(text).map_err(|error| Error::Rule(text.to_owned(), error))?;
        // Transition rules compare with the stored object. What a file holds is created, each time it is read.
        if expr.names("oldSelf") {
            continue;
        }
        let message = rule["message"].as_str().unwrap_or(text).to_owned();
        rules.push(Rule { expr, message });
    }
    Ok(rules)
}

impl Schema {
    /// Compiles every pattern now; they are otherwise compiled when first needed.
    #[cfg(test)]
    pub(crate) fn broken_patterns(&self) -> Vec<String> {
        let own = self.pattern.iter().map(|pattern| &**pattern);
        let all = own.chain(self.rules.iter().flat_map(|rule| rule.expr.patterns()));
        let mut broken: Vec<_> = all
            .filter(|pattern| pattern.regex().is_none())
            .map(|pattern| pattern.text.clone())
            .collect();
        let parts = self.properties.values().chain(&self.any_of).chain(&self.one_of);
        let boxed = [&self.additional, &self.items, &self.not];
        let parts = parts.chain(boxed.into_iter().flatten().map(|schema| &**schema));
        broken.extend(parts.flat_map(Self::broken_patterns));
        broken
    }
}
