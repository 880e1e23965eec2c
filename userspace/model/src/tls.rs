use std::{fmt, sync::Arc};

use serde::{Serialize, Serializer};

use crate::HostPattern;

/// Name of a certificate: `namespace/secret`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CertificateId(pub Arc<str>);

/// Name of a set of trust anchors: the objects they come from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustId(pub Arc<str>);

macro_rules! as_text {
    ($($name:ident)*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }
    )*};
}

as_text!(CertificateId TrustId);

/// A private key in DER (PKCS#8, PKCS#1 or SEC1). Never printed, never serialised.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey(Arc<[u8]>);

impl PrivateKey {
    pub fn new(der: &[u8]) -> Self {
        Self(der.into())
    }

    /// The DER bytes: for the TLS library only.
    pub fn secret_der(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

impl Serialize for PrivateKey {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str("(secret)")
    }
}

/// A certificate chain with its key; both were checked to belong together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Certificate {
    pub id: CertificateId,
    /// DER, end entity first.
    #[serde(serialize_with = "sizes")]
    pub chain: Vec<Arc<[u8]>>,
    pub key: PrivateKey,
    /// Names in the certificate, for status and for the choice among several.
    pub names: Vec<HostPattern>,
    /// Seconds since the Unix epoch.
    pub not_before: i64,
    pub not_after: i64,
}

fn sizes<S: Serializer>(chain: &[Arc<[u8]>], s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(&format_args!("({} certificates)", chain.len()))
}

/// CA certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TrustAnchors {
    pub id: TrustId,
    /// DER.
    #[serde(serialize_with = "sizes")]
    pub certificates: Vec<Arc<[u8]>>,
}

/// How TLS ends at a listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TlsTermination {
    /// The most specific match of the SNI wins, the first among equals; without SNI, or without a match, the first entry.
    /// Empty: no certificate is usable, handshakes are refused by closing the connection.
    pub certificates: Vec<CertificateUse>,
    pub client_auth: Option<ClientAuth>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CertificateUse {
    pub names: Vec<HostPattern>,
    pub certificate: CertificateId,
}

/// Certificates asked of clients (Gateway `spec.tls.frontend`, GEP-91).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClientAuth {
    pub trust: TrustId,
    pub mode: ClientAuthMode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum ClientAuthMode {
    /// A valid certificate is required.
    ValidOnly,
    /// One is asked for; whatever comes is let in.
    InsecureFallback,
}
