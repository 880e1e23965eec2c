//! YAML (and so JSON) text to plain values, each with the line it stands on.
//!
//! Scalars mean what they mean to `kubectl`, which reads YAML 1.1: `on` is true and `010` is eight. Everything is
//! bounded, because a folder of configuration is input like any other: depth, nodes (aliases count each time they are
//! used) and documents. Knows nothing of Kubernetes.

use std::borrow::Cow;
use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};
use serde_json::{Map, Number, Value};

/// Deepest nesting accepted. The deepest Kubernetes object we know has 12 levels.
const MAX_DEPTH: usize = 64;
/// Most values in one file. 40,000 routes are some 1.5 million.
const MAX_NODES: usize = 2_000_000;
/// Most documents in one file.
pub(crate) const MAX_DOCUMENTS: usize = 100_000;

/// One document of a stream: its value and the lines of its parts.
#[derive(Debug, PartialEq)]
pub(crate) struct Document {
    pub(crate) value: Value,
    pub(crate) lines: Lines,
}

/// The line (from 1) a value starts on, and those of its parts.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Lines {
    line: u32,
    parts: Parts,
}

#[derive(Clone, Debug, Default, PartialEq)]
enum Parts {
    #[default]
    None,
    Items(Vec<Lines>),
    Fields(Fields),
}

/// Key, line of the key, lines of the value.
type Fields = Vec<(String, u32, Lines)>;

/// One step from a value to a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Field(String),
    Item(usize),
}

impl Lines {
    pub(crate) fn start(&self) -> u32 {
        self.line
    }

    /// The line of the deepest part of `path` that is written in the file.
    pub(crate) fn of(&self, path: &[Step]) -> u32 {
        let mut here = self;
        let mut line = self.line;
        for step in path {
            match (&here.parts, step) {
                (Parts::Items(items), Step::Item(index)) => match items.get(*index) {
                    Some(item) => {
                        here = item;
                        line = item.line;
                    }
                    None => return line,
                },
                (Parts::Fields(fields), Step::Field(name)) => match fields.iter().find(|(key, ..)| key == name) {
                    Some((_, key_line, value)) => {
                        here = value;
                        line = *key_line;
                    }
                    None => return line,
                },
                _ => return line,
            }
        }
        line
    }

    /// The lines of the items of field `name`, as long as it is a list.
    pub(crate) fn items_of(&self, name: &str) -> &[Self] {
        if let Parts::Fields(fields) = &self.parts
            && let Some((_, _, lines)) = fields.iter().find(|(key, ..)| key == name)
            && let Parts::Items(items) = &lines.parts
        {
            return items;
        }
        &[]
    }
}

/// Why a text is not usable, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("not valid YAML: {info}")]
    Syntax { line: u32, info: String },
    #[error("key {key:?} is given twice (first on line {first}): keep one")]
    DuplicateKey { line: u32, first: u32, key: String },
    #[error("a mapping key must be a plain word or a string")]
    ComplexKey { line: u32 },
    #[error("nested deeper than {MAX_DEPTH} levels: flatten it")]
    TooDeep { line: u32 },
    #[error("more than {MAX_NODES} values in one file (aliases count each time they are used): split it")]
    TooManyNodes { line: u32 },
    #[error("more than {MAX_DOCUMENTS} documents in one file: split it")]
    TooManyDocuments { line: u32 },
    #[error("alias to an anchor that is still open")]
    RecursiveAlias { line: u32 },
    #[error("`<<` must name a mapping or a list of mappings")]
    BadMerge { line: u32 },
    #[error("{text:?} has no JSON form: write a finite number or quote it")]
    NotJson { line: u32, text: String },
    #[error("tag {tag} is not supported: remove it")]
    UnknownTag { line: u32, tag: String },
}

impl Error {
    pub(crate) fn line(&self) -> u32 {
        match self {
            Self::Syntax { line, .. }
            | Self::DuplicateKey { line, .. }
            | Self::ComplexKey { line }
            | Self::TooDeep { line }
            | Self::TooManyNodes { line }
            | Self::TooManyDocuments { line }
            | Self::RecursiveAlias { line }
            | Self::BadMerge { line }
            | Self::NotJson { line, .. }
            | Self::UnknownTag { line, .. } => *line,
        }
    }
}

