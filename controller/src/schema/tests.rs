//! Whole objects through admission. Expected results come from the API reference, not from what the code says.

use serde_json::json;

use super::*;
use crate::yaml;

fn object(text: &str) -> Map<String, Value> {
    match yaml::read(text, 1, &mut yaml::Budget::default())
        .unwrap()
        .remove(0)
        .value
    {
        Value::Object(map) => map,
        other => panic!("{other}"),
    }
}

fn admitted(text: &str) -> (Value, Vec<String>) {
    let mut object = object(text);
    let api_version = object["apiVersion"].as_str().unwrap().to_owned();
    let kind = object["kind"].as_str().unwrap().to_owned();
    let Found::Kind(kind, schema) = find(&api_version, &kind) else {
        panic!("{api_version} {kind}")
    };
    let found = admit(kind, &schema, &mut object);
    let found = found
        .iter()
        .map(|one| format!("{}: {}; {}", path_text(&one.path), one.what, one.fix))
        .collect();
    (Value::Object(object), found)
}

#[track_caller]
fn accept(text: &str) -> Value {
    let (object, found) = admitted(text);
    assert_eq!(found, Vec::<String>::new());
    object
}

#[track_caller]
fn reject(text: &str, parts: &[&str]) {
    let (_, found) = admitted(text);
    assert_eq!(found.len(), 1, "{found:#?}");
    for part in parts {
        assert!(found[0].contains(part), "{part:?} in {:?}", found[0]);
    }
}

#[test]
fn every_vendored_schema_is_evaluated_whole() {
    for vendored in VENDORED.iter().chain([&OBJECT_META]) {
        let kind = compile::kind(vendored.text).unwrap_or_else(|error| panic!("{}: {error}", vendored.kind));
        assert_eq!((&*kind.group, &*kind.name), (vendored.group, vendored.kind));
        assert!(kind.versions.iter().any(|(version, _)| version == "v1"));
        for (version, schema) in &kind.versions {
            assert_eq!(
                schema.broken_patterns(),
                Vec::<String>::new(),
                "{} {version}",
                vendored.kind
            );
        }
    }
}

#[test]
fn every_schema_of_ours_is_evaluated_whole() {
    for crd in pierhead_api::crds() {
        let kind = compile::definition(&crd).unwrap_or_else(|error| panic!("{}: {error}", crd["metadata"]["name"]));
        for (version, schema) in &kind.versions {
            assert_eq!(
                schema.broken_patterns(),
                Vec::<String>::new(),
                "{} {version}",
                kind.name
            );
        }
    }
}

const PARAMETERS: &str = "
apiVersion: pierhead.dev/v1alpha1
kind: GatewayParameters
metadata: {name: pool}
spec: {addresses: {type: Pool, pool: {cidrs: [10.0.0.0/24]}}}
";

#[test]
fn parameters_get_their_defaults_and_their_rules_hold() {
    let parameters = accept(PARAMETERS);
    assert_eq!(parameters["apiVersion"], "pierhead.dev/v1alpha1");
    let pool = json!({"addresses": {"type": "Pool", "pool": {"cidrs": ["10.0.0.0/24"], "announce": "L2"}}});
    assert_eq!(parameters["spec"], pool);
    let empty = accept("{apiVersion: pierhead.dev/v1alpha1, kind: GatewayParameters, metadata: {name: a}, spec: {}}");
    assert_eq!(empty["spec"], json!({"addresses": {"type": "Node"}}));
    reject(&PARAMETERS.replace("type: Pool, ", ""), &["pool goes with type Pool"]);
    reject(
        &PARAMETERS.replace("10.0.0.0/24", "ten"),
        &["cidrs[0]", "must be a prefix"],
    );
    reject(
        &PARAMETERS.replace("[10.0.0.0/24]", "[10.0.0.0/24, 10.0.0.0/24]"),
        &["must be distinct"],
    );
    reject(&PARAMETERS.replace("[10.0.0.0/24]", "[]"), &["cidrs"]);
    let (_, misspelt) = admitted(&PARAMETERS.replace("cidrs", "cdirs"));
    assert_eq!(misspelt.len(), 2, "{misspelt:#?}");
    assert!(misspelt[0].contains("did you mean \"cidrs\"?"), "{misspelt:#?}");
    assert!(misspelt[1].contains("required field is missing"), "{misspelt:#?}");
}

