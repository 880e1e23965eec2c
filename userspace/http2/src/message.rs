//! Whether fields make a message (RFC 9113 §8).

use crate::{Error, Fields, Pseudo};

/// A token in lower case, by byte (RFC 9110 §5.6.2, RFC 9113 §8.2.1).
static NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let is = byte as u8;
        table[byte] = matches!(is, b'0'..=b'9' | b'a'..=b'z' | b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~');
        byte += 1;
    }
    table
};

const EACH: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// Whether no byte is a control character, HTAB excepted.
fn is_value(text: &[u8]) -> bool {
    let allowed = |byte: u8| (byte >= 0x20 && byte != 0x7f) || byte == b'\t';
    let mut rest = text;
    while let Some((word, after)) = rest.split_first_chunk::<8>() {
        let word_is = u64::from_ne_bytes(*word);
        // Bytes below 0x20, and bytes that are 0x7f; one that is neither may be found suspicious, none is overlooked.
        let low = word_is.wrapping_sub(EACH * 0x20) & !word_is;
        let del = (word_is ^ (EACH * 0x7f)).wrapping_sub(EACH) & !(word_is ^ (EACH * 0x7f));
        if (low | del) & HIGH != 0 && !word.iter().all(|byte| allowed(*byte)) {
            return false;
        }
        rest = after;
    }
    rest.iter().all(|byte| allowed(*byte))
}

/// Fields that HTTP/2 must not carry (RFC 9113 §8.2.2).
fn is_of_the_connection(name: &[u8], value: &[u8]) -> bool {
    match name {
        b"te" => !value.eq_ignore_ascii_case(b"trailers"),
        b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade" => true,
        _ => false,
    }
}

/// What the rules of all messages are: valid names and values, nothing of the connection, one Content-Length; which is returned.
fn regular(fields: &Fields) -> Result<Option<u64>, Error> {
    let mut length = None;
    for (name, value) in fields.regular() {
        if name.is_empty() || !name.iter().all(|byte| NAME[usize::from(*byte)]) {
            return Err(Error::FieldName);
        }
        if !is_value(value) {
            return Err(Error::FieldValue);
        }
        // All of them have a length that few other names have.
        if matches!(name.len(), 2 | 7 | 10 | 16 | 17) && is_of_the_connection(name, value) {
            return Err(Error::ConnectionField);
        }
        if name.len() == 14 && name == b"content-length" {
            let said = digits(value).ok_or(Error::ContentLength)?;
            if length.replace(said).is_some_and(|before| before != said) {
                return Err(Error::ContentLength);
            }
        }
    }
    Ok(length)
}

/// A number of digits only.
fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 19 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(
        text.iter()
            .fold(0, |number, digit| number * 10 + u64::from(digit - b'0')),
    )
}

fn only(fields: &Fields, allowed: &[Pseudo]) -> bool {
    let all = [
        Pseudo::Method,
        Pseudo::Scheme,
        Pseudo::Authority,
        Pseudo::Path,
        Pseudo::Protocol,
        Pseudo::Status,
    ];
    all.iter()
        .all(|which| allowed.contains(which) || fields.pseudo(*which).is_none())
}

/// Checks a request; its Content-Length. `connect` says whether we granted extended CONNECT (RFC 8441 §3).
pub(crate) fn request(fields: &mut Fields, connect: bool) -> Result<Option<u64>, Error> {
    if !fields.sort_out() || fields.pseudo(Pseudo::Status).is_some() {
        return Err(Error::PseudoField);
    }
    let method = fields.pseudo(Pseudo::Method).ok_or(Error::PseudoField)?;
    if method.is_empty() {
        return Err(Error::PseudoField);
    }
    let protocol = fields.pseudo(Pseudo::Protocol);
    let well = if method == b"CONNECT" && protocol.is_none() {
        // RFC 9113 §8.5.
        only(fields, &[Pseudo::Method, Pseudo::Authority]) && fields.pseudo(Pseudo::Authority).is_some()
    } else {
        (protocol.is_none() || (connect && method == b"CONNECT"))
            && fields.pseudo(Pseudo::Scheme).is_some_and(is_scheme)
            && fields.pseudo(Pseudo::Path).is_some_and(|path| !path.is_empty())
    };
    let whole = [Pseudo::Method, Pseudo::Authority, Pseudo::Path, Pseudo::Protocol];
    let clean = |which: &Pseudo| {
        let value = fields.pseudo(*which).unwrap_or_default();
        // No field of these may hold a blank either.
        is_value(value) && !value.iter().any(|byte| matches!(byte, b' ' | b'\t'))
    };
    if !well || !whole.iter().all(clean) {
        return Err(Error::PseudoField);
    }
    regular(fields)
}

