//! What the fuzz target and its replay do with one input. It panics when a promise of the codec is broken.
//!
//! Input: one byte for the side and method, one for the size of the pieces, then the wire.

use pierhead_http1::{
    BodyDecoder, BodyLength, Error, Headers, Limits, Method, RequestHead, RequestParser, ResponseHead, ResponseParser,
    Version, encode, strip_hop_by_hop,
};

use super::stream;

/// Wide enough that lines added while forwarding never pass them.
const WIDE: Limits = Limits {
    start_line: 1 << 20,
    fields_bytes: 1 << 20,
    fields: 1000,
};

/// Runs one input through everything.
pub fn run(input: &[u8]) {
    let &[side, piece, ref wire @ ..] = input else {
        return;
    };
    let small = Limits {
        start_line: 512,
        fields_bytes: 1024,
        fields: 16,
    };
    let limits = if side & 0x80 == 0 { Limits::default() } else { small };
    let cuts: Vec<_> = (1..wire.len()).step_by(usize::from(piece).max(1)).collect();
    if side & 1 == 1 {
        let whole = stream::requests(wire, &[], &limits);
        assert_eq!(
            whole,
            stream::requests(wire, &cuts, &limits),
            "the result depends on the split"
        );
        forward_request(wire, &limits);
    } else {
        let method = [Method::Get, Method::Head, Method::Connect][usize::from(side >> 1 & 3) % 3];
        let whole = stream::response(wire, &[], method, &limits);
        assert_eq!(
            whole,
            stream::response(wire, &cuts, method, &limits),
            "the result depends on the split"
        );
        forward_response(wire, method, &limits);
    }
}

/// What we would send upstream must mean to a strict reader what we read.
fn forward_request(wire: &[u8], limits: &Limits) {
    let mut head = RequestHead::new();
    let Ok(Some(start)) = RequestParser::new().parse(wire, &mut head, limits) else {
        return;
    };
    strip(&mut head.headers);
    let mut out = Vec::new();
    let framing = encode::request(&head, start.body, encode::Connection::Default, &mut out);
    let mut again = RequestHead::new();
    let restart = match RequestParser::new().parse(&out, &mut again, &WIDE) {
        Ok(restart) => restart.expect("a written head is whole"),
        // An HTTP/1.0 request may come without; the pipeline adds it.
        Err(Error::HostMissing) if head.version == Version::Http10 => return,
        Err(error) => panic!("wrote a head that we refuse: {error}"),
    };
    assert_eq!(
        restart.consumed,
        out.len(),
        "a head is written without anything after it"
    );
    assert_eq!(again.method, head.method);
    if head.method != Method::Options {
        assert_eq!(again.target.path(), head.target.path());
        assert_eq!(again.target.query(), head.target.query());
    }
    same_fields(&head.headers, &again.headers);
    body(&wire[start.consumed..], start.body, framing, restart.body, limits);
}

fn forward_response(wire: &[u8], method: Method, limits: &Limits) {
    let mut head = ResponseHead::new();
    let Ok(Some(start)) = ResponseParser::new().parse(wire, &mut head, method, limits) else {
        return;
    };
    if head.status.is_interim() {
        return;
    }
    strip(&mut head.headers);
    for version in [Version::Http10, Version::Http11] {
        let mut out = Vec::new();
        let asked = encode::Asked { method, version };
        let framing = encode::response(&head, asked, start.body, encode::Connection::Default, &mut out);
        let mut again = ResponseHead::new();
        let restart = ResponseParser::new().parse(&out, &mut again, method, &WIDE);
        let restart = restart
            .expect("a written head is valid")
            .expect("a written head is whole");
        assert_eq!(
            restart.consumed,
            out.len(),
            "a head is written without anything after it"
        );
        assert_eq!((again.status, again.reason()), (head.status, head.reason()));
        same_fields(&head.headers, &again.headers);
        body(&wire[start.consumed..], start.body, framing, restart.body, limits);
    }
}

fn strip(headers: &mut Headers) {
    strip_hop_by_hop(headers);
    let once = headers.clone();
    strip_hop_by_hop(headers);
    assert_eq!(*headers, once, "stripping twice strips more");
}

/// All but the names that only the encoder writes.
fn same_fields(one: &Headers, two: &Headers) {
    let pick = |headers: &Headers| -> Vec<(Vec<u8>, Vec<u8>)> {
        let owned = ["connection", "content-length", "transfer-encoding"];
        let fields = headers
            .iter()
            .map(|field| (field.name.as_bytes().to_vec(), field.value.as_bytes().to_vec()));
        fields
            .filter(|(name, _)| !owned.iter().any(|own| name.eq_ignore_ascii_case(own.as_bytes())))
            .collect()
    };
    assert_eq!(pick(one), pick(two), "a field was changed, lost or made up");
}

/// Decodes, writes as the encoder said, decodes again as a reader of the new head would.
fn body(wire: &[u8], length: BodyLength, framing: encode::Framing, reread: BodyLength, limits: &Limits) {
    let Some(data) = decode(wire, length, limits) else {
        return;
    };
    let mut out = Vec::new();
    match framing {
        encode::Framing::Nothing => assert!(data.is_empty(), "a body for which there is no place"),
        encode::Framing::Length(promised) => {
            assert_eq!(promised, data.len() as u64);
            out = data.clone();
        }
        encode::Framing::Chunked => {
            for piece in data.chunks(7) {
                encode::chunk(piece, &mut out);
            }
            encode::last_chunk(None, &mut out);
        }
        encode::Framing::UntilClose => out = data.clone(),
    }
    assert_eq!(decode(&out, reread, &WIDE), Some(data), "a body was changed");
}

fn decode(wire: &[u8], length: BodyLength, limits: &Limits) -> Option<Vec<u8>> {
    let mut decoder = BodyDecoder::new(length, limits);
    let (mut at, mut data) = (0, Vec::new());
    loop {
        let step = decoder.decode(&wire[at..]).ok()?;
        data.extend_from_slice(&wire[at..][step.data]);
        at += step.consumed;
        if step.done {
            return Some(data);
        }
        if at == wire.len() {
            return decoder.finish().ok().map(|()| data);
        }
    }
}
