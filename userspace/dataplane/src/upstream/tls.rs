//! TLS towards backends (BackendTLSPolicy, GEP-1897): the chain by webpki, then the names or URIs that the policy lists.

use std::sync::{
    Arc, LazyLock,
    atomic::{AtomicU64, Ordering},
};

use pierhead_model::{BackendTls, Certificate, ServerIdentity, TrustAnchors};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::ParsedCertificate,
};
use x509_parser::extensions::GeneralName;

/// Everything that decides with whom we speak, and as whom. Two connections with different numbers are never mixed.
#[derive(Debug)]
pub(crate) struct TlsIdentity {
    /// Unique in this process, never zero.
    pub(crate) number: u64,
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) server_name: ServerName<'static>,
    /// The server must choose `h2` by ALPN.
    pub(crate) needs_h2: bool,
}

static NUMBERS: AtomicU64 = AtomicU64::new(1);

impl TlsIdentity {
    /// `trust` absent: the trust store of the system.
    ///
    /// # Errors
    /// A sentence about what is wrong with the certificates or the trust anchors.
    pub(crate) fn build(
        tls: &BackendTls,
        trust: Option<&TrustAnchors>,
        certificate: Option<&Certificate>,
        alpn: &[&[u8]],
        needs_h2: bool,
    ) -> Result<Self, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let roots = match trust {
            Some(trust) => {
                let mut roots = RootCertStore::empty();
                for der in &trust.certificates {
                    roots
                        .add(CertificateDer::from(der.to_vec()))
                        .map_err(|why| format!("a trust anchor is unusable: {why}"))?;
                }
                Arc::new(roots)
            }
            None => Arc::clone(&SYSTEM),
        };
        if roots.is_empty() {
            return Err("there are no trust anchors".to_owned());
        }
        let verifier = Verifier {
            roots,
            identities: tls.identities.clone(),
            provider: Arc::clone(&provider),
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|why| why.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match certificate {
            Some(certificate) => {
                let chain = certificate.chain.iter().map(|der| CertificateDer::from(der.to_vec()));
                let key = PrivateKeyDer::try_from(certificate.key.secret_der().to_vec())
                    .map_err(|why| format!("the client certificate's key is unusable: {why}"))?;
                builder
                    .with_client_auth_cert(chain.collect(), key)
                    .map_err(|why| format!("the client certificate is unusable: {why}"))?
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let server_name = ServerName::try_from(tls.sni.as_str().to_owned())
            .map_err(|why| format!("{} is no server name: {why}", tls.sni))?;
        Ok(Self {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            config: Arc::new(config),
            server_name,
            needs_h2,
        })
    }
}

/// Where distributions keep their bundle of CA certificates.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

static SYSTEM: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    let named = std::env::var("SSL_CERT_FILE").ok();
    let found = named
        .iter()
        .map(String::as_str)
        .chain(BUNDLES)
        .find_map(|path| CertificateDer::pem_file_iter(path).ok());
    roots.add_parsable_certificates(found.into_iter().flatten().flatten());
    Arc::new(roots)
});

/// Webpki knows no URI names, and a policy's names need not be the server name that was asked for.
#[derive(Debug)]
struct Verifier {
    roots: Arc<RootCertStore>,
    identities: Vec<ServerIdentity>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn names_match(&self, der: &CertificateDer<'_>, certificate: &ParsedCertificate<'_>) -> bool {
        self.identities.iter().any(|identity| match identity {
            ServerIdentity::Dns(name) => {
                ServerName::try_from(name.as_str()).is_ok_and(|name| verify_server_name(certificate, &name).is_ok())
                    || has_short_wildcard(der, name.as_str())
            }
            ServerIdentity::Uri(wanted) => has_uri(der, wanted),
        })
    }
}

fn has_uri(der: &CertificateDer<'_>, wanted: &str) -> bool {
    has_name(der, |name| matches!(name, GeneralName::URI(uri) if *uri == wanted))
}

/// Whether a name is `*.suffix` of `wanted` with a suffix of one label, as clusters name themselves (`*.local`): webpki
/// wants two, for the sake of public names, which a policy's trust anchors have nothing to do with.
fn has_short_wildcard(der: &CertificateDer<'_>, wanted: &str) -> bool {
    let Some((_, suffix)) = wanted.split_once('.').filter(|(first, _)| !first.is_empty()) else {
        return false;
    };
    let matches = |pattern: &str| {
        let rest = pattern.strip_prefix("*.");
        rest.is_some_and(|rest| !rest.contains('.') && rest.eq_ignore_ascii_case(suffix))
    };
    has_name(
        der,
        |name| matches!(name, GeneralName::DNSName(pattern) if matches(pattern)),
    )
}

fn has_name(der: &CertificateDer<'_>, wanted: impl Fn(&GeneralName<'_>) -> bool) -> bool {
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(der) else {
        return false;
    };
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return false;
    };
    names.value.general_names.iter().any(wanted)
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        if self.names_match(end_entity, &certificate) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::InvalidCertificate(rustls::CertificateError::NotValidForName))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        None
    }
}
