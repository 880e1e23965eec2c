//! The socket between the two processes: the standard input of the one that serves. What it says there is read when it is
//! dead, so neither ever waits for the other.

use std::io::{IoSlice, IoSliceMut, Stdin};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use pierhead_dataplane::WorkerSockets;
use rustix::io::{Errno, Result};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

/// Sockets of one worker.
const KINDS: usize = 4;

const SERVING: u8 = b'S';
const LEFT: u8 = b'L';
/// Followed by the worker's number and by which of its sockets come along.
const DOORS: u8 = b'D';
const LONGEST: usize = 4;

/// One end.
#[derive(Debug)]
pub(super) struct Line<T = OwnedFd>(T);

/// Everything that was said.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// It is in charge.
    pub(super) serving: bool,
    /// A successor has taken over.
    pub(super) left: bool,
    /// By which connections come in.
    pub(super) doors: Vec<WorkerSockets>,
}

impl Line {
    /// Both ends. Messages stay whole.
    pub(super) fn pair() -> Result<(Self, OwnedFd)> {
        let (one, other) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        Ok((Self(one), other))
    }
}

impl Line<Stdin> {
    /// The end of the process that serves.
    pub(super) fn own() -> Self {
        Self(std::io::stdin())
    }
}

impl<T: AsFd> Line<T> {
    pub(super) fn serving(&self) -> Result<()> {
        self.say(&[SERVING], &[])
    }

    pub(super) fn left(&self) -> Result<()> {
        self.say(&[LEFT], &[])
    }

    /// Gives a copy of these sockets to the other side, which keeps them open.
    pub(super) fn pass(&self, doors: &WorkerSockets) -> Result<()> {
        let all = [&doors.tcp4, &doors.tcp6, &doors.udp4, &doors.udp6];
        let mut which = 0;
        let mut sockets: Vec<BorrowedFd<'_>> = Vec::with_capacity(KINDS);
        for (kind, socket) in all.into_iter().enumerate() {
            if let Some(socket) = socket {
                which |= 1 << kind;
                sockets.push(socket.as_fd());
            }
        }
        let [high, low] = u16::try_from(doors.worker).map_err(|_| Errno::INVAL)?.to_be_bytes();
        self.say(&[DOORS, high, low, which], &sockets)
    }

    fn say(&self, message: &[u8], sockets: &[BorrowedFd<'_>]) -> Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(KINDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !sockets.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(sockets));
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        sendmsg(&self.0, &[IoSlice::new(message)], &mut control, flags).map(drop)
    }

    /// All that was said until now.
    pub(super) fn hear(&self) -> Said {
        let mut said = Said::default();
        loop {
            let mut message = [0; LONGEST];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(KINDS))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
            let length = match recvmsg(&self.0, &mut [IoSliceMut::new(&mut message)], &mut control, flags) {
                Ok(received) if received.bytes > 0 => received.bytes,
                // Of one that died before it had read all; said once, and what it said itself comes after it.
                Err(Errno::CONNRESET | Errno::INTR) => continue,
                Ok(_) | Err(_) => return said,
            };
            let sockets = control.drain().filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
                _ => None,
            });
            match message.get(..length) {
                Some([SERVING]) => said.serving = true,
                Some([LEFT]) => said.left = true,
                Some([DOORS, high, low, which]) => {
                    let worker = usize::from(u16::from_be_bytes([*high, *low]));
                    said.doors.push(doors(worker, *which, sockets.flatten()));
                }
                _ => {}
            }
        }
    }
}

fn doors(worker: usize, which: u8, mut sockets: impl Iterator<Item = OwnedFd>) -> WorkerSockets {
    let mut next = |kind: u8| (which & (1 << kind) != 0).then(|| sockets.next()).flatten();
    WorkerSockets {
        worker,
        tcp4: next(0),
        tcp6: next(1),
        udp4: next(2),
        udp6: next(3),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    fn open() -> (WorkerSockets, u16, u16) {
        let (tcp, udp) = (
            TcpListener::bind("127.0.0.1:0").unwrap(),
            UdpSocket::bind("127.0.0.1:0").unwrap(),
        );
        let ports = (tcp.local_addr().unwrap().port(), udp.local_addr().unwrap().port());
        let doors = WorkerSockets {
            worker: 3,
            tcp4: Some(tcp.into()),
            tcp6: None,
            udp4: None,
            udp6: Some(udp.into()),
        };
        (doors, ports.0, ports.1)
    }

    #[test]
    fn what_a_dead_process_said_is_heard_and_its_doors_stay_open() {
        let (line, other) = Line::pair().unwrap();
        let (doors, tcp, udp) = open();
        let other = Line(other);
        other.pass(&doors).unwrap();
        other.serving().unwrap();
        drop((doors, other));
        let mut said = line.hear();
        assert!(said.serving && !said.left);
        let doors = said.doors.pop().unwrap();
        assert!(said.doors.is_empty() && doors.worker == 3 && doors.tcp6.is_none() && doors.udp4.is_none());
        let listener = TcpListener::from(doors.tcp4.unwrap());
        assert_eq!(listener.local_addr().unwrap().port(), tcp);
        assert_eq!(UdpSocket::from(doors.udp6.unwrap()).local_addr().unwrap().port(), udp);
    }

    #[test]
    fn one_that_died_before_it_had_heard_all_is_heard_still() {
        let (line, other) = Line::pair().unwrap();
        let (doors, ..) = open();
        line.pass(&doors).unwrap();
        let other = Line(other);
        other.left().unwrap();
        drop(other);
        assert!(line.hear().left);
        assert!(!line.hear().left, "it ends");
    }
}
