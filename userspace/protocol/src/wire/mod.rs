//! The messages, and the one place where they meet the model.
//!
//! Every type is taken apart and put together whole, so that a field or a variant that the model gains does not compile
//! here until it has a place on the wire. A number, once given to a field, never means anything else.

#[macro_use]
mod shape;
mod backend;
mod bind;
mod filter;
mod parts;
mod report;
mod route;
mod tls;

use std::fmt;

use bytes::Bytes;
use prost::Message;

pub(crate) use report::DataPathReportMessage;

/// Why bytes are no value of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Path of the field, `rules[0].backends[1].weight`; empty for the whole.
    pub field: String,
    /// What is wrong with it.
    pub why: String,
}

impl Malformed {
    pub(crate) fn new(why: impl Into<String>) -> Self {
        Self {
            field: String::new(),
            why: why.into(),
        }
    }

    fn inside(mut self, outer: &str) -> Self {
        let separator = if self.field.is_empty() || self.field.starts_with('[') {
            ""
        } else {
            "."
        };
        self.field = format!("{outer}{separator}{}", self.field);
        self
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.why)
    }
}

impl std::error::Error for Malformed {}

/// Names the field in which something is malformed.
pub(crate) trait At {
    fn at(self, field: &str) -> Self;
}

impl<T> At for Result<T, Malformed> {
    fn at(self, field: &str) -> Self {
        self.map_err(|malformed| malformed.inside(field))
    }
}

/// A value of the model that can travel.
pub(crate) trait Wire: Sized {
    type Message;

    fn to_message(&self) -> Self::Message;

    fn from_message(message: Self::Message) -> Result<Self, Malformed>;
}

/// The bytes of a value.
pub(crate) fn encode<T: Wire<Message: Message>>(value: &T) -> Bytes {
    value.to_message().encode_to_vec().into()
}

/// The value of these bytes.
///
/// What this version does not know is refused, not skipped: a policy that is left out is a policy that is not enforced. A
/// message that is read and written again is shorter when it held unknown fields, and longer when it lacked one that is
/// always there.
pub(crate) fn decode<T: Wire<Message: Message + Default>>(bytes: Bytes) -> Result<T, Malformed> {
    let length = bytes.len();
    let message = T::Message::decode(bytes).map_err(|error| Malformed::new(error.to_string()))?;
    let known = message.encoded_len();
    let value = T::from_message(message)?;
    if known != length {
        return Err(Malformed::new(
            "it has fields that this version does not know, or lacks some that it needs",
        ));
    }
    Ok(value)
}

/// What `Debug` shows of a certificate's message.
#[cfg(test)]
pub(crate) fn debug_of_certificate(body: Bytes) -> String {
    format!("{:?}", tls::CertificateMessage::decode(body).unwrap())
}
