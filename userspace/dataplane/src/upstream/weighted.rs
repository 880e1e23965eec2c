use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use pierhead_model::{BackendId, WeightedBackend};

use super::{Backend, Backends};

/// Backends with their shares. Picks are exact over any full round, and evenly mixed within it; all workers share the
/// round, so the shares hold for the node and not only per worker.
#[derive(Debug)]
pub(crate) struct Weighted {
    /// Shares cumulated, ascending; entries without a share are left out.
    entries: Box<[Entry]>,
    total: u64,
    /// Coprime with `total`, near `total` divided by the golden ratio: visits every position once per round, and
    /// neighbours are far apart.
    stride: u64,
    turn: AtomicU64,
}

#[derive(Debug)]
struct Entry {
    end: u64,
    /// Index into what it was compiled from.
    number: usize,
    /// `None` when the snapshot does not hold it, which is treated like an invalid one.
    backend: Option<Arc<Backend>>,
    id: BackendId,
}

/// What a turn fell on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Picked<'a> {
    /// Index into the `WeightedBackend`s, for filters of the reference.
    pub(crate) number: usize,
    pub(crate) id: &'a BackendId,
    pub(crate) backend: Option<&'a Arc<Backend>>,
}

impl Weighted {
    pub(crate) fn compile(shares: &[WeightedBackend], backends: &Backends) -> Self {
        let mut end = 0;
        let mut entries = Vec::new();
        for (number, share) in shares.iter().enumerate().filter(|(_, share)| share.weight > 0) {
            end += u64::from(share.weight);
            entries.push(Entry {
                end,
                number,
                backend: backends.find(&share.backend).cloned(),
                id: share.backend.clone(),
            });
        }
        Self {
            entries: entries.into(),
            total: end,
            stride: stride(end),
            turn: AtomicU64::new(0),
        }
    }

    /// Whether compiling again with `backends` would give the same.
    pub(crate) fn is_current(&self, backends: &Backends) -> bool {
        self.entries
            .iter()
            .all(|entry| match (&entry.backend, backends.find(&entry.id)) {
                (Some(old), Some(new)) => Arc::ptr_eq(old, new),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            })
    }

    /// The next backend by share; `None` when nothing has a share.
    pub(crate) fn pick(&self) -> Option<Picked<'_>> {
        let entry = if self.entries.len() < 2 {
            self.entries.first()?
        } else {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.total;
            let position = match turn.checked_mul(self.stride) {
                Some(product) => product % self.total,
                // Below 2^64 each, so the product fits; the rest is below `total`.
                None => (u128::from(turn) * u128::from(self.stride) % u128::from(self.total)) as u64,
            };
            let found = self.entries.partition_point(|entry| entry.end <= position);
            self.entries.get(found)?
        };
        Some(Picked {
            number: entry.number,
            id: &entry.id,
            backend: entry.backend.as_ref(),
        })
    }
}

fn stride(total: u64) -> u64 {
    let golden = u64::try_from(u128::from(total) * 618_034 / 1_000_000)
        .unwrap_or(1)
        .max(1);
    (golden..=total)
        .find(|candidate| gcd(*candidate, total) == 1)
        .unwrap_or(1)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(weights: &[u32]) -> Weighted {
        let shares: Vec<_> = weights
            .iter()
            .enumerate()
            .map(|(number, weight)| WeightedBackend {
                backend: BackendId::new(&number.to_string()),
                weight: *weight,
                filters: Vec::new(),
            })
            .collect();
        Weighted::compile(&shares, &Backends::default())
    }

    #[test]
    fn shares_are_exact_over_a_round_and_mixed_within_it() {
        for weights in [&[1, 1][..], &[70, 30], &[1, 0, 99], &[3, 5, 7], &[1_000_000, 1]] {
            let weighted = shares(weights);
            let total: u32 = weights.iter().sum();
            let mut counts = vec![0_u32; weights.len()];
            for _ in 0..total {
                counts[weighted.pick().unwrap().number] += 1;
            }
            assert_eq!(counts, weights);
        }
        let weighted = shares(&[50, 50]);
        let first_ten = (0..10).filter(|_| weighted.pick().unwrap().number == 0).count();
        assert!((4..=6).contains(&first_ten), "{first_ten}");
    }

    #[test]
    fn without_a_share_nothing_is_picked() {
        assert!(shares(&[]).pick().is_none());
        assert!(shares(&[0, 0]).pick().is_none());
    }
}
