//! Cross-origin resource sharing, answered by us (HTTPRoute `CORS`, GEP-1767; Fetch standard §3.2).

use pierhead_http1::{Headers, Known, Method, Name, OwnedValue, RequestHead, Value};
use pierhead_model::{CorsFilter, CorsOrigin};

/// A CORS filter with its lists joined.
#[derive(Debug)]
pub(crate) struct Cors {
    origins: Vec<CorsOrigin>,
    credentials: bool,
    methods: List,
    headers: List,
    expose: List,
    max_age: OwnedValue,
}

#[derive(Debug)]
struct List {
    any: bool,
    /// `None` when empty.
    joined: Option<OwnedValue>,
}

impl List {
    fn new(items: &[std::sync::Arc<str>]) -> Self {
        let joined = items.join(", ");
        Self {
            any: items.iter().any(|item| item.as_ref() == "*"),
            joined: value(joined.as_bytes()).filter(|_| !items.is_empty()),
        }
    }

    /// With credentials `*` is no wildcard (Fetch §3.2.5): what was asked for is named instead.
    fn add(&self, headers: &mut Headers, name: Known, credentials: bool, asked: Option<&[u8]>) {
        if self.any && credentials {
            if let Some(asked) = asked.and_then(value) {
                headers.append(name, asked.as_value());
            }
        } else if let Some(joined) = &self.joined {
            headers.append(name, joined.as_value());
        }
    }
}

fn value(text: &[u8]) -> Option<OwnedValue> {
    Value::trimmed(text).ok().map(|value| value.to_owned())
}

/// What backends may have said themselves; two voices would make browsers refuse.
const OURS: [Known; 6] = [
    Known::AccessControlAllowOrigin,
    Known::AccessControlAllowCredentials,
    Known::AccessControlAllowMethods,
    Known::AccessControlAllowHeaders,
    Known::AccessControlExposeHeaders,
    Known::AccessControlMaxAge,
];

impl Cors {
    pub(crate) fn compile(model: &CorsFilter) -> Self {
        Self {
            origins: model.allow_origins.clone(),
            credentials: model.allow_credentials,
            methods: List::new(&model.allow_methods),
            headers: List::new(&model.allow_headers),
            expose: List::new(&model.expose_headers),
            max_age: value(model.max_age.as_secs().to_string().as_bytes())
                .unwrap_or_else(|| Value::from_static("5").to_owned()),
        }
    }

    /// Whether a request asks for permission rather than for a resource.
    pub(crate) fn is_preflight(head: &RequestHead) -> bool {
        head.method == Method::Options
            && head.headers.contains(Known::Origin)
            && head.headers.contains(Known::AccessControlRequestMethod)
    }

    /// The fields of the answer to a preflight; none for an origin that is not allowed.
    pub(crate) fn preflight(&self, head: &RequestHead) -> Headers {
        let mut headers = Headers::new();
        let Some(origin) = head.headers.only(Known::Origin).filter(|o| self.allows(o)) else {
            return headers;
        };
        self.add_origin(&mut headers, origin);
        let asked = |name| head.headers.only(name);
        self.methods.add(
            &mut headers,
            Known::AccessControlAllowMethods,
            self.credentials,
            asked(Known::AccessControlRequestMethod),
        );
        self.headers.add(
            &mut headers,
            Known::AccessControlAllowHeaders,
            self.credentials,
            asked(Known::AccessControlRequestHeaders),
        );
        self.expose
            .add(&mut headers, Known::AccessControlExposeHeaders, self.credentials, None);
        headers.append(Known::AccessControlMaxAge, self.max_age.as_value());
        headers
    }

    /// The value of Origin when an answer to this request must carry permission, or must be stripped of it.
    pub(crate) fn origin_of(head: &RequestHead) -> Option<OwnedValue> {
        head.headers.only(Known::Origin).and_then(value)
    }

    /// Makes an answer of a backend say what we allow, and nothing else.
    pub(crate) fn apply(&self, origin: &OwnedValue, headers: &mut Headers) {
        for known in OURS {
            headers.remove(known);
        }
        let origin = origin.as_value();
        if self.allows(origin.as_bytes()) {
            self.add_origin(headers, origin.as_bytes());
            self.expose
                .add(headers, Known::AccessControlExposeHeaders, self.credentials, None);
        }
    }

    fn add_origin(&self, headers: &mut Headers, origin: &[u8]) {
        let any = self.origins.contains(&CorsOrigin::Any);
        if any && !self.credentials {
            headers.append(Known::AccessControlAllowOrigin, Value::from_static("*"));
            return;
        }
        if let Ok(origin) = Value::new(origin) {
            headers.append(Known::AccessControlAllowOrigin, origin);
            if !headers.has_member(Known::Vary, "origin") && !headers.has_member(Known::Vary, "*") {
                headers.append(Name::from(Known::Vary), Value::from_static("Origin"));
            }
        }
        if self.credentials {
            headers.append(Known::AccessControlAllowCredentials, Value::from_static("true"));
        }
    }

