//! The CA, and what it signs. No I/O; the time is an argument.

#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

use jiff::Timestamp;
use pierhead_protocol::Version as Fingerprint;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};

use super::rotation::{self, Step, Term};

/// Ten years; see [`rotation`](super::rotation).
const CA_VALIDITY: Duration = Duration::from_hours(10 * 365 * 24);
/// A day: no list of revoked certificates is kept, so that a stolen one is of little use for long.
const NODE_VALIDITY: Duration = Duration::from_hours(24);
/// Renewed by [`Authority::serving`]'s caller long before.
const SERVING_VALIDITY: Duration = Duration::from_hours(30 * 24);
/// How far clocks may be apart.
const SKEW: Duration = Duration::from_mins(5);

/// A CA that can sign, with those that came before or will come after it: all of them are trusted.
pub struct Authority {
    /// In the order of their age; never empty.
    members: Vec<Member>,
    /// The one that signs.
    signer: usize,
    /// As they were read.
    certificate_pem: String,
    key_pem: String,
    verifier: Arc<dyn ClientCertVerifier>,
}

struct Member {
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    key_pem: String,
    issuer: Issuer<'static, KeyPair>,
    term: Term,
}

impl fmt::Debug for Authority {
    /// Never the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("fingerprint", &self.fingerprint())
            .field("ends", &self.member().term.ends)
            .field("members", &self.members.len())
            .finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("the CA's certificate: {0}")]
    Certificate(String),
    #[error("the CA's key: {0}")]
    Key(rcgen::Error),
    #[error("the CA's key is not that of its certificate")]
    Mismatch,
    #[error("the CA: {certificates} certificates and {keys} keys")]
    Uneven { certificates: usize, keys: usize },
    #[error("the CA's certificate may not sign certificates")]
    NotCa,
    #[error("the request for a certificate: {0}")]
    Request(rcgen::Error),
    #[error("the request for a certificate: its key is none of ECDSA P-256")]
    RequestKey,
    #[error("signing: {0}")]
    Sign(#[from] rcgen::Error),
}

/// A node, by its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeIdentity {
    pub name: Arc<str>,
    /// When its certificate ends.
    pub not_after: Timestamp,
}

/// Why a certificate is none of a node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOurs {
    #[error("no client certificate was shown")]
    Absent,
    #[error("the client certificate is not good: {0}")]
    Invalid(String),
    #[error("the client certificate names no node")]
    Nameless,
}

