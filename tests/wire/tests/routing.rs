//! Which backend a request reaches, and what is done to it on the way.

use anyhow::Result;
use pierhead_wire::client::Exchange;
use pierhead_wire::every_mode;
use pierhead_wire::gate::Mode;
use pierhead_wire::net::{CLIENT, FAMILIES, GATE, NODE};
use pierhead_wire::street::{HTTP, Street, gateway, route};

every_mode!(
    http_by_host_and_path,
    http_by_header_method_and_query,
    weights_are_kept_exactly,
    an_invalid_backend_gets_exactly_its_share_of_500,
    no_ready_endpoint_is_503_and_no_route_404,
    a_redirect_says_where_to_go,
    a_rewrite_changes_what_the_backend_sees,
    headers_are_set_added_and_removed_on_both_sides,
    a_slow_backend_meets_its_timeout,
    forwarded_headers_tell_the_truth,
    ingress_by_host_and_path,
);

fn http_by_host_and_path(mode: Mode) -> Result<()> {
    let street = Street::new()?;
    let routes = [
        route(
            "HTTPRoute",
            "one",
            "  hostnames: [one.test]\n  rules:\n  - backendRefs: [{name: a, port: 8080}]\n  - matches: [{path: {type: PathPrefix, value: /b}}]\n    backendRefs: [{name: b, port: 8080}]\n  - matches: [{path: {type: Exact, value: /b/exact}}]\n    backendRefs: [{name: a, port: 8080}]",
        ),
        route(
            "HTTPRoute",
            "wild",
            "  hostnames: ['*.wild.test']\n  rules: [{backendRefs: [{name: b, port: 8080}]}]",
        ),
    ];
    let _gate = street.gate(
        mode,
        &[("gate.yaml", &gateway(&[HTTP])), ("routes.yaml", &routes.join("---\n"))],
    )?;
    for family in FAMILIES {
        let mut h1 = street.client.h1(GATE.at(family, 80))?;
        let table = [
            ("one.test", "/", Some("a")),
            ("ONE.test", "/x", Some("a")),
            ("one.test:80", "/", Some("a")),
            ("one.test", "/b", Some("b")),
            ("one.test", "/b/", Some("b")),
            ("one.test", "/b/deep?q=1", Some("b")),
            ("one.test", "/bb", Some("a")),
            ("one.test", "/b/exact", Some("a")),
            ("one.test", "/b/exact/", Some("b")),
            ("x.wild.test", "/", Some("b")),
            ("y.x.wild.test", "/", Some("b")),
            ("wild.test", "/", None),
            ("other.test", "/", None),
        ];
        for (host, path, backend) in table {
            let response = h1.get(host, path)?;
            match backend {
                Some(name) => assert_eq!(response.echo()?.backend(), name, "{host}{path} over {family:?}"),
                None => assert_eq!(response.status, 404, "{host}{path} over {family:?}"),
            }
        }
    }
    Ok(())
}

fn http_by_header_method_and_query(mode: Mode) -> Result<()> {
    let street = Street::new()?;
    let routes = route(
        "HTTPRoute",
        "one",
        "  rules:\n  - backendRefs: [{name: a, port: 8080}]\n  - matches:\n    - headers: [{name: X-Version, value: two}]\n    - method: DELETE\n    - queryParams: [{name: v, value: two}]\n    backendRefs: [{name: b, port: 8080}]",
    );
    let _gate = street.gate(mode, &[("gate.yaml", &gateway(&[HTTP])), ("routes.yaml", &routes)])?;
    let mut h1 = street.client.h1(GATE.v4_at(80))?;
    let get = |target| Exchange::new("GET", "one.test", target);
    let table = [
        (get("/"), "a"),
        (get("/").field("x-version", "two"), "b"),
        (get("/").field("x-version", "TWO"), "a"),
        (get("/").field("x-version", "three"), "a"),
        (Exchange::new("DELETE", "one.test", "/"), "b"),
        (get("/?v=two"), "b"),
        (get("/?w=1&v=two"), "b"),
        (get("/?v=one"), "a"),
    ];
    for (request, backend) in table {
        assert_eq!(h1.exchange(&request)?.echo()?.backend(), backend, "{request:?}");
    }
    Ok(())
}