#[test]
fn only_transition_rules_are_left_out() {
    let rules = |text: &str| text.matches("\"rule\":").count();
    fn kept(schema: &Schema) -> usize {
        let parts = schema.properties.values().chain(&schema.any_of).chain(&schema.one_of);
        let boxed = [&schema.additional, &schema.items, &schema.not]
            .into_iter()
            .flatten()
            .map(|schema| &**schema);
        schema.rules.len() + parts.chain(boxed).map(kept).sum::<usize>()
    }
    for vendored in &VENDORED {
        let mut distinct: Vec<&Arc<Schema>> = Vec::new();
        for (_, schema) in &vendored.kind().versions {
            if !distinct.iter().any(|other| Arc::ptr_eq(other, schema)) {
                distinct.push(schema);
            }
        }
        let kept: usize = distinct.into_iter().map(|schema| kept(schema)).sum();
        let left_out = usize::from(vendored.kind == "GatewayClass");
        assert_eq!(kept, rules(vendored.text) - left_out, "{}", vendored.kind);
    }
}

const ROUTE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{name: gw}]
  rules:
  - backendRefs: [{name: web, port: 80}]
";

#[test]
fn a_route_gets_the_defaults_of_its_schema() {
    let route = accept(ROUTE);
    assert_eq!(route["metadata"], json!({"name": "web", "namespace": "default"}));
    assert_eq!(
        route["spec"],
        json!({
            "parentRefs": [{"name": "gw", "group": "gateway.networking.k8s.io", "kind": "Gateway"}],
            "rules": [{
                "backendRefs": [{"name": "web", "port": 80, "group": "", "kind": "Service", "weight": 1}],
                "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
            }],
        })
    );
}

#[test]
fn older_versions_become_v1() {
    let route = accept(&ROUTE.replace("/v1\n", "/v1beta1\n"));
    assert_eq!(route["apiVersion"], "gateway.networking.k8s.io/v1");
    let Found::Version(served) = find("gateway.networking.k8s.io/v1alpha2", "HTTPRoute") else {
        panic!()
    };
    assert_eq!(
        served,
        ["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1"]
    );
    assert!(matches!(
        find("gateway.networking.k8s.io/v1alpha2", "TCPRoute"),
        Found::Kind(..)
    ));
    assert!(matches!(find("apps/v1", "Deployment"), Found::Other));
}

#[test]
fn status_and_book_keeping_are_dropped() {
    let text = ROUTE.replace(
        "{name: web}\n",
        "{name: web, uid: x, resourceVersion: '1', managedFields: []}\nstatus: {parents: 3}\n",
    );
    let route = accept(&text);
    assert!(route.get("status").is_none());
    assert_eq!(route["metadata"], json!({"name": "web", "namespace": "default"}));
}

#[test]
fn a_misspelt_field_names_the_one_that_was_meant() {
    reject(
        &ROUTE.replace("backendRefs", "backendRef"),
        &["spec.rules[0].backendRef", "unknown", "\"backendRefs\"?"],
    );
    reject(
        &ROUTE.replace("metadata: {", "metadata: {lables: {}, "),
        &["metadata.lables", "\"labels\"?"],
    );
    reject(&ROUTE.replace("spec:", "specs: 1\nspec:"), &["specs", "\"spec\"?"]);
}

