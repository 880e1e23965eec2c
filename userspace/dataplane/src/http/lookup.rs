//! A request as the route table sees it.

use std::borrow::Cow;

use pierhead_http1::{Name, RequestHead};
use pierhead_model::HeaderName;
use pierhead_route::Request;

pub(crate) struct View<'a> {
    pub(crate) host: &'a str,
    pub(crate) head: &'a RequestHead,
}

/// Targets and methods are ASCII.
fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap_or_default()
}

impl Request for View<'_> {
    fn host(&self) -> &str {
        self.host
    }

    fn path(&self) -> &str {
        text(self.head.target.path())
    }

    fn query(&self) -> Option<&str> {
        self.head.target.query().map(text)
    }

    fn method(&self) -> &str {
        self.head.method.as_str()
    }

    fn header(&self, name: &HeaderName) -> Option<Cow<'_, [u8]>> {
        let name = Name::new(name.as_str().as_bytes()).ok()?;
        let mut values = self.head.headers.all(name);
        let first = values.next()?;
        let Some(second) = values.next() else {
            return Some(Cow::Borrowed(first));
        };
        let mut joined = first.to_vec();
        for value in std::iter::once(second).chain(values) {
            joined.push(b',');
            joined.extend_from_slice(value);
        }
        Some(Cow::Owned(joined))
    }
}
