//! The way there and back, and what must never pass.

use std::sync::Arc;

use pierhead_model::{BindPort, RouteFlavor, Snapshot};
use proptest::prelude::*;

use crate::{
    Assembly, Encoder, Resource, ResourceId, ResourceKind, ResourceName, disk,
    fixture::{self, everything},
};

fn resources(snapshot: &Arc<Snapshot>) -> Vec<Resource> {
    Encoder::default().encode(snapshot).changed
}

fn resource(snapshot: &Arc<Snapshot>, name: &str) -> Resource {
    let mut encoder = Encoder::default();
    encoder.encode(snapshot);
    encoder.resources()[name].clone()
}

/// What holds back a resource with this body.
fn complaint(name: &str, body: Vec<u8>) -> String {
    let mut assembly = Assembly::default();
    assembly.put(Resource::new(ResourceName::new(name), body.into()));
    let candidate = assembly.candidate();
    candidate.held_back.get(name).cloned().unwrap_or_default()
}

#[test]
fn everything_survives() {
    let snapshot = everything();
    let mut assembly = Assembly::default();
    for resource in resources(&snapshot) {
        assembly.put(resource);
    }
    let candidate = assembly.candidate();
    assert_eq!(candidate.held_back, Default::default());
    assert_eq!(candidate.snapshot, snapshot);
}

#[test]
fn names_say_what_they_name() {
    let names: Vec<_> = resources(&everything())
        .into_iter()
        .map(|resource| resource.name)
        .collect();
    for expected in [
        "bind/tcp *:80",
        "bind/tcp 10.0.0.1:443",
        "bind/tcp [2001:db8::1]:*",
        "bind/udp 10.1.0.0/16:53",
        "route/HttpRoute ns/shop",
        "backend/ns/web:80",
        "endpoints/ns/web:http",
        "certificate/ns/web",
        "trust/ConfigMap ns/ca",
        "owned/10.0.0.1/32",
        "fleet/pierhead-system/pierhead-node",
    ] {
        assert!(
            names.iter().any(|name| name.as_str() == expected),
            "{expected} in {names:?}"
        );
    }
    for kind in ResourceKind::ALL {
        assert!(names.iter().any(|name| name.kind() == Some(kind)), "{kind:?}");
    }
    assert_eq!(ResourceName::new("secret/a").kind(), None);
    assert_eq!(ResourceName::new("bind").kind(), None);
}

#[test]
fn what_did_not_change_is_not_encoded_again() {
    let first = everything();
    let mut encoder = Encoder::default();
    let all = encoder.encode(&first).changed.len();
    assert_eq!(all, encoder.resources().len());
    assert!(encoder.encode(&first).is_empty());

    // Equal values in other places.
    assert!(encoder.encode(&everything()).is_empty());

    let mut second = (*first).clone();
    let id = fixture::route_id(RouteFlavor::Http);
    Arc::make_mut(second.routes.get_mut(&id).unwrap()).rules.clear();
    second.certificates.clear();
    let changes = encoder.encode(&second.into());
    let name = ResourceId::Route(id).name();
    assert_eq!(
        changes
            .changed
            .iter()
            .map(|resource| &resource.name)
            .collect::<Vec<_>>(),
        [&name]
    );
    assert_eq!(changes.removed, [ResourceName::new("certificate/ns/web")]);
    assert_eq!(encoder.resources().len(), all - 1);
}

#[test]
fn equal_content_has_an_equal_version_whoever_encodes_it() {
    let versions = |resources: Vec<Resource>| resources.into_iter().map(|r| r.version).collect::<Vec<_>>();
    assert_eq!(versions(resources(&everything())), versions(resources(&everything())));
}

#[test]
fn what_a_newer_controller_says_is_refused_and_named() {
    let route = resource(&everything(), "route/HttpRoute ns/shop");
    let name = route.name.as_str();
    assert_eq!(
        complaint(name, route.body.to_vec()),
        "it names backend/ns/web:80, which is missing or cannot be used"
    );

    // A field that does not exist: number 1000, a varint.
    let mut unknown_field = route.body.to_vec();
    unknown_field.extend([0xc0, 0x3e, 1]);
    assert!(complaint(name, unknown_field).contains("fields that this version does not know"));

    // The flavor once more, with a value that does not exist.
    let mut unknown_value = route.body.to_vec();
    unknown_value.extend([0x10, 99]);
    assert_eq!(
        complaint(name, unknown_value),
        "flavor: 99 is no RouteFlavor that this version knows"
    );

    // A rule with a filter of an unknown kind.
    let mut unknown_variant = route.body.to_vec();
    unknown_variant.extend([0x2a, 4, 0x22, 2, 0x7a, 0]);
    let told = complaint(name, unknown_variant);
    assert!(
        told.starts_with("rules[2].filters[0]: it is missing, or a Filter"),
        "{told}"
    );

    assert_eq!(
        complaint("secret/a", vec![]),
        "this version knows no such kind of resource"
    );
}

#[test]
fn a_body_under_another_name_is_refused() {
    let route = resource(&everything(), "route/HttpRoute ns/shop");
    let told = complaint("route/HttpRoute ns/other", route.body.to_vec());
    assert_eq!(told, "its content is that of route/HttpRoute ns/shop");
}

#[test]
fn what_lacks_something_is_refused_and_the_field_named() {
    for (name, field) in [
        ("bind/tcp *:80", "key.transport"),
        ("route/HttpRoute ns/shop", "flavor"),
        ("backend/ns/web:80", "id"),
        ("endpoints/ns/web:http", "id"),
        ("certificate/ns/web", "id"),
        ("trust/a", "id"),
        ("owned/10.0.0.1/32", "prefix.ip"),
    ] {
        let told = complaint(name, Vec::new());
        assert!(told.starts_with(&format!("{field}: ")), "{name}: {told}");
    }
}

