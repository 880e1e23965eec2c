//! Datagrams: sessions between a client and an endpoint, bounded in number and time.
//!
//! A session is one client address and one address it sent to. It has a connected socket towards its endpoint, and answers
//! in the name of the address the client sent to.

mod datagram;
mod session;
mod table;

use std::{cell::RefCell, io, rc::Rc, sync::mpsc as std_mpsc};

use pierhead_model::Transport;
use tokio::{io::Interest, net::UdpSocket, sync::oneshot};

use self::{datagram::Datagram, session::Session, table::Table};
use crate::{conn::canonical, runtime::Protocol, worker::Worker};

/// Datagrams taken in a row before other tasks get their turn.
const BATCH: usize = 64;
/// The largest datagram there is.
const MAX_BYTES: usize = 65_535;

/// Who answers clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replies {
    /// The socket datagrams come in by: it is bound to the port they were sent to.
    SameSocket,
    /// Sockets made for that: steered datagrams come in by a socket that has another port.
    OwnSockets,
}

/// Receives datagrams until told to stop; its sessions end then.
pub(crate) async fn receive(
    worker: Rc<Worker>,
    socket: UdpSocket,
    replies: Replies,
    mut stopped: oneshot::Receiver<std_mpsc::Sender<()>>,
) {
    let socket = Rc::new(socket);
    let table = Rc::new(RefCell::new(Table::default()));
    let mut buffer = vec![0; MAX_BYTES];
    let done = loop {
        tokio::select! {
            biased;
            done = &mut stopped => break done,
            ready = socket.readable() => {
                if ready.is_err() {
                    // The event loop is gone, and so is the worker.
                    break (&mut stopped).await;
                }
                for _ in 0..BATCH {
                    match socket.try_io(Interest::READABLE, || datagram::receive(&*socket, &mut buffer)) {
                        Ok(datagram) => {
                            let bytes = buffer.get(..datagram.length).unwrap_or_default();
                            forward(&worker, &socket, replies, &table, datagram, bytes);
                        }
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                        // An ICMP error about an earlier answer.
                        Err(_) => {}
                    }
                }
                tokio::task::yield_now().await;
            }
        }
    };
    table.borrow_mut().end_all();
    drop(socket);
    if let Ok(done) = done {
        let _ = done.send(());
    }
}

/// Sends one datagram on: in its session, or in a new one.
fn forward(
    worker: &Rc<Worker>,
    socket: &Rc<UdpSocket>,
    replies: Replies,
    table: &Rc<RefCell<Table>>,
    datagram: Datagram,
    bytes: &[u8],
) {
    let (Some(peer), Some(local)) = (datagram.peer, datagram.local) else {
        worker.cells().strays.add(1);
        return;
    };
    let key = (peer, local);
    let known = table.borrow().find(&key);
    if let Some(session) = known {
        if session.is_current() {
            session.send(bytes);
            return;
        }
        table.borrow_mut().end(&key);
    }
    let runtime = worker.runtime();
    let local_ip = canonical(local).ip();
    let listener = runtime
        .binds
        .find(Transport::Udp, local_ip, local.port())
        .and_then(|bind| Some((bind, bind.first()?)));
    let Some((bind, listener)) = listener else {
        worker.cells().strays.add(1);
        return;
    };
    let cells = listener.cells.of(worker.number);
    let Protocol::Udp(Some(target)) = &listener.protocol else {
        cells.datagrams_dropped.add(1);
        return;
    };
    let bind = bind.model.key;
    table.borrow_mut().make_room(bind, listener.limits().udp_sessions);
    match Session::begin(worker, socket, replies, table, key, listener, target) {
        Ok(session) => {
            table.borrow_mut().insert(bind, key, Rc::clone(&session));
            session.send(bytes);
        }
        Err(reason) => {
            cells.datagrams_dropped.add(1);
            cells.refuse(reason);
        }
    }
}
