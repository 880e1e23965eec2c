//! URL rewrite: host and path of what the backend gets (HTTPRoute `URLRewrite`).

use pierhead_http1::{Known, RequestHead, Value};
use pierhead_model::{PathMatch, PathRewrite, UrlRewriteFilter};

/// The path after a rewrite, without query. `found` is the match of the rule.
pub(crate) fn path(rewrite: &PathRewrite, found: &PathMatch, path: &[u8]) -> Vec<u8> {
    match rewrite {
        PathRewrite::Full(full) => rooted(full.as_bytes().to_vec()),
        PathRewrite::Prefix(replacement) => {
            // Only a prefix match has something to replace; the API refuses the rest.
            let matched = match found {
                PathMatch::Prefix(prefix) => prefix.trim_end_matches('/').len(),
                PathMatch::Exact(_) => path.len(),
                PathMatch::Regex(_) | PathMatch::GrpcMethod(_) => 0,
            };
            let rest = path.get(matched..).unwrap_or_default();
            let rest = rest.strip_prefix(b"/").unwrap_or(rest);
            let ends_with_slash = path.len() > matched && rest.is_empty();
            let mut out = replacement.trim_end_matches('/').as_bytes().to_vec();
            if !rest.is_empty() || ends_with_slash {
                out.push(b'/');
                out.extend_from_slice(rest);
            }
            rooted(out)
        }
    }
}

fn rooted(mut path: Vec<u8>) -> Vec<u8> {
    if path.first() != Some(&b'/') {
        path.insert(0, b'/');
    }
    path
}

/// Rewrites a request.
///
/// # Errors
/// When the result is no path (a replacement with a character that may not stand in one).
pub(crate) fn apply(
    filter: &UrlRewriteFilter,
    found: &PathMatch,
    head: &mut RequestHead,
) -> Result<(), pierhead_http1::Error> {
    if let Some(rewrite) = &filter.path {
        let path = path(rewrite, found, head.target.path());
        head.target.set_path(&path)?;
    }
    if let Some(host) = &filter.host
        && let Ok(value) = Value::new(host.as_str().as_bytes())
    {
        head.headers.set(Known::Host, value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use pierhead_http1::Method;
    use pierhead_model::Hostname;

    use super::*;

    /// The table of the Gateway API (`HTTPPathModifier.replacePrefixMatch`), and a query that stays.
    #[test]
    fn prefixes_are_replaced_as_the_specification_says() {
        for (given, prefix, replacement, expected) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/foo/bar", "/", "/xyz", "/xyz/foo/bar"),
            ("/", "/", "/xyz", "/xyz/"),
        ] {
            let rewritten = path(
                &PathRewrite::Prefix(replacement.into()),
                &PathMatch::Prefix(prefix.into()),
                given.as_bytes(),
            );
            assert_eq!(
                str::from_utf8(&rewritten).unwrap(),
                expected,
                "{given} {prefix} {replacement}"
            );
        }
    }

    #[test]
    fn host_and_path_change_and_the_query_stays() {
        let mut head = RequestHead::new();
        head.target.set(Method::Get, b"/old/path?a=/b").unwrap();
        head.headers.append(Known::Host, Value::from_static("before.example"));
        let filter = UrlRewriteFilter {
            host: Some(Hostname::parse("after.example").unwrap()),
            path: Some(PathRewrite::Full("/new".into())),
        };
        apply(&filter, &PathMatch::Prefix("/".into()), &mut head).unwrap();
        assert_eq!(head.target.as_bytes(), b"/new?a=/b");
        assert_eq!(head.headers.only(Known::Host), Some(&b"after.example"[..]));
    }
}
