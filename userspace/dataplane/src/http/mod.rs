//! HTTP/1 and HTTP/2 on accepted connections: the pipeline from a request to its answer.

use std::sync::Arc;

use pierhead_model::HttpRoute;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{conn::Conn, upstream::Backends};

/// What the pipeline keeps per route: backends by weight, filters, metric cells. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct RouteHandle(Arc<RouteHandleInner>);

#[derive(Debug)]
struct RouteHandleInner {}

impl PartialEq for RouteHandle {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl RouteHandle {
    pub(crate) fn compile(_route: &Arc<HttpRoute>, _backends: &Backends) -> Self {
        Self(Arc::new(RouteHandleInner {}))
    }

    /// Whether compiling again with `backends` would give the same.
    pub(crate) fn is_current(&self, _backends: &Backends) -> bool {
        true
    }
}

/// Serves one connection to its end.
pub(crate) async fn serve<S>(_io: S, _conn: Conn)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    std::future::ready(()).await;
}
