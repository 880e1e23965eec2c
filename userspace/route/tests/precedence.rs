//! Precedence and matching, by rule of the specification, and against a model that looks at every rule.
#![allow(clippy::unwrap_used, reason = "helpers of a test")]

use std::{borrow::Cow, sync::Arc};

use pierhead_model::{
    Age, Attachment, HeaderMatch, HeaderName, HostPattern, HostSelection, HttpMatch, HttpRoute, HttpRule, ListenerId,
    Method, Origin, PathMatch, Pattern, QueryMatch, RouteFlavor, RouteId, Timeouts, ValueMatch, WildcardDepth,
};
use pierhead_route::{Rank, Request, RouteTable, Routes, query_value};
use proptest::prelude::*;

#[derive(Clone, Debug)]
struct Asked {
    host: String,
    path: String,
    query: Option<String>,
    method: String,
    headers: Vec<(String, String)>,
}

impl Request for Asked {
    fn host(&self) -> &str {
        &self.host
    }
    fn path(&self) -> &str {
        &self.path
    }
    fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }
    fn method(&self) -> &str {
        &self.method
    }
    fn header(&self, name: &HeaderName) -> Option<Cow<'_, [u8]>> {
        let lines: Vec<_> = self
            .headers
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name.as_str()))
            .map(|(_, v)| v.as_str())
            .collect();
        (!lines.is_empty()).then(|| Cow::Owned(lines.join(",").into_bytes()))
    }
}

fn asked(host: &str, target: &str) -> Asked {
    let (path, query) = target
        .split_once('?')
        .map_or((target, None), |(p, q)| (p, Some(q.to_owned())));
    Asked {
        host: host.into(),
        path: path.into(),
        query,
        method: "GET".into(),
        headers: Vec::new(),
    }
}

fn listener() -> ListenerId {
    ListenerId {
        owner: Origin::new("Gateway", "default", "gw"),
        name: "http".into(),
    }
}

fn exact(path: &str) -> HttpMatch {
    HttpMatch {
        path: PathMatch::Exact(path.into()),
        method: None,
        headers: Vec::new(),
        query: Vec::new(),
    }
}

fn prefix(path: &str) -> HttpMatch {
    HttpMatch {
        path: PathMatch::Prefix(path.into()),
        ..exact("")
    }
}

fn regex(pattern: &str) -> HttpMatch {
    HttpMatch {
        path: PathMatch::Regex(Pattern::new_checked(pattern)),
        ..exact("")
    }
}

fn grpc(method: &str) -> HttpMatch {
    HttpMatch {
        path: PathMatch::GrpcMethod(method.into()),
        ..exact("")
    }
}

fn with_header(mut m: HttpMatch, name: &str, value: &str) -> HttpMatch {
    m.headers.push(HeaderMatch {
        name: HeaderName::parse(name).unwrap(),
        value: ValueMatch::Exact(value.into()),
    });
    m
}

fn with_query(mut m: HttpMatch, name: &str, value: &str) -> HttpMatch {
    m.query.push(QueryMatch {
        name: name.into(),
        value: ValueMatch::Exact(value.into()),
    });
    m
}

fn with_method(mut m: HttpMatch, method: &str) -> HttpMatch {
    m.method = Some(Method::parse(method).unwrap());
    m
}

fn rule(name: &str, matches: Vec<HttpMatch>) -> HttpRule {
    HttpRule {
        name: Some(name.into()),
        hosts: None,
        matches,
        filters: Vec::new(),
        backends: Vec::new(),
        timeouts: Timeouts::default(),
        retry: None,
        fallback: false,
    }
}

fn route(name: &str, created: i64, hosts: &[&str], rules: Vec<HttpRule>) -> Arc<HttpRoute> {
    let hosts = hosts
        .iter()
        .map(|h| HostPattern::parse(h, WildcardDepth::Many).unwrap())
        .collect();
    Arc::new(HttpRoute {
        id: RouteId(Origin::new("HTTPRoute", "default", name)),
        flavor: RouteFlavor::Http,
        age: Age {
            created,
            namespace: "default".into(),
            name: name.into(),
        },
        attachments: vec![Attachment {
            listener: listener(),
            hosts,
        }],
        rules,
    })
}

