//! What the Ingress conformance suite asserts of hosts and paths (`path_rules.feature`, `host_rules.feature`,
//! `default_backend.feature`), from the objects through to the rule that is found.

use std::{borrow::Cow, sync::Arc};

use k8s_openapi::api::networking::v1::Ingress;
use pierhead_model::{HeaderName, Listener, ListenerKind};
use pierhead_route::{Request, RouteTable, Routes};
use pierhead_translate::{Settings, World, translate};
use serde_json::{Value, json};

struct Get<'a> {
    host: &'a str,
    path: &'a str,
}

impl Request for Get<'_> {
    fn host(&self) -> &str {
        self.host
    }

    fn path(&self) -> &str {
        self.path
    }

    fn query(&self) -> Option<&str> {
        None
    }

    fn method(&self) -> &'static str {
        "GET"
    }

    fn header(&self, _: &HeaderName) -> Option<Cow<'_, [u8]>> {
        None
    }
}

/// Sends requests, written `host/path`, to Ingresses given by their `spec`; expects the Service that answers, or `404`.
fn check(specs: &[Value], expected: &[(&str, &str)]) {
    let mut world = World::default();
    for (i, spec) in specs.iter().enumerate() {
        let name = format!("ingress-{i}");
        let ingress: Ingress = serde_json::from_value(json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {"namespace": "default", "name": name}, "spec": spec,
        }))
        .expect("an Ingress");
        world.ingresses.insert("default", &name, Arc::new(ingress));
    }
    let mut settings = Settings::new("2026-11-23T12:00:00Z".parse().expect("a timestamp"));
    settings.watch_ingress_without_class = true;
    let snapshot = translate(&world, &settings).snapshot;
    let listener: &Listener = snapshot
        .binds
        .values()
        .flat_map(|b| &b.listeners)
        .next()
        .expect("a listener");
    let ListenerKind::Http(options) = &listener.kind else {
        panic!("{listener:?}")
    };
    let routes = snapshot.routes.iter();
    let routes: Routes<()> = routes
        .map(|(id, route)| (id.clone(), (Arc::clone(route), ())))
        .collect();
    let table = RouteTable::compile(&listener.id, options.host_selection, &routes, None, &[]);
    for (url, service) in expected {
        let slash = url.find('/').expect("a path");
        let request = Get {
            host: &url[..slash],
            path: &url[slash..],
        };
        let found = table.find(&request);
        let answer = found
            .as_ref()
            .and_then(|f| f.rule())
            .map_or("404", |rule| rule.backends[0].backend.as_str());
        let answer = answer
            .trim_start_matches("default/")
            .split(':')
            .next()
            .unwrap_or_default();
        assert_eq!(answer, *service, "{url}");
    }
}

fn backend(service: &str) -> Value {
    json!({"service": {"name": service, "port": {"number": 8080}}})
}

/// Paths are `type path service`.
fn rule(host: &str, paths: &[&str]) -> Value {
    let paths: Vec<Value> = paths
        .iter()
        .map(|text| {
            let mut words = text.split(' ');
            let mut word = || words.next().expect("type path service");
            json!({"pathType": word(), "path": word(), "backend": backend(word())})
        })
        .collect();
    let http = json!({"paths": paths});
    if host.is_empty() {
        json!({"http": http})
    } else {
        json!({"host": host, "http": http})
    }
}

fn paths(paths: &[&str], expected: &[(&str, &str)]) {
    let expected: Vec<(String, &str)> = expected.iter().map(|(path, s)| (format!("a.test{path}"), *s)).collect();
    let expected: Vec<(&str, &str)> = expected.iter().map(|(url, s)| (url.as_str(), *s)).collect();
    check(&[json!({"rules": [rule("a.test", paths)]})], &expected);
}

#[test]
fn exact_is_byte_for_byte() {
    let expected = [
        ("/foo", "foo"),
        ("/foo/", "404"),
        ("/FOO", "404"),
        ("/bar", "404"),
        ("/foo/bar", "404"),
    ];
    paths(&["Exact /foo foo"], &expected);
    paths(&["Exact /foo/ foo"], &[("/foo", "404"), ("/foo/", "foo")]);
}

