use pierhead_model::{
    CorsFilter, CorsOrigin, ExternalAuthFilter, ExternalAuthProtocol, Filter, HeaderModifier, MirrorFilter,
    MirrorFraction, PathRewrite, RedirectFilter, RedirectPort, UrlRewriteFilter,
};

use super::parts::{DurationMessage, HeaderMessage};

wire_lists!(Filter, CorsOrigin);

wire_enum! {
    Filter as FilterMessage of FilterKind in "1, 2, 3, 4, 5, 6, 7, 8" {
        one RequestHeaders: HeaderModifierMessage [message, tag = "1"],
        one ResponseHeaders: HeaderModifierMessage [message, tag = "2"],
        one Redirect: RedirectFilterMessage [message, tag = "3"],
        one UrlRewrite: UrlRewriteFilterMessage [message, tag = "4"],
        one Mirror: MirrorFilterMessage [message, tag = "5"],
        one Cors: CorsFilterMessage [message, tag = "6"],
        one ExternalAuth: ExternalAuthFilterMessage [message, tag = "8"],
        many Unsupported as UnsupportedMessage ["7"] {
            what: String [string, tag = "1"],
        },
    }
}

wire_struct! {
    HeaderModifier as HeaderModifierMessage {
        set: Vec<HeaderMessage> [message, repeated, tag = "1"],
        add: Vec<HeaderMessage> [message, repeated, tag = "2"],
        remove: Vec<String> [string, repeated, tag = "3"],
    }
}

wire_struct! {
    RedirectFilter as RedirectFilterMessage {
        scheme: Option<String> [string, optional, tag = "1"],
        host: Option<String> [string, optional, tag = "2"],
        port: RedirectPortMessage [message, required, tag = "3"],
        path: Option<PathRewriteMessage> [message, optional, tag = "4"],
        status: u32 [uint32, tag = "5"],
    }
    check |redirect| {
        matches!(redirect.status, 301 | 302 | 303 | 307 | 308) => "its status is none of a redirect",
    }
}

wire_enum! {
    RedirectPort as RedirectPortMessage of RedirectPortKind in "1, 2" {
        one Explicit: u32 [uint32, tag = "1"],
        many Derived as DerivedMessage ["2"] {},
    }
}

wire_struct! {
    UrlRewriteFilter as UrlRewriteFilterMessage {
        host: Option<String> [string, optional, tag = "1"],
        path: Option<PathRewriteMessage> [message, optional, tag = "2"],
    }
}

wire_enum! {
    PathRewrite as PathRewriteMessage of PathRewriteKind in "1, 2" {
        one Full: String [string, tag = "1"],
        one Prefix: String [string, tag = "2"],
    }
}

wire_struct! {
    MirrorFilter as MirrorFilterMessage {
        backend: String [string, tag = "1"],
        fraction: MirrorFractionMessage [message, required, tag = "2"],
    }
}

wire_struct! {
    MirrorFraction as MirrorFractionMessage {
        numerator: u32 [uint32, tag = "1"],
        denominator: u32 [uint32, tag = "2"],
    }
    check |fraction| {
        fraction.denominator != 0 => "a fraction's denominator is not zero",
    }
}

wire_struct! {
    CorsFilter as CorsFilterMessage {
        allow_origins: Vec<CorsOriginMessage> [message, repeated, tag = "1"],
        allow_credentials: bool [bool, tag = "2"],
        allow_methods: Vec<String> [string, repeated, tag = "3"],
        allow_headers: Vec<String> [string, repeated, tag = "4"],
        expose_headers: Vec<String> [string, repeated, tag = "5"],
        max_age: DurationMessage [message, required, tag = "6"],
    }
}

wire_enum! {
    CorsOrigin as CorsOriginMessage of CorsOriginKind in "1, 2, 3" {
        one Exact: String [string, tag = "1"],
        many Any as AnyOriginMessage ["2"] {},
        many Wildcard as WildcardOriginMessage ["3"] {
            before: String [string, tag = "1"],
            after: String [string, tag = "2"],
        },
    }
}

wire_struct! {
    ExternalAuthFilter as ExternalAuthFilterMessage {
        backend: String [string, tag = "1"],
        protocol: ExternalAuthProtocolMessage [message, required, tag = "2"],
        body_bytes: u32 [uint32, tag = "3"],
    }
    check |auth| {
        auth.body_bytes <= ExternalAuthFilter::MAX_BODY_BYTES => "the body that is sent along is too large",
    }
}

wire_enum! {
    ExternalAuthProtocol as ExternalAuthProtocolMessage of ExternalAuthProtocolKind in "1, 2" {
        many Http as ExternalAuthHttpMessage ["1"] {
            path_prefix: String [string, tag = "1"],
            request_headers: Vec<String> [string, repeated, tag = "2"],
            response_headers: Vec<String> [string, repeated, tag = "3"],
        },
        many Grpc as ExternalAuthGrpcMessage ["2"] {
            request_headers: Vec<String> [string, repeated, tag = "1"],
        },
    }
}
