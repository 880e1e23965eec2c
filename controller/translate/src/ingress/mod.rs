//! Ingress and IngressClass.

use crate::{Builder, Refused};

/// What is left to say once shared binds are settled.
pub(crate) struct Pending;

pub(crate) fn translate(_builder: &mut Builder<'_>) -> Pending {
    Pending
}

pub(crate) fn conclude(_builder: &mut Builder<'_>, _pending: Pending, _refused: &Refused) {}