impl Authority {
    /// Makes a new CA.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn create(now: Timestamp) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name("Pierhead CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params, now, CA_VALIDITY);
        let certificate = params.self_signed(&key)?;
        Self::from_pem(&certificate.pem(), &key.serialize_pem())
    }

    /// Reads a CA; of several, the youngest signs.
    ///
    /// # Errors
    /// When these are no CA certificates and their keys, in the same order.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, AuthorityError> {
        Self::read(certificate_pem, key_pem, Timestamp::MAX)
    }

    /// Reads CAs, and lets sign which of them does at that time.
    ///
    /// # Errors
    /// As [`Authority::from_pem`].
    pub(super) fn read(certificate_pem: &str, key_pem: &str, now: Timestamp) -> Result<Self, AuthorityError> {
        let (certificates, keys) = (blocks(certificate_pem), blocks(key_pem));
        if certificates.is_empty() {
            return Err(AuthorityError::Certificate("there is none".to_owned()));
        }
        let mut members = Vec::with_capacity(certificates.len());
        for (index, certificate) in certificates.iter().enumerate() {
            // A certificate without a key is said to have a bad one.
            let key = keys.get(index).copied().unwrap_or_default();
            members.push(Member::read(certificate, key)?);
        }
        if certificates.len() != keys.len() {
            return Err(AuthorityError::Uneven {
                certificates: certificates.len(),
                keys: keys.len(),
            });
        }
        members.sort_by_key(|member| member.term.made);
        let mut roots = RootCertStore::empty();
        for member in &members {
            roots
                .add(member.certificate.clone())
                .map_err(|error| malformed(&error))?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
            .allow_unauthenticated()
            .build()
            .map_err(|error| malformed(&error))?;
        let terms: Vec<Term> = members.iter().map(|member| member.term).collect();
        Ok(Self {
            signer: rotation::signer(&terms, now),
            members,
            certificate_pem: certificate_pem.to_owned(),
            key_pem: key_pem.to_owned(),
            verifier,
        })
    }

    fn member(&self) -> &Member {
        &self.members[self.signer]
    }

    fn terms(&self) -> Vec<Term> {
        self.members.iter().map(|member| member.term).collect()
    }

    /// Whether another one of its members is to sign at that time than does.
    pub(super) fn is_outdated(&self, now: Timestamp) -> bool {
        rotation::signer(&self.terms(), now) != self.signer
    }

    /// What it is to become now, if anything else; `asked`: somebody wants a new CA.
    ///
    /// # Errors
    /// When no key can be made.
    pub(super) fn rotated(&self, asked: bool, now: Timestamp) -> Result<Option<Self>, AuthorityError> {
        let step = rotation::step(&self.terms(), asked, now);
        if step == Step::default() {
            return Ok(None);
        }
        let mut certificates = String::new();
        let mut keys = String::new();
        let mut add = |member: &Member| {
            certificates.push_str(&ended(&member.certificate_pem));
            keys.push_str(&ended(&member.key_pem));
        };
        self.members.iter().skip(step.drop).for_each(&mut add);
        if step.add {
            Self::create(now)?.members.iter().for_each(&mut add);
        }
        Self::read(&certificates, &keys, now).map(Some)
    }

    /// Of the CA that signs.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.member().certificate
    }

    /// Of every CA that is trusted.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The keys, in the same order: only for the Secret that keeps them.
    pub fn secret_key_pem(&self) -> &str {
        &self.key_pem
    }

    /// Tells the CA that signs from others.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.certificate())
    }

    /// Asks clients for a certificate of ours; lets those without one in, for [`Identity/Sign`](super::Signer).
    pub fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.verifier)
    }

    /// The node that showed this chain. Checked anew, whatever the handshake found: it may have been another CA's, or long ago.
    ///
    /// # Errors
    /// When it is not a good chain of ours, or none of a node.
    pub fn node(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> Result<NodeIdentity, NotOurs> {
        let (end_entity, intermediates) = chain.split_first().ok_or(NotOurs::Absent)?;
        let since_epoch = Duration::from_secs(u64::try_from(now.as_second()).unwrap_or_default());
        let now = UnixTime::since_unix_epoch(since_epoch);
        self.verifier
            .verify_client_cert(end_entity, intermediates, now)
            .map_err(|error| NotOurs::Invalid(error.to_string()))?;
        let (_, certificate) =
            x509_parser::parse_x509_certificate(end_entity).map_err(|error| NotOurs::Invalid(error.to_string()))?;
        let name = certificate
            .subject()
            .iter_common_name()
            .next()
            .and_then(|name| name.as_str().ok())
            .filter(|name| !name.is_empty())
            .ok_or(NotOurs::Nameless)?;
        Ok(NodeIdentity {
            name: name.into(),
            not_after: timestamp(certificate.validity().not_after),
        })
    }

    /// A certificate for a node's key. Of the request only the key counts, and that its owner signed it.
    ///
    /// # Errors
    /// When the request is not one, or not signed by its key.
    pub fn sign_node(
        &self,
        request_der: &[u8],
        node: &str,
        now: Timestamp,
    ) -> Result<CertificateDer<'static>, AuthorityError> {
        let request =
            CertificateSigningRequestParams::from_der(&request_der.into()).map_err(AuthorityError::Request)?;
        if *request.public_key.algorithm() != PKCS_ECDSA_P256_SHA256 {
            return Err(AuthorityError::RequestKey);
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(node);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, now, NODE_VALIDITY);
        let certificate = params.signed_by(&request.public_key, &self.member().issuer)?;
        Ok(certificate.der().clone())
    }

    /// A certificate with its key for a server of these names, good for 30 days.
    ///
    /// # Errors
    /// When a name cannot stand in a certificate.
    pub fn serving(
        &self,
        names: &[String],
        now: Timestamp,
    ) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = common_name("pierhead-controller");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, now, SERVING_VALIDITY);
        let certificate = params.signed_by(&key, &self.member().issuer)?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        Ok((certificate.der().clone(), key.into()))
    }
}

impl Member {
    fn read(certificate_pem: &str, key_pem: &str) -> Result<Self, AuthorityError> {
        let certificate =
            CertificateDer::from_pem_slice(certificate_pem.as_bytes()).map_err(|error| malformed(&error))?;
        let key = KeyPair::from_pem(key_pem).map_err(AuthorityError::Key)?;
        let term = {
            let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).map_err(|error| malformed(&error))?;
            if !parsed.is_ca() {
                return Err(AuthorityError::NotCa);
            }
            if *parsed.public_key().subject_public_key.data != *key.public_key_raw() {
                return Err(AuthorityError::Mismatch);
            }
            let validity = parsed.validity();
            Term {
                made: timestamp(validity.not_before) + SKEW,
                ends: timestamp(validity.not_after),
            }
        };
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self {
            certificate,
            certificate_pem: certificate_pem.to_owned(),
            key_pem: key_pem.to_owned(),
            issuer,
            term,
        })
    }
}

fn malformed(why: &dyn fmt::Display) -> AuthorityError {
    AuthorityError::Certificate(why.to_string())
}

/// The single parts of a PEM text, each to the end of its last line.
fn blocks(pem: &str) -> Vec<&str> {
    let mut blocks = Vec::new();
    let mut start = 0;
    let mut end = 0;
    for line in pem.split_inclusive('\n') {
        end += line.len();
        if line.starts_with("-----END ") {
            blocks.push(pem[start..end].trim_start());
            start = end;
        }
    }
    blocks
}

/// With a line break at its end, so that another part can follow.
fn ended(pem: &str) -> String {
    format!("{}\n", pem.trim_end())
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn set_validity(params: &mut CertificateParams, now: Timestamp, validity: Duration) {
    let since_epoch = Duration::from_secs(u64::try_from(now.as_second()).unwrap_or_default());
    let now = rcgen::date_time_ymd(1970, 1, 1) + since_epoch;
    params.not_before = now - SKEW;
    params.not_after = now + validity;
}

fn timestamp(time: x509_parser::time::ASN1Time) -> Timestamp {
    Timestamp::from_second(time.timestamp()).unwrap_or(Timestamp::MIN)
}
