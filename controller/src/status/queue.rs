//! When which object is looked at: each at most once at a time, the failing ones ever more rarely. Pure: time is an
//! argument.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::Key;
use crate::backoff::Backoff;

/// Waits after failures.
const RETRY: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(60));
/// Of the writes that may be under way, so many at most are retries: who answers slowly and badly must not take them all.
const RETRIES: usize = 4;

/// Objects that are to be looked at, and those that are being written.
#[derive(Debug)]
pub(super) struct Queue {
    items: BTreeMap<Key, Item>,
    /// By rank, then in the order of time and of arrival.
    due: [BTreeSet<(Instant, u64, Key)>; RANKS],
    arrivals: u64,
    under_way: usize,
    retries_under_way: usize,
    most: usize,
}

#[derive(Debug)]
struct Item {
    place: Place,
    backoff: Backoff,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Waiting(Instant, u64),
    UnderWay {
        /// It is to be looked at once more after this.
        again: bool,
        retry: bool,
    },
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Well,
    /// Somebody else wrote in between: look again at once.
    Overtaken,
    Badly,
}

const RANKS: usize = 2;

/// Many depend on a class or a Gateway, and there are few of them: they do not stand in line behind thousands of routes.
fn rank(key: &Key) -> usize {
    match key.kind {
        "GatewayClass" | "Gateway" | "ListenerSet" | "BackendTLSPolicy" => 0,
        _ => 1,
    }
}

impl Queue {
    /// With at most so many writes under way.
    pub(super) fn new(most: usize) -> Self {
        Self {
            items: BTreeMap::new(),
            due: Default::default(),
            arrivals: 0,
            under_way: 0,
            retries_under_way: 0,
            most,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// Something about the object changed.
    pub(super) fn touch(&mut self, key: Key, now: Instant) {
        match self.items.get_mut(&key) {
            None => self.wait(key, now, RETRY),
            Some(item) => match &mut item.place {
                Place::UnderWay { again, .. } => *again = true,
                // What was refused is refused again, whatever changed: its wait goes on.
                Place::Waiting(..) if item.backoff.failures() > 0 => {}
                Place::Waiting(at, _) if *at <= now => {}
                Place::Waiting(at, arrival) => {
                    self.due[rank(&key)].remove(&(*at, *arrival, key.clone()));
                    self.wait(key, now, RETRY);
                }
            },
        }
    }

    /// The next object to look at: under way until [`Queue::end`] or [`Queue::defer`] is called with it.
    pub(super) fn next(&mut self, now: Instant) -> Option<Key> {
        if self.under_way >= self.most {
            return None;
        }
        let items = &self.items;
        let is_retry = |key: &Key| items.get(key).is_some_and(|item| item.backoff.failures() > 0);
        let full = self.retries_under_way >= RETRIES;
        let found = self.due.iter().find_map(|due| {
            let mut due = due.iter().take_while(|(at, ..)| *at <= now);
            due.find(|(.., key)| !full || !is_retry(key)).cloned()
        });
        let (at, arrival, key) = found?;
        let retry = is_retry(&key);
        self.due[rank(&key)].remove(&(at, arrival, key.clone()));
        if let Some(item) = self.items.get_mut(&key) {
            item.place = Place::UnderWay { again: false, retry };
        }
        self.under_way += 1;
        self.retries_under_way += usize::from(retry);
        Some(key)
    }

    /// Nothing was done about it; it is to be looked at again then, or when it is touched.
    pub(super) fn defer(&mut self, key: Key, until: Instant) {
        let backoff = self.leave(&key).map_or(RETRY, |(item, _)| item.backoff);
        self.wait(key, until, backoff);
    }

    /// What was under way is over. Returns the number of failures in a row.
    pub(super) fn end(&mut self, key: Key, ended: Ended, now: Instant) -> u32 {
        let Some((mut item, again)) = self.leave(&key) else {
            return 0;
        };
        let mut failures = 0;
        match ended {
            Ended::Well => {
                if again {
                    self.wait(key, now, RETRY);
                }
            }
            Ended::Overtaken => self.wait(key, now, item.backoff),
            Ended::Badly => {
                let at = now + item.backoff.fail();
                failures = item.backoff.failures();
                self.wait(key, at, item.backoff);
            }
        }
        failures
    }

    /// Nothing is to be looked at any more. What is under way ends as it may.
    pub(super) fn forget(&mut self) {
        self.due = Default::default();
        self.items.retain(|_, item| match &mut item.place {
            Place::Waiting(..) => false,
            Place::UnderWay { again, .. } => {
                *again = false;
                true
            }
        });
    }

    /// When something is due next, given that a place is free.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let first = self.due.iter().filter_map(|due| due.first().map(|(at, ..)| *at));
        first.min().filter(|_| self.under_way < self.most)
    }

    fn leave(&mut self, key: &Key) -> Option<(Item, bool)> {
        let item = self.items.remove(key)?;
        let Place::UnderWay { again, retry } = item.place else {
            self.items.insert(key.clone(), item);
            return None;
        };
        self.under_way -= 1;
        self.retries_under_way -= usize::from(retry);
        Some((item, again))
    }

    fn wait(&mut self, key: Key, at: Instant, backoff: Backoff) {
        self.arrivals += 1;
        let place = Place::Waiting(at, self.arrivals);
        self.due[rank(&key)].insert((at, self.arrivals, key.clone()));
        self.items.insert(key, Item { place, backoff });
    }
}

#[cfg(test)]
mod tests {
    use pierhead_translate::ObjectName;

