//! Secrets and ConfigMaps: certificates with their keys, and trust anchors.

use std::{fmt, sync::Arc};

use k8s_openapi::api::core::v1::Secret;
use pierhead_model::{
    Certificate, CertificateId, HostPattern, Origin, PrivateKey, TrustAnchors, TrustId, WildcardDepth,
};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject as _},
};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer as _, X509Certificate},
};

use crate::{Builder, ObjectName, World};

/// Why an object cannot be used as a certificate or as trust anchors. What depends on what it says is the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFault {
    pub kind: CertificateFaultKind,
    pub message: String,
    pub fix: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateFaultKind {
    /// There is no such object.
    NotFound,
    /// It has no such entry.
    Incomplete,
    /// It does not hold what its name says.
    Malformed,
    /// Certificate and key belong to different pairs.
    Mismatched,
}

impl fmt::Display for CertificateFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

fn fault(kind: CertificateFaultKind, message: String, fix: &'static str) -> CertificateFault {
    CertificateFault { kind, message, fix }
}

/// Where CA certificates stand: under the key `ca.crt`, or in `spec.trustBundle`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaSource<'a> {
    ConfigMap { namespace: &'a str, name: &'a str },
    Secret { namespace: &'a str, name: &'a str },
    ClusterTrustBundle { name: &'a str },
}

impl<'a> CaSource<'a> {
    /// What a reference of the Gateway API names; `None` for a kind that holds no CA certificates, or that the cluster
    /// does not serve. A ClusterTrustBundle has no namespace.
    pub fn find(world: &World, group: &str, kind: &str, namespace: &'a str, name: &'a str) -> Option<Self> {
        match (group, kind) {
            ("", "ConfigMap") => Some(Self::ConfigMap { namespace, name }),
            ("certificates.k8s.io", "ClusterTrustBundle") if !world.without_cluster_trust_bundles => {
                Some(Self::ClusterTrustBundle { name })
            }
            _ => None,
        }
    }

    /// A part of the name of trust anchors. No namespace looks like the kind.
    pub fn key(&self) -> String {
        match self {
            Self::ConfigMap { namespace, name } | Self::Secret { namespace, name } => format!("{namespace}/{name}"),
            Self::ClusterTrustBundle { name } => format!("ClusterTrustBundle/{name}"),
        }
    }

    fn entry(&self) -> &'static str {
        match self {
            Self::ConfigMap { .. } | Self::Secret { .. } => "ca.crt",
            Self::ClusterTrustBundle { .. } => "spec.trustBundle",
        }
    }

    fn fix(&self) -> &'static str {
        match self {
            Self::ConfigMap { .. } | Self::Secret { .. } => "put the PEM of the CA certificate under the key ca.crt",
            Self::ClusterTrustBundle { .. } => "put the PEM of the CA certificates into spec.trustBundle",
        }
    }
}

impl fmt::Display for CaSource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConfigMap { namespace, name } => write!(f, "ConfigMap {namespace}/{name}"),
            Self::Secret { namespace, name } => write!(f, "Secret {namespace}/{name}"),
            Self::ClusterTrustBundle { name } => write!(f, "ClusterTrustBundle {name}"),
        }
    }
}

