//! Defaults and checks that the API server makes in code, not in a schema: the kinds of Kubernetes itself.
//!
//! Source: `pkg/apis/{certificates,core,networking,discovery}/{v1/defaults,validation/validation}.go` of Kubernetes 1.37. One rule is
//! ours: an EndpointSlice may hold loopback addresses, because on one machine the backend is often 127.0.0.1.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Map, Value, json};

use super::Violation;
use super::names::{is_base64, is_dns1123_label, is_dns1123_subdomain, is_port_name, is_qualified_name, suggest_value};
use crate::yaml::Step;

/// All values of a Secret or a ConfigMap together.
const MAX_DATA: usize = 1 << 20;

/// Checks and completes an object the schema accepts.
pub(super) fn check(kind: &str, metadata: &Value, body: &mut Value, found: &mut Vec<Violation>) {
    let mut report = Report {
        path: Vec::new(),
        found,
    };
    match kind {
        "Service" => report.service(body),
        "EndpointSlice" => report.endpoint_slice(body),
        "Secret" => report.secret(body),
        "ConfigMap" => report.config_map(body),
        "Ingress" => report.ingress(metadata, body),
        "IngressClass" => report.ingress_class(body),
        "ClusterTrustBundle" => report.cluster_trust_bundle(metadata, body),
        _ => {}
    }
}

struct Report<'a> {
    path: Vec<Step>,
    found: &'a mut Vec<Violation>,
}

fn set_default(value: &mut Value, field: &str, default: Value) {
    if let Value::Object(map) = value
        && map.get(field).is_none_or(|value| value == "")
    {
        map.insert(field.to_owned(), default);
    }
}

fn items<'v>(value: &'v mut Value, field: &str) -> impl Iterator<Item = (usize, &'v mut Value)> {
    value
        .get_mut(field)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .enumerate()
}

const HOST_FIX: &str = "use a host name in lower case, with `*.` at most in front";

