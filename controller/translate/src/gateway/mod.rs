//! The Gateway API: attachment, grants, status.

use crate::{Builder, Refused};

/// What is left to say once shared binds are settled.
pub(crate) struct Pending;

/// Claims binds and adds routes for every Gateway that is ours.
pub(crate) fn translate(_builder: &mut Builder<'_>) -> Pending {
    Pending
}

/// Writes statuses, now that it is known who has which bind.
pub(crate) fn conclude(_builder: &mut Builder<'_>, _pending: Pending, _refused: &Refused) {}
