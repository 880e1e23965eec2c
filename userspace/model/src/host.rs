use std::{borrow::Borrow, cmp::Ordering, fmt, net::IpAddr, sync::Arc};

use serde::{Serialize, Serializer};

use crate::intern;

/// A host name as compared by the data plane: ASCII lower case, no port, no trailing dot, or an IP literal.
///
/// Syntax: RFC 1123 labels (1–63 of `[a-z0-9_-]`, not starting or ending with `-`), at most 253 characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hostname(Arc<str>);

/// Why a text is not a host name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidHostname {
    pub text: String,
    pub why: &'static str,
}

impl fmt::Display for InvalidHostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a host name: {}", self.text, self.why)
    }
}

impl std::error::Error for InvalidHostname {}

impl Hostname {
    /// Parses and lower-cases `text`; one trailing dot is dropped.
    ///
    /// # Errors
    /// When `text` is no RFC 1123 name and no IP address.
    pub fn parse(text: &str) -> Result<Self, InvalidHostname> {
        let bare = text.strip_suffix('.').unwrap_or(text);
        let bad = |why| {
            Err(InvalidHostname {
                text: text.to_owned(),
                why,
            })
        };
        if bare.is_empty() {
            return bad("it is empty");
        }
        if bare.parse::<IpAddr>().is_ok() {
            return Ok(Self(intern(&bare.to_ascii_lowercase())));
        }
        if bare.len() > 253 {
            return bad("it is longer than 253 characters");
        }
        for label in bare.split('.') {
            if label.is_empty() || label.len() > 63 {
                return bad("each label has 1 to 63 characters");
            }
            if label.starts_with('-') || label.ends_with('-') {
                return bad("a label neither starts nor ends with a hyphen");
            }
            if !label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            {
                return bad("labels consist of letters, digits and hyphens");
            }
        }
        Ok(Self(intern(&bare.to_ascii_lowercase())))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// So that a map of host names can be asked with a `&str`; both hash and compare alike.
impl Borrow<str> for Hostname {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Hostname {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

/// How many labels a `*` stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum WildcardDepth {
    /// Exactly one: Ingress (`networking/v1` IngressRule.host).
    One,
    /// One or more: Gateway API (`Hostname` type).
    Many,
}

/// What a listener, a route or a certificate says about host names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    Any,
    /// `*.suffix`; the suffix alone does not match.
    Wildcard {
        suffix: Hostname,
        depth: WildcardDepth,
    },
    Exact(Hostname),
}

impl HostPattern {
    /// Parses `name`, `*.name` or the empty string (any).
    ///
    /// # Errors
    /// When the name, or what follows `*.`, is no host name.
    pub fn parse(text: &str, depth: WildcardDepth) -> Result<Self, InvalidHostname> {
        match text.strip_prefix("*.") {
            _ if text.is_empty() => Ok(Self::Any),
            Some(suffix) => Ok(Self::Wildcard {
                suffix: Hostname::parse(suffix)?,
                depth,
            }),
            None => Ok(Self::Exact(Hostname::parse(text)?)),
        }
    }

    /// Whether `host` (lower case, no port, no trailing dot) is meant.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(name) => name.as_str() == host,
            Self::Wildcard { suffix, depth } => {
                let Some(head) = host.strip_suffix(suffix.as_str()).and_then(|h| h.strip_suffix('.')) else {
                    return false;
                };
                !head.is_empty() && (*depth == WildcardDepth::Many || !head.contains('.'))
            }
        }
    }