impl Report<'_> {
    fn at<R>(&mut self, steps: &[&str], visit: impl FnOnce(&mut Self) -> R) -> R {
        let length = self.path.len();
        for step in steps {
            self.path.push(
                step.parse()
                    .map_or_else(|_| Step::Field((*step).to_owned()), Step::Item),
            );
        }
        let result = visit(self);
        self.path.truncate(length);
        result
    }

    fn item<R>(&mut self, field: &str, index: usize, visit: impl FnOnce(&mut Self) -> R) -> R {
        self.at(&[field, &index.to_string()], visit)
    }

    fn say(&mut self, field: &str, what: impl Into<String>, fix: impl Into<String>) {
        let mut path = self.path.clone();
        if !field.is_empty() {
            path.push(Step::Field(field.to_owned()));
        }
        self.found.push(Violation {
            path,
            what: what.into(),
            fix: fix.into(),
        });
    }

    fn missing(&mut self, field: &str) {
        self.say(field, "required field is missing", format!("add {field:?}"));
    }

    fn choice(&mut self, value: &Value, field: &str, known: &[&str]) {
        if let Some(text) = value[field].as_str()
            && !known.contains(&text)
        {
            self.say(field, format!("{text:?} is not a choice"), suggest_value(text, known));
        }
    }

    fn port(&mut self, value: &Value, field: &str) {
        if let Some(port) = value[field].as_i64()
            && !(1..=65535).contains(&port)
        {
            self.say(field, format!("{port} is not a port"), "use 1 to 65535");
        }
    }

    fn app_protocol(&mut self, value: &Value) {
        if let Some(text) = value["appProtocol"].as_str()
            && !is_qualified_name(text)
        {
            self.say(
                "appProtocol",
                format!("{text:?} is not a protocol name"),
                "write [prefix/]name",
            );
        }
    }

    fn service(&mut self, body: &mut Value) {
        let Some(spec) = body.get_mut("spec") else {
            return self.missing("spec");
        };
        set_default(spec, "type", json!("ClusterIP"));
        set_default(spec, "sessionAffinity", json!("None"));
        self.at(&["spec"], |report| {
            report.choice(spec, "type", &["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"]);
            report.choice(spec, "sessionAffinity", &["None", "ClientIP"]);
            report.choice(
                spec,
                "trafficDistribution",
                &["PreferClose", "PreferSameZone", "PreferSameNode"],
            );
            let external = spec["type"] == "ExternalName";
            match spec["externalName"].as_str() {
                None | Some("") if external => report.missing("externalName"),
                Some(name) if external && !is_dns1123_subdomain(name.strip_suffix('.').unwrap_or(name)) => {
                    report.say(
                        "externalName",
                        format!("{name:?} is not a host name"),
                        "use a DNS name in lower case",
                    );
                }
                _ => {}
            }
            if let Some(address) = spec["clusterIP"].as_str()
                && !matches!(address, "" | "None")
                && address.parse::<IpAddr>().is_err()
            {
                report.say(
                    "clusterIP",
                    format!("{address:?} is not an address"),
                    "write an IP address or None",
                );
            }
            let count = spec["ports"].as_array().map_or(0, Vec::len);
            if count == 0 && !external && spec["clusterIP"] != "None" {
                report.missing("ports");
            }
            report.service_ports(spec, count);
        });
    }

    fn service_ports(&mut self, spec: &mut Value, count: usize) {
        let headless = spec["clusterIP"] == "None";
        let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
        for (index, port) in items(spec, "ports") {
            set_default(port, "protocol", json!("TCP"));
            let number = port["port"].clone();
            // "If unspecified, the value of the 'port' field is used"; headless Services have no other target either.
            if headless || port["targetPort"] == json!(0) || port["targetPort"] == "" {
                port["targetPort"] = number.clone();
            }
            set_default(port, "targetPort", number);
            self.item("ports", index, |report| {
                report.port(port, "port");
                report.choice(port, "protocol", &["TCP", "UDP", "SCTP"]);
                report.app_protocol(port);
                match &port["targetPort"] {
                    Value::String(name) if !is_port_name(name) => report.say(
                        "targetPort",
                        format!("{name:?} is not a port name"),
                        "use at most 15 lower-case letters, digits and dashes, or a number",
                    ),
                    target if *target != port["port"] => report.port(port, "targetPort"),
                    _ => {}
                }
                match port["name"].as_str() {
                    None | Some("") if count > 1 => {
                        report.say(
                            "name",
                            "required field is missing",
                            "name each port: the Service has several",
                        );
                    }
                    None | Some("") => {}
                    Some(name) if !is_dns1123_label(name) => report.say(
                        "name",
                        format!("{name:?} is not a port name"),
                        "use lower-case letters, digits and inner dashes",
                    ),
                    Some(name) if !names.insert(name.to_owned()) => {
                        report.say("name", format!("{name:?} is given twice"), "rename one");
                    }
                    Some(_) => {}
                }
                if !numbers.insert((port["protocol"].to_string(), port["port"].as_i64())) {
                    report.say(
                        "port",
                        format!("{} is given twice", port["port"]),
                        "keep one for each protocol",
                    );
                }
            });
        }
    }

    fn endpoint_slice(&mut self, body: &mut Value) {
        let family = body["addressType"].as_str().unwrap_or_default().to_owned();
        self.choice(body, "addressType", &["IPv4", "IPv6", "FQDN"]);
        for (field, most) in [("endpoints", 1000), ("ports", 100)] {
            let count = body[field].as_array().map_or(0, Vec::len);
            if count > most {
                self.say(
                    field,
                    format!("has {count} items"),
                    format!("give at most {most}: use more slices"),
                );
            }
        }
        for (index, endpoint) in items(body, "endpoints") {
            self.item("endpoints", index, |report| {
                let addresses = endpoint["addresses"].as_array().map_or(&[][..], |list| list);
                if addresses.is_empty() || addresses.len() > 100 {
                    report.say("addresses", format!("has {} items", addresses.len()), "give 1 to 100");
                }
                for (index, address) in addresses.iter().enumerate() {
                    let text = address.as_str().unwrap_or_default();
                    if let Some(fix) = endpoint_address(&family, text) {
                        report.item("addresses", index, |report| {
                            report.say(
                                "",
                                format!("{text:?} is not usable as an address of type {family}"),
                                fix,
                            );
                        });
                    }
                }
            });
        }
        let mut names = BTreeSet::new();
        for (index, port) in items(body, "ports") {
            set_default(port, "protocol", json!("TCP"));
            set_default(port, "name", json!(""));
            self.item("ports", index, |report| {
                report.port(port, "port");
                report.choice(port, "protocol", &["TCP", "UDP", "SCTP"]);
                report.app_protocol(port);
                let name = port["name"].as_str().unwrap_or_default();
                if !name.is_empty() && !is_dns1123_label(name) {
                    let fix = "use lower-case letters, digits and inner dashes";
                    report.say("name", format!("{name:?} is not a port name"), fix);
                } else if !names.insert(name.to_owned()) {
                    report.say("name", format!("{name:?} is given twice"), "rename one");
                }
            });
        }
    }

    fn secret(&mut self, body: &mut Value) {
        set_default(body, "type", json!("Opaque"));
        // Written by users in clear, stored in `data`, and winning over it.
        if let Some(Value::Object(clear)) = body.as_object_mut().and_then(|map| map.shift_remove("stringData")) {
            let data = &mut body["data"];
            if data.is_null() {
                *data = Value::Object(Map::new());
            }
            for (key, value) in clear {
                data[key] = Value::String(base64(value.as_str().unwrap_or_default().as_bytes()));
            }
        }
        self.data(body, &["data"]);
        if body["type"] == "kubernetes.io/tls" {
            for key in ["tls.crt", "tls.key"] {
                if body["data"][key].is_null() {
                    self.at(&["data"], |report| {
                        report.say(
                            key,
                            "required in a Secret of type kubernetes.io/tls",
                            format!("add {key:?}"),
                        );
                    });
                }
            }
        }
    }

    fn config_map(&mut self, body: &Value) {
        self.data(body, &["data", "binaryData"]);
        let both = body["data"]
            .as_object()
            .into_iter()
            .flatten()
            .find(|(key, _)| !body["binaryData"][*key].is_null());
        if let Some((key, _)) = both {
            self.say("binaryData", format!("{key:?} is also in data"), "keep one");
        }
        for (key, value) in body["binaryData"].as_object().into_iter().flatten() {
            if !value.as_str().is_some_and(is_base64) {
                self.at(&["binaryData"], |report| {
                    report.say(key, "is not base64", "encode it in base64")
                });
            }
        }
    }

    fn data(&mut self, body: &Value, fields: &[&str]) {
        let mut total = 0;
        for field in fields {
            for (key, value) in body[field].as_object().into_iter().flatten() {
                let plain = key
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
                if !plain || key.is_empty() || key.len() > 253 || key == "." || key.starts_with("..") {
                    self.say(
                        field,
                        format!("{key:?} is not a key"),
                        "use letters, digits, '-', '_' and '.'",
                    );
                }
                total += value.as_str().map_or(0, str::len);
            }
        }
        // Base64 takes four letters for three bytes.
        if total > MAX_DATA / 3 * 4 + 4 {
            self.say(fields[0], format!("holds {total} bytes"), "keep it below 1 MiB");
        }
    }

    /// What the PEM says is for `translate`, which names those who use it.
    fn cluster_trust_bundle(&mut self, metadata: &Value, body: &Value) {
        let spec = &body["spec"];
        let name = metadata["name"].as_str().unwrap_or_default();
        let signer = spec["signerName"].as_str().unwrap_or_default();
        if signer.is_empty() && name.contains(':') {
            self.at(&["metadata"], |report| {
                report.say(
                    "name",
                    format!("{name:?} starts with a signer, and there is none"),
                    "set spec.signerName, or use a name without colons",
                );
            });
        }
        let prefix = format!("{}:", signer.replace('/', ":"));
        if !signer.is_empty() && !name.starts_with(&prefix) {
            self.at(&["metadata"], |report| {
                report.say(
                    "name",
                    format!("{name:?} does not start with the signer"),
                    format!("start it with {prefix:?}"),
                );
            });
        }
        if spec["trustBundle"] == "" {
            self.at(&["spec"], |report| report.missing("trustBundle"));
        }
    }

    fn ingress_class(&mut self, body: &mut Value) {
        let Some(spec) = body.get_mut("spec") else {
            return self.missing("spec");
        };
        self.at(&["spec"], |report| {
            match spec["controller"].as_str() {
                None | Some("") => report.missing("controller"),
                Some(name) if name.len() > 250 || !name.contains('/') || !is_controller(name) => report.say(
                    "controller",
                    format!("{name:?} is not a controller name"),
                    "write domain/path, such as pierhead.dev/ingress-controller",
                ),
                Some(_) => {}
            }
            if let Some(parameters) = spec.get_mut("parameters").filter(|value| value.is_object()) {
                set_default(parameters, "scope", json!("Cluster"));
                report.at(&["parameters"], |report| {
                    report.choice(parameters, "scope", &["Cluster", "Namespace"]);
                    let named = parameters["namespace"].is_string();
                    match (parameters["scope"].as_str(), named) {
                        (Some("Namespace"), false) => report.missing("namespace"),
                        (Some("Cluster"), true) => {
                            report.say(
                                "namespace",
                                "is forbidden with scope Cluster",
                                "remove it, or set scope: Namespace",
                            );
                        }
                        _ => {}
                    }
                });
            }
        });
    }

    fn ingress(&mut self, metadata: &Value, body: &Value) {
        let spec = &body["spec"];
        let annotated = metadata["annotations"]["kubernetes.io/ingress.class"].is_string();
        self.at(&["spec"], |report| {
            if spec["rules"].as_array().is_none_or(Vec::is_empty) && spec["defaultBackend"].is_null() {
                report.say(
                    "",
                    "has neither rules nor a default backend",
                    "add \"rules\" or \"defaultBackend\"",
                );
            }
            if let Some(class) = spec["ingressClassName"].as_str() {
                if !is_dns1123_subdomain(class) {
                    let fix = "name an IngressClass";
                    report.say("ingressClassName", format!("{class:?} is not a name"), fix);
                } else if annotated {
                    report.say(
                        "ingressClassName",
                        "is given beside annotation kubernetes.io/ingress.class",
                        "remove the annotation",
                    );
                }
            }
            if !spec["defaultBackend"].is_null() {
                report.at(&["defaultBackend"], |report| {
                    report.ingress_backend(&spec["defaultBackend"])
                });
            }
            for (index, tls) in spec["tls"].as_array().into_iter().flatten().enumerate() {
                for (at, host) in tls["hosts"].as_array().into_iter().flatten().enumerate() {
                    let host = host.as_str().unwrap_or_default();
                    if !is_host(host) {
                        report.at(&["tls", &index.to_string(), "hosts", &at.to_string()], |report| {
                            report.say("", format!("{host:?} is not a host name"), HOST_FIX);
                        });
                    }
                }
            }
            for (index, rule) in spec["rules"].as_array().into_iter().flatten().enumerate() {
                report.item("rules", index, |report| report.ingress_rule(rule));
            }
        });
    }

    fn ingress_rule(&mut self, rule: &Value) {
        if let Some(host) = rule["host"].as_str().filter(|host| !host.is_empty()) {
            if host.parse::<IpAddr>().is_ok() {
                self.say(
                    "host",
                    format!("{host:?} is an address"),
                    "use a host name, or none to match all",
                );
            } else if !is_host(host) {
                self.say("host", format!("{host:?} is not a host name"), HOST_FIX);
            }
        }
        if rule["http"].is_null() {
            return;
        }
        self.at(&["http"], |report| {
            let paths = rule["http"]["paths"].as_array().map_or(&[][..], |list| list);
            if paths.is_empty() {
                report.missing("paths");
            }
            for (index, path) in paths.iter().enumerate() {
                report.item("paths", index, |report| {
                    report.ingress_path(path);
                    report.at(&["backend"], |report| report.ingress_backend(&path["backend"]));
                });
            }
        });
    }

    fn ingress_path(&mut self, rule: &Value) {
        self.choice(rule, "pathType", &["Exact", "Prefix", "ImplementationSpecific"]);
        let path = rule["path"].as_str().unwrap_or_default();
        let strict = rule["pathType"] != "ImplementationSpecific";
        if !path.starts_with('/') && (strict || !path.is_empty()) {
            return self.say("path", format!("{path:?} is not an absolute path"), "start it with `/`");
        }
        if !strict {
            return;
        }
        let inner = ["//", "/./", "/../", "%2f", "%2F"]
            .into_iter()
            .find(|part| path.contains(part));
        let end = ["/..", "/."].into_iter().find(|part| path.ends_with(part));
        if let Some(part) = inner.or(end) {
            self.say(
                "path",
                format!("{path:?} holds {part:?}"),
                "write the path as it is after normalisation",
            );
        }
    }

    fn ingress_backend(&mut self, backend: &Value) {
        match (backend["service"].is_object(), backend["resource"].is_object()) {
            (false, false) => return self.missing("service"),
            (true, true) => return self.say("", "has both service and resource", "keep one"),
            (false, true) => return,
            (true, false) => {}
        }
        self.at(&["service"], |report| {
            let service = &backend["service"];
            match service["name"].as_str() {
                None | Some("") => report.missing("name"),
                Some(name) if !is_dns1123_label(name) => {
                    report.say(
                        "name",
                        format!("{name:?} is not the name of a Service"),
                        "use lower-case letters, digits and dashes",
                    );
                }
                Some(_) => {}
            }
            let name = service["port"]["name"].as_str().filter(|name| !name.is_empty());
            let number = service["port"]["number"].as_i64().filter(|number| *number != 0);
            match (name, number) {
                (None, None) => report.say(
                    "port",
                    "required field is missing",
                    "add \"port\": {\"number\": …} or {\"name\": …}",
                ),
                (Some(_), Some(_)) => report.say("port", "has both name and number", "keep one"),
                (Some(name), None) if !is_port_name(name) => {
                    report.say(
                        "port",
                        format!("{name:?} is not a port name"),
                        "use the name of a port of the Service",
                    );
                }
                (Some(_), None) => {}
                (None, Some(_)) => report.at(&["port"], |report| report.port(&service["port"], "number")),
            }
        });
    }
}

