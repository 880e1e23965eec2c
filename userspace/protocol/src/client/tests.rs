use pierhead_model::{BindAddress, BindKey, BindPort, DataPath, RouteFlavor, Transport};

use super::*;
use crate::{Encoder, ResourceId, fixture, fixture::everything};

fn response(nonce: u64, encoder: &mut Encoder, snapshot: &Arc<Snapshot>) -> DeltaResponse {
    let changes = encoder.encode(snapshot);
    DeltaResponse {
        nonce,
        system_version: nonce,
        resources: changes.changed.iter().map(Into::into).collect(),
        removed_resources: changes.removed.iter().map(|name| name.as_str().to_owned()).collect(),
        more: false,
    }
}

fn to_apply(received: Received) -> Arc<Snapshot> {
    match received {
        Received::Apply(snapshot) => snapshot,
        Received::More => panic!("there is more"),
    }
}

fn report(port: u16) -> DataPathReport {
    DataPathReport {
        bind: BindKey {
            transport: Transport::Tcp,
            address: BindAddress::Any,
            port: BindPort::Port(port),
        },
        path: DataPath::Steered,
        why: String::new(),
    }
}

#[test]
fn a_response_is_applied_and_acknowledged() {
    let mut client = Client::new("node-1", "test");
    let mut encoder = Encoder::default();
    let hello = client.connect();
    assert_eq!(hello.len(), 1);
    assert_eq!((hello[0].node.as_str(), hello[0].more), ("node-1", false));
    assert!(hello[0].initial_resource_versions.is_empty());

    let snapshot = to_apply(client.receive(response(1, &mut encoder, &everything())).unwrap());
    assert_eq!(snapshot, everything());
    assert_eq!(**client.snapshot(), Snapshot::default(), "not applied yet");
    let ack = client.applied().unwrap();
    assert_eq!((ack.response_nonce, ack.error_detail.as_str()), (1, ""));
    assert!(ack.resource_errors.is_empty());
    assert_eq!(*client.snapshot(), everything());
    assert_eq!(client.applied(), None, "acknowledged once");
}

#[test]
fn parts_are_applied_as_one() {
    let mut client = Client::new("node-1", "test");
    client.connect();
    let whole = response(1, &mut Encoder::default(), &everything());
    for resource in &whole.resources {
        let part = DeltaResponse {
            resources: vec![resource.clone()],
            more: true,
            ..whole.clone()
        };
        assert!(matches!(client.receive(part), Ok(Received::More)));
        assert_eq!(client.applied(), None);
    }
    let end = DeltaResponse {
        resources: Vec::new(),
        ..whole
    };
    assert_eq!(to_apply(client.receive(end).unwrap()), everything());
}

#[test]
fn responses_do_not_overtake_one_another() {
    let mut client = Client::new("node-1", "test");
    client.connect();
    let empty = |nonce, more| DeltaResponse {
        nonce,
        more,
        ..DeltaResponse::default()
    };
    client.receive(empty(1, true)).unwrap();
    assert_eq!(
        client.receive(empty(2, false)).unwrap_err(),
        UnexpectedResponse::Interleaved(2)
    );
    client.receive(empty(1, false)).unwrap();
    assert_eq!(
        client.receive(empty(2, false)).unwrap_err(),
        UnexpectedResponse::Interleaved(2)
    );
    client.applied().unwrap();
    client.receive(empty(2, false)).unwrap();
}

#[test]
fn a_version_that_is_none_ends_the_stream() {
    let mut client = Client::new("node-1", "test");
    client.connect();
    let mut response = response(1, &mut Encoder::default(), &everything());
    response.resources[0].version = Bytes::from_static(b"1");
    assert!(matches!(
        client.receive(response),
        Err(UnexpectedResponse::Version { .. })
    ));
}

#[test]
fn a_new_stream_says_what_is_held() {
    let mut client = Client::new("node-1", "test");
    let mut encoder = Encoder::default();
    client.connect();
    client.receive(response(1, &mut encoder, &everything())).unwrap();
    client.applied().unwrap();
    let held = |hello: &[DeltaRequest]| -> Vec<String> {
        let all = hello.iter().flat_map(|part| &part.initial_resource_versions);
        all.map(|named| named.name.clone()).collect()
    };
    let names: Vec<String> = encoder.resources().keys().map(ToString::to_string).collect();
    assert_eq!(held(&client.connect()), names);

    // What was found on disk counts alike.
    let mut restarted = Client::new("node-1", "test").with_snapshot(&everything());
    assert_eq!(held(&restarted.connect()), names);
    assert_eq!(*restarted.snapshot(), everything());
}