fn weights_are_kept_exactly(mode: Mode) -> Result<()> {
    let street = Street::new()?;
    let routes = route(
        "HTTPRoute",
        "one",
        "  rules: [{backendRefs: [{name: a, port: 8080, weight: 9}, {name: b, port: 8080, weight: 1}, {name: none, port: 8080, weight: 0}]}]",
    );
    let _gate = street.gate(mode, &[("gate.yaml", &gateway(&[HTTP])), ("routes.yaml", &routes)])?;
    let mut h1 = street.client.h1(GATE.v4_at(80))?;
    let mut b = 0;
    for _ in 0..1000 {
        b += u32::from(h1.get("one.test", "/")?.echo()?.backend() == "b");
    }
    assert!((99..=101).contains(&b), "{b} of 1000");
    Ok(())
}

fn an_invalid_backend_gets_exactly_its_share_of_500(mode: Mode) -> Result<()> {
    let street = Street::new()?;
    let routes = route(
        "HTTPRoute",
        "one",
        "  rules:\n  - backendRefs: [{name: a, port: 8080, weight: 1}, {name: missing, port: 8080, weight: 1}]\n  - matches: [{path: {value: /only}}]\n    backendRefs: [{name: missing, port: 8080}]\n  - matches: [{path: {value: /nothing}}]",
    );
    let _gate = street.gate(mode, &[("gate.yaml", &gateway(&[HTTP])), ("routes.yaml", &routes)])?;
    let mut h1 = street.client.h1(GATE.v4_at(80))?;
    assert_eq!(h1.get("one.test", "/only")?.status, 500);
    assert_eq!(
        h1.get("one.test", "/nothing")?.status,
        500,
        "a rule without backends and filters"
    );
    let mut failed = 0;
    for _ in 0..400 {
        match h1.get("one.test", "/")?.status {
            200 => {}
            500 => failed += 1,
            other => panic!("status {other}"),
        }
    }
    assert!((199..=201).contains(&failed), "{failed} of 400");
    Ok(())
}

fn no_ready_endpoint_is_503_and_no_route_404(mode: Mode) -> Result<()> {
    let street = Street::new()?;
    let routes = route(
        "HTTPRoute",
        "one",
        "  hostnames: [one.test]\n  rules: [{backendRefs: [{name: none, port: 8080}]}]",
    );
    let _gate = street.gate(mode, &[("gate.yaml", &gateway(&[HTTP])), ("routes.yaml", &routes)])?;
    assert_eq!(street.client.get(GATE.v4_at(80), "one.test", "/")?.status, 503);
    assert_eq!(street.client.get(GATE.v4_at(80), "two.test", "/")?.status, 404);
    Ok(())
}

fn a_redirect_says_where_to_go(mode: Mode) -> Result<()> {
    let street = Street::new()?;
    let routes = route(
        "HTTPRoute",
        "one",
        "  rules:\n  - matches: [{path: {value: /https}}]\n    filters: [{type: RequestRedirect, requestRedirect: {scheme: https, statusCode: 301}}]\n  - matches: [{path: {value: /old}}]\n    filters: [{type: RequestRedirect, requestRedirect: {hostname: new.test, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}]\n  - matches: [{path: {value: /port}}]\n    filters: [{type: RequestRedirect, requestRedirect: {port: 8443, path: {type: ReplaceFullPath, replaceFullPath: /all}}}]",
    );
    let _gate = street.gate(mode, &[("gate.yaml", &gateway(&[HTTP])), ("routes.yaml", &routes)])?;
    let mut h1 = street.client.h1(GATE.v4_at(80))?;
    let table = [
        ("/https/x?y=1", 301, "https://one.test/https/x?y=1"),
        ("/old/x", 302, "http://new.test/new/x"),
        ("/old", 302, "http://new.test/new"),
        ("/port/x", 302, "http://one.test:8443/all"),
    ];
    for (path, status, location) in table {
        let response = h1.get("one.test", path)?;
        assert_eq!(
            (response.status, response.header("location")),
            (status, Some(location)),
            "{path}"
        );
    }
    Ok(())
}

