//! Filters of HTTPRoute and GRPCRoute.

use std::time::Duration;

use pierhead_gateway_api::{
    ExternalAuthProtocol as ApiAuthProtocol, HTTPCORSFilter, HTTPExternalAuthFilter, HTTPHeader, HTTPHeaderFilter,
    HTTPPathModifier, HTTPPathModifierType, HTTPRequestMirrorFilter, HTTPRequestRedirectFilter, HTTPRouteFilter,
    HTTPRouteFilterType, HTTPURLRewriteFilter,
};
use pierhead_model::{
    CorsFilter, CorsOrigin, ExternalAuthFilter, ExternalAuthProtocol, Filter, HeaderModifier, HeaderName, HeaderValue,
    Hostname, MirrorFilter, MirrorFraction, PathRewrite, RedirectFilter, RedirectPort, RouteFlavor, UrlRewriteFilter,
};

use super::{
    backend::Backends,
    condition::{Fault, fault},
};
use crate::border::Carrier;

/// What a list of filters became. One that we cannot do stays as `Unsupported`: whoever it was to protect must not be
/// reached without it.
pub(super) struct Filters {
    pub(super) filters: Vec<Filter>,
    pub(super) fault: Option<Fault>,
}

pub(super) fn filters(
    backends: &mut Backends<'_, '_>,
    flavor: RouteFlavor,
    specs: &[HTTPRouteFilter],
    field: &str,
) -> Filters {
    let mut filters = Vec::new();
    let mut first = None;
    for (index, spec) in specs.iter().enumerate() {
        let field = format!("{field}[{index}]");
        match filter(backends, flavor, spec, &field) {
            Ok(Some(filter)) => filters.push(filter),
            Ok(None) => {}
            Err(fault) => {
                fault.report(backends.builder, &backends.origin, field);
                filters.push(Filter::Unsupported {
                    what: fault.message.as_str().into(),
                });
                first = first.or(Some(fault));
            }
        }
    }
    let has = |kind| specs.iter().any(|f| f.kind == kind);
    if has(HTTPRouteFilterType::RequestRedirect) && has(HTTPRouteFilterType::UrlRewrite) {
        let fault = fault(
            "IncompatibleFilters",
            "RequestRedirect and URLRewrite exclude each other",
            "remove one of the two",
        );
        fault.report(backends.builder, &backends.origin, field);
        filters.push(Filter::Unsupported {
            what: fault.message.as_str().into(),
        });
        first = first.or(Some(fault));
    }
    Filters { filters, fault: first }
}

fn unsupported(message: String) -> Fault {
    fault(
        "UnsupportedValue",
        message,
        "remove the filter, or use one that this version knows",
    )
}

/// `Ok(None)`: nothing to do, as for a mirror to a backend that does not exist.
fn filter(
    backends: &mut Backends<'_, '_>,
    flavor: RouteFlavor,
    spec: &HTTPRouteFilter,
    field: &str,
) -> Result<Option<Filter>, Fault> {
    let missing = || unsupported(format!("a filter of type {} has no content", spec.kind));
    let http = flavor == RouteFlavor::Http;
    Ok(Some(match &spec.kind {
        HTTPRouteFilterType::RequestHeaderModifier => {
            Filter::RequestHeaders(headers(spec.request_header_modifier.as_ref().ok_or_else(missing)?)?)
        }
        HTTPRouteFilterType::ResponseHeaderModifier => {
            Filter::ResponseHeaders(headers(spec.response_header_modifier.as_ref().ok_or_else(missing)?)?)
        }
        HTTPRouteFilterType::RequestMirror => {
            let mirror = spec.request_mirror.as_ref().ok_or_else(missing)?;
            return mirror_filter(backends, mirror, field);
        }
        HTTPRouteFilterType::RequestRedirect if http => {
            Filter::Redirect(redirect(spec.request_redirect.as_ref().ok_or_else(missing)?)?)
        }
        HTTPRouteFilterType::UrlRewrite if http => {
            Filter::UrlRewrite(rewrite(spec.url_rewrite.as_ref().ok_or_else(missing)?)?)
        }
        HTTPRouteFilterType::Cors if http => Filter::Cors(cors(spec.cors.as_ref().ok_or_else(missing)?)),
        HTTPRouteFilterType::ExternalAuth if http => {
            let auth = spec.external_auth.as_ref().ok_or_else(missing)?;
            external_auth(backends, auth, &format!("{field}.externalAuth"))?
        }
        HTTPRouteFilterType::ExtensionRef => {
            let name = spec.extension_ref.as_ref();
            return Err(unsupported(format!(
                "extensionRef to {} {} is not known",
                name.map_or("an object of an unknown kind", |r| r.kind.as_str()),
                name.map_or("", |r| r.name.as_str())
            )));
        }
        other => return Err(unsupported(format!("filter {other} is not supported"))),
    }))
}

