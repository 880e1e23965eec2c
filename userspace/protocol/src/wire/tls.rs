use std::fmt;

use bytes::Bytes;
use pierhead_model::{
    Certificate, CertificateUse, ClientAuth, ClientAuthMode, PrivateKey, TlsTermination, TrustAnchors,
};

use super::{Malformed, Wire, parts::HostPatternsMessage};

impl Wire for PrivateKey {
    type Message = Bytes;

    fn to_message(&self) -> Bytes {
        Bytes::copy_from_slice(self.secret_der())
    }

    fn from_message(message: Bytes) -> Result<Self, Malformed> {
        if message.is_empty() {
            return Err(Malformed::new("it is missing"));
        }
        Ok(Self::new(&message))
    }
}

wire_struct! {
    #[prost(skip_debug)]
    Certificate as CertificateMessage {
        id: String [string, tag = "1"],
        chain: Vec<Bytes> [bytes = "bytes", repeated, tag = "2"],
        key: Bytes [bytes = "bytes", tag = "3"],
        names: HostPatternsMessage [message, required, tag = "4"],
        not_before: i64 [sint64, tag = "5"],
        not_after: i64 [sint64, tag = "6"],
    }
    check |certificate| {
        !certificate.chain.is_empty() => "a chain has one certificate at least",
    }
}

impl fmt::Debug for CertificateMessage {
    /// Never the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateMessage")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

wire_struct! {
    TrustAnchors as TrustAnchorsMessage {
        id: String [string, tag = "1"],
        certificates: Vec<Bytes> [bytes = "bytes", repeated, tag = "2"],
    }
}

wire_struct! {
    TlsTermination as TlsTerminationMessage {
        certificates: Vec<CertificateUseMessage> [message, repeated, tag = "1"],
        client_auth: Option<ClientAuthMessage> [message, optional, tag = "2"],
    }
}

wire_lists!(CertificateUse);

wire_struct! {
    CertificateUse as CertificateUseMessage {
        names: HostPatternsMessage [message, required, tag = "1"],
        certificate: String [string, tag = "2"],
    }
}

wire_numbers! {
    ClientAuthMode { ValidOnly = 1, InsecureFallback = 2 }
}

wire_struct! {
    ClientAuth as ClientAuthMessage {
        trust: String [string, tag = "1"],
        mode: u32 [uint32, tag = "2"],
    }
}
