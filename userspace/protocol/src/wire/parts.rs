//! What several resources are made of: numbers, texts, times, addresses, names.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use ipnet::IpNet;
use pierhead_model::{HeaderName, HeaderValue, HostPattern, Hostname, Method, Origin, Pattern, WildcardDepth, intern};

use super::{At, Malformed, Wire};

macro_rules! as_it_is {
    ($($type:ty)*) => {$(
        impl Wire for $type {
            type Message = $type;

            fn to_message(&self) -> $type {
                self.clone()
            }

            fn from_message(message: $type) -> Result<Self, Malformed> {
                Ok(message)
            }
        }
    )*};
}

as_it_is!(bool u32 u64 i64 String);

impl Wire for u16 {
    type Message = u32;

    fn to_message(&self) -> u32 {
        (*self).into()
    }

    fn from_message(message: u32) -> Result<Self, Malformed> {
        Self::try_from(message).map_err(|_| Malformed::new(format!("{message} is larger than 65535")))
    }
}

impl Wire for Arc<str> {
    type Message = String;

    fn to_message(&self) -> String {
        (**self).to_owned()
    }

    fn from_message(message: String) -> Result<Self, Malformed> {
        Ok(intern(&message))
    }
}

impl Wire for Arc<[u8]> {
    type Message = Bytes;

    fn to_message(&self) -> Bytes {
        Bytes::copy_from_slice(self)
    }

    /// Copies: a slice of a received buffer would keep the whole of it.
    fn from_message(message: Bytes) -> Result<Self, Malformed> {
        Ok((*message).into())
    }
}

impl<T: Wire> Wire for Arc<T> {
    type Message = T::Message;

    fn to_message(&self) -> T::Message {
        (**self).to_message()
    }

    fn from_message(message: T::Message) -> Result<Self, Malformed> {
        T::from_message(message).map(Self::new)
    }
}

impl<T: Wire> Wire for Option<T> {
    type Message = Option<T::Message>;

    fn to_message(&self) -> Self::Message {
        self.as_ref().map(Wire::to_message)
    }

    fn from_message(message: Self::Message) -> Result<Self, Malformed> {
        message.map(T::from_message).transpose()
    }
}

wire_lists!(u16, Arc<str>, Arc<[u8]>, HeaderName, (HeaderName, HeaderValue));

/// Texts that are parsed on the way in.
macro_rules! parsed {
    ($($type:ident)*) => {$(
        impl Wire for $type {
            type Message = String;

            fn to_message(&self) -> String {
                self.as_str().to_owned()
            }

            fn from_message(message: String) -> Result<Self, Malformed> {
                Self::parse(&message).map_err(|error| Malformed::new(error.to_string()))
            }
        }
    )*};
}

parsed!(Hostname HeaderName HeaderValue Method);

impl Wire for Pattern {
    type Message = String;

    fn to_message(&self) -> String {
        self.as_str().to_owned()
    }