#[test]
fn a_long_list_comes_in_parts() {
    let mut snapshot = Snapshot::default();
    for n in 0..PART_BYTES / 100 {
        let certificate = fixture::certificate(&format!("{}/{n}", "n".repeat(100)));
        snapshot.certificates.insert(certificate.id.clone(), certificate.into());
    }
    let hello = Client::new("node-1", "test")
        .with_snapshot(&snapshot.clone().into())
        .connect();
    assert!(hello.len() > 1);
    let (last, others) = hello.split_last().unwrap();
    assert!(others.iter().all(|part| part.more) && !last.more);
    assert_eq!(
        hello
            .iter()
            .map(|part| part.initial_resource_versions.len())
            .sum::<usize>(),
        snapshot.certificates.len()
    );
    use prost::Message as _;
    assert!(hello.iter().all(|part| part.encoded_len() < PART_BYTES * 3 / 2));
}

#[test]
fn what_is_held_back_is_told_with_every_answer_until_it_is_mended() {
    let mut client = Client::new("node-1", "test");
    let mut encoder = Encoder::default();
    client.connect();
    let mut first = response(1, &mut encoder, &everything());
    let name = "certificate/ns/web";
    let bad = first
        .resources
        .iter_mut()
        .find(|resource| resource.name == name)
        .unwrap();
    bad.body = Bytes::from_static(&[0xff]);
    client.receive(first).unwrap();
    let ack = client.applied().unwrap();
    let told = |request: &DeltaRequest| request.resource_errors.iter().any(|error| error.name == name);
    assert!(told(&ack) && ack.error_detail.is_empty());
    assert_eq!(client.held_back(), ack.resource_errors);

    let unchanged = response(2, &mut encoder, &everything());
    assert!(unchanged.resources.is_empty());
    client.receive(unchanged).unwrap();
    assert!(told(&client.applied().unwrap()));
    assert!(told(&client.connect()[0]), "another controller is told too");

    let mut mended = (*everything()).clone();
    let certificate = mended.certificates.values_mut().next().unwrap();
    Arc::make_mut(certificate).not_before = 0;
    let mended = mended.into();
    assert_eq!(
        to_apply(client.receive(response(1, &mut encoder, &mended)).unwrap()),
        mended
    );
    assert!(client.applied().unwrap().resource_errors.is_empty());
}

#[test]
fn what_the_data_plane_refuses_leaves_the_rest() {
    let mut client = Client::new("node-1", "test");
    client.connect();
    client
        .receive(response(1, &mut Encoder::default(), &everything()))
        .unwrap();
    let id = fixture::route_id(RouteFlavor::Grpc);
    let next = client.refuse([(ResourceId::Route(id.clone()).name(), "no room".to_owned())]);
    assert!(!next.routes.contains_key(&id) && next.routes.len() == 2);
    let ack = client.applied().unwrap();
    assert_eq!(ack.resource_errors.len(), 1);
    assert_eq!(ack.resource_errors[0].reason, "no room");
    assert_eq!(ack.resource_errors[0].version.len(), 16);
}

#[test]
fn a_rejected_response_changes_nothing_and_is_tried_again_with_the_next() {
    let mut client = Client::new("node-1", "test").with_snapshot(&everything());
    let mut encoder = Encoder::default();
    encoder.encode(&everything());
    client.connect();
    let mut second = (*everything()).clone();
    second.owned.clear();
    client
        .receive(response(1, &mut encoder, &second.clone().into()))
        .unwrap();
    let nack = client.rejected("the kernel said no").unwrap();
    assert_eq!(
        (nack.response_nonce, nack.error_detail.as_str()),
        (1, "the kernel said no")
    );
    assert_eq!(*client.snapshot(), everything());

    second.trust.clear();
    second.backends.clear();
    second.routes.clear();
    second.binds.clear();
    let second = second.into();
    assert_eq!(
        to_apply(client.receive(response(2, &mut encoder, &second)).unwrap()),
        second
    );
}

#[test]
fn an_answer_to_a_stream_that_is_gone_is_not_sent() {
    let mut client = Client::new("node-1", "test");
    client.connect();
    client
        .receive(response(1, &mut Encoder::default(), &everything()))
        .unwrap();
    client.connect();
    assert_eq!(client.applied(), None);
    assert_eq!(client.rejected("late"), None);
}

#[test]
fn reports_go_out_once_per_stream_and_change() {
    let mut client = Client::new("node-1", "test");
    client.set_paths(vec![report(80)]);
    client.set_addresses(vec!["10.0.0.1".parse().unwrap()]);
    let hello = &client.connect()[0];
    let paths: Vec<DataPathReport> = hello.paths.clone().unwrap().try_into().unwrap();
    assert_eq!(paths, [report(80)]);
    let addresses: Vec<IpAddr> = hello.addresses.clone().unwrap().try_into().unwrap();
    assert_eq!(addresses, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
    assert_eq!(client.report(), None);
    client.set_paths(vec![report(80)]);
    assert_eq!(client.report(), None, "nothing new");
    client.set_paths(vec![report(81)]);
    let told = client.report().unwrap();
    assert!(told.paths.is_some() && told.addresses.is_none() && told.response_nonce == 0);
    assert_eq!(client.report(), None);
    assert!(client.connect()[0].paths.is_some(), "a new controller knows nothing");
}