    fn allows(&self, origin: &[u8]) -> bool {
        self.origins.iter().any(|allowed| match allowed {
            CorsOrigin::Any => true,
            CorsOrigin::Exact(text) => text.as_bytes().eq_ignore_ascii_case(origin),
            CorsOrigin::Wildcard { before, after } => {
                let (before, after) = (before.as_bytes(), after.as_bytes());
                // At least one character for `*`.
                origin.len() > before.len() + after.len()
                    && origin[..before.len()].eq_ignore_ascii_case(before)
                    && origin[origin.len() - after.len()..].eq_ignore_ascii_case(after)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;

    fn filter(credentials: bool, origins: Vec<CorsOrigin>, methods: &[&str]) -> Cors {
        let list = |items: &[&str]| items.iter().map(|item| Arc::from(*item)).collect();
        Cors::compile(&CorsFilter {
            allow_origins: origins,
            allow_credentials: credentials,
            allow_methods: list(methods),
            allow_headers: list(&["x-one", "x-two"]),
            expose_headers: list(&["x-seen"]),
            max_age: Duration::from_secs(600),
        })
    }

    fn request(method: Method, lines: &[(Known, &str)]) -> RequestHead {
        let mut head = RequestHead::new();
        head.method = method;
        for (name, text) in lines {
            head.headers.append(*name, Value::new(text.as_bytes()).unwrap());
        }
        head
    }

    const PREFLIGHT: &[(Known, &str)] = &[
        (Known::Origin, "https://www.example.com"),
        (Known::AccessControlRequestMethod, "PUT"),
        (Known::AccessControlRequestHeaders, "x-one, x-three"),
    ];

    #[test]
    fn a_preflight_needs_method_origin_and_requested_method() {
        assert!(Cors::is_preflight(&request(Method::Options, PREFLIGHT)));
        assert!(!Cors::is_preflight(&request(Method::Get, PREFLIGHT)));
        assert!(!Cors::is_preflight(&request(Method::Options, &PREFLIGHT[..1])));
        assert!(!Cors::is_preflight(&request(Method::Options, &PREFLIGHT[1..])));
    }

    #[test]
    fn an_allowed_origin_is_told_everything() {
        let origin = CorsOrigin::Exact("https://www.example.com".into());
        let answer = filter(true, vec![origin], &["GET", "PUT"]).preflight(&request(Method::Options, PREFLIGHT));
        for (name, expected) in [
            (Known::AccessControlAllowOrigin, "https://www.example.com"),
            (Known::AccessControlAllowCredentials, "true"),
            (Known::AccessControlAllowMethods, "GET, PUT"),
            (Known::AccessControlAllowHeaders, "x-one, x-two"),
            (Known::AccessControlExposeHeaders, "x-seen"),
            (Known::AccessControlMaxAge, "600"),
            (Known::Vary, "Origin"),
        ] {
            assert_eq!(answer.only(name), Some(expected.as_bytes()), "{}", name.as_str());
        }
    }

    #[test]
    fn a_star_is_said_only_without_credentials() {
        let head = request(Method::Options, PREFLIGHT);
        let open = filter(false, vec![CorsOrigin::Any], &["*"]).preflight(&head);
        assert_eq!(open.only(Known::AccessControlAllowOrigin), Some(&b"*"[..]));
        assert_eq!(open.only(Known::AccessControlAllowMethods), Some(&b"*"[..]));
        assert!(!open.contains(Known::AccessControlAllowCredentials));
        let trusted = filter(true, vec![CorsOrigin::Any], &["*"]).preflight(&head);
        assert_eq!(
            trusted.only(Known::AccessControlAllowOrigin),
            Some(&b"https://www.example.com"[..])
        );
        assert_eq!(trusted.only(Known::AccessControlAllowMethods), Some(&b"PUT"[..]));
    }

    #[test]
    fn wildcards_are_greedy_and_need_something() {
        let cors = filter(
            false,
            vec![CorsOrigin::Wildcard {
                before: "https://".into(),
                after: ".example.com".into(),
            }],
            &[],
        );
        for (origin, allowed) in [
            ("https://a.example.com", true),
            ("https://a.b.EXAMPLE.com", true),
            ("https://.example.com", false),
            ("https://example.com", false),
            ("http://a.example.com", false),
            ("https://a.example.com.evil", false),
            ("null", false),
        ] {
            assert_eq!(cors.allows(origin.as_bytes()), allowed, "{origin}");
        }
    }

    #[test]
    fn what_the_backend_says_is_replaced_not_doubled() {
        let cors = filter(false, vec![CorsOrigin::Exact("https://good".into())], &[]);
        for (origin, expected) in [("https://good", Some(&b"https://good"[..])), ("https://bad", None)] {
            let mut headers = Headers::new();
            headers.append(Known::AccessControlAllowOrigin, Value::from_static("*"));
            headers.append(Known::AccessControlAllowCredentials, Value::from_static("true"));
            cors.apply(&value(origin.as_bytes()).unwrap(), &mut headers);
            assert_eq!(headers.first(Known::AccessControlAllowOrigin), expected);
            assert_eq!(
                headers.all(Known::AccessControlAllowOrigin).count(),
                usize::from(expected.is_some())
            );
            assert!(!headers.contains(Known::AccessControlAllowCredentials));
        }
    }
}
