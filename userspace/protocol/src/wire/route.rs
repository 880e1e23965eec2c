use pierhead_model::{
    Age, Attachment, HeaderMatch, HttpMatch, HttpRoute, HttpRule, Origin, PathMatch, QueryMatch, Retry, RouteFlavor,
    RouteId, Timeouts, ValueMatch,
};

use super::{
    Malformed, Wire,
    backend::WeightedBackendMessage,
    bind::ListenerIdMessage,
    filter::FilterMessage,
    parts::{DurationMessage, HostPatternsMessage, OriginMessage},
};

impl Wire for RouteId {
    type Message = OriginMessage;

    fn to_message(&self) -> OriginMessage {
        self.0.to_message()
    }

    fn from_message(message: OriginMessage) -> Result<Self, Malformed> {
        Origin::from_message(message).map(Self)
    }
}

wire_numbers! {
    RouteFlavor { Http = 1, Grpc = 2, Ingress = 3 }
}

wire_lists!(Attachment, HttpRule, HttpMatch, HeaderMatch, QueryMatch);

wire_struct! {
    HttpRoute as HttpRouteMessage {
        id: OriginMessage [message, required, tag = "1"],
        flavor: u32 [uint32, tag = "2"],
        age: AgeMessage [message, required, tag = "3"],
        attachments: Vec<AttachmentMessage> [message, repeated, tag = "4"],
        rules: Vec<HttpRuleMessage> [message, repeated, tag = "5"],
    }
}

wire_struct! {
    Age as AgeMessage {
        created: i64 [sint64, tag = "1"],
        namespace: String [string, tag = "2"],
        name: String [string, tag = "3"],
    }
}

wire_struct! {
    Attachment as AttachmentMessage {
        listener: ListenerIdMessage [message, required, tag = "1"],
        hosts: HostPatternsMessage [message, required, tag = "2"],
    }
}

wire_struct! {
    HttpRule as HttpRuleMessage {
        name: Option<String> [string, optional, tag = "1"],
        hosts: Option<HostPatternsMessage> [message, optional, tag = "2"],
        matches: Vec<HttpMatchMessage> [message, repeated, tag = "3"],
        filters: Vec<FilterMessage> [message, repeated, tag = "4"],
        backends: Vec<WeightedBackendMessage> [message, repeated, tag = "5"],
        timeouts: TimeoutsMessage [message, required, tag = "6"],
        retry: Option<RetryMessage> [message, optional, tag = "7"],
        fallback: bool [bool, tag = "8"],
    }
}

wire_struct! {
    HttpMatch as HttpMatchMessage {
        path: PathMatchMessage [message, required, tag = "1"],
        method: Option<String> [string, optional, tag = "2"],
        headers: Vec<HeaderMatchMessage> [message, repeated, tag = "3"],
        query: Vec<QueryMatchMessage> [message, repeated, tag = "4"],
    }
}

wire_enum! {
    PathMatch as PathMatchMessage of PathMatchKind in "1, 2, 3, 4" {
        one Exact: String [string, tag = "1"],
        one Prefix: String [string, tag = "2"],
        one Regex: String [string, tag = "3"],
        one GrpcMethod: String [string, tag = "4"],
    }
}

wire_enum! {
    ValueMatch as ValueMatchMessage of ValueMatchKind in "1, 2" {
        one Exact: String [string, tag = "1"],
        one Regex: String [string, tag = "2"],
    }
}

wire_struct! {
    HeaderMatch as HeaderMatchMessage {
        name: String [string, tag = "1"],
        value: ValueMatchMessage [message, required, tag = "2"],
    }
}

wire_struct! {
    QueryMatch as QueryMatchMessage {
        name: String [string, tag = "1"],
        value: ValueMatchMessage [message, required, tag = "2"],
    }
}

wire_struct! {
    Timeouts as TimeoutsMessage {
        request: Option<DurationMessage> [message, optional, tag = "1"],
        backend_request: Option<DurationMessage> [message, optional, tag = "2"],
    }
}

wire_struct! {
    Retry as RetryMessage {
        attempts: u32 [uint32, tag = "1"],
        codes: Vec<u32> [uint32, repeated, tag = "2"],
        backoff: Option<DurationMessage> [message, optional, tag = "3"],
    }
}
