//! What a table says, as written.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// One thing that must hold.
#[derive(Debug)]
pub struct Case {
    /// `file: name`.
    pub name: String,
    /// Unique among all cases; the first label of its hosts, and part of the names of its objects.
    pub slug: String,
    /// Which scenario of the dormant upstream suite this is.
    pub of: Option<String>,
    /// Takes every host, or what all share: nothing else may run beside it.
    pub alone: bool,
    pub steps: Vec<Step>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    name: String,
    of: Option<String>,
    #[serde(default)]
    alone: bool,
    #[serde(default)]
    then: Vec<Step>,
}

/// Objects are applied, others deleted, then statuses and requests are looked at.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Step {
    /// More than a second after the step before: Kubernetes knows no finer age.
    pub later: bool,
    pub certificates: Vec<Certificate>,
    /// Any objects, as Kubernetes has them.
    pub objects: Vec<Value>,
    pub ingresses: Vec<Ingress>,
    /// `Kind/name`, or `Kind/namespace/name`: of the kinds that cases use.
    pub delete: Vec<String>,
    /// Merge patches, by `Kind/name`.
    pub patch: BTreeMap<String, Value>,
    /// Whether the Ingress of a name has an address; those of our class are expected to when nothing is said.
    pub status: BTreeMap<String, Status>,
    pub requests: Vec<Request>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It has an address.
    Given,
    /// It has none, and gets none.
    None,
    /// Another controller's address stays as it was.
    Foreign,
}

/// A TLS Secret to make.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    pub secret: String,
    #[serde(default)]
    pub namespace: Option<String>,
    /// What it is for. None: the Secret holds rubbish.
    pub names: Vec<String>,
}

/// An Ingress in short.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ingress {
    #[serde(default = "web")]
    pub name: String,
    #[serde(default)]
    pub namespace: Option<String>,
    /// `spec.ingressClassName`; `pierhead` when not said, none when null.
    #[serde(default = "ours")]
    pub class: Option<String>,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// `spec.defaultBackend`: `SERVICE`, `SERVICE:PORT`.
    #[serde(default)]
    pub default: Option<String>,
    /// `SECRET: HOST, HOST`; either side may be empty.
    #[serde(default)]
    pub tls: Vec<String>,
    #[serde(default)]
    pub rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The case's own host when not said; none when empty.
    #[serde(default)]
    pub host: Option<String>,
    /// `TYPE PATH -> SERVICE[:PORT]`, or `TYPE -> …` for no path. Not there: a rule without `http`.
    #[serde(default)]
    pub paths: Option<Vec<String>>,
}

/// Something to ask and what must come back: `[METHOD] [http[s]://][HOST]/PATH -> STATUS|SERVICE`, or with more.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Request {
    Short(String),
    Long(Box<Long>),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Long {
    /// As the short form.
    pub ask: String,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The name in the TLS handshake where it is not the host; none when empty.
    #[serde(default)]
    pub sni: Option<String>,
    /// How many times, each on a connection of its own.
    #[serde(default = "once")]
    pub times: usize,
    /// How many different pods must have answered.
    #[serde(default)]
    pub pods: Option<usize>,
    /// The Secret whose certificate was shown.
    #[serde(default)]
    pub certificate: Option<String>,
    /// The TLS handshake fails.
    #[serde(default)]
    pub refused: bool,
    /// Fields of the response: a value, or whether it is there.
    #[serde(default)]
    pub response: BTreeMap<String, Value>,
    /// What the backend saw, in its words: `method`, `path`, `host`, `proto`, and `headers`.
    #[serde(default)]
    pub seen: Map<String, Value>,
    /// `HTTP/2` with prior knowledge or ALPN, or a WebSocket that echoes, instead of HTTP/1.1.
    #[serde(default)]
    pub speak: Speak,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Speak {
    #[default]
    H1,
    H2,
    WebSocket,
}

fn web() -> String {
    "web".to_owned()
}

#[allow(clippy::unnecessary_wraps, reason = "the default of a field that may be null")]
fn ours() -> Option<String> {
    Some("pierhead".to_owned())
}

fn once() -> usize {
    1
}

/// Every case of every table of a folder, in order.
///
/// # Errors
/// A table cannot be read, or two cases have one name.
pub fn read(folder: &Path) -> Result<Vec<Case>> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .with_context(|| format!("cannot list {}", folder.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    let mut cases: Vec<Case> = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file)?;
        let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        cases.extend(parse(&stem, &text).with_context(|| stem.clone())?);
    }
    for (index, case) in cases.iter().enumerate() {
        ensure!(
            cases[..index].iter().all(|other| other.name != case.name),
            "two cases are called {}",
            case.name
        );
    }
    Ok(cases)
}

