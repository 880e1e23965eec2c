//! Connections per worker, in memory that the steering program reads.

use std::io;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pierhead_abi::layout::MAX_WORKERS;
use rustix::mm::{MapFlags, ProtFlags};

/// The counters of all workers. A worker adds one when it accepts a connection and takes one off when it ends; the
/// program sends new connections elsewhere when a worker is clearly busier than another.
#[derive(Clone, Debug)]
pub struct Loads(Arc<Mapping>);

#[derive(Debug)]
struct Mapping(NonNull<AtomicU64>);

const BYTES: usize = MAX_WORKERS * size_of::<u64>();

// SAFETY: it points to shared memory that only atomics touch, and that lives until the last clone is dropped.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Loads {
    /// Maps the `LOADS` array.
    pub(crate) fn map(fd: impl AsFd) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice; the array has MAX_WORKERS elements of 8 bytes.
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
            .map(|memory| Self(Arc::new(Mapping(memory))))
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

    pub(crate) fn reset(&self) {
        for worker in 0..MAX_WORKERS {
            if let Some(counter) = self.0.counter(worker) {
                counter.store(0, Ordering::Relaxed);
            }
        }
    }
}

impl Mapping {
    fn counter(&self, worker: usize) -> Option<&AtomicU64> {
        // SAFETY: in bounds, aligned (the mapping begins at a page), and alive as long as `self`.
        (worker < MAX_WORKERS).then(|| unsafe { self.0.add(worker).as_ref() })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `map`, not used any more. A failure leaves it mapped, which is harmless.
        let _ = unsafe { rustix::mm::munmap(self.0.as_ptr().cast(), BYTES) };
    }
}
