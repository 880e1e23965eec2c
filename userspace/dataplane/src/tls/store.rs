use std::{collections::HashMap, sync::Arc};

use foldhash::fast::RandomState;
use pierhead_model::{
    Certificate, CertificateId, CertificateUse, ClientAuth, ClientAuthMode, Snapshot, TlsTermination, TrustAnchors,
    TrustId,
};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer},
    server::{NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::CertifiedKey,
};

use super::{resolver::Resolver, verify::AcceptAny};

/// Keys, anchors and tickets, parsed once and kept while the snapshot names them.
#[derive(Debug)]
pub(crate) struct TlsStore {
    provider: Arc<CryptoProvider>,
    /// Shared by the listeners that ask for no client certificate, so that a ticket is good at each of them.
    tickets: Arc<dyn ProducesTickets>,
    certificates: HashMap<CertificateId, Parsed, RandomState>,
    trust: HashMap<TrustId, (Arc<TrustAnchors>, Arc<RootCertStore>), RandomState>,
}

/// A certificate and its key as the TLS library wants them.
#[derive(Debug)]
struct Parsed {
    model: Arc<Certificate>,
    /// Where `why` is given that of the certificate before, if it had one.
    key: Option<Arc<CertifiedKey>>,
    /// Why the library cannot use `model`; empty: it can.
    why: String,
}

/// How the handshakes of one listener are answered.
#[derive(Clone, Debug)]
pub(crate) struct TlsServer {
    /// `None`: there is no usable certificate, or no anchor to check clients with. Handshakes are refused by closing.
    pub(crate) config: Option<Arc<ServerConfig>>,
    source: Arc<Source>,
}

/// What a [`TlsServer`] was made from, to recognise an unchanged one.
#[derive(Debug)]
struct Source {
    termination: TlsTermination,
    keys: Vec<Arc<CertifiedKey>>,
    roots: Option<Arc<RootCertStore>>,
}

impl TlsServer {
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.source, &other.source)
    }
}

impl TlsStore {
    /// # Errors
    /// When no random key for tickets can be had.
    pub(crate) fn new() -> Result<Self, rustls::Error> {
        Ok(Self {
            provider: Arc::new(aws_lc_rs::default_provider()),
            tickets: aws_lc_rs::Ticketer::new()?,
            certificates: HashMap::default(),
            trust: HashMap::default(),
        })
    }

    /// Takes over the certificates and anchors of `snapshot`; only changed ones are parsed.
    pub(crate) fn update(&mut self, snapshot: &Snapshot) {
        let mut before = std::mem::take(&mut self.certificates);
        for (id, certificate) in &snapshot.certificates {
            let entry = match before.remove(id) {
                Some(same) if same.model == *certificate => same,
                old => self.parse(certificate, old.and_then(|old| old.key)),
            };
            self.certificates.insert(id.clone(), entry);
        }
        let mut before = std::mem::take(&mut self.trust);
        for (id, anchors) in &snapshot.trust {
            let same = before.remove(id).filter(|(old, _)| old == anchors);
            let entry = same.unwrap_or_else(|| (Arc::clone(anchors), Arc::new(roots(anchors))));
            self.trust.insert(id.clone(), entry);
        }
    }

    /// Certificates of the last snapshot that cannot be used, and why. In their place is what they were before.
    pub(crate) fn unusable(&self) -> Vec<(CertificateId, String)> {
        let all = self.certificates.iter().filter(|(_, parsed)| !parsed.why.is_empty());
        all.map(|(id, parsed)| (id.clone(), parsed.why.clone())).collect()
    }

    fn parse(&self, certificate: &Arc<Certificate>, before: Option<Arc<CertifiedKey>>) -> Parsed {
        let chain = certificate
            .chain
            .iter()
            .map(|der| CertificateDer::from(der.to_vec()))
            .collect();
        let key = PrivateKeyDer::try_from(certificate.key.secret_der().to_vec())
            .map_err(str::to_owned)
            .and_then(|key| {
                self.provider
                    .key_provider
                    .load_private_key(key)
                    .map_err(|e| e.to_string())
            });
        let (key, why) = match key {
            Ok(key) => (Some(Arc::new(CertifiedKey::new(chain, key))), String::new()),
            Err(why) => {
                let kept = before.is_some();
                tracing::error!(certificate = %certificate.id, why, kept, "private key is not usable; certificate ignored");
                (before, format!("its private key is not usable: {why}"))
            }
        };
        Parsed {
            model: Arc::clone(certificate),
            key,
            why,
        }
    }

