//! Bodies on the move: where data comes from and where it goes, whatever codec carries it.
//!
//! Nothing is buffered beyond what was read: a source shows what is at its front, a sink takes as much of it as it can.

use std::{
    io,
    ops::Range,
    task::{Context, Poll, ready},
};

use pierhead_http1::{BodyDecoder, BodyLength, Headers, Limits, encode, encode::Framing};

use tokio::net::TcpStream;

use super::{
    http2::Gone,
    io::{Stream, Wire},
};

/// What went wrong on one side of an exchange.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Malformed(#[from] pierhead_http1::Error),
    #[error(transparent)]
    Http2(#[from] Gone),
    #[error("the peer closed the connection before the message was complete")]
    Cut,
    #[error("the peer does not acknowledge what it is sent")]
    Unheard,
    #[error("the body has another length than its Content-Length says")]
    WrongLength,
    #[error("the body is larger than the limit")]
    TooLarge,
}

/// What a source has at its front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Front {
    /// [`Source::data`] is not empty.
    Data,
    /// The body is complete; trailers are known.
    End,
}

/// Where a body comes from.
pub(crate) trait Source {
    /// Makes the front known. May be called again at any time.
    fn poll_front(&mut self, cx: &mut Context<'_>) -> Poll<Result<Front, Fault>>;
    /// The data at the front.
    fn data(&self) -> &[u8];
    /// Takes bytes off the front.
    fn consume(&mut self, count: usize);
    /// After [`Front::End`].
    fn trailers(&self) -> Option<&Headers>;
    /// Where the rest of the body comes from as it is, and how many bytes of it are still to come. `None`: it is framed,
    /// encrypted or of unknown length, or some of it was read already.
    fn socket(&self) -> Option<(&TcpStream, u64)> {
        None
    }
    /// Counts bytes that were taken from [`Source::socket`].
    fn bypassed(&mut self, _count: u64) {}
}

/// Where a body goes.
pub(crate) trait Sink {
    /// Takes some of the data at the front of `from`, which has some. Small data may stay unsent until the next flush.
    fn poll_take(&mut self, cx: &mut Context<'_>, from: &mut impl Source) -> Poll<Result<(), Fault>>;
    /// Queues the end of the body.
    ///
    /// # Errors
    /// When the body must not end here.
    fn finish(&mut self, trailers: Option<&Headers>) -> Result<(), Fault>;
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>>;
    /// After [`Sink::finish`] of a tunnel: tells the peer that nothing more comes.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.poll_flush(cx)
    }
    /// Where this many bytes of the body may be written as they are; `None` where they may not, or not yet.
    fn socket(&self, _count: u64) -> Option<&TcpStream> {
        None
    }
    /// Counts bytes that were given to [`Sink::socket`].
    fn bypassed(&mut self, _count: u64) {}
}

/// Reads an HTTP/1 body from a wire.
pub(crate) struct BodyReader {
    decoder: BodyDecoder,
    /// In the input of the wire.
    data: Range<usize>,
    /// Bytes of the input that are dealt with when `data` is used up.
    step: usize,
    done: bool,
    trailers: Option<Box<Headers>>,
}

impl BodyReader {
    pub(crate) fn new(length: BodyLength, limits: &Limits) -> Self {
        let decoder = BodyDecoder::new(length, limits);
        Self {
            done: decoder.is_done(),
            decoder,
            data: 0..0,
            step: 0,
            trailers: None,
        }
    }

    pub(crate) fn poll_front<S: Stream>(
        &mut self,
        cx: &mut Context<'_>,
        wire: &mut Wire<S>,
    ) -> Poll<Result<Front, Fault>> {
        loop {
            if !self.data.is_empty() {
                return Poll::Ready(Ok(Front::Data));
            }
            if self.step > 0 {
                wire.consume(std::mem::take(&mut self.step));
            }
            if self.done {
                if self.trailers.is_none() {
                    self.trailers = self.decoder.take_trailers().map(Box::new);
                }
                return Poll::Ready(Ok(Front::End));
            }
            if wire.input().is_empty() && ready!(wire.poll_fill(cx))? == 0 {
                self.decoder.finish().map_err(|_| Fault::Cut)?;
                self.done = true;
                continue;
            }
            let step = self.decoder.decode(wire.input())?;
            self.data = step.data;
            self.step = step.consumed;
            self.done = step.done;
        }
    }