#[test]
fn prefix_is_by_element_and_ignores_a_trailing_slash() {
    let expected = [
        ("/foo", "foo"),
        ("/foo/", "foo"),
        ("/foo/bar", "foo"),
        ("/FOO", "404"),
        ("/foobar", "404"),
        ("/", "404"),
    ];
    paths(&["Prefix /foo foo"], &expected);
    paths(&["Prefix /foo/ foo"], &expected);
    paths(&["Prefix / all"], &[("/", "all"), ("/any/thing", "all")]);
    paths(
        &["Prefix /aaa/bbb/ b"],
        &[
            ("/aaa/bbb", "b"),
            ("/aaa/bbb/", "b"),
            ("/aaa/bbb/ccc", "b"),
            ("/aaa", "404"),
        ],
    );
    paths(&["Prefix /aaa/bb b"], &[("/aaa/bbb", "404")]);
}

#[test]
fn the_longest_path_wins_then_exact() {
    let expected = [
        ("/aaa/bbb", "long"),
        ("/aaa/bbb/ccc", "long"),
        ("/aaa/ccc", "short"),
        ("/aaaccc", "root"),
        ("/ccc", "root"),
    ];
    paths(
        &["Prefix / root", "Prefix /aaa short", "Prefix /aaa/bbb long"],
        &expected,
    );
    let expected = [("/foo", "exact"), ("/foo/", "prefix"), ("/foo/x", "prefix")];
    paths(&["Prefix /foo prefix", "Exact /foo exact"], &expected);
    paths(
        &["Exact /foo exact", "Prefix /foo/ prefix"],
        &[("/foo/", "prefix"), ("/foo/x", "prefix")],
    );
}

#[test]
fn implementation_specific_is_a_prefix_and_may_be_empty() {
    paths(
        &["ImplementationSpecific /foo foo"],
        &[("/foo/bar", "foo"), ("/foobar", "404")],
    );
    paths(&["ImplementationSpecific  all"], &[("/", "all"), ("/x", "all")]);
}

#[test]
fn hosts_are_exact_then_one_label_wildcard_then_none_without_fall_through() {
    let spec = json!({"rules": [
        rule("foo.test", &["Prefix /foo exact"]),
        rule("*.foo.test", &["Prefix / wild"]),
        rule("one.foo.test", &["Prefix /one one"]),
        rule("", &["Prefix /none none"]),
    ]});
    check(
        &[spec],
        &[
            ("foo.test/foo", "exact"),
            ("foo.test/none", "404"),
            ("bar.foo.test/", "wild"),
            ("bar.foo.test/none", "wild"),
            ("baz.bar.foo.test/", "404"),
            ("baz.bar.foo.test/none", "none"),
            ("one.foo.test/one", "one"),
            ("one.foo.test/two", "404"),
            ("other.test/none", "none"),
            ("other.test/foo", "404"),
        ],
    );
}

#[test]
fn a_default_backend_takes_what_is_left_of_its_own_hosts_only() {
    let alone = json!({"defaultBackend": backend("alone")});
    let own =
        json!({"defaultBackend": backend("own"), "rules": [rule("own.test", &["Prefix /x x"]), {"host": "bare.test"}]});
    let other = json!({"rules": [rule("other.test", &["Prefix /y y"]), rule("own.test", &["Prefix /z z"])]});
    check(
        &[alone, own, other],
        &[
            ("own.test/x", "x"),
            ("own.test/z", "z"),
            ("own.test/", "own"),
            ("bare.test/any", "own"),
            ("other.test/y", "y"),
            ("other.test/", "404"),
            ("unknown.test/any", "alone"),
        ],
    );
}

#[test]
fn a_host_without_paths_is_known_and_has_nothing() {
    let wild = json!({"rules": [rule("*.foo.test", &["Prefix / wild"]), rule("", &["Prefix / any"])]});
    let bare = json!({"rules": [{"host": "bare.foo.test"}, {"host": "bare.test"}]});
    let invalid = json!({"rules": [rule("invalid.foo.test", &["Unknown / x"])]});
    let later = json!({"rules": [{"host": "later.foo.test"}]});
    let more = json!({"rules": [rule("later.foo.test", &["Prefix /x x"])]});
    check(
        &[wild, bare, invalid, later, more],
        &[
            ("other.foo.test/", "wild"),
            ("bare.foo.test/", "404"),
            ("bare.test/", "404"),
            ("invalid.foo.test/", "404"),
            ("later.foo.test/x", "x"),
            ("later.foo.test/", "404"),
        ],
    );
}
