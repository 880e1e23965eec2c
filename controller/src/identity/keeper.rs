//! Keeps the CA: makes it once, reads it always, publishes its certificate.

#[cfg(test)]
mod tests;

use std::{future::Future, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{sync::watch, time};
use tracing::{info, warn};

use super::{Authority, AuthorityError};

/// How soon a CA that is not there yet is looked for again.
const ABSENT: Duration = Duration::from_millis(500);
/// How soon a replaced CA is noticed.
const PRESENT: Duration = Duration::from_secs(30);
/// The longest pause after failures.
const FAILED_MAX: Duration = Duration::from_secs(15);

/// Where the CA is kept.
pub trait Vault: Send + 'static {
    /// The CA, if there is one.
    fn read(&mut self) -> impl Future<Output = Result<Option<StoredAuthority>, VaultError>> + Send;

    /// Keeps a CA in the place of the one that was last read, and no other; whoever asked for a new one has it.
    fn replace(&mut self, authority: &StoredAuthority) -> impl Future<Output = Result<(), VaultError>> + Send;

    /// Keeps a CA where there is none. Never replaces one.
    fn create(&mut self, authority: &StoredAuthority) -> impl Future<Output = Result<Created, VaultError>> + Send;

    /// Publishes the CA's certificate, unless it is published already.
    fn publish(&mut self, certificate_pem: &str) -> impl Future<Output = Result<(), VaultError>> + Send;
}

/// A CA as it is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredAuthority {
    pub certificate_pem: String,
    pub key_pem: String,
    /// Somebody wants it to be followed by a new one.
    pub asked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    Yes,
    /// Somebody else was faster: theirs counts.
    Exists,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct VaultError(pub String);

/// Looks after the CA for as long as somebody receives it.
pub struct Keeper<V> {
    vault: V,
    is_leader: watch::Receiver<bool>,
    authority: watch::Sender<Option<Arc<Authority>>>,
    /// What was published, so that it is written once.
    published: Option<String>,
}

impl<V: Vault> Keeper<V> {
    /// Only the leader makes and publishes.
    pub fn new(vault: V, is_leader: watch::Receiver<bool>) -> (Self, watch::Receiver<Option<Arc<Authority>>>) {
        let (authority, receiver) = watch::channel(None);
        let keeper = Self {
            vault,
            is_leader,
            authority,
            published: None,
        };
        (keeper, receiver)
    }

    /// Ends when nobody receives the CA any more. Failures are told and tried again; a CA that was read stays in use.
    pub async fn run(mut self) {
        let mut failures = 0_u32;
        loop {
            let pause = match self.step(Timestamp::now()).await {
                Ok(()) => {
                    failures = 0;
                    if self.authority.borrow().is_some() {
                        PRESENT
                    } else {
                        ABSENT
                    }
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    warn!(%error, "the CA of controller and nodes");
                    FAILED_MAX.min(ABSENT * failures)
                }
            };
            let leads = *self.is_leader.borrow_and_update();
            tokio::select! {
                () = time::sleep(pause) => {}
                () = self.authority.closed() => return,
                // Who has just become the leader need not wait.
                () = became(&mut self.is_leader, !leads) => {}
            }
        }
    }

    async fn step(&mut self, now: Timestamp) -> Result<(), VaultError> {
        let leads = *self.is_leader.borrow();
        let stored = match self.vault.read().await? {
            Some(stored) => stored,
            None if leads => {
                let made = Authority::create(now).map_err(|error| VaultError(error.to_string()))?;
                let made = StoredAuthority {
                    certificate_pem: made.certificate_pem().to_owned(),
                    key_pem: made.secret_key_pem().to_owned(),
                    asked: false,
                };
                match self.vault.create(&made).await? {
                    Created::Yes => {
                        info!("made the CA of controller and nodes");
                        made
                    }
                    Created::Exists => match self.vault.read().await? {
                        Some(theirs) => theirs,
                        None => return Ok(()),
                    },
                }
            }
            None => return Ok(()),
        };
        self.take(&stored, now)?;
        let next = if leads { self.rotated(&stored, now)? } else { None };
        let stored = match next {
            Some(next) => {
                self.vault.replace(&next).await?;
                self.take(&next, now)?;
                next
            }
            None => stored,
        };
        if leads && self.published.as_ref() != Some(&stored.certificate_pem) {
            self.vault.publish(&stored.certificate_pem).await?;
            self.published = Some(stored.certificate_pem);
        }
        Ok(())
    }

    fn take(&self, stored: &StoredAuthority, now: Timestamp) -> Result<(), VaultError> {
        let is_known = |known: &Arc<Authority>| {
            known.certificate_pem() == stored.certificate_pem
                && known.secret_key_pem() == stored.key_pem
                && !known.is_outdated(now)
        };
        if self.authority.borrow().as_ref().is_some_and(is_known) {
            return Ok(());
        }
        let authority = Authority::read(&stored.certificate_pem, &stored.key_pem, now)
            .map_err(|error| VaultError(format!("{error}; delete the Secret pierhead-ca to have a new one made")))?;
        info!(fingerprint = %authority.fingerprint(), "the CA of controller and nodes is known");
        self.authority.send_replace(Some(authority.into()));
        Ok(())
    }

    /// What is to be kept instead, if anything.
    fn rotated(&self, stored: &StoredAuthority, now: Timestamp) -> Result<Option<StoredAuthority>, VaultError> {
        let Some(known) = self.authority.borrow().clone() else {
            return Ok(None);
        };
        let failed = |error: AuthorityError| VaultError(error.to_string());
        let next = known.rotated(stored.asked, now).map_err(failed)?;
        if let Some(next) = &next {
            info!(from = ?known, to = ?next, "the CA of controller and nodes is followed by another");
        }
        // Who asked while a new one is on its way has it already.
        let asked = stored.asked.then(|| pem(&known));
        Ok(next.as_ref().map(pem).or(asked))
    }
}

fn pem(authority: &Authority) -> StoredAuthority {
    StoredAuthority {
        certificate_pem: authority.certificate_pem().to_owned(),
        key_pem: authority.secret_key_pem().to_owned(),
        asked: false,
    }
}

/// Leadership has become this; never, when nobody decides it any more.
async fn became(is_leader: &mut watch::Receiver<bool>, wanted: bool) {
    if is_leader.wait_for(|leads| *leads == wanted).await.is_err() {
        std::future::pending::<()>().await;
    }
}
