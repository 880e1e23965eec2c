//! TLS listeners on loopback: passed through and ended here.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
};

use pierhead_model::{ClientAuth, ClientAuthMode, Transport, TrustAnchors, TrustId};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, ServerConfig, ServerConnection, SignatureScheme,
    StreamOwned,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
};
use support::{Pair, World, connect, echo, free, gate, metric, read, server};

/// Takes any certificate: the tests look at which one came.
#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}

type Client = StreamOwned<ClientConnection, TcpStream>;

/// Shakes hands with `name` in the ClientHello; an IP address sends no name.
fn greet(at: SocketAddr, name: &str) -> std::io::Result<Client> {
    greet_as(at, name, None)
}

/// The same with a client certificate.
fn greet_as(at: SocketAddr, name: &str, client: Option<&Pair>) -> std::io::Result<Client> {
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer));
    let config = match client {
        None => config.with_no_client_auth(),
        Some(pair) => {
            let key = PrivateKeyDer::try_from(pair.key.clone()).unwrap();
            config
                .with_client_auth_cert(vec![CertificateDer::from(pair.der.clone())], key)
                .unwrap()
        }
    };
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut stream = StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), connect(at));
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

fn certificate_of(client: &Client) -> Vec<u8> {
    client.conn.peer_certificates().unwrap()[0].to_vec()
}

/// A TLS server that greets with its name over TLS.
fn tls_server(pair: &Pair, greeting: &'static str) -> SocketAddr {
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from(pair.der.clone())],
            PrivateKeyDer::try_from(pair.key.clone()).unwrap(),
        )
        .unwrap();
    let config = Arc::new(config);
    server(move |tcp| {
        let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), tcp);
        let _ = stream.write_all(greeting.as_bytes());
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    })
}

#[test]
fn passthrough_goes_by_server_name_and_shows_the_backends_certificate() {
    let gate = gate();
    let at = free(Transport::Tcp);
    let (a, b) = (Pair::new("a.example.com"), Pair::new("b.example.com"));
    let world = World::default()
        .backend("a", &[tls_server(&a, "from a")])
        .backend("b", &[tls_server(&b, "from b")])
        .passthrough(at, "a.example.com", "a")
        .passthrough(at, "*.example.com", "b");
    assert!(gate.apply(world.build()).is_complete());
    for (name, pair, greeting) in [
        ("a.example.com", &a, "from a"),
        ("A.Example.Com", &a, "from a"),
        ("x.y.example.com", &b, "from b"),
    ] {
        let mut client = greet(at, name).unwrap();
        assert_eq!(read(&mut client, 6), greeting);
        assert_eq!(certificate_of(&client), pair.der);
    }
}

/// gateway-api.md §6.4: nothing but EOF or ECONNRESET counts as a refusal.
#[test]
fn an_unmatched_server_name_sees_a_closed_connection_and_no_alert() {
    let gate = gate();
    let at = free(Transport::Tcp);
    let pair = Pair::new("a.example.com");
    let world = World::default()
        .backend("a", &[echo("a")])
        .certificate("default/a", &pair)
        .terminate(at, "a.example.com", &[(&["a.example.com"], "default/a")], "a");
    gate.apply(world.build());
    for name in ["b.example.com", "x.a.example.com", "127.0.0.1"] {
        let error = greet(at, name).unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset),
            "{name}: {error:?}"
        );
    }
    let mut plain = connect(at);
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(answer.is_empty(), "{answer:?}");
    assert_eq!(metric(&gate, "pierhead_tls_unmatched_sni_total"), 3.0);
}

#[test]
fn the_most_specific_certificate_is_shown_and_the_first_without_a_match() {
    let gate = gate();
    let at = free(Transport::Tcp);
    let [first, exact, wildcard] = ["first", "exact", "wildcard"].map(Pair::new);
    let world = World::default()
        .backend("a", &[echo("hello")])
        .certificate("default/first", &first)
        .certificate("default/exact", &exact)
        .certificate("default/wildcard", &wildcard)
        .terminate(
            at,
            "",
            &[
                (&["first.test"], "default/first"),
                (&["*.example.com"], "default/wildcard"),
                (&["a.example.com"], "default/exact"),
            ],
            "a",
        );
    gate.apply(world.build());
    for (name, pair) in [
        ("a.example.com", &exact),
        ("b.example.com", &wildcard),
        ("first.test", &first),
        ("other.test", &first),
        ("127.0.0.1", &first),
    ] {
        let mut client = greet(at, name).unwrap();
        assert_eq!(read(&mut client, 5), "hello");
        assert_eq!(certificate_of(&client), pair.der, "{name}");
        client.write_all(b"ping").unwrap();
        assert_eq!(read(&mut client, 4), "ping");
    }
}