/// RFC 3986 §3.1.
fn is_scheme(text: &[u8]) -> bool {
    text.first().is_some_and(u8::is_ascii_alphabetic)
        && text
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

/// Checks a response; its status and its Content-Length.
pub(crate) fn response(fields: &mut Fields) -> Result<(u16, Option<u64>), Error> {
    if !fields.sort_out() || !only(fields, &[Pseudo::Status]) {
        return Err(Error::PseudoField);
    }
    let status = match fields.pseudo(Pseudo::Status) {
        Some([a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9']) => {
            u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0')
        }
        _ => return Err(Error::PseudoField),
    };
    // RFC 9113 §8.6: there is no switching of protocols.
    if status == 101 {
        return Err(Error::PseudoField);
    }
    Ok((status, regular(fields)?))
}

/// Checks trailers.
pub(crate) fn trailers(fields: &mut Fields) -> Result<(), Error> {
    if !fields.sort_out() || !only(fields, &[]) {
        return Err(Error::PseudoField);
    }
    regular(fields).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(all: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::new();
        for (name, value) in all {
            fields.put(name.as_bytes(), value.as_bytes(), usize::MAX);
        }
        fields
    }

    const GET: [(&str, &str); 4] = [
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/"),
        (":authority", "a.test"),
    ];

    fn with(more: &[(&str, &str)]) -> Result<Option<u64>, Error> {
        let all: Vec<_> = GET.iter().chain(more).copied().collect();
        request(&mut fields(&all), false)
    }

    #[test]
    fn requests_have_their_pseudo_fields_first_and_once() {
        assert_eq!(with(&[("accept", "*/*")]), Ok(None));
        let wrong: &[&[(&str, &str)]] = &[
            &[],
            &[(":method", "GET")],
            &[(":method", "GET"), (":scheme", "http")],
            &[(":method", "GET"), (":path", "/")],
            &[(":method", "GET"), (":scheme", "http"), (":path", "")],
            &[(":method", "GET"), (":scheme", "1 2"), (":path", "/")],
            &[(":method", "GET"), (":scheme", "http"), (":path", "/a b")],
            &[(":method", "G\nT"), (":scheme", "http"), (":path", "/")],
            &[
                (":method", "GET"),
                (":method", "GET"),
                (":scheme", "http"),
                (":path", "/"),
            ],
            &[(":method", "GET"), ("a", "b"), (":scheme", "http"), (":path", "/")],
            &[
                (":method", "GET"),
                (":scheme", "http"),
                (":path", "/"),
                (":status", "200"),
            ],
            &[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":other", "x")],
            &[
                (":method", "GET"),
                (":scheme", "http"),
                (":path", "/"),
                (":protocol", "websocket"),
            ],
            &[(":method", "CONNECT"), (":authority", "a:1"), (":path", "/")],
            &[(":method", "CONNECT")],
        ];
        for all in wrong {
            assert_eq!(request(&mut fields(all), false), Err(Error::PseudoField), "{all:?}");
        }
        let connect = [(":method", "CONNECT"), (":authority", "a.test:443")];
        assert_eq!(request(&mut fields(&connect), false), Ok(None));
        let extended = [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "https"),
            (":path", "/chat"),
            (":authority", "a.test"),
        ];
        assert_eq!(request(&mut fields(&extended), true), Ok(None));
        assert_eq!(request(&mut fields(&extended), false), Err(Error::PseudoField));
    }

    #[test]
    fn fields_are_clean_and_not_of_the_connection() {
        let table = [
            (("Accept", "x"), Error::FieldName),
            (("a b", "x"), Error::FieldName),
            (("", "x"), Error::FieldName),
            (("a:b", "x"), Error::FieldName),
            (("a", "x\r\ny"), Error::FieldValue),
            (("a", "long enough for a word \0"), Error::FieldValue),
            (("a", "\u{7f}2345678"), Error::FieldValue),
            (("a", "1234567\n"), Error::FieldValue),
            (("connection", "close"), Error::ConnectionField),
            (("keep-alive", "1"), Error::ConnectionField),
            (("proxy-connection", "1"), Error::ConnectionField),
            (("transfer-encoding", "chunked"), Error::ConnectionField),
            (("upgrade", "h2c"), Error::ConnectionField),
            (("te", "gzip"), Error::ConnectionField),
            (("content-length", "+1"), Error::ContentLength),
            (("content-length", ""), Error::ContentLength),
            (("content-length", "99999999999999999999"), Error::ContentLength),
        ];
        for (field, error) in table {
            assert_eq!(with(&[field]), Err(error), "{field:?}");
        }
        assert_eq!(
            with(&[("te", "trailers"), ("a", "\ttab and \u{e9} 12345678")]),
            Ok(None)
        );
        assert_eq!(
            with(&[("content-length", "12"), ("content-length", "12")]),
            Ok(Some(12))
        );
        assert_eq!(
            with(&[("content-length", "12"), ("content-length", "13")]),
            Err(Error::ContentLength)
        );
    }

    #[test]
    fn a_response_has_a_status_and_trailers_have_none() {
        assert_eq!(response(&mut fields(&[(":status", "204")])), Ok((204, None)));
        for status in ["20", "2000", "abc", "", "099", "101"] {
            assert_eq!(response(&mut fields(&[(":status", status)])), Err(Error::PseudoField));
        }
        assert_eq!(response(&mut fields(&[("a", "b")])), Err(Error::PseudoField));
        let both = [(":status", "200"), (":path", "/")];
        assert_eq!(response(&mut fields(&both)), Err(Error::PseudoField));
        assert_eq!(trailers(&mut fields(&[("grpc-status", "0")])), Ok(()));
        assert_eq!(trailers(&mut fields(&[(":status", "0")])), Err(Error::PseudoField));
    }

    #[test]
    fn every_byte_is_judged_alike_wherever_it_stands() {
        for byte in 0..=255u8 {
            let allowed = (byte >= 0x20 && byte != 0x7f) || byte == 9;
            for at in 0..20 {
                for length in at + 1..20 {
                    let mut text = vec![b'x'; length];
                    text[at] = byte;
                    assert_eq!(is_value(&text), allowed, "{byte} at {at} of {length}");
                }
            }
        }
    }
}