fn headers(spec: &HTTPHeaderFilter) -> Result<HeaderModifier, Fault> {
    let bad = |why: pierhead_model::InvalidHeader| fault("UnsupportedValue", why.to_string(), "write a valid header");
    let list = |headers: &[HTTPHeader]| -> Result<Vec<(HeaderName, HeaderValue)>, Fault> {
        headers
            .iter()
            .map(|h| {
                Ok((
                    HeaderName::parse(&h.name).map_err(bad)?,
                    HeaderValue::parse(&h.value).map_err(bad)?,
                ))
            })
            .collect()
    };
    Ok(HeaderModifier {
        set: list(&spec.set)?,
        add: list(&spec.add)?,
        remove: spec
            .remove
            .iter()
            .map(|name| HeaderName::parse(name).map_err(bad))
            .collect::<Result<_, _>>()?,
    })
}

/// "If the referent cannot be found, the filter is not applied to the request, and ResolvedRefs is False": the main
/// request goes on.
fn mirror_filter(
    backends: &mut Backends<'_, '_>,
    spec: &HTTPRequestMirrorFilter,
    field: &str,
) -> Result<Option<Filter>, Fault> {
    let fraction = match (spec.percent, &spec.fraction) {
        (Some(percent), _) => MirrorFraction {
            numerator: percent,
            denominator: 100,
        },
        (None, Some(fraction)) if fraction.denominator == 0 => {
            return Err(unsupported("a mirror fraction has the denominator 0".to_owned()));
        }
        (None, Some(fraction)) => MirrorFraction {
            numerator: fraction.numerator,
            denominator: fraction.denominator,
        },
        (None, None) => MirrorFraction {
            numerator: 1,
            denominator: 1,
        },
    };
    let resolved = backends.resolve(&spec.backend_ref, &format!("{field}.requestMirror.backendRef"));
    Ok(resolved.fault.is_none().then_some(Filter::Mirror(MirrorFilter {
        backend: resolved.id,
        fraction,
    })))
}

fn hostname(text: &str) -> Result<Hostname, Fault> {
    Hostname::parse(text).map_err(|why| fault("UnsupportedValue", why.to_string(), "write a DNS name"))
}

fn redirect(spec: &HTTPRequestRedirectFilter) -> Result<RedirectFilter, Fault> {
    if let Some(scheme) = spec.scheme.as_deref()
        && !["http", "https"].contains(&scheme)
    {
        return Err(unsupported(format!("redirects to scheme {scheme} are not supported")));
    }
    if ![301, 302, 303, 307, 308].contains(&spec.status_code) {
        return Err(unsupported(format!(
            "redirects with code {} are not supported",
            spec.status_code
        )));
    }
    Ok(RedirectFilter {
        scheme: spec.scheme.as_deref().map(Into::into),
        host: spec.hostname.as_deref().map(hostname).transpose()?,
        port: spec.port.map_or(RedirectPort::Derived, RedirectPort::Explicit),
        path: spec.path.as_ref().map(path).transpose()?,
        status: spec.status_code,
    })
}

fn rewrite(spec: &HTTPURLRewriteFilter) -> Result<UrlRewriteFilter, Fault> {
    Ok(UrlRewriteFilter {
        host: spec.hostname.as_deref().map(hostname).transpose()?,
        path: spec.path.as_ref().map(path).transpose()?,
    })
}

fn path(spec: &HTTPPathModifier) -> Result<PathRewrite, Fault> {
    let text = match &spec.kind {
        HTTPPathModifierType::ReplaceFullPath => &spec.replace_full_path,
        HTTPPathModifierType::ReplacePrefixMatch => &spec.replace_prefix_match,
        HTTPPathModifierType::Unknown(kind) => {
            return Err(unsupported(format!("path modifier {kind} is not supported")));
        }
    };
    let text = text.as_deref().unwrap_or_default();
    if !text.bytes().all(|b| b.is_ascii_graphic()) || text.contains(['?', '#']) {
        return Err(unsupported(format!("{text:?} is no path")));
    }
    Ok(match spec.kind {
        HTTPPathModifierType::ReplaceFullPath => PathRewrite::Full(text.into()),
        _ => PathRewrite::Prefix(text.into()),
    })
}

