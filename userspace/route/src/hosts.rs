use pierhead_model::{HostPattern, WildcardDepth};

use crate::names::Names;

/// Values by host pattern; finds those whose pattern matches a host, the most specific first.
///
/// Used for listeners (by SNI or Host), certificates (by SNI) and rules (by Host). One value per pattern. Clones share what did
/// not change.
#[derive(Clone, Debug)]
pub struct HostMap<V> {
    exact: Names<V>,
    /// By suffix, without the leading `*.`.
    wildcard: Names<ByDepth<V>>,
    any: Option<V>,
}

#[derive(Clone, Debug)]
struct ByDepth<V> {
    one: Option<V>,
    many: Option<V>,
}

impl<V> ByDepth<V> {
    fn of(&mut self, depth: WildcardDepth) -> &mut Option<V> {
        match depth {
            WildcardDepth::One => &mut self.one,
            WildcardDepth::Many => &mut self.many,
        }
    }
}

impl<V> Default for HostMap<V> {
    fn default() -> Self {
        Self {
            exact: Names::default(),
            wildcard: Names::default(),
            any: None,
        }
    }
}

impl<V> HostMap<V> {
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.wildcard.is_empty() && self.any.is_none()
    }

    /// Number of patterns.
    pub fn len(&self) -> usize {
        let wildcards: usize = self
            .wildcard
            .values()
            .map(|w| usize::from(w.one.is_some()) + usize::from(w.many.is_some()))
            .sum();
        self.exact.len() + wildcards + usize::from(self.any.is_some())
    }

    /// The value of exactly this pattern.
    pub fn get(&self, pattern: &HostPattern) -> Option<&V> {
        match pattern {
            HostPattern::Any => self.any.as_ref(),
            HostPattern::Exact(name) => self.exact.get(name.as_str()),
            HostPattern::Wildcard { suffix, depth } => {
                let by_depth = self.wildcard.get(suffix.as_str())?;
                match depth {
                    WildcardDepth::One => by_depth.one.as_ref(),
                    WildcardDepth::Many => by_depth.many.as_ref(),
                }
            }
        }
    }

    /// The value of the most specific pattern that matches `host` (lower case, no port, no trailing dot).
    pub fn best(&self, host: &str) -> Option<&V> {
        self.matching(host).next()
    }

    /// All values whose pattern matches `host`: exact, then wildcards from the longest suffix on, then any.
    pub fn matching<'a, 'h>(&'a self, host: &'h str) -> impl Iterator<Item = &'a V> + use<'a, 'h, V> {
        let wildcards = (!self.wildcard.is_empty())
            .then(|| suffixes(host))
            .into_iter()
            .flatten()
            .flat_map(move |(suffix, first)| {
                self.wildcard
                    .get(suffix)
                    .into_iter()
                    .flat_map(move |w| w.one.as_ref().filter(|_| first).into_iter().chain(w.many.as_ref()))
            });
        self.exact
            .get(host)
            .into_iter()
            .chain(wildcards)
            .chain(self.any.as_ref())
    }

    pub fn values(&self) -> impl Iterator<Item = &V> {
        let wildcards = self.wildcard.values().flat_map(|w| w.one.iter().chain(&w.many));
        self.exact.values().chain(wildcards).chain(&self.any)
    }
}

impl<V: Clone> HostMap<V> {
    /// Puts `value` at `pattern`; returns what was there.
    pub fn insert(&mut self, pattern: &HostPattern, value: V) -> Option<V> {
        match pattern {
            HostPattern::Any => self.any.replace(value),
            HostPattern::Exact(name) => self.exact.insert(name, value),
            HostPattern::Wildcard { suffix, depth } => {
                if let Some(by_depth) = self.wildcard.get_mut(suffix.as_str()) {
                    return by_depth.of(*depth).replace(value);
                }
                let mut by_depth = ByDepth { one: None, many: None };
                *by_depth.of(*depth) = Some(value);
                self.wildcard.insert(suffix, by_depth);
                None
            }
        }
    }

    /// Takes away the value of exactly this pattern.
    pub fn remove(&mut self, pattern: &HostPattern) -> Option<V> {
        match pattern {
            HostPattern::Any => self.any.take(),
            HostPattern::Exact(name) => self.exact.remove(name.as_str()),
            HostPattern::Wildcard { suffix, depth } => {
                let by_depth = self.wildcard.get_mut(suffix.as_str())?;
                let taken = by_depth.of(*depth).take();
                if by_depth.one.is_none() && by_depth.many.is_none() {
                    self.wildcard.remove(suffix.as_str());
                }
                taken
            }
        }
    }
}

/// What follows each dot of `host`, longest first; the flag marks the first (one label was dropped).
fn suffixes(host: &str) -> impl Iterator<Item = (&str, bool)> {
    let mut first = true;
    host.match_indices('.')
        .filter(|(at, _)| *at > 0)
        .map(move |(at, _)| (host.get(at + 1..).unwrap_or_default(), std::mem::take(&mut first)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str, depth: WildcardDepth) -> HostPattern {
        HostPattern::parse(text, depth).unwrap()
    }

    #[test]
    fn the_most_specific_pattern_comes_first() {
        let mut map = HostMap::default();
        for text in ["", "*.com", "*.example.com", "a.example.com"] {
            map.insert(&pattern(text, WildcardDepth::Many), text);
        }
        assert_eq!(
            map.matching("a.example.com").collect::<Vec<_>>(),
            [&"a.example.com", &"*.example.com", &"*.com", &""]
        );
        assert_eq!(map.matching("example.com").collect::<Vec<_>>(), [&"*.com", &""]);
        assert_eq!(map.best("localhost"), Some(&""));
        assert_eq!(map.len(), 4);
    }

    #[test]
    fn one_label_wildcards_do_not_reach_deeper() {
        let mut map = HostMap::default();
        map.insert(&pattern("*.foo.com", WildcardDepth::One), 1);
        assert_eq!(map.best("bar.foo.com"), Some(&1));
        assert_eq!(map.best("baz.bar.foo.com"), None);
        assert_eq!(map.best("foo.com"), None);
        assert_eq!(map.best(".foo.com"), None);
    }

    proptest! {
        /// The map agrees with `HostPattern::matches` and `cmp_specificity` for every set of patterns.
        #[test]
        fn agrees_with_the_patterns(
            texts in proptest::collection::btree_set("(\\*\\.)?([ab]\\.){0,3}[ab]", 0..12),
            host in "([ab]\\.){0,4}[ab]",
            many in any::<bool>(),
        ) {
            let depth = if many { WildcardDepth::Many } else { WildcardDepth::One };
            let mut map = HostMap::default();
            let mut expected = Vec::new();
            for text in &texts {
                let p = pattern(text, depth);
                map.insert(&p, p.clone());
                if p.matches(&host) {
                    expected.push(p);
                }
            }
            expected.sort_by(|a, b| b.cmp_specificity(a));
            prop_assert_eq!(map.matching(&host).cloned().collect::<Vec<_>>(), expected);
        }
    }
}
