//! Moves bytes between two sockets without copying them to userspace: splice(2) through a pipe.
//!
//! A pipe holds a bounded number of bytes and is emptied before more is taken in, so a reader that stalls stops the writer
//! (no sockmap: it has no such bound). Pipes belong to the worker; a connection holds one only while bytes are in flight.

use std::{
    cell::RefCell,
    io,
    os::fd::OwnedFd,
    task::{Context, Poll, ready},
    time::Duration,
};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::{io::Interest, net::TcpStream, task::yield_now};

use super::guard::Bytes;
use crate::observe::Reason;

/// Bytes a pipe may hold. The kernel grants less to users who have many.
const PIPE_BYTES: usize = 256 * 1024;
/// Empty pipes a worker keeps.
const PIPES_KEPT: usize = 64;
/// Bytes one direction may move before other connections get their turn.
const TURN_BYTES: usize = 1 << 20;

/// The empty pipes of a worker.
#[derive(Debug, Default)]
pub(crate) struct Pipes(RefCell<Vec<Pipe>>);

#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipes {
    fn take(&self) -> io::Result<Pipe> {
        if let Some(pipe) = self.0.borrow_mut().pop() {
            return Ok(pipe);
        }
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // The default of 64 kB works too.
        let _ = fcntl_setpipe_size(&write, PIPE_BYTES);
        Ok(Pipe { read, write })
    }

    /// Empty pipes that are kept.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        self.0.borrow().len()
    }

    /// Only for an empty pipe: one with bytes in it would give them to another connection.
    fn give(&self, pipe: Pipe) {
        let mut kept = self.0.borrow_mut();
        if kept.len() < PIPES_KEPT {
            kept.push(pipe);
        }
    }
}

/// Bytes on their way from one socket to another, moved by whoever polls.
#[derive(Debug)]
pub(crate) struct Moving<'p> {
    /// `None` only while it is dropped.
    pipe: Option<Pipe>,
    /// Bytes in the pipe.
    inside: usize,
    pipes: &'p Pipes,
}

/// Which socket failed. The source fails with `UnexpectedEof` when it ends.
#[derive(Debug)]
pub(crate) enum Stuck {
    Source(io::Error),
    Sink(io::Error),
}

impl<'p> Moving<'p> {
    /// # Errors
    /// When no pipe can be had.
    pub(crate) fn new(pipes: &'p Pipes) -> io::Result<Self> {
        Ok(Self {
            pipe: Some(pipes.take()?),
            inside: 0,
            pipes,
        })
    }

    /// Whether there are bytes that the sink has not taken.
    pub(crate) fn is_full(&self) -> bool {
        self.inside > 0
    }

    /// Moves some of the `left` bytes that are still to reach the sink; how many did.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &TcpStream,
        sink: &TcpStream,
        left: u64,
    ) -> Poll<Result<usize, Stuck>> {
        let Some(pipe) = &self.pipe else {
            return Poll::Pending;
        };
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        while self.inside == 0 {
            let most = usize::try_from(left).map_or(PIPE_BYTES, |left| left.min(PIPE_BYTES));
            let taken = source.try_io(Interest::READABLE, || {
                Ok(splice(source, None, &pipe.write, None, most, flags)?)
            });
            match taken {
                Ok(0) => return Poll::Ready(Err(Stuck::Source(io::ErrorKind::UnexpectedEof.into()))),
                Ok(count) => self.inside = count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(source.poll_read_ready(cx)).map_err(Stuck::Source)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(Stuck::Source(error))),
            }
        }
        loop {
            let given = sink.try_io(Interest::WRITABLE, || {
                Ok(splice(&pipe.read, None, sink, None, self.inside, flags)?)
            });
            match given {
                Ok(0) => return Poll::Ready(Err(Stuck::Sink(io::ErrorKind::WriteZero.into()))),
                Ok(count) => {
                    self.inside = self.inside.saturating_sub(count);
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(sink.poll_write_ready(cx)).map_err(Stuck::Sink)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(Stuck::Sink(error))),
            }
        }
    }
}

impl Drop for Moving<'_> {
    fn drop(&mut self) {
        if self.inside == 0
            && let Some(pipe) = self.pipe.take()
        {
            self.pipes.give(pipe);
        }
    }
}

/// How one direction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The source said that it is done, and the sink was told.
    Finished,
    SourceFailed,
    SinkFailed,
    /// No pipe can be had.
    NoPipe,
}

/// Carries bytes both ways until both sides are done, one fails, or nothing moves for `idle`.
pub(crate) async fn both_ways(
    client: &TcpStream,
    upstream: &TcpStream,
    pipes: &Pipes,
    bytes: &Bytes,
    idle: Duration,
) -> Reason {
    let up = one_way(client, upstream, pipes, |count| bytes.add_in(count));
    let down = one_way(upstream, client, pipes, |count| bytes.add_out(count));
    let both = async {
        tokio::pin!(up, down);
        tokio::select! {
            end = &mut up => match end {
                // A server that stopped reading may still have something to say.
                End::Finished | End::SinkFailed => (end, (&mut down).await),
                End::SourceFailed | End::NoPipe => (end, End::Finished),
            },
            end = &mut down => match end {
                End::Finished => ((&mut up).await, end),
                End::SourceFailed | End::SinkFailed | End::NoPipe => (End::Finished, end),
            },
        }
    };
    tokio::select! {
        ends = both => match ends {
            (End::NoPipe, _) | (_, End::NoPipe) => Reason::Internal,
            (End::SourceFailed, _) | (_, End::SinkFailed) => Reason::ClientReset,
            (_, End::SourceFailed) => Reason::BackendReset,
            // The server took less than the client sent, but ended its own side in order.
            (End::SinkFailed, End::Finished) | (End::Finished, End::Finished) => Reason::Done,
        },
        () = bytes.idle(idle) => Reason::IdleTimeout,
    }
}

async fn one_way(source: &TcpStream, sink: &TcpStream, pipes: &Pipes, moved: impl Fn(usize)) -> End {
    loop {
        if source.readable().await.is_err() {
            return End::SourceFailed;
        }
        let Ok(pipe) = pipes.take() else {
            return End::NoPipe;
        };
        let mut in_turn = 0;
        // A pipe that leaves this loop with bytes in it is closed, not given back.
        loop {
            let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
            let taken = source.try_io(Interest::READABLE, || {
                Ok(splice(source, None, &pipe.write, None, PIPE_BYTES, flags)?)
            });
            let count = match taken {
                Ok(0) => {
                    pipes.give(pipe);
                    // Fails when the sink is gone, which its own direction reports.
                    let _ = socket2::SockRef::from(sink).shutdown(std::net::Shutdown::Write);
                    return End::Finished;
                }
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    pipes.give(pipe);
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return End::SourceFailed,
            };
            let mut left = count;
            while left > 0 {
                let given = sink.try_io(Interest::WRITABLE, || {
                    Ok(splice(&pipe.read, None, sink, None, left, flags)?)
                });
                match given {
                    Ok(count) if count > 0 => {
                        left = left.saturating_sub(count);
                        moved(count);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        if sink.writable().await.is_err() {
                            return End::SinkFailed;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Ok(_) | Err(_) => return End::SinkFailed,
                }
            }
            in_turn += count;
            if in_turn >= TURN_BYTES {
                in_turn = 0;
                yield_now().await;
            }
        }
    }
}
