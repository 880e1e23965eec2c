//! Names that the pipeline asks for by number instead of by text.

macro_rules! known {
    ($($variant:ident $text:literal,)*) => {
        /// A field name with a number, found once while parsing. The text is lower case.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Known { $(#[doc = $text] $variant,)* }

        impl Known {
            /// Every known name, in numeric order.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name in lower case.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

known! {
    Accept "accept",
    AcceptEncoding "accept-encoding",
    AcceptLanguage "accept-language",
    AcceptRanges "accept-ranges",
    AccessControlAllowCredentials "access-control-allow-credentials",
    AccessControlAllowHeaders "access-control-allow-headers",
    AccessControlAllowMethods "access-control-allow-methods",
    AccessControlAllowOrigin "access-control-allow-origin",
    AccessControlAllowPrivateNetwork "access-control-allow-private-network",
    AccessControlExposeHeaders "access-control-expose-headers",
    AccessControlMaxAge "access-control-max-age",
    AccessControlRequestHeaders "access-control-request-headers",
    AccessControlRequestMethod "access-control-request-method",
    AccessControlRequestPrivateNetwork "access-control-request-private-network",
    Age "age",
    Allow "allow",
    AltSvc "alt-svc",
    Authorization "authorization",
    Baggage "baggage",
    CacheControl "cache-control",
    Connection "connection",
    ContentDisposition "content-disposition",
    ContentEncoding "content-encoding",
    ContentLanguage "content-language",
    ContentLength "content-length",
    ContentLocation "content-location",
    ContentRange "content-range",
    ContentType "content-type",
    Cookie "cookie",
    Date "date",
    EarlyData "early-data",
    ETag "etag",
    Expect "expect",
    Expires "expires",
    Forwarded "forwarded",
    From "from",
    GrpcAcceptEncoding "grpc-accept-encoding",
    GrpcEncoding "grpc-encoding",
    GrpcMessage "grpc-message",
    GrpcStatus "grpc-status",
    GrpcTimeout "grpc-timeout",
    Host "host",
    Http2Settings "http2-settings",
    IfMatch "if-match",
    IfModifiedSince "if-modified-since",
    IfNoneMatch "if-none-match",
    IfRange "if-range",
    IfUnmodifiedSince "if-unmodified-since",
    KeepAlive "keep-alive",
    LastModified "last-modified",
    Link "link",
    Location "location",
    MaxForwards "max-forwards",
    Origin "origin",
    Pragma "pragma",
    Priority "priority",
    ProxyAuthenticate "proxy-authenticate",
    ProxyAuthenticationInfo "proxy-authentication-info",
    ProxyAuthorization "proxy-authorization",
    ProxyConnection "proxy-connection",
    Range "range",
    Referer "referer",
    RetryAfter "retry-after",
    SecWebSocketAccept "sec-websocket-accept",
    SecWebSocketExtensions "sec-websocket-extensions",
    SecWebSocketKey "sec-websocket-key",
    SecWebSocketProtocol "sec-websocket-protocol",
    SecWebSocketVersion "sec-websocket-version",
    Server "server",
    SetCookie "set-cookie",
    StrictTransportSecurity "strict-transport-security",
    Te "te",
    Traceparent "traceparent",
    Tracestate "tracestate",
    Trailer "trailer",
    TransferEncoding "transfer-encoding",
    Upgrade "upgrade",
    UserAgent "user-agent",
    Vary "vary",
    Via "via",
    WwwAuthenticate "www-authenticate",
    XForwardedClientCert "x-forwarded-client-cert",
    XForwardedFor "x-forwarded-for",
    XForwardedHost "x-forwarded-host",
    XForwardedPort "x-forwarded-port",
    XForwardedPrefix "x-forwarded-prefix",
    XForwardedProto "x-forwarded-proto",
    XForwardedScheme "x-forwarded-scheme",
    XForwardedServer "x-forwarded-server",
    XOriginalForwardedFor "x-original-forwarded-for",
    XRealIp "x-real-ip",
    XRequestId "x-request-id",
    XScheme "x-scheme",
}

// A set of known names is one u128.
const _: () = assert!(Known::ALL.len() <= 128);

const NONE: u8 = u8::MAX;
const SLOTS: usize = 512;

/// No two known names share a slot: checked below, at compile time.
const fn slot(name: &[u8]) -> usize {
    let last = name.len() - 1;
    let first = (name[0] | 0x20) as usize;
    let middle = (name[name.len().saturating_sub(4)] | 0x20) as usize;
    let end = (name[last] | 0x20) as usize;
    (name.len() * MIX[0] + first * MIX[1] + middle * MIX[2] + end * MIX[3]) % SLOTS
}

// Found by search.
const MIX: [usize; 4] = [367, 361, 129, 78];

const fn table() -> [u8; SLOTS] {
    let mut table = [NONE; SLOTS];
    let mut at = 0;
    while at < Known::ALL.len() {
        let slot = slot(Known::ALL[at].as_str().as_bytes());
        assert!(table[slot] == NONE, "two known names share a slot: choose another MIX");
        table[slot] = at as u8;
        at += 1;
    }
    table
}

static TABLE: [u8; SLOTS] = table();

/// Longest known name in words of eight bytes.
const WORDS: usize = 5;

/// A known name as little-endian words, zero behind its end, and 0x20 under each of its letters: a text equals it in
/// any case exactly when its own words with those bits set do.
struct Folded {
    len: usize,
    words: [u64; WORDS],
    letters: [u64; WORDS],
}

const fn folded(name: &str) -> Folded {
    let name = name.as_bytes();
    assert!(name.len() <= WORDS * 8, "a known name is longer than its table");
    let mut entry = Folded {
        len: name.len(),
        words: [0; WORDS],
        letters: [0; WORDS],
    };
    let mut at = 0;
    while at < name.len() {
        let shift = at % 8 * 8;
        entry.words[at / 8] |= (name[at] as u64) << shift;
        if name[at].is_ascii_lowercase() {
            entry.letters[at / 8] |= 0x20 << shift;
        }
        at += 1;
    }
    entry
}

static FOLDED: [Folded; Known::ALL.len()] = {
    const EMPTY: Folded = Folded {
        len: 0,
        words: [0; WORDS],
        letters: [0; WORDS],
    };
    let mut all = [EMPTY; Known::ALL.len()];
    let mut at = 0;
    while at < all.len() {
        all[at] = folded(Known::ALL[at].as_str());
        at += 1;
    }
    all
};

/// Up to seven bytes as a little-endian word.
fn short_word(bytes: &[u8]) -> u64 {
    let len = bytes.len();
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        return u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << ((len - 4) * 8);
    }
    match bytes {
        [] => 0,
        [first, ..] => {
            let (middle, last) = (len / 2, len - 1);
            u64::from(*first) | u64::from(bytes[middle]) << (middle * 8) | u64::from(bytes[last]) << (last * 8)
        }
    }
}

impl Known {
    /// The number of `name`, in any case.
    pub fn of(name: &[u8]) -> Option<Self> {
        if name.is_empty() {
            return None;
        }
        let at = usize::from(TABLE[slot(name)]);
        let entry = FOLDED.get(at)?;
        if entry.len != name.len() {
            return None;
        }
        let (whole, rest) = name.as_chunks::<8>();
        let mut differ = 0;
        let mut expected = entry.words.iter().zip(&entry.letters);
        for (chunk, (word, letters)) in whole.iter().zip(&mut expected) {
            differ |= (u64::from_le_bytes(*chunk) | letters) ^ word;
        }
        if let Some((word, letters)) = expected.next()
            && !rest.is_empty()
        {
            // Eight bytes before the end, when there are, without those already compared.
            let last = name.last_chunk::<8>().map_or_else(
                || short_word(rest),
                |last| u64::from_le_bytes(*last) >> ((8 - rest.len()) * 8),
            );
            differ |= (last | letters) ^ word;
        }
        (differ == 0).then(|| Self::ALL[at])
    }

    /// As [`Known::of`], for constants.
    pub(crate) const fn of_static(name: &[u8]) -> Option<Self> {
        let mut at = 0;
        while at < Self::ALL.len() {
            if name.eq_ignore_ascii_case(Self::ALL[at].as_str().as_bytes()) {
                return Some(Self::ALL[at]);
            }
            at += 1;
        }
        None
    }

    pub(crate) const fn bit(self) -> u128 {
        1 << self as u8
    }
}

/// A set of known names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownSet(u128);

impl KnownSet {
    /// The set of `names`.
    pub const fn of(names: &[Known]) -> Self {
        Self(set(names))
    }

    pub(crate) const fn bits(self) -> u128 {
        self.0
    }
}

/// The set of `names`.
pub(crate) const fn set(names: &[Known]) -> u128 {
    let mut bits = 0;
    let mut at = 0;
    while at < names.len() {
        bits |= names[at].bit();
        at += 1;
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookups_agree_on_texts_that_differ_in_one_byte() {
        for &known in Known::ALL {
            let mut text = known.as_str().as_bytes().to_vec();
            for at in 0..text.len() {
                let byte = text[at];
                for other in 0..=255 {
                    text[at] = other;
                    assert_eq!(
                        Known::of(&text),
                        Known::of_static(&text),
                        "{:?}",
                        String::from_utf8_lossy(&text)
                    );
                }
                text[at] = byte;
            }
        }
    }

    #[test]
    fn every_known_name_is_found_in_any_case_and_nothing_else_is() {
        for &known in Known::ALL {
            let text = known.as_str();
            assert_eq!(text, text.to_ascii_lowercase());
            assert_eq!(Known::of(text.as_bytes()), Some(known));
            assert_eq!(Known::of(text.to_ascii_uppercase().as_bytes()), Some(known));
            assert_eq!(Known::of(format!("{text}x").as_bytes()), None);
            let mut other = text.as_bytes().to_vec();
            other[0] = b'!';
            assert_eq!(Known::of(&other), None);
        }
        assert_eq!(Known::of(b""), None);
        assert_eq!(Known::of(b"x-unheard-of"), None);
    }
}