fn cors(spec: &HTTPCORSFilter) -> CorsFilter {
    let texts = |list: &[String]| list.iter().map(|text| text.as_str().into()).collect();
    CorsFilter {
        allow_origins: spec.allow_origins.iter().map(|origin| cors_origin(origin)).collect(),
        allow_credentials: spec.allow_credentials.unwrap_or(false),
        allow_methods: texts(&spec.allow_methods),
        allow_headers: texts(&spec.allow_headers),
        expose_headers: texts(&spec.expose_headers),
        max_age: Duration::from_secs(spec.max_age.into()),
    }
}

fn cors_origin(text: &str) -> CorsOrigin {
    if text == "*" {
        return CorsOrigin::Any;
    }
    match text.split_once("://*") {
        Some((scheme, after)) => CorsOrigin::Wildcard {
            before: format!("{scheme}://").into(),
            after: after.into(),
        },
        None => CorsOrigin::Exact(text.into()),
    }
}

/// A backend that does not resolve stays in the filter: nothing may pass without it.
pub(super) fn external_auth(
    backends: &mut Backends<'_, '_>,
    spec: &HTTPExternalAuthFilter,
    field: &str,
) -> Result<Filter, Fault> {
    let protocol = external_auth_protocol(spec)?;
    let carrier = match protocol {
        ExternalAuthProtocol::Http { .. } => Carrier::Http,
        ExternalAuthProtocol::Grpc { .. } => Carrier::Grpc,
    };
    let wanted = spec.forward_body.as_ref().map_or(0, |body| body.max_size);
    if wanted > ExternalAuthFilter::MAX_BODY_BYTES {
        backends.builder.warning(
            &backends.origin,
            format!("{field}.forwardBody.maxSize"),
            format!(
                "bodies of more than {} bytes are refused: they are held in memory",
                ExternalAuthFilter::MAX_BODY_BYTES
            ),
            "lower maxSize",
        );
    }
    let resolved = backends.resolve_as(&spec.backend_ref, carrier, &format!("{field}.backendRef"));
    Ok(Filter::ExternalAuth(ExternalAuthFilter {
        backend: resolved.id,
        protocol,
        body_bytes: wanted.min(ExternalAuthFilter::MAX_BODY_BYTES),
    }))
}

/// What can be said of the filter without looking for its backend.
pub(super) fn external_auth_protocol(spec: &HTTPExternalAuthFilter) -> Result<ExternalAuthProtocol, Fault> {
    let names = |list: &[String]| -> Result<Vec<HeaderName>, Fault> {
        let parse = |name: &String| {
            HeaderName::parse(name)
                .map_err(|why| fault("UnsupportedValue", why.to_string(), "write the name of a header"))
        };
        list.iter().map(parse).collect()
    };
    Ok(match &spec.protocol {
        ApiAuthProtocol::Http => {
            let http = spec.http.clone().unwrap_or_default();
            ExternalAuthProtocol::Http {
                path_prefix: path_prefix(&http.path)?.into(),
                request_headers: names(&http.allowed_headers)?,
                response_headers: names(&http.allowed_response_headers)?,
            }
        }
        ApiAuthProtocol::Grpc => ExternalAuthProtocol::Grpc {
            request_headers: names(&spec.grpc.clone().unwrap_or_default().allowed_headers)?,
        },
        ApiAuthProtocol::Unknown(protocol) => {
            return Err(unsupported(format!("authorization over {protocol} is not supported")));
        }
    })
}

/// "Implementations MUST sanitize this input": the rules for path values of matches, which exclude anything that could
/// lead out of the prefix.
fn path_prefix(text: &str) -> Result<String, Fault> {
    let path = text.trim_matches('/');
    if path.is_empty() {
        return Ok(String::new());
    }
    let clean = |segment: &str| {
        let lower = segment.to_ascii_lowercase();
        let dots = lower.replace("%2e", ".");
        !segment.is_empty() && dots != "." && dots != ".." && !lower.contains("%2f") && !lower.contains("%00")
    };
    let plain = path.bytes().all(|b| b.is_ascii_graphic()) && !path.contains(['?', '#']);
    if !plain || !path.split('/').all(clean) {
        return Err(unsupported(format!("{text:?} is no path prefix")));
    }
    Ok(format!("/{path}"))
}