fn a_rewrite_changes_what_the_backend_sees(mode: Mode) -> Result<()> {
    let street = Street::new()?;
    let routes = route(
        "HTTPRoute",
        "one",
        "  rules:\n  - matches: [{path: {value: /prefix}}]\n    filters: [{type: URLRewrite, urlRewrite: {hostname: inner.test, path: {type: ReplacePrefixMatch, replacePrefixMatch: /in}}}]\n    backendRefs: [{name: a, port: 8080}]\n  - matches: [{path: {value: /strip}}]\n    filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]\n    backendRefs: [{name: a, port: 8080}]\n  - matches: [{path: {value: /full}}]\n    filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /one}}}]\n    backendRefs: [{name: a, port: 8080}]",
    );
    let _gate = street.gate(mode, &[("gate.yaml", &gateway(&[HTTP])), ("routes.yaml", &routes)])?;
    let mut h1 = street.client.h1(GATE.v4_at(80))?;
    let table = [
        ("/prefix/x?y=1", "/in/x?y=1", "inner.test"),
        ("/prefix", "/in", "inner.test"),
        ("/strip/x", "/x", "one.test"),
        ("/strip", "/", "one.test"),
        ("/full/x?y=1", "/one?y=1", "one.test"),
    ];
    for (path, seen, host) in table {
        let echo = h1.get("one.test", path)?.echo()?;
        assert_eq!((echo.text("path"), echo.fields("host")), (seen, vec![host]), "{path}");
    }
    Ok(())
}

fn headers_are_set_added_and_removed_on_both_sides(mode: Mode) -> Result<()> {
    let street = Street::new()?;
    let routes = route(
        "HTTPRoute",
        "one",
        "  rules:\n  - filters:\n    - type: RequestHeaderModifier\n      requestHeaderModifier: {set: [{name: X-Set, value: s}], add: [{name: X-Add, value: more}], remove: [X-Gone]}\n    - type: ResponseHeaderModifier\n      responseHeaderModifier: {set: [{name: X-Set, value: r}], add: [{name: X-Add, value: more}], remove: [X-Gone]}\n    backendRefs: [{name: a, port: 8080}]",
    );
    let _gate = street.gate(mode, &[("gate.yaml", &gateway(&[HTTP])), ("routes.yaml", &routes)])?;
    let request = Exchange::new(
        "GET",
        "one.test",
        "/?header=x-set:old&header=x-add:first&header=x-gone:1&header=x-keep:1",
    )
    .field("x-set", "old")
    .field("x-add", "first")
    .field("X-GONE", "1")
    .field("x-keep", "1");
    let response = street.client.h1(GATE.v4_at(80))?.exchange(&request)?;
    let echo = response.echo()?;
    assert_eq!(echo.fields("x-set"), ["s"]);
    assert_eq!(echo.fields("x-add").join(","), "first,more");
    assert!(echo.fields("x-gone").is_empty());
    assert_eq!(echo.fields("x-keep"), ["1"]);
    assert_eq!(response.all("x-set").collect::<Vec<_>>(), ["r"]);
    assert_eq!(response.all("x-add").collect::<Vec<_>>().join(","), "first,more");
    assert_eq!(
        (response.header("x-gone"), response.header("x-keep")),
        (None, Some("1"))
    );
    Ok(())
}

