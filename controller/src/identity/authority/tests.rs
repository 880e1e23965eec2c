use rcgen::{PKCS_ECDSA_P384_SHA384, SignatureAlgorithm};
use rustls::{
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    pki_types::ServerName,
};

use super::*;

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn request_of(algorithm: &'static SignatureAlgorithm, name: &str) -> Vec<u8> {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(name);
    params.serialize_request(&key).unwrap().der().to_vec()
}

fn request() -> Vec<u8> {
    request_of(&PKCS_ECDSA_P256_SHA256, "system:masters")
}

#[test]
fn a_ca_survives_being_kept() {
    let made = Authority::create(now()).unwrap();
    let read = Authority::from_pem(made.certificate_pem(), made.secret_key_pem()).unwrap();
    assert_eq!(read.fingerprint(), made.fingerprint());
    let certificate = read.sign_node(&request(), "node-1", now()).unwrap();
    assert!(made.node(&[certificate], now()).is_ok());
}

#[test]
fn the_controller_decides_the_name() {
    let ca = Authority::create(now()).unwrap();
    let certificate = ca.sign_node(&request(), "node-1", now()).unwrap();
    let node = ca.node(&[certificate], now()).unwrap();
    assert_eq!(&*node.name, "node-1");
    assert_eq!(node.not_after, now() + NODE_VALIDITY);
}

#[test]
fn a_certificate_is_good_for_a_day() {
    let ca = Authority::create(now()).unwrap();
    let chain = [ca.sign_node(&request(), "node-1", now()).unwrap()];
    assert!(ca.node(&chain, now() - SKEW).is_ok());
    assert!(ca.node(&chain, now() + NODE_VALIDITY).is_ok());
    for bad in [
        now() + NODE_VALIDITY + Duration::from_secs(1),
        now() - SKEW - Duration::from_secs(1),
    ] {
        assert!(matches!(ca.node(&chain, bad), Err(NotOurs::Invalid(_))), "{bad}");
    }
}

#[test]
fn what_another_ca_signed_is_refused() {
    let ca = Authority::create(now()).unwrap();
    let other = Authority::create(now()).unwrap();
    let chain = [other.sign_node(&request(), "node-1", now()).unwrap()];
    assert!(matches!(ca.node(&chain, now()), Err(NotOurs::Invalid(_))));
    assert_eq!(ca.node(&[], now()), Err(NotOurs::Absent));
    assert!(matches!(
        ca.node(&[b"junk"[..].into()], now()),
        Err(NotOurs::Invalid(_))
    ));
}

#[test]
fn a_serving_certificate_is_none_of_a_node_and_the_other_way_round() {
    let ca = Authority::create(now()).unwrap();
    let names = ["pierhead-controller.ns.svc".to_owned(), "localhost".to_owned()];
    let (serving, _) = ca.serving(&names, now()).unwrap();
    assert!(matches!(
        ca.node(std::slice::from_ref(&serving), now()),
        Err(NotOurs::Invalid(_))
    ));

    let mut roots = RootCertStore::empty();
    roots.add(ca.certificate().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider)
        .build()
        .unwrap();
    let time = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
    let verify = |certificate: &CertificateDer<'static>, name: &'static str| {
        let name = ServerName::try_from(name).unwrap();
        verifier.verify_server_cert(certificate, &[], &name, &[], time)
    };
    verify(&serving, "pierhead-controller.ns.svc").unwrap();
    verify(&serving, "localhost").unwrap();
    assert!(verify(&serving, "example.com").is_err());
    let node = ca.sign_node(&request(), "localhost", now()).unwrap();
    assert!(
        verify(&node, "localhost").is_err(),
        "a node cannot pretend to be the controller"
    );
}

