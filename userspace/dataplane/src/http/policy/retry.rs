//! When a request is tried again (HTTPRoute `rules[].retry`, GEP-1731).
//!
//! A backend that refused a connection or said that it did not begin (HTTP/2 `REFUSED_STREAM`) is always followed by another
//! try, as long as attempts remain; so is a listed code and a `backendRequest` timeout. A connection that broke after the
//! request was sent is not, unless the method is idempotent: a backend might do the work twice.

use std::time::Duration;

use pierhead_model::Retry;

/// What the specification leaves to us.
const BASE: Duration = Duration::from_millis(25);
const CAP: Duration = Duration::from_millis(250);

/// Without a policy: how often another endpoint is tried when one could not be connected to. Nothing was sent, so this is
/// always safe.
const UNASKED: u32 = 2;

/// Why an attempt brought no answer that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    /// The request was not sent, or the backend said that it did not begin.
    NotBegun,
    /// A pooled connection turned out dead, and sending again is safe. Not held against the backend.
    Stale,
    /// The per-attempt timeout.
    Timeout,
    /// The answer has this status.
    Status(u16),
    /// Something broke after the request was sent.
    Broken,
}

/// Whether to try again after `tried` attempts, and how long to wait. `others` says whether an endpoint is left that was
/// not tried. `random` is any number.
pub(crate) fn again(
    policy: Option<&Retry>,
    failed: Failed,
    tried: u32,
    others: bool,
    idempotent: bool,
    random: u64,
) -> Option<Duration> {
    let Some(policy) = policy else {
        let allowed = failed == Failed::NotBegun && others && tried <= UNASKED;
        return allowed.then_some(Duration::ZERO);
    };
    if tried > policy.attempts {
        return None;
    }
    let wanted = match failed {
        Failed::NotBegun | Failed::Stale | Failed::Timeout => true,
        Failed::Status(code) => policy.codes.binary_search(&code).is_ok(),
        Failed::Broken => idempotent,
    };
    wanted.then(|| backoff(policy, tried, random))
}

/// Exponential from the base, never less, with up to half of it added at random.
fn backoff(policy: &Retry, tried: u32, random: u64) -> Duration {
    let base = policy.backoff.unwrap_or(BASE);
    let cap = CAP.max(base);
    let doubled = base.saturating_mul(1 << (tried - 1).min(16)).min(cap);
    doubled + doubled.mul_f64((random >> 32) as f64 / f64::from(u32::MAX) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(attempts: u32, codes: &[u16]) -> Retry {
        Retry {
            attempts,
            codes: codes.to_vec(),
            backoff: None,
        }
    }

    #[test]
    fn only_listed_codes_are_tried_again_and_only_so_often() {
        let policy = policy(3, &[500, 502]);
        let again = |failed, tried| again(Some(&policy), failed, tried, false, true, 0).is_some();
        assert!(again(Failed::Status(500), 1) && again(Failed::Status(502), 3));
        assert!(!again(Failed::Status(500), 4));
        assert!(!again(Failed::Status(503), 1));
    }

    #[test]
    fn connection_errors_and_timeouts_need_no_codes() {
        let policy = policy(1, &[]);
        for failed in [Failed::NotBegun, Failed::Timeout, Failed::Stale] {
            assert!(again(Some(&policy), failed, 1, false, false, 0).is_some());
            assert!(again(Some(&policy), failed, 2, false, false, 0).is_none());
        }
    }

    #[test]
    fn zero_attempts_disable_every_retry() {
        let policy = policy(0, &[500]);
        for failed in [Failed::NotBegun, Failed::Status(500), Failed::Timeout] {
            assert!(again(Some(&policy), failed, 1, true, true, 0).is_none());
        }
    }

    #[test]
    fn what_may_have_been_processed_is_repeated_only_when_idempotent() {
        let policy = policy(1, &[500]);
        assert!(again(Some(&policy), Failed::Broken, 1, true, true, 0).is_some());
        assert!(again(Some(&policy), Failed::Broken, 1, true, false, 0).is_none());
        assert!(again(None, Failed::Broken, 1, true, true, 0).is_none());
    }

    #[test]
    fn without_a_policy_another_endpoint_is_tried_when_nothing_was_sent() {
        assert_eq!(again(None, Failed::NotBegun, 1, true, false, 0), Some(Duration::ZERO));
        assert_eq!(again(None, Failed::NotBegun, 1, false, false, 0), None);
        assert_eq!(again(None, Failed::NotBegun, 3, true, false, 0), None);
        assert_eq!(again(None, Failed::Status(503), 1, true, true, 0), None);
    }

    #[test]
    fn the_backoff_doubles_from_its_base_up_to_a_cap() {
        let policy = policy(100, &[]);
        assert_eq!(backoff(&policy, 1, 0), Duration::from_millis(25));
        assert_eq!(backoff(&policy, 2, 0), Duration::from_millis(50));
        assert_eq!(backoff(&policy, 60, 0), CAP);
        assert!(backoff(&policy, 1, u64::MAX) <= Duration::from_micros(37_500));
        let slow = Retry {
            backoff: Some(Duration::from_secs(1)),
            ..policy
        };
        assert_eq!(backoff(&slow, 5, 0), Duration::from_secs(1));
    }
}
