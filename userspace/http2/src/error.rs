//! What can be wrong, and the code by which the peer is told.

use std::fmt;

use crate::HpackError;

/// An error code (RFC 9113 §7). Any number may come.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(pub u32);

impl Code {
    pub const NO_ERROR: Self = Self(0);
    pub const PROTOCOL_ERROR: Self = Self(1);
    pub const INTERNAL_ERROR: Self = Self(2);
    pub const FLOW_CONTROL_ERROR: Self = Self(3);
    pub const SETTINGS_TIMEOUT: Self = Self(4);
    pub const STREAM_CLOSED: Self = Self(5);
    pub const FRAME_SIZE_ERROR: Self = Self(6);
    pub const REFUSED_STREAM: Self = Self(7);
    pub const CANCEL: Self = Self(8);
    pub const COMPRESSION_ERROR: Self = Self(9);
    pub const CONNECT_ERROR: Self = Self(10);
    pub const ENHANCE_YOUR_CALM: Self = Self(11);
    pub const INADEQUATE_SECURITY: Self = Self(12);
    pub const HTTP_1_1_REQUIRED: Self = Self(13);

    const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::NO_ERROR => "NO_ERROR",
            Self::PROTOCOL_ERROR => "PROTOCOL_ERROR",
            Self::INTERNAL_ERROR => "INTERNAL_ERROR",
            Self::FLOW_CONTROL_ERROR => "FLOW_CONTROL_ERROR",
            Self::SETTINGS_TIMEOUT => "SETTINGS_TIMEOUT",
            Self::STREAM_CLOSED => "STREAM_CLOSED",
            Self::FRAME_SIZE_ERROR => "FRAME_SIZE_ERROR",
            Self::REFUSED_STREAM => "REFUSED_STREAM",
            Self::CANCEL => "CANCEL",
            Self::COMPRESSION_ERROR => "COMPRESSION_ERROR",
            Self::CONNECT_ERROR => "CONNECT_ERROR",
            Self::ENHANCE_YOUR_CALM => "ENHANCE_YOUR_CALM",
            Self::INADEQUATE_SECURITY => "INADEQUATE_SECURITY",
            Self::HTTP_1_1_REQUIRED => "HTTP_1_1_REQUIRED",
            _ => return None,
        })
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "code {}", self.0),
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a peer did wrong. Whether it ends the connection or one stream depends on where it is met: see
/// [`crate::Connection::read`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Error {
    #[error("no HTTP/2 preface")]
    Preface,
    #[error("the first frame is not SETTINGS")]
    NoSettings,
    #[error("a frame longer than was granted")]
    FrameTooLong,
    #[error("a frame of the wrong length")]
    FrameLength,
    #[error("padding longer than its frame")]
    Padding,
    #[error("a frame of a stream without its number")]
    NoStream,
    #[error("a frame of the connection with a stream's number")]
    OnStream,
    #[error("a stream number that the peer may not use")]
    StreamNumber,
    #[error("a frame for a stream that was never opened")]
    IdleStream,
    #[error("a frame for a stream that is over")]
    ClosedStream,
    #[error("a header block that is not continued, or continued without a beginning")]
    Continuation,
    #[error("a pushed stream, which nobody asked for")]
    Push,
    #[error("a setting out of its range")]
    Setting,
    #[error("an initial window that is too large")]
    InitialWindow,
    #[error("an acknowledgement of nothing")]
    Ack,
    #[error("a window update of zero")]
    ZeroUpdate,
    #[error("a window beyond 2^31-1")]
    WindowOverflow,
    #[error("more data than the window allows")]
    WindowExceeded,
    #[error("a stream that depends on itself")]
    SelfDependency,
    #[error("header block: {0}")]
    Hpack(#[from] HpackError),
    #[error("a header block far beyond the limit")]
    BlockTooLong,
    #[error("more fields than the limit allows")]
    FieldsTooLarge,
    #[error("malformed, missing or repeated pseudo-header field")]
    PseudoField,
    #[error("invalid character in the name of a field")]
    FieldName,
    #[error("invalid character in the value of a field")]
    FieldValue,
    #[error("a field that belongs to the connection")]
    ConnectionField,
    #[error("malformed or contradictory Content-Length")]
    ContentLength,
    #[error("another amount of data than Content-Length says")]
    LengthMismatch,
    #[error("trailers that do not end the stream")]
    TrailersNotLast,
    #[error("more streams than were granted")]
    TooManyStreams,
    #[error("too many streams given up")]
    ResetFlood,
    #[error("too many frames that carry nothing")]
    ControlFlood,
}

impl Error {
    /// The code by which the peer is told.
    pub const fn code(self) -> Code {
        match self {
            Self::Preface
            | Self::NoSettings
            | Self::Padding
            | Self::NoStream
            | Self::OnStream
            | Self::StreamNumber
            | Self::IdleStream
            | Self::Continuation
            | Self::Push
            | Self::Setting
            | Self::Ack
            | Self::ZeroUpdate
            | Self::SelfDependency
            | Self::PseudoField
            | Self::FieldName
            | Self::FieldValue
            | Self::ConnectionField
            | Self::ContentLength
            | Self::LengthMismatch
            | Self::FieldsTooLarge
            | Self::TrailersNotLast => Code::PROTOCOL_ERROR,
            Self::FrameTooLong | Self::FrameLength => Code::FRAME_SIZE_ERROR,
            Self::ClosedStream => Code::STREAM_CLOSED,
            Self::InitialWindow | Self::WindowOverflow | Self::WindowExceeded => Code::FLOW_CONTROL_ERROR,
            Self::Hpack(_) => Code::COMPRESSION_ERROR,
            Self::TooManyStreams => Code::REFUSED_STREAM,
            Self::BlockTooLong | Self::ResetFlood | Self::ControlFlood => Code::ENHANCE_YOUR_CALM,
        }
    }
}