    use super::*;

    fn key(kind: &'static str, name: &str) -> Key {
        Key {
            kind,
            name: ObjectName::new("ns", name),
        }
    }

    fn names(queue: &mut Queue, now: Instant) -> Vec<String> {
        std::iter::from_fn(|| queue.next(now))
            .map(|key| key.name.name.to_string())
            .collect()
    }

    #[test]
    fn each_object_is_under_way_once_and_looked_at_again_if_it_changed_meanwhile() {
        let now = Instant::now();
        let mut queue = Queue::new(10);
        queue.touch(key("HTTPRoute", "a"), now);
        queue.touch(key("HTTPRoute", "a"), now);
        assert_eq!(names(&mut queue, now), ["a"]);
        queue.touch(key("HTTPRoute", "a"), now);
        assert_eq!(queue.next(now), None);
        queue.end(key("HTTPRoute", "a"), Ended::Well, now);
        assert_eq!(names(&mut queue, now), ["a"]);
        queue.end(key("HTTPRoute", "a"), Ended::Well, now);
        assert_eq!((queue.next(now), queue.len(), queue.next_due()), (None, 0, None));
    }

    #[test]
    fn gateways_do_not_stand_in_line_behind_routes_and_only_so_many_are_under_way() {
        let now = Instant::now();
        let mut queue = Queue::new(3);
        for name in ["a", "b", "c"] {
            queue.touch(key("HTTPRoute", name), now);
        }
        queue.touch(key("Gateway", "gw"), now);
        assert_eq!(names(&mut queue, now), ["gw", "a", "b"]);
        assert_eq!(queue.next_due(), None);
        queue.end(key("Gateway", "gw"), Ended::Well, now);
        assert_eq!(names(&mut queue, now), ["c"]);
    }

    #[test]
    fn what_is_refused_waits_ever_longer_whatever_changes_and_blocks_nobody() {
        let mut now = Instant::now();
        let mut queue = Queue::new(16);
        let refused = key("HTTPRoute", "refused");
        queue.touch(refused.clone(), now);
        let mut looked_at = 0;
        for _ in 0..1000 {
            queue.touch(refused.clone(), now);
            if queue.next(now).is_some() {
                looked_at += 1;
                queue.end(refused.clone(), Ended::Badly, now);
            }
            now += Duration::from_millis(100);
        }
        assert!((5..16).contains(&looked_at), "{looked_at} attempts in 100 s");
        // Eight that fail slowly; only some are retried at a time, a new one passes.
        for name in ["1", "2", "3", "4", "5", "6", "7", "8"] {
            queue.touch(key("HTTPRoute", name), now);
        }
        for name in names(&mut queue, now) {
            queue.end(key("HTTPRoute", &name), Ended::Badly, now);
        }
        now += Duration::from_secs(61);
        queue.touch(key("HTTPRoute", "new"), now);
        let under_way = names(&mut queue, now);
        assert_eq!(under_way.len(), RETRIES + 1, "{under_way:?}");
        assert!(under_way.contains(&"new".to_owned()));
    }

    #[test]
    fn a_success_forgets_failures() {
        let now = Instant::now();
        let mut queue = Queue::new(1);
        let one = key("HTTPRoute", "a");
        queue.touch(one.clone(), now);
        queue.next(now);
        assert_eq!(queue.end(one.clone(), Ended::Badly, now), 1);
        let later = now + Duration::from_secs(1);
        assert_eq!(queue.next(later), Some(one.clone()));
        assert_eq!(queue.end(one, Ended::Well, later), 0);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn what_is_forgotten_comes_no_more_until_it_is_touched() {
        let now = Instant::now();
        let mut queue = Queue::new(1);
        let (waits, under_way) = (key("HTTPRoute", "waits"), key("HTTPRoute", "a"));
        queue.touch(under_way.clone(), now);
        assert_eq!(queue.next(now), Some(under_way.clone()));
        queue.touch(waits.clone(), now);
        queue.touch(under_way.clone(), now);
        queue.forget();
        queue.end(under_way, Ended::Well, now);
        assert_eq!((queue.next(now), queue.len(), queue.next_due()), (None, 0, None));
        queue.touch(waits.clone(), now);
        assert_eq!(queue.next(now), Some(waits));
    }

    #[test]
    fn what_is_held_back_comes_at_its_time_or_when_it_is_touched() {
        let now = Instant::now();
        let later = now + Duration::from_secs(2);
        let mut queue = Queue::new(1);
        let one = key("Gateway", "gw");
        queue.touch(one.clone(), now);
        queue.next(now);
        queue.defer(one.clone(), later);
        assert_eq!((queue.next(now), queue.next_due()), (None, Some(later)));
        queue.touch(one.clone(), now);
        assert_eq!(queue.next(now), Some(one.clone()));
        queue.defer(one.clone(), later);
        assert_eq!(queue.next(later), Some(one.clone()));
        queue.end(one.clone(), Ended::Overtaken, later);
        assert_eq!(queue.next(later), Some(one));
    }
}