/// How many values may still be made, over all texts read with it.
#[derive(Debug)]
pub(crate) struct Budget(usize);

impl Default for Budget {
    fn default() -> Self {
        Self(MAX_NODES)
    }
}

/// All documents of `text`, empty ones left out. `line` is the number of its first line.
pub(crate) fn read(text: &str, line: u32, budget: &mut Budget) -> Result<Vec<Document>, Error> {
    // A byte order mark is no content (YAML 1.2 §5.2).
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match read_yaml(text, line, budget) {
        // JSON that is not YAML (surrogate pairs, tabs): its own parser decides, without lines.
        Err(yaml) if text.trim_start().starts_with(['{', '[']) => match serde_json::from_str(text) {
            Ok(value) => Ok(vec![Document {
                value,
                lines: Lines {
                    line,
                    parts: Parts::None,
                },
            }]),
            Err(_) => Err(yaml),
        },
        other => other,
    }
}

/// Cuts a text where its documents start, so that each can be read on its own: line of the first line, and text. A line
/// that starts with `---` is a document's start wherever it stands (YAML 1.2 §9.1.2); only directives belong to what
/// follows, so a text with one stays whole.
pub(crate) fn cut(text: &str) -> Vec<(u32, &str)> {
    if text.starts_with('%') || text.contains("\n%") {
        return vec![(1, text)];
    }
    let mut parts = Vec::new();
    let (mut start, mut start_line) = (0, 1);
    let mut at = 0;
    for (line, content) in (1..).zip(text.split_inclusive('\n')) {
        let marker = content
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        if marker && at > start {
            parts.push((start_line, &text[start..at]));
            (start, start_line) = (at, line);
        }
        at += content.len();
    }
    parts.push((start_line, &text[start..]));
    parts
}

fn read_yaml(text: &str, line: u32, budget: &mut Budget) -> Result<Vec<Document>, Error> {
    let parser = Parser::new_from_str(text);
    let mut reader = Reader {
        parser,
        anchors: HashMap::new(),
        before: line.saturating_sub(1),
        budget,
    };
    let mut documents = Vec::new();
    while let Some((event, span)) = reader.next()? {
        match event {
            Event::DocumentStart(_) => {
                if documents.len() == MAX_DOCUMENTS {
                    return Err(Error::TooManyDocuments {
                        line: reader.line(span),
                    });
                }
                reader.anchors.clear();
                if let Some((event, span)) = reader.next()? {
                    let (value, lines) = reader.node(event, span, 0)?;
                    if !value.is_null() {
                        documents.push(Document { value, lines });
                    }
                }
            }
            Event::StreamEnd => break,
            _ => {}
        }
    }
    Ok(documents)
}

struct Reader<'input, 'budget> {
    parser: Parser<'input, saphyr_parser::StrInput<'input>>,
    /// Finished anchored nodes of this document, with how many nodes each holds.
    anchors: HashMap<usize, (Value, Lines, usize)>,
    /// Lines before the text.
    before: u32,
    budget: &'budget mut Budget,
}