fn with_handles<T: Clone>(routes: &[(&Arc<HttpRoute>, T)]) -> Routes<T> {
    let entry = |(route, handle): &(&Arc<HttpRoute>, T)| (route.id.clone(), (Arc::clone(route), handle.clone()));
    routes.iter().map(entry).collect()
}

fn plain(routes: &[Arc<HttpRoute>]) -> Routes<()> {
    let entry = |route: &Arc<HttpRoute>| (route.id.clone(), (Arc::clone(route), ()));
    routes.iter().map(entry).collect()
}

fn table(selection: HostSelection, routes: &[Arc<HttpRoute>]) -> RouteTable<()> {
    RouteTable::compile(&listener(), selection, &plain(routes), None, &[])
}

fn hit(table: &RouteTable<()>, request: &Asked) -> Option<String> {
    table
        .find(request)
        .map(|f| f.rule().unwrap().name.as_deref().unwrap().to_owned())
}

#[track_caller]
fn check(rules: Vec<HttpRule>, cases: &[(&Asked, Option<&str>)]) {
    let table = table(HostSelection::FallThrough, &[route("r", 0, &[""], rules)]);
    for (request, expected) in cases {
        assert_eq!(hit(&table, request).as_deref(), *expected, "{request:?}");
    }
}

#[test]
fn prefixes_match_by_element_and_the_longest_wins() {
    check(
        vec![
            rule("root", vec![prefix("/")]),
            rule("v2", vec![prefix("/v2")]),
            rule("deep", vec![prefix("/v2/a/")]),
        ],
        &[
            (&asked("h", "/"), Some("root")),
            (&asked("h", "/v2"), Some("v2")),
            (&asked("h", "/v2/"), Some("v2")),
            (&asked("h", "/v2example"), Some("root")),
            (&asked("h", "/v2/a"), Some("deep")),
            (&asked("h", "/v2/a/b/c"), Some("deep")),
            (&asked("h", "/v2/ab"), Some("v2")),
        ],
    );
}

#[test]
fn a_rule_without_matches_makes_its_hosts_known_and_serves_nothing() {
    let bare = HttpRule {
        hosts: Some(vec![HostPattern::parse("bare.foo.test", WildcardDepth::One).unwrap()]),
        ..rule("bare", Vec::new())
    };
    let routes = [
        route("wild", 0, &["*.foo.test"], vec![rule("wild", vec![prefix("/")])]),
        route("bare", 1, &["bare.foo.test"], vec![bare]),
    ];
    let (known, other) = (asked("bare.foo.test", "/"), asked("other.foo.test", "/"));
    let best = table(HostSelection::BestOnly, &routes);
    assert_eq!(hit(&best, &known), None);
    assert_eq!(hit(&best, &other).as_deref(), Some("wild"));
    let through = table(HostSelection::FallThrough, &routes);
    assert_eq!(hit(&through, &known).as_deref(), Some("wild"));
}

#[test]
fn exact_is_byte_equal_and_beats_regex_which_beats_prefix() {
    check(
        vec![
            rule("prefix", vec![prefix("/foo")]),
            rule("regex", vec![regex("/fo+(/[a-z]*)?")]),
            rule("exact", vec![exact("/foo")]),
        ],
        &[
            (&asked("h", "/foo"), Some("exact")),
            (&asked("h", "/foo/"), Some("regex")),
            (&asked("h", "/foo/9"), Some("prefix")),
            (&asked("h", "/FOO"), None),
            (&asked("h", "/xfoo"), None),
        ],
    );
}

