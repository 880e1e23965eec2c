//! Request methods: case-sensitive tokens (RFC 9110 §9.1).

use std::fmt;

use crate::{Error, chars};

/// A method. Standard ones by name, any other token by its text.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
    Other(OtherMethod),
}

/// The text of a method that is not one of the standard ones.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct OtherMethod {
    text: [u8; Method::MAX_LEN],
    len: u8,
}

impl Method {
    /// Longest method accepted, in bytes: the longest registered one has 17.
    pub const MAX_LEN: usize = 24;

    /// Checks `text`.
    ///
    /// # Errors
    /// [`Error::Method`] when it is not a token, [`Error::MethodTooLong`].
    pub fn new(text: &[u8]) -> Result<Self, Error> {
        Ok(match text {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"CONNECT" => Self::Connect,
            b"OPTIONS" => Self::Options,
            b"TRACE" => Self::Trace,
            b"PATCH" => Self::Patch,
            other => {
                if other.is_empty() || chars::token_end(other, 0) < other.len() {
                    return Err(Error::Method);
                }
                let mut text = [0; Self::MAX_LEN];
                text.get_mut(..other.len())
                    .ok_or(Error::MethodTooLong)?
                    .copy_from_slice(other);
                Self::Other(OtherMethod {
                    text,
                    len: other.len() as u8,
                })
            }
        })
    }

    /// The text as on the wire.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Get => b"GET",
            Self::Head => b"HEAD",
            Self::Post => b"POST",
            Self::Put => b"PUT",
            Self::Delete => b"DELETE",
            Self::Connect => b"CONNECT",
            Self::Options => b"OPTIONS",
            Self::Trace => b"TRACE",
            Self::Patch => b"PATCH",
            Self::Other(other) => &other.text[..usize::from(other.len)],
        }
    }

    /// The text; methods are ASCII.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// Whether sending it twice has the effect of sending it once (RFC 9110 §9.2.2).
    pub const fn is_idempotent(&self) -> bool {
        matches!(
            self,
            Self::Get | Self::Head | Self::Put | Self::Delete | Self::Options | Self::Trace
        )
    }
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for OtherMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.text[..usize::from(self.len)]))
    }
}
