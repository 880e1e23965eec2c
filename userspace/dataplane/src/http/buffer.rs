//! Read buffers, borrowed from a per-worker free list and given back when empty: an idle connection holds none.

use std::{cell::RefCell, rc::Rc};

/// Large reads decide the cost of large bodies (measured: 64 kB halves it against 16 kB).
pub(crate) const SIZE: usize = 64 * 1024;

/// Free buffers kept. What is in use at one time is what one thread works on, so a few suffice.
const KEPT: usize = 16;

/// Output that a connection may keep between two messages.
const OUTPUT_KEPT: usize = 32;

/// The free list of one worker.
#[derive(Default)]
pub(crate) struct Buffers {
    free: RefCell<Vec<Box<[u8]>>>,
    outputs: RefCell<Vec<Vec<u8>>>,
}

impl Buffers {
    pub(crate) fn take(self: &Rc<Self>) -> Buffer {
        let bytes = self.free.borrow_mut().pop();
        Buffer {
            bytes: bytes.unwrap_or_else(|| vec![0; SIZE].into_boxed_slice()),
            start: 0,
            end: 0,
            home: Rc::clone(self),
        }
    }

    /// An empty vector for heads and small bodies to be sent.
    pub(crate) fn output(&self) -> Vec<u8> {
        self.outputs.borrow_mut().pop().unwrap_or_default()
    }

    pub(crate) fn give_output(&self, mut output: Vec<u8>) {
        let mut kept = self.outputs.borrow_mut();
        if kept.len() < OUTPUT_KEPT && (1..=SIZE).contains(&output.capacity()) {
            output.clear();
            kept.push(output);
        }
    }
}

/// Bytes that were read and not consumed yet.
pub(crate) struct Buffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
    home: Rc<Buffers>,
}

impl Buffer {
    pub(crate) fn data(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub(crate) fn consume(&mut self, count: usize) {
        debug_assert!(count <= self.end - self.start, "consumes what was read");
        self.start += count;
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Room for more, made by moving the unconsumed bytes to the front when there is little; empty when full.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        if self.start > 0 && self.bytes.len() - self.end < SIZE / 2 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        &mut self.bytes[self.end..]
    }

    /// Says how many bytes were put into [`Buffer::space`].
    pub(crate) fn filled(&mut self, count: usize) {
        self.end += count;
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut free = self.home.free.borrow_mut();
        if free.len() < KEPT {
            free.push(std::mem::take(&mut self.bytes));
        }
    }
}
