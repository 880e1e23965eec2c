use std::{
    cell::{Cell, RefCell},
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdUdpSocket},
    rc::Rc,
    sync::Arc,
};

use pierhead_model::{BackendId, BackendTarget, Origin};
use socket2::SockRef;
use tokio::{
    net::UdpSocket,
    sync::Notify,
    task::spawn_local,
    time::{Instant, sleep_until},
};

use super::{
    MAX_BYTES, Replies, datagram,
    table::{Key, Table},
};
use crate::{
    accept::sockets,
    observe::{Exchange, Reason},
    runtime::{L4Target, ListenerRuntime},
    upstream::Backend,
    worker::{Current, Worker},
};

thread_local! {
    /// Where an answer is while it is on its way: no session keeps a buffer.
    static ANSWER: RefCell<Vec<u8>> = RefCell::new(vec![0; MAX_BYTES]);
}

/// One client talking with one endpoint.
pub(super) struct Session {
    worker: Rc<Worker>,
    key: Key,
    listener: Arc<ListenerRuntime>,
    route: Origin,
    backend: Arc<Backend>,
    endpoint: SocketAddr,
    upstream: UdpSocket,
    reply: Reply,
    /// The snapshot in which it was last seen to be right.
    checked: RefCell<Current>,
    began: Instant,
    used: Cell<Instant>,
    bytes_in: Cell<u64>,
    bytes_out: Cell<u64>,
    reason: Cell<Reason>,
    ended: Notify,
}

enum Reply {
    /// By the socket the client's datagrams come in by, which may have many addresses.
    Shared(Rc<UdpSocket>),
    /// By a socket bound to where the client sent to.
    Own(socket2::Socket),
}

impl Session {
    /// Picks an endpoint and starts to carry its answers.
    pub(super) fn begin(
        worker: &Rc<Worker>,
        socket: &Rc<UdpSocket>,
        replies: Replies,
        table: &Rc<RefCell<Table>>,
        key: Key,
        listener: &Arc<ListenerRuntime>,
        target: &L4Target,
    ) -> Result<Rc<Self>, Reason> {
        let picked = target.backends.pick().ok_or(Reason::NoBackend)?;
        let backend = picked.backend.ok_or(Reason::BackendInvalid)?;
        if backend.usable().is_err() {
            return Err(Reason::BackendInvalid);
        }
        let cells = backend.cells.of(worker.number);
        let fail = |reason| {
            cells.fail(reason);
            reason
        };
        let endpoint = backend.pick(&[]).ok_or_else(|| fail(Reason::NoEndpoint))?;
        cells.attempts.add(1);
        let upstream = connected(endpoint).map_err(|_| fail(Reason::ConnectFailed))?;
        let reply = match replies {
            Replies::SameSocket => Reply::Shared(Rc::clone(socket)),
            Replies::OwnSockets => Reply::Own(sockets::replying(key.1).map_err(|error| {
                tracing::debug!(address = %key.1, %error, "cannot answer datagrams in the name of this address");
                Reason::Internal
            })?),
        };
        let now = Instant::now();
        let session = Rc::new(Self {
            worker: Rc::clone(worker),
            key,
            listener: Arc::clone(listener),
            route: target.route.origin.clone(),
            backend: Arc::clone(backend),
            endpoint,
            upstream,
            reply,
            checked: RefCell::new(worker.runtime()),
            began: now,
            used: Cell::new(now),
            bytes_in: Cell::new(0),
            bytes_out: Cell::new(0),
            reason: Cell::new(Reason::Draining),
            ended: Notify::new(),
        });
        listener.cells.of(worker.number).opened.add(1);
        let (task, table) = (Rc::clone(&session), Rc::clone(table));
        spawn_local(async move {
            let reason = task.carry_answers().await;
            task.reason.set(reason);
            table.borrow_mut().forget(&task.key, &task);
        });
        Ok(session)
    }

    pub(super) fn used(&self) -> Instant {
        self.used.get()
    }

    /// Makes it end soon.
    pub(super) fn end(&self) {
        self.ended.notify_one();
    }

