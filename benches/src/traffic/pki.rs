//! The certificate of every candidate, and clients that trust it.

use std::{fs, path::Path, sync::Arc};

use anyhow::Result;
use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::ServerName,
};

/// A certificate (ECDSA P-256) for `*.example.com`, as the candidates find it.
pub(crate) struct Pki {
    roots: Arc<RootCertStore>,
}

/// The name all clients ask for.
pub(crate) fn server_name() -> ServerName<'static> {
    ServerName::try_from("h1.example.com").unwrap_or_else(|_| unreachable!("a valid name"))
}

impl Pki {
    /// Writes `tls.crt`, `tls.key` and both in `tls.pem`.
    pub(crate) fn make(directory: &Path) -> Result<Self> {
        let made = rcgen::generate_simple_self_signed(["*.example.com".to_owned()])?;
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        fs::write(directory.join("tls.crt"), &certificate)?;
        fs::write(directory.join("tls.key"), &key)?;
        fs::write(directory.join("tls.pem"), certificate + &key)?;
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone())?;
        Ok(Self { roots: roots.into() })
    }

    /// A client of TLS 1.3 that offers X25519 only, the one group all candidates have: OpenSSL 3.0 knows no ML-KEM.
    pub(crate) fn client(&self, alpn: &[&[u8]], resumption: bool) -> Result<Arc<ClientConfig>> {
        let provider = CryptoProvider {
            kx_groups: vec![aws_lc_rs::kx_group::X25519],
            ..aws_lc_rs::default_provider()
        };
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(Arc::clone(&self.roots))
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config.resumption = if resumption {
            Resumption::in_memory_sessions(4096)
        } else {
            Resumption::disabled()
        };
        Ok(Arc::new(config))
    }
}
