//! The streams of a connection, in the order of their numbers.

/// One stream, with what the caller keeps of it.
#[derive(Debug)]
pub(crate) struct Stream<T> {
    pub(crate) id: u32,
    /// The peer has sent its last, or may send no more.
    pub(crate) received: bool,
    /// We have sent our last, or may send no more.
    pub(crate) sent: bool,
    /// A final head has come.
    pub(crate) headed: bool,
    /// The peer's answer has no body, whatever its Content-Length says.
    pub(crate) bodyless: bool,
    /// What may still be sent; negative after the peer made its windows smaller.
    pub(crate) send_window: i64,
    /// What the peer may still send.
    pub(crate) recv_window: i64,
    /// Given to the caller and not consumed.
    pub(crate) held: u32,
    /// Consumed and not said to the peer.
    pub(crate) credit: u32,
    /// What is left of Content-Length.
    pub(crate) left: Option<u64>,
    pub(crate) own: T,
}

impl<T> Stream<T> {
    pub(crate) const fn is_open(&self) -> bool {
        !(self.received && self.sent)
    }
}

/// Streams by number. New ones have the largest, so the order costs nothing.
#[derive(Debug)]
pub(crate) struct Streams<T> {
    all: Vec<Stream<T>>,
    open: usize,
}

impl<T> Streams<T> {
    pub(crate) const fn new() -> Self {
        Self {
            all: Vec::new(),
            open: 0,
        }
    }

    /// How many there are, those that are over and were not forgotten included.
    pub(crate) const fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) const fn open(&self) -> usize {
        self.open
    }

    fn place(&self, id: u32) -> Option<usize> {
        // Most often it is one of few, or the newest.
        match self.all.last() {
            Some(last) if last.id == id => Some(self.all.len() - 1),
            _ => self.all.binary_search_by_key(&id, |stream| stream.id).ok(),
        }
    }

    pub(crate) fn get(&self, id: u32) -> Option<&Stream<T>> {
        self.place(id).map(|at| &self.all[at])
    }

    pub(crate) fn get_mut(&mut self, id: u32) -> Option<&mut Stream<T>> {
        self.place(id).map(|at| &mut self.all[at])
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream<T>> {
        self.all.iter_mut()
    }

    /// `stream` has a larger number than all others.
    pub(crate) fn push(&mut self, stream: Stream<T>) {
        debug_assert!(
            self.all.last().is_none_or(|last| last.id < stream.id),
            "numbers only grow"
        );
        self.open += usize::from(stream.is_open());
        self.all.push(stream);
    }

    pub(crate) fn remove(&mut self, id: u32) -> Option<Stream<T>> {
        let stream = self.all.remove(self.place(id)?);
        self.open -= usize::from(stream.is_open());
        Some(stream)
    }

    /// Ends one direction or both.
    pub(crate) fn close(&mut self, id: u32, received: bool, sent: bool) {
        if let Some(at) = self.place(id) {
            let stream = &mut self.all[at];
            let was = stream.is_open();
            stream.received |= received;
            stream.sent |= sent;
            self.open -= usize::from(was && !stream.is_open());
        }
    }
}
