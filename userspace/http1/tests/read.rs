//! What parsing tells beside the fields: framing, persistence, limits, positions.

use pierhead_http1::{
    Authority, BodyDecoder, BodyLength, Error, Form, Known, Limits, Method, Name, Preface, RequestHead, RequestParser,
    RequestStart, ResponseHead, ResponseParser, ResponseStart, Status, Value, Version, preface,
};

fn request(wire: &str) -> Result<(RequestStart, RequestHead), Error> {
    let mut head = RequestHead::new();
    let start = RequestParser::new().parse(wire.as_bytes(), &mut head, &Limits::default())?;
    Ok((start.expect("whole"), head))
}

fn response(wire: &str, method: Method) -> ResponseStart {
    let mut head = ResponseHead::new();
    let start = ResponseParser::new().parse(wire.as_bytes(), &mut head, method, &Limits::default());
    start.expect("valid").expect("whole")
}

#[test]
fn requests_say_how_they_go_on() {
    let cases = [
        ("1.1", "", BodyLength::Empty, true, false),
        ("1.1", "Content-Length: 5\r\n", BodyLength::Exact(5), true, false),
        (
            "1.1",
            "Transfer-Encoding: Chunked\r\nConnection: Close\r\n",
            BodyLength::Chunked,
            false,
            false,
        ),
        (
            "1.1",
            "Content-Length: 5\r\nExpect: 100-Continue\r\n",
            BodyLength::Exact(5),
            true,
            true,
        ),
        ("1.1", "Expect: 100-continue\r\n", BodyLength::Empty, true, false),
        (
            "1.0",
            "Content-Length: 5\r\nExpect: 100-continue\r\n",
            BodyLength::Exact(5),
            false,
            false,
        ),
        ("1.0", "Connection: keep-alive\r\n", BodyLength::Empty, true, false),
        (
            "1.0",
            "Connection: close, keep-alive\r\n",
            BodyLength::Empty,
            false,
            false,
        ),
    ];
    for (version, fields, body, keep_alive, expect_continue) in cases {
        let wire = format!("POST / HTTP/{version}\r\nHost: a\r\n{fields}\r\n");
        let (start, _) = request(&wire).expect("valid");
        assert_eq!(
            start,
            RequestStart {
                consumed: wire.len(),
                body,
                keep_alive,
                expect_continue
            },
            "{wire}"
        );
    }
}

#[test]
fn responses_say_how_they_go_on() {
    let cases = [
        ("1.1 200 OK", "", Method::Get, BodyLength::UntilClose, false),
        (
            "1.1 200 OK",
            "Content-Length: 5\r\n",
            Method::Get,
            BodyLength::Exact(5),
            true,
        ),
        (
            "1.1 200 OK",
            "Content-Length: 5\r\nConnection: close\r\n",
            Method::Get,
            BodyLength::Exact(5),
            false,
        ),
        (
            "1.1 200 OK",
            "Transfer-Encoding: chunked\r\n",
            Method::Get,
            BodyLength::Chunked,
            true,
        ),
        (
            "1.0 200 OK",
            "Content-Length: 5\r\n",
            Method::Get,
            BodyLength::Exact(5),
            false,
        ),
        (
            "1.0 200 OK",
            "Content-Length: 5\r\nConnection: keep-alive\r\n",
            Method::Get,
            BodyLength::Exact(5),
            true,
        ),
        (
            "1.1 200 OK",
            "Content-Length: 5\r\n",
            Method::Head,
            BodyLength::Empty,
            true,
        ),
        ("1.1 304 Not Modified", "", Method::Get, BodyLength::Empty, true),
        ("1.1 204 No Content", "", Method::Get, BodyLength::Empty, true),
        ("1.1 103 Early Hints", "", Method::Get, BodyLength::Empty, true),
        ("1.1 200 OK", "", Method::Connect, BodyLength::Empty, true),
        ("1.1 502 Bad", "", Method::Connect, BodyLength::UntilClose, false),
    ];
    for (line, fields, method, body, keep_alive) in cases {
        let wire = format!("HTTP/{line}\r\n{fields}\r\n");
        let expected = ResponseStart {
            consumed: wire.len(),
            body,
            keep_alive,
        };
        assert_eq!(response(&wire, method), expected, "{wire} to {method}");
    }
}

#[test]
fn targets_are_taken_apart() {
    let cases = [
        ("GET /a/b?c?d HTTP/1.1", Form::Origin, "/a/b", Some("c?d"), None),
        ("GET / HTTP/1.1", Form::Origin, "/", None, None),
        ("GET /? HTTP/1.1", Form::Origin, "/", Some(""), None),
        (
            "GET http://x:1/a?b HTTP/1.1",
            Form::Absolute,
            "/a",
            Some("b"),
            Some("x:1"),
        ),
        ("GET http://x HTTP/1.1", Form::Absolute, "/", None, Some("x")),
        ("OPTIONS * HTTP/1.1", Form::Asterisk, "*", None, None),
        ("CONNECT x:1 HTTP/1.1", Form::Authority, "", None, Some("x:1")),
    ];
    for (line, form, path, query, authority) in cases {
        let (_, head) = request(&format!("{line}\r\nHost: a\r\n\r\n")).expect("valid");
        let target = &head.target;
        assert_eq!(target.form(), form, "{line}");
        assert_eq!(target.path(), path.as_bytes(), "{line}");
        assert_eq!(target.query(), query.map(str::as_bytes), "{line}");
        assert_eq!(target.authority(), authority.map(str::as_bytes), "{line}");
    }
}

