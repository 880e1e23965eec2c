use std::{net::SocketAddr, rc::Rc, sync::Arc};

use pierhead_model::Transport;
use tokio::{net::TcpStream, task::spawn_local};

use crate::{
    conn::{Conn, canonical, reset},
    http,
    observe::Reason,
    runtime::Protocol,
    tcp, tls,
    worker::Worker,
};

/// Finds the bind of a new connection, counts it in, and starts its task. What may not come in is reset: nothing was
/// promised yet, and a reset leaves nothing behind here.
pub(super) fn admit(worker: &Rc<Worker>, stream: TcpStream, peer: SocketAddr) {
    // Of a steered connection this is where the client wanted to go.
    let Ok(local) = stream.local_addr() else {
        worker.cells().accept_errors.add(1);
        return;
    };
    let (local, peer) = (canonical(local), canonical(peer));
    let runtime = worker.runtime();
    let Some(bind) = runtime.binds.find(Transport::Tcp, local.ip(), local.port()) else {
        worker.cells().strays.add(1);
        reset(stream);
        return;
    };
    let Some(first) = bind.first() else {
        worker.cells().strays.add(1);
        reset(stream);
        return;
    };
    let Some(slot) = first.gauge.enter(first.limits().connections) else {
        first.cells.of(worker.number).refuse(Reason::LimitReached);
        reset(stream);
        return;
    };
    if stream.set_nodelay(true).is_err() {
        // Only a connection that is gone already refuses this.
        return;
    }
    let conn = Conn::new(worker, peer, local, bind, slot);
    match &first.protocol {
        Protocol::Http(_) => {
            spawn_local(http::serve(stream, conn));
        }
        Protocol::Https { .. } | Protocol::TlsPassthrough(_) | Protocol::TlsTerminate { .. } => {
            spawn_local(tls::serve(stream, conn));
        }
        Protocol::Tcp(target) => {
            let (listener, target) = (Arc::clone(first), target.clone());
            spawn_local(tcp::serve(stream, conn, listener, target));
        }
        Protocol::Udp(_) => reset(stream),
    }
}