impl Builder<'_> {
    /// The certificate in a Secret with `tls.crt` and `tls.key`; added to the snapshot.
    ///
    /// # Errors
    /// When it cannot be used; whoever references it says so.
    pub fn certificate(&mut self, namespace: &str, name: &str) -> Result<CertificateId, CertificateFault> {
        let id = CertificateId(ObjectName::new(namespace, name).to_string().into());
        if self.snapshot.certificates.contains_key(&id) {
            return Ok(id);
        }
        let Some(secret) = self.world.secrets.get(namespace, name) else {
            return Err(fault(
                CertificateFaultKind::NotFound,
                format!("Secret {id} does not exist"),
                "create a Secret of type kubernetes.io/tls with tls.crt and tls.key",
            ));
        };
        let known = self.previous.and_then(|snapshot| snapshot.certificates.get(&id));
        let certificate = parse_pair(&id, secret, known)?;
        let origin = Origin::new("Secret", namespace, name);
        let now = self.settings.now.as_second();
        if certificate.not_after < now {
            self.warning(
                &origin,
                "data[tls.crt]",
                format!("the certificate expired on {}", date(certificate.not_after)),
                "renew it",
            );
        } else if certificate.not_before > now {
            let message = format!("the certificate is not valid before {}", date(certificate.not_before));
            self.warning(
                &origin,
                "data[tls.crt]",
                message,
                "check the clocks of this machine and of the issuer",
            );
        }
        self.snapshot.certificates.insert(id.clone(), certificate);
        Ok(id)
    }

    /// The CA certificates in one object, DER; to be combined with others by [`Builder::add_trust`].
    ///
    /// # Errors
    /// When the object or its entry is missing or holds no CA certificate.
    pub fn ca_certificates(&self, source: CaSource<'_>) -> Result<Vec<Arc<[u8]>>, CertificateFault> {
        let pem = match source {
            CaSource::ConfigMap { namespace, name } => self.world.config_maps.get(namespace, name).map(|map| {
                let text = map.data.as_ref().and_then(|d| d.get("ca.crt")).map(String::as_bytes);
                text.or_else(|| {
                    map.binary_data
                        .as_ref()
                        .and_then(|d| d.get("ca.crt"))
                        .map(|b| b.0.as_slice())
                })
            }),
            CaSource::Secret { namespace, name } => self.world.secrets.get(namespace, name).map(|s| entry(s, "ca.crt")),
            CaSource::ClusterTrustBundle { name } => {
                let bundle = self.world.cluster_trust_bundles.get("", name);
                bundle.map(|b| Some(b.spec.trust_bundle.as_bytes()).filter(|pem| !pem.is_empty()))
            }
        };
        let (place, fix) = (source.entry(), source.fix());
        let pem = pem
            .ok_or_else(|| fault(CertificateFaultKind::NotFound, format!("{source} does not exist"), fix))?
            .ok_or_else(|| {
                fault(
                    CertificateFaultKind::Incomplete,
                    format!("{source} has no {place}"),
                    fix,
                )
            })?;
        let mut anchors = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let malformed = |why: String| {
                fault(
                    CertificateFaultKind::Malformed,
                    format!("{place} of {source} is unusable: {why}"),
                    fix,
                )
            };
            let der = certificate.map_err(|e| malformed(e.to_string()))?;
            webpki::anchor_from_trusted_cert(&der).map_err(|e| malformed(e.to_string()))?;
            anchors.push(Arc::from(der.as_ref()));
        }
        if anchors.is_empty() {
            return Err(fault(
                CertificateFaultKind::Malformed,
                format!("{place} of {source} holds no PEM certificate"),
                fix,
            ));
        }
        Ok(anchors)
    }

    /// Adds trust anchors under a name made of the objects they come from.
    pub fn add_trust(&mut self, name: &str, certificates: Vec<Arc<[u8]>>) -> TrustId {
        let id = TrustId(name.into());
        if !self.snapshot.trust.contains_key(&id) {
            let anchors = TrustAnchors {
                id: id.clone(),
                certificates,
            };
            self.snapshot.trust.insert(id.clone(), anchors.into());
        }
        id
    }
}

fn date(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |t| t.to_string())
}

/// `stringData` is what a file may hold; the API server moves it into `data`, over what is there.
fn entry<'s>(secret: &'s Secret, key: &str) -> Option<&'s [u8]> {
    let text = secret
        .string_data
        .as_ref()
        .and_then(|d| d.get(key))
        .map(String::as_bytes);
    text.or_else(|| secret.data.as_ref().and_then(|d| d.get(key)).map(|b| b.0.as_slice()))
}

