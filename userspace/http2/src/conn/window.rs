//! Flow control of what we receive (RFC 9113 §5.2, §6.9): consumed bytes are given back in large pieces.

use super::Connection;
use crate::frame;

impl<T: Default> Connection<T> {
    /// Gives bytes of a stream back to the peer: the caller is done with them. Whether anything is to be sent now.
    pub fn consumed(&mut self, id: u32, count: usize) -> bool {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let window = self.config.stream_window;
        if self.broken {
            return false;
        }
        let mut spoke = false;
        if let Some(stream) = self.streams.get_mut(id) {
            let count = count.min(stream.held);
            stream.held -= count;
            if !stream.received {
                stream.credit += count;
                if stream.credit >= window / 2 {
                    let credit = std::mem::take(&mut stream.credit);
                    stream.recv_window += i64::from(credit);
                    self.last = None;
                    frame::window_update(id, credit, &mut self.out);
                    spoke = true;
                }
            }
            spoke |= self.credit_connection(count);
        }
        spoke
    }

    /// The same for the connection alone.
    pub(super) fn credit_connection(&mut self, count: u32) -> bool {
        self.credit += count;
        let spoke = !self.broken && self.credit > 0 && self.credit >= self.config.connection_window / 2;
        if spoke {
            let credit = std::mem::take(&mut self.credit);
            self.recv_window += i64::from(credit);
            self.last = None;
            frame::window_update(0, credit, &mut self.out);
        }
        spoke
    }
}
