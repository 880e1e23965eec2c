//! Takes connections from listening sockets and hands each to the protocol its bind speaks.

mod admit;
mod proxy;
pub(crate) mod sockets;

use std::{io, rc::Rc, sync::mpsc as std_mpsc, time::Duration};

use tokio::{net::TcpListener, sync::oneshot, time::sleep};

use crate::worker::Worker;

/// Pause after an accept that failed for want of something (descriptors, memory): trying at once would spin.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts until told to stop. What is queued then is still served: its clients were told that they are connected.
pub(crate) async fn listen(
    worker: Rc<Worker>,
    listener: TcpListener,
    mut stopped: oneshot::Receiver<std_mpsc::Sender<()>>,
) {
    let done = loop {
        tokio::select! {
            biased;
            done = &mut stopped => break done,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => admit::admit(&worker, stream, peer),
                Err(error) => {
                    worker.cells().accept_errors.add(1);
                    if is_shortage(&error) {
                        tracing::warn!(%error, "cannot accept connections for now");
                        sleep(PAUSE).await;
                    }
                }
            },
        }
    };
    if let Ok(listener) = listener.into_std() {
        while let Ok((stream, peer)) = listener.accept() {
            if stream.set_nonblocking(true).is_ok()
                && let Ok(stream) = tokio::net::TcpStream::from_std(stream)
            {
                admit::admit(&worker, stream, peer);
            }
        }
    }
    if let Ok(done) = done {
        let _ = done.send(());
    }
}

/// Whether the next accept would fail for the same reason. Others concern one connection only (accept(2)).
fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let shortages = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    error
        .raw_os_error()
        .is_some_and(|code| shortages.iter().any(|errno| errno.raw_os_error() == code))
}