#[test]
fn types_enums_ranges_and_patterns() {
    reject(
        &ROUTE.replace("port: 80", "port: '80'"),
        &["backendRefs[0].port", "whole number", "remove the quotes"],
    );
    reject(
        &ROUTE.replace("port: 80", "port: 0"),
        &["0 is out of range", "1 to 65535"],
    );
    reject(
        &ROUTE.replace("port: 80", "port: 80, weight: 1000001"),
        &["weight", "0 to 1000000"],
    );
    reject(
        &ROUTE.replace("rules:", "hostnames: [Example.com]\n  rules:"),
        &["spec.hostnames[0]", "lower case"],
    );
    reject(
        &ROUTE.replace(
            "  - backend",
            "  - matches: [{path: {type: prefix, value: /}}]\n    backend",
        ),
        &["matches[0].path.type", "\"PathPrefix\"?"],
    );
    reject(
        &ROUTE.replace("  - backend", "  - timeouts: {request: 1 day}\n    backend"),
        &["duration"],
    );
    reject(
        &ROUTE.replace("[{name: gw}]", "{name: gw}"),
        &["spec.parentRefs", "must be a list", "`- `"],
    );
}

#[test]
fn rules_are_evaluated_after_defaults() {
    reject(
        &ROUTE.replace(", port: 80", ""),
        &["Must have port for Service reference"],
    );
    reject(
        &ROUTE.replace("[{name: gw}]", "[{name: gw}, {name: gw}]"),
        &["sectionName"],
    );
    reject(
        &ROUTE.replace("  - backend", "  - matches: [{path: {value: x}}]\n    backend"),
        &["rules[0].matches[0].path", "must be an absolute path"],
    );
    reject(
        &ROUTE.replace("  - backend", "  - filters: [{type: RequestRedirect}]\n    backend"),
        &["filters[0]", "filter.requestRedirect must be specified"],
    );
    reject(
        &ROUTE.replace(
            "  - backend",
            "  - timeouts: {request: 1s, backendRequest: 2s}\n    backend",
        ),
        &["backendRequest timeout cannot be longer"],
    );
    reject(
        &ROUTE.replace(
            "  - backend",
            "  - matches: [{headers: [{name: a, value: b}, {name: a, value: c}]}]\n    backend",
        ),
        &["headers[1]", "given twice"],
    );
}

const GATEWAY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  gatewayClassName: pierhead
  listeners:
  - {name: a, port: 80, protocol: HTTP}
";

#[test]
fn gateways() {
    let gateway = accept(GATEWAY);
    assert_eq!(
        gateway["spec"]["listeners"][0],
        json!({"name": "a", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "Same"}}})
    );
    reject(
        &(GATEWAY.to_owned() + "  - {name: a, port: 81, protocol: HTTP}\n"),
        &["listeners[1]", "given twice (name \"a\")"],
    );
    reject(
        &(GATEWAY.to_owned() + "  - {name: b, port: 80, protocol: HTTP}\n"),
        &["must be unique"],
    );
    reject(&GATEWAY.replace("HTTP}", "HTTP, tls: {}}"), &["tls"]);
    reject(
        &(GATEWAY.to_owned() + "  addresses: [{value: gate.example}]\n"),
        &["addresses[0]", "\"Hostname\""],
    );
    accept(&(GATEWAY.to_owned() + "  addresses: [{value: 10.0.0.1}, {value: '::1'}, {type: Hostname, value: a.b}]\n"));
    let listeners: String = (0..65)
        .map(|n| format!("  - {{name: l{n}, port: {}, protocol: TCP}}\n", n + 1))
        .collect();
    let many = GATEWAY.replace("  - {name: a, port: 80, protocol: HTTP}\n", &listeners);
    reject(&many, &["spec.listeners", "has 65 items", "at most 64"]);
    accept(&many.replace("  - {name: l64, port: 65, protocol: TCP}\n", ""));
}

