//! Routes as the pipeline executes them: filters sorted by what they act on, backends resolved.

use std::sync::Arc;

use pierhead_model::{Filter, HttpRoute, RedirectFilter, Retry, Timeouts, UrlRewriteFilter};

use super::policy::{cors::Cors, headers::Modifier, mirror::Mirror};
use crate::upstream::{Backends, Weighted};

/// What the pipeline keeps per route. Cheap to clone; equal only to itself.
#[derive(Clone, Debug)]
pub(crate) struct RouteHandle(Arc<CompiledRoute>);

#[derive(Debug)]
struct CompiledRoute {
    rules: Box<[Rule]>,
}

/// One rule of a route.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) filters: Filters,
    pub(crate) backends: Weighted,
    /// Filters of the backend references, by their number.
    pub(crate) of_backend: Box<[Filters]>,
    pub(crate) timeouts: Timeouts,
    pub(crate) retry: Option<Retry>,
}

/// The filters of a rule or of a backend reference.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    /// A filter that is not understood: 500, never skipped.
    pub(crate) unsupported: bool,
    pub(crate) cors: Option<Cors>,
    pub(crate) redirect: Option<RedirectFilter>,
    pub(crate) request: Vec<Modifier>,
    pub(crate) rewrite: Option<UrlRewriteFilter>,
    pub(crate) mirrors: Vec<Mirror>,
    pub(crate) response: Vec<Modifier>,
}

impl Filters {
    fn compile(models: &[Filter], backends: &Backends) -> Self {
        let mut filters = Self::default();
        for model in models {
            match model {
                Filter::RequestHeaders(modifier) => filters.request.push(Modifier::compile(modifier)),
                Filter::ResponseHeaders(modifier) => filters.response.push(Modifier::compile(modifier)),
                Filter::Redirect(redirect) => filters.redirect = Some(redirect.clone()),
                Filter::UrlRewrite(rewrite) => filters.rewrite = Some(rewrite.clone()),
                Filter::Mirror(mirror) => filters.mirrors.push(Mirror::compile(mirror, backends)),
                Filter::Cors(cors) => filters.cors = Some(Cors::compile(cors)),
                Filter::Unsupported { .. } => filters.unsupported = true,
            }
        }
        filters
    }

    fn is_current(&self, backends: &Backends) -> bool {
        self.mirrors.iter().all(|mirror| mirror.is_current(backends))
    }
}

impl RouteHandle {
    pub(crate) fn compile(route: &Arc<HttpRoute>, backends: &Backends) -> Self {
        let rules = route.rules.iter().map(|rule| Rule {
            filters: Filters::compile(&rule.filters, backends),
            backends: Weighted::compile(&rule.backends, backends),
            of_backend: rule
                .backends
                .iter()
                .map(|share| Filters::compile(&share.filters, backends))
                .collect(),
            timeouts: rule.timeouts,
            retry: rule.retry.clone(),
        });
        Self(Arc::new(CompiledRoute { rules: rules.collect() }))
    }

    /// Whether compiling again with `backends` would give the same.
    pub(crate) fn is_current(&self, backends: &Backends) -> bool {
        self.0.rules.iter().all(|rule| {
            rule.backends.is_current(backends)
                && rule.filters.is_current(backends)
                && rule.of_backend.iter().all(|filters| filters.is_current(backends))
        })
    }

    pub(crate) fn rule(&self, number: usize) -> Option<&Rule> {
        self.0.rules.get(number)
    }
}

impl PartialEq for RouteHandle {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