    /// Whether the snapshot in force still means this session: its listener is there, and its endpoint too.
    pub(super) fn is_current(&self) -> bool {
        let now = self.worker.runtime();
        if self.checked.borrow().is(&now) {
            return true;
        }
        let local = crate::conn::canonical(self.key.1);
        let bind = now.binds.find(pierhead_model::Transport::Udp, local.ip(), local.port());
        let current =
            bind.is_some_and(|bind| bind.same(&self.listener).is_some()) && self.is_known(&now, &self.backend.model.id);
        if current {
            *self.checked.borrow_mut() = now;
        }
        current
    }

    fn is_known(&self, runtime: &Current, backend: &BackendId) -> bool {
        let Some(model) = runtime.snapshot.backends.get(backend) else {
            return false;
        };
        match &model.target {
            BackendTarget::Endpoints(id) => runtime
                .snapshot
                .endpoints
                .get(id)
                .is_some_and(|set| set.endpoints.iter().any(|e| e.address == self.endpoint)),
            // What a name resolves to may change; the flow stays with what answers it.
            BackendTarget::Dns { .. } => true,
            BackendTarget::Invalid { .. } => false,
        }
    }

    /// Sends a datagram of the client on. What finds no room is dropped, as on any link.
    pub(super) fn send(&self, bytes: &[u8]) {
        self.used.set(Instant::now());
        let cells = self.listener.cells.of(self.worker.number);
        cells.datagrams_in.add(1);
        cells.bytes_in.add(bytes.len() as u64);
        self.bytes_in.set(self.bytes_in.get() + bytes.len() as u64);
        if SockRef::from(&self.upstream).send(bytes).is_err() {
            cells.datagrams_dropped.add(1);
        }
    }

    async fn carry_answers(&self) -> Reason {
        let limit = self.listener.limits().udp_idle_timeout;
        loop {
            tokio::select! {
                biased;
                () = self.ended.notified() => return Reason::Draining,
                ready = self.upstream.readable() => {
                    if ready.is_err() {
                        return Reason::Internal;
                    }
                    if let Err(reason) = ANSWER.with_borrow_mut(|buffer| self.take_answers(buffer)) {
                        return reason;
                    }
                    tokio::task::yield_now().await;
                }
                () = sleep_until(self.used.get() + limit) => {
                    if self.used.get().elapsed() >= limit {
                        return Reason::Done;
                    }
                }
            }
        }
    }

    fn take_answers(&self, buffer: &mut [u8]) -> Result<(), Reason> {
        for _ in 0..super::BATCH {
            match self.upstream.try_recv(buffer) {
                Ok(length) => self.answer(buffer.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    // ICMP says that nobody is there. The next datagram gets another endpoint.
                    self.backend.cells.of(self.worker.number).fail(Reason::ConnectFailed);
                    return Err(Reason::ConnectFailed);
                }
            }
        }
        Ok(())
    }

    fn answer(&self, bytes: &[u8]) {
        self.used.set(Instant::now());
        let (peer, local) = self.key;
        let sent = match &self.reply {
            Reply::Shared(socket) => datagram::answer(&**socket, bytes, local, peer),
            Reply::Own(socket) => socket.send_to(bytes, &peer.into()),
        };
        let cells = self.listener.cells.of(self.worker.number);
        if sent.is_ok() {
            cells.datagrams_out.add(1);
            cells.bytes_out.add(bytes.len() as u64);
            self.bytes_out.set(self.bytes_out.get() + bytes.len() as u64);
        } else {
            cells.datagrams_dropped.add(1);
        }
    }
}

fn connected(endpoint: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match endpoint {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = StdUdpSocket::bind(any)?;
    socket.set_nonblocking(true)?;
    socket.connect(endpoint)?;
    UdpSocket::from_std(socket)
}

impl Drop for Session {
    fn drop(&mut self) {
        let cells = self.listener.cells.of(self.worker.number);
        cells.closed.add(1);
        cells.end(self.reason.get());
        self.worker.log.write(|| Exchange {
            protocol: "udp",
            peer: self.key.0,
            local: self.key.1,
            listener: Some(&self.listener.model.id),
            sni: None,
            route: Some(&self.route),
            backend: Some(&self.backend.model.id),
            endpoint: Some(self.endpoint),
            request: None,
            reason: self.reason.get(),
            duration: self.began.elapsed(),
            bytes_in: self.bytes_in.get(),
            bytes_out: self.bytes_out.get(),
            attempts: 1,
        });
    }
}