    /// Compiled once here, as the data plane will: what it cannot compile must not count as checked.
    fn from_message(message: String) -> Result<Self, Malformed> {
        match regex::bytes::Regex::new(&format!("^(?:{message})$")) {
            Ok(_) => Ok(Self::new_checked(&message)),
            Err(error) => Err(Malformed::new(error.to_string())),
        }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct HeaderMessage {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

impl Wire for (HeaderName, HeaderValue) {
    type Message = HeaderMessage;

    fn to_message(&self) -> HeaderMessage {
        let (name, value) = self;
        HeaderMessage {
            name: name.to_message(),
            value: value.to_message(),
        }
    }

    fn from_message(message: HeaderMessage) -> Result<Self, Malformed> {
        let HeaderMessage { name, value } = message;
        Ok((
            Wire::from_message(name).at("name")?,
            Wire::from_message(value).at("value")?,
        ))
    }
}

wire_struct! {
    Origin as OriginMessage {
        kind: String [string, tag = "1"],
        namespace: String [string, tag = "2"],
        name: String [string, tag = "3"],
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DurationMessage {
    #[prost(uint64, tag = "1")]
    seconds: u64,
    #[prost(uint32, tag = "2")]
    nanoseconds: u32,
}

impl Wire for Duration {
    type Message = DurationMessage;

    fn to_message(&self) -> DurationMessage {
        DurationMessage {
            seconds: self.as_secs(),
            nanoseconds: self.subsec_nanos(),
        }
    }

    fn from_message(message: DurationMessage) -> Result<Self, Malformed> {
        let DurationMessage { seconds, nanoseconds } = message;
        if nanoseconds >= 1_000_000_000 {
            return Err(Malformed::new(format!("{nanoseconds} ns are a second or more")));
        }
        Ok(Self::new(seconds, nanoseconds))
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct HostPatternMessage {
    /// 1 any, 2 wildcard of one label, 3 wildcard of many labels, 4 exact.
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(string, tag = "2")]
    name: String,
}

impl Wire for HostPattern {
    type Message = HostPatternMessage;

    fn to_message(&self) -> HostPatternMessage {
        let (kind, name) = match self {
            Self::Any => (1, String::new()),
            Self::Wildcard { suffix, depth } => {
                let kind = match depth {
                    WildcardDepth::One => 2,
                    WildcardDepth::Many => 3,
                };
                (kind, suffix.to_message())
            }
            Self::Exact(name) => (4, name.to_message()),
        };
        HostPatternMessage { kind, name }
    }

    fn from_message(message: HostPatternMessage) -> Result<Self, Malformed> {
        let HostPatternMessage { kind, name } = message;
        let depth = match kind {
            1 if name.is_empty() => return Ok(Self::Any),
            2 => WildcardDepth::One,
            3 => WildcardDepth::Many,
            4 => return Wire::from_message(name).map(Self::Exact).at("name"),
            other => return Err(Malformed::new(format!("{other} is no kind of host pattern"))),
        };
        let suffix = Wire::from_message(name).at("name")?;
        Ok(Self::Wildcard { suffix, depth })
    }
}

/// A list of patterns as a message, so that there can be none of it.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct HostPatternsMessage {
    #[prost(message, repeated, tag = "1")]
    patterns: Vec<HostPatternMessage>,
}

impl Wire for Vec<HostPattern> {
    type Message = HostPatternsMessage;

    fn to_message(&self) -> HostPatternsMessage {
        HostPatternsMessage {
            patterns: self.iter().map(Wire::to_message).collect(),
        }
    }

    fn from_message(message: HostPatternsMessage) -> Result<Self, Malformed> {
        let patterns = message.patterns.into_iter().enumerate();
        patterns
            .map(|(number, pattern)| Wire::from_message(pattern).at(&format!("[{number}]")))
            .collect()
    }
}

impl Wire for IpAddr {
    type Message = Bytes;

    fn to_message(&self) -> Bytes {
        match self {
            Self::V4(ip) => Bytes::copy_from_slice(&ip.octets()),
            Self::V6(ip) => Bytes::copy_from_slice(&ip.octets()),
        }
    }

    fn from_message(message: Bytes) -> Result<Self, Malformed> {
        if let Ok(octets) = <[u8; 4]>::try_from(&*message) {
            return Ok(Ipv4Addr::from(octets).into());
        }
        match <[u8; 16]>::try_from(&*message) {
            Ok(octets) => Ok(Ipv6Addr::from(octets).into()),
            Err(_) => Err(Malformed::new(format!("{} bytes are no IP address", message.len()))),
        }
    }
}

wire_lists!(IpAddr);

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SocketAddrMessage {
    #[prost(bytes = "bytes", tag = "1")]
    ip: Bytes,
    #[prost(uint32, tag = "2")]
    port: u32,
    /// Of IPv6 addresses that mean something on one link only.
    #[prost(uint32, tag = "3")]
    scope: u32,
}

impl Wire for SocketAddr {
    type Message = SocketAddrMessage;

    /// Without the flow label of IPv6, which is no part of an endpoint's identity.
    fn to_message(&self) -> SocketAddrMessage {
        SocketAddrMessage {
            ip: self.ip().to_message(),
            port: self.port().to_message(),
            scope: match self {
                Self::V4(_) => 0,
                Self::V6(address) => address.scope_id(),
            },
        }
    }

    fn from_message(message: SocketAddrMessage) -> Result<Self, Malformed> {
        let SocketAddrMessage { ip, port, scope } = message;
        let port = Wire::from_message(port).at("port")?;
        match Wire::from_message(ip).at("ip")? {
            IpAddr::V4(_) if scope != 0 => Err(Malformed::new("an IPv4 address has no scope").inside("scope")),
            ip @ IpAddr::V4(_) => Ok(Self::new(ip, port)),
            IpAddr::V6(ip) => Ok(SocketAddrV6::new(ip, port, 0, scope).into()),
        }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct IpNetMessage {
    #[prost(bytes = "bytes", tag = "1")]
    ip: Bytes,
    #[prost(uint32, tag = "2")]
    length: u32,
}

impl Wire for IpNet {
    type Message = IpNetMessage;

    fn to_message(&self) -> IpNetMessage {
        IpNetMessage {
            ip: self.addr().to_message(),
            length: self.prefix_len().into(),
        }
    }

    fn from_message(message: IpNetMessage) -> Result<Self, Malformed> {
        let IpNetMessage { ip, length } = message;
        let ip = Wire::from_message(ip).at("ip")?;
        let net = u8::try_from(length).ok().and_then(|length| Self::new(ip, length).ok());
        net.ok_or_else(|| Malformed::new(format!("{length} is no prefix length of {ip}")).inside("length"))
    }
}
