//! What can be wrong with a message, who answers how, and whether it smells of an attack.

/// Why a message was refused. After any of these the connection cannot be used for another message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Error {
    #[error("more than one empty line before the message")]
    EmptyLine,
    #[error("malformed method")]
    Method,
    #[error("method longer than {} bytes", crate::Method::MAX_LEN)]
    MethodTooLong,
    #[error("malformed request target")]
    Target,
    #[error("malformed protocol version")]
    Version,
    #[error("protocol version other than HTTP/1.0 and HTTP/1.1")]
    VersionUnsupported,
    #[error("malformed status line")]
    StatusLine,
    #[error("start line too long")]
    StartLineTooLong,
    #[error("LF without CR")]
    BareLf,
    #[error("CR without LF")]
    BareCr,
    #[error("line starts with whitespace (obsolete line folding)")]
    LineFolding,
    #[error("whitespace before the colon of a field")]
    SpaceBeforeColon,
    #[error("invalid character in a field name, or no colon")]
    FieldName,
    #[error("control character in a field value")]
    FieldValue,
    #[error("too many fields")]
    TooManyFields,
    #[error("header section too large")]
    HeadTooLarge,
    #[error("no Host")]
    HostMissing,
    #[error("more than one Host")]
    HostRepeated,
    #[error("malformed Host or authority")]
    Host,
    #[error("malformed Content-Length")]
    ContentLength,
    #[error("more than one Content-Length")]
    ContentLengthRepeated,
    #[error("both Content-Length and Transfer-Encoding")]
    LengthAndEncoding,
    #[error("malformed or repeated Transfer-Encoding")]
    TransferEncoding,
    #[error("transfer coding other than chunked")]
    TransferCodingUnsupported,
    #[error("Transfer-Encoding in a message that may not have one")]
    TransferEncodingForbidden,
    #[error("expectation other than 100-continue")]
    Expectation,
    #[error("malformed chunk size")]
    ChunkSize,
    #[error("chunk extensions too long or malformed")]
    ChunkExtension,
    #[error("chunk data not followed by CRLF")]
    ChunkEnd,
    #[error("body ended early")]
    BodyCutShort,
}

impl Error {
    /// The status a server answers when a request has this fault. The same fault in a response is always 502.
    pub const fn status(self) -> u16 {
        match self {
            Self::EmptyLine
            | Self::Method
            | Self::Target
            | Self::Version
            | Self::StatusLine
            | Self::BareLf
            | Self::BareCr
            | Self::LineFolding
            | Self::SpaceBeforeColon
            | Self::FieldName
            | Self::FieldValue
            | Self::HostMissing
            | Self::HostRepeated
            | Self::Host
            | Self::ContentLength
            | Self::ContentLengthRepeated
            | Self::LengthAndEncoding
            | Self::TransferEncoding
            | Self::TransferEncodingForbidden
            | Self::ChunkSize
            | Self::ChunkExtension
            | Self::ChunkEnd
            | Self::BodyCutShort => 400,
            Self::StartLineTooLong => 414,
            Self::Expectation => 417,
            Self::TooManyFields | Self::HeadTooLarge => 431,
            Self::MethodTooLong | Self::TransferCodingUnsupported => 501,
            Self::VersionUnsupported => 505,
        }
    }

    /// Whether two HTTP implementations are known to disagree about where such a message ends, so that it is
    /// worth counting as a smuggling attempt.
    pub const fn is_smuggling_suspicion(self) -> bool {
        match self {
            Self::BareLf
            | Self::BareCr
            | Self::LineFolding
            | Self::SpaceBeforeColon
            | Self::FieldName
            | Self::FieldValue
            | Self::HostRepeated
            | Self::ContentLength
            | Self::ContentLengthRepeated
            | Self::LengthAndEncoding
            | Self::TransferEncoding
            | Self::TransferCodingUnsupported
            | Self::TransferEncodingForbidden
            | Self::ChunkSize
            | Self::ChunkExtension
            | Self::ChunkEnd => true,
            Self::EmptyLine
            | Self::Method
            | Self::MethodTooLong
            | Self::Target
            | Self::Version
            | Self::VersionUnsupported
            | Self::StatusLine
            | Self::StartLineTooLong
            | Self::TooManyFields
            | Self::HeadTooLarge
            | Self::HostMissing
            | Self::Host
            | Self::Expectation
            | Self::BodyCutShort => false,
        }
    }
}