impl<'input> Reader<'input, '_> {
    fn line(&self, span: Span) -> u32 {
        self.before + u32::try_from(span.start.line()).unwrap_or(u32::MAX - self.before)
    }

    fn next(&mut self) -> Result<Option<(Event<'input>, Span)>, Error> {
        let before = self.before;
        self.parser.next_event().transpose().map_err(|error: ScanError| {
            let line = before + u32::try_from(error.marker().line()).unwrap_or(u32::MAX - before);
            match error.info() {
                // The parser has a limit of its own for what it reads ahead.
                "recursion limit exceeded" => Error::TooDeep { line },
                info => Error::Syntax {
                    line,
                    info: info.to_owned(),
                },
            }
        })
    }

    fn expect_next(&mut self, at: Span) -> Result<(Event<'input>, Span), Error> {
        self.next()?.ok_or_else(|| Error::Syntax {
            line: self.line(at),
            info: "the document ends in the middle of a value".into(),
        })
    }

    fn count(&mut self, nodes: usize, at: Span) -> Result<(), Error> {
        match self.budget.0.checked_sub(nodes) {
            Some(left) => {
                self.budget.0 = left;
                Ok(())
            }
            None => Err(Error::TooManyNodes { line: self.line(at) }),
        }
    }

    fn node(&mut self, event: Event<'input>, span: Span, depth: usize) -> Result<(Value, Lines), Error> {
        if depth > MAX_DEPTH {
            return Err(Error::TooDeep { line: self.line(span) });
        }
        self.count(1, span)?;
        let before = self.budget.0;
        let (value, parts, anchor) = match event {
            Event::Alias(id) => {
                let Some((value, lines, nodes)) = self.anchors.get(&id) else {
                    return Err(Error::RecursiveAlias { line: self.line(span) });
                };
                let (value, parts, nodes) = (value.clone(), lines.parts.clone(), *nodes);
                // Counted before the next copy is made: a bomb of aliases ends at the limit, not at the memory.
                self.count(nodes, span)?;
                return Ok((
                    value,
                    Lines {
                        line: self.line(span),
                        parts,
                    },
                ));
            }
            Event::Scalar(text, style, anchor, tag) => (
                scalar(text, style, tag.as_deref(), self.line(span))?,
                Parts::None,
                anchor,
            ),
            Event::SequenceStart(anchor, tag) => {
                known_tag(tag.as_deref(), "seq", self.line(span))?;
                let mut values = Vec::new();
                let mut items = Vec::new();
                loop {
                    let (event, span) = self.expect_next(span)?;
                    if matches!(event, Event::SequenceEnd) {
                        break;
                    }
                    let (value, lines) = self.node(event, span, depth + 1)?;
                    values.push(value);
                    items.push(lines);
                }
                (Value::Array(values), Parts::Items(items), anchor)
            }
            Event::MappingStart(anchor, tag) => {
                known_tag(tag.as_deref(), "map", self.line(span))?;
                let (map, fields) = self.mapping(span, depth)?;
                (Value::Object(map), Parts::Fields(fields), anchor)
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::SequenceEnd
            | Event::MappingEnd => {
                return Err(Error::Syntax {
                    line: self.line(span),
                    info: "a value was expected".into(),
                });
            }
        };
        let lines = Lines {
            line: self.line(span),
            parts,
        };
        if anchor != 0 {
            let nodes = before - self.budget.0;
            self.count(nodes, span)?;
            self.anchors.insert(anchor, (value.clone(), lines.clone(), nodes + 1));
        }
        Ok((value, lines))
    }

    fn mapping(&mut self, span: Span, depth: usize) -> Result<(Map<String, Value>, Fields), Error> {
        let mut map = Map::new();
        let mut fields = Fields::new();
        let mut merged: Vec<(Value, Lines)> = Vec::new();
        loop {
            let (event, key_span) = self.expect_next(span)?;
            let (key, plain) = match event {
                Event::MappingEnd => break,
                Event::Scalar(text, style, ..) => (text.into_owned(), style == ScalarStyle::Plain),
                _ => {
                    return Err(Error::ComplexKey {
                        line: self.line(key_span),
                    });
                }
            };
            let (event, value_span) = self.expect_next(key_span)?;
            let (value, lines) = self.node(event, value_span, depth + 1)?;
            if plain && key == "<<" {
                match value {
                    Value::Array(values) => merged.extend(values.into_iter().map(|value| (value, lines.clone()))),
                    value => merged.push((value, lines)),
                }
                if merged.iter().any(|(value, _)| !value.is_object()) {
                    return Err(Error::BadMerge {
                        line: self.line(key_span),
                    });
                }
                continue;
            }
            if map.contains_key(&key) {
                let first = fields
                    .iter()
                    .find(|(name, ..)| *name == key)
                    .map_or(0, |(_, line, _)| *line);
                return Err(Error::DuplicateKey {
                    line: self.line(key_span),
                    first,
                    key,
                });
            }
            map.insert(key.clone(), value);
            fields.push((key, self.line(key_span), lines));
        }
        // Merged keys give way to those written here, and to merges named earlier (YAML 1.1 merge key).
        for (value, lines) in merged {
            if let Value::Object(other) = value {
                for (key, value) in other {
                    if !map.contains_key(&key) {
                        fields.push((
                            key.clone(),
                            lines.line,
                            Lines {
                                line: lines.line,
                                parts: Parts::None,
                            },
                        ));
                        map.insert(key, value);
                    }
                }
            }
        }
        Ok((map, fields))
    }
}

