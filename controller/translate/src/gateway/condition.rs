//! Verdicts, and the conditions they become.

use pierhead_gateway_api::{Condition, ConditionStatus};
use pierhead_model::Origin;

use crate::Builder;

/// Why something is not as its author asked: a condition's reason (from the API's constants) and message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) reason: &'static str,
    pub(super) message: String,
    /// For the problem that goes with it.
    pub(super) fix: &'static str,
}

pub(super) type Verdict = Result<(), Fault>;

pub(super) fn fault(reason: &'static str, message: impl Into<String>, fix: &'static str) -> Fault {
    Fault {
        reason,
        message: message.into(),
        fix,
    }
}

/// The reason of conditions that are not decided yet: their status is Unknown.
pub(super) const PENDING: &str = "Pending";

/// A condition that is True with `reason`, or what the fault says: False, or Unknown while pending.
pub(super) fn condition(kind: &str, verdict: Result<&str, &Fault>, generation: Option<i64>) -> Condition {
    let (status, reason, message) = match verdict {
        Ok(reason) => (ConditionStatus::True, reason, ""),
        Err(fault) if fault.reason == PENDING => (ConditionStatus::Undecided, PENDING, fault.message.as_str()),
        Err(fault) => (ConditionStatus::False, fault.reason, fault.message.as_str()),
    };
    Condition {
        kind: kind.to_owned(),
        status,
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: generation,
        last_transition_time: None,
    }
}

/// A condition that is only ever True, and then bad news.
pub(super) fn alarm(kind: &str, fault: &Fault, generation: Option<i64>) -> Condition {
    Condition {
        kind: kind.to_owned(),
        status: ConditionStatus::True,
        reason: fault.reason.to_owned(),
        message: fault.message.clone(),
        observed_generation: generation,
        last_transition_time: None,
    }
}

/// Adds a fault unless there is one already: the first is what a condition says.
pub(super) fn add(verdict: &mut Verdict, fault: Fault) {
    if verdict.is_ok() {
        *verdict = Err(fault);
    }
}

impl Fault {
    pub(super) fn report(&self, builder: &mut Builder<'_>, origin: &Origin, field: impl Into<String>) {
        builder.error(origin, field, self.message.clone(), self.fix);
    }
}
