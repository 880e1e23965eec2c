//! How long an exchange may be silent.

use std::time::Duration;

use pierhead_http1::{Headers, Known};
use pierhead_model::Limits;

/// Media types whose silence is normal: they get the limit of streams, all others that of bodies.
pub(crate) fn idle_limit(headers: &Headers, limits: &Limits) -> Duration {
    let is_stream = headers.first(Known::ContentType).is_some_and(|media| {
        is_grpc(media) || starts_with(media, b"text/event-stream") || starts_with(media, b"multipart/x-mixed-replace")
    });
    if is_stream {
        limits.stream_idle_timeout
    } else {
        limits.body_idle_timeout
    }
}

/// `application/grpc`, `application/grpc+proto`, `application/grpc;…`; not gRPC-Web.
pub(crate) fn is_grpc(media: &[u8]) -> bool {
    let kind = b"application/grpc";
    starts_with(media, kind) && matches!(media.get(kind.len()), None | Some(b'+' | b';' | b' '))
}

fn starts_with(media: &[u8], kind: &[u8]) -> bool {
    media
        .get(..kind.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_told_from_what_looks_like_it() {
        for (media, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("Application/gRPC;charset=x", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            assert_eq!(is_grpc(media.as_bytes()), expected, "{media}");
        }
    }
}
