//! TLS towards backends.

use std::sync::Arc;

use pierhead_model::{BackendTls, Hostname, ServerIdentity, TrustAnchors, TrustId};
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair, SanType};
use rustls::pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;

use super::*;

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn trust(&self) -> TrustAnchors {
        TrustAnchors {
            id: TrustId("ca".into()),
            certificates: vec![self.0.der().to_vec().into()],
        }
    }

    /// A server that echoes the request line, over HTTP/1.
    async fn server(&self, names: Vec<SanType>) -> SocketAddr {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = names;
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        spawn_local(async move {
            loop {
                let (stream, _) = socket.accept().await.unwrap();
                let acceptor = acceptor.clone();
                spawn_local(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let mut input = Vec::new();
                    loop {
                        while find(&input, b"\r\n\r\n").is_none() {
                            if stream.read_buf(&mut input).await.unwrap_or(0) == 0 {
                                return;
                            }
                        }
                        input.clear();
                        let sni = stream.get_ref().1.server_name().unwrap_or("none").to_owned();
                        stream.write_all(ok(&sni).as_bytes()).await.unwrap();
                        stream.flush().await.unwrap();
                    }
                });
            }
        });
        address
    }
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

fn uri(name: &str) -> SanType {
    SanType::URI(name.try_into().unwrap())
}

#[test]
fn chain_and_identities_decide_and_nothing_goes_out_in_cleartext() {
    run(async {
        let (good, other) = (Authority::new(), Authority::new());
        let inner = Hostname::parse("inner.example").unwrap();
        let by_dns = |name: &str| ServerIdentity::Dns(Hostname::parse(name).unwrap());
        for (authority, names, identity, status) in [
            (&good, dns("inner.example"), by_dns("inner.example"), 200),
            (&good, dns("*.example"), by_dns("inner.example"), 200),
            (&good, dns("wrong.example"), by_dns("inner.example"), 503),
            (
                &good,
                uri("spiffe://a/b"),
                ServerIdentity::Uri("spiffe://a/b".into()),
                200,
            ),
            (
                &good,
                uri("spiffe://a/c"),
                ServerIdentity::Uri("spiffe://a/b".into()),
                503,
            ),
            (&other, dns("inner.example"), by_dns("inner.example"), 503),
        ] {
            let label = format!("{names:?} {identity:?}");
            let server = authority.server(vec![names]).await;
            let mut setup = Setup::simple(server);
            setup.trust = vec![good.trust()];
            setup.tls = Some(BackendTls {
                sni: inner.clone(),
                identities: vec![identity],
                trust: Some(TrustId("ca".into())),
                client_certificate: None,
            });
            let gate = Gate::start(setup).await;
            let mut client = gate.connect().await;
            for _ in 0..2 {
                client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
                let answer = client.message().await;
                assert_eq!(answer.status(), status, "{label}");
                if status == 200 {
                    assert_eq!(answer.body, "inner.example", "the server name asked for");
                }
            }
        }
    });
}