    /// Whether some host name matches both patterns.
    pub fn intersects(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) | (_, Self::Any) => true,
            (Self::Exact(a), p) | (p, Self::Exact(a)) => p.matches(a.as_str()),
            (Self::Wildcard { suffix: a, depth: da }, Self::Wildcard { suffix: b, depth: db }) => {
                if a == b {
                    return true;
                }
                // The longer suffix must lie below the shorter one, and the shorter one's `*` must reach that deep.
                let (long, short, short_depth) = if a.as_str().len() > b.as_str().len() {
                    (a, b, db)
                } else {
                    (b, a, da)
                };
                *short_depth == WildcardDepth::Many
                    && long
                        .as_str()
                        .strip_suffix(short.as_str())
                        .is_some_and(|h| h.ends_with('.'))
            }
        }
    }

    /// Whether every host that `other` matches is matched by `self`.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (_, Self::Any) | (Self::Exact(_), Self::Wildcard { .. }) => false,
            (p, Self::Exact(name)) => p.matches(name.as_str()),
            (Self::Wildcard { suffix: a, depth: da }, Self::Wildcard { suffix: b, depth: db }) => {
                if a == b {
                    return *da == WildcardDepth::Many || *db == WildcardDepth::One;
                }
                *da == WildcardDepth::Many && b.as_str().strip_suffix(a.as_str()).is_some_and(|h| h.ends_with('.'))
            }
        }
    }

    /// Orders patterns that match one host: `Greater` is the more specific one. Exact before wildcard, then by the
    /// number of characters, any last (Gateway API `HTTPRoute.hostnames`, "most characters in a matching hostname").
    pub fn cmp_specificity(&self, other: &Self) -> Ordering {
        self.specificity().cmp(&other.specificity())
    }

    /// (exactness, characters of the pattern as written): greater is more specific.
    pub fn specificity(&self) -> (u8, usize) {
        match self {
            Self::Any => (0, 0),
            Self::Wildcard { suffix, .. } => (1, suffix.as_str().len() + 2),
            Self::Exact(name) => (2, name.as_str().len()),
        }
    }
}

impl fmt::Display for HostPattern {
    /// As written in a manifest; `*` for any.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Wildcard { suffix, .. } => write!(f, "*.{suffix}"),
            Self::Exact(name) => name.fmt(f),
        }
    }
}

impl Serialize for HostPattern {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Wildcard {
                suffix,
                depth: WildcardDepth::One,
            } => s.collect_str(&format_args!("*.{suffix} (one label)")),
            other => s.collect_str(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn many(text: &str) -> HostPattern {
        HostPattern::parse(text, WildcardDepth::Many).unwrap()
    }

    fn one(text: &str) -> HostPattern {
        HostPattern::parse(text, WildcardDepth::One).unwrap()
    }

    #[test]
    fn host_names_are_lowered_and_lose_one_trailing_dot() {
        assert_eq!(Hostname::parse("Foo.Example.").unwrap().as_str(), "foo.example");
        assert_eq!(Hostname::parse("::1").unwrap().as_str(), "::1");
        for bad in [
            "",
            ".",
            "a..b",
            "-a",
            "a-",
            "a b",
            "é.example",
            "a.example..",
            &"a".repeat(64),
        ] {
            assert!(Hostname::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn gateway_wildcards_match_many_labels_and_ingress_wildcards_one() {
        assert!(many("*.example.com").matches("a.b.example.com"));
        assert!(!many("*.example.com").matches("example.com"));
        assert!(!many("*.example.com").matches("badexample.com"));
        assert!(one("*.foo.com").matches("bar.foo.com"));
        assert!(!one("*.foo.com").matches("baz.bar.foo.com"));
        assert!(!one("*.foo.com").matches("foo.com"));
    }

    #[test]
    fn intersection_is_symmetric_and_knows_depth() {
        for (a, b, expected) in [
            (many(""), many("*.com"), true),
            (many("*.com"), many("*.example.com"), true),
            (many("*.example.com"), many("a.b.example.com"), true),
            (many("*.example.com"), many("example.com"), false),
            (one("*.com"), one("*.example.com"), false),
            (one("*.example.com"), many("*.example.com"), true),
            (many("a.com"), many("b.com"), false),
            (many("*.a.com"), many("*.xa.com"), false),
        ] {
            assert_eq!(a.intersects(&b), expected, "{a} {b}");
            assert_eq!(b.intersects(&a), expected, "{b} {a}");
        }
    }

    #[test]
    fn specificity_puts_exact_first_then_length() {
        let mut all = [
            many("*.com"),
            many(""),
            many("a.com"),
            many("*.example.com"),
            many("long.example.com"),
        ];
        all.sort_by(|a, b| b.cmp_specificity(a));
        assert_eq!(
            all.map(|p| p.to_string()),
            ["long.example.com", "a.com", "*.example.com", "*.com", "*"]
        );
    }
}
