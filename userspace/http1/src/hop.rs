//! What belongs to one connection and must not pass through a proxy (RFC 9110 §7.6.1).

use crate::{Headers, Known, Name, RequestHead, ResponseHead, Status, Value, Version, known};

/// Always removed.
const FIXED: u128 = known::set(&[
    Known::Connection,
    Known::ProxyConnection,
    Known::KeepAlive,
    Known::Te,
    Known::TransferEncoding,
    Known::Upgrade,
    Known::Http2Settings,
    Known::ProxyAuthenticate,
    Known::ProxyAuthenticationInfo,
    Known::ProxyAuthorization,
]);

/// Never removed because a Connection field names them: a peer could otherwise make a message lose what other
/// parties rely on (identity, routing, framing), or what an earlier trusted hop said about the client.
/// RFC 9110 §7.6.1 forbids senders to name fields meant for all recipients.
const PROTECTED: u128 = known::set(&[
    Known::AccessControlAllowCredentials,
    Known::AccessControlAllowHeaders,
    Known::AccessControlAllowMethods,
    Known::AccessControlAllowOrigin,
    Known::AccessControlExposeHeaders,
    Known::AccessControlMaxAge,
    Known::AccessControlRequestHeaders,
    Known::AccessControlRequestMethod,
    Known::Authorization,
    Known::CacheControl,
    Known::ContentEncoding,
    Known::ContentLength,
    Known::ContentRange,
    Known::ContentType,
    Known::Cookie,
    Known::Date,
    Known::Expect,
    Known::Expires,
    Known::Forwarded,
    Known::GrpcEncoding,
    Known::GrpcStatus,
    Known::GrpcTimeout,
    Known::Host,
    Known::Location,
    Known::Origin,
    Known::Range,
    Known::SetCookie,
    Known::StrictTransportSecurity,
    Known::Trailer,
    Known::Vary,
    Known::Via,
    Known::WwwAuthenticate,
    Known::XForwardedClientCert,
    Known::XForwardedFor,
    Known::XForwardedHost,
    Known::XForwardedPort,
    Known::XForwardedPrefix,
    Known::XForwardedProto,
    Known::XForwardedScheme,
    Known::XForwardedServer,
    Known::XOriginalForwardedFor,
    Known::XRealIp,
    Known::XRequestId,
    Known::XScheme,
]);

/// Removes the fields that Connection names, then the fixed ones; of TE only `trailers` stays.
///
/// Read [`upgrade_requested`] before this, and add what the next hop needs after it. Twice is the same as once.
pub fn strip_hop_by_hop(headers: &mut Headers) {
    if !headers.may_hold_any(FIXED) {
        return;
    }
    let trailers = accepts_trailers(headers);
    let fixed = FIXED | (nominated(headers) & !PROTECTED);
    if !trailers {
        headers.remove_set(fixed);
        return;
    }
    headers.remove_set(fixed & !Known::Te.bit());
    if headers.only(Known::Te) != Some(b"trailers") {
        headers.set(Known::Te, Value::from_static("trailers"));
    }
}

/// The known names that Connection fields name; unknown ones are removed here.
fn nominated(headers: &mut Headers) -> u128 {
    let mut named = 0u128;
    let mut others: Vec<Box<[u8]>> = Vec::new();
    for member in headers.members(Known::Connection) {
        match Known::of(member) {
            Some(known) => named |= known.bit(),
            // An option, not the name of a field.
            None if member.eq_ignore_ascii_case(b"close") => {}
            None => others.push(member.into()),
        }
    }
    for other in &others {
        if let Ok(name) = Name::new(other) {
            headers.remove(name);
        }
    }
    named
}

/// Whether the sender of a request takes trailers (`TE: trailers`, RFC 9110 §10.1.4).
pub fn accepts_trailers(headers: &Headers) -> bool {
    headers.has_member(Known::Te, "trailers")
}

/// The protocols that a request asks to switch to, best first; empty when it does not. Only HTTP/1.1 can ask
/// (RFC 9110 §7.8).
pub fn upgrade_requested(head: &RequestHead) -> impl Iterator<Item = &[u8]> {
    let asked = head.version == Version::Http11 && head.headers.has_member(Known::Connection, "upgrade");
    head.headers.members(Known::Upgrade).take_while(move |_| asked)
}

/// Whether a response switches to `protocol`, which the request asked for. Tunnel only after this says yes: never on
/// the request alone.
pub fn upgrade_accepted(head: &ResponseHead, protocol: &[u8]) -> bool {
    head.status == Status::SWITCHING_PROTOCOLS
        && head.version == Version::Http11
        && head.headers.has_member(Known::Connection, "upgrade")
        && head
            .headers
            .only(Known::Upgrade)
            .is_some_and(|chosen| chosen.eq_ignore_ascii_case(protocol))
}
