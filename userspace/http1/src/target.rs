//! Request targets (RFC 9112 §3.2) and authorities (RFC 3986 §3.2).
//!
//! Knows characters and boundaries; how a path is normalised before matching is for others.

use std::fmt;

use crate::{Error, Method, chars};

/// The four forms of RFC 9112 §3.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `/path?query`
    Origin,
    /// `http://host/path?query`
    Absolute,
    /// `host:port`, for CONNECT
    Authority,
    /// `*`, for OPTIONS
    Asterisk,
}

/// A request target: visible ASCII without `#`, of a known form.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    bytes: Vec<u8>,
    form: Form,
    authority_start: u32,
    /// Start of the path, end of the authority.
    path_start: u32,
    /// End of the path, where `?` stands when there is a query.
    path_end: u32,
}

impl Default for Target {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            form: Form::Origin,
            authority_start: 0,
            path_start: 0,
            path_end: 0,
        }
    }
}

impl Target {
    /// All of it, as on the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its form.
    pub const fn form(&self) -> Form {
        self.form
    }

    /// The path: never empty for origin and absolute form (`/` when absent), empty for authority form, `*` for
    /// asterisk form.
    pub fn path(&self) -> &[u8] {
        match &self.bytes[self.path_start as usize..self.path_end as usize] {
            [] if matches!(self.form, Form::Origin | Form::Absolute) => b"/",
            path => path,
        }
    }

    /// What follows the first `?`; `Some` and empty for `/path?`.
    pub fn query(&self) -> Option<&[u8]> {
        self.bytes.get(self.path_end as usize + 1..)
    }

    /// The authority of absolute and authority form, as written.
    pub fn authority(&self) -> Option<&[u8]> {
        match self.form {
            Form::Absolute | Form::Authority => {
                Some(&self.bytes[self.authority_start as usize..self.path_start as usize])
            }
            Form::Origin | Form::Asterisk => None,
        }
    }

    /// Path and query in one piece, without `/` where the path is absent: for [`crate::encode`].
    pub(crate) fn path_and_query(&self) -> &[u8] {
        &self.bytes[self.path_start as usize..]
    }

    /// Checks and takes a target as it stands in a request line.
    ///
    /// # Errors
    /// [`Error::Target`] for a wrong character or a form that does not go with `method`, [`Error::Host`] for a
    /// malformed authority.
    pub fn set(&mut self, method: Method, text: &[u8]) -> Result<(), Error> {
        if chars::target_end(text, 0) < text.len() {
            return Err(Error::Target);
        }
        self.set_checked(method, text)
    }

    /// Replaces path and query; the form becomes origin form. `path` starts with `/`.
    ///
    /// # Errors
    /// [`Error::Target`] for a wrong character, a `?` in the path, or a path without leading slash. The target is
    /// then as before.
    pub fn set_path_and_query(&mut self, path: &[u8], query: Option<&[u8]>) -> Result<(), Error> {
        let valid = |text: &[u8]| chars::target_end(text, 0) == text.len();
        if path.first() != Some(&b'/') || path.contains(&b'?') || !valid(path) || !query.is_none_or(valid) {
            return Err(Error::Target);
        }
        self.bytes.clear();
        self.bytes.extend_from_slice(path);
        if let Some(query) = query {
            self.bytes.push(b'?');
            self.bytes.extend_from_slice(query);
        }
        self.place(Form::Origin, 0, 0, path.len());
        Ok(())
    }

    /// Replaces the path and keeps the query.
    ///
    /// # Errors
    /// As [`Target::set_path_and_query`].
    pub fn set_path(&mut self, path: &[u8]) -> Result<(), Error> {
        let query = self.query().map(<[u8]>::to_vec);
        self.set_path_and_query(path, query.as_deref())
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.place(Form::Origin, 0, 0, 0);
    }

    /// As [`Target::set`], for text whose characters were checked.
    pub(crate) fn set_checked(&mut self, method: Method, text: &[u8]) -> Result<(), Error> {
        let (form, authority_start, path_start) = match text {
            [] => return Err(Error::Target),
            // The only form of CONNECT (RFC 9112 §3.2.3); it needs a port.
            _ if method == Method::Connect => {
                if Authority::parse(text)?.port.is_none() {
                    return Err(Error::Target);
                }
                (Form::Authority, 0, text.len())
            }
            [b'/', ..] => (Form::Origin, 0, 0),
            // RFC 9112 §3.2.4: for OPTIONS only.
            b"*" if method == Method::Options => (Form::Asterisk, 0, 0),
            _ => {
                let start = scheme_len(text).ok_or(Error::Target)?;
                let end = text[start..]
                    .iter()
                    .position(|b| matches!(b, b'/' | b'?'))
                    .map_or(text.len(), |at| start + at);
                Authority::parse(&text[start..end])?;
                (Form::Absolute, start, end)
            }
        };
        let path_end = memchr::memchr(b'?', &text[path_start..]).map_or(text.len(), |at| path_start + at);
        self.bytes.clear();
        self.bytes.extend_from_slice(text);
        self.place(form, authority_start, path_start, path_end);
        Ok(())
    }

    fn place(&mut self, form: Form, authority_start: usize, path_start: usize, path_end: usize) {
        self.form = form;
        // Limits keep a start line far below 4 GiB.
        self.authority_start = authority_start as u32;
        self.path_start = path_start as u32;
        self.path_end = path_end as u32;
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.bytes))
    }
}

/// Length of `http://` or `https://` at the start; other schemes are not ours to serve.
fn scheme_len(text: &[u8]) -> Option<usize> {
    ["http://", "https://"]
        .into_iter()
        .map(str::as_bytes)
        .find_map(|scheme| {
            text.get(..scheme.len())
                .filter(|start| start.eq_ignore_ascii_case(scheme))
                .map(<[u8]>::len)
        })
}

/// `host [ ":" port ]` without user information (RFC 9110 §4.2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authority<'a> {
    /// As written: any case, perhaps a trailing dot; an IPv6 address with its brackets. Never empty.
    pub host: &'a [u8],
    /// `None` also for an empty port, as in `example.com:`.
    pub port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Parses a Host value, an `:authority` or the authority of a target.
    ///
    /// # Errors
    /// [`Error::Host`].
    pub fn parse(text: &'a [u8]) -> Result<Self, Error> {
        let host_len = match text {
            [b'[', rest @ ..] => {
                let end = rest.iter().position(|&b| b == b']').ok_or(Error::Host)?;
                let address = std::str::from_utf8(&rest[..end]).map_err(|_| Error::Host)?;
                // Zones have no meaning off the host that wrote them (RFC 9110 §4.2); IPvFuture does not exist.
                address.parse::<std::net::Ipv6Addr>().map_err(|_| Error::Host)?;
                end + 2
            }
            _ => chars::host_end(text),
        };
        let (host, rest) = text.split_at(host_len);
        if host.is_empty() {
            return Err(Error::Host);
        }
        let port = match rest {
            [] | [b':'] => None,
            [b':', digits @ ..] => {
                let port = chars::parse_decimal(digits).and_then(|port| u16::try_from(port).ok());
                Some(port.filter(|_| digits.len() <= 5).ok_or(Error::Host)?)
            }
            _ => return Err(Error::Host),
        };
        Ok(Self { host, port })
    }
}
