//! From the short forms of a table to objects and requests.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::table::{Ingress, Long, Request, Rule, Speak};

/// Where cases live that say nothing else.
pub(super) const NAMESPACE: &str = "ingress-suite";

/// The port of a Service that a backend names none of.
const PORT: &str = "http";

/// A request, all of it said.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) method: String,
    pub(super) tls: bool,
    pub(super) host: String,
    pub(super) path: String,
    pub(super) expect: Expect,
    pub(super) more: Long,
    /// As it is written.
    pub(super) text: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expect {
    /// A status, whoever says it.
    Status(u16),
    /// 200 from a pod of this Deployment.
    From(String),
    /// Nothing: the connection or the handshake is refused.
    Refused,
}

/// An Ingress as Kubernetes has it.
///
/// # Errors
/// A short form is misspelt.
pub(super) fn ingress(short: &Ingress, host: &str, slug: &str) -> Result<Value> {
    let mut spec = json!({});
    if let Some(class) = &short.class {
        spec["ingressClassName"] = json!(class);
    }
    if let Some(service) = &short.default {
        spec["defaultBackend"] = backend(service)?;
    }
    if !short.tls.is_empty() {
        spec["tls"] = short.tls.iter().map(|line| tls(line)).collect::<Result<_>>()?;
    }
    if !short.rules.is_empty() {
        spec["rules"] = short.rules.iter().map(|one| rule(one, host)).collect::<Result<_>>()?;
    }
    Ok(json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {
            "namespace": short.namespace.as_deref().unwrap_or(NAMESPACE),
            "name": object_name(slug, &short.name),
            "annotations": short.annotations,
        },
        "spec": spec,
    }))
}

/// The name of an object of a case.
pub(super) fn object_name(slug: &str, name: &str) -> String {
    format!("{slug}-{name}")
}

fn rule(short: &Rule, host: &str) -> Result<Value> {
    let mut rule = match short.host.as_deref() {
        None => json!({"host": host}),
        Some("") => json!({}),
        Some(host) => json!({"host": host}),
    };
    if let Some(paths) = &short.paths {
        let paths: Vec<Value> = paths.iter().map(|line| path(line)).collect::<Result<_>>()?;
        rule["http"] = json!({"paths": paths});
    }
    Ok(rule)
}

/// `Exact /a b -> red:8080`.
fn path(line: &str) -> Result<Value> {
    let (left, service) = line
        .rsplit_once("-> ")
        .with_context(|| format!("no `->` in {line:?}"))?;
    let left = left.strip_suffix(' ').unwrap_or(left);
    let (kind, path) = left.split_once(' ').unwrap_or((left, ""));
    let mut value = json!({"pathType": kind, "backend": backend(service)?});
    if !path.is_empty() {
        value["path"] = json!(path);
    }
    Ok(value)
}

/// `red`, `red:8080`, `red:name`; `Kind/name` for a resource.
fn backend(text: &str) -> Result<Value> {
    if let Some((kind, name)) = text.split_once('/') {
        return Ok(json!({"resource": {"apiGroup": "example.com", "kind": kind, "name": name}}));
    }
    let (name, port) = text.split_once(':').unwrap_or((text, PORT));
    ensure!(!name.is_empty(), "no Service in {text:?}");
    let port = match port.parse::<u16>() {
        Ok(number) => json!({"number": number}),
        Err(_) => json!({"name": port}),
    };
    Ok(json!({"service": {"name": name, "port": port}}))
}

/// `secret: a.example.com, b.example.com`.
fn tls(line: &str) -> Result<Value> {
    let (secret, hosts) = line.split_once(':').with_context(|| format!("no `:` in {line:?}"))?;
    let mut value = json!({});
    if !secret.trim().is_empty() {
        value["secretName"] = json!(secret.trim());
    }
    let hosts: Vec<&str> = hosts
        .split(',')
        .map(str::trim)
        .filter(|host| !host.is_empty())
        .collect();
    if !hosts.is_empty() {
        value["hosts"] = json!(hosts);
    }
    Ok(value)
}

/// A request, all of it said.
///
/// # Errors
/// It is misspelt.
pub(super) fn request(short: &Request, host: &str) -> Result<Ask> {
    let more = match short {
        Request::Short(text) => bare(text),
        Request::Long(long) => (**long).clone(),
    };
    let text = more.ask.clone();
    let (target, expect) = match text.rsplit_once(" -> ") {
        Some((target, expect)) => (target, expectation(expect)),
        None if more.refused => (text.as_str(), Expect::Refused),
        None => bail!("no ` -> ` in {text:?}"),
    };
    let (method, target) = match target.split_once(' ') {
        Some((method, rest)) if method.bytes().all(|byte| byte.is_ascii_uppercase()) => (method, rest),
        _ => ("GET", target),
    };
    let (tls, target) = match target.split_once("://") {
        Some(("https", rest)) => (true, rest),
        Some(("http", rest)) => (false, rest),
        _ => (false, target),
    };
    let slash = target.find('/').with_context(|| format!("no path in {text:?}"))?;
    let (named, path) = target.split_at(slash);
    Ok(Ask {
        method: method.to_owned(),
        tls,
        host: if named.is_empty() { host } else { named }.to_owned(),
        path: path.to_owned(),
        expect,
        more,
        text,
    })
}

fn expectation(text: &str) -> Expect {
    text.parse()
        .map_or_else(|_| Expect::From(text.to_owned()), Expect::Status)
}

fn bare(text: &str) -> Long {
    Long {
        ask: text.to_owned(),
        headers: Default::default(),
        sni: None,
        times: 1,
        pods: None,
        certificate: None,
        refused: false,
        response: Default::default(),
        seen: Default::default(),
        speak: Speak::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_in_short() {
        assert_eq!(
            path("Exact /a b -> red:8080").unwrap(),
            json!({
                "pathType": "Exact", "path": "/a b",
                "backend": {"service": {"name": "red", "port": {"number": 8080}}},
            })
        );
        let whole = path("ImplementationSpecific -> red").unwrap();
        assert_eq!(whole.get("path"), None);
        assert_eq!(whole["backend"]["service"]["port"], json!({"name": "http"}));
        assert!(path("Exact /a").is_err());
    }

    #[test]
    fn tls_in_short() {
        assert_eq!(
            tls("a: b.example.com, c").unwrap(),
            json!({"secretName": "a", "hosts": ["b.example.com", "c"]})
        );
        assert_eq!(tls(":").unwrap(), json!({}));
    }

    #[test]
    fn a_request_in_short() {
        let ask = |text: &str| request(&Request::Short(text.to_owned()), "own").unwrap();
        let one = ask("/a?b=c -> red");
        assert_eq!(
            (
                one.method.as_str(),
                one.tls,
                one.host.as_str(),
                one.path.as_str(),
                one.expect
            ),
            ("GET", false, "own", "/a?b=c", Expect::From("red".into()))
        );
        let one = ask("POST https://x.example.com:8443/ -> 404");
        assert_eq!(
            (
                one.method.as_str(),
                one.tls,
                one.host.as_str(),
                one.path.as_str(),
                one.expect
            ),
            ("POST", true, "x.example.com:8443", "/", Expect::Status(404))
        );
    }
}