fn known_tag(tag: Option<&Tag>, expected: &str, line: u32) -> Result<(), Error> {
    match tag {
        None => Ok(()),
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == expected => Ok(()),
        Some(tag) => Err(Error::UnknownTag {
            line,
            tag: tag.to_string(),
        }),
    }
}

fn scalar(text: Cow<'_, str>, style: ScalarStyle, tag: Option<&Tag>, line: u32) -> Result<Value, Error> {
    if let Some(tag) = tag {
        if tag.is_yaml_core_schema() && tag.suffix == "str" {
            return Ok(Value::String(text.into_owned()));
        }
        if !tag.is_yaml_core_schema() || !matches!(&*tag.suffix, "bool" | "int" | "float" | "null") {
            return Err(Error::UnknownTag {
                line,
                tag: tag.to_string(),
            });
        }
        return plain(text, line);
    }
    if style == ScalarStyle::Plain {
        plain(text, line)
    } else {
        Ok(Value::String(text.into_owned()))
    }
}

/// Untagged plain scalars by the rules of YAML 1.1 as `kubectl` reads it.
fn plain(text: Cow<'_, str>, line: u32) -> Result<Value, Error> {
    match &*text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Null),
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Ok(Value::Bool(true));
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Ok(Value::Bool(false));
        }
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf" | "-.Inf" | "-.INF" | ".nan" | ".NaN"
        | ".NAN" => {
            return Err(Error::NotJson {
                line,
                text: text.into_owned(),
            });
        }
        _ => {}
    }
    if let Some(number) = integer(&text).or_else(|| float(&text)) {
        return Ok(Value::Number(number));
    }
    Ok(Value::String(text.into_owned()))
}

fn integer(text: &str) -> Option<Number> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        b'0'..=b'9' => (false, text),
        _ => return None,
    };
    let digits: Cow<'_, str> = if digits.contains('_') {
        Cow::Owned(digits.replace('_', ""))
    } else {
        Cow::Borrowed(digits)
    };
    if !digits.as_bytes().first()?.is_ascii_digit() {
        return None;
    }
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, &*digits),
    };
    if !digits.bytes().all(|digit| digit.is_ascii_alphanumeric()) {
        return None;
    }
    let magnitude = i128::from(u64::from_str_radix(digits, radix).ok()?);
    let value = if negative { -magnitude } else { magnitude };
    i64::try_from(value)
        .map(Number::from)
        .or_else(|_| u64::try_from(value).map(Number::from))
        .ok()
}

