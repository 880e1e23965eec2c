use std::sync::Arc;

use jiff::Timestamp;
use pierhead_model::{
    Announcer, BindAddress, BindPort, Certificate, CertificateId, OnMiss, OwnedPrefix, Ownership, PrivateKey, Snapshot,
    Transport,
};
use pierhead_protocol::{Client, Received};

use super::{super::Numbered, *};
use crate::nodes::Registry;

/// A controller and a node, joined by values.
struct Wire {
    catalog: Catalog,
    session: Session,
    client: Client,
    state: NodeState,
    version: u64,
}

impl Wire {
    fn new() -> Self {
        Self {
            catalog: Catalog::default(),
            session: Session::new(&"node-1".into()),
            client: Client::new("node-1", "test"),
            state: state(),
            version: 0,
        }
    }

    fn publish(&mut self, names: &[&str]) {
        self.version += 1;
        self.catalog.publish(&Numbered {
            version: self.version,
            snapshot: snapshot(names),
        });
    }

    /// A new stream of the same node.
    fn connect(&mut self) {
        self.session = Session::new(&"node-1".into());
        for request in self.client.connect() {
            self.hear(request);
        }
    }

    fn hear(&mut self, request: DeltaRequest) {
        self.session.receive(request).unwrap().apply(&mut self.state);
    }

    fn next(&mut self) -> Option<Vec<DeltaResponse>> {
        Some(self.session.next(&self.catalog).unwrap()?.collect())
    }

    /// The node takes what is sent; what it is to apply.
    fn deliver(&mut self) -> Option<Arc<Snapshot>> {
        let responses = self.next()?;
        let last = responses
            .into_iter()
            .map(|response| self.client.receive(response).unwrap())
            .last();
        match last {
            Some(Received::Apply(snapshot)) => Some(snapshot),
            other => panic!("{other:?}"),
        }
    }

    fn applied(&mut self) {
        let ack = self.client.applied().unwrap();
        self.hear(ack);
    }
}

fn state() -> NodeState {
    let registry = Registry::default();
    let _member = registry.join("node-1", Timestamp::UNIX_EPOCH);
    let state = registry.nodes().borrow().by_name["node-1"].clone();
    (*state).clone()
}

/// Certificates of these names, each with a hundred bytes.
fn snapshot(names: &[&str]) -> Arc<Snapshot> {
    let certificates = names.iter().map(|name| {
        let id = CertificateId((*name).into());
        let certificate = Certificate {
            id: id.clone(),
            chain: vec![[0; 100][..].into()],
            key: PrivateKey::new(b"key"),
            names: Vec::new(),
            not_before: 0,
            not_after: 1,
        };
        (id, Arc::new(certificate))
    });
    Snapshot {
        certificates: certificates.collect(),
        ..Snapshot::default()
    }
    .into()
}

fn resources(responses: &[DeltaResponse]) -> Vec<&str> {
    let all = responses.iter().flat_map(|response| &response.resources);
    all.map(|resource| resource.name.as_str()).collect()
}

#[test]
fn nothing_is_sent_before_the_node_has_spoken_and_a_snapshot_is_there() {
    let mut wire = Wire::new();
    wire.publish(&["a"]);
    assert_eq!(wire.next(), None, "the node has not spoken");
    let mut wire = Wire::new();
    wire.connect();
    assert_eq!(wire.next(), None, "there is nothing: the node keeps what it has");
    wire.publish(&["a"]);
    assert_eq!(wire.deliver(), Some(snapshot(&["a"])));
}

#[test]
fn a_node_says_when_it_comes_what_it_announces() {
    let owned = [
        ("10.0.0.1/32", "node-1"),
        ("10.0.0.2/32", "node-2"),
        ("2001:db8::1/128", "node-1"),
    ];
    let owned = owned.map(|(prefix, node)| {
        let ownership = Ownership {
            on_miss: OnMiss::Drop,
            announcer: Some(Announcer::Node(node.into())),
            round: 0,
        };
        (OwnedPrefix(prefix.parse().unwrap()), ownership)
    });
    let kept = Snapshot {
        owned: owned.into(),
        ..Snapshot::default()
    };
    let mut wire = Wire::new();
    wire.client = Client::new("node-1", "test").with_snapshot(&kept.into());
    wire.connect();
    let announced: Vec<String> = wire.state.announced.iter().map(ToString::to_string).collect();
    assert_eq!(announced, ["10.0.0.1", "2001:db8::1"]);
    // Later on the controller's word counts.
    wire.publish(&["a"]);
    wire.deliver().unwrap();
    wire.applied();
    assert_eq!(wire.state.announced.len(), 2);
    wire.connect();
    assert!(wire.state.announced.is_empty(), "there it holds none any more");
}

