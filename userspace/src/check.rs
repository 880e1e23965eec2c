//! `pierhead check`: what is wrong with a folder, and the condition every object would get.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::Result;
use pierhead_controller::files::{FileProblem, Folder};
use pierhead_controller::{Settings, Translation, translate};
use pierhead_model::{Problem, Severity};
use serde::Serialize;
use serde_json::{Value, json};

use crate::cli::{self, Meaning, Output, Pools};
use crate::machine;

pub(crate) fn run(options: &cli::Check) -> Result<ExitCode> {
    let folder = Folder::open(&options.config)?;
    let translation = translate(&folder.world(), &settings(&options.meaning, &options.pools));
    let findings = findings(&folder, &translation);
    let conditions = conditions(&serde_json::to_value(&translation.statuses)?);
    let text = match options.output {
        Output::Text => text(&folder, &findings, &conditions),
        Output::Json => {
            let mut text = serde_json::to_string_pretty(&json!({
                "objects": folder.len(),
                "problems": findings,
                "conditions": conditions,
                "ignored": folder.ignored().iter().map(|one| json!({
                    "apiVersion": one.api_version, "kind": one.kind, "count": one.count,
                })).collect::<Vec<_>>(),
                "statuses": translation.statuses,
            }))?;
            text.push('\n');
            text
        }
    };
    crate::say(&text)?;
    Ok(ExitCode::from(u8::from(!findings.is_empty())))
}

/// What manifests mean on this machine, now, where no API server has seen them.
pub(crate) fn settings(meaning: &Meaning, pools: &Pools) -> Settings {
    Settings {
        implied_class: Some("pierhead".into()),
        inject_default_class: true,
        address_pools: pools.address_pool.clone(),
        machine_addresses: machine::addresses(),
        // Where manifests without a namespace are.
        namespace: "default".into(),
        ..cluster_settings(meaning)
    }
}

/// What the objects of a cluster mean, now.
pub(crate) fn cluster_settings(meaning: &Meaning) -> Settings {
    Settings {
        watch_ingress_without_class: meaning.watch_ingress_without_class,
        ingress_http_port: meaning.ingress_http_port,
        ingress_https_port: meaning.ingress_https_port,
        default_certificate: meaning
            .default_certificate
            .as_ref()
            .map(|(namespace, name)| pierhead_controller::ObjectName::new(namespace, name)),
        on_miss: match meaning.on_miss {
            cli::OnMiss::Drop => pierhead_model::OnMiss::Drop,
            cli::OnMiss::Pass => pierhead_model::OnMiss::Pass,
        },
        ..Settings::new(jiff::Timestamp::now())
    }
}

/// A problem of a file or of a meaning, in one form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Finding {
    pub(crate) file: Option<String>,
    pub(crate) line: Option<u32>,
    pub(crate) severity: Severity,
    /// `HTTPRoute default/web`.
    pub(crate) object: Option<String>,
    pub(crate) field: String,
    pub(crate) message: String,
    pub(crate) fix: String,
    /// The whole of it in one line.
    pub(crate) text: String,
}

impl Finding {
    pub(crate) fn of_file(problem: &FileProblem) -> Self {
        Self {
            file: Some(problem.file.display().to_string()),
            line: Some(problem.line).filter(|line| *line > 0),
            severity: Severity::Error,
            object: problem.origin.as_ref().map(ToString::to_string),
            field: problem.field.clone(),
            message: problem.message.clone(),
            fix: problem.fix.clone(),
            text: problem.to_string(),
        }
    }

    pub(crate) fn of_meaning(problem: &Problem, place: Option<(std::path::PathBuf, u32)>) -> Self {
        let (file, line) = place.map_or((None, None), |(file, line)| {
            (Some(file.display().to_string()), Some(line))
        });
        let text = match (&file, line) {
            (Some(file), Some(line)) => format!("{file}:{line}: {problem}"),
            _ => problem.to_string(),
        };
        Self {
            file,
            line,
            severity: problem.severity,
            object: Some(problem.origin.to_string()),
            field: problem.field.clone(),
            message: problem.message.clone(),
            fix: problem.fix.clone(),
            text,
        }
    }
}

