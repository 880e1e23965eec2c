//! Connections per worker, in memory that the steering program reads.

use std::io;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use pierhead_abi::layout::{MAX_LOADS, MAX_WORKERS};
use pierhead_abi::steer::load_index;
use rustix::mm::{MapFlags, ProtFlags};

/// The counters of the workers of one process. A worker adds one when it accepts a connection and takes one off when it
/// ends; the program sends new connections elsewhere when a worker is clearly busier than another.
#[derive(Clone, Debug)]
pub struct Loads(Arc<Mapping>);

#[derive(Debug)]
struct Mapping {
    memory: NonNull<AtomicU64>,
    /// Whose counters they are; [`NOBODY`] once a successor's successor may use them.
    generation: AtomicU32,
}

const BYTES: usize = MAX_LOADS * size_of::<u64>();
const NOBODY: u32 = u32::MAX;

// SAFETY: it points to shared memory that only atomics touch, and that lives until the last clone is dropped.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Loads {
    /// Maps the `LOADS` array, to count in it for `generation`.
    pub(crate) fn map(fd: impl AsFd, generation: u32) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice; the array has MAX_LOADS elements of 8 bytes.
        let memory = unsafe {
            rustix::mm::mmap(
                ptr::null_mut(),
                BYTES,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                fd,
                0,
            )
        }?;
        NonNull::new(memory.cast())
            .map(|memory| {
                Self(Arc::new(Mapping {
                    memory,
                    generation: AtomicU32::new(generation),
                }))
            })
            .ok_or_else(|| io::Error::other("mapped at zero"))
    }

    /// One connection more for `worker`. Workers beyond the limit are not counted.
    pub fn add(&self, worker: usize) {
        if let Some(counter) = self.0.counter(worker) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One connection less for `worker`.
    pub fn sub(&self, worker: usize) {
        if let Some(counter) = self.0.counter(worker) {
            counter.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Connections that `worker` has now.
    pub fn of(&self, worker: usize) -> u64 {
        self.0
            .counter(worker)
            .map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// Counts for this generation from now on, from zero. Nothing may have been counted yet.
    pub(crate) fn begin(&self, generation: u32) {
        self.0.generation.store(generation, Ordering::Relaxed);
        for worker in 0..MAX_WORKERS {
            if let Some(counter) = self.0.counter(worker) {
                counter.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Counts nothing from now on: the counters will be another process's.
    pub(crate) fn end(&self) {
        self.0.generation.store(NOBODY, Ordering::Relaxed);
    }
}

impl Mapping {
    fn counter(&self, worker: usize) -> Option<&AtomicU64> {
        let generation = self.generation.load(Ordering::Relaxed);
        let index = load_index(generation, worker as u32) as usize;
        // SAFETY: in bounds, aligned (the mapping begins at a page), and alive as long as `self`.
        (worker < MAX_WORKERS && generation != NOBODY).then(|| unsafe { self.memory.add(index).as_ref() })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `map`, not used any more. A failure leaves it mapped, which is harmless.
        let _ = unsafe { rustix::mm::munmap(self.memory.as_ptr().cast(), BYTES) };
    }
}
