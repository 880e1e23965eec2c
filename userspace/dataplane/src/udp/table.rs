use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    rc::Rc,
};

use foldhash::fast::RandomState;
use pierhead_model::BindKey;
use tokio::time::Instant;

use super::session::Session;

/// Client, and where it sent to.
pub(super) type Key = (SocketAddr, SocketAddr);

/// Sessions asked whether they may go before one has to.
const CHANCES: usize = 16;

/// The sessions of one receiving socket.
#[derive(Default)]
pub(super) struct Table {
    sessions: HashMap<Key, Rc<Session>, RandomState>,
    /// Per bind, about from the longest idle to the latest used: who is first and was used since gets a second chance.
    order: HashMap<BindKey, VecDeque<(Key, Instant)>, RandomState>,
}

impl Table {
    pub(super) fn find(&self, key: &Key) -> Option<Rc<Session>> {
        self.sessions.get(key).cloned()
    }

    pub(super) fn insert(&mut self, bind: BindKey, key: Key, session: Rc<Session>) {
        self.order.entry(bind).or_default().push_back((key, session.used()));
        self.sessions.insert(key, session);
    }

    pub(super) fn end(&mut self, key: &Key) {
        if let Some(session) = self.sessions.remove(key) {
            session.end();
        }
    }

    pub(super) fn end_all(&mut self) {
        for session in self.sessions.values() {
            session.end();
        }
        self.sessions.clear();
        self.order.clear();
    }

    /// Forgets `session` when it is still the one at `key`.
    pub(super) fn forget(&mut self, key: &Key, session: &Rc<Session>) {
        if self.sessions.get(key).is_some_and(|known| Rc::ptr_eq(known, session)) {
            self.sessions.remove(key);
        }
    }

    /// Ends sessions of `bind` until there are fewer than `limit`.
    pub(super) fn make_room(&mut self, bind: BindKey, limit: u32) {
        let Some(order) = self.order.get_mut(&bind) else {
            return;
        };
        let limit = limit.max(1) as usize;
        let mut chances = CHANCES;
        while order.len() >= limit {
            let Some((key, seen)) = order.pop_front() else { return };
            let Some(session) = self.sessions.get(&key) else {
                // It ended by itself.
                continue;
            };
            if session.used() > seen && chances > 0 {
                chances -= 1;
                order.push_back((key, session.used()));
                continue;
            }
            session.end();
            self.sessions.remove(&key);
        }
    }
}