#[test]
fn method_then_headers_then_query_break_ties() {
    let p = || prefix("/");
    let mut post = asked("h", "/?q=1");
    post.method = "POST".into();
    post.headers = vec![("A".into(), "1".into()), ("b".into(), "2".into())];
    let mut get = post.clone();
    get.method = "GET".into();
    let plain = asked("h", "/?q=1");
    check(
        vec![
            rule("query", vec![with_query(p(), "q", "1")]),
            rule("one", vec![with_header(p(), "a", "1")]),
            rule("two", vec![with_header(with_header(p(), "a", "1"), "B", "2")]),
            rule("post", vec![with_method(p(), "POST")]),
        ],
        &[
            (&post, Some("post")),
            (&get, Some("two")),
            (&plain, Some("query")),
            (&asked("h", "/"), None),
        ],
    );
}

#[test]
fn repeated_header_lines_are_compared_joined() {
    let mut request = asked("h", "/");
    request.headers = vec![("x".into(), "a".into()), ("X".into(), "b".into())];
    check(
        vec![rule("joined", vec![with_header(prefix("/"), "x", "a,b")])],
        &[(&request, Some("joined"))],
    );
}

#[test]
fn the_oldest_route_then_its_name_then_the_first_rule_wins() {
    let same = |n: &str| {
        vec![
            rule(&format!("{n}-first"), vec![prefix("/a")]),
            rule(&format!("{n}-second"), vec![prefix("/a")]),
        ]
    };
    let routes = [
        route("b", 5, &[""], same("b")),
        route("a", 5, &[""], same("a")),
        route("z", 1, &[""], same("z")),
    ];
    assert_eq!(
        hit(&table(HostSelection::FallThrough, &routes), &asked("h", "/a")).as_deref(),
        Some("z-first")
    );
    assert_eq!(
        hit(&table(HostSelection::FallThrough, &routes[..2]), &asked("h", "/a")).as_deref(),
        Some("a-first")
    );
}

#[test]
fn the_more_specific_original_host_wins_and_falls_through() {
    // gateway-api v1.7 HTTPRouteMultipleRoutesAttachmentSameHostnameIntersection
    let routes = [
        route(
            "old",
            1,
            &["*.example.com"],
            vec![rule("wide", vec![prefix("/long/prefix")])],
        ),
        route(
            "new",
            9,
            &["abc.example.com"],
            vec![rule("narrow", vec![with_header(prefix("/"), "h", "1")])],
        ),
    ];
    let mut request = asked("abc.example.com", "/long/prefix");
    assert_eq!(
        hit(&table(HostSelection::FallThrough, &routes), &request).as_deref(),
        Some("wide")
    );
    assert_eq!(
        hit(&table(HostSelection::BestOnly, &routes), &request),
        None,
        "Ingress does not fall through"
    );
    request.headers.push(("H".into(), "1".into()));
    assert_eq!(
        hit(&table(HostSelection::FallThrough, &routes), &request).as_deref(),
        Some("narrow")
    );
}

#[test]
fn grpc_methods_of_any_service_come_after_services() {
    check(
        vec![
            rule("any", vec![prefix("/")]),
            rule("method", vec![grpc("Get")]),
            rule("service", vec![prefix("/pkg.S")]),
            rule("both", vec![exact("/pkg.S/Get")]),
        ],
        &[
            (&asked("h", "/pkg.S/Get"), Some("both")),
            (&asked("h", "/pkg.S/Put"), Some("service")),
            (&asked("h", "/pkg.T/Get"), Some("method")),
            (&asked("h", "/pkg.T/Get/x"), Some("any")),
        ],
    );
}

#[test]
fn a_default_backend_comes_last_and_only_under_its_hosts() {
    let own = |h: &str| Some(vec![HostPattern::parse(h, WildcardDepth::One).unwrap()]);
    let fallback = HttpRule {
        fallback: true,
        hosts: own("a.com"),
        ..rule("default", vec![prefix("/")])
    };
    let slash = HttpRule {
        hosts: own("a.com"),
        ..rule("rule", vec![with_header(prefix("/"), "x", "1")])
    };
    let other = HttpRule {
        hosts: own("b.com"),
        ..rule("other", vec![exact("/b")])
    };
    let table = table(
        HostSelection::BestOnly,
        &[route("i", 0, &["a.com", "b.com"], vec![fallback, slash, other])],
    );
    let mut request = asked("a.com", "/");
    assert_eq!(hit(&table, &request).as_deref(), Some("default"));
    request.headers.push(("x".into(), "1".into()));
    assert_eq!(hit(&table, &request).as_deref(), Some("rule"));
    assert_eq!(hit(&table, &asked("b.com", "/")), None);
    assert_eq!(hit(&table, &asked("b.com", "/b")).as_deref(), Some("other"));
}