#[test]
fn a_pattern_that_does_not_compile_is_refused() {
    let mut snapshot = (*everything()).clone();
    let id = fixture::route_id(RouteFlavor::Http);
    let route = Arc::make_mut(snapshot.routes.get_mut(&id).unwrap());
    route.rules[0].matches[0].path = pierhead_model::PathMatch::Regex(pierhead_model::Pattern::new_checked("("));
    let body = resource(&snapshot.into(), "route/HttpRoute ns/shop").body;
    let told = complaint("route/HttpRoute ns/shop", body.to_vec());
    assert!(told.starts_with("rules[0].matches[0].path.Regex: "), "{told}");
}

#[test]
fn private_keys_are_never_shown() {
    use crate::{DeltaResponse, ResourceMessage, identity::SignRequest};

    let snapshot = everything();
    let resource = resource(&snapshot, "certificate/ns/web");
    let secret = std::str::from_utf8(fixture::SECRET).unwrap();
    assert!(
        resource.body.windows(secret.len()).any(|w| w == fixture::SECRET),
        "the key is in there"
    );
    let mut encoder = Encoder::default();
    encoder.encode(&snapshot);
    let mut client = crate::Client::new("node-1", "test");
    let response = DeltaResponse {
        resources: vec![(&resource).into()],
        ..DeltaResponse::default()
    };
    let shown = [
        format!("{resource:?}"),
        format!("{:?}", ResourceMessage::from(&resource)),
        format!("{response:?}"),
        format!("{encoder:?}"),
        format!("{:?}", crate::wire::debug_of_certificate(resource.body)),
        format!("{:?}", client.receive(response)),
        format!("{client:?}"),
        format!(
            "{:?}",
            SignRequest {
                csr_der: Default::default(),
                token: secret.to_owned(),
            }
        ),
    ];
    // Bytes are shown as text, as numbers, or as hexadecimal digits.
    let forms = [
        secret.to_owned(),
        format!("{:?}", fixture::SECRET).trim_matches(['[', ']']).to_owned(),
        fixture::SECRET.iter().map(|byte| format!("{byte:02x}")).collect(),
    ];
    for text in shown {
        assert!(!text.is_empty());
        for form in &forms {
            assert!(!text.contains(form), "{text}");
        }
    }
}

#[test]
fn a_file_gives_back_what_it_was_given() {
    let snapshot = everything();
    let file = disk::encode(&snapshot);
    let read = disk::decode(&file).unwrap();
    assert_eq!(read.snapshot, snapshot);
    assert!(read.held_back.is_empty());
}

#[test]
fn a_file_that_is_none_is_named() {
    let file = disk::encode(&everything());
    assert_eq!(disk::decode(b"").unwrap_err(), disk::Unusable::Foreign);
    assert_eq!(disk::decode(b"apiVersion: v1").unwrap_err(), disk::Unusable::Foreign);
    let mut other = file.clone();
    other[11] = 2;
    assert_eq!(disk::decode(&other).unwrap_err(), disk::Unusable::Format(2));
    for end in [9, 20, 60, file.len() - 1] {
        assert_eq!(
            disk::decode(&file[..end]).unwrap_err(),
            disk::Unusable::Damaged,
            "{end}"
        );
    }
    for at in [12, 43, 44, file.len() / 2, file.len() - 1] {
        let mut damaged = file.clone();
        damaged[at] ^= 1;
        assert_eq!(disk::decode(&damaged).unwrap_err(), disk::Unusable::Damaged, "{at}");
    }
}

/// A body of every kind, to be damaged.
fn bodies() -> Vec<Resource> {
    resources(&everything())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_bytes_are_too_strange(kind in 0..7_usize, body in prop::collection::vec(any::<u8>(), 0..200)) {
        let name = format!("{}/a", ResourceKind::ALL[kind].as_str());
        complaint(&name, body.clone());
        let _ = disk::decode(&body);
    }

    #[test]
    fn no_damage_is_too_strange(which in any::<prop::sample::Index>(), damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let bodies = bodies();
        let resource = which.get(&bodies);
        let mut body = resource.body.to_vec();
        for (at, byte) in damage {
            let at = at.index(body.len());
            body[at] = byte;
        }
        let mut assembly = Assembly::default();
        assembly.put(Resource::new(resource.name.clone(), body.into()));
        // What is let in is let in again, unchanged.
        let candidate = assembly.candidate();
        prop_assert_eq!(&disk::decode(&disk::encode(&candidate.snapshot)).unwrap().snapshot, &candidate.snapshot);
    }
}

#[test]
fn ports_and_lengths_have_bounds() {
    // bind/tcp *:65536
    let mut snapshot = Snapshot::default();
    let (key, bind) = everything()
        .binds
        .first_key_value()
        .map(|(k, b)| (*k, Arc::clone(b)))
        .unwrap();
    snapshot.binds.insert(key, bind);
    assert_eq!(key.port, BindPort::Port(80));
    let body = resource(&snapshot.into(), "bind/tcp *:80").body.to_vec();
    let at = body.windows(2).position(|w| w == [0x08, 80]).unwrap();
    let mut large = body[..at].to_vec();
    // 65536 takes three bytes: the lengths of the three messages around it grow by two.
    large.extend([0x08, 0x80, 0x80, 0x04]);
    large.extend(&body[at + 2..]);
    large[at - 1] += 2;
    large[1] += 2;
    assert_eq!(
        complaint("bind/tcp *:80", large),
        "key.port.Port: 65536 is larger than 65535"
    );
}