#[test]
fn what_is_no_good_request_is_refused() {
    let ca = Authority::create(now()).unwrap();
    assert!(matches!(
        ca.sign_node(b"junk", "n", now()),
        Err(AuthorityError::Request(_))
    ));
    let other_key = request_of(&PKCS_ECDSA_P384_SHA384, "n");
    assert!(matches!(
        ca.sign_node(&other_key, "n", now()),
        Err(AuthorityError::RequestKey)
    ));
    // Its signature is at the end.
    let mut forged = request();
    *forged.last_mut().unwrap() ^= 1;
    assert!(matches!(
        ca.sign_node(&forged, "n", now()),
        Err(AuthorityError::Request(_))
    ));
    for end in 0..forged.len() {
        assert!(ca.sign_node(&forged[..end], "n", now()).is_err(), "{end}");
    }
}

#[test]
fn what_is_no_ca_is_refused() {
    let ca = Authority::create(now()).unwrap();
    let other = Authority::create(now()).unwrap();
    let read = Authority::from_pem;
    assert!(matches!(
        read("", ca.secret_key_pem()),
        Err(AuthorityError::Certificate(_))
    ));
    assert!(matches!(read(ca.certificate_pem(), ""), Err(AuthorityError::Key(_))));
    assert!(matches!(
        read(ca.certificate_pem(), other.secret_key_pem()),
        Err(AuthorityError::Mismatch)
    ));
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["a.example".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    assert!(matches!(
        read(&leaf.pem(), &key.serialize_pem()),
        Err(AuthorityError::NotCa)
    ));
}

#[test]
fn while_two_overlap_both_are_trusted_and_one_signs() {
    let old = Authority::create(now()).unwrap();
    let both = old.rotated(true, now()).unwrap().unwrap();
    assert_eq!(both.fingerprint(), old.fingerprint(), "the new one waits");
    assert_eq!(both.members.len(), 2);
    let later = now() + rotation::NOTICE;
    assert!(both.is_outdated(later));
    let both = Authority::read(both.certificate_pem(), both.secret_key_pem(), later).unwrap();
    assert_ne!(both.fingerprint(), old.fingerprint());
    let by_old = [old.sign_node(&request(), "node-1", now()).unwrap()];
    let by_new = [both.sign_node(&request(), "node-2", later).unwrap()];
    assert_eq!(&*both.node(&by_old, later).unwrap().name, "node-1");
    assert_eq!(&*both.node(&by_new, later).unwrap().name, "node-2");
    assert!(old.node(&by_new, later).is_err());

    let end = later + rotation::OVERLAP;
    assert!(both.rotated(false, end - Duration::from_secs(1)).unwrap().is_none());
    let new = both.rotated(false, end).unwrap().unwrap();
    assert_eq!((new.members.len(), new.fingerprint()), (1, both.fingerprint()));
    assert!(matches!(new.node(&by_old, later), Err(NotOurs::Invalid(_))));
    assert!(new.node(&by_new, later).is_ok());
}

#[test]
fn certificates_and_keys_go_together() {
    let (one, other) = (Authority::create(now()).unwrap(), Authority::create(now()).unwrap());
    let certificates = [one.certificate_pem(), other.certificate_pem()].concat();
    let keys = [one.secret_key_pem(), other.secret_key_pem()].concat();
    let swapped = [other.secret_key_pem(), one.secret_key_pem()].concat();
    assert!(Authority::from_pem(&certificates, &keys).is_ok());
    assert!(matches!(
        Authority::from_pem(&certificates, &swapped),
        Err(AuthorityError::Mismatch)
    ));
    assert!(Authority::from_pem(&certificates, one.secret_key_pem()).is_err());
    assert!(matches!(
        Authority::from_pem(one.certificate_pem(), &keys),
        Err(AuthorityError::Uneven {
            certificates: 1,
            keys: 2
        })
    ));
}

#[test]
fn the_key_is_never_shown() {
    let ca = Authority::create(now()).unwrap();
    let shown = format!("{ca:?}");
    assert!(shown.contains("fingerprint"));
    let secret = ca.secret_key_pem().lines().nth(1).unwrap();
    assert!(!shown.contains(secret) && !shown.contains("PRIVATE"));
}
