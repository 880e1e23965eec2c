//! What holds for every input.

mod support;

use pierhead_http1::{
    BodyLength, Headers, Known, KnownSet, Limits, Method, Name, RequestHead, RequestParser, ResponseHead,
    ResponseParser, Status, Value, encode,
};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use support::{case, fuzz_body};

/// A case of the corpus with pieces of it and of others removed, doubled or replaced.
fn mutated(folder: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let wires: Vec<_> = case::load(folder)
        .into_iter()
        .map(|case| case.wire)
        .filter(|wire| wire.len() < 2000)
        .collect();
    let count = wires.len();
    let edit = (
        any::<u16>(),
        any::<u8>(),
        any::<u16>(),
        prop_oneof![Just(0u8), Just(1), Just(2), Just(3)],
    );
    (0..count, 0..count, vec(edit, 0..4)).prop_map(move |(one, two, edits)| {
        let mut wire = wires[one].clone();
        let other = &wires[two];
        for (at, byte, from, kind) in edits {
            let at = usize::from(at) % (wire.len() + 1);
            let from = usize::from(from) % (other.len() + 1);
            match kind {
                0 => wire.insert(at, byte),
                1 => drop(wire.drain(at..(at + usize::from(byte % 4)).min(wire.len()))),
                2 => drop(wire.splice(at..at, other[from..].iter().copied().take(usize::from(byte)))),
                _ => wire.truncate(at),
            }
        }
        wire
    })
}

proptest! {
    #[test]
    fn promises_hold_on_any_bytes(input in vec(any::<u8>(), 0..400)) {
        fuzz_body::run(&input);
    }

    #[test]
    fn promises_hold_on_broken_requests(wire in mutated("requests"), side: u8, piece in 1u8..40) {
        fuzz_body::run(&[&[side | 1, piece][..], &wire].concat());
    }

    #[test]
    fn promises_hold_on_broken_responses(wire in mutated("responses"), side: u8, piece in 1u8..40) {
        fuzz_body::run(&[&[side & !1, piece][..], &wire].concat());
    }

    #[test]
    fn no_text_injects_a_line(
        name in hostile(), value in hostile(), reason in hostile(), path in hostile(), query in hostile(),
        method in hostile(),
    ) {
        let mut request = RequestHead::new();
        request.headers.append(Known::Host, Value::from_static("example.com"));
        let mut fields = 1;
        if let (Ok(name), Ok(value)) = (Name::new(&name), Value::new(&value)) && name.known().is_none() {
            request.headers.append(name, value);
            request.headers.set(name, value);
            fields += 1;
        }
        if let Ok(value) = Value::trimmed(&value) {
            request.headers.append(Known::XRequestId, value);
            fields += 1;
        }
        if let Ok(method) = Method::new(&method) && method != Method::Connect {
            request.method = method;
        }
        let slashed = [b"/", &path[..]].concat();
        if request.target.set_path_and_query(&slashed, Some(&query)).is_err() {
            request.target.set_path_and_query(b"/", None).expect("a path");
        }
        let _ = request.target.set(request.method, &path);
        let mut out = Vec::new();
        let _framing = encode::request(&request, BodyLength::Empty, encode::Connection::Default, &mut out);
        let mut again = RequestHead::new();
        let start = RequestParser::new().parse(&out, &mut again, &Limits::default()).expect("valid").expect("whole");
        assert_eq!(start.consumed, out.len());
        let added = again.headers.remove(Known::ContentLength);
        assert_eq!(again.headers.len(), fields, "{added}");
        assert_eq!(again.method, request.method);

        let mut response = ResponseHead::with_status(Status::new(404).expect("a status"));
        let _ = response.set_reason(&reason);
        out.clear();
        let asked = encode::Asked { method: Method::Get, version: pierhead_http1::Version::Http11 };
        let _framing = encode::response(&response, asked, BodyLength::Empty, encode::Connection::Default, &mut out);
        let mut again = ResponseHead::new();
        let start = ResponseParser::new().parse(&out, &mut again, Method::Get, &Limits::default());
        assert_eq!(start.expect("valid").expect("whole").consumed, out.len());
        assert_eq!(again.reason(), response.reason());
        assert_eq!(again.headers.len(), 1);
    }

    #[test]
    fn a_block_behaves_as_a_list_of_fields(start in vec((name(), value()), 0..8), edits in vec(edit(), 0..12)) {
        let mut model: Vec<(String, String)> = start;
        let mut block = parsed(&model);
        for edit in edits {
            apply(&edit, &mut block, &mut model);
            check(&block, &model);
        }
        let twice: Vec<_> = model.iter().chain(&model).cloned().collect();
        let copy = block.clone();
        block.append_all(&copy);
        check(&block, &twice);
    }
}

#[derive(Debug, Clone)]
enum Edit {
    Append(String, String),
    Set(String, String),
    /// Appended with the value of Host.
    CopyHost(String),
    Remove(String),
    /// Host and Cookie.
    RemoveSet,
    RetainShort(usize),
}

