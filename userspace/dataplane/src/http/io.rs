//! The byte streams that carry HTTP, and HTTP/1 messages on them: reading without holding a buffer while nothing comes,
//! and writing a head together with what follows it.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{client, server};

use super::buffer::{Buffer, Buffers};

/// A byte stream whose readiness can be awaited without a buffer.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + 'static {
    /// Ready when a read is worth trying.
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()>;
    /// The socket, where its bytes are those of the stream.
    fn socket(&self) -> Option<&TcpStream> {
        None
    }
}

impl Stream for TcpStream {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // An error shows itself at the read.
        self.poll_read_ready(cx).map(drop)
    }

    fn socket(&self) -> Option<&TcpStream> {
        Some(self)
    }
}

/// Large streams are boxed: a future has room for each of the places that one is moved through.
impl<S: Stream> Stream for Box<S> {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        (**self).poll_readable(cx)
    }

    fn socket(&self) -> Option<&TcpStream> {
        (**self).socket()
    }
}

impl<S: Stream> Stream for server::TlsStream<S> {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (io, tls) = self.get_mut();
        // Plaintext may be waiting although the socket has nothing.
        match tls.process_new_packets() {
            Ok(state) if state.plaintext_bytes_to_read() == 0 && !state.peer_has_closed() => io.poll_readable(cx),
            _ => Poll::Ready(()),
        }
    }
}

impl<S: Stream> Stream for client::TlsStream<S> {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (io, tls) = self.get_mut();
        match tls.process_new_packets() {
            Ok(state) if state.plaintext_bytes_to_read() == 0 && !state.peer_has_closed() => io.poll_readable(cx),
            _ => Poll::Ready(()),
        }
    }
}

/// A stream with what was read ahead and what waits to be sent.
pub(crate) struct Wire<S> {
    io: S,
    buffers: Rc<Buffers>,
    input: Option<Buffer>,
    output: Vec<u8>,
    sent: usize,
    /// Bytes read and written since the connection began.
    pub(crate) received: u64,
    pub(crate) written: u64,
}

impl<S: Stream> Wire<S> {
    pub(crate) fn new(io: S, buffers: Rc<Buffers>) -> Self {
        Self {
            io,
            buffers,
            input: None,
            output: Vec::new(),
            sent: 0,
            received: 0,
            written: 0,
        }
    }

    pub(crate) fn io(&self) -> &S {
        &self.io
    }

    /// What was read and not consumed.
    pub(crate) fn input(&self) -> &[u8] {
        self.input.as_ref().map_or(&[], Buffer::data)
    }

    pub(crate) fn consume(&mut self, count: usize) {
        if let Some(buffer) = &mut self.input {
            buffer.consume(count);
            if buffer.data().is_empty() {
                self.input = None;
            }
        }
    }

    /// Reads more; zero is the end of the stream. Fails when the buffer is full, which limits keep from happening.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let buffer = match &mut self.input {
            Some(buffer) => buffer,
            None => {
                ready!(self.io.poll_readable(cx));
                self.input.insert(self.buffers.take())
            }
        };
        let mut space = ReadBuf::new(buffer.space());
        if space.remaining() == 0 {
            return Poll::Ready(Err(io::ErrorKind::OutOfMemory.into()));
        }
        let read = Pin::new(&mut self.io).poll_read(cx, &mut space);
        let count = space.filled().len();
        buffer.filled(count);
        self.received += count as u64;
        if buffer.data().is_empty() {
            self.input = None;
        }
        read.map_ok(|()| count)
    }

    /// The socket, where nothing that was read, or is to be sent, comes before what is in it.
    pub(crate) fn socket(&self) -> Option<&TcpStream> {
        let socket = self.io.socket()?;
        (self.input().is_empty() && self.pending() == 0).then_some(socket)
    }

    /// The same for sending only.
    pub(crate) fn socket_for_writing(&self) -> Option<&TcpStream> {
        let socket = self.io.socket()?;
        (self.pending() == 0).then_some(socket)
    }

    /// Where heads and small bodies are written to; sent by the next flush.
    pub(crate) fn output(&mut self) -> &mut Vec<u8> {
        if self.output.capacity() == 0 {
            self.output = self.buffers.output();
        }
        &mut self.output
    }

    /// Bytes of output that are not sent.
    pub(crate) fn pending(&self) -> usize {
        self.output.len() - self.sent
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.pending() > 0 {
            let count = ready!(Pin::new(&mut self.io).poll_write(cx, &self.output[self.sent..]))?;
            self.wrote(count)?;
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// Sends the output and then `data`, in one call where the stream can; says how much of `data` went.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let pending = self.pending();
            let count = if pending == 0 {
                ready!(Pin::new(&mut self.io).poll_write(cx, data))?
            } else if self.io.is_write_vectored() {
                let both = [IoSlice::new(&self.output[self.sent..]), IoSlice::new(data)];
                ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &both))?
            } else {
                ready!(Pin::new(&mut self.io).poll_write(cx, &self.output[self.sent..]))?
            };
            self.wrote(count)?;
            if count > pending {
                return Poll::Ready(Ok(count - pending));
            }
        }
    }

    /// Accounts `count` bytes, first to the output.
    fn wrote(&mut self, count: usize) -> io::Result<()> {
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.written += count as u64;
        self.sent += count.min(self.pending());
        if self.sent == self.output.len() {
            self.output.clear();
            self.sent = 0;
        }
        Ok(())
    }

    /// Gives memory back that a waiting connection does not need.
    pub(crate) fn rest(&mut self) {
        if self.pending() == 0 && self.output.capacity() > 0 {
            self.buffers.give_output(std::mem::take(&mut self.output));
            self.sent = 0;
        }
    }

    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    /// Whether an idle connection is still usable: open, and silent. Costs no system call in the steady state.
    pub(crate) fn is_quiet(&mut self) -> bool {
        if !self.input().is_empty() || self.pending() > 0 {
            return false;
        }
        let mut byte = [0];
        if let Some(socket) = self.io.socket() {
            return matches!(socket.try_read(&mut byte), Err(why) if why.kind() == io::ErrorKind::WouldBlock);
        }
        let mut space = ReadBuf::new(&mut byte);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        Pin::new(&mut self.io).poll_read(&mut cx, &mut space).is_pending()
    }
}