#[test]
fn a_certificate_is_changed_under_open_connections() {
    let gate = gate();
    let at = free(Transport::Tcp);
    let (old, new) = (Pair::new("old"), Pair::new("new"));
    let world = World::default()
        .backend("a", &[echo("a")])
        .certificate("default/a", &old)
        .terminate(at, "a.test", &[(&["a.test"], "default/a")], "a");
    gate.apply(world.build());
    let mut before = greet(at, "a.test").unwrap();
    assert_eq!(read(&mut before, 1), "a");
    gate.apply(world.certificate("default/a", &new).build());
    let after = greet(at, "a.test").unwrap();
    assert_eq!(certificate_of(&after), new.der);
    before.write_all(b"still").unwrap();
    assert_eq!(read(&mut before, 5), "still");
    assert_eq!(certificate_of(&before), old.der);
}

#[test]
fn the_end_of_a_decrypted_stream_is_passed_on() {
    let gate = gate();
    let at = free(Transport::Tcp);
    let counting = server(|mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        stream.write_all(all.len().to_string().as_bytes()).unwrap();
    });
    let world = World::default()
        .backend("a", &[counting])
        .certificate("default/a", &Pair::new("a.test"))
        .terminate(at, "a.test", &[(&["a.test"], "default/a")], "a");
    gate.apply(world.build());
    let mut client = greet(at, "a.test").unwrap();
    client.write_all(&vec![7; 300_000]).unwrap();
    client.conn.send_close_notify();
    client.flush().unwrap();
    let mut answer = String::new();
    // Ends with close_notify, or this fails.
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "300000");
}

#[test]
fn a_client_that_does_not_greet_is_let_go() {
    let gate = gate();
    let at = free(Transport::Tcp);
    let mut world = World::default();
    world.limits.handshake_timeout = std::time::Duration::from_millis(200);
    gate.apply(world.backend("a", &[echo("a")]).passthrough(at, "a.test", "a").build());
    let mut client = connect(at);
    client.write_all(&[22, 3, 1]).unwrap();
    assert_eq!(client.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

/// A CA, and a client certificate of it.
fn authority() -> (Vec<u8>, Pair) {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let ca = params.self_signed(&key).unwrap();
    let issuer = rcgen::Issuer::new(params, key);
    let mut client = rcgen::CertificateParams::new(Vec::new()).unwrap();
    client.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let key = rcgen::KeyPair::generate().unwrap();
    let pair = Pair {
        der: client.signed_by(&key, &issuer).unwrap().der().to_vec(),
        key: key.serialize_der(),
    };
    (ca.der().to_vec(), pair)
}

/// GEP-91: who is let in by mode, and that nobody is while the anchors are missing.
#[test]
fn client_certificates_are_asked_for_as_configured() {
    let (ca, member) = authority();
    let (_, stranger) = authority();
    let trust = TrustId("default/ca".into());
    for (mode, anchors, expected) in [
        (ClientAuthMode::ValidOnly, true, [false, false, true]),
        (ClientAuthMode::InsecureFallback, true, [true, true, true]),
        (ClientAuthMode::ValidOnly, false, [false, false, false]),
    ] {
        let gate = gate();
        let at = free(Transport::Tcp);
        let mut world = World::default()
            .backend("a", &[echo("in")])
            .certificate("default/a", &Pair::new("a.test"));
        if anchors {
            let anchors = TrustAnchors {
                id: trust.clone(),
                certificates: vec![ca.as_slice().into()],
            };
            world.snapshot.trust.insert(trust.clone(), Arc::new(anchors));
        }
        let auth = ClientAuth {
            trust: trust.clone(),
            mode,
        };
        let world = world.terminate_for(at, "a.test", &[(&["a.test"], "default/a")], "a", Some(auth));
        gate.apply(world.build());
        for (client, let_in) in [None, Some(&stranger), Some(&member)].into_iter().zip(expected) {
            // In TLS 1.3 a client learns of its refusal only when it reads.
            let got = greet_as(at, "a.test", client).and_then(|mut stream| {
                let mut greeting = [0; 2];
                stream.read_exact(&mut greeting)
            });
            assert_eq!(got.is_ok(), let_in, "{mode:?}, anchors: {anchors}: {got:?}");
        }
    }
}
