//! What is written, byte for byte.

use pierhead_http1::encode::{self, Asked, Connection, Framing};
use pierhead_http1::{
    BodyLength, Headers, Known, Limits, Method, Name, RequestHead, RequestParser, ResponseHead, Status, Target, Value,
    Version,
};

fn request(line: &str, fields: &str) -> RequestHead {
    let wire = format!("{line}\r\n{fields}\r\n");
    let mut head = RequestHead::new();
    RequestParser::new()
        .parse(wire.as_bytes(), &mut head, &Limits::default())
        .expect("valid")
        .expect("whole");
    head
}

fn written(head: &RequestHead, body: BodyLength, connection: Connection) -> (String, Framing) {
    let mut out = Vec::new();
    let framing = encode::request(head, body, connection, &mut out);
    (String::from_utf8(out).expect("ASCII"), framing)
}

#[test]
fn requests_go_out_as_http_1_1_in_origin_form() {
    let cases = [
        ("GET /a?b HTTP/1.1", "GET /a?b HTTP/1.1"),
        ("GET /a? HTTP/1.0", "GET /a? HTTP/1.1"),
        ("GET http://a HTTP/1.1", "GET / HTTP/1.1"),
        ("GET http://a?b HTTP/1.1", "GET /?b HTTP/1.1"),
        ("GET https://a/b HTTP/1.1", "GET /b HTTP/1.1"),
        ("OPTIONS * HTTP/1.1", "OPTIONS * HTTP/1.1"),
        ("OPTIONS http://a HTTP/1.1", "OPTIONS * HTTP/1.1"),
        ("OPTIONS http://a?b HTTP/1.1", "OPTIONS /?b HTTP/1.1"),
        ("OPTIONS http://a/ HTTP/1.1", "OPTIONS / HTTP/1.1"),
        ("CONNECT a:443 HTTP/1.1", "CONNECT a:443 HTTP/1.1"),
        ("M-SEARCH /a HTTP/1.1", "M-SEARCH /a HTTP/1.1"),
    ];
    for (line, expected) in cases {
        let (text, _) = written(&request(line, "Host: a\r\n"), BodyLength::Empty, Connection::Default);
        assert_eq!(text, format!("{expected}\r\nHost: a\r\n\r\n"), "{line}");
    }
}

#[test]
fn the_authority_of_an_absolute_target_is_the_host() {
    let head = request(
        "GET http://Inner.example:81/ HTTP/1.1",
        "A: b\r\nHost: outer.example\r\nC: d\r\n",
    );
    let (text, _) = written(&head, BodyLength::Empty, Connection::Default);
    assert_eq!(text, "GET / HTTP/1.1\r\nA: b\r\nhost: Inner.example:81\r\nC: d\r\n\r\n");
}