#[test]
fn authorities_are_taken_apart() {
    let parse = |text: &'static str| Authority::parse(text.as_bytes());
    assert_eq!(
        parse("a.b"),
        Ok(Authority {
            host: b"a.b",
            port: None
        })
    );
    assert_eq!(
        parse("a.b:"),
        Ok(Authority {
            host: b"a.b",
            port: None
        })
    );
    assert_eq!(
        parse("a.b:80"),
        Ok(Authority {
            host: b"a.b",
            port: Some(80)
        })
    );
    assert_eq!(
        parse("[::1]:80"),
        Ok(Authority {
            host: b"[::1]",
            port: Some(80)
        })
    );
    assert_eq!(parse("a:65536"), Err(Error::Host));
}

#[test]
fn a_reused_head_and_parser_keep_nothing() {
    let mut parser = RequestParser::new();
    let mut head = RequestHead::new();
    let long = "POST http://x/a?b HTTP/1.0\r\nHost: a\r\nCookie: a=b\r\nX-A: 1\r\nContent-Length: 0\r\n\r\n";
    for wire in [long, "GET /c HTTP/1.1\r\nHost: b\r\n\r\n"] {
        parser
            .parse(wire.as_bytes(), &mut head, &Limits::default())
            .expect("valid")
            .expect("whole");
    }
    let (_, fresh) = request("GET /c HTTP/1.1\r\nHost: b\r\n\r\n").expect("valid");
    assert_eq!(head, fresh);
    assert_eq!(head.headers.len(), 1);
    assert!(!head.headers.contains(Known::Cookie));
    assert_eq!((head.target.query(), head.version), (None, Version::Http11));
}

#[test]
fn limits_are_exact() {
    let line = "GET /12345 HTTP/1.1\r\n";
    let fields = "Host: a\r\nX-A: b\r\n\r\n";
    let parse = |start_line, fields_bytes, count| {
        let limits = Limits {
            start_line,
            fields_bytes,
            fields: count,
        };
        let wire = format!("{line}{fields}");
        RequestParser::new()
            .parse(wire.as_bytes(), &mut RequestHead::new(), &limits)
            .map(|start| start.is_some())
    };
    assert_eq!(parse(line.len(), fields.len(), 2), Ok(true));
    assert_eq!(parse(line.len() - 1, fields.len(), 2), Err(Error::StartLineTooLong));
    assert_eq!(parse(line.len(), fields.len() - 1, 2), Err(Error::HeadTooLarge));
    assert_eq!(parse(line.len(), fields.len(), 1), Err(Error::TooManyFields));
}

/// `XGET` is no GET, wherever the input stops for a while.
#[test]
fn a_method_is_the_same_however_the_input_is_split() {
    for method in ["GET", "XGET", "GETGET", "G", "FORGET", "POST"] {
        let wire = format!("{method} /a HTTP/1.1\r\nHost: a\r\n\r\n");
        for lead in ["", "\r\n"] {
            let wire = [lead, &wire].concat();
            for split in 0..wire.len() {
                let (mut parser, mut head) = (RequestParser::new(), RequestHead::new());
                let first = parser.parse(&wire.as_bytes()[..split], &mut head, &Limits::default());
                assert_eq!(first, Ok(None), "{wire:?} up to {split}");
                let whole = parser.parse(wire.as_bytes(), &mut head, &Limits::default());
                assert!(matches!(whole, Ok(Some(_))), "{wire:?} split at {split}");
                assert_eq!(head.method.as_str(), method, "split at {split}");
                assert_eq!(head.target.path(), b"/a", "{wire:?} split at {split}");
            }
        }
    }
}

#[test]
fn dripped_bytes_are_looked_at_once() {
    // Quadratic work here would be 2^32 steps or more, far beyond the patience of any test run.
    let wire = [b"GET / HTTP/1.1\r\nHost: a\r\nX: ", &[b'y'; 1 << 17][..], b"\r\n\r\n"].concat();
    let limits = Limits {
        fields_bytes: 1 << 20,
        ..Limits::default()
    };
    let mut parser = RequestParser::new();
    let mut head = RequestHead::new();
    for end in 0..wire.len() {
        assert_eq!(parser.parse(&wire[..end], &mut head, &limits), Ok(None));
    }
    assert!(parser.parse(&wire, &mut head, &limits).expect("valid").is_some());
}

#[test]
fn the_http_2_preface_is_told_from_the_first_bytes() {
    let whole = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for end in 0..whole.len() {
        assert_eq!(preface(&whole[..end]), Preface::Partial);
    }
    assert_eq!(preface(&[whole, &b"\0\0"[..]].concat()), Preface::Yes);
    for other in [&b"G"[..], b"PUT", b"PRI * HTTP/1", b"PRI * HTTP/2.0\r\n\r\nXX"] {
        assert_eq!(preface(other), Preface::No);
    }
}

