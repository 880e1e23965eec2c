use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard},
};

use super::super::rotation;
use super::*;

/// A vault that several keepers share, as replicas do.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    stored: Option<StoredAuthority>,
    published: Vec<String>,
    failures: VecDeque<&'static str>,
    /// What another replica stores just before our next creation.
    faster: Option<StoredAuthority>,
}

impl Shared {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }
}

impl Vault for Shared {
    async fn read(&mut self) -> Result<Option<StoredAuthority>, VaultError> {
        let mut inner = self.inner();
        match inner.failures.pop_front() {
            Some(why) => Err(VaultError(why.to_owned())),
            None => Ok(inner.stored.clone()),
        }
    }

    async fn replace(&mut self, authority: &StoredAuthority) -> Result<(), VaultError> {
        self.inner().stored = Some(authority.clone());
        Ok(())
    }

    async fn create(&mut self, authority: &StoredAuthority) -> Result<Created, VaultError> {
        let mut inner = self.inner();
        if let Some(faster) = inner.faster.take() {
            inner.stored = Some(faster);
        }
        if inner.stored.is_some() {
            return Ok(Created::Exists);
        }
        inner.stored = Some(authority.clone());
        Ok(Created::Yes)
    }

    async fn publish(&mut self, certificate_pem: &str) -> Result<(), VaultError> {
        self.inner().published.push(certificate_pem.to_owned());
        Ok(())
    }
}

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn made() -> StoredAuthority {
    let made = Authority::create(now()).unwrap();
    StoredAuthority {
        certificate_pem: made.certificate_pem().to_owned(),
        key_pem: made.secret_key_pem().to_owned(),
        asked: false,
    }
}

type Receiver = watch::Receiver<Option<Arc<Authority>>>;

/// A keeper, what it makes known, and the switch of its leadership.
fn keeper(vault: &Shared, leads: bool) -> (Keeper<Shared>, Receiver, watch::Sender<bool>) {
    let (leader, is_leader) = watch::channel(leads);
    let (keeper, authority) = Keeper::new(vault.clone(), is_leader);
    (keeper, authority, leader)
}

fn known(authority: &Receiver) -> Option<String> {
    authority.borrow().as_ref().map(|ca| ca.certificate_pem().to_owned())
}

#[tokio::test]
async fn the_leader_makes_the_ca_and_the_others_read_it() {
    let vault = Shared::default();
    let (mut other, others, _keep) = keeper(&vault, false);
    other.step(now()).await.unwrap();
    assert_eq!(known(&others), None);
    assert!(vault.inner().stored.is_none(), "who does not lead makes nothing");

    let (mut leader, leaders, _keep) = keeper(&vault, true);
    leader.step(now()).await.unwrap();
    other.step(now()).await.unwrap();
    assert!(known(&leaders).is_some());
    assert_eq!(known(&leaders), known(&others));
    assert_eq!(vault.inner().published, [known(&leaders).unwrap()]);
    leader.step(now()).await.unwrap();
    assert_eq!(vault.inner().published.len(), 1, "written once");
}

#[tokio::test]
async fn who_is_slower_takes_the_ca_of_the_faster() {
    let vault = Shared::default();
    let theirs = made();
    vault.inner().faster = Some(theirs.clone());
    let (mut keeper, authority, _keep) = keeper(&vault, true);
    keeper.step(now()).await.unwrap();
    assert_eq!(known(&authority), Some(theirs.certificate_pem));
}

#[tokio::test]
async fn a_deleted_ca_is_replaced_by_a_new_one() {
    let vault = Shared::default();
    let (mut keeper, authority, _keep) = keeper(&vault, true);
    keeper.step(now()).await.unwrap();
    let first = known(&authority);
    vault.inner().stored = None;
    keeper.step(now()).await.unwrap();
    assert_ne!(known(&authority), first);
    assert_eq!(vault.inner().published.len(), 2);
}

/// Certificates in what was published last.
fn published(vault: &Shared) -> usize {
    let inner = vault.inner();
    inner
        .published
        .last()
        .map_or(0, |pem| pem.matches("BEGIN CERTIFICATE").count())
}

#[tokio::test]
async fn who_asks_for_a_new_ca_gets_it_in_an_overlap() {
    let vault = Shared::default();
    let (mut keeper, authority, _keep) = keeper(&vault, true);
    let (mut other, others, _also) = self::keeper(&vault, false);
    keeper.step(now()).await.unwrap();
    let signer = |of: &Receiver| of.borrow().as_ref().map(|ca| ca.fingerprint());
    let first = signer(&authority);
    if let Some(stored) = &mut vault.inner().stored {
        stored.asked = true;
    }
    // Who does not lead changes nothing.
    other.step(now()).await.unwrap();
    assert!(vault.inner().stored.as_ref().is_some_and(|stored| stored.asked));

    keeper.step(now()).await.unwrap();
    other.step(now()).await.unwrap();
    assert!(vault.inner().stored.as_ref().is_some_and(|stored| !stored.asked));
    assert_eq!((published(&vault), signer(&authority)), (2, first));
    let later = now() + rotation::NOTICE;
    keeper.step(later).await.unwrap();
    other.step(later).await.unwrap();
    assert_eq!(published(&vault), 2, "the old one is still trusted");
    assert_ne!(signer(&authority), first);
    assert_eq!(signer(&authority), signer(&others), "all replicas sign with the same");
    keeper.step(later + rotation::OVERLAP).await.unwrap();
    assert_eq!(published(&vault), 1);
    assert_ne!(signer(&authority), first);
}

#[tokio::test]
async fn a_ca_that_is_known_outlives_failures() {
    let vault = Shared::default();
    let (mut keeper, authority, _keep) = keeper(&vault, true);
    keeper.step(now()).await.unwrap();
    let first = known(&authority);
    vault.inner().failures = ["the API server is away"].into();
    assert!(keeper.step(now()).await.is_err());
    let broken = StoredAuthority {
        key_pem: "junk".to_owned(),
        ..made()
    };
    vault.inner().stored = Some(broken.clone());
    let told = keeper.step(now()).await.unwrap_err().to_string();
    assert!(told.contains("delete the Secret pierhead-ca"), "{told}");
    assert_eq!(known(&authority), first);
    assert!(
        vault.inner().stored == Some(broken),
        "what is there is never overwritten"
    );
}

#[tokio::test(start_paused = true)]
async fn whoever_becomes_the_leader_makes_the_ca_at_once_and_tries_again_after_failures() {
    let vault = Shared::default();
    vault.inner().failures = ["one", "two", "three"].into();
    let (keeper, mut authority, leader) = keeper(&vault, false);
    let running = tokio::spawn(keeper.run());
    time::sleep(Duration::from_secs(60)).await;
    assert_eq!(known(&authority), None);
    leader.send_replace(true);
    let start = time::Instant::now();
    authority.changed().await.unwrap();
    assert!(start.elapsed() < ABSENT);
    drop(authority);
    running.await.unwrap();
}
