//! Paths: what is refused, what is rewritten before matching, what passes untouched.
//!
//! The parser has refused control characters, spaces, bytes above ASCII and `#` (400). On top of that:
//! - an encoded NUL (`%00`) is refused: 400;
//! - dot segments are resolved (RFC 3986 §5.2.4), also when dots are written `%2e`; routes are matched against the result,
//!   and the backend gets the result, so that nobody reaches by `..` what another rule guards;
//! - everything else is forwarded byte for byte: `//`, `%2F`, `\`, other escapes and letter case mean what the backend
//!   says they mean, and are matched as written.

use pierhead_http1::{Form, RequestHead};

/// The path cannot be served: 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadPath;

/// Normalises the path of a request in place.
///
/// # Errors
/// [`BadPath`].
pub(crate) fn normalise(head: &mut RequestHead) -> Result<(), BadPath> {
    if !matches!(head.target.form(), Form::Origin | Form::Absolute) {
        return Ok(());
    }
    let path = head.target.path();
    if !is_suspicious(path) {
        return Ok(());
    }
    if path.windows(3).any(|three| three == b"%00") {
        return Err(BadPath);
    }
    if path.split(|b| *b == b'/').any(|segment| dots(segment).is_some()) {
        let resolved = resolve(path);
        head.target.set_path(&resolved).map_err(|_| BadPath)?;
    }
    Ok(())
}

/// A cheap look that most paths pass: neither a segment that starts with a dot nor an escape.
fn is_suspicious(path: &[u8]) -> bool {
    let mut before = b'/';
    memchr::memchr2(b'%', b'.', path).is_some()
        && path.iter().any(|&byte| {
            let previous = std::mem::replace(&mut before, byte);
            byte == b'%' || (byte == b'.' && previous == b'/')
        })
}

/// One for `.`, two for `..`, in any spelling.
fn dots(mut segment: &[u8]) -> Option<usize> {
    let mut count = 0;
    while !segment.is_empty() {
        segment = match segment {
            [b'.', rest @ ..] | [b'%', b'2', b'e' | b'E', rest @ ..] => rest,
            _ => return None,
        };
        count += 1;
    }
    (1..=2).contains(&count).then_some(count)
}

fn resolve(path: &[u8]) -> Vec<u8> {
    let mut out: Vec<&[u8]> = Vec::new();
    let mut segments = path.split(|b| *b == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match dots(segment) {
            None => out.push(segment),
            Some(count) => {
                if count == 2 {
                    out.pop();
                }
                // `/a/.` is the directory `/a/`.
                if last {
                    out.push(b"");
                }
            }
        }
    }
    let mut resolved = Vec::with_capacity(path.len());
    for segment in out {
        resolved.push(b'/');
        resolved.extend_from_slice(segment);
    }
    if resolved.is_empty() {
        resolved.push(b'/');
    }
    resolved
}

#[cfg(test)]
mod tests {
    use pierhead_http1::Method;

    use super::*;

    fn normalised(target: &str) -> Option<String> {
        let mut head = RequestHead::new();
        head.target.set(Method::Get, target.as_bytes()).unwrap();
        normalise(&mut head).ok()?;
        let query = head.target.query().map(|q| format!("?{}", str::from_utf8(q).unwrap()));
        Some(format!(
            "{}{}",
            str::from_utf8(head.target.path()).unwrap(),
            query.unwrap_or_default()
        ))
    }

    #[test]
    fn dot_segments_are_resolved_in_any_spelling() {
        for (given, expected) in [
            ("/a/b/../c", "/a/c"),
            ("/a/./b", "/a/b"),
            ("/a/%2e%2E/b?x=../y", "/b?x=../y"),
            ("/a/.%2e/b", "/b"),
            ("/../../etc", "/etc"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/..", "/"),
            ("/a//../b", "/a/b"),
        ] {
            assert_eq!(normalised(given).as_deref(), Some(expected), "{given}");
        }
    }

    #[test]
    fn everything_else_passes_byte_for_byte() {
        for path in [
            "/",
            "//a//b/",
            "/a%2Fb",
            "/a%2e.b",
            "/a/...",
            "/a/..b/.c",
            "/a%zz",
            "/A%20b",
            "/a\\..\\b",
            "/%61?q",
        ] {
            assert_eq!(normalised(path).as_deref(), Some(path));
        }
    }

    #[test]
    fn an_encoded_nul_is_refused() {
        assert_eq!(normalised("/a%00b"), None);
        assert_eq!(normalised("/a?b=%00").as_deref(), Some("/a?b=%00"));
    }

    #[test]
    fn normalising_twice_is_normalising_once() {
        for path in ["/a/%2e%2e/%2e%2e/b/./c/..", "/./././", "/a/../../b//.."] {
            let once = normalised(path).unwrap();
            assert_eq!(normalised(&once).as_deref(), Some(once.as_str()));
        }
    }
}