#[test]
fn an_idle_connection_is_known() {
    assert!(RequestParser::is_idle(b"") && RequestParser::is_idle(b"\r\n"));
    assert!(!RequestParser::is_idle(b"G") && !RequestParser::is_idle(b"\r\nG"));
}

#[test]
fn bodies_may_bypass_the_decoder_where_nothing_frames_them() {
    let limits = Limits::default();
    let mut exact = BodyDecoder::new(BodyLength::Exact(10), &limits);
    assert_eq!(exact.unframed_left(), Some(10));
    assert_eq!(exact.decode(b"abc").expect("valid").data, 0..3);
    exact.bypass(6);
    assert_eq!((exact.unframed_left(), exact.is_done()), (Some(1), false));
    assert_eq!(exact.finish(), Err(Error::BodyCutShort));
    let step = exact.decode(b"dNEXT").expect("valid");
    assert_eq!((step.data, step.consumed, step.done), (0..1, 1, true));
    assert_eq!(exact.unframed_left(), Some(0));
    let mut whole = BodyDecoder::new(BodyLength::Exact(4), &limits);
    whole.bypass(4);
    assert_eq!((whole.is_done(), whole.finish()), (true, Ok(())));

    let mut chunked = BodyDecoder::new(BodyLength::Chunked, &limits);
    assert_eq!(chunked.unframed_left(), None);
    assert_eq!(chunked.finish(), Err(Error::BodyCutShort));
    let mut close = BodyDecoder::new(BodyLength::UntilClose, &limits);
    assert_eq!(close.decode(b"abc").expect("valid").data, 0..3);
    close.bypass(5);
    assert_eq!((close.unframed_left(), close.is_done()), (Some(u64::MAX), false));
    assert_eq!((close.finish(), close.is_done()), (Ok(()), true));
    assert!(
        BodyDecoder::new(BodyLength::Empty, &limits)
            .decode(b"x")
            .expect("valid")
            .done
    );
}

#[test]
fn one_step_takes_a_run_of_data_and_the_framing_around_it() {
    let mut decoder = BodyDecoder::new(BodyLength::Chunked, &Limits::default());
    let step = decoder
        .decode(b"3\r\nabc\r\n0\r\nX-A: b\r\nHost: c\r\n\r\nGET")
        .expect("valid");
    assert_eq!((step.data, step.consumed, step.done), (3..6, 30, true));
    let trailers = decoder.take_trailers().expect("trailers");
    assert_eq!(trailers.first(Name::from_static("x-a")), Some(&b"b"[..]));
    assert_eq!(trailers.len(), 1);
}

#[test]
fn names_and_values_hold_only_what_may_stand_on_the_wire() {
    for bad in [&b""[..], b"a b", b"a:", b"a\r", b"\n", b"a\0", b"(", b"\xe9"] {
        assert!(Name::new(bad).is_err(), "{bad:?}");
    }
    Name::new(&vec![b'a'; 65_536]).expect_err("longer than an index can say");
    assert_eq!(
        Name::new(b"X-Request-ID").expect("a name").known(),
        Some(Known::XRequestId)
    );
    assert_eq!(Name::new(b"x-AbC").expect("a name"), Name::from_static("X-aBc"));
    assert_ne!(Name::from_static("host"), Name::from_static("hosts"));
    for bad in [&b" a"[..], b"a ", b"\ta", b"a\r", b"a\nb", b"\0", b"\x7f", b"a\x1fb"] {
        assert!(Value::new(bad).is_err(), "{bad:?}");
    }
    assert_eq!(Value::trimmed(b" \ta b\t ").expect("a value").as_bytes(), b"a b");
    assert_eq!(Value::new(b"").expect("a value").as_bytes(), b"");
    assert_eq!(Value::new(b"\xff\tb").expect("a value").as_bytes(), b"\xff\tb");
}

#[test]
fn each_fault_has_a_status() {
    let cases = [
        (Error::HostMissing, 400),
        (Error::StartLineTooLong, 414),
        (Error::Expectation, 417),
        (Error::TooManyFields, 431),
        (Error::HeadTooLarge, 431),
        (Error::MethodTooLong, 501),
        (Error::TransferCodingUnsupported, 501),
        (Error::VersionUnsupported, 505),
    ];
    for (error, status) in cases {
        assert_eq!(error.status(), status);
        assert_eq!(Some(Status::from(error)), Status::new(status));
    }
    assert!(Error::LengthAndEncoding.is_smuggling_suspicion() && !Error::HostMissing.is_smuggling_suspicion());
}

#[test]
fn idempotent_methods_are_those_of_the_rfc() {
    for (text, idempotent) in [
        ("GET", true),
        ("PUT", true),
        ("DELETE", true),
        ("POST", false),
        ("PATCH", false),
        ("X", false),
    ] {
        assert_eq!(
            Method::new(text.as_bytes()).expect("a method").is_idempotent(),
            idempotent,
            "{text}"
        );
    }
}
