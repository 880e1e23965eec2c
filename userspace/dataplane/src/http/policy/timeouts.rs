//! Deadlines of an exchange and of its attempts (HTTPRoute `rules[].timeouts`, GEP-1742).

use pierhead_model::Timeouts;
use tokio::time::Instant;

/// `timeouts.request`: from when we began to work on the request to the last byte of the answer, retries included.
pub(crate) fn of_exchange(timeouts: &Timeouts, began: Instant) -> Option<Instant> {
    timeouts.request.map(|limit| began + limit)
}

/// `timeouts.backendRequest`: one attempt.
pub(crate) fn of_attempt(timeouts: &Timeouts) -> Option<Instant> {
    timeouts.backend_request.map(|limit| Instant::now() + limit)
}
