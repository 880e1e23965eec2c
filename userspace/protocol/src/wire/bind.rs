use ipnet::IpNet;
use pierhead_model::{
    Announcer, Bind, BindAddress, BindKey, BindPort, ClientAddress, ForwardedFor, HostSelection, HttpOptions, L4Route,
    Limits, Listener, ListenerId, ListenerKind, OnMiss, OwnedPrefix, Ownership, SniRoute, Transport,
};

use super::{
    At, Malformed, Wire,
    backend::WeightedBackendMessage,
    filter::FilterMessage,
    parts::{DurationMessage, HostPatternMessage, HostPatternsMessage, IpNetMessage, OriginMessage},
    tls::TlsTerminationMessage,
};
use bytes::Bytes;

wire_numbers! {
    Transport { Tcp = 1, Udp = 2 }
    HostSelection { FallThrough = 1, BestOnly = 2 }
    OnMiss { Drop = 1, Pass = 2 }
}

wire_enum! {
    BindAddress as BindAddressMessage of BindAddressKind in "1, 2, 3" {
        one Ip: Bytes [bytes = "bytes", tag = "1"],
        one Prefix: IpNetMessage [message, tag = "2"],
        many Any as AnyAddressMessage ["3"] {},
    }
}

wire_enum! {
    BindPort as BindPortMessage of BindPortKind in "1, 2" {
        one Port: u32 [uint32, tag = "1"],
        many All as AllPortsMessage ["2"] {},
    }
}

wire_struct! {
    BindKey as BindKeyMessage {
        transport: u32 [uint32, tag = "1"],
        address: BindAddressMessage [message, required, tag = "2"],
        port: BindPortMessage [message, required, tag = "3"],
    }
}

wire_struct! {
    Bind as BindMessage {
        key: BindKeyMessage [message, required, tag = "1"],
        listeners: Vec<ListenerMessage> [message, repeated, tag = "2"],
    }
}

wire_struct! {
    ListenerId as ListenerIdMessage {
        owner: OriginMessage [message, required, tag = "1"],
        name: String [string, tag = "2"],
    }
}

wire_lists!(std::sync::Arc<Listener>, SniRoute, IpNet);

wire_struct! {
    Listener as ListenerMessage {
        id: ListenerIdMessage [message, required, tag = "1"],
        hosts: HostPatternsMessage [message, required, tag = "2"],
        port: u32 [uint32, tag = "3"],
        kind: ListenerKindMessage [message, required, tag = "4"],
        limits: LimitsMessage [message, required, tag = "5"],
        client_address: ClientAddressMessage [message, required, tag = "6"],
    }
    check |listener| {
        !listener.hosts.is_empty() => "a listener has one host pattern at least",
    }
}

wire_struct! {
    ClientAddress as ClientAddressMessage {
        proxy_protocol: Vec<IpNetMessage> [message, repeated, tag = "1"],
        forwarded_for: Option<ForwardedForMessage> [message, optional, tag = "2"],
    }
}

wire_struct! {
    ForwardedFor as ForwardedForMessage {
        trusted: Vec<IpNetMessage> [message, repeated, tag = "1"],
        hops: Option<u32> [uint32, optional, tag = "2"],
    }
}

wire_enum! {
    ListenerKind as ListenerKindMessage of ListenerKindKind in "1, 2, 3, 4, 5, 6" {
        one Http: HttpOptionsMessage [message, tag = "1"],
        many Https as HttpsMessage ["2"] {
            tls: TlsTerminationMessage [message, required, tag = "1"],
            http: HttpOptionsMessage [message, required, tag = "2"],
        },
        many TlsPassthrough as TlsPassthroughMessage ["3"] {
            routes: Vec<SniRouteMessage> [message, repeated, tag = "1"],
        },
        many TlsTerminate as TlsTerminateMessage ["4"] {
            tls: TlsTerminationMessage [message, required, tag = "1"],
            routes: Vec<SniRouteMessage> [message, repeated, tag = "2"],
        },
        many Tcp as TcpMessage ["5"] {
            route: Option<L4RouteMessage> [message, optional, tag = "1"],
        },
        many Udp as UdpMessage ["6"] {
            route: Option<L4RouteMessage> [message, optional, tag = "1"],
        },
    }
}

wire_struct! {
    HttpOptions as HttpOptionsMessage {
        host_selection: u32 [uint32, tag = "1"],
        detect_misdirected: bool [bool, tag = "2"],
        filters: Vec<FilterMessage> [message, repeated, tag = "3"],
    }
}

wire_struct! {
    L4Route as L4RouteMessage {
        origin: OriginMessage [message, required, tag = "1"],
        backends: Vec<WeightedBackendMessage> [message, repeated, tag = "2"],
    }
}

wire_struct! {
    SniRoute as SniRouteMessage {
        host: HostPatternMessage [message, required, tag = "1"],
        route: L4RouteMessage [message, required, tag = "2"],
    }
}

wire_struct! {
    Limits as LimitsMessage {
        header_count: u32 [uint32, tag = "1"],
        header_bytes: u32 [uint32, tag = "2"],
        body_bytes: Option<u64> [uint64, optional, tag = "3"],
        connections: u32 [uint32, tag = "4"],
        handshakes: u32 [uint32, tag = "5"],
        streams: u32 [uint32, tag = "6"],
        header_timeout: DurationMessage [message, required, tag = "7"],
        idle_timeout: DurationMessage [message, required, tag = "8"],
        body_idle_timeout: DurationMessage [message, required, tag = "9"],
        handshake_timeout: DurationMessage [message, required, tag = "10"],
        stream_idle_timeout: DurationMessage [message, required, tag = "11"],
        udp_idle_timeout: DurationMessage [message, required, tag = "12"],
        udp_sessions: u32 [uint32, tag = "13"],
        connect_timeout: DurationMessage [message, required, tag = "14"],
    }
}

wire_struct! {
    Ownership as OwnershipMessage {
        on_miss: u32 [uint32, tag = "1"],
        announcer: Option<AnnouncerMessage> [message, optional, tag = "2"],
        round: u32 [uint32, tag = "3"],
    }
}

wire_enum! {
    Announcer as AnnouncerMessage of AnnouncerKind in "1, 2" {
        one Node: String [string, tag = "1"],
        many Here as HereMessage ["2"] {},
    }
}

/// What is owned: a key of the snapshot with its value.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct OwnedMessage {
    #[prost(message, required, tag = "1")]
    prefix: IpNetMessage,
    #[prost(message, required, tag = "2")]
    ownership: OwnershipMessage,
}

impl Wire for (OwnedPrefix, Ownership) {
    type Message = OwnedMessage;

    fn to_message(&self) -> OwnedMessage {
        let (OwnedPrefix(prefix), ownership) = self;
        OwnedMessage {
            prefix: prefix.to_message(),
            ownership: ownership.to_message(),
        }
    }

    fn from_message(message: OwnedMessage) -> Result<Self, Malformed> {
        let OwnedMessage { prefix, ownership } = message;
        let prefix = IpNet::from_message(prefix).at("prefix")?;
        Ok((OwnedPrefix(prefix), Wire::from_message(ownership).at("ownership")?))
    }
}
