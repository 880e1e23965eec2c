use std::borrow::Cow;

use pierhead_model::{HeaderName, HttpMatch, Pattern, ValueMatch};
use regex::bytes::Regex;

/// What a table must know of a request.
pub trait Request {
    /// Lower case, no port, no trailing dot; empty when unknown.
    fn host(&self) -> &str;
    /// Starts with `/`, no query; normalised.
    fn path(&self) -> &str;
    /// Without the `?`.
    fn query(&self) -> Option<&str>;
    fn method(&self) -> &str;
    /// All lines of that name joined with `,` (RFC 9110 §5.3); `None` if there is none.
    fn header(&self, name: &HeaderName) -> Option<Cow<'_, [u8]>>;
}

/// What remains to be checked once the path is known to match.
#[derive(Debug)]
pub(crate) struct Condition {
    method: Option<Box<str>>,
    headers: Box<[(HeaderName, Value)]>,
    query: Box<[(Box<str>, Value)]>,
}

#[derive(Debug)]
enum Value {
    Exact(Box<str>),
    Regex(Regex),
}

impl Value {
    /// `None` when a pattern does not compile, which `translate` has excluded.
    fn compile(wanted: &ValueMatch) -> Option<Self> {
        Some(match wanted {
            ValueMatch::Exact(text) => Self::Exact(text.as_ref().into()),
            ValueMatch::Regex(pattern) => Self::Regex(compile_pattern(pattern)?),
        })
    }

    fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(text) => text.as_bytes() == value,
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}

/// Anchored at both ends (GEP-4359: a match is of the whole value).
pub(crate) fn compile_pattern(pattern: &Pattern) -> Option<Regex> {
    Regex::new(&format!("^(?:{})$", pattern.as_str())).ok()
}

impl Condition {
    pub(crate) fn compile(wanted: &HttpMatch) -> Option<Self> {
        Some(Self {
            method: wanted.method.as_ref().map(|m| m.as_str().into()),
            headers: wanted
                .headers
                .iter()
                .map(|h| Some((h.name.clone(), Value::compile(&h.value)?)))
                .collect::<Option<_>>()?,
            query: wanted
                .query
                .iter()
                .map(|q| Some((q.name.as_ref().into(), Value::compile(&q.value)?)))
                .collect::<Option<_>>()?,
        })
    }

    /// Whether it holds for every request.
    pub(crate) fn is_empty(&self) -> bool {
        self.method.is_none() && self.headers.is_empty() && self.query.is_empty()
    }

    pub(crate) fn holds<R: Request + ?Sized>(&self, request: &R) -> bool {
        self.method.as_deref().is_none_or(|m| m == request.method())
            && self
                .headers
                .iter()
                .all(|(name, value)| request.header(name).is_some_and(|v| value.matches(&v)))
            && (self.query.is_empty()
                || request.query().is_some_and(|query| {
                    self.query
                        .iter()
                        .all(|(name, value)| query_value(query, name).is_some_and(|v| value.matches(&v)))
                }))
    }
}

/// The value of the first parameter called `name`, decoded as `application/x-www-form-urlencoded`.
pub fn query_value<'q>(query: &'q str, name: &str) -> Option<Cow<'q, [u8]>> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name || (key.contains(['%', '+']) && *decode(key) == *name.as_bytes())).then(|| decode(value))
    })
}

/// Undoes `+` and percent-encoding; what is no valid escape stays as it is.
fn decode(text: &str) -> Cow<'_, [u8]> {
    let bytes = text.as_bytes();
    if !bytes.iter().any(|b| matches!(b, b'%' | b'+')) {
        return Cow::Borrowed(bytes);
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    loop {
        rest = match rest {
            [] => return Cow::Owned(out),
            [b'+', tail @ ..] => {
                out.push(b' ');
                tail
            }
            [b'%', high, low, tail @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                out.push(nibble(*high) << 4 | nibble(*low));
                tail
            }
            [other, tail @ ..] => {
                out.push(*other);
                tail
            }
        };
    }
}

/// The value of an ASCII hexadecimal digit.
fn nibble(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_parameter_of_a_name_counts_and_is_decoded() {
        let value = |query, name| query_value(query, name).map(|v| String::from_utf8(v.into_owned()).unwrap());
        assert_eq!(value("a=1&a=2", "a").as_deref(), Some("1"));
        assert_eq!(value("b=1&%61=x+y%2F%zz", "a").as_deref(), Some("x y/%zz"));
        assert_eq!(value("a", "a").as_deref(), Some(""));
        assert_eq!(value("A=1", "a"), None);
        assert_eq!(value("", "a"), None);
    }
}
