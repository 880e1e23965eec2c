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
    gap: Option<Gap>,
}

/// Ticks in which nobody wrote what the time is: packets that passed in them are noted as of the last one before.
#[derive(Clone, Copy, Debug)]
struct Gap {
    /// The last tick that was written.
    from: u32,
    length: u32,
}

/// Ticks between two writings that come every second, or a little late.
const LATE: u32 = 3;

impl Sweeper {
    /// The time is written again, and was last written then.
    pub(crate) fn passed(&mut self, from: u32, now: u32) {
        let length = now.wrapping_sub(from);
        if length > LATE && length < 1 << 31 {
            self.gap = Some(Gap { from, length });
        }
    }

    /// When it is, for a flow that was seen then: a gap since does not count as silence.
    fn now_for(&self, seen: u32, now: u32) -> u32 {
        match self.gap {
            Some(Gap { from, length }) if from.wrapping_sub(seen) < 1 << 31 => now.wrapping_sub(length),
            _ => now,
        }
    }

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
                if gone || flow.expired(protocol, self.now_for(flow.seen, now)) {
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

#[cfg(test)]
mod tests {
    use pierhead_abi::l4::idle;
    use pierhead_abi::packet::UDP;

    use super::*;

    fn is_forgotten(sweeper: &Sweeper, seen: u32, now: u32) -> bool {
        let flow = Flow {
            seen,
            established: 1,
            ..Flow::default()
        };
        flow.expired(UDP, sweeper.now_for(seen, now))
    }

    #[test]
    fn time_in_which_nobody_wrote_the_time_is_no_silence() {
        let limit = idle::UDP_ESTABLISHED;
        for start in [1_000, u32::MAX - 100] {
            let at = |tick: u32| u32::wrapping_add(start, tick);
            let mut sweeper = Sweeper::default();
            sweeper.passed(at(9), at(10));
            assert!(is_forgotten(&sweeper, at(9), at(10 + limit)), "one tick is no gap");
            // A process died at 10, and another came at 1,010.
            sweeper.passed(at(10), at(1_010));
            let later = |tick: u32| at(1_010 + tick);
            assert!(
                !is_forgotten(&sweeper, at(10), later(0)),
                "its packets may have passed a moment ago"
            );
            assert!(!is_forgotten(&sweeper, at(10), later(limit)));
            assert!(is_forgotten(&sweeper, at(10), later(limit + 1)));
            assert!(is_forgotten(&sweeper, at(0), later(limit)), "it was silent before");
            assert!(!is_forgotten(&sweeper, later(0), later(limit)));
            assert!(is_forgotten(&sweeper, later(0), later(limit + 1)));
        }
    }
}