fn parse(stem: &str, text: &str) -> Result<Vec<Case>> {
    let list: Vec<Map<String, Value>> = serde_saphyr::from_str(text)?;
    list.into_iter()
        .enumerate()
        .map(|(index, entry)| {
            let name = entry["name"].as_str().unwrap_or_default().to_owned();
            // Hosts of two cases never meet.
            let slug = format!("{}-{}", stem.replace('_', "-"), index + 1);
            Case::of(stem, slug, entry).with_context(|| format!("case {}, {name:?}", index + 1))
        })
        .collect()
}

impl Case {
    fn of(stem: &str, slug: String, entry: Map<String, Value>) -> Result<Self> {
        let (head, first): (Map<_, _>, Map<_, _>) = entry
            .into_iter()
            .partition(|(key, _)| matches!(key.as_str(), "name" | "of" | "alone" | "then"));
        let head: Head = strict(head, &slug)?;
        let first: Step = strict(first, &slug)?;
        if first.requests.is_empty() && first.status.is_empty() && head.then.is_empty() {
            bail!("expects nothing");
        }
        Ok(Self {
            name: format!("{stem}: {}", head.name),
            slug,
            of: head.of,
            alone: head.alone,
            steps: std::iter::once(first).chain(head.then).collect(),
        })
    }

    /// The host of rules and requests that name none.
    pub fn host(&self) -> String {
        host(&self.slug)
    }
}

fn host(slug: &str) -> String {
    format!("{slug}.example.com")
}

/// Reads a part of an entry, its placeholders replaced.
fn strict<T: DeserializeOwned>(part: Map<String, Value>, slug: &str) -> Result<T> {
    let text = serde_json::to_string(&Value::Object(part))?
        .replace("${host}", &host(slug))
        .replace("${case}", slug);
    Ok(serde_json::from_str(&text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read() {
        let cases = parse(
            "paths",
            "- name: one\n  of: a\n  ingresses:\n  - rules:\n    - {host: '*.${host}', paths: [Exact /a -> red]}\n  requests:\n  - /a -> red\n",
        )
        .unwrap();
        let case = &cases[0];
        assert_eq!(
            (case.name.as_str(), case.host().as_str()),
            ("paths: one", "paths-1.example.com")
        );
        let ingress = &case.steps[0].ingresses[0];
        assert_eq!(ingress.class.as_deref(), Some("pierhead"));
        assert_eq!(ingress.rules[0].host.as_deref(), Some("*.paths-1.example.com"));
    }

    #[test]
    fn every_table_is_read_and_the_upstream_suite_is_whole() {
        let cases = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("ingress")).unwrap();
        assert!(cases.len() >= 120, "{} cases", cases.len());
        let of: std::collections::BTreeSet<&str> = cases.iter().filter_map(|case| case.of.as_deref()).collect();
        assert_eq!(of.len(), 25, "{of:?}");
        for case in &cases {
            for step in &case.steps {
                for short in &step.ingresses {
                    crate::ingress::expand::ingress(short, &case.host(), &case.slug).unwrap();
                }
                for short in &step.requests {
                    crate::ingress::expand::request(short, &case.host()).unwrap();
                }
            }
        }
    }

    #[test]
    fn a_word_nobody_knows_and_a_case_that_cannot_fail_are_refused() {
        assert!(parse("t", "- {name: a, requests: [/ -> 404], ingress: []}").is_err());
        assert!(parse("t", "- {name: a, ingresses: []}").is_err());
    }

    #[test]
    fn a_class_may_be_null() {
        let cases = parse("t", "- {name: a, ingresses: [{class: null}], requests: [/ -> 404]}").unwrap();
        assert_eq!(cases[0].steps[0].ingresses[0].class, None);
    }
}