#[test]
fn routes_of_other_listeners_are_not_seen() {
    let mut other = (*route("o", 0, &[""], vec![rule("o", vec![prefix("/")])])).clone();
    other.attachments[0].listener.name = "https".into();
    assert_eq!(
        hit(&table(HostSelection::FallThrough, &[Arc::new(other)]), &asked("h", "/")),
        None
    );
}

#[test]
fn an_unchanged_host_is_taken_over_and_a_changed_one_is_not() {
    let a = route("a", 0, &["a.com"], vec![rule("a", vec![prefix("/")])]);
    let b = route("b", 0, &["b.com"], vec![rule("b", vec![prefix("/")])]);
    let compile = |routes: &[(&Arc<HttpRoute>, u8)], previous: Option<&RouteTable<u8>>| {
        RouteTable::compile(
            &listener(),
            HostSelection::FallThrough,
            &with_handles(routes),
            previous,
            &[],
        )
    };
    let first = compile(&[(&a, 0), (&b, 0)], None);
    let changed = route("b", 0, &["b.com"], vec![rule("changed", vec![prefix("/")])]);
    let second = compile(&[(&a, 0), (&changed, 0)], Some(&first));
    assert_eq!(
        second
            .find(&asked("b.com", "/"))
            .unwrap()
            .rule()
            .unwrap()
            .name
            .as_deref(),
        Some("changed")
    );
    assert_eq!(
        second
            .find(&asked("a.com", "/"))
            .unwrap()
            .rule()
            .unwrap()
            .name
            .as_deref(),
        Some("a")
    );
    let third = compile(&[(&a, 7), (&changed, 0)], Some(&second));
    assert_eq!(
        third.find(&asked("a.com", "/")).unwrap().handle,
        &7,
        "a changed handle is not lost"
    );
}

/// A second listener of the same Gateway.
fn other_listener() -> ListenerId {
    ListenerId {
        name: "other".into(),
        ..listener()
    }
}

#[test]
fn listeners_with_the_same_routes_share_them() {
    let both = |name: &str, hosts: &[&str]| {
        let mut route = HttpRoute::clone(&route(name, 0, hosts, vec![rule(name, vec![prefix("/")])]));
        let hosts = route.attachments[0].hosts.clone();
        let listener = other_listener();
        route.attachments.push(Attachment { listener, hosts });
        Arc::new(route)
    };
    let (a, b) = (both("a", &["a.com"]), both("b", &["b.com"]));
    let only_here = route("c", 0, &["b.com"], vec![rule("c", vec![prefix("/c")])]);
    let routes = [&a, &b, &only_here];
    let with = |listener: &ListenerId, siblings: &[&RouteTable<Arc<()>>], handle: &Arc<()>| {
        let routes = with_handles(&routes.map(|route| (route, Arc::clone(handle))));
        RouteTable::compile(listener, HostSelection::FallThrough, &routes, None, siblings)
    };
    let handle = Arc::new(());
    let first = with(&listener(), &[], &handle);
    let alone = Arc::strong_count(&handle);
    let second = with(&other_listener(), &[&first], &handle);
    let shared = Arc::strong_count(&handle) - alone;
    drop(second);
    let _apart = with(&other_listener(), &[], &handle);
    let apart = Arc::strong_count(&handle) - alone;
    // What it was compiled from, and of each of its two hosts the route twice: as a source and as a candidate.
    assert_eq!((shared, apart), (3 + 2, 3 + 4), "a.com is shared, b.com differs");
}

