//! HTTPRoute: matches, timeouts and retries.

use std::time::Duration;

use pierhead_gateway_api::{
    HTTPHeaderMatch, HTTPRoute, HTTPRouteMatch, HTTPRouteRetry, HTTPRouteTimeouts, MatchType, PathMatchType,
};
use pierhead_model::{
    HeaderMatch, HeaderName, HttpMatch, HttpRule, Method, PathMatch, Pattern, QueryMatch, Retry, RouteFlavor, Timeouts,
    ValueMatch, intern,
};

use super::{
    backend::Backends,
    condition::{Fault, fault},
    route::{HttpKind, parts},
};
use crate::border::Carrier;

impl HttpKind for HTTPRoute {
    const FLAVOR: RouteFlavor = RouteFlavor::Http;
    const CARRIER: Carrier = Carrier::Http;

    fn rules(&self) -> usize {
        self.spec.rules.len()
    }

    fn rule(&self, index: usize, backends: &mut Backends<'_, '_>) -> Result<(HttpRule, Option<Fault>), Fault> {
        let spec = &self.spec.rules[index];
        let default = [HTTPRouteMatch::default()];
        let matches = if spec.matches.is_empty() {
            &default[..]
        } else {
            &spec.matches
        };
        let matches = matches.iter().map(http_match).collect::<Result<_, _>>()?;
        let timeouts = spec.timeouts.as_ref().map(timeouts).transpose()?.unwrap_or_default();
        let retry = spec.retry.as_ref().map(retry).transpose()?;
        let (filters, weighted, fault) = parts::<Self>(backends, index, &spec.filters, &spec.backend_refs);
        let rule = HttpRule {
            name: spec.name.as_deref().map(Into::into),
            hosts: None,
            matches,
            filters,
            backends: weighted,
            timeouts,
            retry,
            fallback: false,
        };
        Ok((rule, fault))
    }

    fn ignored(&self) -> Vec<(String, &'static str)> {
        let sessions = self.spec.rules.iter().map(|r| r.session_persistence.is_some());
        ignored(self.spec.use_default_gateways.is_some(), sessions)
    }
}

pub(super) fn ignored(default: bool, sessions: impl Iterator<Item = bool>) -> Vec<(String, &'static str)> {
    let mut fields = Vec::new();
    if default {
        fields.push((
            "spec.useDefaultGateways".to_owned(),
            "default Gateways (GEP-3793, experimental) are not supported",
        ));
    }
    for (index, _) in sessions.enumerate().filter(|(_, set)| *set) {
        fields.push((
            format!("spec.rules[{index}].sessionPersistence"),
            "session persistence (GEP-1619, experimental) is not supported",
        ));
    }
    fields
}

pub(super) fn unsupported(message: String) -> Fault {
    fault("UnsupportedValue", message, "use a value that this version knows")
}

fn http_match(spec: &HTTPRouteMatch) -> Result<HttpMatch, Fault> {
    let value = spec.path.value.as_str();
    let rooted = || {
        if value.starts_with('/') {
            Ok(intern(value))
        } else {
            Err(unsupported(format!("path {value:?} does not start with /")))
        }
    };
    let path = match &spec.path.kind {
        PathMatchType::Exact => PathMatch::Exact(rooted()?),
        PathMatchType::PathPrefix => PathMatch::Prefix(rooted()?),
        PathMatchType::RegularExpression => PathMatch::Regex(pattern(value)?),
        PathMatchType::Unknown(kind) => return Err(unsupported(format!("path match {kind} is not supported"))),
    };
    let method = spec
        .method
        .as_deref()
        .map(|m| Method::parse(m).map_err(|why| unsupported(why.to_string())))
        .transpose()?;
    let mut query: Vec<QueryMatch> = Vec::new();
    for spec in &spec.query_params {
        if !query.iter().any(|known| *known.name == *spec.name) {
            query.push(QueryMatch {
                name: spec.name.as_str().into(),
                value: value_match(&spec.kind, &spec.value)?,
            });
        }
    }
    Ok(HttpMatch {
        path,
        method,
        headers: headers(&spec.headers)?,
        query,
    })
}

/// "If multiple entries specify equivalent header names, only the first entry with an equivalent name MUST be
/// considered."
pub(super) fn headers(specs: &[HTTPHeaderMatch]) -> Result<Vec<HeaderMatch>, Fault> {
    let mut headers: Vec<HeaderMatch> = Vec::new();
    for spec in specs {
        let name = HeaderName::parse(&spec.name).map_err(|why| unsupported(why.to_string()))?;
        if !headers.iter().any(|known| known.name == name) {
            headers.push(HeaderMatch {
                name,
                value: value_match(&spec.kind, &spec.value)?,
            });
        }
    }
    Ok(headers)
}

fn value_match(kind: &MatchType, value: &str) -> Result<ValueMatch, Fault> {
    match kind {
        MatchType::Exact => Ok(ValueMatch::Exact(value.into())),
        MatchType::RegularExpression => pattern(value).map(ValueMatch::Regex),
        MatchType::Unknown(kind) => Err(unsupported(format!("match {kind} is not supported"))),
    }
}

/// A regular expression that the data plane's engine takes (GEP-4359: ASCII classes, no look-around, no
/// back-references).
pub(super) fn pattern(source: &str) -> Result<Pattern, Fault> {
    // Alone first: what closes a group it did not open would mean something else inside another.
    let alone = regex::bytes::RegexBuilder::new(source).unicode(false).build();
    let ascii = format!("(?-u:{source})");
    match alone.and_then(|_| regex::bytes::Regex::new(&format!("^(?:{ascii})$"))) {
        Ok(_) => Ok(Pattern::new_checked(&ascii)),
        Err(why) => {
            let why = why.to_string();
            let reason = why.lines().last().unwrap_or_default().trim_start_matches("error: ");
            Err(unsupported(format!("{source:?} is no regular expression: {reason}")))
        }
    }
}

fn duration(text: &pierhead_gateway_api::Duration) -> Result<Duration, Fault> {
    text.parse().map_err(|why| unsupported(why.to_string()))
}

/// "A zero-valued duration disables the timeout."
fn timeouts(spec: &HTTPRouteTimeouts) -> Result<Timeouts, Fault> {
    let one = |text: &Option<pierhead_gateway_api::Duration>| -> Result<Option<Duration>, Fault> {
        Ok(text.as_ref().map(duration).transpose()?.filter(|d| !d.is_zero()))
    };
    Ok(Timeouts {
        request: one(&spec.request)?,
        backend_request: one(&spec.backend_request)?,
    })
}

fn retry(spec: &HTTPRouteRetry) -> Result<Retry, Fault> {
    let mut codes = spec.codes.clone();
    codes.sort_unstable();
    codes.dedup();
    if let Some(code) = codes.iter().find(|code| !(400..600).contains(*code)) {
        return Err(unsupported(format!("code {code} is never retried: use 400 to 599")));
    }
    Ok(Retry {
        attempts: spec.attempts,
        codes,
        backoff: spec.backoff.as_ref().map(duration).transpose()?,
    })
}