#[test]
fn an_acknowledged_snapshot_is_not_sent_again() {
    let mut wire = Wire::new();
    wire.publish(&["a"]);
    wire.connect();
    wire.deliver().unwrap();
    assert_eq!(wire.state.acked, 0);
    assert_eq!(wire.next(), None, "not answered");
    wire.applied();
    assert_eq!(wire.state.acked, 1);
    assert_eq!(wire.next(), None, "nothing new");
}

#[test]
fn a_withdrawn_snapshot_is_not_sent() {
    let mut wire = Wire::new();
    wire.publish(&["a"]);
    wire.connect();
    wire.deliver();
    wire.applied();
    wire.catalog.withdraw();
    assert_eq!(wire.next(), None, "neither to who has it");
    wire.connect();
    assert_eq!(wire.next(), None, "nor to who comes");
    wire.publish(&["b"]);
    let snapshot = wire.deliver().unwrap();
    assert_eq!(snapshot.certificates.len(), 1, "{snapshot:?}");
}

#[test]
fn only_what_changed_travels() {
    let mut wire = Wire::new();
    wire.publish(&["a", "b"]);
    wire.connect();
    wire.deliver().unwrap();
    wire.applied();
    wire.publish(&["b", "c"]);
    let responses = wire.next().unwrap();
    assert_eq!(resources(&responses), ["certificate/c"]);
    assert_eq!(responses[0].removed_resources, ["certificate/a"]);
    assert_eq!(
        (responses.len(), responses[0].nonce, responses[0].system_version),
        (1, 2, 2)
    );
}

#[test]
fn what_changes_while_an_answer_is_awaited_comes_as_one() {
    let mut wire = Wire::new();
    wire.publish(&["a"]);
    wire.connect();
    wire.deliver().unwrap();
    wire.publish(&["a", "b"]);
    wire.publish(&["b"]);
    wire.publish(&["b", "c"]);
    assert_eq!(wire.next(), None);
    wire.applied();
    assert_eq!(wire.state.acked, 1);
    assert_eq!(wire.deliver(), Some(snapshot(&["b", "c"])));
    wire.applied();
    assert_eq!(wire.state.acked, 4);
    assert_eq!(wire.next(), None);
}

#[test]
fn a_snapshot_that_changes_nothing_is_told_all_the_same() {
    let mut wire = Wire::new();
    wire.publish(&["a"]);
    wire.connect();
    wire.deliver().unwrap();
    wire.applied();
    wire.publish(&["a"]);
    let responses = wire.next().unwrap();
    assert!(resources(&responses).is_empty());
    wire.client.receive(responses[0].clone()).unwrap();
    wire.applied();
    assert_eq!(wire.state.acked, 2, "whoever waits for the number sees it");
}

#[test]
fn a_new_stream_gets_only_what_the_node_lacks() {
    let mut wire = Wire::new();
    wire.publish(&["a", "b"]);
    wire.connect();
    wire.deliver().unwrap();
    wire.applied();

    wire.connect();
    let responses = wire.next().unwrap();
    assert!(resources(&responses).is_empty() && responses[0].removed_resources.is_empty());
    wire.client.receive(responses[0].clone()).unwrap();
    wire.applied();

    wire.publish(&["b", "c"]);
    wire.connect();
    let responses = wire.next().unwrap();
    assert_eq!(resources(&responses), ["certificate/c"]);
    assert_eq!(responses[0].removed_resources, ["certificate/a"]);
}

