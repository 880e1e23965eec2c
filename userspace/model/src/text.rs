use std::{fmt, sync::Arc};

use serde::{Serialize, Serializer};

/// Why a text cannot be part of an HTTP message head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidHeader {
    pub text: String,
    pub why: &'static str,
}

impl fmt::Display for InvalidHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.text, self.why)
    }
}

impl std::error::Error for InvalidHeader {}

/// RFC 9110 §5.6.2 `tchar`.
fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// A field name (RFC 9110 §5.1): a non-empty token. Case is kept as written, comparison ignores it.
#[derive(Clone, Debug)]
pub struct HeaderName(Arc<str>);

impl HeaderName {
    /// # Errors
    /// When `text` is no token.
    pub fn parse(text: &str) -> Result<Self, InvalidHeader> {
        if is_token(text) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidHeader {
                text: text.to_owned(),
                why: "a header name is a non-empty RFC 9110 token",
            })
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PartialEq for HeaderName {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for HeaderName {}

/// A field value (RFC 9110 §5.5): visible ASCII, obs-text, inner spaces and tabs; may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderValue(Arc<str>);

impl HeaderValue {
    /// Surrounding white space is dropped, as a parser would.
    ///
    /// # Errors
    /// When `text` holds a control character other than a tab.
    pub fn parse(text: &str) -> Result<Self, InvalidHeader> {
        let trimmed = text.trim_matches([' ', '\t']);
        if trimmed.bytes().any(|b| (b < 0x20 && b != b'\t') || b == 0x7f) {
            return Err(InvalidHeader {
                text: text.to_owned(),
                why: "a header value holds no control characters",
            });
        }
        Ok(Self(trimmed.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A request method (RFC 9110 §9.1): a case-sensitive token.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Method(Arc<str>);

impl Method {
    /// # Errors
    /// When `text` is no token.
    pub fn parse(text: &str) -> Result<Self, InvalidHeader> {
        if is_token(text) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidHeader {
                text: text.to_owned(),
                why: "a method is a non-empty RFC 9110 token",
            })
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

macro_rules! as_text {
    ($($name:ident)*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }
    )*};
}

as_text!(HeaderName HeaderValue Method);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_could_split_a_head_gets_in() {
        for bad in ["a\r\nb", "a\nb", "a\0", "\x7f"] {
            assert!(HeaderValue::parse(bad).is_err());
            assert!(HeaderName::parse(bad).is_err());
            assert!(Method::parse(bad).is_err());
        }
        for bad in ["", "a b", "a:"] {
            assert!(HeaderName::parse(bad).is_err());
        }
        assert_eq!(HeaderValue::parse(" a b ").unwrap().as_str(), "a b");
        assert_eq!(HeaderName::parse("X-A").unwrap(), HeaderName::parse("x-a").unwrap());
    }
}
