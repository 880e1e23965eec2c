//! After a switch of protocols: bytes in both directions, each closed on its own.

use std::{
    future::poll_fn,
    task::{Context, Poll},
    time::Duration,
};

use pierhead_http1::{BodyLength, Headers, Limits, encode::Framing};
use tokio::time::Instant;

use super::{
    body::{BodyReader, BodyWriter, Fault, Front, Sink, Source},
    client::Client,
    io::{Stream, Wire},
    pump::Broke,
    timer::Timer,
};

/// What went through a tunnel.
#[derive(Debug)]
pub(crate) struct Carried {
    /// From the client.
    pub(crate) up: u64,
    pub(crate) down: u64,
    /// `None`: both sides closed in order.
    pub(crate) broke: Option<Broke>,
}

/// One end of a tunnel that was HTTP/1; what was read past the head comes first.
struct Bytes<S> {
    wire: Wire<S>,
    reader: BodyReader,
    writer: BodyWriter,
}

impl<S: Stream> Source for Bytes<S> {
    fn poll_front(&mut self, cx: &mut Context<'_>) -> Poll<Result<Front, Fault>> {
        self.reader.poll_front(cx, &mut self.wire)
    }

    fn data(&self) -> &[u8] {
        self.reader.data(&self.wire)
    }

    fn consume(&mut self, count: usize) {
        self.reader.consume(count);
    }

    fn trailers(&self) -> Option<&Headers> {
        None
    }
}

impl<S: Stream> Sink for Bytes<S> {
    fn poll_take(&mut self, cx: &mut Context<'_>, from: &mut impl Source) -> Poll<Result<(), Fault>> {
        self.writer.poll_take(cx, &mut self.wire, from)
    }

    fn finish(&mut self, _: Option<&Headers>) -> Result<(), Fault> {
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.wire.poll_flush(cx).map_err(Fault::from)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.wire.poll_shutdown(cx).map_err(Fault::from)
    }
}

/// Where one direction stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Open,
    Closing,
    Closed,
}

/// Moves what can be moved in one direction; says whether anything was.
fn carry(
    cx: &mut Context<'_>,
    from: &mut impl Source,
    to: &mut impl Sink,
    way: &mut Way,
    bytes: &mut u64,
) -> (bool, Result<(), Fault>, Result<(), Fault>) {
    let mut moved = false;
    while *way == Way::Open {
        match from.poll_front(cx) {
            Poll::Ready(Ok(Front::Data)) => {
                let before = from.data().len();
                match to.poll_take(cx, from) {
                    Poll::Ready(Ok(())) => {
                        moved = true;
                        *bytes += (before - from.data().len()) as u64;
                    }
                    Poll::Ready(Err(fault)) => return (moved, Ok(()), Err(fault)),
                    Poll::Pending => break,
                }
            }
            Poll::Ready(Ok(Front::End)) => {
                *way = Way::Closing;
                if let Err(fault) = to.finish(None) {
                    return (moved, Ok(()), Err(fault));
                }
            }
            Poll::Ready(Err(fault)) => return (moved, Err(fault), Ok(())),
            Poll::Pending => break,
        }
    }
    match to.poll_flush(cx) {
        Poll::Ready(Ok(())) => {}
        Poll::Ready(Err(fault)) => return (moved, Ok(()), Err(fault)),
        Poll::Pending => return (moved, Ok(()), Ok(())),
    }
    if *way == Way::Closing {
        // A peer that has gone needs no farewell.
        if to.poll_close(cx).is_ready() {
            *way = Way::Closed;
        }
    }
    (moved, Ok(()), Ok(()))
}

/// Carries bytes between `client`, which was switched already, and the backend's `wire`, until both directions are closed,
/// one side breaks, or nothing moves for `limit`.
pub(crate) async fn run<C: Client, S: Stream>(
    client: &mut C,
    wire: Wire<S>,
    timer: &mut Timer,
    limit: Duration,
) -> Carried {
    let mut backend = Bytes {
        wire,
        reader: BodyReader::new(BodyLength::UntilClose, &Limits::default()),
        writer: BodyWriter::new(Framing::UntilClose),
    };
    let (mut up, mut down) = (0, 0);
    let (mut upward, mut downward) = (Way::Open, Way::Open);
    timer.set(Some(Instant::now() + limit));
    let broke = poll_fn(|cx| {
        let (sent, from_client, to_backend) = carry(cx, client, &mut backend, &mut upward, &mut up);
        let (received, from_backend, to_client) = carry(cx, &mut backend, client, &mut downward, &mut down);
        if let Err(fault) = from_client.and(to_client) {
            return Poll::Ready(Some(Broke::Client(fault)));
        }
        if let Err(fault) = to_backend.and(from_backend) {
            return Poll::Ready(Some(Broke::Upstream(fault)));
        }
        if upward == Way::Closed && downward == Way::Closed {
            return Poll::Ready(None);
        }
        if sent || received {
            timer.set(Some(Instant::now() + limit));
        }
        timer.poll(cx).map(|()| Some(Broke::ClientIdle))
    })
    .await;
    Carried { up, down, broke }
}