    pub(crate) fn data<'w, S: Stream>(&self, wire: &'w Wire<S>) -> &'w [u8] {
        wire.input().get(self.data.clone()).unwrap_or_default()
    }

    pub(crate) fn consume(&mut self, count: usize) {
        debug_assert!(count <= self.data.len(), "consumes what was shown");
        self.data.start += count;
    }

    pub(crate) fn trailers(&self) -> Option<&Headers> {
        self.trailers.as_deref()
    }

    /// Whether the last byte was consumed.
    pub(crate) fn is_done(&self) -> bool {
        self.done && self.data.is_empty()
    }

    /// Deals with what was decoded and consumed, so that the input starts behind it.
    pub(crate) fn settle<S: Stream>(&mut self, wire: &mut Wire<S>) {
        if self.data.is_empty() && self.step > 0 {
            wire.consume(std::mem::take(&mut self.step));
        }
    }

    /// Bytes that come unframed and are not in the input of the wire; `None` where some are, or nobody knows how many come.
    pub(crate) fn bypassable(&self) -> Option<u64> {
        let left = self.decoder.unframed_left().filter(|left| *left < u64::MAX)?;
        (self.data.is_empty() && self.step == 0 && left > 0).then_some(left)
    }

    /// Counts bytes that bypassed the wire's input.
    pub(crate) fn bypassed(&mut self, count: u64) {
        self.decoder.bypass(count);
        self.done = self.decoder.is_done();
    }

    /// Bytes still to come, when known.
    pub(crate) fn left(&self) -> Option<u64> {
        Some(self.decoder.unframed_left()?.saturating_add(self.data.len() as u64))
    }
}

/// Output up to this size goes in one piece with what is before it.
const COALESCE: usize = 16 * 1024;

/// Writes an HTTP/1 body to a wire.
pub(crate) struct BodyWriter {
    framing: Framing,
    /// Bytes left of the chunk that was begun.
    chunk: usize,
}

impl BodyWriter {
    pub(crate) fn new(framing: Framing) -> Self {
        Self { framing, chunk: 0 }
    }

    pub(crate) fn poll_take<S: Stream>(
        &mut self,
        cx: &mut Context<'_>,
        wire: &mut Wire<S>,
        from: &mut impl Source,
    ) -> Poll<Result<(), Fault>> {
        let data = from.data();
        let mut count = data.len();
        match &mut self.framing {
            // An answer to HEAD, for one: whatever there is must not be sent.
            Framing::Nothing => {
                from.consume(count);
                return Poll::Ready(Ok(()));
            }
            Framing::Length(left) if count as u64 > *left => return Poll::Ready(Err(Fault::WrongLength)),
            Framing::Length(_) | Framing::UntilClose => {}
            Framing::Chunked => {
                if self.chunk == 0 {
                    encode::chunk_head(count, wire.output());
                    self.chunk = count;
                }
                count = count.min(self.chunk);
            }
        }
        let taken = if wire.pending() + count <= COALESCE {
            wire.output().extend_from_slice(&data[..count]);
            count
        } else {
            ready!(wire.poll_write(cx, &data[..count]))?
        };
        match &mut self.framing {
            Framing::Length(left) => *left -= taken as u64,
            Framing::Chunked => {
                self.chunk -= taken;
                if self.chunk == 0 {
                    wire.output().extend_from_slice(encode::CHUNK_END);
                }
            }
            Framing::Nothing | Framing::UntilClose => {}
        }
        from.consume(taken);
        Poll::Ready(Ok(()))
    }

    /// Whether `count` bytes may be written unframed.
    pub(crate) fn is_bypassable(&self, count: u64) -> bool {
        matches!(self.framing, Framing::Length(left) if count <= left)
    }

    /// Counts bytes that bypassed the wire's output.
    pub(crate) fn bypassed(&mut self, count: u64) {
        if let Framing::Length(left) = &mut self.framing {
            *left = left.saturating_sub(count);
        }
    }

    pub(crate) fn finish<S: Stream>(&mut self, wire: &mut Wire<S>, trailers: Option<&Headers>) -> Result<(), Fault> {
        match std::mem::replace(&mut self.framing, Framing::Nothing) {
            Framing::Length(left) if left > 0 => Err(Fault::WrongLength),
            Framing::Chunked => {
                encode::last_chunk(trailers, wire.output());
                Ok(())
            }
            Framing::Length(_) | Framing::Nothing | Framing::UntilClose => Ok(()),
        }
    }
}

/// A body that is there already.
pub(crate) struct Ready<'a>(pub(crate) &'a [u8]);

impl Source for Ready<'_> {
    fn poll_front(&mut self, _: &mut Context<'_>) -> Poll<Result<Front, Fault>> {
        Poll::Ready(Ok(if self.0.is_empty() { Front::End } else { Front::Data }))
    }

    fn data(&self) -> &[u8] {
        self.0
    }

    fn consume(&mut self, count: usize) {
        self.0 = &self.0[count..];
    }

    fn trailers(&self) -> Option<&Headers> {
        None
    }
}
