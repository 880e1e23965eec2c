//! What belongs to one connection stays there.

use pierhead_http1::{
    Headers, Known, Limits, Method, Name, RequestHead, RequestParser, ResponseHead, ResponseParser, accepts_trailers,
    strip_hop_by_hop, upgrade_accepted, upgrade_requested,
};

fn request(fields: &[&str]) -> RequestHead {
    let wire = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", lines(fields));
    let mut head = RequestHead::new();
    RequestParser::new()
        .parse(wire.as_bytes(), &mut head, &Limits::default())
        .expect("valid")
        .expect("whole");
    head
}

fn response(status: &str, fields: &[&str]) -> ResponseHead {
    let wire = format!("HTTP/1.1 {status}\r\n{}\r\n", lines(fields));
    let mut head = ResponseHead::new();
    let start = ResponseParser::new().parse(wire.as_bytes(), &mut head, Method::Get, &Limits::default());
    start.expect("valid").expect("whole");
    head
}

fn lines(fields: &[&str]) -> String {
    fields.iter().map(|field| format!("{field}\r\n")).collect()
}

fn left(headers: &Headers) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    headers
        .iter()
        .map(|field| format!("{}: {}", text(field.name.as_bytes()), text(field.value.as_bytes())))
        .collect()
}

#[test]
fn only_what_belongs_to_the_hop_goes() {
    let cases: &[(&[&str], &[&str])] = &[
        (&["X-A: b"], &["X-A: b"]),
        // The fixed list, whether named or not.
        (&["Keep-Alive: timeout=5", "X-A: b"], &["X-A: b"]),
        (
            &[
                "Proxy-Connection: keep-alive",
                "Proxy-Authorization: Basic eA==",
                "Upgrade: h2c",
            ],
            &[],
        ),
        (
            &[
                "Connection: Upgrade, HTTP2-Settings",
                "HTTP2-Settings: AA",
                "Upgrade: h2c",
            ],
            &[],
        ),
        (&["Proxy-Authenticate: Basic", "Proxy-Authentication-Info: a"], &[]),
        (&["Connection: close"], &[]),
        // Names that Connection nominates, in any case, in lists and over fields.
        (&["Connection: x-a", "X-A: b", "X-B: c"], &["X-B: c"]),
        (
            &[
                "Connection: close, X-A , ,x-b",
                "connection: x-c",
                "x-a: 1",
                "X-B: 2",
                "x-c: 3",
                "x-a: 4",
            ],
            &[],
        ),
        (&["X-A: b", "Connection: X-A"], &[]),
        (&["Connection: pragma", "Pragma: no-cache"], &[]),
        // A nominated name that is no token, or that is absent, harms nothing.
        (&["Connection: a b, \"x-a\", x-zz", "X-A: b"], &["X-A: b"]),
        // Names that no peer may make disappear.
        (&["Connection: host, X-Forwarded-For, authorization, cookie"], &[]),
        (
            &[
                "Connection: X-Forwarded-For, X-Real-IP, Forwarded",
                "X-Forwarded-For: 192.0.2.1",
                "X-Real-IP: 192.0.2.1",
                "Forwarded: for=a",
            ],
            &["X-Forwarded-For: 192.0.2.1", "X-Real-IP: 192.0.2.1", "Forwarded: for=a"],
        ),
        (
            &["Connection: Authorization, Cookie", "Authorization: x", "Cookie: a=b"],
            &["Authorization: x", "Cookie: a=b"],
        ),
        (
            &["Connection: content-length", "Content-Length: 0"],
            &["Content-Length: 0"],
        ),
        (
            &["Connection: content-type", "Content-Type: a/b"],
            &["Content-Type: a/b"],
        ),
        // Of TE only trailers.
        (&["TE: trailers"], &["TE: trailers"]),
        (&["TE: gzip"], &[]),
        (&["TE: gzip;q=0.5, Trailers", "Connection: TE"], &["te: trailers"]),
        (
            &["TE: gzip", "TE: trailers", "Connection: te, x-a", "X-A: b"],
            &["te: trailers"],
        ),
        (&["TE: xtrailers"], &[]),
        // Trailer says what comes, to whoever takes it.
        (&["Trailer: X-A", "Connection: trailer"], &["Trailer: X-A"]),
    ];
    for (fields, expected) in cases {
        let mut head = request(fields);
        strip_hop_by_hop(&mut head.headers);
        let mut left = left(&head.headers);
        assert_eq!(left.remove(0), "Host: a", "{fields:?}");
        assert_eq!(left, *expected, "{fields:?}");

        let mut head = response("200 OK", fields);
        strip_hop_by_hop(&mut head.headers);
        assert_eq!(self::left(&head.headers), *expected, "in a response: {fields:?}");
    }
}

#[test]
fn trailers_are_taken_when_te_says_so() {
    assert!(accepts_trailers(&request(&["TE: gzip, TRAILERS"]).headers));
    assert!(!accepts_trailers(&request(&["TE: trailers;q=0"]).headers));
    assert!(!accepts_trailers(&request(&["TE: gzip"]).headers));
    assert!(!accepts_trailers(&request(&[]).headers));
}

#[test]
fn an_upgrade_is_asked_for_with_both_fields_and_in_http_1_1() {
    let asked = |head: &RequestHead| upgrade_requested(head).map(<[u8]>::to_vec).collect::<Vec<_>>();
    let protocols = |names: &[&str]| names.iter().map(|name| name.as_bytes().to_vec()).collect::<Vec<_>>();
    assert_eq!(
        asked(&request(&["Connection: keep-alive, UPGRADE", "Upgrade: WebSocket"])),
        protocols(&["WebSocket"])
    );
    assert_eq!(
        asked(&request(&["Connection: upgrade", "Upgrade: a/1, b"])),
        protocols(&["a/1", "b"])
    );
    assert_eq!(asked(&request(&["Upgrade: websocket"])), protocols(&[]));
    assert_eq!(asked(&request(&["Connection: upgrade"])), protocols(&[]));
    assert_eq!(
        asked(&request(&["Connection: xupgrade", "Upgrade: websocket"])),
        protocols(&[])
    );
    let mut old = request(&["Connection: upgrade", "Upgrade: websocket"]);
    old.version = pierhead_http1::Version::Http10;
    assert_eq!(asked(&old), protocols(&[]));
}

#[test]
fn an_upgrade_is_accepted_only_by_a_101_to_the_protocol_asked_for() {
    let switched = ["Connection: Upgrade", "Upgrade: WebSocket"];
    assert!(upgrade_accepted(
        &response("101 Switching Protocols", &switched),
        b"websocket"
    ));
    assert!(!upgrade_accepted(
        &response("101 Switching Protocols", &switched),
        b"h2c"
    ));
    assert!(!upgrade_accepted(&response("200 OK", &switched), b"websocket"));
    assert!(!upgrade_accepted(&response("101 S", &switched[1..]), b"websocket"));
    assert!(!upgrade_accepted(&response("101 S", &switched[..1]), b"websocket"));
    let two = ["Connection: upgrade", "Upgrade: websocket", "Upgrade: h2c"];
    assert!(!upgrade_accepted(&response("101 S", &two), b"websocket"));
}

#[test]
fn a_name_nominated_twice_or_hidden_by_an_edit_is_gone_too() {
    let mut head = request(&["Connection: x-a, X-A", "x-a: 1"]);
    head.headers
        .append(Name::from_static("X-A"), pierhead_http1::Value::from_static("2"));
    strip_hop_by_hop(&mut head.headers);
    assert_eq!(left(&head.headers), ["Host: a"]);
    assert!(!head.headers.contains(Known::Connection));
}
