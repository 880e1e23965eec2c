//! Who the node is to its controller: a key of its own, and a certificate that the controller signed because the node's
//! ServiceAccount token vouched for it. Both are kept in the node's folder, so that a restart needs no controller to sign.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use pierhead_protocol::IdentityClient;
use pierhead_protocol::identity::SignRequest;
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tonic::transport::Channel;
use x509_parser::parse_x509_certificate;

use crate::keep;

/// Key and certificate in one file: they are replaced together.
const FILE: &str = "identity.pem";

/// How long the controller may take to sign.
const PATIENCE: Duration = Duration::from_secs(10);

/// A key and the certificate chain for it, in PEM.
#[derive(Clone)]
pub(super) struct Credentials {
    key: String,
    chain: String,
    not_before: i64,
    /// Seconds since the Unix epoch.
    pub(super) not_after: i64,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads a key and its chain.
    ///
    /// # Errors
    /// When there are none, or the certificate cannot be read.
    fn parse(pem: &str) -> Result<Self> {
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).context("no private key")?;
        let chain: Vec<CertificateDer<'_>> =
            CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>()?;
        Self::of(key.secret_der(), &chain.iter().map(|der| &**der).collect::<Vec<_>>())
    }

    fn of(key: &[u8], chain: &[&[u8]]) -> Result<Self> {
        let mut text = String::new();
        let mut validity = None;
        for der in chain {
            if validity.is_none() {
                let (_, certificate) = parse_x509_certificate(der).context("no certificate")?;
                let validity_of = certificate.validity();
                validity = Some((validity_of.not_before.timestamp(), validity_of.not_after.timestamp()));
            }
            pem(&mut text, "CERTIFICATE", der);
        }
        let (not_before, not_after) = validity.context("no certificate")?;
        let mut own = String::new();
        pem(&mut own, "PRIVATE KEY", key);
        Ok(Self {
            key: own,
            chain: text,
            not_before,
            not_after,
        })
    }

    /// For the TLS library.
    pub(super) fn identity(&self) -> tonic::transport::Identity {
        tonic::transport::Identity::from_pem(&self.chain, &self.key)
    }

    pub(super) fn is_valid(&self, now: Timestamp) -> bool {
        (self.not_before..self.not_after).contains(&now.as_second())
    }

    /// Until it is to be replaced: at two thirds of its life. Zero when that is past.
    pub(super) fn renewed_in(&self, now: Timestamp) -> Duration {
        let life = self.not_after - self.not_before;
        let due = self.not_before + life / 3 * 2;
        Duration::from_secs(u64::try_from(due - now.as_second()).unwrap_or(0))
    }
}

/// Where the identity is kept.
#[derive(Clone, Debug)]
pub(super) struct Store(PathBuf);

impl Store {
    pub(super) fn new(folder: &Path) -> Self {
        Self(folder.join(FILE))
    }

    /// What was kept, if it is still valid.
    pub(super) fn load(&self) -> Option<Credentials> {
        let pem = match fs::read_to_string(&self.0) {
            Ok(pem) => pem,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!("the node's key {} cannot be read: {error}", self.0.display());
                return None;
            }
        };
        match Credentials::parse(&pem) {
            Ok(credentials) => Some(credentials).filter(|one| one.is_valid(Timestamp::now())),
            Err(error) => {
                tracing::warn!("the node's key {} is ignored: {error:#}", self.0.display());
                None
            }
        }
    }

    /// The controller does not take it any more.
    pub(super) fn forget(&self) {
        let _ = fs::remove_file(&self.0);
    }

    fn save(&self, credentials: &Credentials) -> io::Result<()> {
        keep::write(&self.0, [&*credentials.key, &*credentials.chain].concat().as_bytes())
    }
}

/// Makes a new key, and has the controller sign a certificate for it.
///
/// # Errors
/// When there is no token, or the controller does not believe it, or does not answer.
pub(super) async fn obtain(channel: Channel, token: &Path, store: &Store) -> Result<Credentials> {
    let key = KeyPair::generate().context("cannot make a key")?;
    let request = CertificateParams::new(Vec::new())
        .and_then(|params| params.serialize_request(&key))
        .context("cannot make a signing request")?;
    // Read each time: the kubelet replaces it before it expires.
    let token = fs::read_to_string(token).with_context(|| {
        format!(
            "cannot read the ServiceAccount token {}; fix: mount a projected token of audience pierhead there, or name it with --token",
            token.display()
        )
    })?;
    let request = SignRequest {
        csr_der: Bytes::copy_from_slice(request.der()),
        token: token.trim().to_owned(),
    };
    let mut client = IdentityClient::new(channel);
    let signed = tokio::time::timeout(PATIENCE, client.sign(request)).await;
    let response = match signed {
        Ok(Ok(response)) => response,
        Ok(Err(status)) => bail!("the controller does not sign: {}", status.message()),
        Err(_) => bail!("the controller does not sign: no answer within {PATIENCE:?}"),
    };
    let credentials = Credentials::of(
        &key.serialize_der(),
        &response.chain.iter().map(|der| &**der).collect::<Vec<_>>(),
    )?;
    if !credentials.is_valid(Timestamp::now()) {
        bail!("the controller signed a certificate that is not valid now; fix: set the clocks");
    }
    if let Err(error) = store.save(&credentials) {
        // It only costs a signature at the next start.
        tracing::warn!("the node's key cannot be kept for a restart: {error}");
    }
    tracing::info!(
        until = %Timestamp::from_second(credentials.not_after).unwrap_or_default(),
        "the controller signed the node's certificate"
    );
    Ok(credentials)
}

fn pem(to: &mut String, label: &str, der: &[u8]) {
    to.push_str(&format!("-----BEGIN {label}-----\n"));
    for line in STANDARD.encode(der).as_bytes().chunks(64) {
        to.push_str(&String::from_utf8_lossy(line));
        to.push('\n');
    }
    to.push_str(&format!("-----END {label}-----\n"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials() -> Credentials {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["n".to_owned()]).unwrap();
        let now = Timestamp::now().as_second();
        let time = |seconds| std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap());
        params.not_before = time(now - 3600).into();
        params.not_after = time(now + 7200).into();
        let certificate = params.self_signed(&key).unwrap();
        Credentials::of(&key.serialize_der(), &[&**certificate.der()]).unwrap()
    }

    #[test]
    fn what_is_kept_is_found_again_unless_it_has_expired_or_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        assert!(store.load().is_none());
        let mut own = credentials();
        store.save(&own).unwrap();
        let found = store.load().unwrap();
        assert_eq!(
            (&found.key, &found.chain, found.not_after),
            (&own.key, &own.chain, own.not_after)
        );
        fs::write(&store.0, own.chain.as_bytes()).unwrap();
        assert!(store.load().is_none(), "no key");
        own.not_after = 0;
        assert!(!own.is_valid(Timestamp::now()));
    }

    #[test]
    fn it_is_renewed_at_two_thirds_of_its_life() {
        let own = credentials();
        let at = |seconds: i64| own.renewed_in(Timestamp::from_second(own.not_before + seconds).unwrap());
        assert_eq!(at(0), Duration::from_secs(7200));
        assert_eq!(at(7000), Duration::from_secs(200));
        assert_eq!(at(8000), Duration::ZERO);
    }

    #[test]
    fn nothing_of_the_key_is_shown() {
        let own = credentials();
        let shown = format!("{own:?}");
        assert!(!shown.contains("KEY") && shown.len() < 100, "{shown}");
    }
}