/// Looks at everything: the definition that the table must agree with.
fn model(routes: &[Arc<HttpRoute>], request: &Asked) -> Option<String> {
    let mut all = Vec::new();
    for route in routes {
        for host in route
            .attachments
            .iter()
            .flat_map(|a| &a.hosts)
            .filter(|h| h.matches(&request.host))
        {
            for (number, rule) in route.rules.iter().enumerate() {
                for (alternative, m) in rule.matches.iter().enumerate().filter(|(_, m)| holds(m, request)) {
                    let rank = Rank::of(&route.age, rule, number, m, alternative);
                    all.push((
                        std::cmp::Reverse(host.specificity()),
                        rank,
                        rule.name.as_deref().unwrap().to_owned(),
                    ));
                }
            }
        }
    }
    all.into_iter().min().map(|(_, _, name)| name)
}

fn holds(m: &HttpMatch, request: &Asked) -> bool {
    let path = match &m.path {
        PathMatch::Exact(p) => **p == *request.path,
        PathMatch::Prefix(p) => {
            let p = p.trim_end_matches('/');
            request.path == p || request.path.starts_with(&format!("{p}/"))
        }
        PathMatch::Regex(p) => regex::Regex::new(&format!("^(?:{})$", p.as_str()))
            .unwrap()
            .is_match(&request.path),
        PathMatch::GrpcMethod(name) => {
            let parts: Vec<_> = request.path.splitn(3, '/').collect();
            parts.len() == 3 && !parts[1].is_empty() && parts[2] == &**name
        }
    };
    let value = |want: &ValueMatch, got: &[u8]| match want {
        ValueMatch::Exact(text) => text.as_bytes() == got,
        ValueMatch::Regex(_) => unreachable!("not generated"),
    };
    path && m.method.as_ref().is_none_or(|x| x.as_str() == request.method)
        && m.headers
            .iter()
            .all(|h| request.header(&h.name).is_some_and(|v| value(&h.value, &v)))
        && m.query.iter().all(|q| {
            request
                .query
                .as_deref()
                .and_then(|s| query_value(s, &q.name))
                .is_some_and(|v| value(&q.value, &v))
        })
}

fn a_match() -> impl Strategy<Value = HttpMatch> {
    let path = prop_oneof![
        "(/[ab]{0,2}){1,3}".prop_map(|p| exact(&p)),
        "(/[ab]{1,2}){0,3}/?".prop_map(|p| prefix(if p.is_empty() { "/" } else { &p })),
        prop_oneof![Just("/a+/.*"), Just("/[ab]"), Just(".*")].prop_map(regex),
        "[ab]".prop_map(|m| grpc(&m)),
    ];
    (
        path,
        proptest::option::of("GET|POST"),
        proptest::option::of("[12]"),
        proptest::option::of("[12]"),
    )
        .prop_map(|(m, method, header, query)| {
            let m = method.iter().fold(m, |m, method| with_method(m, method));
            let m = header.iter().fold(m, |m, value| with_header(m, "x", value));
            query.iter().fold(m, |m, value| with_query(m, "q", value))
        })
}