/// Why an address cannot be an endpoint, as a fix.
fn endpoint_address(family: &str, text: &str) -> Option<&'static str> {
    let special = |address: IpAddr| address.is_unspecified() || address.is_multicast();
    match family {
        "IPv4" => match text.parse::<Ipv4Addr>() {
            Ok(address) if special(address.into()) => Some("use the address of one machine"),
            Ok(_) => None,
            Err(_) if text.parse::<Ipv6Addr>().is_ok() => Some("put IPv6 addresses into a slice of their own"),
            Err(_) => Some("write an IPv4 address; for a host name use addressType FQDN or an ExternalName Service"),
        },
        "IPv6" => match text.parse::<Ipv6Addr>() {
            Ok(address) if special(address.into()) => Some("use the address of one machine"),
            Ok(_) => None,
            Err(_) => Some("write an IPv6 address"),
        },
        "FQDN" => (!is_dns1123_subdomain(text)).then_some("write a DNS name in lower case"),
        _ => None,
    }
}

/// A host name, or one with its first label a wildcard.
fn is_host(text: &str) -> bool {
    is_dns1123_subdomain(text.strip_prefix("*.").unwrap_or(text))
}

fn is_controller(name: &str) -> bool {
    name.split_once('/').is_some_and(|(domain, path)| {
        is_dns1123_subdomain(domain) && !path.is_empty() && path.bytes().all(|byte| byte.is_ascii_graphic())
    })
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk
            .iter()
            .fold(0_usize, |group, byte| group << 8 | usize::from(*byte))
            << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let letter = LETTERS[group >> (18 - 6 * at) & 63];
            text.push(if at <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (clear, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(clear.as_bytes()), text);
            assert!(is_base64(text));
        }
        assert!(!is_base64("Zg="));
        assert!(!is_base64("Zm9-"));
    }
}
