//! Moving the bytes of a connection: everything that can be read, then everything that is to be said, with one system call each
//! as long as they fit.

use std::{
    io,
    rc::Rc,
    task::{Context, Poll, ready},
};

use pierhead_http2::{Error, Event};

use super::{Inner, Link};
use crate::http::io::{Stream, Wire};

/// How often a turn reads, or deals with what was read, before others get theirs.
const TURN: usize = 32;

/// Reading this many bytes ends the turn.
const BULK: usize = 32 * 1024;

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    #[error("closed")]
    Closed,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Broken(#[from] Error),
}

/// What a driver does for the streams that its peer opens.
pub(crate) trait Serve {
    /// A request has come: its fields are those of the connection. `end` says that there is no more of it.
    fn request(&mut self, inner: &mut Inner, stream: u32, end: bool);
    /// Called after reading and before sending.
    fn work(&mut self, cx: &mut Context<'_>);
}

/// The task of a connection has this. Dropped, it takes all streams with it.
pub(crate) struct Driver<S> {
    wire: Wire<S>,
    link: Rc<Link>,
    /// Written, but perhaps held back by TLS.
    unflushed: bool,
    /// What the peer did; it is being told.
    broken: Option<Error>,
    answered: bool,
    /// Nothing is read until something was sent.
    choked: bool,
}

impl<S: Stream> Driver<S> {
    pub(crate) fn new(wire: Wire<S>, link: Rc<Link>) -> Self {
        Self {
            wire,
            link,
            unflushed: false,
            broken: None,
            answered: false,
            choked: false,
        }
    }

    /// Reads, gives events to the streams and requests to `serve`, lets it work, and sends. Ready when the connection is over.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, serve: &mut impl Serve) -> Poll<Ended> {
        self.link.inner().begin_driving(cx);
        let ended = self.poll_turn(cx, serve);
        self.link.inner().end_driving();
        ended
    }

    fn poll_turn(&mut self, cx: &mut Context<'_>, serve: &mut impl Serve) -> Poll<Ended> {
        loop {
            if self.broken.is_none()
                && let Poll::Ready(ended) = self.poll_receive(cx, serve)
            {
                match ended {
                    Ended::Broken(error) => self.broken = Some(error),
                    ended => return Poll::Ready(ended),
                }
            }
            serve.work(cx);
            if let Poll::Ready(Err(error)) = self.poll_send(cx) {
                return Poll::Ready(error.into());
            }
            // Reading stopped until there is room for answers, and there may be now.
            if !std::mem::take(&mut self.choked) || self.link.inner().conn.is_choked() {
                break;
            }
        }
        let inner = self.link.inner();
        let drained = inner.conn.output().is_empty() && !self.unflushed;
        if drained && let Some(error) = self.broken {
            return Poll::Ready(error.into());
        }
        let over = inner.conn.is_finished() || (inner.is_abandoned() && inner.conn.open_streams() == 0);
        if drained && over {
            return Poll::Ready(Ended::Closed);
        }
        Poll::Pending
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>, serve: &mut impl Serve) -> Poll<Ended> {
        let mut filled = 0;
        for _ in 0..TURN {
            if self.link.inner().conn.is_choked() {
                self.choked = true;
                return Poll::Pending;
            }
            if !self.wire.input().is_empty() {
                match self.read(serve) {
                    // Whoever waits for it takes it before there is more: it lies in memory that is used again.
                    Ok(true) if filled >= BULK => break,
                    Ok(true) => continue,
                    Ok(false) => {}
                    Err(error) => return Poll::Ready(error.into()),
                }
            }
            match ready!(self.wire.poll_fill(cx)) {
                Ok(0) => return Poll::Ready(Ended::Closed),
                Ok(count) => filled += count,
                Err(error) => return Poll::Ready(error.into()),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Deals with what was read. Whether there was anything to deal with.
    fn read(&mut self, serve: &mut impl Serve) -> Result<bool, Error> {
        let mut inner = self.link.inner();
        let mut any = false;
        loop {
            let step = inner.speaking().read(self.wire.input())?;
            any |= step.consumed > 0;
            if let Some(event) = step.event {
                self.answered |= event == Event::Pong;
                if let Some((stream, end)) = inner.dispatch(event, self.wire.input()) {
                    serve.request(&mut inner, stream, end);
                }
                self.wire.consume(step.consumed);
                if self.wire.input().is_empty() || inner.conn.is_choked() {
                    return Ok(any);
                }
            } else {
                self.wire.consume(step.consumed);
                return Ok(any);
            }
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.link.inner();
        while !inner.conn.output().is_empty() {
            let count = ready!(self.wire.poll_write(cx, inner.conn.output()))?;
            inner.conn.sent(count);
            self.unflushed = true;
        }
        inner.give_back_output();
        if self.unflushed {
            ready!(self.wire.poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Whether the answer to a ping has come since this was asked last.
    pub(crate) fn take_pong(&mut self) -> bool {
        std::mem::take(&mut self.answered)
    }

    /// Whether the peer has broken a rule, and is being told.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// Whether the peer's SETTINGS have come.
    pub(crate) fn is_settled(&self) -> bool {
        self.link.inner().conn.is_settled()
    }

    /// Asks the peer whether it is there; sent by the next poll.
    pub(crate) fn ping(&self) {
        self.link.inner().speaking().ping();
    }

    /// Ends the connection when the streams that are open have ended; the next poll says so.
    pub(crate) fn leave(&self) {
        self.link.inner().speaking().leave();
    }

    /// Tells that time has passed.
    pub(crate) fn pass(&self, seconds: u32) {
        self.link.inner().conn.pass(seconds);
    }

    /// Tells all streams that the connection is lost.
    pub(crate) fn lose(&self) {
        self.link.inner().lose();
    }

    /// Closes our side of the socket.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.poll_shutdown(cx)
    }
}

impl<S> Drop for Driver<S> {
    fn drop(&mut self) {
        self.link.inner().lose();
    }
}