proptest! {
    /// Compiling over a previous table gives what compiling from nothing gives, whatever came, went or changed.
    #[test]
    fn a_table_over_a_previous_one_is_the_same_table(
        before in proptest::collection::btree_map(0..8_usize, (0..4_usize, proptest::collection::vec(a_match(), 1..3)), 0..6),
        after in proptest::collection::btree_map(0..8_usize, (0..4_usize, proptest::collection::vec(a_match(), 1..3)), 0..6),
        host in "([ab]\\.){0,2}c", path in "(/[ab]{0,2}){1,3}",
    ) {
        let hosts = ["", "c", "*.c", "a.c"];
        let build = |spec: &std::collections::BTreeMap<usize, (usize, Vec<HttpMatch>)>, old: &[Arc<HttpRoute>]| -> Vec<_> {
            spec.iter().map(|(n, (host, matches))| {
                let new = route(&format!("r{n}"), 0, &[hosts[*host]], vec![rule(&format!("{n}"), matches.clone())]);
                old.iter().find(|o| **o == new).cloned().unwrap_or(new)
            }).collect()
        };
        let first_routes = build(&before, &[]);
        let second_routes = build(&after, &first_routes);
        let compile = |routes: &[Arc<HttpRoute>], previous| {
            RouteTable::compile(&listener(), HostSelection::FallThrough, &plain(routes), previous, &[])
        };
        let first = compile(&first_routes, None);
        let (second, fresh) = (compile(&second_routes, Some(&first)), compile(&second_routes, None));
        let request = Asked { host, path, query: None, method: "GET".into(), headers: Vec::new() };
        prop_assert_eq!(hit(&second, &request), hit(&fresh, &request));
        prop_assert_eq!(second.host_count(), fresh.host_count());
    }

    /// A table that shares what it can with those of other listeners answers as one that shares nothing.
    #[test]
    fn sharing_changes_no_answer(
        spec in proptest::collection::vec((any::<bool>(), any::<bool>(), 0usize..4, 0usize..4, prop::option::of(0usize..4)), 0..6),
        host in "([ab]\\.){0,2}[ac]",
    ) {
        let hosts = ["", "c", "*.c", "a.c"];
        let pattern = |at: usize| HostPattern::parse(hosts[at], WildcardDepth::Many).unwrap();
        let routes: Vec<_> = spec.iter().enumerate().map(|(n, (here, there, a, b, own))| {
            let mut one = rule(&format!("{n}"), vec![prefix("/")]);
            one.hosts = own.map(|own| vec![pattern(own)]);
            let mut made = HttpRoute::clone(&route(&format!("r{n}"), 0, &[], vec![one, rule(&format!("plain{n}"), vec![prefix("/p")])]));
            let attach = |listener, at| Attachment { listener, hosts: vec![pattern(at)] };
            made.attachments = [(*here, listener(), *a), (*there, other_listener(), *b)]
                .into_iter().filter(|(attached, ..)| *attached).map(|(_, listener, at)| attach(listener, at)).collect();
            Arc::new(made)
        }).collect();
        let compile = |listener: &ListenerId, siblings: &[&RouteTable<()>]| {
            RouteTable::compile(listener, HostSelection::FallThrough, &plain(&routes), None, siblings)
        };
        let first = compile(&listener(), &[]);
        let (sharing, alone) = (compile(&other_listener(), &[&first]), compile(&other_listener(), &[]));
        for path in ["/", "/p"] {
            let request = Asked { host: host.clone(), path: path.into(), query: None, method: "GET".into(), headers: Vec::new() };
            prop_assert_eq!(hit(&sharing, &request), hit(&alone, &request));
        }
    }

    #[test]
    fn the_table_agrees_with_the_model(
        routes in proptest::collection::vec(
            (0..3_i64, proptest::collection::btree_set("|(\\*\\.)?([ab]\\.){0,2}c", 1..3), proptest::collection::vec(proptest::collection::vec(a_match(), 1..3), 1..4)),
            1..6,
        ),
        host in "([ab]\\.){0,3}c", path in "(/[ab]{0,2}){1,4}", method in "GET|POST",
        header in proptest::option::of("[12]"), query in proptest::option::of("q=[12]"),
    ) {
        let routes: Vec<_> = routes.into_iter().enumerate().map(|(n, (created, hosts, rules))| {
            let hosts: Vec<_> = hosts.iter().map(String::as_str).collect();
            let rules = rules.into_iter().enumerate().map(|(k, matches)| rule(&format!("{n}/{k}"), matches)).collect();
            route(&format!("r{n}"), created, &hosts, rules)
        }).collect();
        let request = Asked { host, path, query, method, headers: header.into_iter().map(|v| ("X".to_owned(), v)).collect() };
        prop_assert_eq!(hit(&table(HostSelection::FallThrough, &routes), &request), model(&routes, &request));
    }
}
