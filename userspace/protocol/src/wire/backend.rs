use bytes::Bytes;
use pierhead_model::{
    Backend, BackendId, BackendProtocol, BackendTarget, BackendTls, CertificateId, Endpoint, EndpointState, Endpoints,
    EndpointsId, Fleet, FleetId, FleetNode, InvalidReason, ServerIdentity, TrustId, WeightedBackend,
};

use super::{
    Malformed, Wire,
    filter::FilterMessage,
    parts::{OriginMessage, SocketAddrMessage},
};

/// Names of resources.
macro_rules! names {
    ($($name:ident)*) => {$(
        impl Wire for $name {
            type Message = String;

            fn to_message(&self) -> String {
                self.0.as_ref().to_owned()
            }

            fn from_message(message: String) -> Result<Self, Malformed> {
                if message.is_empty() {
                    return Err(Malformed::new("it is missing"));
                }
                Ok(Self(message.into()))
            }
        }
    )*};
}

names!(BackendId EndpointsId CertificateId TrustId FleetId);

wire_numbers! {
    InvalidReason {
        BackendNotFound = 1,
        InvalidKind = 2,
        RefNotPermitted = 3,
        UnsupportedProtocol = 4,
        TlsPolicyInvalid = 5,
        UnsupportedFilter = 6,
    }
    BackendProtocol { Http1 = 1, Http2 = 2, Tcp = 3, Udp = 4 }
    EndpointState { Ready = 1, Draining = 2 }
}

wire_lists!(WeightedBackend, ServerIdentity, Endpoint, FleetNode);

wire_struct! {
    WeightedBackend as WeightedBackendMessage {
        backend: String [string, tag = "1"],
        weight: u32 [uint32, tag = "2"],
        filters: Vec<FilterMessage> [message, repeated, tag = "3"],
    }
}

wire_struct! {
    Backend as BackendMessage {
        id: String [string, tag = "1"],
        origin: OriginMessage [message, required, tag = "2"],
        target: BackendTargetMessage [message, required, tag = "3"],
        protocol: u32 [uint32, tag = "4"],
        tls: Option<BackendTlsMessage> [message, optional, tag = "5"],
    }
}

wire_enum! {
    BackendTarget as BackendTargetMessage of BackendTargetKind in "1, 2, 3" {
        one Endpoints: String [string, tag = "1"],
        many Dns as DnsMessage ["2"] {
            name: String [string, tag = "1"],
            port: u32 [uint32, tag = "2"],
        },
        many Invalid as InvalidMessage ["3"] {
            reason: u32 [uint32, tag = "1"],
            message: String [string, tag = "2"],
        },
    }
}

wire_struct! {
    BackendTls as BackendTlsMessage {
        sni: String [string, tag = "1"],
        identities: Vec<ServerIdentityMessage> [message, repeated, tag = "2"],
        trust: Option<String> [string, optional, tag = "3"],
        client_certificate: Option<String> [string, optional, tag = "4"],
    }
    check |tls| {
        !tls.identities.is_empty() => "without a name to verify no server could be trusted",
    }
}

wire_enum! {
    ServerIdentity as ServerIdentityMessage of ServerIdentityKind in "1, 2" {
        one Dns: String [string, tag = "1"],
        one Uri: String [string, tag = "2"],
    }
}

wire_struct! {
    Endpoints as EndpointsMessage {
        id: String [string, tag = "1"],
        endpoints: Vec<EndpointMessage> [message, repeated, tag = "2"],
    }
    check |endpoints| {
        endpoints.endpoints.is_sorted_by(|a, b| a.address < b.address) => "endpoints are sorted by address, and distinct",
    }
}

wire_struct! {
    Endpoint as EndpointMessage {
        address: SocketAddrMessage [message, required, tag = "1"],
        state: u32 [uint32, tag = "2"],
        node: Option<String> [string, optional, tag = "3"],
        zone: Option<String> [string, optional, tag = "4"],
    }
}

wire_struct! {
    Fleet as FleetMessage {
        id: String [string, tag = "1"],
        seed: u64 [fixed64, tag = "2"],
        nodes: Vec<FleetNodeMessage> [message, repeated, tag = "3"],
    }
    check |fleet| {
        fleet.nodes.is_sorted_by(|a, b| a.name < b.name) => "nodes are sorted by name, and distinct",
    }
}

wire_struct! {
    FleetNode as FleetNodeMessage {
        name: String [string, tag = "1"],
        addresses: Vec<Bytes> [bytes = "bytes", repeated, tag = "2"],
    }
}
