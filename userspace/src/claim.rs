//! One instance per network namespace and state folder, and how it hands over to the next.
//!
//! The claim is an abstract Unix socket: its name belongs to the network namespace (so it is one for all pods of a node
//! that use the host's network) and the kernel lets go of it when the process ends, however that happens. A successor
//! waits under a second name. Once it is in charge of all new connections it says so on the first one; the predecessor
//! lets go of the name and drains.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener as StdListener, UnixStream as StdStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

/// What a successor says. Its end of line ends the message.
const IN_CHARGE: &[u8] = b"in charge\n";

/// How often a name that is taken is tried again.
const RETRY: Duration = Duration::from_millis(20);
/// How long one who connects may take to say something.
const PATIENCE: Duration = Duration::from_secs(1);
/// Within this the kernel has let go of what a dead process had.
const SETTLING: Duration = Duration::from_millis(500);

/// How a process comes to its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// No other may have it.
    Alone,
    /// It takes over from one that has it.
    TakeOver,
    /// It follows one that died in it; whoever has it since then keeps it.
    Again,
}

/// Held while the process lives, or until it is given to a successor.
#[derive(Debug)]
pub(crate) struct Claim {
    names: Names,
    /// Absent once used, or when there is no predecessor.
    in_charge: Option<oneshot::Sender<()>>,
    told: mpsc::Receiver<()>,
    holding: JoinHandle<()>,
}

#[derive(Clone, Debug)]
struct Names {
    own: SocketAddr,
    next: SocketAddr,
}

impl Claim {
    /// Claims this network namespace and state folder. To take over, a process that has it is no obstacle: the claim is then
    /// its successor's; of several successors one waits for the other.
    ///
    /// # Errors
    /// When another process has it and is not to be taken over from.
    pub(crate) async fn take(state_dir: &Path, manner: Manner) -> Result<Self> {
        let names = Names::of(state_dir)?;
        let taken = || {
            format!(
                "another pierhead runs in this network namespace with state folder {}; fix: stop it, take over from it with --takeover, or give this one a --state-dir and --admin of its own",
                state_dir.display()
            )
        };
        let mut said = false;
        let deadline = Instant::now() + SETTLING;
        let is_hopeless = || match manner {
            Manner::Alone => true,
            Manner::TakeOver => false,
            Manner::Again => Instant::now() >= deadline,
        };
        // First the place of the one who comes next: who goes for the other without it could overtake a successor.
        let next = loop {
            match bind(&names.next)? {
                Some(next) => break next,
                None if is_hopeless() => bail!(taken()),
                None if !said => tracing::info!("another pierhead is about to take over here; waiting for it"),
                None => {}
            }
            said = true;
            sleep(RETRY).await;
        };
        let (own, next) = loop {
            match bind(&names.own)? {
                Some(own) => break (Some(own), None),
                None if manner == Manner::TakeOver => break (None, Some(next)),
                None if is_hopeless() => bail!(taken()),
                None => sleep(RETRY).await,
            }
        };
        let (tell, told) = mpsc::channel(1);
        let (in_charge, go) = oneshot::channel();
        let successor = next.is_some();
        let holding = tokio::spawn(hold(names.clone(), own, next, go, tell));
        Ok(Self {
            names,
            in_charge: successor.then_some(in_charge),
            told,
            holding,
        })
    }

    /// Whether another process serves here, which is to be taken over from.
    pub(crate) fn is_successor(&self) -> bool {
        self.in_charge.is_some()
    }

    /// All new connections come here now: tells the predecessor, and takes the name when it lets go of it.
    pub(crate) fn succeed(&mut self) {
        if let Some(in_charge) = self.in_charge.take() {
            // Received as long as the claim is held.
            let _ = in_charge.send(());
        }
    }

    /// Ends when a successor says that it is in charge.
    pub(crate) async fn told(&mut self) {
        if self.told.recv().await.is_none() {
            // Not held any more: nobody can say anything.
            std::future::pending::<()>().await;
        }
    }

    /// Ends when the one to be taken over from is gone.
    pub(crate) fn orphaned(&self) -> impl Future<Output = ()> + use<> {
        let name = self.names.own.clone();
        async move {
            while !matches!(bind(&name), Ok(Some(_))) {
                sleep(RETRY).await;
            }
        }
    }

    /// Whether a successor is on its way.
    pub(crate) fn has_successor(&self) -> bool {
        !self.is_successor() && matches!(bind(&self.names.next), Ok(None))
    }

    /// Lets go of it, for a successor to take.
    pub(crate) fn release(&self) {
        self.holding.abort();
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.release();
    }
}