#[test]
fn a_stream_that_broke_in_the_middle_of_a_response_goes_on_in_the_next() {
    let names: Vec<String> = (0..10_000).map(|n| format!("{n:05}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut wire = Wire::new();
    wire.publish(&names);
    wire.connect();
    let responses = wire.next().unwrap();
    assert!(responses.len() > 2, "{}", responses.len());
    let (last, others) = responses.split_last().unwrap();
    assert!(others.iter().all(|part| part.more) && !last.more);
    assert!(responses.iter().all(|part| part.nonce == 1));
    wire.client.receive(responses[0].clone()).unwrap();
    let had = responses[0].resources.len();

    wire.connect();
    let rest = wire.next().unwrap();
    assert_eq!(resources(&rest).len(), names.len() - had);
    let last = rest
        .into_iter()
        .map(|response| wire.client.receive(response).unwrap())
        .last();
    assert!(matches!(last, Some(Received::Apply(whole)) if whole == snapshot(&names)));
}

#[test]
fn what_a_node_refuses_is_known_and_not_sent_again_until_it_changes() {
    let mut wire = Wire::new();
    wire.publish(&["a", "b"]);
    wire.connect();
    wire.deliver().unwrap();
    let name = ResourceName::new("certificate/a");
    wire.client.refuse([(name.clone(), "bad key".to_owned())]);
    wire.applied();
    assert_eq!(wire.state.acked, 1);
    assert_eq!(wire.state.nacks, BTreeMap::from([(name.clone(), "bad key".to_owned())]));
    assert_eq!(wire.next(), None);

    wire.publish(&["a", "b", "c"]);
    let responses = wire.next().unwrap();
    assert_eq!(resources(&responses), ["certificate/c"]);
    wire.client.receive(responses[0].clone()).unwrap();
    wire.applied();
    assert!(wire.state.nacks.contains_key(&name), "it still is refused");

    wire.publish(&["b", "c"]);
    wire.deliver().unwrap();
    wire.applied();
    assert!(wire.state.nacks.is_empty());
}

#[test]
fn a_rejected_snapshot_is_known_until_a_later_one_is_applied() {
    let mut wire = Wire::new();
    wire.publish(&["a"]);
    wire.connect();
    wire.deliver().unwrap();
    let nack = wire.client.rejected("no room").unwrap();
    wire.hear(nack);
    assert_eq!((wire.state.acked, wire.state.rejected.as_deref()), (1, Some("no room")));
    assert_eq!(wire.next(), None, "not again until something changes");
    wire.publish(&["b"]);
    assert_eq!(wire.deliver(), Some(snapshot(&["b"])));
    wire.applied();
    assert_eq!((wire.state.acked, wire.state.rejected.as_deref()), (2, None));
}

#[test]
fn reports_are_heard_at_any_time() {
    let mut wire = Wire::new();
    wire.publish(&["a"]);
    let bind = BindKey {
        transport: Transport::Tcp,
        address: BindAddress::Any,
        port: BindPort::Port(80),
    };
    wire.client.set_addresses(vec!["10.0.0.1".parse().unwrap()]);
    wire.connect();
    assert_eq!(wire.state.addresses, ["10.0.0.1".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(wire.state.program, "test");
    wire.client.set_paths(vec![DataPathReport {
        bind,
        path: DataPath::None,
        why: "w".repeat(1_000),
    }]);
    wire.deliver().unwrap();
    let report = wire.client.report().unwrap();
    wire.hear(report);
    let (path, why) = &wire.state.paths[&bind];
    assert_eq!((*path, why.len()), (DataPath::None, REASON_CHARACTERS_MAX));
    assert_eq!(wire.state.acked, 0, "a report is no answer");
    wire.applied();
    assert_eq!(wire.state.acked, 1);
}

#[test]
fn what_no_sound_node_says_ends_the_stream() {
    let hello = || DeltaRequest {
        node: "node-1".to_owned(),
        ..DeltaRequest::default()
    };
    let mut session = Session::new(&"node-1".into());
    let other = DeltaRequest {
        node: "node-2".to_owned(),
        ..DeltaRequest::default()
    };
    assert!(matches!(session.receive(other), Err(BadRequest::OtherNode(..))));

    let mut session = Session::new(&"node-1".into());
    session.receive(hello()).unwrap();
    let stray = DeltaRequest {
        response_nonce: 1,
        ..DeltaRequest::default()
    };
    assert_eq!(session.receive(stray.clone()), Err(BadRequest::Nonce(1)));

    let mut wire = Wire::new();
    wire.publish(&["a"]);
    wire.connect();
    wire.deliver().unwrap();
    let wrong = DeltaRequest {
        response_nonce: 2,
        ..DeltaRequest::default()
    };
    assert_eq!(wire.session.receive(wrong), Err(BadRequest::Nonce(2)));
    wire.applied();
    assert_eq!(wire.session.receive(stray), Err(BadRequest::Nonce(1)), "answered once");

    let mut session = Session::new(&"node-1".into());
    let mut bad = hello();
    bad.initial_resource_versions
        .push(pierhead_protocol::NamedVersionMessage {
            name: "a".to_owned(),
            version: b"1".to_vec().into(),
        });
    assert!(matches!(session.receive(bad), Err(BadRequest::Version(_))));
}

#[test]
fn what_a_node_says_is_kept_within_bounds() {
    let mut session = Session::new(&"node-1".into());
    let error = |n: usize| pierhead_protocol::ResourceErrorMessage {
        name: format!("certificate/{n}"),
        version: Default::default(),
        reason: "ü".repeat(10_000),
    };
    let hello = DeltaRequest {
        node: "node-1".to_owned(),
        program: "p".repeat(10_000),
        resource_errors: (0..2 * NACKS_MAX).map(error).collect(),
        ..DeltaRequest::default()
    };
    let mut state = state();
    session.receive(hello).unwrap().apply(&mut state);
    assert_eq!(state.nacks.len(), NACKS_MAX);
    assert!(
        state
            .nacks
            .values()
            .all(|why| why.chars().count() == REASON_CHARACTERS_MAX)
    );
    assert_eq!(state.program.len(), REASON_CHARACTERS_MAX);
}
