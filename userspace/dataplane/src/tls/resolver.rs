use std::sync::Arc;

use pierhead_model::CertificateUse;
use pierhead_route::HostMap;
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

/// The certificates of one listener by server name: most specific first, and the first entry without a match.
#[derive(Debug)]
pub(super) struct Resolver {
    /// Several for one name: of different key types, for different clients.
    by_name: HostMap<Vec<Arc<CertifiedKey>>>,
    first: Arc<CertifiedKey>,
}

impl Resolver {
    /// `None` without any certificate.
    pub(super) fn new(certificates: &[(&CertificateUse, Arc<CertifiedKey>)]) -> Option<Self> {
        let (_, first) = certificates.first()?;
        let mut by_name = HostMap::<Vec<_>>::default();
        for (usage, key) in certificates {
            for name in &usage.names {
                let mut keys = by_name.get(name).cloned().unwrap_or_default();
                keys.push(Arc::clone(key));
                by_name.insert(name, keys);
            }
        }
        Some(Self {
            by_name,
            first: Arc::clone(first),
        })
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello
            .server_name()
            .and_then(|name| self.by_name.best(&name.trim_end_matches('.').to_ascii_lowercase()));
        let Some(keys) = named else {
            return Some(Arc::clone(&self.first));
        };
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        keys.iter().find(fits).or_else(|| keys.first()).cloned()
    }
}