/// `known` is returned if it holds the same chain and key: checking that a key belongs to a certificate is the expensive part.
fn parse_pair(
    id: &CertificateId,
    secret: &Secret,
    known: Option<&Arc<Certificate>>,
) -> Result<Arc<Certificate>, CertificateFault> {
    const FIX: &str = "put the PEM of the chain under tls.crt and of its private key under tls.key";
    let part = |key: &str| {
        entry(secret, key).filter(|pem| !pem.is_empty()).ok_or_else(|| {
            fault(
                CertificateFaultKind::Incomplete,
                format!("Secret {id} has no {key}"),
                FIX,
            )
        })
    };
    let malformed = |what: &str, why: &dyn fmt::Display| {
        fault(
            CertificateFaultKind::Malformed,
            format!("{what} of Secret {id} is unusable: {why}"),
            FIX,
        )
    };
    let (crt, key) = (part("tls.crt")?, part("tls.key")?);
    let chain: Vec<CertificateDer<'_>> = CertificateDer::pem_slice_iter(crt)
        .collect::<Result<_, _>>()
        .map_err(|e| malformed("tls.crt", &e))?;
    let leaf = chain
        .first()
        .ok_or_else(|| malformed("tls.crt", &"it holds no PEM certificate"))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| match e {
        pem::Error::NoItemsFound => malformed("tls.key", &"it holds no PEM private key, or an encrypted one"),
        e => malformed("tls.key", &e),
    })?;
    if let Some(known) = known
        && known.key.secret_der() == key.secret_der()
        && known
            .chain
            .iter()
            .map(|der| &der[..])
            .eq(chain.iter().map(|der| &der[..]))
    {
        return Ok(Arc::clone(known));
    }
    let signer = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).map_err(|e| malformed("tls.key", &e))?;
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|e| malformed("tls.crt", &e))?;
    if signer
        .public_key()
        .is_some_and(|public| public.as_ref() != parsed.public_key().raw)
    {
        return Err(fault(
            CertificateFaultKind::Mismatched,
            format!("tls.key of Secret {id} does not belong to the first certificate of tls.crt"),
            "use the key the certificate was issued for, and put the end entity's certificate first",
        ));
    }
    Ok(Arc::new(Certificate {
        id: id.clone(),
        names: names(&parsed),
        not_before: parsed.validity().not_before.timestamp(),
        not_after: parsed.validity().not_after.timestamp(),
        chain: chain.iter().map(|der| Arc::from(der.as_ref())).collect(),
        key: PrivateKey::new(key.secret_der()),
    }))
}

/// DNS names and addresses of the certificate; its common name where it has no such extension. What is no host name (the
/// conformance suite has a bare `*`) is passed over.
fn names(certificate: &X509Certificate<'_>) -> Vec<HostPattern> {
    let mut texts: Vec<String> = Vec::new();
    match certificate.subject_alternative_name() {
        Ok(Some(extension)) => {
            for name in &extension.value.general_names {
                match name {
                    GeneralName::DNSName(name) => texts.push((*name).to_owned()),
                    GeneralName::IPAddress(bytes) => texts.extend(ip(bytes)),
                    _ => {}
                }
            }
        }
        // Its extension cannot be read: the certificate may still serve a listener that names its host.
        Err(_) => {}
        Ok(None) => {
            let common = certificate
                .subject()
                .iter_common_name()
                .filter_map(|cn| cn.as_str().ok());
            texts.extend(common.map(str::to_owned));
        }
    }
    let mut patterns: Vec<HostPattern> = texts
        .iter()
        .filter(|text| !text.is_empty())
        .filter_map(|text| HostPattern::parse(text, WildcardDepth::One).ok())
        .collect();
    patterns.sort();
    patterns.dedup();
    patterns
}

fn ip(bytes: &[u8]) -> Option<String> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(std::net::Ipv4Addr::from(v4).to_string());
    }
    <[u8; 16]>::try_from(bytes)
        .ok()
        .map(|v6| std::net::Ipv6Addr::from(v6).to_string())
}
