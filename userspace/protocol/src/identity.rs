//! The messages of `pierhead.v1.Identity/Sign`: how a node comes by its certificate.

use std::fmt;

use bytes::Bytes;

#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
pub struct SignRequest {
    /// PKCS#10 in DER, signed by the node's key (ECDSA P-256). Only the key counts: the controller decides the name.
    #[prost(bytes = "bytes", tag = "1")]
    pub csr_der: Bytes,
    /// A ServiceAccount token of the audience [`AUDIENCE`], bound to a pod on the node.
    #[prost(string, tag = "2")]
    pub token: String,
}

impl fmt::Debug for SignRequest {
    /// Never the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignRequest").finish_non_exhaustive()
    }
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SignResponse {
    /// DER, end entity first.
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub chain: Vec<Bytes>,
    /// The CA in DER.
    #[prost(bytes = "bytes", tag = "2")]
    pub ca: Bytes,
}

/// The audience of tokens by which nodes prove themselves.
pub const AUDIENCE: &str = "pierhead";