/// Few names, so that they meet; known and unknown, in any case.
fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[Hh]ost", "[Cc]ookie", "(?i)x-forwarded-for", "[xX]-[aAbB]", "x-[a-c]"]
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof!["[!-~]{0,12}", "[!-~][ \t]{0,2}[!-~]"]
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        (name(), value()).prop_map(|(name, value)| Edit::Append(name, value)),
        (name(), value()).prop_map(|(name, value)| Edit::Set(name, value)),
        name().prop_map(Edit::CopyHost),
        name().prop_map(Edit::Remove),
        Just(Edit::RemoveSet),
        (0usize..13).prop_map(Edit::RetainShort),
    ]
}

/// Bytes that try to leave their place.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"\r\n".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"\r".to_vec()),
        Just(b"\0".to_vec()),
        Just(b" ".to_vec()),
        Just(b"\t".to_vec()),
        Just(b":".to_vec()),
        Just(b"?".to_vec()),
        Just(b"Content-Length: 5".to_vec()),
        Just(b"HTTP/1.1".to_vec()),
        "[a-zA-Z-]{1,8}".prop_map(String::into_bytes),
        vec(any::<u8>(), 1..3),
    ];
    vec(piece, 0..4).prop_map(|pieces| pieces.concat())
}

/// Fields that came over the wire, with odd whitespace around every third value.
fn parsed(fields: &[(String, String)]) -> Headers {
    let mut wire = b"HTTP/1.1 200 OK\r\n".to_vec();
    for (at, (name, value)) in fields.iter().enumerate() {
        let (before, after) = [(" ", ""), ("", ""), ("\t  ", " ")][at % 3];
        wire.extend_from_slice(format!("{name}:{before}{value}{after}\r\n").as_bytes());
    }
    wire.extend_from_slice(b"\r\n");
    let mut head = ResponseHead::new();
    let start = ResponseParser::new().parse(&wire, &mut head, Method::Get, &Limits::default());
    assert_eq!(start.expect("valid").expect("whole").consumed, wire.len());
    head.headers
}

fn apply(edit: &Edit, block: &mut Headers, model: &mut Vec<(String, String)>) {
    match edit {
        Edit::Append(name, value) => {
            block.append(field_name(name), field_value(value));
            model.push((name.clone(), value.clone()));
        }
        Edit::Set(name, value) => {
            block.set(field_name(name), field_value(value));
            let first = model.iter().position(|(other, _)| other.eq_ignore_ascii_case(name));
            let at = first.unwrap_or(model.len());
            model.insert(at, (name.clone(), value.clone()));
            let mut seen = 0;
            model.retain(|(other, _)| {
                seen += usize::from(other.eq_ignore_ascii_case(name));
                !other.eq_ignore_ascii_case(name) || seen == 1
            });
        }
        Edit::CopyHost(name) => {
            block.append_copy(field_name(name), Known::Host);
            let host = model.iter().find(|(other, _)| other.eq_ignore_ascii_case("host"));
            if let Some((_, value)) = host.cloned() {
                model.push((name.clone(), value));
            }
        }
        Edit::RemoveSet => {
            block.remove_all(KnownSet::of(&[Known::Host, Known::Cookie]));
            let gone = |name: &str| ["host", "cookie"].iter().any(|other| other.eq_ignore_ascii_case(name));
            model.retain(|(name, _)| !gone(name));
        }
        Edit::Remove(name) => {
            let before = model.len();
            model.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
            assert_eq!(block.remove(field_name(name)), before - model.len());
        }
        Edit::RetainShort(len) => {
            block.retain(|field| field.value.as_bytes().len() <= *len);
            model.retain(|(_, value)| value.len() <= *len);
        }
    }
}

fn check(block: &Headers, model: &[(String, String)]) {
    let fields: Vec<_> = block
        .iter()
        .map(|field| {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("ASCII");
            (text(field.name.as_bytes()), text(field.value.as_bytes()))
        })
        .collect();
    assert_eq!(fields, model);
    assert_eq!(block.len(), model.len());
    assert_eq!(block.is_empty(), model.is_empty());
    for (name, _) in model {
        let same = || {
            model
                .iter()
                .filter(|(other, _)| other.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.as_bytes())
        };
        assert_eq!(block.first(field_name(name)), same().next());
        assert!(block.all(field_name(name)).eq(same()));
        assert_eq!(
            block.only(field_name(name)),
            if same().count() == 1 { same().next() } else { None }
        );
    }
    for absent in ["origin", "x-zz"] {
        assert!(!block.contains(field_name(absent)));
    }
    let mut wire = Vec::new();
    encode::interim(Status::CONTINUE, block, &mut wire);
    let lines: String = model
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let written = String::from_utf8(wire).expect("ASCII");
    let written: String = written.split_inclusive("\r\n").map(with_one_space).collect();
    assert_eq!(written, format!("HTTP/1.1 100 Continue\r\n{lines}\r\n"));
}

/// A line that came without a space after the colon is written so; the model has one.
fn with_one_space(line: &str) -> String {
    match line.split_once(':') {
        Some((name, value)) if !value.starts_with(' ') => format!("{name}: {value}"),
        _ => line.to_owned(),
    }
}

fn field_name(text: &str) -> Name<'_> {
    Name::new(text.as_bytes()).expect("a name")
}

fn field_value(text: &str) -> Value<'_> {
    Value::new(text.as_bytes()).expect("a value")
}