#[test]
fn only_the_encoder_frames_requests() {
    let fields = "Host: a\r\nContent-Length: 3\r\nConnection: close\r\n";
    let cases = [
        (
            BodyLength::Exact(7),
            Connection::Default,
            "content-length: 7\r\n",
            Framing::Length(7),
        ),
        (
            BodyLength::Chunked,
            Connection::Close,
            "transfer-encoding: chunked\r\nconnection: close\r\n",
            Framing::Chunked,
        ),
        (
            BodyLength::UntilClose,
            Connection::Default,
            "transfer-encoding: chunked\r\n",
            Framing::Chunked,
        ),
        (
            BodyLength::Empty,
            Connection::Upgrade,
            "content-length: 0\r\nconnection: upgrade\r\n",
            Framing::Length(0),
        ),
        (
            BodyLength::Exact(0),
            Connection::KeepAlive,
            "content-length: 0\r\nconnection: keep-alive\r\n",
            Framing::Length(0),
        ),
    ];
    for (body, connection, lines, framing) in cases {
        let head = request("POST / HTTP/1.1", fields);
        assert_eq!(
            written(&head, body, connection),
            (format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n"), framing)
        );
    }
    let get = request("GET / HTTP/1.1", fields);
    let expected = "GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned();
    assert_eq!(
        written(&get, BodyLength::Empty, Connection::Default),
        (expected, Framing::Nothing)
    );
}

#[test]
fn te_is_announced_as_a_connection_option() {
    let head = request("GET / HTTP/1.1", "Host: a\r\nTE: trailers\r\n");
    for (connection, line) in [
        (Connection::Default, "te"),
        (Connection::Close, "close, te"),
        (Connection::KeepAlive, "keep-alive, te"),
        (Connection::Upgrade, "upgrade, te"),
    ] {
        let (text, _) = written(&head, BodyLength::Empty, connection);
        assert_eq!(
            text,
            format!("GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nconnection: {line}\r\n\r\n")
        );
    }
}

#[test]
fn responses_are_framed_for_who_asked() {
    use BodyLength::{Chunked, Empty, Exact, UntilClose};
    let get = |version| Asked {
        method: Method::Get,
        version,
    };
    let (new, old) = (get(Version::Http11), get(Version::Http10));
    let head_of = |version| Asked {
        method: Method::Head,
        version,
    };
    let connect = Asked {
        method: Method::Connect,
        version: Version::Http11,
    };
    let chunked = "transfer-encoding: chunked\r\n";
    let close = "connection: close\r\n";
    let cases = [
        (200, new, Exact(5), "content-length: 5\r\n", Framing::Length(5)),
        (200, new, Empty, "content-length: 0\r\n", Framing::Length(0)),
        (200, new, Chunked, chunked, Framing::Chunked),
        (200, new, UntilClose, chunked, Framing::Chunked),
        (404, old, Exact(5), "content-length: 5\r\n", Framing::Length(5)),
        // HTTP/1.0 knows no chunks.
        (200, old, Chunked, close, Framing::UntilClose),
        (200, old, UntilClose, close, Framing::UntilClose),
        // No body: the block's length (9) is told only where it means something.
        (
            200,
            head_of(Version::Http11),
            Empty,
            "content-length: 9\r\n",
            Framing::Nothing,
        ),
        (
            200,
            head_of(Version::Http10),
            Chunked,
            "content-length: 9\r\n",
            Framing::Nothing,
        ),
        (304, new, Empty, "content-length: 9\r\n", Framing::Nothing),
        (204, new, Exact(5), "", Framing::Nothing),
        (204, head_of(Version::Http11), Empty, "", Framing::Nothing),
        (101, new, Empty, "", Framing::Nothing),
        (200, connect, Empty, "", Framing::Nothing),
        (407, connect, Exact(5), "content-length: 5\r\n", Framing::Length(5)),
    ];
    for (code, asked, body, lines, framing) in cases {
        let mut head = ResponseHead::with_status(Status::new(code).expect("a status"));
        head.set_reason(b"R").expect("a reason");
        head.headers.append_decimal(Known::ContentLength, 9);
        head.headers.append(Known::TransferEncoding, Value::from_static("gzip"));
        head.headers.append(Name::from_static("X-A"), Value::from_static("b"));
        let mut out = Vec::new();
        let chosen = encode::response(&head, asked, body, Connection::Default, &mut out);
        let text = String::from_utf8(out).expect("ASCII");
        assert_eq!(
            (text, chosen),
            (format!("HTTP/1.1 {code} R\r\nX-A: b\r\n{lines}\r\n"), framing),
            "{asked:?} {body:?}"
        );
    }
}

#[test]
fn a_reason_is_kept_or_the_standard_one() {
    let mut head = ResponseHead::with_status(Status::new(404).expect("a status"));
    assert_eq!(head.reason(), b"Not Found");
    head.set_reason(b"Nope").expect("a reason");
    assert_eq!(head.reason(), b"Nope");
    head.set_reason(b"a\r\nb").expect_err("a line end");
    assert_eq!(head.reason(), b"Nope");
    head.clear();
    assert_eq!((head.status.code(), head.reason()), (200, &b"OK"[..]));
    assert_eq!((Status::new(99), Status::new(1000)), (None, None));
}

#[test]
fn chunks_and_trailers_have_their_form() {
    let mut out = Vec::new();
    encode::chunk(b"", &mut out);
    encode::chunk(&[b'x'; 26], &mut out);
    encode::chunk_head(0xabcdef0, &mut out);
    encode::last_chunk(None, &mut out);
    let expected = format!("1a\r\n{}\r\nabcdef0\r\n0\r\n\r\n", "x".repeat(26));
    assert_eq!(String::from_utf8(out).expect("ASCII"), expected);

    let mut trailers = Headers::new();
    trailers.append(Known::GrpcStatus, Value::from_static("0"));
    for forbidden in [
        Known::ContentLength,
        Known::TransferEncoding,
        Known::Host,
        Known::SetCookie,
        Known::XForwardedFor,
    ] {
        trailers.append(forbidden, Value::from_static("1"));
    }
    trailers.append(Name::from_static("X-Sum"), Value::from_static("7"));
    let mut out = Vec::new();
    encode::last_chunk(Some(&trailers), &mut out);
    assert_eq!(out, b"0\r\ngrpc-status: 0\r\nX-Sum: 7\r\n\r\n");
    encode::strip_trailers(&mut trailers);
    assert_eq!(trailers.len(), 2);
}

#[test]
fn untouched_lines_pass_as_they_came_and_odd_whitespace_does_not() {
    let fields = "Host:a\r\nX-A: b\r\nx-b:\r\nX-C: \t c \t\r\nX-D:  d\r\nX-E:\te\r\n";
    let (text, _) = written(
        &request("GET / HTTP/1.1", fields),
        BodyLength::Empty,
        Connection::Default,
    );
    assert_eq!(
        text,
        "GET / HTTP/1.1\r\nHost:a\r\nX-A: b\r\nx-b:\r\nX-C: c\r\nX-D: d\r\nX-E: e\r\n\r\n"
    );
}

#[test]
fn whitespace_at_either_end_is_no_part_of_a_value() {
    for line in ["X-A:  b", "X-A: b ", "X-A:\tb", "X-A: b\t", "X-A:\t b \t", "X-A: \tb"] {
        let head = request("GET / HTTP/1.1", &format!("Host: a\r\n{line}\r\nX-B: c\r\n"));
        assert_eq!(
            head.headers.first(Name::from_static("x-a")),
            Some(&b"b"[..]),
            "{line:?}"
        );
        let (text, _) = written(&head, BodyLength::Empty, Connection::Default);
        assert_eq!(
            text, "GET / HTTP/1.1\r\nHost: a\r\nX-A: b\r\nX-B: c\r\n\r\n",
            "{line:?}"
        );
    }
    let head = request("GET / HTTP/1.1", "Host: a\r\nX-A:  \r\nX-B: \r\n");
    assert_eq!(head.headers.first(Name::from_static("x-a")), Some(&b""[..]));
    assert_eq!(head.headers.first(Name::from_static("x-b")), Some(&b""[..]));
}

#[test]
fn a_set_field_keeps_the_place_of_the_first() {
    let mut head = request("GET / HTTP/1.1", "Host: a\r\nX-A: 1\r\nX-B: 2\r\nx-a: 3\r\n");
    head.headers.set(Name::from_static("X-A"), Value::from_static("9"));
    head.headers.set(Known::XRealIp, Value::from_static("192.0.2.1"));
    let mut constant = Headers::new();
    constant.append(Known::XForwardedProto, Value::from_static("https"));
    constant.append(Known::XForwardedPort, Value::from_static("443"));
    constant.remove(Known::XForwardedProto);
    head.headers.append_all(&constant);
    assert!(head.headers.contains(Known::XForwardedPort) && !head.headers.contains(Known::XForwardedProto));
    let (text, _) = written(&head, BodyLength::Empty, Connection::Default);
    let expected =
        "GET / HTTP/1.1\r\nHost: a\r\nX-A: 9\r\nX-B: 2\r\nx-real-ip: 192.0.2.1\r\nx-forwarded-port: 443\r\n\r\n";
    assert_eq!(text, expected);
}

#[test]
fn targets_are_rewritten_only_to_valid_ones() {
    let mut target = Target::default();
    target.set(Method::Get, b"/a?b=c").expect("a target");
    target.set_path(b"/x").expect("a path");
    assert_eq!(target.as_bytes(), b"/x?b=c");
    for bad in [&b""[..], b"x", b"/a b", b"/a\r\n", b"/a?b", b"/a#b", b"/\xff"] {
        target.set_path(bad).expect_err("not a path");
        assert_eq!(target.as_bytes(), b"/x?b=c");
    }
    target.set_path_and_query(b"/y", Some(b"a b")).expect_err("not a query");
    target.set_path_and_query(b"/y", None).expect("a path");
    assert_eq!((target.path(), target.query()), (&b"/y"[..], None));
    target.set(Method::Get, b"http://h:1?q").expect("a target");
    assert_eq!(
        (target.path(), target.query(), target.authority()),
        (&b"/"[..], Some(&b"q"[..]), Some(&b"h:1"[..]))
    );
}

#[test]
fn dates_are_imf_fixdates() {
    for (seconds, text) in [
        (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
        (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
        (951_782_399, "Mon, 28 Feb 2000 23:59:59 GMT"),
        (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
        (951_868_800, "Wed, 01 Mar 2000 00:00:00 GMT"),
        (1_735_689_599, "Tue, 31 Dec 2024 23:59:59 GMT"),
        (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
        (u64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
    ] {
        assert_eq!(encode::date(seconds), text.as_bytes(), "{text}");
    }
    let mut headers = Headers::new();
    encode::ensure_date(&mut headers, &encode::date(0));
    encode::ensure_date(&mut headers, &encode::date(1));
    assert_eq!(headers.only(Known::Date), Some(&b"Thu, 01 Jan 1970 00:00:00 GMT"[..]));
}
