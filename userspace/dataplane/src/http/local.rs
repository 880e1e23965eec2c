//! What the HTTP part of a worker keeps: free lists, pooled connections, bounds.

use std::{
    cell::{Cell, RefCell},
    hash::{BuildHasher, RandomState},
    rc::Rc,
    time::{SystemTime, UNIX_EPOCH},
};

use pierhead_http1::{RequestHead, ResponseHead, encode};
use tokio::time::Instant;

use super::buffer::Buffers;
use crate::upstream::Pool;

/// Scratch kept per worker.
const SCRATCH_KEPT: usize = 64;

/// Memory that kept scratch may hold, in bytes each.
const SCRATCH_MAX: usize = 16 * 1024;

/// Mirrored requests in flight per worker; more are dropped.
const MIRRORS: u32 = 64;

/// One per worker.
pub(crate) struct Local {
    pub(crate) buffers: Rc<Buffers>,
    pub(crate) pool: Rc<Pool>,
    #[expect(
        clippy::vec_box,
        reason = "boxes are handed out and taken back; moving the heads would cost"
    )]
    scratch: RefCell<Vec<Box<Scratch>>>,
    mirrors: Cell<u32>,
    /// When somebody last looked at the clock.
    lately: Cell<Instant>,
}

/// Heads and texts of one exchange; the memory is used again.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(crate) request: RequestHead,
    pub(crate) response: ResponseHead,
    /// As compared: see `policy::host`.
    pub(crate) host: String,
    /// As received.
    pub(crate) target: Vec<u8>,
}

impl Default for Local {
    fn default() -> Self {
        let buffers = Rc::new(Buffers::default());
        // The standard library's keys are random.
        let seed = RandomState::new().hash_one(std::ptr::from_ref(&*buffers).addr());
        Self {
            pool: Pool::new(Rc::clone(&buffers), seed),
            buffers,
            scratch: RefCell::default(),
            mirrors: Cell::new(0),
            lately: Cell::new(Instant::now()),
        }
    }
}

impl Local {
    /// The time, by the clock.
    pub(crate) fn now(&self) -> Instant {
        let now = Instant::now();
        self.lately.set(now);
        now
    }

    /// The time when somebody last asked for it: for who comes right after one that did, and needs no microseconds.
    pub(crate) fn lately(&self) -> Instant {
        self.lately.get()
    }

    pub(crate) fn scratch(&self) -> Box<Scratch> {
        self.scratch.borrow_mut().pop().unwrap_or_default()
    }

    pub(crate) fn give_scratch(&self, scratch: Box<Scratch>) {
        let held = scratch.request.headers.capacity_bytes() + scratch.response.headers.capacity_bytes();
        let mut kept = self.scratch.borrow_mut();
        if kept.len() < SCRATCH_KEPT && held <= SCRATCH_MAX {
            kept.push(scratch);
        }
    }

    /// Room for one more mirrored request.
    pub(crate) fn mirror(self: &Rc<Self>) -> Option<MirrorSlot> {
        let open = self.mirrors.get();
        (open < MIRRORS).then(|| {
            self.mirrors.set(open + 1);
            MirrorSlot(Rc::clone(self))
        })
    }
}

/// Held while a mirrored request is in flight.
pub(crate) struct MirrorSlot(Rc<Local>);

impl Drop for MirrorSlot {
    fn drop(&mut self) {
        self.0.mirrors.set(self.0.mirrors.get() - 1);
    }
}

/// The value of a Date field.
pub(crate) fn date() -> [u8; 29] {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    encode::date(since.as_secs())
}
