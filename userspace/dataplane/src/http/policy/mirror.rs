//! Which requests are mirrored (HTTPRoute `RequestMirror`).

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use pierhead_model::{MirrorFilter, MirrorFraction};

use crate::upstream::{Backend, Backends};

/// A further backend that gets copies.
#[derive(Debug)]
pub(crate) struct Mirror {
    model: MirrorFilter,
    /// `None`: not in the snapshot; nothing is mirrored, and the request itself does not care.
    pub(crate) backend: Option<Arc<Backend>>,
    fraction: MirrorFraction,
    seen: AtomicU64,
}

impl Mirror {
    pub(crate) fn compile(model: &MirrorFilter, backends: &Backends) -> Self {
        Self {
            model: model.clone(),
            backend: backends.find(&model.backend).cloned(),
            fraction: model.fraction,
            seen: AtomicU64::new(0),
        }
    }

    /// Whether compiling again with `backends` would give the same.
    pub(crate) fn is_current(&self, backends: &Backends) -> bool {
        match (&self.backend, backends.find(&self.model.backend)) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }

    /// Whether the next request is copied: exactly the fraction, evenly spread.
    pub(crate) fn is_due(&self) -> bool {
        let (numerator, denominator) = (
            u64::from(self.fraction.numerator),
            u64::from(self.fraction.denominator.max(1)),
        );
        let turn = self.seen.fetch_add(1, Ordering::Relaxed) % denominator;
        (turn + 1) * numerator / denominator > turn * numerator / denominator
    }
}

#[cfg(test)]
mod tests {
    use pierhead_model::BackendId;

    use super::*;

    #[test]
    fn exactly_the_fraction_is_mirrored_evenly() {
        for (numerator, denominator, of, expected) in [
            (1, 1, 7, 7),
            (0, 100, 200, 0),
            (20, 100, 500, 100),
            (1, 3, 9, 3),
            (1, 2, 4, 2),
        ] {
            let model = MirrorFilter {
                backend: BackendId::new("x"),
                fraction: MirrorFraction { numerator, denominator },
            };
            let mirror = Mirror::compile(&model, &Backends::default());
            assert_eq!((0..of).filter(|_| mirror.is_due()).count(), expected);
        }
    }
}