fn float(text: &str) -> Option<Number> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let first = unsigned.as_bytes().first()?;
    let numeric = first.is_ascii_digit() || (*first == b'.' && unsigned.len() > 1);
    let allowed = unsigned
        .bytes()
        .all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-'));
    if !numeric || !allowed {
        return None;
    }
    Number::from_f64(text.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn all(text: &str) -> Result<Vec<Document>, Error> {
        read(text, 1, &mut Budget::default())
    }

    #[test]
    fn a_text_is_cut_where_documents_start() {
        let text = "# first\na: 1\n--- # second\nb: |\n  ---\n---\n---c: 1\n";
        assert_eq!(
            cut(text),
            [
                (1, "# first\na: 1\n"),
                (3, "--- # second\nb: |\n  ---\n"),
                (6, "---\n---c: 1\n")
            ]
        );
        assert_eq!(cut("%YAML 1.2\n---\na: 1\n---\nb: 1\n").len(), 1);
        assert_eq!(cut(""), [(1, "")]);
        let second = read("--- \nb: 1\nb: 2\n", 3, &mut Budget::default()).unwrap_err();
        assert_eq!(
            second,
            Error::DuplicateKey {
                line: 5,
                first: 4,
                key: "b".into()
            }
        );
    }

    fn one(text: &str) -> Value {
        let mut documents = all(text).unwrap();
        assert_eq!(documents.len(), 1, "{text}");
        documents.remove(0).value
    }

    #[test]
    fn scalars_mean_what_kubectl_reads() {
        let cases = [
            ("on", json!(true)),
            ("No", json!(false)),
            ("'on'", json!("on")),
            ("!!str on", json!("on")),
            ("0x1F", json!(31)),
            ("010", json!(8)),
            ("1_000", json!(1000)),
            ("-5", json!(-5)),
            ("18446744073709551615", json!(18_446_744_073_709_551_615_u64)),
            ("1.5", json!(1.5)),
            ("1e3", json!(1000.0)),
            ("10.0.0.1", json!("10.0.0.1")),
            ("1.2.3", json!("1.2.3")),
            ("2026-01-01T00:00:00Z", json!("2026-01-01T00:00:00Z")),
            ("5s", json!("5s")),
            ("09", json!(9.0)),
            ("+", json!("+")),
            ("-", json!([null])),
            (".", json!(".")),
        ];
        for (text, want) in cases {
            assert_eq!(
                one(&format!("a: {text}\n").replace("a: -\n", "a:\n -\n")),
                json!({ "a": want }),
                "{text}"
            );
        }
    }

    #[test]
    fn every_part_knows_its_line() {
        let documents = all("a:\n  b:\n  - c: 1\n    d: 2\n---\n# empty\n---\ne: 1\n").unwrap();
        assert_eq!(documents.len(), 2);
        let path = [
            Step::Field("a".into()),
            Step::Field("b".into()),
            Step::Item(0),
            Step::Field("d".into()),
        ];
        assert_eq!(documents[0].lines.of(&path), 4);
        assert_eq!(documents[0].lines.of(&path[..1]), 1);
        let unknown = [path[0].clone(), path[1].clone(), Step::Item(7)];
        assert_eq!(documents[0].lines.of(&unknown), 2, "the deepest part that is written");
        assert_eq!(documents[1].lines.start(), 8);
    }

    #[test]
    fn json_is_read_with_tabs_and_surrogates() {
        assert_eq!(
            one("{\n\t\"a\": [1, 2],\n\t\"b\": \"\\/\"\n}"),
            json!({"a": [1, 2], "b": "/"})
        );
        assert_eq!(one(r#"{"a": "\ud83d\ude00"}"#), json!({"a": "😀"}));
    }

    #[test]
    fn duplicate_keys_are_named_with_both_lines() {
        assert_eq!(
            all("a: 1\nb: 2\na: 3\n"),
            Err(Error::DuplicateKey {
                line: 3,
                first: 1,
                key: "a".into()
            })
        );
    }

    #[test]
    fn merge_keys_give_way_to_written_keys() {
        let text = "base: &b {x: 1, y: 2}\nuse:\n  <<: *b\n  y: 3\n";
        assert_eq!(one(text)["use"], json!({"y": 3, "x": 1}));
        assert!(matches!(all("a: {<<: 3}"), Err(Error::BadMerge { line: 1 })));
    }

    #[test]
    fn a_bomb_of_aliases_ends_at_the_limit() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..10 {
            let uses = vec![format!("*a{}", level - 1); 10].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{uses}]\n"));
        }
        assert!(matches!(all(&text), Err(Error::TooManyNodes { .. })));
    }

    #[test]
    fn absurd_depth_is_refused() {
        let text = format!("{}{}", "[".repeat(200), "]".repeat(200));
        assert!(matches!(all(&text), Err(Error::TooDeep { line: 1 })));
        let text = "{\"a\":".repeat(100_000);
        assert!(all(&text).is_err());
    }

    #[test]
    fn broken_text_names_a_line() {
        for text in [
            "a: [1, 2\nb: 3\n",
            "a: b: c\n",
            "a: 'x\n",
            "a: &x *x\n",
            "? [a]\n: 1\n",
            "a: !!binary Zm9v\n",
        ] {
            let error = all(text).unwrap_err();
            assert!(error.line() >= 1, "{text:?}: {error}");
        }
    }
}
