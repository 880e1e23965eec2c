//! What a proxy cannot do without: a program of one thread that forwards between sockets, one to the backend for each of a client,
//! and looks at nothing. It is no candidate: it says what is left to win.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, BorrowedFd},
};

use anyhow::{Context as _, Result};
use rustix::{
    buffer::spare_capacity,
    event::epoll::{self, CreateFlags, EventData, EventFlags},
    io::Errno,
    net::{RecvFlags, SendFlags},
};

/// As much as is read at once.
const BUFFER: usize = 64 * 1024;
const EVENTS: usize = 256;

/// Listens on the first of each pair and forwards to the second, until it is killed.
///
/// # Errors
/// When it cannot listen, or the backend does not answer.
pub(crate) fn run(words: &[String]) -> Result<()> {
    let mut forwarder = Forwarder {
        epoll: epoll::create(CreateFlags::CLOEXEC)?,
        listeners: Vec::new(),
        pairs: Vec::new(),
        free: Vec::new(),
    };
    for pair in words.chunks_exact(2) {
        let [from, to] = [&pair[0], &pair[1]].map(|word| word.parse::<SocketAddr>());
        forwarder.listen(from.context("an address")?, to.context("an address")?)?;
    }
    forwarder.serve()
}

/// A socket, and what waits to be written to it.
struct Side {
    stream: TcpStream,
    rest: Vec<u8>,
}

struct Forwarder {
    epoll: std::os::fd::OwnedFd,
    listeners: Vec<(TcpListener, SocketAddr)>,
    /// Client and backend. An event's number is twice the place, and one more for the backend.
    pairs: Vec<Option<[Side; 2]>>,
    free: Vec<usize>,
}

impl Forwarder {
    fn listen(&mut self, from: SocketAddr, to: SocketAddr) -> Result<()> {
        let listener = TcpListener::bind(from)?;
        listener.set_nonblocking(true)?;
        // From the end, where no pair is.
        let number = u64::MAX - self.listeners.len() as u64;
        self.watch(listener.as_fd(), number)?;
        self.listeners.push((listener, to));
        Ok(())
    }

    fn watch(&self, socket: BorrowedFd<'_>, number: u64) -> Result<()> {
        Ok(epoll::add(
            &self.epoll,
            socket,
            EventData::new_u64(number),
            EventFlags::IN,
        )?)
    }

    fn serve(&mut self) -> Result<()> {
        let mut buffer = vec![0; BUFFER];
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            events.clear();
            epoll::wait(&self.epoll, spare_capacity(&mut events), None)?;
            for event in &events {
                let (number, flags) = (event.data.u64(), event.flags);
                let listener = usize::try_from(u64::MAX - number).unwrap_or(usize::MAX);
                if listener < self.listeners.len() {
                    self.accept(listener)?;
                    continue;
                }
                let number = usize::try_from(number)?;
                if !self.turn(number / 2, number % 2, flags, &mut buffer)? {
                    self.pairs[number / 2] = None;
                    self.free.push(number / 2);
                }
            }
        }
    }

    fn accept(&mut self, listener: usize) -> Result<()> {
        let (listener, to) = &self.listeners[listener];
        let Ok((client, _)) = listener.accept() else {
            return Ok(());
        };
        let backend = TcpStream::connect(to)?;
        let place = self.free.pop().unwrap_or(self.pairs.len());
        for (side, stream) in [&client, &backend].into_iter().enumerate() {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            self.watch(stream.as_fd(), (place * 2 + side) as u64)?;
        }
        let pair = Some([client, backend].map(|stream| Side {
            stream,
            rest: Vec::new(),
        }));
        match self.pairs.get_mut(place) {
            Some(free) => *free = pair,
            None => self.pairs.push(pair),
        }
        Ok(())
    }

    /// Something happened at one side of a pair. False: it is over.
    fn turn(&mut self, place: usize, side: usize, flags: EventFlags, buffer: &mut [u8]) -> Result<bool> {
        // Of a pair that ended in the same round there may be events left.
        let Some(Some(pair)) = self.pairs.get_mut(place) else {
            return Ok(true);
        };
        let (clients, backends) = pair.split_at_mut(1);
        let (this, other) = match side {
            0 => (&mut clients[0], &mut backends[0]),
            _ => (&mut backends[0], &mut clients[0]),
        };
        let change = |stream: &TcpStream, side: usize, flags| {
            epoll::modify(
                &self.epoll,
                stream,
                EventData::new_u64((place * 2 + side) as u64),
                flags,
            )
        };
        if flags.contains(EventFlags::OUT) && !this.rest.is_empty() {
            let sent = match rustix::net::send(&this.stream, &this.rest, SendFlags::NOSIGNAL) {
                Ok(sent) => sent,
                Err(Errno::AGAIN) => 0,
                Err(_) => return Ok(false),
            };
            this.rest.drain(..sent);
            if this.rest.is_empty() {
                change(&this.stream, side, EventFlags::IN)?;
                change(&other.stream, 1 - side, EventFlags::IN)?;
            }
            return Ok(true);
        }
        let got = match rustix::net::recv(&this.stream, &mut *buffer, RecvFlags::empty()) {
            Ok((_, 0)) => return Ok(false),
            Ok((_, got)) => got,
            Err(Errno::AGAIN) => return Ok(true),
            Err(_) => return Ok(false),
        };
        let sent = match rustix::net::send(&other.stream, &buffer[..got], SendFlags::NOSIGNAL) {
            Ok(sent) => sent,
            Err(Errno::AGAIN) => 0,
            Err(_) => return Ok(false),
        };
        if sent < got {
            other.rest.extend_from_slice(&buffer[sent..got]);
            change(&other.stream, 1 - side, EventFlags::OUT)?;
            change(&this.stream, side, EventFlags::empty())?;
        }
        Ok(true)
    }
}