#[test]
fn metadata_is_checked_for_every_kind() {
    reject(
        &ROUTE.replace("{name: web}", "{name: Web}"),
        &["metadata.name", "lower-case"],
    );
    reject(&ROUTE.replace("{name: web}", "{}"), &["metadata.name", "missing"]);
    reject(
        &ROUTE.replace("{name: web}", "{generateName: web-}"),
        &["metadata.name", "generateName"],
    );
    reject(
        &ROUTE.replace("{name: web}", "{name: web, namespace: a.b}"),
        &["metadata.namespace"],
    );
    reject(
        &ROUTE.replace("{name: web}", "{name: web, labels: {a: 'x y'}}"),
        &["metadata.labels"],
    );
    reject(
        &ROUTE.replace("{name: web}", "{name: web, creationTimestamp: yesterday}"),
        &["metadata.creationTimestamp"],
    );
    accept(&ROUTE.replace("{name: web}", "{name: web, creationTimestamp: 2026-01-01T00:00:00Z}"));
}

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  ports:
  - {port: 80}
";

#[test]
fn services() {
    let service = accept(SERVICE);
    assert_eq!(
        service["spec"]["ports"],
        json!([{"port": 80, "protocol": "TCP", "targetPort": 80}])
    );
    assert_eq!(service["spec"]["type"], "ClusterIP");
    reject(
        &SERVICE.replace("port: 80", "port: 80000"),
        &["spec.ports[0].port", "1 to 65535"],
    );
    reject(
        &SERVICE.replace("port: 80", "port: 80, protocol: tcp"),
        &["protocol", "\"TCP\"?"],
    );
    reject(
        &SERVICE.replace("port: 80", "port: 80, targetPort: a_b"),
        &["targetPort"],
    );
    reject(
        &SERVICE.replace("ports:\n  - {port: 80}", "type: ExternalName"),
        &["spec.externalName", "missing"],
    );
    reject(
        &SERVICE.replace("ports:\n  - {port: 80}", "selector: {a: b}"),
        &["spec.ports", "missing"],
    );
    accept(&SERVICE.replace("ports:\n  - {port: 80}", "clusterIP: None"));
    reject(
        &(SERVICE.to_owned() + "  - {port: 80}\n"),
        &["spec.ports[1]", "given twice", "keep one"],
    );
    let (_, found) = admitted(&(SERVICE.to_owned() + "  - {port: 81}\n"));
    assert!(found.len() == 2 && found[0].contains("name each port"), "{found:#?}");
    reject(&SERVICE.replace("port: 80", "prot: 80, port: 80"), &["\"port\"?"]);
}

#[test]
fn endpoint_slices() {
    let slice = "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [127.0.0.1]}]
ports: [{port: 3000}]
";
    assert_eq!(
        accept(slice)["ports"],
        json!([{"port": 3000, "protocol": "TCP", "name": ""}])
    );
    reject(
        &slice.replace("127.0.0.1", "localhost"),
        &["endpoints[0].addresses[0]", "ExternalName"],
    );
    reject(&slice.replace("127.0.0.1", "'::1'"), &["slice of their own"]);
    reject(&slice.replace("127.0.0.1", "0.0.0.0"), &["one machine"]);
    reject(&slice.replace("IPv4", "ipv4"), &["addressType", "\"IPv4\"?"]);
    reject(&slice.replace("addressType: IPv4\n", ""), &["addressType", "missing"]);
}

#[test]
fn secrets_and_config_maps() {
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {a: hi}\ndata: {a: eA==, b: eQ==}\n";
    let made = accept(secret);
    assert_eq!(made["data"], json!({"a": "aGk=", "b": "eQ=="}));
    assert_eq!(made["type"], "Opaque");
    assert!(made.get("stringData").is_none());
    reject(&secret.replace("eQ==", "'?'"), &["data.b", "base64"]);
    let tls = secret.replace("stringData: {a: hi}", "type: kubernetes.io/tls");
    reject(
        &tls.replace("{a: eA==, b: eQ==}", "{tls.crt: eA==}"),
        &["tls.key", "required"],
    );
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: hi}\n";
    accept(map);
    reject(
        &(map.to_owned() + "binaryData: {a: eA==}\n"),
        &["binaryData", "also in data"],
    );
    reject(&map.replace("{a: hi}", "{'a b': hi}"), &["\"a b\" is not a key"]);
    reject(&map.replace("hi", &"x".repeat(2 << 20)), &["1 MiB"]);
}

