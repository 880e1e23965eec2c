//! How much a peer may make us do for nothing.

/// Tokens: spent on what carries nothing, earned back by work and by time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    left: u32,
    most: u32,
    per_second: u32,
}

impl Budget {
    pub(crate) const fn new(most: u32, per_second: u32) -> Self {
        Self {
            left: most,
            most,
            per_second,
        }
    }

    /// Whether there was one left.
    #[must_use]
    pub(crate) const fn spend(&mut self) -> bool {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    pub(crate) const fn earn(&mut self, count: u32) {
        let left = self.left.saturating_add(count);
        self.left = if left < self.most { left } else { self.most };
    }

    pub(crate) const fn pass(&mut self, seconds: u32) {
        self.earn(self.per_second.saturating_mul(seconds));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_comes_back_with_work_and_time_but_never_beyond_the_most() {
        let mut budget = Budget::new(2, 1);
        assert!(budget.spend() && budget.spend() && !budget.spend());
        budget.earn(1);
        assert!(budget.spend() && !budget.spend());
        budget.pass(1000);
        assert!(budget.spend() && budget.spend() && !budget.spend());
    }
}