impl Names {
    fn of(state_dir: &Path) -> Result<Self> {
        let name = |role: &[u8]| {
            let folder = state_dir.as_os_str().as_encoded_bytes();
            // The kernel takes at most 107 bytes; the end tells folders apart better than the beginning.
            let folder = &folder[folder.len().saturating_sub(80)..];
            SocketAddr::from_abstract_name([b"pierhead ", role, folder].concat()).context("no name for the instance")
        };
        Ok(Self {
            own: name(b"")?,
            next: name(b"successor ")?,
        })
    }
}

/// `None`: another process has the name.
fn bind(name: &SocketAddr) -> Result<Option<StdListener>> {
    match StdListener::bind_addr(name) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
        Err(error) => Err(error).context("cannot claim the network namespace"),
    }
}

async fn hold(
    names: Names,
    own: Option<StdListener>,
    next: Option<StdListener>,
    go: oneshot::Receiver<()>,
    tell: mpsc::Sender<()>,
) {
    let own = match own {
        Some(own) => own,
        None => {
            if go.await.is_err() {
                return;
            }
            if let Err(error) = say(&names.own).await {
                // It notices by itself, a little later; or it is gone.
                tracing::debug!("the predecessor cannot be told: {error}");
            }
            loop {
                match bind(&names.own) {
                    Ok(Some(own)) => break own,
                    Ok(None) => {}
                    Err(error) => tracing::debug!("{error:#}"),
                }
                sleep(RETRY).await;
            }
        }
    };
    drop(next);
    if let Err(error) = listen(own, &tell).await {
        tracing::warn!("a successor cannot say that it is in charge: {error}");
        // The name stays claimed.
        std::future::pending::<()>().await;
    }
}

async fn say(name: &SocketAddr) -> io::Result<()> {
    let stream = StdStream::connect_addr(name)?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)?.write_all(IN_CHARGE).await
}

async fn listen(own: StdListener, tell: &mpsc::Sender<()>) -> io::Result<()> {
    own.set_nonblocking(true)?;
    let own = UnixListener::from_std(own)?;
    loop {
        let (mut stream, _) = own.accept().await?;
        // Abstract names have no permissions: anybody in this network namespace may connect.
        let peer = stream.peer_cred()?.uid();
        if peer != rustix::process::geteuid().as_raw() {
            continue;
        }
        let mut message = [0; IN_CHARGE.len()];
        if matches!(timeout(PATIENCE, stream.read_exact(&mut message)).await, Ok(Ok(_))) && message == IN_CHARGE {
            // Said once is enough.
            let _ = tell.try_send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(test);
    }

    #[test]
    fn the_second_instance_is_told() {
        run(async {
            let folder = tempfile::tempdir().unwrap();
            let first = Claim::take(folder.path(), Manner::Alone).await.unwrap();
            let error = Claim::take(folder.path(), Manner::Alone).await.unwrap_err().to_string();
            assert!(
                error.contains("another pierhead") && error.contains("fix: stop it"),
                "{error}"
            );
            drop(first);
            timeout(PATIENCE, async {
                while Claim::take(folder.path(), Manner::Alone).await.is_err() {
                    sleep(RETRY).await;
                }
            })
            .await
            .unwrap();
        });
    }

    #[test]
    fn a_successor_says_so_and_gets_the_name_and_a_third_waits_for_it() {
        run(async {
            let folder = tempfile::tempdir().unwrap();
            let mut first = Claim::take(folder.path(), Manner::TakeOver).await.unwrap();
            assert!(!first.is_successor() && !first.has_successor());
            let mut second = Claim::take(folder.path(), Manner::TakeOver).await.unwrap();
            assert!(second.is_successor() && first.has_successor());
            let third = tokio::spawn({
                let folder = folder.path().to_owned();
                async move { Claim::take(&folder, Manner::TakeOver).await.unwrap() }
            });
            assert!(
                timeout(RETRY * 3, first.told()).await.is_err(),
                "not before it is in charge"
            );
            second.succeed();
            timeout(PATIENCE, first.told()).await.unwrap();
            assert!(!third.is_finished());
            first.release();
            let mut third = timeout(PATIENCE, third).await.unwrap().unwrap();
            assert!(third.is_successor() && second.has_successor());
            third.succeed();
            timeout(PATIENCE, second.told()).await.unwrap();
        });
    }

    #[test]
    fn one_that_follows_a_dead_one_leaves_the_place_to_whoever_has_it() {
        run(async {
            let folder = tempfile::tempdir().unwrap();
            let first = Claim::take(folder.path(), Manner::Again).await.unwrap();
            assert!(!first.is_successor(), "nobody has it");
            Claim::take(folder.path(), Manner::Again).await.unwrap_err();
            let second = Claim::take(folder.path(), Manner::TakeOver).await.unwrap();
            assert!(timeout(RETRY * 3, second.orphaned()).await.is_err());
            drop(first);
            timeout(PATIENCE, second.orphaned()).await.unwrap();
            Claim::take(folder.path(), Manner::Again)
                .await
                .expect_err("the successor is about to have it");
        });
    }
}