fn findings(folder: &Folder, translation: &Translation) -> Vec<Finding> {
    let files = folder.problems();
    let mut all: Vec<Finding> = files.iter().map(Finding::of_file).collect();
    let places = folder.places(&translation.problems);
    let meaning = translation.problems.iter().zip(places);
    all.extend(meaning.map(|(problem, place)| Finding::of_meaning(problem, place)));
    all
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Condition {
    object: String,
    /// Listener, parent or ancestor the condition is about; empty for the object itself.
    part: String,
    #[serde(rename = "type")]
    kind: String,
    status: String,
    reason: String,
    message: String,
}

/// Every `conditions` list in the statuses, wherever it stands. Statuses are walked as JSON so that a kind that is new
/// there is shown without a change here.
fn conditions(statuses: &Value) -> Vec<Condition> {
    let mut found = Vec::new();
    for (kind, objects) in statuses.as_object().into_iter().flatten() {
        for (name, status) in objects.as_object().into_iter().flatten() {
            walk(&format!("{} {name}", kind_name(kind)), "", status, &mut found);
        }
    }
    found
}

fn walk(object: &str, part: &str, value: &Value, found: &mut Vec<Condition>) {
    match value {
        Value::Object(map) => {
            for (field, inner) in map {
                if field == "conditions" {
                    for condition in inner.as_array().into_iter().flatten() {
                        let word = |name: &str| condition[name].as_str().unwrap_or_default().to_owned();
                        found.push(Condition {
                            object: object.to_owned(),
                            part: part.to_owned(),
                            kind: word("type"),
                            status: word("status"),
                            reason: word("reason"),
                            message: word("message"),
                        });
                    }
                } else {
                    walk(object, part, inner, found);
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                let reference = if item["parentRef"].is_object() {
                    &item["parentRef"]
                } else {
                    &item["ancestorRef"]
                };
                let part = match (item["name"].as_str(), reference["name"].as_str()) {
                    (Some(name), _) => format!("listener {name}"),
                    (None, Some(name)) => {
                        let section = reference["sectionName"].as_str().map(|section| format!("#{section}"));
                        format!(
                            "{} {name}{}",
                            reference["kind"].as_str().unwrap_or("parent"),
                            section.unwrap_or_default()
                        )
                    }
                    (None, None) => part.to_owned(),
                };
                walk(object, &part, item, found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The kind whose statuses stand under this name.
fn kind_name(field: &str) -> &str {
    match field {
        "ingresses" => "Ingress",
        "gateway_classes" => "GatewayClass",
        "gateways" => "Gateway",
        "listener_sets" => "ListenerSet",
        "http_routes" => "HTTPRoute",
        "grpc_routes" => "GRPCRoute",
        "tls_routes" => "TLSRoute",
        "tcp_routes" => "TCPRoute",
        "udp_routes" => "UDPRoute",
        "backend_tls_policies" => "BackendTLSPolicy",
        other => other,
    }
}

fn text(folder: &Folder, findings: &[Finding], conditions: &[Condition]) -> String {
    let mut text = String::new();
    for finding in findings {
        let level = match finding.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        let _ = writeln!(text, "{level}: {}", finding.text);
    }
    for ignored in folder.ignored() {
        let place = format!("{}:{}", ignored.file.display(), ignored.line);
        let _ = writeln!(
            text,
            "info: {} × {} {} not used (first: {place})",
            ignored.count, ignored.api_version, ignored.kind
        );
    }
    if !conditions.is_empty() {
        if !text.is_empty() {
            text.push('\n');
        }
        let rows: Vec<[&str; 5]> = conditions
            .iter()
            .map(|row| [&*row.object, &*row.part, &*row.kind, &*row.status, &*row.reason])
            .collect();
        text.push_str(&table(["OBJECT", "PART", "CONDITION", "STATUS", "REASON"], &rows));
    }
    let _ = writeln!(
        text,
        "{}{} objects, {} problems",
        if text.is_empty() { "" } else { "\n" },
        folder.len(),
        findings.len()
    );
    text
}

/// Rows under headings, columns as wide as they need.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: &[[&str; N]]) -> String {
    let width = |column: usize| {
        rows.iter()
            .chain([&head])
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in [&head].into_iter().chain(rows) {
        let line: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_found_wherever_they_stand() {
        let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": "R", "message": "m"});
        let statuses = json!({
            "gateways": {"default/gw": {
                "conditions": [condition("Programmed")],
                "listeners": [{"name": "web", "conditions": [condition("Accepted")]}],
            }},
            "http_routes": {"default/r": {"parents": [{
                "parentRef": {"kind": "Gateway", "name": "gw", "sectionName": "web"},
                "conditions": [condition("ResolvedRefs")],
            }]}},
        });
        let lines: Vec<_> = conditions(&statuses)
            .into_iter()
            .map(|one| format!("{}|{}|{}", one.object, one.part, one.kind))
            .collect();
        assert_eq!(
            lines,
            [
                "Gateway default/gw||Programmed",
                "Gateway default/gw|listener web|Accepted",
                "HTTPRoute default/r|Gateway gw#web|ResolvedRefs",
            ]
        );
    }

    #[test]
    fn columns_are_as_wide_as_they_need() {
        assert_eq!(table(["A", "B"], &[["long", "x"], ["s", ""]]), "A     B\nlong  x\ns\n");
    }
}
