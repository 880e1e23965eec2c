//! GRPCRoute: a method is a path, `/service/method`.

use pierhead_gateway_api::{GRPCMethodMatch, GRPCRoute, GRPCRouteMatch, MatchType};
use pierhead_model::{HttpMatch, HttpRule, PathMatch, RouteFlavor, Timeouts};

use super::{
    backend::Backends,
    condition::Fault,
    http::{headers, ignored, pattern, unsupported},
    route::{HttpKind, parts},
};
use crate::border::Carrier;

impl HttpKind for GRPCRoute {
    const FLAVOR: RouteFlavor = RouteFlavor::Grpc;
    const CARRIER: Carrier = Carrier::Grpc;

    fn rules(&self) -> usize {
        self.spec.rules.len()
    }

    fn rule(&self, index: usize, backends: &mut Backends<'_, '_>) -> Result<(HttpRule, Option<Fault>), Fault> {
        let spec = &self.spec.rules[index];
        let default = [GRPCRouteMatch::default()];
        let matches = if spec.matches.is_empty() {
            &default[..]
        } else {
            &spec.matches
        };
        let matches = matches.iter().map(grpc_match).collect::<Result<_, _>>()?;
        let (filters, weighted, fault) = parts::<Self>(backends, index, &spec.filters, &spec.backend_refs);
        let rule = HttpRule {
            name: spec.name.as_deref().map(Into::into),
            hosts: None,
            matches,
            filters,
            backends: weighted,
            timeouts: Timeouts::default(),
            retry: None,
            fallback: false,
        };
        Ok((rule, fault))
    }

    fn ignored(&self) -> Vec<(String, &'static str)> {
        let sessions = self.spec.rules.iter().map(|r| r.session_persistence.is_some());
        ignored(self.spec.use_default_gateways.is_some(), sessions)
    }
}

fn grpc_match(spec: &GRPCRouteMatch) -> Result<HttpMatch, Fault> {
    Ok(HttpMatch {
        path: match &spec.method {
            Some(method) => path(method)?,
            None => PathMatch::Prefix("/".into()),
        },
        method: None,
        headers: headers(&spec.headers)?,
        query: Vec::new(),
    })
}

fn path(spec: &GRPCMethodMatch) -> Result<PathMatch, Fault> {
    let service = spec.service.as_deref().filter(|s| !s.is_empty());
    let method = spec.method.as_deref().filter(|m| !m.is_empty());
    match &spec.kind {
        MatchType::Exact => {
            if let Some(text) = [service, method].into_iter().flatten().find(|t| t.contains('/')) {
                return Err(unsupported(format!("{text:?} holds a /")));
            }
            Ok(match (service, method) {
                (Some(service), Some(method)) => PathMatch::Exact(format!("/{service}/{method}").into()),
                (Some(service), None) => PathMatch::Prefix(format!("/{service}").into()),
                (None, Some(method)) => PathMatch::GrpcMethod(method.into()),
                (None, None) => PathMatch::Prefix("/".into()),
            })
        }
        MatchType::RegularExpression => {
            let part = |text: Option<&str>| text.map_or_else(|| "[^/]+".to_owned(), |t| format!("(?:{t})"));
            // Each has to be one of its own: `a)|(b` would change what the other means.
            for text in [service, method].into_iter().flatten() {
                pattern(text)?;
            }
            Ok(PathMatch::Regex(pattern(&format!(
                "/{}/{}",
                part(service),
                part(method)
            ))?))
        }
        MatchType::Unknown(kind) => Err(unsupported(format!("method match {kind} is not supported"))),
    }
}
