//! Answers of our own.

use pierhead_http1::{BodyLength, Headers, Known, Name, OwnedValue, ResponseHead, Status, Value, encode};

use super::local;
use crate::observe::Reason;

/// An answer that no backend gives.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) reason: Reason,
    /// Further fields.
    pub(crate) headers: Option<Box<Headers>>,
    pub(crate) location: Option<OwnedValue>,
    /// In place of a text that repeats the status.
    pub(crate) body: Option<String>,
    /// Nothing more is read from this client.
    pub(crate) close: bool,
}

impl Reply {
    pub(crate) fn new(status: u16, reason: Reason) -> Self {
        Self {
            status,
            reason,
            headers: None,
            location: None,
            body: None,
            close: false,
        }
    }

    pub(crate) fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    /// Writes the head into `head`; returns the body's text.
    pub(crate) fn write(&self, grpc: bool, head: &mut ResponseHead) -> &str {
        head.clear();
        let status = Status::new(self.status).unwrap_or(Status::OK);
        encode::ensure_date(&mut head.headers, &local::date());
        if grpc && self.status >= 400 {
            // Trailers-Only: a gRPC client understands nothing else (gRPC over HTTP/2, "Responses").
            head.status = Status::OK;
            head.headers
                .append(Known::ContentType, Value::from_static("application/grpc"));
            head.headers.append_decimal(Known::GrpcStatus, grpc_status(self.status));
            if let Ok(message) = Value::new(status.reason().as_bytes()) {
                head.headers.append(Name::from(Known::GrpcMessage), message);
            }
            return "";
        }
        head.status = status;
        if let Some(headers) = &self.headers {
            head.headers.append_all(headers);
        }
        if let Some(location) = &self.location {
            head.headers.append(Known::Location, location.as_value());
        }
        let text = match &self.body {
            Some(body) => body.as_str(),
            None if self.status < 400 => "",
            None => status.reason(),
        };
        if !text.is_empty() && !head.headers.contains(Known::ContentType) {
            head.headers
                .append(Known::ContentType, Value::from_static("text/plain; charset=utf-8"));
        }
        text
    }

    pub(crate) fn length(text: &str) -> BodyLength {
        BodyLength::Exact(text.len() as u64)
    }
}

/// The mapping of the gRPC specification ("HTTP to gRPC Status Code Mapping").
fn grpc_status(status: u16) -> u64 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_client_gets_a_status_it_understands() {
        let mut head = ResponseHead::new();
        assert_eq!(Reply::new(404, Reason::NoRoute).write(true, &mut head), "");
        assert_eq!(head.status, Status::OK);
        assert_eq!(head.headers.only(Known::GrpcStatus), Some(&b"12"[..]));
        assert_eq!(Reply::new(404, Reason::NoRoute).write(false, &mut head), "Not Found");
        assert_eq!(head.status.code(), 404);
        assert!(head.headers.contains(Known::Date));
    }
}
