//! Forgetting flows. The table is not LRU (a lost entry would break a live flow), so somebody has to.

use std::io;
use std::os::fd::BorrowedFd;

use pierhead_abi::l4::{Flow, FlowKey, Slot};

use crate::sys;

/// Entries read by one system call.
const BATCH: usize = 4_096;
/// System calls of one sweep: a full table takes several sweeps.
const BATCHES: usize = 16;

/// Where the next sweep goes on, and what was counted so far in this round.
#[derive(Debug, Default)]
pub(crate) struct Sweeper {
    cursor: Option<u32>,
    counting: u64,
    /// Flows at the end of the last full round.
    pub(crate) flows: u64,
}

impl Sweeper {
    /// Looks at a part of the table and returns the keys to forget: silent for too long, or of an endpoint that is gone.
    pub(crate) fn sweep(
        &mut self,
        map: BorrowedFd<'_>,
        now: u32,
        alive: impl Fn(Slot) -> bool,
    ) -> io::Result<Vec<[u8; FlowKey::SIZE]>> {
        let mut keys = vec![0u8; BATCH * FlowKey::SIZE];
        let mut values = vec![0u8; BATCH * Flow::SIZE];
        let mut forget = Vec::new();
        for _ in 0..BATCHES {
            let (count, end) = sys::lookup_batch(map, &mut self.cursor, &mut keys, &mut values, BATCH as u32)?;
            let (keys, _) = keys.as_chunks::<{ FlowKey::SIZE }>();
            let (values, _) = values.as_chunks::<{ Flow::SIZE }>();
            for (key, value) in keys.iter().zip(values).take(count as usize) {
                let (protocol, flow) = (FlowKey::from_bytes(*key).protocol, Flow::from_bytes(*value));
                let gone = !alive(Slot {
                    backend: flow.backend,
                    generation: flow.generation,
                });
                if gone || flow.expired(protocol, now) {
                    forget.push(*key);
                } else {
                    self.counting += 1;
                }
            }
            if end {
                self.flows = std::mem::take(&mut self.counting);
                break;
            }
        }
        Ok(forget)
    }
}