fn a_slow_backend_meets_its_timeout(mode: Mode) -> Result<()> {
    let street = Street::new()?;
    let routes = route(
        "HTTPRoute",
        "one",
        "  rules:\n  - matches: [{path: {value: /request}}]\n    timeouts: {request: 200ms}\n    backendRefs: [{name: a, port: 8080}]\n  - matches: [{path: {value: /backend}}]\n    timeouts: {backendRequest: 200ms}\n    backendRefs: [{name: a, port: 8080}]\n  - backendRefs: [{name: a, port: 8080}]",
    );
    let _gate = street.gate(mode, &[("gate.yaml", &gateway(&[HTTP])), ("routes.yaml", &routes)])?;
    for path in ["/request", "/backend"] {
        let slow = street
            .client
            .get(GATE.v4_at(80), "one.test", &format!("{path}?delay_ms=3000"))?;
        assert_eq!(slow.status, 504, "{path}");
        assert_eq!(
            street.client.get(GATE.v4_at(80), "one.test", path)?.status,
            200,
            "{path}"
        );
    }
    assert_eq!(
        street.client.get(GATE.v4_at(80), "one.test", "/?delay_ms=400")?.status,
        200
    );
    Ok(())
}

fn forwarded_headers_tell_the_truth(mode: Mode) -> Result<()> {
    let street = Street::new()?;
    let routes = route("HTTPRoute", "one", "  rules: [{backendRefs: [{name: a, port: 8080}]}]");
    let _gate = street.gate(mode, &[("gate.yaml", &gateway(&[HTTP])), ("routes.yaml", &routes)])?;
    for family in FAMILIES {
        let lie = Exchange::new("GET", "one.test", "/")
            .field("X-Forwarded-For", "1.2.3.4")
            .field("X-Forwarded-Proto", "https")
            .field("X-Forwarded-Host", "evil.test")
            .field("X-Real-IP", "1.2.3.4")
            .field("Forwarded", "for=1.2.3.4");
        let echo = street.client.h1(GATE.at(family, 80))?.exchange(&lie)?.echo()?;
        assert_eq!(
            echo.fields("x-forwarded-for"),
            [CLIENT.of(family).to_string()],
            "nobody is trusted by default"
        );
        assert_eq!(echo.fields("x-forwarded-proto"), ["http"]);
        assert_ne!(echo.fields("x-forwarded-host"), ["evil.test"]);
        assert!(!echo.fields("forwarded").contains(&"for=1.2.3.4"));
        assert!(!echo.fields("x-real-ip").contains(&"1.2.3.4"));
    }
    Ok(())
}

fn ingress_by_host_and_path(mode: Mode) -> Result<()> {
    let street = Street::new()?;
    let ingress = "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: one}\nspec:\n  ingressClassName: pierhead\n  defaultBackend: {service: {name: b, port: {number: 8080}}}\n  rules:\n  - host: one.test\n    http:\n      paths:\n      - {path: /a, pathType: Prefix, backend: {service: {name: a, port: {number: 8080}}}}\n      - {path: /exact, pathType: Exact, backend: {service: {name: a, port: {name: main}}}}\n  - host: '*.wild.test'\n    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: a, port: {number: 8080}}}}]}\n";
    let _gate = street.gate(mode, &[("ingress.yaml", ingress)])?;
    for family in FAMILIES {
        let mut h1 = street.client.h1(NODE.at(family, 80))?;
        let table = [
            ("one.test", "/a/b", Some("a")),
            ("one.test", "/exact", Some("a")),
            ("one.test", "/exact/no", Some("b")),
            ("one.test", "/ab", Some("b")),
            ("x.wild.test", "/", Some("a")),
            // One label, unlike a Gateway's; and the default is for the hosts of its own Ingress.
            ("y.x.wild.test", "/", None),
            ("other.test", "/", None),
        ];
        for (host, path, backend) in table {
            let response = h1.get(host, path)?;
            match backend {
                Some(name) => assert_eq!(response.echo()?.backend(), name, "{host}{path} over {family:?}"),
                None => assert_eq!(response.status, 404, "{host}{path} over {family:?}"),
            }
        }
    }
    Ok(())
}