#[test]
fn namespaces_carry_their_name_as_a_label() {
    let made = accept("apiVersion: v1\nkind: Namespace\nmetadata: {name: a, namespace: b}\n");
    assert_eq!(
        made["metadata"],
        json!({"name": "a", "labels": {"kubernetes.io/metadata.name": "a"}})
    );
}

const INGRESS: &str = "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec:
  ingressClassName: pierhead
  rules:
  - host: '*.example.com'
    http:
      paths:
      - path: /a
        pathType: Prefix
        backend: {service: {name: web, port: {number: 80}}}
";

#[test]
fn ingresses() {
    accept(INGRESS);
    reject(
        &INGRESS.replace("        pathType: Prefix\n", ""),
        &["paths[0].pathType", "missing"],
    );
    reject(&INGRESS.replace("Prefix", "prefix"), &["pathType", "\"Prefix\"?"]);
    reject(&INGRESS.replace("/a", "a"), &["paths[0].path", "start it with `/`"]);
    reject(&INGRESS.replace("/a", "/a/../b"), &["\"/../\""]);
    reject(&INGRESS.replace("/a", "''"), &["absolute"]);
    accept(&INGRESS.replace("/a", "''").replace("Prefix", "ImplementationSpecific"));
    reject(&INGRESS.replace("'*.example.com'", "'*'"), &["spec.rules[0].host"]);
    reject(&INGRESS.replace("'*.example.com'", "10.0.0.1"), &["is an address"]);
    reject(
        &INGRESS.replace("number: 80", "number: 80, name: http"),
        &["both name and number"],
    );
    reject(&INGRESS.replace("{number: 80}", "{}"), &["backend.service.port"]);
    reject(
        &INGRESS.replace(
            "{name: web}\n",
            "{name: web, annotations: {kubernetes.io/ingress.class: nginx}}\n",
        ),
        &["ingressClassName", "annotation"],
    );
    let start = INGRESS.find("  ingressClassName").unwrap();
    reject(
        &(INGRESS[..start].to_owned() + "  tls: []\n"),
        &["neither rules nor a default backend"],
    );
}

#[test]
fn ingress_classes() {
    let class = "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {name: p}\nspec: {controller: pierhead.dev/ingress-controller}\n";
    accept(class);
    reject(
        &class.replace("pierhead.dev/ingress-controller", "pierhead"),
        &["spec.controller"],
    );
    let with = class.replace(
        "controller}",
        "controller, parameters: {kind: X, name: x, scope: Namespace}}",
    );
    reject(&with, &["parameters.namespace", "missing"]);
    assert_eq!(
        accept(&with.replace(", scope: Namespace", ""))["spec"]["parameters"]["scope"],
        "Cluster"
    );
}

#[test]
fn a_trust_bundle_is_called_after_its_signer() {
    let bundle = |name: &str, signer: &str| {
        format!(
            "{{apiVersion: certificates.k8s.io/v1, kind: ClusterTrustBundle, metadata: {{name: '{name}'}}, \
             spec: {{{signer}trustBundle: x}}}}"
        )
    };
    accept(&bundle("roots", ""));
    accept(&bundle("example.com:foo:v1", "signerName: example.com/foo, "));
    reject(&bundle("example.com:foo:v1", ""), &["metadata.name", "signerName"]);
    reject(
        &bundle("roots", "signerName: example.com/foo, "),
        &["metadata.name", "\"example.com:foo:\""],
    );
    reject(&bundle("a:B", ""), &["metadata.name", "is not a name"]);
    reject(
        "{apiVersion: certificates.k8s.io/v1, kind: ClusterTrustBundle, metadata: {name: a}, spec: {}}",
        &["trustBundle"],
    );
}
