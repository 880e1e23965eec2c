//! Writing many frames with one system call.
//!
//! `h2` writes and flushes each DATA frame by itself. Under it, frames are gathered here until its connection has nothing more
//! to say; whoever drives the connection then sends them. Over TLS this also fills records: a frame of 16 kB with its head
//! would be two of them.

use std::{
    cell::RefCell,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    buffer::{Buffers, SIZE},
    io::Stream,
};

/// Room for a few small frames.
const SMALL: usize = 4 * 1024;

/// The end that `h2` reads and writes.
pub(crate) struct Gathering<S>(Rc<RefCell<Inner<S>>>);

/// The end that whoever drives the connection sends with.
pub(crate) struct Gathered<S>(Rc<RefCell<Inner<S>>>);

struct Inner<S> {
    io: S,
    buffers: Rc<Buffers>,
    out: Vec<u8>,
    sent: usize,
    /// A flush waits for the driver.
    lazy: bool,
}

/// Both ends of a stream. Until [`Gathered::begin`] a flush is a flush: handshakes are driven by `h2` alone.
pub(crate) fn gather<S: Stream>(io: S, buffers: Rc<Buffers>) -> (Gathering<S>, Gathered<S>) {
    let inner = Rc::new(RefCell::new(Inner {
        io,
        buffers,
        out: Vec::new(),
        sent: 0,
        lazy: false,
    }));
    (Gathering(Rc::clone(&inner)), Gathered(inner))
}

impl<S: Stream> Gathered<S> {
    /// From now on, whatever is written waits for [`Gathered::poll_send`].
    pub(crate) fn begin(&self) {
        self.0.borrow_mut().lazy = true;
    }

    /// Sends what was gathered. To be called whenever the connection has been polled and waits.
    pub(crate) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        ready!(inner.poll_drain(cx))?;
        Pin::new(&mut inner.io).poll_flush(cx)
    }
}

impl<S: Stream> Inner<S> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.out.len() {
            let count = ready!(Pin::new(&mut self.io).poll_write(cx, &self.out[self.sent..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += count;
        }
        if self.out.capacity() > 0 {
            self.buffers.give_output(std::mem::take(&mut self.out));
            self.sent = 0;
        }
        Poll::Ready(Ok(()))
    }

    /// Makes room for `count` bytes, by sending if it must be.
    fn poll_room(&mut self, cx: &mut Context<'_>, count: usize) -> Poll<io::Result<()>> {
        if self.out.len() + count > SIZE {
            ready!(self.poll_drain(cx))?;
        }
        if self.out.capacity() == 0 {
            self.out = self.buffers.output();
        }
        let wanted = self.out.len() + count;
        if wanted > self.out.capacity() {
            // Two sizes only, so that what is given back is taken again.
            let size = if wanted <= SMALL { SMALL } else { SIZE };
            self.out.reserve_exact(size - self.out.len());
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Stream> AsyncRead for Gathering<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, space: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().io).poll_read(cx, space)
    }
}

impl<S: Stream> AsyncWrite for Gathering<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let mut inner = self.0.borrow_mut();
        let count = data.len().min(SIZE);
        ready!(inner.poll_room(cx, count))?;
        inner.out.extend_from_slice(&data[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.0.borrow_mut();
        let total: usize = data.iter().map(|part| part.len()).sum();
        ready!(inner.poll_room(cx, total.min(SIZE)))?;
        let mut count = 0;
        for part in data {
            let taken = part.len().min(SIZE - count);
            inner.out.extend_from_slice(&part[..taken]);
            count += taken;
        }
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        if inner.lazy {
            return Poll::Ready(Ok(()));
        }
        ready!(inner.poll_drain(cx))?;
        Pin::new(&mut inner.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        ready!(inner.poll_drain(cx))?;
        Pin::new(&mut inner.io).poll_shutdown(cx)
    }
}
