//! The same routes in each candidate's words: hosts `h<n>` with four prefixes, hosts `g<n>` with four gRPC services.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::Result;
use serde_json::{Value, json};

use super::{SERVICES, Shape};

pub(super) fn nginx(shape: &Shape) -> String {
    let mut text = String::new();
    let listen = "listen 127.0.0.1:@CLEAR@; listen 127.0.0.1:@TLS@ ssl http2; listen 127.0.0.1:@H2C@ http2;";
    // The first is also what listens when there are no routes.
    let _ = writeln!(text, "    server {{ {listen} return 404; }}");
    for host in 0..shape.hosts {
        let _ = writeln!(text, "    server {{ {listen} server_name h{host}.example.com;");
        for prefix in shape.prefixes {
            let _ = writeln!(text, "        location {prefix}/ {{ proxy_pass http://backend; }}");
        }
        text.push_str("    }\n");
    }
    for host in 0..shape.grpc_hosts {
        let _ = writeln!(text, "    server {{ {listen} server_name g{host}.example.com;");
        for service in SERVICES {
            let _ = writeln!(text, "        location /{service}/ {{ grpc_pass grpc://grpc; }}");
        }
        text.push_str("    }\n");
    }
    text
}

pub(super) fn haproxy(shape: &Shape) -> String {
    let mut text = String::new();
    for host in 0..shape.hosts {
        for prefix in shape.prefixes {
            let _ = writeln!(text, "h{host}.example.com{prefix}/ app");
        }
    }
    for host in 0..shape.grpc_hosts {
        for service in SERVICES {
            let _ = writeln!(text, "g{host}.example.com/{service}/ grpc");
        }
    }
    text
}

/// YAML is a superset of JSON: one virtual host a line.
pub(super) fn envoy(shape: &Shape) -> String {
    let add = json!([
        {"header": {"key": "x-forwarded-host", "value": "%REQ(:AUTHORITY)%"}},
        {"header": {"key": "x-forwarded-port", "value": "%DOWNSTREAM_LOCAL_PORT%"}},
    ]);
    let virtual_host = |name: String, paths: &[String], cluster: &str| {
        let routes: Vec<_> = paths
            .iter()
            .map(|path| {
                // Streams of gRPC may be long, as may those of the other candidates.
                json!({"match": {"path_separated_prefix": path}, "route": {"cluster": cluster, "timeout": "0s"}})
            })
            .collect();
        json!({"name": name, "domains": [format!("{name}.example.com")], "routes": routes, "request_headers_to_add": add})
    };
    let prefixes: Vec<_> = shape.prefixes.iter().map(|prefix| (*prefix).to_owned()).collect();
    let services = SERVICES.map(|service| format!("/{service}"));
    let http = (0..shape.hosts).map(|host| virtual_host(format!("h{host}"), &prefixes, "app"));
    let grpc = (0..shape.grpc_hosts).map(|host| virtual_host(format!("g{host}"), &services, "grpc"));
    let mut text = String::new();
    for line in http.chain(grpc) {
        let _ = write!(text, "\n            - {line}");
    }
    text
}

pub(super) fn pierhead_secret(directory: &Path) -> Result<String> {
    let read = |name: &str| fs::read_to_string(directory.join(name));
    Ok(json!({"tls.crt": read("tls.crt")?, "tls.key": read("tls.key")?}).to_string())
}

pub(super) fn pierhead(shape: &Shape) -> Result<String> {
    let mut items = Vec::new();
    for host in 0..shape.hosts {
        items.push(http_route(&format!("h{host}"), shape.prefixes, "app"));
    }
    for host in 0..shape.grpc_hosts {
        let rules: Vec<_> = SERVICES
            .iter()
            .map(|service| json!({"matches": [{"method": {"service": service}}], "backendRefs": [{"name": "grpc", "port": 80}]}))
            .collect();
        items.push(route("GRPCRoute", &format!("g{host}"), &rules));
    }
    Ok(serde_json::to_string(
        &json!({"apiVersion": "v1", "kind": "List", "items": items}),
    )?)
}

/// An HTTPRoute `<name>` for `<name>.example.com`: a rule per prefix, all to one Service.
pub(crate) fn http_route(name: &str, prefixes: &[&str], service: &str) -> Value {
    let rules: Vec<_> = prefixes
        .iter()
        .map(|prefix| {
            json!({"matches": [{"path": {"type": "PathPrefix", "value": prefix}}],
                "backendRefs": [{"name": service, "port": 80}]})
        })
        .collect();
    route("HTTPRoute", name, &rules)
}

fn route(kind: &str, name: &str, rules: &[Value]) -> Value {
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": kind, "metadata": {"name": name, "namespace": "default"},
        "spec": {"parentRefs": [{"name": "gate"}], "hostnames": [format!("{name}.example.com")], "rules": rules}})
}