    /// The server side of `termination`: that of `previous` when nothing changed.
    pub(crate) fn server(
        &self,
        termination: &TlsTermination,
        alpn: &[&[u8]],
        previous: Option<&TlsServer>,
    ) -> TlsServer {
        let usable: Vec<(&CertificateUse, Arc<CertifiedKey>)> = termination
            .certificates
            .iter()
            .filter_map(|usage| {
                let parsed = self.certificates.get(&usage.certificate)?;
                Some((usage, Arc::clone(parsed.key.as_ref()?)))
            })
            .collect();
        let auth = termination.client_auth.as_ref();
        let roots = auth
            .and_then(|auth| self.trust.get(&auth.trust))
            .map(|(_, roots)| Arc::clone(roots));
        let same_clients = |old: &Source| {
            old.termination.client_auth == termination.client_auth
                && match (&old.roots, &roots) {
                    (Some(a), Some(b)) => Arc::ptr_eq(a, b),
                    (None, None) => true,
                    (Some(_), None) | (None, Some(_)) => false,
                }
        };
        if let Some(old) = previous
            && old.source.termination == *termination
            && same_clients(&old.source)
            && old.source.keys.len() == usable.len()
            && old.source.keys.iter().zip(&usable).all(|(a, (_, b))| Arc::ptr_eq(a, b))
            && old.config.as_ref().is_none_or(|config| config.alpn_protocols == alpn)
        {
            return old.clone();
        }
        // A ticket vouches for the client certificate of its first handshake, so it must not outlive what that was
        // checked with, nor be good elsewhere.
        let tickets = match auth {
            None => Some(Arc::clone(&self.tickets)),
            Some(_) => previous
                .filter(|old| same_clients(&old.source))
                .and_then(|old| old.config.as_ref())
                .map(|config| Arc::clone(&config.ticketer))
                .or_else(|| aws_lc_rs::Ticketer::new().ok()),
        };
        let config = self
            .verifier(auth, roots.as_ref())
            .and_then(|verifier| self.config(&usable, verifier, alpn, tickets));
        TlsServer {
            config,
            source: Arc::new(Source {
                termination: termination.clone(),
                keys: usable.into_iter().map(|(_, key)| key).collect(),
                roots,
            }),
        }
    }

    /// `None`: clients cannot be checked as asked, so none may come in.
    fn verifier(
        &self,
        auth: Option<&ClientAuth>,
        roots: Option<&Arc<RootCertStore>>,
    ) -> Option<Arc<dyn ClientCertVerifier>> {
        match auth {
            None => Some(WebPkiClientVerifier::no_client_auth()),
            Some(ClientAuth {
                mode: ClientAuthMode::InsecureFallback,
                ..
            }) => Some(Arc::new(AcceptAny(Arc::clone(&self.provider)))),
            Some(ClientAuth {
                mode: ClientAuthMode::ValidOnly,
                trust,
            }) => WebPkiClientVerifier::builder_with_provider(Arc::clone(roots?), Arc::clone(&self.provider))
                .build()
                .inspect_err(|why| tracing::error!(%trust, %why, "client certificates cannot be checked"))
                .ok(),
        }
    }

    fn config(
        &self,
        usable: &[(&CertificateUse, Arc<CertifiedKey>)],
        verifier: Arc<dyn ClientCertVerifier>,
        alpn: &[&[u8]],
        tickets: Option<Arc<dyn ProducesTickets>>,
    ) -> Option<Arc<ServerConfig>> {
        let resolver = Resolver::new(usable)?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .inspect_err(|why| tracing::error!(%why, "TLS cannot be set up"))
            .ok()?;
        let mut config = builder
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        if let Some(tickets) = tickets {
            config.ticketer = tickets;
        }
        Some(Arc::new(config))
    }
}

fn roots(anchors: &TrustAnchors) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for der in &anchors.certificates {
        if let Err(why) = roots.add(CertificateDer::from(der.to_vec())) {
            tracing::error!(trust = %anchors.id, %why, "CA certificate is not usable; ignored");
        }
    }
    roots
}
