//! Our end of one stream: the source of one body and the sink of the other.

use std::{
    rc::Rc,
    task::{Context, Poll},
};

use pierhead_http1::{Headers, ResponseHead};
use pierhead_http2::{Code, HeadWriter};

use super::{
    Gone, Link,
    link::{Arrived, Entry},
    message,
};
use crate::{
    http::body::{Fault, Front, Sink, Source},
    upstream::Came,
};

/// Most data taken from a source at once, so that streams take turns.
const CHUNK: usize = 32 * 1024;

/// Dropped, the stream is given up where it is not complete.
pub(crate) struct StreamEnd {
    link: Rc<Link>,
    id: u32,
    /// Data that came; consumed up to `at`.
    front: Vec<u8>,
    at: usize,
    ended: bool,
    trailers: Option<Box<Headers>>,
    /// We have said our last.
    done: bool,
    /// We are the server: an answer that is complete needs no more of the request.
    serving: bool,
}

impl StreamEnd {
    /// Of a stream that the peer opened; `ended` when the head was all.
    pub(crate) fn of_client(link: Rc<Link>, id: u32, ended: bool) -> Self {
        Self {
            link,
            id,
            front: Vec::new(),
            at: 0,
            ended,
            trailers: None,
            done: false,
            serving: true,
        }
    }

    /// Opens a stream and says its head. `None` when there is no room for it now.
    pub(crate) fn open(
        link: &Rc<Link>,
        bodyless: bool,
        end: bool,
        write: impl FnOnce(&mut HeadWriter<'_, Entry>),
    ) -> Option<Self> {
        let id = link.speak(|conn| {
            let id = conn.open(Entry::default(), bodyless)?;
            let mut head = conn.head(id)?;
            write(&mut head);
            head.finish(end);
            Some(id)
        })?;
        Some(Self {
            link: Rc::clone(link),
            id,
            front: Vec::new(),
            at: 0,
            ended: false,
            trailers: None,
            done: end,
            serving: false,
        })
    }

    /// Says a head.
    ///
    /// # Errors
    /// When the peer has given the stream up.
    pub(crate) fn say(&mut self, end: bool, write: impl FnOnce(&mut HeadWriter<'_, Entry>)) -> Result<(), Fault> {
        let said = self.link.speak(|conn| {
            let mut head = conn.head(self.id)?;
            write(&mut head);
            head.finish(end);
            Some(())
        });
        self.done |= end;
        said.ok_or_else(|| self.gone())
    }

    fn gone(&self) -> Fault {
        let mut inner = self.link.inner();
        let gone = inner.conn.stream(self.id).and_then(|entry| entry.gone);
        gone.unwrap_or(Gone::Lost).into()
    }

    /// Whether we have said our last.
    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    /// Gives the stream up.
    pub(crate) fn reset(&mut self, code: Code) {
        self.done = true;
        self.link.speak(|conn| conn.reset(self.id, code));
    }

    /// Ready when the peer has given the stream up.
    pub(crate) fn poll_gone(&self, cx: &Context<'_>) -> Poll<()> {
        let mut inner = self.link.inner();
        match inner.conn.stream(self.id) {
            Some(entry) if entry.gone.is_none() => {
                entry.wait(cx);
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    /// Reads the head of a response.
    pub(crate) fn poll_head(&self, cx: &Context<'_>, head: &mut ResponseHead) -> Poll<Result<Came, Fault>> {
        let mut inner = self.link.inner();
        let Some(entry) = inner.conn.stream(self.id) else {
            return Poll::Ready(Err(Gone::Lost.into()));
        };
        if entry.heads.is_empty() {
            if let Some(gone) = entry.gone {
                return Poll::Ready(Err(gone.into()));
            }
            entry.wait(cx);
            return Poll::Pending;
        }
        let mut arrived: Box<Arrived> = entry.heads.remove(0);
        std::mem::swap(head, &mut arrived.head);
        let length = std::mem::replace(&mut arrived.length, Err(Fault::Cut));
        inner.recycle(arrived);
        let length = length?;
        Poll::Ready(Ok(if head.status.is_interim() {
            Came::Interim
        } else {
            Came::Final(length)
        }))
    }
}

impl Drop for StreamEnd {
    fn drop(&mut self) {
        let code = if self.done && self.serving {
            // RFC 9113 §8.1: the rest of the request is not needed.
            Code::NO_ERROR
        } else {
            Code::CANCEL
        };
        let mut inner = self.link.inner();
        inner.forget(self.id, code);
        inner.give_back(std::mem::take(&mut self.front));
    }
}

impl Source for StreamEnd {
    fn poll_front(&mut self, cx: &mut Context<'_>) -> Poll<Result<Front, Fault>> {
        if self.at < self.front.len() {
            return Poll::Ready(Ok(Front::Data));
        }
        if self.ended {
            return Poll::Ready(Ok(Front::End));
        }
        let mut inner = self.link.inner();
        let Some(entry) = inner.conn.stream(self.id) else {
            return Poll::Ready(Err(Gone::Lost.into()));
        };
        if !entry.data.is_empty() {
            self.front.clear();
            self.at = 0;
            std::mem::swap(&mut self.front, &mut entry.data);
            return Poll::Ready(Ok(Front::Data));
        }
        if entry.ended {
            self.ended = true;
            self.trailers = entry.trailers.take();
            return Poll::Ready(Ok(Front::End));
        }
        if let Some(gone) = entry.gone {
            return Poll::Ready(Err(gone.into()));
        }
        entry.wait(cx);
        Poll::Pending
    }

    fn data(&self) -> &[u8] {
        &self.front[self.at..]
    }

    fn consume(&mut self, count: usize) {
        debug_assert!(self.at + count <= self.front.len(), "consumes what was shown");
        self.at += count;
        let mut inner = self.link.inner();
        if inner.speaking().consumed(self.id, count) {
            inner.wake_driver();
        }
    }

    fn trailers(&self) -> Option<&Headers> {
        self.trailers.as_deref()
    }
}

impl Sink for StreamEnd {
    fn poll_take(&mut self, cx: &mut Context<'_>, from: &mut impl Source) -> Poll<Result<(), Fault>> {
        let wanted = from.data().len().min(CHUNK);
        if self.done {
            // The head ended the stream: an answer to HEAD, for one.
            from.consume(wanted);
            return Poll::Ready(Ok(()));
        }
        let mut inner = self.link.inner();
        let taken = inner.speaking().data(self.id, &from.data()[..wanted]);
        if taken == 0 && inner.conn.is_sendable(self.id) {
            inner.block(self.id, cx);
            return Poll::Pending;
        }
        if taken > 0 {
            inner.wake_driver();
        }
        drop(inner);
        if taken == 0 {
            return Poll::Ready(Err(self.gone()));
        }
        from.consume(taken);
        Poll::Ready(Ok(()))
    }

    fn finish(&mut self, trailers: Option<&Headers>) -> Result<(), Fault> {
        if self.done {
            return Ok(());
        }
        match trailers {
            Some(trailers) => self.say(true, |head| message::write_fields(trailers, head)),
            None => {
                self.done = true;
                let ended = self.link.speak(|conn| conn.end(self.id));
                if ended { Ok(()) } else { Err(self.gone()) }
            }
        }
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        // The connection's driver sends.
        Poll::Ready(Ok(()))
    }
}
