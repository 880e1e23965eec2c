//! Routes as the pipeline executes them: filters sorted by what they act on, backends resolved.

use std::{ops::Deref, sync::Arc};

use pierhead_model::{Filter, HttpRoute, HttpRule, RedirectFilter, Retry, Timeouts, UrlRewriteFilter};

use super::policy::{cors::Cors, external_auth::ExternalAuth, headers::Modifier, mirror::Mirror};
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
    pub(crate) filters: MaybeFilters,
    pub(crate) backends: Weighted,
    /// Filters of the backend references, by their number; empty where none has any.
    of_backend: Box<[MaybeFilters]>,
    pub(crate) timeouts: Timeouts,
    pub(crate) retry: Option<Box<Retry>>,
}

/// Filters where there mostly are none: a route is held many thousand times, so what it does not have takes no room.
#[derive(Debug)]
pub(crate) struct MaybeFilters(Option<Box<Filters>>);

static NONE: Filters = Filters {
    unsupported: false,
    cors: None,
    steps: Vec::new(),
    mirrors: Vec::new(),
    response: Vec::new(),
};

impl MaybeFilters {
    fn compile(models: &[Filter], backends: &Backends) -> Self {
        Self((!models.is_empty()).then(|| Box::new(Filters::compile(models, backends))))
    }
}

impl Deref for MaybeFilters {
    type Target = Filters;

    fn deref(&self) -> &Filters {
        self.0.as_deref().unwrap_or(&NONE)
    }
}

impl Rule {
    fn compile(rule: &HttpRule, backends: &Backends) -> Self {
        let bare = rule.backends.iter().all(|share| share.filters.is_empty());
        let shares = if bare { &[][..] } else { &rule.backends };
        Self {
            filters: MaybeFilters::compile(&rule.filters, backends),
            backends: Weighted::compile(&rule.backends, backends),
            of_backend: shares
                .iter()
                .map(|share| MaybeFilters::compile(&share.filters, backends))
                .collect(),
            timeouts: rule.timeouts,
            retry: rule.retry.clone().map(Box::new),
        }
    }

    /// Filters of the backend reference of this number.
    pub(crate) fn of_backend(&self, number: usize) -> &Filters {
        self.of_backend.get(number).map_or(&NONE, Deref::deref)
    }
}

/// The filters of a rule, of a backend reference, or of a listener.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    /// A filter that is not understood: 500, never skipped.
    pub(crate) unsupported: bool,
    pub(crate) cors: Option<Box<Cors>>,
    /// What changes or answers a request, in the order of the configuration.
    pub(crate) steps: Vec<Step>,
    pub(crate) mirrors: Vec<Mirror>,
    pub(crate) response: Vec<Modifier>,
}

/// One thing done to a request.
#[derive(Debug)]
pub(crate) enum Step {
    Modify(Modifier),
    Rewrite(UrlRewriteFilter),
    Redirect(RedirectFilter),
    Authorize(Box<ExternalAuth>),
}

impl Filters {
    /// Whether there is nothing to do to a request.
    pub(crate) fn leave_requests(&self) -> bool {
        !self.unsupported && self.cors.is_none() && self.steps.is_empty()
    }

    pub(crate) fn compile(models: &[Filter], backends: &Backends) -> Self {
        let mut filters = Self::default();
        for model in models {
            match model {
                Filter::RequestHeaders(modifier) => filters.steps.push(Step::Modify(Modifier::compile(modifier))),
                Filter::ResponseHeaders(modifier) => filters.response.push(Modifier::compile(modifier)),
                Filter::Redirect(redirect) => filters.steps.push(Step::Redirect(redirect.clone())),
                Filter::UrlRewrite(rewrite) => filters.steps.push(Step::Rewrite(rewrite.clone())),
                Filter::Mirror(mirror) => filters.mirrors.push(Mirror::compile(mirror, backends)),
                Filter::Cors(cors) => filters.cors = Some(Box::new(Cors::compile(cors))),
                Filter::ExternalAuth(auth) => {
                    let auth = Box::new(ExternalAuth::compile(auth, backends));
                    filters.steps.push(Step::Authorize(auth));
                }
                Filter::Unsupported { .. } => filters.unsupported = true,
            }
        }
        // Most often one thing of one kind, and as often as there are routes.
        filters.steps.shrink_to_fit();
        filters.mirrors.shrink_to_fit();
        filters.response.shrink_to_fit();
        filters
    }

    /// Whether compiling again with `backends` would give the same.
    pub(crate) fn is_current(&self, backends: &Backends) -> bool {
        let current = |step: &Step| match step {
            Step::Authorize(auth) => auth.is_current(backends),
            Step::Modify(_) | Step::Rewrite(_) | Step::Redirect(_) => true,
        };
        self.mirrors.iter().all(|mirror| mirror.is_current(backends)) && self.steps.iter().all(current)
    }
}

impl RouteHandle {
    pub(crate) fn compile(route: &Arc<HttpRoute>, backends: &Backends) -> Self {
        let rules = route.rules.iter().map(|rule| Rule::compile(rule, backends));
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
